"""
What the scheduler's thread says about the executor: log lines and metrics.

May import ``engine`` (for its statistics) and ``compat``. Draining the outbox must make no system call: it only
collects log lines, and :meth:`LogLines.write` writes them afterwards, some at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from ecs_async_executor.adapter.compat import stats
from ecs_async_executor.engine.statistics import Statistics

log = structlog.get_logger(__name__)

METRICS_INTERVAL = 5.0
"""Seconds."""
LINES_KEPT = 10_000
WRITING_BUDGET = 0.001
"""Seconds of one ``sync()``."""


def log_exception(event: str, error: Exception) -> None:
    """Log an error with its traceback; raise nothing."""
    # A log that cannot be written (disk, pipe) must not end the scheduler either.
    with suppress(Exception):
        log.error(event, exc_info=error)


class LogLines:
    """
    Log lines that wait to be written. Beyond ``LINES_KEPT`` the oldest are dropped, and a line says how many.

    :param prefix: what the names of their events begin with
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lines: deque[tuple[str, str, dict[str, Any]]] = deque()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, level: str, event: str, **values: Any) -> None:
        """Keep a line for :meth:`write`."""
        if len(self._lines) >= LINES_KEPT:
            self._lines.popleft()
            self._dropped += 1
        self._lines.append((level, event, values))

    def write(self, budget: float = WRITING_BUDGET) -> None:
        """
        Write lines for a while, at least one.

        :param budget: seconds
        """
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._write("warning", "log_lines.dropped", {"count": dropped})
        until = time.monotonic() + budget
        while self._lines:
            level, event, values = self._lines.popleft()
            self._write(level, event, values)
            if time.monotonic() >= until:
                break

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        getattr(log, level)(f"{self._prefix}.{event}", **values)


class Metrics:
    """
    The executor's metrics, from the engine's statistics, every ``METRICS_INTERVAL``.

    :param prefix: what their names begin with
    :param team_name: becomes a tag
    """

    def __init__(
        self, prefix: str, team_name: str | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._prefix = prefix
        self._tags = {"team_name": team_name} if team_name else None
        self._monotonic = monotonic
        self._due = 0.0
        self._last = Statistics()

    def timer(self, name: str) -> Any:
        """Return a context manager that times its block."""
        return stats.timer(f"{self._prefix}.{name}", tags=self._tags)

    def emit(self, statistics: Callable[[], Statistics]) -> None:
        """Send the metrics if they are due."""
        now = self._monotonic()
        if now < self._due:
            return
        self._due = now + METRICS_INTERVAL
        last, current = self._last, statistics()
        self._last = current
        for name, total, before in (
            ("launches", current.launches, last.launches),
            ("throttles", current.throttles, last.throttles),
            ("engine_restarts", current.restarts, last.restarts),
        ):
            if total > before:
                stats.incr(f"{self._prefix}.{name}", total - before, tags=self._tags)
        for name, value in (
            ("pending", current.pending),
            ("active", current.active),
            ("oldest_unlaunched", current.oldest_pending_age),
            ("loop_lag", current.loop_lag),
        ):
            stats.gauge(f"{self._prefix}.{name}", value, tags=self._tags)
        if current.hook_hangs or last.hook_hangs:
            stats.gauge(f"{self._prefix}.hook_hangs", current.hook_hangs, tags=self._tags)
        if current.api_latency_p50 is not None:
            stats.timing(f"{self._prefix}.api.latency", current.api_latency_p50 * 1000, tags=self._tags)
