"""
The host that jobs run on: places, a queue of jobs without one, and a memory of stopped jobs.

Knows no service. Every change of state is a moment in a heap, which a caller's question brings up to date; there
are no timers. A place that became free a second ago was taken by the next job a second ago.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.runners import Runner

LOOK_SECONDS = 0.1
"""The time between two looks whether a job has started that is to be interrupted."""


@dataclass(slots=True)
class _Entry:
    job: Job
    life: Life
    pool: str
    not_before: float
    retention: float
    number: int
    placed: bool = False
    ended: bool = False


class Host:
    """
    Runs jobs with a runner, at most ``max_running`` at a time. Safe to use from any thread.

    A pool has a further limit once :meth:`resize` has given it one.

    :param max_running: None for no limit; a job beyond it waits in PROVISIONING
    :param retention: seconds that a stopped job is remembered (ECS: an hour)
    :param clock: wall-clock seconds; replace it to travel in time with a scripted runner
    :param ended: called with a job and the moment at which its last container ended; may call :meth:`follow`
    :param expired: called with a job when the host forgets it
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_running: int | None = None,
        retention: float = 3600.0,
        clock: Callable[[], float] = time.time,
        ended: Callable[[Job, float], None],
        expired: Callable[[Job], None],
    ) -> None:
        self.lock = threading.RLock()
        self.runner = runner
        self.max_running = max_running
        self.pools: dict[str, int] = {}
        self.retention = retention
        self.clock = clock
        self._ended = ended
        self._expired = expired
        self._entries: dict[str, _Entry] = {}
        self._waiting: dict[str, deque[_Entry]] = {}
        self._placed = 0
        self._used: Counter[str] = Counter()
        self._heap: list[tuple[float, int, str, int]] = []
        self._sequence = itertools.count()
        self._alarms: dict[int, Callable[[float], None]] = {}
        runner.open(self.lock, clock, self._reported)

    @property
    def running(self) -> int:
        """The number of jobs with a place."""
        with self.lock:
            self.settle()
            return self._placed

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a place."""
        with self.lock:
            self.settle()
            return sum(map(len, self._waiting.values()))

    def submit(
        self,
        job: Job,
        life: Life,
        *,
        pool: str = "",
        not_before: float = 0.0,
        retention: float | None = None,
    ) -> None:
        """
        Run a job as soon as there is a place for it.

        :param pool: the pool whose limit it counts against
        :param not_before: the job may take its place but does nothing before this moment
        :param retention: seconds that it is remembered after its end; None: as the host remembers others
        """
        with self.lock:
            now = self.settle()
            self._enter(job, life, pool, not_before, retention)
            self._fill(now)

    def follow(self, job: Job, life: Life, *, pool: str = "", not_before: float, retention: float | None) -> None:
        """Queue a job that succeeds one that has just ended; ``ended`` calls this."""
        self._enter(job, life, pool, not_before, retention)

    def reject(
        self, job: Job, life: Life, at: float, stop_code: str, reason: str, *, retention: float | None = None
    ) -> None:
        """Record a job that never gets a place and ends at this time."""
        with self.lock:
            self.settle()
            entry = self._entry(job, life, "", 0.0, retention)
            life.end(at, stop_code, reason)
            self._push(entry)

    def stop(self, job: Job, stop_code: str, reason: str) -> None:
        """Ask a job to end; do nothing if its end is already decided."""
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
        Take a job's host away, as a crash or a termination does.

        :param notice: seconds until the host is gone; until then the job runs on, but its stop code is visible
        :return: False if no container of the job ran any more
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

    def interrupt(self, job: Job, stop_code: str, reason: str, *, after: float = 0.0, gone: bool = False) -> None:
        """
        End a job from outside so many seconds after its start, unless it ends before.

        :param gone: its host vanishes: no warning and no exit codes; else the job is asked to end, as by a stop
        """
        with self.lock:
            self._interrupt(job, stop_code, reason, self.settle(), after=after, gone=gone)

    def _interrupt(self, job: Job, stop_code: str, reason: str, at: float, *, after: float, gone: bool) -> None:
        entry = self._entries.get(job.id)
        if entry is None or entry.life.doomed(at):
            return
        life = entry.life
        due = life.started_at + after if life.started_at is not None else max(at, self.clock()) + LOOK_SECONDS
        if life.started_at is None or at < due:
            self.alarm(due, lambda then: self._interrupt(job, stop_code, reason, then, after=after, gone=gone))
            return
        self._doom(life, at, stop_code, reason)
        (self.runner.lose if gone else self.runner.stop)(job, life, at)
        self._changed(job)

    def expel(self, job: Job, at: float, stop_code: str, reason: str) -> None:
        """End a job that still waits for a place; without effect on any other."""
        with self.lock:
            entry = self._entries.get(job.id)
            if entry is not None and not entry.placed and entry.life.ended_at is None:
                self._withdraw(entry, at, stop_code, reason)
                self._changed(job)

    def waiting_in(self, pool: str) -> int:
        """Return how many jobs wait for a place in a pool."""
        with self.lock:
            return len(self._waiting.get(pool, ()))

    def resize(self, pool: str, size: int | None, at: float) -> None:
        """Change how many jobs run at a time in a pool, None for no limit; those that wait take what is new."""
        with self.lock:
            if size is None:
                self.pools.pop(pool, None)
            else:
                self.pools[pool] = size
            self._fill(at)

    def alarm(self, at: float, what: Callable[[float], None]) -> None:
        """Have something done at a moment, with that moment; it may not ask for the time."""
        with self.lock:
            number = next(self._sequence)
            self._alarms[number] = what
            heapq.heappush(self._heap, (at, number, "", 0))

    def settle(self) -> float:
        """Carry out every change whose moment is in the past; return the present time."""
        now = self.clock()
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, number, job_id, changes = heapq.heappop(heap)
            alarm = self._alarms.pop(number, None)
            if alarm is not None:
                alarm(at)
                continue
            entry = self._entries.get(job_id)
            if entry is None or entry.life.changes != changes:
                continue
            if not entry.ended:
                self._end(entry, at)
            elif entry.life.stopped_at is not None and at >= entry.life.stopped_at + entry.retention:
                del self._entries[job_id]
                self._expired(entry.job)
        return now

    def forget(self, job: Job) -> None:
        """Drop a job at once; its end is not reported."""
        with self.lock:
            entry = self._entries.pop(job.id, None)
            if entry is not None and entry.placed and not entry.ended:
                self._placed -= 1
                self._used[entry.pool] -= 1

    def close(self, timeout: float) -> None:
        """End every job; on return no process is left."""
        with self.lock:
            now = self.settle()
            for waiting in self._waiting.values():
                for entry in waiting:
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
        self._leave(entry)
        entry.life.end(now, stop_code, reason)

    def _enter(self, job: Job, life: Life, pool: str, not_before: float, retention: float | None) -> None:
        entry = self._entry(job, life, pool, not_before, retention)
        self._waiting.setdefault(pool, deque()).append(entry)

    def _entry(self, job: Job, life: Life, pool: str, not_before: float, retention: float | None) -> _Entry:
        kept = self.retention if retention is None else retention
        entry = self._entries[job.id] = _Entry(job, life, pool, not_before, kept, next(self._sequence))
        return entry

    def _leave(self, entry: _Entry) -> None:
        waiting = self._waiting.get(entry.pool)
        if waiting is not None:
            with contextlib.suppress(ValueError):
                waiting.remove(entry)

    def _fill(self, at: float) -> None:
        """Place the jobs that have waited longest, as long as there is room."""
        while self.max_running is None or self._placed < self.max_running:
            heads = [
                waiting[0]
                for pool, waiting in self._waiting.items()
                if waiting and (pool not in self.pools or self._used[pool] < self.pools[pool])
            ]
            if not heads:
                return
            entry = min(heads, key=lambda e: e.number)
            self._waiting[entry.pool].popleft()
            self._place(entry, at)

    def _place(self, entry: _Entry, at: float) -> None:
        entry.placed = True
        self._placed += 1
        self._used[entry.pool] += 1
        self.runner.start(entry.job, entry.life, max(at, entry.not_before))
        self._changed(entry.job)

    def _end(self, entry: _Entry, at: float) -> None:
        entry.ended = True
        self.runner.forget(entry.job)
        if entry.placed:
            self._placed -= 1
            self._used[entry.pool] -= 1
        self._ended(entry.job, at)
        self._push(entry)
        self._fill(at)

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
            at = life.stopped_at + entry.retention if life.stopped_at is not None else None
        if at is not None:
            heapq.heappush(self._heap, (at, next(self._sequence), entry.job.id, life.changes))
