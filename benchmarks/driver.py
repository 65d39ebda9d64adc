"""Drives an executor as a scheduler does: queues workloads, makes heartbeats, takes the events."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks import executors
from benchmarks.cells import ALL_OURS, Cell
from benchmarks.meters import Heartbeats, Spinner

TIMEOUT = 240.0


class Progress(Protocol):
    """Reports how far a cell has got."""

    def __call__(self, **done: float) -> None:
        """Report the counts so far."""
        ...


class Run:
    """An executor with heartbeats, and the state of its workloads."""

    def __init__(self, cell: Cell, progress: Progress) -> None:
        self.cell = cell
        self.executor = executors.start(cell.subject)
        self.heartbeats = Heartbeats(self.executor.heartbeat)
        self.expected: set[Any] = set()
        self.launched: set[Any] = set()
        self.finished: set[Any] = set()
        self._progress = progress
        self._made: list[Any] = []
        # A scheduler makes many heartbeats before its first workload; the first one imports parts of Airflow.
        self.heartbeats.beat()
        self._deadline = time.monotonic() + TIMEOUT

    def beat(self) -> bool:
        """Make one heartbeat; return whether it brought events."""
        self.heartbeats.beat()
        news = executors.events(self.executor)
        for key, state in news:
            if key not in self.expected:
                continue  # adopted
            # A container that ends before the first poll has only the one event.
            self.launched.add(key)
            if state == "success" or (state == "failed" and self.cell.failing):
                self.finished.add(key)
            elif state != "running":
                raise RuntimeError(f"a workload ended as {state}")
        if news:
            self._progress(launched=len(self.launched), finished=len(self.finished))
        return bool(news)

    def adopt(self, arns: Sequence[str]) -> tuple[float, float]:
        """
        Adopt running containers.

        :returns: the seconds in ``try_adopt_task_instances``, and the seconds until all are known to run
        """
        tis = executors.orphans(arns)
        begun = time.perf_counter()
        seconds = executors.adopt(self.cell.subject, self.executor, tis)
        if self.cell.subject not in ALL_OURS:
            return seconds, seconds
        while self.executor.statistics().active < len(self.executor.running):
            self.beat()
            time.sleep(executors.BUSY)
            if time.monotonic() > self._deadline:
                raise TimeoutError("not all adopted containers are found")
        resolved = time.perf_counter() - begun
        while executors.events(self.executor):
            self.beat()
        return seconds, resolved

    def beat_until(self, done: Callable[[], bool], *, spinner: Spinner | None = None) -> None:
        """
        Make heartbeats like a scheduler: at once after one that brought events, else a second later.

        :raises TimeoutError: if it is not done in time
        """
        while True:
            busy = self.beat() or bool(self.executor.slots_occupied - len(self.executor.running))
            if done():
                return
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"{len(self.launched)} launched, {len(self.finished)} finished")
            pause = executors.BUSY if busy else executors.IDLE
            if spinner is not None:
                spinner.spin(pause)
            else:
                time.sleep(pause)

    def beat_for(self, seconds: float, *, spinner: Spinner | None = None) -> None:
        """Make the heartbeats of a busy scheduler for this many seconds."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self.beat()
            pause = min(executors.BUSY, max(0.0, left))
            if spinner is not None:
                spinner.spin(pause)
            else:
                time.sleep(pause)

    def queue(self, number: int) -> None:
        """Queue this number of workloads as the scheduler does."""
        self.make(number)
        gc.collect()
        self.hand_over()

    def make(self, number: int) -> None:
        """Make this number of workloads, which :meth:`hand_over` queues."""
        self._made = executors.workloads(number, self.executor.jwt_generator)
        self.expected = {executors.key_of(self.executor, workload.ti) for workload in self._made}

    def hand_over(self) -> None:
        """Queue the workloads that were made."""
        made, self._made = self._made, []
        for workload in made:
            self.executor.queue_workload(workload, session=None)

    def forget(self) -> None:
        """Forget the workloads that have finished, and all that was recorded."""
        self.launched.clear()
        self.finished.clear()
        self.heartbeats.forget()

    def end(self) -> None:
        """End the executor."""
        executors.end(self.cell.subject, self.executor)
