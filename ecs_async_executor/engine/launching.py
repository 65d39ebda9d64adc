"""
The lane that launches: the most urgent launch that may be sent is rendered, sent, and its answer taken in.

May import ``core``, ``destinations``, ``dispatcher``, ``intake``, ``meters``, ``rendering``, ``wakeup``, anyio and
structlog. A launch waits in the launch queue of its placement until the scheduler calls, the credentials of its
destination work, a request may be in flight there, the gate of the placement lets it pass and the rate has room.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.attempts import is_news_at_gate, is_too_old
from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.choosing import Choosing, Outage
from ecs_async_executor.core.destinations import HOME, destination_of
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.events import (
    Because,
    Doubted,
    LookInstead,
    Refused,
    Replied,
    Requested,
    Unrenderable,
)
from ecs_async_executor.core.gates import Gate
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.metrics import LAUNCH_DURATION
from ecs_async_executor.core.phases import Ended, InDoubt, Sending, Starting, Tracked
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.queue import LaunchQueue, Way
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.core.stops import StopRequest
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.dispatcher import Dispatcher, internal_error
from ecs_async_executor.engine.intake import Intake
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.engine.wakeup import IDLE, Wakeup

log = structlog.get_logger(__name__)

RENDERINGS_PER_YIELD = 16
"""A rendering takes some hundred microseconds; after so many in a row the other lanes get their turn."""
LOOK_AGAIN_SECONDS = 1.0
"""A silence or a closed gate is looked at again after so long at most."""
FRESH_SECONDS = 60.0
"""A rendered request that expires in less is rendered again."""


class _NotToBeSent(Exception):
    """The launch that was rendered is not sent now."""


class Launching:
    """
    Sends the requests of launches.

    :param wall: the wall clock, for the expiry of requests only
    :param random_source: the jitter of repeated requests
    :param tasks: where each request runs
    :param answered: called after each answer
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Destinations,
        placements: Placements,
        silence: SilenceWatch,
        intake: Intake,
        rendering: Rendering,
        dispatcher: Dispatcher,
        wall: Callable[[], float],
        random_source: random.Random,
        tasks: TaskGroup,
        wakeup: Wakeup,
        answered: Callable[[], None],
        meters: Meters,
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._placements = placements
        self._choosing = Choosing(placements, ledger.rules)
        self._silence = silence
        self._intake = intake
        self._rendering = rendering
        self._dispatcher = dispatcher
        self._wall = wall
        self._random = random_source
        self._tasks = tasks
        self._wakeup = wakeup
        self._answered = answered
        self._meters = meters
        self._event = event
        self._draining = False

    def wake(self) -> None:
        """Have the launch queues looked at."""
        self._wakeup.set()

    def drain(self) -> None:
        """Launch nothing any more."""
        self._draining = True
        self.wake()

    @property
    def in_flight(self) -> int:
        """The requests that have no answer yet."""
        return sum(destination.launching for destination in self._destinations)

    def rate(self) -> float:
        """Return the launches per second that rates and rendering allow at present."""
        return min(self._destinations.launch_rate(), self._rendering.rate)

    def longest_waits(self, now: float) -> Mapping[Kind, float]:
        """Return for how many seconds launches have been refused: the longest of each kind."""
        return self._choosing.longest_waits(list(self._ledger.queues.queues.values()), now)

    async def run(self) -> None:
        """Launch until :meth:`drain` is called."""
        rendered = 0
        while not self._draining:
            now = loop_time()
            self._ledger.advance(now)
            chosen, wake_at = self.choose(now)
            if chosen is None:
                await self._wakeup.wait_until(wake_at)
                continue
            queue, way = chosen
            queues = self._ledger.queues
            tracked = queues.head(queue)
            assert tracked is not None
            queues.pop(queue)
            try:
                if queues.queue_of(tracked) is not queue:
                    queues.add(tracked, now)  # others of its route have told meanwhile where it goes
                else:
                    await self._launch(tracked, queue, way)
            except Exception as error:
                log.exception(self._event("launch.failed"), workload=str(tracked))
                self._ledger.abandon(tracked, internal_error(error), loop_time())
            rendered += 1
            if rendered % RENDERINGS_PER_YIELD == 0:
                await anyio.lowlevel.checkpoint()

    # --- which launch is next --------------------------------------------------------------------------------

    def choose(self, now: float) -> tuple[tuple[LaunchQueue, Way] | None, float]:
        """Return the queue with the most urgent launch that may be sent now, and how, or when to look again."""
        ledger = self._ledger
        wake_at = min(ledger.next_delayed() or math.inf, now + IDLE)
        if self._silence.notices():
            # Another scheduler may be adopting launches of this one, which must not launch behind its back.
            if self._silence.is_silent():
                return None, now + LOOK_AGAIN_SECONDS
            if self._intake.is_behind():  # the inbox says what the other has adopted
                self._intake.wake()
                return None, now + LOOK_AGAIN_SECONDS
            self._doubt(now)
            self._silence.looked_after()
        destinations = self._destinations
        if destinations.is_home_alone and (at := destinations.home.may_launch_at(now)) > now:
            return None, min(at, wake_at)
        self._review_closed_placements(now)
        queues = list(ledger.queues.queues.values())
        self._count_waiting(queues)
        best: tuple[LaunchQueue, Way] | None = None
        for queue in queues:
            if ledger.queues.head(queue) is None:
                ledger.queues.drop(queue)
                continue
            way, at = self._choosing.way(queue, now, self._ready_at, self._outage)
            if way is not None and way is not queue.ways[0]:
                ledger.queues.forgive(queue)
            if way is None:
                wake_at = min(wake_at, at, now + LOOK_AGAIN_SECONDS)
            elif best is None or queue.heap[0] < best[0].heap[0]:
                best = queue, way
        return best, wake_at

    def _ready_at(self, way: Way, now: float) -> float:
        """Return when rates and the destination allow a request; ``now`` if they do."""
        if way.bucket is None:
            return now
        destination = self._destinations.of(way.bucket)
        at = destination.may_launch_at(now)
        return at if at > now else destination.limiter.launch_ready_at(way.bucket, now)

    def _outage(self, way: Way, now: float) -> Outage | None:
        return None if way.bucket is None else self._destinations.of(way.bucket).outage(now)

    def _count_waiting(self, queues: Iterable[LaunchQueue]) -> None:
        """Tell the limiter of each destination how many launches wait for it."""
        if self._destinations.is_home_alone:
            self._destinations.home.limiter.launches_waiting(sum(len(queue.heap) for queue in queues))
            return
        waiting: Counter[str] = Counter()
        for queue in queues:
            for name in {destination_of(way.bucket or HOME) for way in queue.ways}:
                waiting[name] += len(queue.heap)
        for destination in self._destinations:
            destination.limiter.launches_waiting(waiting[destination.name])

    def _doubt(self, now: float) -> None:
        """Search for the launches that another scheduler may have launched, where a client token cannot tell."""
        repeatable = self._ledger.rules.repeatable
        for tracked in list(self._ledger.unsettled.values()):
            if not (repeatable and tracked.launch.tokened) or tracked.used:
                self._dispatcher.apply(tracked, Doubted(), now)
        self._dispatcher.wake_lanes()

    def _review_closed_placements(self, now: float) -> None:
        """Tell the launches at closed gates why they wait, and end the waits that have been long enough."""
        if not self._placements.begins_review(now):
            return
        self._placements.give_up_probes(self._waits_for_its_place, now)
        queues = self._ledger.queues
        for queue in list(queues.queues.values()):
            if (barred := self._choosing.barred(queue, now)) is None:
                continue
            for tracked in queues.members(queue):
                if is_news_at_gate(tracked, barred, now, self._ledger.rules):
                    self._dispatcher.apply(tracked, barred, now)
        self._dispatcher.wake_lanes()

    def _waits_for_its_place(self, placement: str, number: int) -> bool:
        """Return whether a launch's container will tell whether there is room at a placement."""
        tracked = self._ledger.launches.get(number)
        if tracked is None:
            return False
        phase = tracked.phase
        where = phase.spec.placement if isinstance(phase, Sending) else None
        return placement == (phase.placement if isinstance(phase, Starting) else where)

    def forget_gates(self, now: float) -> None:
        """Forget the closed gates at which no launch waits any more."""
        for placement in self._placements.forget(self._needed_placements, now):
            log.info(self._event("gate.forgotten"), placement=placement)

    def _needed_placements(self) -> set[str]:
        return self._ledger.queues.needed_placements(self._ledger.unsettled.values())

    # --- one launch ------------------------------------------------------------------------------------------

    async def _launch(self, tracked: Tracked, queue: LaunchQueue, way: Way) -> None:
        now = loop_time()
        spec = None
        if isinstance(tracked.phase, InDoubt):
            if is_too_old(tracked.phase.doubt, now, self._ledger.rules):
                self._look_instead(tracked, Because.TOO_OLD, now)
                return
            spec = tracked.phase.doubt.spec
        if spec is None or (spec.expires_at is not None and spec.expires_at < self._wall() + FRESH_SECONDS):
            if self._rendering.lacks(tracked.launch):
                # Others need not wait for the answer of a database.
                self._tasks.start_soon(self._look_up, tracked, self._ledger.queues.ticket(tracked))
                return
            try:
                spec = await self._rendered(tracked, way)
            except _NotToBeSent:
                return
            now = loop_time()
        queues, destination = self._ledger.queues, self._destinations.of(spec.bucket)
        queues.learn_way(tracked, spec)
        destination.buckets.add(spec.bucket)
        placement = spec.placement
        gate = self._placements.gate(placement)
        full = self._placements.take_news(tracked.launch.route, now) if spec.choice is None else None
        if full is not None and gate.is_open:
            log.warning(self._event("gate.closed"), placement=placement, reason=full)
            self._placements.refused(placement, gate, Kind.CAPACITY, full, now)
        # Where this way was chosen, its room and its destination were looked at.
        room = placement != way.placement and len(queues.ways_of(tracked)) > 1
        sent = Way(spec.choice, placement, spec.bucket)
        if (
            self._draining
            or self._silence.notices()
            or (room and self._outage(sent, now) is not None)
            or not self._placements.may_pass(placement, now, room=room)
            or self._ready_at(sent, now) > now
            or not destination.session.begins_call(now)
        ):
            queues.add(tracked, now)
            return
        destination.limiter.take_launch(spec.bucket, now)
        gate.probe_started(now)
        if spec.choice is not None:
            self._placements.chosen(placement, spec.choice, tracked.number, now)
        self._dispatcher.apply(
            tracked, Requested(spec, self._choosing.instead(queue, way, now, self._outage)), now
        )
        if not isinstance(tracked.phase, Sending):
            return  # a bug has ended it
        destination.launching += 1
        self._tasks.start_soon(self._send, tracked, spec, destination, gate, not gate.is_open)

    async def _look_up(self, tracked: Tracked, ticket: int | None) -> None:
        """Give a launch its place back once what its request needs has been looked up."""
        try:
            await self._rendering.look_up(tracked.launch)
            if self._ledger.queues.is_current(tracked, ticket):
                self._ledger.queues.add(tracked, loop_time())
                self.wake()
        except Exception as error:
            # This runs beside the lanes: without this, a bug in one answer would end them all.
            log.exception(self._event("launch.failed"), workload=str(tracked))
            self._ledger.abandon(tracked, internal_error(error), loop_time())

    async def _rendered(self, tracked: Tracked, way: Way) -> LaunchSpec:
        """
        Render a launch.

        :param way: whose choice it is rendered for
        :raises _NotToBeSent: if the request must not be sent now; the launch has had the event for it
        """
        queues, launch = self._ledger.queues, tracked.launch
        ticket = queues.ticket(tracked)
        try:
            if queues.choices_of(tracked) is None:
                await self._learn_choices(tracked, ticket)
            choice = way.choice if way.placement is not None or way.choice else queues.ways_of(tracked)[0].choice
            spec = await self._rendering.render(launch, choice)
        except Rejected as rejected:
            self._not_rendered(tracked, ticket, rejected.reason)
            raise _NotToBeSent from None
        except _NotToBeSent:
            raise
        except Exception as error:
            log.exception(self._event("launch.render_failed"), workload=str(tracked))
            self._not_rendered(tracked, ticket, f"The request could not be built: {type(error).__name__}")
            raise _NotToBeSent from None
        if not queues.is_current(tracked, ticket):
            raise _NotToBeSent  # revoked or superseded while user code ran
        phase = tracked.phase
        earlier = phase.doubt.spec if isinstance(phase, InDoubt) else None
        if earlier is not None and earlier.scope != spec.scope:
            # A client token holds at one place: search where the earlier request may have been carried out.
            self._look_instead(tracked, Because.ELSEWHERE, loop_time())
            raise _NotToBeSent
        return spec

    async def _learn_choices(self, tracked: Tracked, ticket: int | None) -> None:
        choices = await self._rendering.choices(tracked.launch)
        if not self._ledger.queues.is_current(tracked, ticket):
            raise _NotToBeSent  # what is learnt of a launch that is over would never be forgotten
        self._ledger.queues.learn_choices(tracked, choices)

    def _look_instead(self, tracked: Tracked, because: Because, now: float) -> None:
        log.info(self._event("launch.searched_for"), workload=str(tracked), because=because.value)
        self._dispatcher.dispatch(tracked, LookInstead(because), now)

    def _not_rendered(self, tracked: Tracked, ticket: int | None, reason: str) -> None:
        if self._ledger.queues.is_current(tracked, ticket):  # user code may have taken its time before it failed
            self._dispatcher.dispatch(tracked, Unrenderable(reason), loop_time())

    async def _send(
        self,
        tracked: Tracked,
        spec: LaunchSpec,
        destination: Destination,
        gate: Gate,
        probes: bool,  # noqa: FBT001
    ) -> None:
        handle = None
        try:
            try:
                observation = await destination.session.launch(spec, tracked.client_token(spec))
            except BackendError as error:
                self._refused(tracked, spec, destination, gate, error, probes=probes)
            else:
                handle = observation.handle
                destination.limiter.launch_succeeded(spec.bucket, loop_time())
                self._replied(tracked, spec, gate, observation, probes=probes)
        except Exception as error:
            # This runs beside the lanes: without this, a bug in one answer would end them all.
            log.exception(self._event("launch.failed"), workload=str(tracked))
            self._ledger.abandon(tracked, internal_error(error), loop_time(), handle)
            self._dispatcher.wake_lanes()
        finally:
            destination.launching -= 1
            if self._ledger.has_queued():
                self.wake()
            self._answered()

    def _replied(
        self, tracked: Tracked, spec: LaunchSpec, gate: Gate, observation: Observation, *, probes: bool
    ) -> None:
        if probes:
            self._placements.succeeded(spec.placement, gate)
            log.info(self._event("gate.opened"), placement=spec.placement)
        if isinstance(tracked.phase, Ended):
            # A bug has ended the launch, and Airflow was told that it failed: its container must not run.
            self._ledger.stops.add(StopRequest(tracked, observation.handle, "Internal error of the executor"))
        now = loop_time()
        if spec.choice is not None:
            self._meters.chosen[spec.choice] += 1
        if not tracked.past:
            self._meters.time(LAUNCH_DURATION, now - tracked.since)
        self._dispatcher.dispatch(tracked, Replied(observation), now)

    def _scope_of(self, resource_ids: Sequence[str]) -> str | None:
        """Return where a container is that an error names, if its identifier tells."""
        scopes = self._destinations.scopes_of(resource_ids[0]) if resource_ids else ()
        return scopes[0] if len(scopes) == 1 else None

    def _other_placements(self, tracked: Tracked, now: float) -> tuple[bool, bool]:
        """Return whether a launch that is refused goes elsewhere at once, and whether all else refuses it, too."""
        queues, phase = self._ledger.queues, tracked.phase
        in_doubt = isinstance(phase, Sending) and phase.doubt is not None and phase.doubt.ours
        if in_doubt or len(queues.ways_of(tracked)) < 2:  # noqa: PLR2004 - there is no other
            return False, True
        barred = self._choosing.barred(queues.queue_of(tracked), now)
        return barred is None, barred is not None and barred.kind is Kind.REFUSED and not barred.elsewhere

    def _refused(
        self,
        tracked: Tracked,
        spec: LaunchSpec,
        destination: Destination,
        gate: Gate,
        error: BackendError,
        *,
        probes: bool,
    ) -> None:
        now = loop_time()
        error = destination.explained(error)
        if spec.choice is not None:
            self._placements.found_out_nothing(spec.placement, tracked.number, now)
        if error.kind in (Kind.CAPACITY, Kind.REFUSED):
            if gate.is_open:
                log.warning(
                    self._event("gate.closed"),
                    placement=spec.placement,
                    code=error.code,
                    reason=error.message,
                )
            # A request that left before the gate closed says nothing about the probe that may be out.
            if probes or gate.is_open:
                self._placements.refused(spec.placement, gate, error.kind, str(error), now)
            else:
                self._placements.refused_late(spec.placement, error.kind, str(error), now)
        else:
            if probes and error.token_used:
                gate.void(now)
            elif probes:
                gate.undecided(now)
            if error.kind is Kind.THROTTLED:
                destination.limiter.launch_throttled(spec.bucket, now)
            log.debug(self._event("launch.no_container"), kind=error.kind.value, code=error.code)
        elsewhere, everywhere = self._other_placements(tracked, now)
        refused = Refused(
            error,
            self._random.random(),
            # A launch that was no probe may wait for its turn while others pass, but for no longer than a probe.
            pause=gate.pause if probes else gate.most_delay,
            probe=probes,
            elsewhere=elsewhere,
            everywhere=everywhere,
            named_in=self._scope_of(error.resource_ids) if spec.choice is not None else None,
            unanswered=destination.session.is_unanswered(now),
        )
        self._dispatcher.dispatch(tracked, refused, now)
