"""
The lane that looks at the engine itself: each half second it publishes a snapshot, a sign that the loop lives.

May import ``core``, ``destinations``, ``launching``, ``meters``, ``rendering``, ``stacks``, ``statistics``, anyio
and structlog.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

import anyio
import structlog

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.ledger import Ledger, has_run
from ecs_async_executor.core.phases import UNLAUNCHED, Tracked
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destinations
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.rendering import Rendering, UserCode
from ecs_async_executor.engine.stacks import stack_of
from ecs_async_executor.engine.statistics import (
    SILENT,
    AtDestination,
    Events,
    Statistics,
    backlog_of,
    percentiles,
)

log = structlog.get_logger(__name__)

INTERVAL = 0.5
WINDOW = 5.0
"""Seconds; of what is timed in a window, a few samples are kept."""
WORK_INTERVAL = 60.0


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
        destinations: Destinations,
        placements: Placements,
        silence: SilenceWatch,
        launching: Launching,
        rendering: Rendering,
        meters: Meters,
        publish: Callable[[Statistics], None],
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._placements = placements
        self._silence = silence
        self._launching = launching
        self._rendering = rendering
        self._meters = meters
        self._publish = publish
        self._event = event
        self._told: UserCode | None = None
        self._lag = 0.0
        self._window_ends_at = -math.inf
        self._told_of_work_at = -math.inf
        self._throttles_told = 0

    async def run(self) -> None:
        """Publish a snapshot each half second, and measure how late the loop serves its timers."""
        while True:
            due = loop_time() + INTERVAL
            await anyio.sleep_until(due)
            self._lag = max(0.0, loop_time() - due)
            if self._silence.notices():  # the launching lane may sleep, or wait for user code
                # The silence ends in that lane; otherwise launches of hours later would be in doubt too.
                self._launching.wake()
            self._launching.forget_gates(loop_time())
            self._tell_of_user_code(loop_time())
            self._tell_of_work(self.ping(), loop_time())

    def ping(self) -> Statistics:
        """Publish a snapshot, and hand over what was timed once that is due."""
        now = loop_time()
        if now >= self._window_ends_at:
            self._window_ends_at = now + WINDOW
            self._meters.end_window()
        statistics = self.snapshot()
        self._publish(statistics)
        return statistics

    def _tell_of_work(self, statistics: Statistics, now: float) -> None:
        """Log, once a minute, what there is to do; nothing while there is nothing."""
        figures = {
            "pending": statistics.pending,
            "launching": statistics.launching,
            "searching": statistics.searching,
            "active": statistics.active,
            "stopping": statistics.stopping,
        }
        if now < self._told_of_work_at + WORK_INTERVAL or not any(figures.values()):
            return
        troubles = {one.name or "home": one.trouble for one in statistics.destinations if one.trouble is not None}
        log.info(
            self._event("work"),
            **figures,
            launch_rate=round(statistics.launch_rate, 1),
            throttled=statistics.throttles - self._throttles_told,
            closed_gates=statistics.closed_gates,
            oldest_unlaunched=round(statistics.oldest_pending_age, 1),
            paused=statistics.paused,
            **{"destinations": troubles} if troubles else {},
        )
        self._told_of_work_at, self._throttles_told = now, statistics.throttles

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
        now = loop_time()
        ledger, destinations = self._ledger, self._destinations
        backlog = backlog_of(ledger.unsettled.values(), now)
        each: tuple[AtDestination, ...] = ()
        stranded: AbstractSet[str] = frozenset()
        if destinations.is_home_alone:
            asks = bool(backlog.waiting or backlog.in_doubt or backlog.sending or backlog.searched_for)
            paused = destinations.home.down(now, asks=asks)
        else:
            each, stranded = self._at_each_destination(now)
            reasons = [one.down for one in each]
            paused = None if destinations.unused or None in reasons else reasons[0]
        hanging = self._rendering.hanging(now)
        if paused is None and hanging is not None:
            paused = f"a hook hangs over {hanging.launch}"
        if paused is None and self._silence.is_silent():
            paused = SILENT
        p50, p95 = percentiles([seconds for one in destinations for seconds in one.session.latencies])
        meters, waits = self._meters, self._launching.longest_waits(now)
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
            capacity_wait=waits.get(Kind.CAPACITY, 0.0),
            refused_wait=waits.get(Kind.REFUSED, 0.0),
            launches=meters.launches,
            throttles=meters.throttles,
            api_calls=meters.api_calls,
            api_errors=meters.api_errors,
            api_latency_p50=p50,
            api_latency_p95=p95,
            loop_lag=self._lag,
            hook_hangs=now - hanging.since if hanging is not None else 0.0,
            outbox=len(ledger.outbox),
            destinations=each,
            events=tuple(self._events()),
            stranded=stranded,
            chosen=dict(meters.chosen),
            counts=meters.counts(),
        )

    def _events(self) -> Iterator[Events]:
        for one in self._destinations:
            if one.hearing is not None:
                heard = one.hearing
                yield Events(one.name, heard.trouble, one.sweep_interval, heard.missed, heard.is_trusted)

    def _at_each_destination(self, now: float) -> tuple[tuple[AtDestination, ...], AbstractSet[str]]:
        """Return the figures of each destination, and the launches that wait for one in trouble."""
        waiting: defaultdict[str | None, list[Tracked]] = defaultdict(list)
        for tracked in self._ledger.unsettled.values():
            waiting[self._ledger.destination_of(tracked)].append(tracked)
        each: list[AtDestination] = []
        stranded: set[str] = set()
        for destination in self._destinations:
            launches = waiting[destination.name]
            figures = AtDestination(
                destination.name,
                down=destination.down(now, asks=bool(launches)),
                throttled=destination.limiter.is_throttled(),
                launch_rate=destination.launch_rate,
                pending=sum(isinstance(tracked.phase, UNLAUNCHED) for tracked in launches),
                launching=destination.launching,
                active=len(self._ledger.active.at(destination.name)),
            )
            each.append(figures)
            if figures.trouble is not None:
                stranded.update(tracked.launch.launch_id for tracked in launches if not has_run(tracked.phase))
        return tuple(each), stranded
