"""
The lanes that poll: describe every container again and again, and the young ones more often.

May import ``core``, ``destinations``, ``describing``, ``dispatcher``, ``meters``, anyio and structlog. Each
destination has its own lanes, as long as it has containers: a sweep that takes long in one delays none in another.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.containers import grace_for_missing, is_news
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Observed
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.limiter import PollPacer
from ecs_async_executor.core.listening import Hearing
from ecs_async_executor.core.metrics import DETECTION_DURATION, START_DURATION
from ecs_async_executor.core.phases import LOCATED, UNLAUNCHED, Ended, Located, Running, Starting, Tracked
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.describing import Describing
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.dispatcher import Dispatcher
from ecs_async_executor.engine.meters import Meters

log = structlog.get_logger(__name__)

YOUNG_SECONDS = 120.0
"""A container is young for so long after it was learnt."""
LOOK_INTERVAL = 1.0
"""Seconds between two looks for destinations that have got their first container."""
LOOK_AGAIN_SECONDS = 1.0
"""Within so many seconds a stretched interval ends once events no longer come."""
YOUNG_STRETCHED_SECONDS = 20.0
"""The longest time between two sweeps over young containers while events arrive."""
SPREAD_SHARE = 0.9
"""The part of a stretched interval over which the calls of its sweep are spread."""
YOUNG_SHARE = 0.125
"""The part of the read budget for young ones: two schedulers leave a quarter of an account's reads to others."""


@dataclass(frozen=True, eq=False, slots=True)
class _Batch:
    """Launches that one call describes; also the borrower of that call's place."""

    launches: Sequence[Tracked]


