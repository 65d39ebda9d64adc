"""
Where jobs run: places, a queue for what finds none, and the memory of what has stopped.

Knows no service. Every change of state is a moment in a heap that is looked at when somebody asks, not a
timer: a place that became free a second ago was taken by the next job a second ago.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.runners import Runner


@dataclass(slots=True)
class _Entry:
    job: Job
    life: Life
    placed: bool = False
    ended: bool = False


class Host:
    """
    Runs jobs with a runner, at most ``max_running`` at a time. Safe to use from any thread.

    :param max_running: None for no limit; a job beyond it waits in PROVISIONING
    :param retention: seconds that a stopped job is remembered (ECS: an hour)
    :param clock: wall-clock seconds; replace it to travel in time with a scripted runner
    :param ended: called with a job when nothing of it runs any more
    :param expired: called with a job when it is to be forgotten
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_running: int | None = None,
        retention: float = 3600.0,
        clock: Callable[[], float] = time.time,
        ended: Callable[[Job], None],
        expired: Callable[[Job], None],
    ) -> None:
        self.lock = threading.RLock()
        self.runner = runner
        self.max_running = max_running
        self.retention = retention
        self.clock = clock
        self._ended = ended
        self._expired = expired
        self._entries: dict[str, _Entry] = {}
        self._waiting: deque[_Entry] = deque()
        self._placed = 0
        self._heap: list[tuple[float, int, str, int]] = []
        self._sequence = itertools.count()
        runner.open(self.lock, clock, self._reported)

    @property
    def running(self) -> int:
        """How many jobs have a place."""
        with self.lock:
            self.settle()
            return self._placed

    @property
    def waiting(self) -> int:
        """How many jobs wait for a place."""
        with self.lock:
            self.settle()
            return len(self._waiting)

    def submit(self, job: Job, life: Life) -> None:
        """Run a job as soon as there is a place for it."""
        with self.lock:
            now = self.settle()
            entry = self._entries[job.id] = _Entry(job, life)
            if self.max_running is None or self._placed < self.max_running:
                self._place(entry, now)
            else:
                self._waiting.append(entry)

    def stop(self, job: Job, stop_code: str, reason: str) -> None:
        """Ask a job to end; without effect if it is on its way out already."""
        with self.lock:
            now = self.settle()
            entry = self._entries.get(job.id)
            if entry is None or entry.life.doomed(now):
                return
            self._doom(entry.life, now, stop_code, reason)
            if entry.placed:
                self.runner.stop(job, entry.life, now)
            else:
                self._withdraw(entry, now, stop_code, reason)
            self._changed(job)

    def lose(self, job: Job, stop_code: str, reason: str, notice: float = 0.0) -> bool:
        """
        Let a job's host vanish, as if it had crashed or been taken away.

        :param notice: seconds until it does; until then the job runs on, but the verdict is visible
        :return: False if nothing of the job ran any more
        """
        with self.lock:
            now = self.settle()
            entry = self._entries.get(job.id)
            if entry is None or entry.life.ended(now):
                return False
            self._doom(entry.life, now, stop_code, reason)
            if entry.placed:
                self.runner.lose(job, entry.life, now + notice)
            else:
                self._withdraw(entry, now, stop_code, reason)
            self._changed(job)
            return True

    def settle(self) -> float:
        """Let everything happen that has a moment in the past; give the time."""
        now = self.clock()
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, job_id, changes = heapq.heappop(heap)
            entry = self._entries.get(job_id)
            if entry is None or entry.life.changes != changes:
                continue
            if not entry.ended:
                self._end(entry, at)
            elif entry.life.stopped_at is not None and at >= entry.life.stopped_at + self.retention:
                del self._entries[job_id]
                self._expired(entry.job)
        return now

    def forget(self, job: Job) -> None:
        """Drop a job at once; its end will not be reported."""
        with self.lock:
            entry = self._entries.pop(job.id, None)
            if entry is not None and entry.placed and not entry.ended:
                self._placed -= 1

    def close(self, timeout: float) -> None:
        """End everything; on return no process is left."""
        with self.lock:
            now = self.settle()
            for entry in self._waiting:
                entry.life.end(now, "UserInitiated", "The server is shutting down.")
            self._waiting.clear()
        self.runner.close(timeout)
        with self.lock:
            self.settle()

    def _doom(self, life: Life, now: float, stop_code: str, reason: str) -> None:
        life.doomed_at = min(now, life.doomed_at) if life.doomed_at is not None else now
        life.stop_code = stop_code
        life.stopped_reason = reason
        life.touch()

    def _withdraw(self, entry: _Entry, now: float, stop_code: str, reason: str) -> None:
        self._waiting.remove(entry)
        entry.life.end(now, stop_code, reason)

    def _place(self, entry: _Entry, at: float) -> None:
        entry.placed = True
        self._placed += 1
        self.runner.start(entry.job, entry.life, at)
        self._changed(entry.job)

    def _end(self, entry: _Entry, at: float) -> None:
        entry.ended = True
        self.runner.forget(entry.job)
        self._ended(entry.job)
        self._push(entry)
        if entry.placed:
            self._placed -= 1
            while self._waiting and (self.max_running is None or self._placed < self.max_running):
                self._place(self._waiting.popleft(), at)

    def _reported(self, job: Job) -> None:
        with self.lock:
            self._changed(job)
            self.settle()

    def _changed(self, job: Job) -> None:
        entry = self._entries.get(job.id)
        if entry is not None:
            self._push(entry)

    def _push(self, entry: _Entry) -> None:
        life = entry.life
        if not entry.ended:
            at = life.ended_at
        else:
            at = life.stopped_at + self.retention if life.stopped_at is not None else None
        if at is not None:
            heapq.heappush(self._heap, (at, next(self._sequence), entry.job.id, life.changes))
