"""
The lane that searches: for launches of which it is not known whether they have a container.

May import ``core``, ``destinations``, ``dispatcher``, ``rendering``, ``wakeup``, anyio and structlog. A launch
with a named container is asked for by its identifier, any other by the mark that it carries. Each destination is
searched in tasks of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.destinations import HOME, destination_of
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.events import Checked, Found, SearchRefused
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.matching import choose, is_surely_of
from ecs_async_executor.core.phases import UNLOCATED, Checking, Searching, SearchPlace, Tracked
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.dispatcher import Dispatcher
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.engine.wakeup import Wakeup

log = structlog.get_logger(__name__)

RENDERINGS_PER_YIELD = 16
"""A rendering takes some hundred microseconds; after so many in a row the other lanes get their turn."""


class _Group:
    """
    Searches that the same destinations have to answer.

    :ivar named: launches by the identifiers of their containers, by the scopes that these are asked for in
    :ivar marked: launches, their places, and why these are a guess
    """

    def __init__(self) -> None:
        self.named: defaultdict[tuple[str, ...], dict[str, list[Tracked]]] = defaultdict(dict)
        self.marked: list[tuple[Tracked, Sequence[SearchPlace] | None, str | None]] = []


class _Errands:
    """Searches, by the destinations that have to answer them."""

    def __init__(self) -> None:
        self.groups: defaultdict[tuple[str, ...], _Group] = defaultdict(_Group)

    def ask(self, tracked: Tracked, handle_id: str, scopes: Iterable[str]) -> None:
        """Ask for a container by its identifier, once in each destination of these scopes."""
        by_name = {destination_of(scope): scope for scope in reversed(list(scopes))}
        names = tuple(sorted(by_name))
        named = self.groups[names].named[tuple(by_name[name] for name in names)]
        named.setdefault(handle_id, []).append(tracked)

    def list(
        self, tracked: Tracked, places: Sequence[SearchPlace] | None, guessed_because: str | None = None
    ) -> None:
        """Search for a launch by its mark; without places, at home, wherever its request says."""
        names = tuple(sorted({destination_of(place.scope) for place in places or ()})) or (HOME,)
        self.groups[names].marked.append((tracked, places, guessed_because))


class SearchLane:
    """
    Searches for containers.

    :param tasks: where each batch of searches runs: a hook of the user's may take its time over one of them
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Destinations,
        rendering: Rendering,
        dispatcher: Dispatcher,
        tasks: TaskGroup,
        wakeup: Wakeup,
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._rendering = rendering
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._wakeup = wakeup
        self._event = event
        self._unplaced: set[int] = set()

    def wake(self) -> None:
        """Have the searches that are due begin."""
        self._wakeup.set()

    async def run(self) -> None:
        """Begin searches as they become due."""
        while True:
            if due := self._ledger.searches.due(loop_time()):
                self._tasks.start_soon(self._search_batch, due)
            del due  # there can be thousands, and the next wait can be long
            await self._wakeup.wait_until(self._ledger.searches.next_at() or math.inf)

    async def _search_batch(self, due: Sequence[Tracked]) -> None:
        tickets = [self._ledger.searches.ticket(tracked) for tracked in due]
        try:
            await self.search(due)
        except Exception:
            log.exception(self._event("engine.lane_failed"), lane="searching")
        finally:
            at = loop_time() + self._ledger.rules.search_interval
            for tracked, ticket in zip(due, tickets, strict=True):
                if self._ledger.searches.ticket(tracked) == ticket:
                    self._again(tracked, at)
            self.wake()

    async def search(self, due: Sequence[Tracked]) -> None:
        """Search for the containers of launches once."""
        begun = loop_time()
        known, unknown = _Errands(), []
        for tracked in due:
            phase = tracked.phase
            if isinstance(phase, Searching):
                if phase.place is not None:
                    known.list(tracked, [phase.place])
                elif self._destinations.is_home_alone:
                    known.list(tracked, None)
                else:
                    unknown.append(tracked)
            elif isinstance(phase, Checking):
                scopes = self._destinations.scopes_of(phase.container)
                if len(scopes) == 1:
                    known.ask(tracked, phase.container, scopes)
                else:
                    unknown.append(tracked)
        async with anyio.create_task_group() as searches:
            searches.start_soon(self._run, known, begun)
            if unknown:
                searches.start_soon(self._search_elsewhere, unknown, begun)

    async def _search_elsewhere(self, launches: Sequence[Tracked], begun: float) -> None:
        """Search for launches whose requests tell in which destinations their containers can be."""
        errands = _Errands()
        for number, tracked in enumerate(launches, 1):
            places, guessed_because = await self._likely_places_of(tracked)
            phase = tracked.phase
            if isinstance(phase, Checking):
                errands.ask(tracked, phase.container, self._likely_scopes_of(phase, places, guessed_because))
            else:
                errands.list(tracked, places, guessed_because)
            if number % RENDERINGS_PER_YIELD == 0:
                await anyio.lowlevel.checkpoint()
        await self._run(errands, begun)

    async def _run(self, errands: _Errands, begun: float) -> None:
        """Run errands, those of each group of destinations in a task of their own."""
        async with anyio.create_task_group() as groups:
            for names, group in errands.groups.items():
                groups.start_soon(self._run_group, [self._destinations[name] for name in names], group, begun)

    async def _run_group(self, destinations: Sequence[Destination], group: _Group, begun: float) -> None:
        async with anyio.create_task_group() as searches:
            for scopes, by_id in group.named.items():
                for ids in destinations[0].describing.in_batches(list(by_id)):
                    await _wait_for_reads(destinations)
                    searches.start_soon(self._search_named, scopes, {i: by_id[i] for i in ids}, begun)
            for tracked, places, guessed_because in group.marked:
                await _wait_for_reads(destinations)
                searches.start_soon(self._search_marked, tracked, places, guessed_because, begun)

    async def _search_named(self, scopes: Sequence[str], by_id: dict[str, list[Tracked]], begun: float) -> None:
        """
        Ask for containers by their identifiers.

        :param scopes: one of each destination that the containers can be in
        """
        answers: dict[str, list[Observation]] = {handle_id: [] for handle_id in by_id}
        refusal: list[str] = []

        async def ask(scope: str) -> None:
            describing = self._destinations.of(scope).describing
            async with describing.places:
                for observation in await describing.describe(scope, list(by_id), refusal):
                    answers[observation.handle.id].append(observation)

        async with anyio.create_task_group() as questions:
            for scope in scopes:
                questions.start_soon(ask, scope)
        now = loop_time()
        for handle_id, launches in by_id.items():
            told = answers[handle_id]
            known = [observation for observation in told if observation.seen is not Seen.MISSING]
            for tracked in launches:
                if known or len(told) == len(scopes):
                    self._dispatcher.dispatch(tracked, Checked((known or told)[0], now - begun), now)
                else:
                    self._not_answered(tracked, refusal, begun, Handle(scopes[0], handle_id))

    async def _search_marked(
        self,
        tracked: Tracked,
        places: Sequence[SearchPlace] | None,
        guessed_because: str | None,
        begun: float,
    ) -> None:
        """
        Search for the container that carries a launch's mark.

        :param places: where it can be; None: where a request that is made anew says
        :param guessed_because: why the places are a guess; None if they are none
        """
        phase = tracked.phase
        if not isinstance(phase, Searching):
            return  # it was released while it waited for the read budget
        if places is None:
            places, guessed_because = await self._likely_places_of(tracked)
        if any(place.mark is None for place in places):
            # The user's own mark, which other containers carry too: the service cannot be asked for it.
            now = loop_time()
            self._dispatcher.dispatch(tracked, Found(None, now - begun), now)
            return
        refusal: list[str] = []
        found, complete = await self._list_all(places, tracked.past, refusal)
        if not found and not complete:
            self._not_answered(tracked, refusal, begun)
            return
        if tracked.phase is not phase:
            return  # it moved on, or the next search is on its way
        rules = self._ledger.rules
        found = [o for o in found if not self._ledger.is_of_a_later_launch(tracked, o)]
        chosen = choose(tracked, found, rules)
        if not complete and (chosen is None or not is_surely_of(tracked, phase, chosen, rules)):
            self._not_answered(tracked, refusal, begun)
            return
        now = loop_time()
        event: Found | SearchRefused = Found(chosen, now - begun, len(places))
        if chosen is None and guessed_because is not None:
            # At a guessed place, no container proves nothing.
            event = SearchRefused(guessed_because, place_unknown=True, took=now - begun)
        self._dispatcher.dispatch(tracked, event, now)

    async def _likely_places_of(self, tracked: Tracked) -> tuple[Sequence[SearchPlace], str | None]:
        """
        Return where another scheduler has started the container, as far as requests of our own tell.

        A launch that cannot be rendered any more may have a container all the same, perhaps at the default place.

        :returns: the places, and why they are a guess if they are one
        """
        launch, rendering = tracked.launch, self._rendering
        places: dict[SearchPlace, None] = {}
        reason = None
        try:
            names: Sequence[str | None] = (await rendering.choices(launch)).everywhere
        except Exception as error:  # noqa: BLE001 - user code can be involved
            names, reason = (), _why_not_rendered(error)
        for name in names:
            try:
                spec = await rendering.render(launch, name)
            except Exception as error:  # noqa: BLE001, PERF203 - likewise
                reason = _why_not_rendered(error)
            else:
                places[SearchPlace(spec.scope, spec.started_by)] = None
        if reason is not None:
            if self._begins_to_miss_its_place(tracked):
                log.warning(self._event("search.place_unknown"), workload=str(launch), reason=reason)
            places[SearchPlace(self._destinations.default_scope, launch.started_by)] = None
        return list(places), reason

    def _likely_scopes_of(
        self, phase: Checking, places: Sequence[SearchPlace], guessed_because: str | None
    ) -> Sequence[str]:
        """Return where a container may be whose identifier fits several destinations."""
        possible = self._destinations.scopes_of(phase.container)
        if guessed_because is not None:
            return possible
        names = {destination_of(place.scope) for place in places}
        return [scope for scope in possible if destination_of(scope) in names] or possible

    async def _list_all(
        self, places: Sequence[SearchPlace], over: Sequence[str], refusal: list[str]
    ) -> tuple[list[Observation], bool]:
        """
        Describe every container with a mark, at each place; return them, and whether every place has answered.

        :param over: identifiers of containers that are known to be over
        """
        found: list[Observation] = []
        silent: list[SearchPlace] = []

        async def list_at(place: SearchPlace, *, paid: bool) -> None:
            destination = self._destinations.of(place.scope)
            if not paid:
                await destination.describing.wait_for_read()
            async with destination.searches:
                listed = await self._list(destination, place, over, refusal)
            if listed is None:
                silent.append(place)
            else:
                found.extend(listed)

        async with anyio.create_task_group() as lists:
            first = {destination_of(place.scope): place for place in reversed(places)}
            for place in places:
                # Of each destination's budget one call has been taken.
                paid = first[destination_of(place.scope)] is place
                lists.start_soon(partial(list_at, place, paid=paid))
        return found, not silent

    async def _list(
        self, destination: Destination, place: SearchPlace, over: Sequence[str], refusal: list[str]
    ) -> Sequence[Observation] | None:
        """Describe every container with a mark; return None if the service does not answer for each of them."""
        session, describing, scope, mark = destination.session, destination.describing, place.scope, place.mark
        assert mark is not None
        if not session.begins_call(loop_time()):
            return None
        try:
            listed = dict.fromkeys(await session.search(scope, mark, describing.wait_for_read))
            handles = [handle for handle in listed if handle.id not in over]
        except BackendError as error:
            describing.read_refused(error, "search", scope)
            if error.kind in (Kind.REFUSED, Kind.INVALID, Kind.NOT_FOUND):
                refusal.append(str(error))
            return None
        found: list[Observation] = []
        for batch in describing.in_batches(handles):
            await describing.wait_for_read()
            found += await describing.describe(scope, [handle.id for handle in batch], refusal)
        return found if len(found) >= len(handles) else None

    def _not_answered(
        self, tracked: Tracked, refusal: Sequence[str], begun: float, named: Handle | None = None
    ) -> None:
        now = loop_time()
        if refusal:
            self._dispatcher.dispatch(tracked, SearchRefused(refusal[0], named=named, took=now - begun), now)
        else:
            self._again(tracked, now + self._ledger.rules.search_interval)

    def _again(self, tracked: Tracked, at: float) -> None:
        if isinstance(tracked.phase, UNLOCATED):
            self._ledger.search_from(tracked, at)

    def _begins_to_miss_its_place(self, tracked: Tracked) -> bool:
        """Return whether nothing says for the first time where a launch's container would be."""
        if tracked.number in self._unplaced:
            return False
        self._unplaced &= self._ledger.launches.keys()
        self._unplaced.add(tracked.number)
        return True


def _why_not_rendered(error: Exception) -> str:
    if isinstance(error, Rejected):
        return error.reason
    return f"The request could not be built: {type(error).__name__}"


async def _wait_for_reads(destinations: Iterable[Destination]) -> None:
    """Wait until the read budget of each destination allows one call, and take it."""
    for destination in destinations:
        await destination.describing.wait_for_read()