class Polling:
    """
    Sweeps over the containers of one destination. Time is what wakes it.

    :param placements: learn of containers that found no room
    :param poll_interval: seconds from the start of one sweep to the next, as long as the read budget allows it
    :param wall: the wall clock, to compare with the service's
    :param random_source: the jitter of relaunches
    :param event: makes the full name of a log event
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destination: Destination,
        placements: Placements,
        dispatcher: Dispatcher,
        poll_interval: float,
        wall: Callable[[], float],
        random_source: random.Random,
        meters: Meters,
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destination = destination
        self._limiter = destination.limiter
        self._placements = placements
        self._describing: Describing = destination.describing
        self._hearing: Hearing | None = destination.hearing
        self._dispatcher = dispatcher
        self._poll_interval = poll_interval
        self._wall = wall
        self._random = random_source
        self._meters = meters
        self._event = event
        self._pacer = PollPacer(poll_interval)
        self._young_pacer = PollPacer(poll_interval, share=YOUNG_SHARE)
        self._calls = 0

    async def run(self) -> None:
        """Sweep over all containers, until the destination has none left."""
        took = 0.0
        while self.is_needed():
            started_at = loop_time()
            pause = max(self._interval(self._calls), took)
            launches = self._ledger.active.at(self._destination.name)
            self._calls = await self.sweep(launches, pause, spread=True)
            if self._hearing is not None:
                self._hearing.swept(started_at)
            took = loop_time() - started_at
            await self._rest(partial(self._next_sweep, started_at))

    def _next_sweep(self, started_at: float) -> float:
        interval = self._destination.sweep_interval = self._interval(self._calls)
        return started_at + interval

    async def run_young(self) -> None:
        """
        Sweep over the young containers in between, where a whole sweep takes long.

        Most containers end young. These sweeps get half as much of the read budget as whole ones.
        """
        calls, took = 0, 0.0
        while True:
            started_at = loop_time()
            if self._interval(self._calls) > 2.0 * self._poll_interval:
                young = self._ledger.active.since(self._destination.name, started_at - YOUNG_SECONDS)
                calls = await self.sweep(young, max(self._young_interval(calls), took))
            else:
                calls = 0
            took = loop_time() - started_at
            await self._rest(partial(self._next_young_sweep, started_at, calls))

    def _next_young_sweep(self, started_at: float, calls: int) -> float:
        return started_at + self._young_interval(calls)

    def _next_batch(self, since: float, batches: int) -> float:
        assert self._hearing is not None
        if not self._hearing.is_stretched:
            return since
        return since + SPREAD_SHARE * self._interval(batches) / batches

    async def _rest(self, until: Callable[[], float]) -> None:
        """Sleep until a time that gets earlier if events no longer come."""
        if self._hearing is None:
            await anyio.sleep_until(until())
            return
        while (now := loop_time()) < until():  # noqa: ASYNC110 - time is the event
            await anyio.sleep_until(min(until(), now + LOOK_AGAIN_SECONDS))

    def is_needed(self) -> bool:
        """Return whether there is anything to sweep over, or may be at any time: at home."""
        return self._destination.name == HOME or self._destination.name in self._ledger.active

    async def sweep(self, launches: Iterable[Tracked], pause: float = 0.0, *, spread: bool = False) -> int:
        """
        Describe the containers of launches once; return the number of calls.

        :param pause: seconds that were meant to pass since the sweep before
        :param spread: leave the read budget to others in between, while there is time because events arrive
        """
        batches = list(self._batches(launches))
        async with anyio.create_task_group() as calls:
            for number, (scope, batch) in enumerate(batches):
                if spread and number and self._hearing is not None:
                    await self._rest(partial(self._next_batch, loop_time(), len(batches)))
                await self._describing.wait_for_read()
                await self._describing.places.acquire_on_behalf_of(batch)
                calls.start_soon(self._describe, scope, batch, pause)
        return len(batches)

    def _interval(self, calls: int) -> float:
        interval = self._pacer.interval(calls, self._limiter.read_rate)
        if self._hearing is not None:
            interval = self._hearing.interval(interval)
        return interval

    def _young_interval(self, calls: int) -> float:
        shortest = self._young_pacer.interval(calls, self._limiter.read_rate)
        if self._hearing is None:
            return shortest
        return self._hearing.interval(shortest, YOUNG_STRETCHED_SECONDS)

    def _batches(self, launches: Iterable[Tracked]) -> Iterable[tuple[str, _Batch]]:
        by_scope: defaultdict[str, list[Tracked]] = defaultdict(list)
        for tracked in launches:
            handle = tracked.handle
            if handle is not None:
                by_scope[handle.scope].append(tracked)
        for scope, members in by_scope.items():
            for batch in self._describing.in_batches(members):
                yield scope, _Batch(batch)

    async def _describe(self, scope: str, batch: _Batch, pause: float) -> None:
        try:
            by_id: defaultdict[str, list[Tracked]] = defaultdict(list)
            for tracked in batch.launches:
                handle = tracked.handle
                if handle is not None and handle.scope == scope:  # else it has ended since the sweep began
                    by_id[handle.id].append(tracked)
            if not by_id:
                return
            observations = await self._describing.describe(scope, list(by_id))
            now, news = loop_time(), False
            for observation in observations:
                for tracked in by_id.get(observation.handle.id, ()):
                    phase = tracked.phase
                    if not isinstance(phase, LOCATED) or phase.handle != observation.handle:
                        continue
                    if is_news(phase, observation):
                        news = True
                        if observation.seen is Seen.MISSING:
                            self._log_missing(tracked, phase)
                            if self._hearing is not None:
                                self._hearing.not_known(observation.handle.id)
                        event = Observed(observation, self._random.random(), pause)
                        self._dispatcher.apply(tracked, event, now)
                        self._time(tracked, phase, observation, now)
                        if self._hearing is not None and _left(tracked, observation):
                            self._hearing.ended(observation.handle.id, now)
                        if observation.started:
                            self._has_place(tracked, phase)
                        elif observation.unplaced and isinstance(tracked.phase, UNLAUNCHED):
                            self._had_no_place(tracked, phase, observation.reason, now)
                        elif isinstance(tracked.phase, Ended) and (
                            observation.queued or observation.ending is Ending.CAPACITY
                        ):
                            self._was_cancelled(tracked, phase, observation.reason, now)
                    if observation.queued:
                        self._waits_for_place(tracked, phase, observation, now)
            if news:
                self._dispatcher.wake_lanes()
        finally:
            self._describing.places.release_on_behalf_of(batch)

    def _time(self, tracked: Tracked, before: Located, observation: Observation, now: float) -> None:
        """Note how long a container took to start, or how long its end was not known."""
        if isinstance(tracked.phase, Running):
            # The placement is that of a request: the time of an adopted container began before this scheduler's.
            if isinstance(before, Starting) and before.placement is not None:
                self._meters.time(START_DURATION, now - before.since)
        elif isinstance(tracked.phase, Ended) and tracked.wanted and observation.stopped_at is not None:
            self._meters.time(DETECTION_DURATION, max(0.0, self._wall() - observation.stopped_at))

    def _log_missing(self, tracked: Tracked, phase: Located) -> None:
        """Log the first of these answers about a container that runs; a new one is often unknown for a moment."""
        if isinstance(phase, Running) and phase.missing.last_at is None and tracked.wanted:
            log.warning(
                self._event("container.missing"),
                workload=str(tracked),
                handle_id=phase.handle.id,
                lost_after=grace_for_missing(tracked, phase, self._ledger.rules),
            )

    def _has_place(self, tracked: Tracked, phase: Located) -> None:
        """Open the room of a placement whose container runs, or has run since the sweep before."""
        if isinstance(phase, Starting) and phase.placement is not None and tracked.choice is not None:
            self._placements.has_placed(phase.placement, since=phase.since)

    def _waits_for_place(self, tracked: Tracked, phase: Located, observation: Observation, now: float) -> None:
        """Close the room of a placement in which a container waits for longer than its launch is patient."""
        choices = self._ledger.queues.choices_of(tracked)
        if not isinstance(phase, Starting) or phase.placement is None or not tracked.wanted:
            return
        if tracked.choice is None or choices is None or len(choices.names) == 1:
            return  # it could not go elsewhere
        reason = observation.reason or f"containers wait for a place ({observation.status})"
        patience, since = choices.patience, phase.since
        if self._placements.waits_for_place(phase.placement, reason, since=since, patience=patience, now=now):
            log.warning(self._event("gate.closed"), placement=phase.placement, reason=reason)

    def _was_cancelled(self, tracked: Tracked, phase: Located, reason: str, now: float) -> None:
        """Close the room of a placement in which a limit has ended a container's wait."""
        if isinstance(phase, Starting) and phase.placement is not None and tracked.choice is not None:
            self._placements.had_no_place(phase.placement, tracked.number, reason, since=phase.since, now=now)

    def _had_no_place(self, tracked: Tracked, phase: Located, reason: str, now: float) -> None:
        """Close the gate of a placement whose container the service has given up for want of room."""
        placement = phase.placement if isinstance(phase, Starting) else None
        if placement is None:  # this scheduler has not sent its request: those like it tell, or its next one
            ways = self._ledger.queues.ways_of(tracked)
            if len(ways) > 1:
                return  # it can have been any of these
            placement = ways[0].placement
        elif tracked.choice is not None:
            self._placements.had_no_place(placement, tracked.number, reason, since=phase.since, now=now)
        if placement is None:
            self._placements.found_no_room(tracked.launch.route, reason, now)
            return
        gate = self._placements.gate(placement)
        if gate.is_open:  # what was sent before it closed decides nothing more
            log.warning(self._event("gate.closed"), placement=placement, reason=reason)
            self._placements.refused(placement, gate, Kind.CAPACITY, reason, now)


