"""
The lane that looks at the engine itself: each half second it publishes a snapshot, a sign that the loop lives.

May import ``core``, ``launching``, ``session``, ``statistics`` and anyio.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.session import Session
from ecs_async_executor.engine.statistics import SILENT, Statistics, backlog_of

INTERVAL = 0.5


class Pinging:
    """
    Publishes snapshots.

    :param publish: takes each snapshot
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        session: Session,
        placements: Placements,
        silence: SilenceWatch,
        launching: Launching,
        publish: Callable[[Statistics], None],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._placements = placements
        self._silence = silence
        self._launching = launching
        self._publish = publish
        self._lag = 0.0

    async def run(self) -> None:
        """Publish a snapshot each half second, and measure how late the loop serves its timers."""
        while True:
            due = anyio.current_time() + INTERVAL
            await anyio.sleep_until(due)
            self._lag = max(0.0, anyio.current_time() - due)
            if self._silence.notices():  # the launching lane may sleep, or wait for user code
                # The silence ends in that lane; otherwise launches of hours later would be in doubt too.
                self._launching.wake()
            self._launching.forget_gates(anyio.current_time())
            self._publish(self.snapshot())

    def snapshot(self) -> Statistics:
        """Return what the engine shows of itself."""
        now = anyio.current_time()
        ledger, session = self._ledger, self._session
        backlog = backlog_of(ledger.unsettled.values(), now)
        paused = session.paused
        asks = backlog.waiting or backlog.in_doubt or backlog.sending or backlog.searched_for
        if paused is None and asks and session.is_unanswered(now):
            paused = "AWS does not answer"
        if paused is None and self._silence.is_silent():
            paused = SILENT
        p50, p95 = session.latencies()
        counters = session.counters
        return Statistics(
            pending=backlog.waiting + backlog.in_doubt,
            launching=backlog.sending,
            in_doubt=backlog.in_doubt,
            searching=backlog.searched_for,
            active=len(ledger.active),
            stopping=len(ledger.stops),
            oldest_pending_age=now - backlog.since,
            launch_rate=self._launching.rate(),
            paused=paused,
            closed_gates=len(self._placements),
            launches=counters.launches,
            throttles=counters.throttles,
            api_calls=counters.api_calls,
            api_errors=counters.api_errors,
            api_latency_p50=p50,
            api_latency_p95=p95,
            loop_lag=self._lag,
            outbox=len(ledger.outbox),
        )
