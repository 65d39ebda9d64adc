"""
The scenario ``events``: how soon ends are seen, and for how many reads, with events and by polling alone.

Half of the containers that end have run for long, the others are young: sweeps look at young ones more often.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import executors
from benchmarks.cells import Cell, Figures
from benchmarks.meters import Heartbeats, percentile
from benchmarks.servers import Server

YOUNG = 120.0
"""Seconds for which adopted containers are young to the executor."""
STRETCHED = 60.0
"""Seconds between two sweeps while events come."""
SETTLES = 10.0
"""Seconds of ends before a measurement, so that short containers end in it from its start."""
MOST_SETTLING = 90.0
"""Seconds until sweeps have to be stretched."""
SEEN_WITHIN = 70.0
"""Seconds in which an end has to be seen, at most: a stretched sweep and the time that it takes."""
TIMEOUT = 200.0
OPERATIONS = ("DescribeTasks", "ReceiveMessage", "DeleteMessageBatch")


class Watched:
    """
    An executor whose containers run and end while it makes heartbeats.

    :param per_second: how many containers begin and end in a second, half of them short ones
    """

    def __init__(self, cell: Cell, server: Server, per_second: float) -> None:
        self.executor = executors.start(cell.subject)
        self.server = server
        self.heartbeats = Heartbeats(self.executor.heartbeat)
        self.heartbeats.beat()
        self.seen: dict[Any, float] = {}
        self._per_second = per_second
        self._keys: dict[str, Any] = {}
        self._left: list[Any] = []
        self._next = 0.0

    def adopt(self, cell: Cell, arns: Sequence[str]) -> None:
        """Adopt the containers that run for long; return once all are known to run."""
        tis = executors.orphans(arns)
        self._keys = dict(zip(arns, (executors.key_of(self.executor, ti) for ti in tis), strict=True))
        executors.adopt(cell.subject, self.executor, tis)
        self.until(lambda: self.executor.statistics().active == len(arns), TIMEOUT)

    def begin(self, seconds: float) -> None:
        """Have containers begin and end from now on, for so many seconds at most."""
        self._left = executors.workloads(int(seconds * self._per_second / 2), self.executor.jwt_generator)
        self._keys |= {one.ti.external_executor_id: executors.key_of(self.executor, one.ti) for one in self._left}
        self._next = time.time()
        self.server.ask("end", {"per_second": self._per_second / 2})

    def beat(self) -> None:
        """Make one heartbeat of a busy scheduler, and note what has ended."""
        while self._left and self._next <= time.time():
            self.executor.queue_workload(self._left.pop(), session=None)
            self._next += 2 / self._per_second
        self.heartbeats.beat()
        now = time.time()
        for key, state in executors.events(self.executor):
            if state in ("success", "failed"):
                self.seen[key] = now
        time.sleep(executors.BUSY)

    def until(self, done: Callable[[], bool], seconds: float) -> float:
        """
        Make heartbeats until something is so; return the seconds that it took.

        :raises TimeoutError: if it is not so in time
        """
        begun = time.time()
        while not done():
            if time.time() > begun + seconds:
                raise TimeoutError
            self.beat()
        return time.time() - begun

    def beat_for(self, seconds: float) -> None:
        """Make heartbeats for so many seconds."""
        until = time.time() + seconds
        while time.time() < until:
            self.beat()

    def interval(self) -> float:
        """Return the seconds between two sweeps, as the executor shows them."""
        [home] = self.executor.statistics().events
        return float(home.sweep_interval)

    def delays(self, since: float, until: float) -> tuple[list[float], list[float]]:
        """
        Wait until all ends within a time are seen; return for how long they were not known.

        :returns: of all containers, and of those that have run for long
        """
        ends = [
            (self._keys[mark or arn], at, not mark)
            for arn, mark, at in self.server.ask("ends")["ends"]
            if since <= at < until
        ]
        self.until(lambda: all(key in self.seen for key, _, _ in ends), SEEN_WITHIN)
        every = [self.seen[key] - at for key, at, _ in ends]
        return every, [delay for delay, (_, _, long) in zip(every, ends, strict=True) if long]


def events(cell: Cell, server: Server, _: object) -> Figures:
    """Measure ``seconds`` of ends beside ``running`` containers; then, if the cell has a size, without a rule."""
    listens = "events_queue_url" in cell.tuning
    if listens:  # only now the address of the server is known
        os.environ["AIRFLOW__ECS_ASYNC_EXECUTOR__EVENTS_QUEUE_URL"] = server.url + cell.tuning["events_queue_url"]
    watched = Watched(cell, server, per_second=5.0)
    watched.adopt(cell, server.preload(cell.running))
    assert cell.duration is not None
    settling = cell.duration + SETTLES
    brief = cell.seconds < SETTLES  # too brief for events to be trusted, and to show more than that all works
    if not brief:
        watched.beat_for(YOUNG - settling)
    watched.begin(MOST_SETTLING + 2 * cell.seconds + SEEN_WITHIN)
    watched.beat_for(settling)
    if listens and not brief:
        watched.until(lambda: watched.interval() == STRETCHED, MOST_SETTLING)
    before, since, cpu = _calls(server), time.time(), time.process_time()
    watched.beat_for(cell.seconds)
    until = time.time()
    minutes = (until - since) / 60.0
    figures: Figures = {
        "cpu_share": (time.process_time() - cpu) / (until - since),
        **{f"{name}_per_minute": (calls - before[name]) / minutes for name, calls in _calls(server).items()},
        **_percentiles("seen", *watched.delays(since, until)),
    }
    if cell.size:
        server.ask("rule", {"there": False})
        since = time.time()
        figures["polling_again_after_s"] = watched.until(lambda: watched.interval() < STRETCHED, STRETCHED)
        figures["interval_then_s"] = watched.interval()
        back = time.time()
        watched.beat_for(cell.seconds)
        figures |= _percentiles("seen_meanwhile", *watched.delays(since, back))
        figures |= _percentiles("seen_then", *watched.delays(back + 2.0, time.time()))
    figures |= watched.heartbeats.figures()
    executors.end(cell.subject, watched.executor)
    return figures


def _calls(server: Server) -> dict[str, int]:
    return {name: server.calls(name)[0] for name in OPERATIONS}


def _percentiles(name: str, every: Sequence[float], long: Sequence[float]) -> Figures:
    figures: Figures = {f"{name}": len(every), f"{name}_max_s": max(every, default=0.0)}
    for of, delays in (("", every), ("_long", long)):
        figures |= {f"{name}{of}_p50_s": percentile(delays, 0.5), f"{name}{of}_p99_s": percentile(delays, 0.99)}
    return figures