def _left(tracked: Tracked, observation: Observation) -> bool:
    """Return whether the service has told of the end of the container that a launch had."""
    return observation.seen is not Seen.MISSING and tracked.handle != observation.handle


class PollingLanes:
    """
    Has each destination with containers polled, and its events listened to.

    :param make: makes what polls one destination
    :param listening: makes what listens to one destination; None if it has no queue of events
    :param supervise: runs a lane under a name, again after a bug
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Destinations,
        make: Callable[[Destination], Polling],
        listening: Callable[[Destination], Callable[[], Awaitable[None]] | None],
        supervise: Callable[[str, Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]],
        tasks: TaskGroup,
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._make = make
        self._listening = listening
        self._supervise = supervise
        self._tasks = tasks
        self._event = event
        self._polled: set[str] = set()

    async def run(self) -> None:
        """Begin to poll each destination within a second of its first container, and home at once."""
        while True:
            for name in (HOME, *self._ledger.active):
                if name not in self._polled:
                    self._polled.add(name)
                    self._tasks.start_soon(self._poll, self._destinations[name], name=self._event("polling"))
            await anyio.sleep(LOOK_INTERVAL)

    async def _poll(self, destination: Destination) -> None:
        listen = self._listening(destination)
        polling = self._make(destination)
        at = f" {destination.name}" if destination.name else ""
        async with anyio.create_task_group() as lanes:
            if listen is not None:
                lanes.start_soon(self._supervise, f"listening{at}", listen)
            lanes.start_soon(self._supervise, f"polling_young{at}", polling.run_young)
            await self._supervise(f"polling{at}", polling.run)
            lanes.cancel_scope.cancel()
        self._polled.discard(destination.name)
