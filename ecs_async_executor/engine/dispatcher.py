"""
The dispatcher: lets events happen to launches, and wakes the lanes that an event can concern.

May import ``core``, ``wakeup`` and structlog. Every change of a launch happens in
:meth:`~ecs_async_executor.core.ledger.Ledger.dispatch`, and never across an await.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ecs_async_executor.core.events import Event, Replied
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.phases import Tracked
from ecs_async_executor.engine.wakeup import Wakeups

log = structlog.get_logger(__name__)


def internal_error(error: Exception) -> str:
    """Return the reason of a launch that a bug of this package has failed."""
    return f"Internal error of the executor: {type(error).__name__}"


class Dispatcher:
    """
    The way of every lane to the ledger's :meth:`~ecs_async_executor.core.ledger.Ledger.dispatch`.

    :param event: makes the full name of a log event
    """

    def __init__(self, ledger: Ledger, wakeups: Wakeups, *, event: Callable[[str], str]) -> None:
        self._ledger = ledger
        self._wakeups = wakeups
        self._event = event

    def dispatch(self, tracked: Tracked, event: Event, now: float) -> None:
        """Let an event happen to a launch, and wake the lanes with something to do."""
        self.apply(tracked, event, now)
        self.wake_lanes()

    def apply(self, tracked: Tracked, event: Event, now: float) -> None:
        """Let an event happen to a launch and wake nobody; a bug in it fails this launch and no other."""
        try:
            self._ledger.dispatch(tracked, event, now)
        except Exception as error:
            log.exception(self._event("engine.event_failed"), workload=str(tracked))
            # Airflow is told that the launch has failed: the container that it was about to get must not run.
            handle = event.observation.handle if isinstance(event, Replied) else None
            self._ledger.abandon(tracked, internal_error(error), now, handle)

    def wake_lanes(self) -> None:
        """Wake the lanes with something to do; a wake-up for nothing costs as much as a launch's bookkeeping."""
        if self._ledger.has_queued():
            self._wakeups.launching.set()
        if self._ledger.searches.next_at() is not None:
            self._wakeups.searching.set()
        if self._ledger.stops:
            self._wakeups.stopping.set()
