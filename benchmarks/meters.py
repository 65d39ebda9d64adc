"""Meters of a heartbeat: wall clock, CPU of the main thread, pauses of the garbage collector."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; 0 if there are no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


OLDEST = 2
"""The generation of full collections."""


class Collections:
    """
    The garbage collector's pauses. A pause in any thread stops all threads.

    A real scheduler's process holds many more objects and has longer pauses, whatever the executor does.
    """

    def __init__(self) -> None:
        self.pauses: list[tuple[float, float, int]] = []
        self.cpu: list[tuple[float, int]] = []
        self._since = 0.0
        self._cpu_since = 0.0

    def _called(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._since = time.perf_counter()
            self._cpu_since = time.thread_time()  # it is one thread that collects
        else:
            self.cpu.append((time.thread_time() - self._cpu_since, info["generation"]))
            self.pauses.append((self._since, time.perf_counter(), info["generation"]))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record pauses while this is open."""
        gc.callbacks.append(self._called)
        try:
            yield
        finally:
            gc.callbacks.remove(self._called)

    def within(self, start: float, end: float) -> float:
        """Return the seconds of pauses between two moments."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until, _ in self.pauses)

    def figures(self) -> dict[str, float]:
        """
        Return the number of pauses, their total and the longest, in seconds.

        On a machine with other work a pause is longer than its CPU. Those of the oldest generation go through all
        that is not exempt.
        """
        lengths = [until - since for since, until, _ in self.pauses]
        full = [seconds for seconds, generation in self.cpu if generation == OLDEST]
        return {
            "gc_pauses": len(lengths),
            "gc_total_s": sum(lengths),
            "gc_max_s": max(lengths, default=0.0),
            "gc_cpu_max_s": max((seconds for seconds, _ in self.cpu), default=0.0),
            "full_gc_pauses": len(full),
            "full_gc_cpu_max_s": max(full, default=0.0),
        }

    def forget(self) -> None:
        """Drop all records."""
        self.pauses.clear()
        self.cpu.clear()


class Heartbeats:
    """Makes heartbeats and records the time of each."""

    def __init__(self, heartbeat: Callable[[], Any]) -> None:
        self._heartbeat = heartbeat
        self.collections = Collections()
        self.spans: list[tuple[float, float]] = []
        self.cpu: list[float] = []

    def beat(self) -> None:
        """Make a heartbeat."""
        cpu, start = time.thread_time(), time.perf_counter()
        self._heartbeat()
        end = time.perf_counter()
        self.cpu.append(time.thread_time() - cpu)
        self.spans.append((start, end))

    def forget(self) -> None:
        """Drop all records."""
        self.spans.clear()
        self.cpu.clear()
        self.collections.forget()

    def figures(self) -> dict[str, float]:
        """Return percentiles and maxima, with and without the collector's pauses."""
        wall = [end - start for start, end in self.spans]
        without = [end - start - self.collections.within(start, end) for start, end in self.spans]
        return {
            "heartbeats": len(wall),
            "heartbeat_p50_s": percentile(wall, 0.5),
            "heartbeat_p99_s": percentile(wall, 0.99),
            "heartbeat_max_s": max(wall, default=0.0),
            "heartbeat_p99_without_gc_s": percentile(without, 0.99),
            "heartbeat_max_without_gc_s": max(without, default=0.0),
            "heartbeat_cpu_mean_s": sum(self.cpu) / max(1, len(self.cpu)),
            "heartbeat_cpu_p99_s": percentile(self.cpu, 0.99),
            "heartbeat_cpu_max_s": max(self.cpu, default=0.0),
            **self.collections.figures(),
        }


class Spinner:
    """A main thread that computes; its rounds per second are its speed."""

    ROUND = 2_000

    def __init__(self) -> None:
        self.rounds = 0

    def spin(self, seconds: float) -> None:
        """Compute for this many seconds."""
        until = time.perf_counter() + seconds
        total = 0
        while time.perf_counter() < until:
            for number in range(self.ROUND):
                total += number & 7
            self.rounds += 1

    @classmethod
    def speed(cls, seconds: float) -> float:
        """Return the rounds per second of a process that does nothing else."""
        spinner, start = cls(), time.perf_counter()
        spinner.spin(seconds)
        return spinner.rounds / (time.perf_counter() - start)
