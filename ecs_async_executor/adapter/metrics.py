"""
The executor's metrics, sent through Airflow's own.

May import ``compat``, ``core`` and ``engine`` (for its statistics). Main thread only. StatsD takes a packet for
each value, so :meth:`Metrics.emit` stops when its time is over and goes on in the next ``sync()``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from ecs_async_executor.adapter.compat import stats
from ecs_async_executor.core import metrics
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.metrics import COUNTERS, ENGINE_RESTARTS, FAILURES, Measure, Metric, launches_at
from ecs_async_executor.engine.statistics import SILENT, Statistics

METRICS_INTERVAL = 5.0
"""Seconds."""
EMITTING_BUDGET = 0.0005
"""Seconds of one ``sync()``: some thirty packets."""


def _paused(statistics: Statistics) -> int:
    return int(statistics.paused not in {None, SILENT})


GAUGES: Mapping[Metric, Callable[[Statistics], float]] = {
    metrics.PENDING: attrgetter("pending"),
    metrics.LAUNCHING: attrgetter("launching"),
    metrics.ACTIVE: attrgetter("active"),
    metrics.OLDEST_UNLAUNCHED: attrgetter("oldest_pending_age"),
    metrics.LAUNCH_RATE: attrgetter("launch_rate"),
    metrics.GATES_CLOSED: attrgetter("closed_gates"),
    metrics.CAPACITY_WAIT: attrgetter("capacity_wait"),
    metrics.REFUSED_WAIT: attrgetter("refused_wait"),
    metrics.PAUSED: _paused,
    metrics.DESTINATIONS_DOWN: lambda now: sum(one.trouble is not None for one in now.destinations),
    metrics.EVENTS_DISTRUSTED: lambda now: sum(not one.trusted for one in now.events),
    metrics.LOOP_LAG: attrgetter("loop_lag"),
    metrics.HOOK_HANGS: attrgetter("hook_hangs"),
    metrics.OUTBOX: attrgetter("outbox"),
}


class Metrics:
    """
    The metrics of one executor: gauges and counters every ``METRICS_INTERVAL``, durations as they come.

    :param prefix: what their names begin with
    :param team_name: becomes a tag
    :param monotonic: the clock, in seconds
    """

    def __init__(
        self, prefix: str, team_name: str | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._prefix = prefix
        self._tags = {"team_name": team_name} if team_name else None
        self._monotonic = monotonic
        self._due = 0.0
        self._waiting: deque[tuple[Metric, float]] = deque()
        self._failures = dict.fromkeys(Ending, 0)
        self._sent: dict[Metric, int] = {}

    def timer(self, metric: Metric) -> Any:
        """Return a context manager that times its block."""
        return stats.timer(f"{self._prefix}.{metric.name}", tags=self._tags)

    def failed(self, ending: Ending) -> None:
        """Count a launch that has failed."""
        self._failures[ending] += 1

    def emit(self, statistics: Callable[[], Statistics], samples: deque[tuple[Metric, float]]) -> None:
        """
        Send what is due, for ``EMITTING_BUDGET`` at most; the rest waits for the next call.

        :param statistics: returns the present figures
        :param samples: durations in seconds, taken from the left; another thread adds to it
        """
        now = self._monotonic()
        if now >= self._due and not self._waiting:
            self._due = now + METRICS_INTERVAL
            self._waiting.extend(self._values(statistics()))
        until = now + EMITTING_BUDGET
        for source in (self._waiting, samples):
            while source:
                metric, value = source.popleft()
                self._send(metric, value)
                if self._monotonic() >= until:
                    return

    def _values(self, current: Statistics) -> Iterator[tuple[Metric, float]]:
        for gauge, value in GAUGES.items():
            yield gauge, value(current)
        totals = {ENGINE_RESTARTS: current.restarts}
        totals.update((FAILURES[ending], count) for ending, count in self._failures.items())
        totals.update((launches_at(choice), count) for choice, count in current.chosen.items())
        for counter in (*COUNTERS, *map(launches_at, current.chosen)):
            total = totals[counter] if counter in totals else current.counts.get(counter.name, 0)
            sent = self._sent.get(counter)
            # Each begins with what it is, 0 too: else a first rise from nothing would be no rise to Prometheus.
            if sent is None or total > sent:
                self._sent[counter] = total
                yield counter, total - (sent or 0)

    def _send(self, metric: Metric, value: float) -> None:
        name = f"{self._prefix}.{metric.name}"
        if metric.measure is Measure.GAUGE:
            stats.gauge(name, value, tags=self._tags)
        elif metric.measure is Measure.COUNTER:
            stats.incr(name, int(value), tags=self._tags)
        else:
            stats.timing(name, value * 1000.0, tags=self._tags)
