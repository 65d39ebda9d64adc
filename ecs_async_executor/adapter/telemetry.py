"""
What the scheduler's thread says in the log.

May import ``core``. Draining the outbox must make no system call: it only
collects log lines, and :meth:`LogLines.write` writes them afterwards, some at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from ecs_async_executor.core.messages import Notice

log = structlog.get_logger(__name__)

LINES_KEPT = 10_000
WRITING_BUDGET = 0.001
"""Seconds of one ``sync()``."""
FIRST_WAIT_SECONDS = 1.0
"""A gate that closes is told to all its launches, and it takes some heartbeats until the reports are applied."""
WAITS_INTERVAL = 60.0
WAITS_KEPT = 256


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


class WaitLines:
    """
    What launches wait for, in the log: one line per reason and placement with their number, not one per launch.

    A line is written a moment after the first launch begins to wait, and then once a minute while more of them do.

    :param lines: where the lines go
    :param monotonic: the clock, in seconds
    """

    def __init__(self, lines: LogLines, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lines = lines
        self._monotonic = monotonic
        self._waits: dict[tuple[str, str | None], _Wait] = {}

    def add(self, notice: Notice) -> None:
        """Count a launch that has begun to wait."""
        about = notice.about, notice.placement
        wait = self._waits.get(about)
        if wait is None:
            if len(self._waits) >= WAITS_KEPT:
                self._write(*next(iter(self._waits.items())))
                del self._waits[next(iter(self._waits))]
            wait = self._waits[about] = _Wait(self._monotonic() + FIRST_WAIT_SECONDS)
        wait.launches += 1
        wait.latest = notice

    def collect(self, *, all_of_them: bool = False) -> None:
        """Add the lines that are due to the log lines."""
        if not self._waits:
            return
        now = self._monotonic()
        for about, wait in list(self._waits.items()):
            if now < wait.due and not all_of_them:
                continue
            if not wait.launches:
                del self._waits[about]
                continue
            self._write(about, wait)
            self._waits[about] = _Wait(now + WAITS_INTERVAL)

    def _write(self, about: tuple[str, str | None], wait: _Wait) -> None:
        notice = wait.latest
        if notice is None:
            return
        self._lines.add(
            "warning",
            "notice",
            about=notice.event,
            launches=wait.launches,
            placement=about[1],
            latest=str(notice.key),
            text=notice.text,
        )


@dataclass(slots=True)
class _Wait:
    due: float
    launches: int = 0
    latest: Notice | None = None
