"""
The lane that searches: for launches of which it is not known whether they have a container.

May import ``core``, ``describing``, ``dispatcher``, ``rendering``, ``session``, ``wakeup``, anyio and
structlog. A launch with a named container is asked for by its identifier, any other by the mark that it carries.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import anyio
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.backend import Handle, Observation
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.events import Checked, Found, SearchRefused
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.matching import choose
from ecs_async_executor.core.phases import UNLOCATED, Checking, Searching, SearchPlace, Tracked
from ecs_async_executor.engine.describing import Describing
from ecs_async_executor.engine.dispatcher import Dispatcher
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.engine.session import Session
from ecs_async_executor.engine.wakeup import Wakeup

log = structlog.get_logger(__name__)

CONCURRENCY = 256
"""Searches mostly wait for a listing that they share; the read budget limits how fast they may begin."""


class SearchLane:
    """
    Searches for containers.

    :param tasks: where each batch of searches runs: a hook of the user's may take its time over one of them
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        session: Session,
        describing: Describing,
        rendering: Rendering,
        dispatcher: Dispatcher,
        tasks: TaskGroup,
        wakeup: Wakeup,
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._describing = describing
        self._rendering = rendering
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._wakeup = wakeup
        self._event = event
        self._places = anyio.CapacityLimiter(CONCURRENCY)
        self._unplaced: set[int] = set()

    def wake(self) -> None:
        """Have the searches that are due begin."""
        self._wakeup.set()

    async def run(self) -> None:
        """Begin searches as they become due."""
        while True:
            if due := self._ledger.searches.due(anyio.current_time()):
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
            at = anyio.current_time() + self._ledger.rules.search_interval
            for tracked, ticket in zip(due, tickets, strict=True):
                if self._ledger.searches.ticket(tracked) == ticket:
                    self._again(tracked, at)
            self.wake()

    async def search(self, due: Sequence[Tracked]) -> None:
        """Search for the containers of launches once."""
        begun = anyio.current_time()
        named: defaultdict[str, dict[str, list[Tracked]]] = defaultdict(dict)
        marked: list[Tracked] = []
        for tracked in due:
            phase = tracked.phase
            if isinstance(phase, Searching):
                marked.append(tracked)
            elif isinstance(phase, Checking):
                named[self._session.scope_of(phase.container)].setdefault(phase.container, []).append(tracked)
        async with anyio.create_task_group() as searches:
            for scope, by_id in named.items():
                for ids in self._describing.in_batches(list(by_id)):
                    await self._describing.wait_for_read()
                    searches.start_soon(self._search_named, scope, {i: by_id[i] for i in ids}, begun)
            for tracked in marked:
                await self._describing.wait_for_read()
                searches.start_soon(self._search_marked, tracked, begun)

    async def _search_named(self, scope: str, by_id: dict[str, list[Tracked]], begun: float) -> None:
        """Ask for containers by their identifiers."""
        refusal: list[str] = []
        async with self._describing.places:
            observations = {o.handle.id: o for o in await self._describing.describe(scope, list(by_id), refusal)}
        now = anyio.current_time()
        for handle_id, launches in by_id.items():
            for tracked in launches:
                if handle_id in observations:
                    self._dispatcher.dispatch(tracked, Checked(observations[handle_id], now - begun), now)
                else:
                    self._not_answered(tracked, refusal, begun, Handle(scope, handle_id))

    async def _search_marked(self, tracked: Tracked, begun: float) -> None:
        """Search for the container that carries a launch's mark."""
        phase = tracked.phase
        if not isinstance(phase, Searching):
            return  # it was released while it waited for the read budget
        place, guessed_because = phase.place, None
        if place is None:
            place, guessed_because = await self._likely_place_of(tracked)
        if place.mark is None:
            # The user's own mark, which other containers carry too: the service cannot be asked for it.
            now = anyio.current_time()
            self._dispatcher.dispatch(tracked, Found(None, now - begun), now)
            return
        refusal: list[str] = []
        async with self._places:
            found = await self._list(place.scope, place.mark, tracked.past, refusal)
        if found is None:
            self._not_answered(tracked, refusal, begun)
            return
        if tracked.phase is not phase:
            return  # it moved on, or the next search is on its way
        found = [o for o in found if not self._ledger.is_of_a_later_launch(tracked, o)]
        chosen = choose(tracked, found, self._ledger.rules)
        now = anyio.current_time()
        event: Found | SearchRefused = Found(chosen, now - begun)
        if chosen is None and guessed_because is not None:
            # At a guessed place, no container proves nothing.
            event = SearchRefused(guessed_because, place_unknown=True, took=now - begun)
        self._dispatcher.dispatch(tracked, event, now)

    async def _likely_place_of(self, tracked: Tracked) -> tuple[SearchPlace, str | None]:
        """
        Return where another scheduler has started the container, as far as a request of our own tells.

        A launch that cannot be rendered any more may have a container all the same, perhaps at the default place.

        :returns: the place, and why it is a guess if it is one
        """
        launch = tracked.launch
        try:
            spec = await self._rendering.render(launch)
        except Exception as error:  # noqa: BLE001 - user code can be involved
            reason = (
                error.reason
                if isinstance(error, Rejected)
                else f"The request could not be built: {type(error).__name__}"
            )
            if self._begins_to_miss_its_place(tracked):
                log.warning(self._event("search.place_unknown"), workload=str(launch), reason=reason)
            return SearchPlace(self._session.scope_of(None), launch.started_by), reason
        return SearchPlace(spec.scope, spec.started_by), None

    async def _list(
        self, scope: str, mark: str, over: Sequence[str], refusal: list[str]
    ) -> Sequence[Observation] | None:
        """
        Describe every container with a mark; return None if the service does not answer for each of them.

        :param over: identifiers of containers that are known to be over
        """
        if not self._session.begins_call(anyio.current_time()):
            return None
        try:
            listed = dict.fromkeys(await self._session.search(scope, mark, self._describing.wait_for_read))
            handles = [handle for handle in listed if handle.id not in over]
        except BackendError as error:
            self._describing.read_refused(error, "search", scope)
            if error.kind in (Kind.REFUSED, Kind.INVALID, Kind.NOT_FOUND):
                refusal.append(str(error))
            return None
        found: list[Observation] = []
        for batch in self._describing.in_batches(handles):
            await self._describing.wait_for_read()
            found += await self._describing.describe(scope, [handle.id for handle in batch], refusal)
        return found if len(found) >= len(handles) else None

    def _not_answered(
        self, tracked: Tracked, refusal: Sequence[str], begun: float, named: Handle | None = None
    ) -> None:
        now = anyio.current_time()
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
