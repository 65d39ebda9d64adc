"""
The lane that looks at the engine itself: each half second it publishes a snapshot, a sign that the loop lives.

May import ``core``, ``launching``, ``rendering``, ``session``, ``stacks``, ``statistics``, anyio and structlog.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.rendering import Rendering, UserCode
from ecs_async_executor.engine.session import Session
from ecs_async_executor.engine.stacks import stack_of
from ecs_async_executor.engine.statistics import SILENT, Statistics, backlog_of

log = structlog.get_logger(__name__)

INTERVAL = 0.5


class Pinging:
    """
    Publishes snapshots.

    :param publish: takes each snapshot
    :param event: makes the full name of a log event
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        session: Session,
        placements: Placements,
        silence: SilenceWatch,
        launching: Launching,
        rendering: Rendering,
        publish: Callable[[Statistics], None],
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._placements = placements
        self._silence = silence
        self._launching = launching
        self._rendering = rendering
        self._publish = publish
        self._event = event
        self._told: UserCode | None = None
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
            self._tell_of_user_code(anyio.current_time())
            self._publish(self.snapshot())

    def _tell_of_user_code(self, now: float) -> None:
        """Log, once per call, that user code hangs, and that it has returned."""
        before, hanging = self._told, self._rendering.hanging(now)
        if hanging is before:
            return
        self._told = hanging
        if before is not None:
            log.info(
                self._event("hook.returned"), workload=str(before.launch), seconds=round(now - before.since, 1)
            )
        if hanging is not None:
            seconds, stack = round(now - hanging.since, 1), stack_of(hanging.thread)
            log.error(self._event("hook.hangs"), workload=str(hanging.launch), seconds=seconds, stack=stack)

    def snapshot(self) -> Statistics:
        """Return what the engine shows of itself."""
        now = anyio.current_time()
        ledger, session = self._ledger, self._session
        backlog = backlog_of(ledger.unsettled.values(), now)
        paused = session.paused
        asks = backlog.waiting or backlog.in_doubt or backlog.sending or backlog.searched_for
        if paused is None and asks and session.is_unanswered(now):
            paused = f"AWS does not answer: {session.silence}"
        hanging = self._rendering.hanging(now)
        if paused is None and hanging is not None:
            paused = f"a hook hangs over {hanging.launch}"
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
            hook_hangs=now - hanging.since if hanging is not None else 0.0,
            outbox=len(ledger.outbox),
        )
