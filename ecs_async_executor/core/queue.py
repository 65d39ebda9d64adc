"""
What is launched next: one launch queue for each placement, and the launches that wait for a time. Pure.

May import ``phases``. A launch has one place at most; taking a new one voids the old, which is dropped when it
is met.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from ecs_async_executor.core.phases import UNLAUNCHED, InDoubt, Tracked, Waiting

ROUTES_KEPT = 1024

Place = tuple[int, int, int, int, Tracked]
"""
(refused probes, -priority, launch number, ticket, launch): a heap of these pops the highest priority, oldest
first, but before a launch whose own request was refused every one that has not been tried as often. Tickets are
unique.
"""


@dataclass(slots=True)
class LaunchQueue:
    """
    Launches that fall under the same limits.

    :param placement: see :class:`~ecs_async_executor.core.backend.LaunchSpec`; None while it is unknown
    :param bucket: likewise
    """

    placement: str | None
    bucket: str | None
    heap: list[Place] = field(default_factory=list)


class LaunchQueues:
    """Every place in every launch queue, and the times that launches wait for."""

    def __init__(self) -> None:
        self.queues: dict[str | None, LaunchQueue] = {None: LaunchQueue(None, None)}
        self._delayed: list[tuple[float, int, Tracked]] = []
        self._tickets: dict[int, int] = {}
        self._placements: dict[int, str] = {}
        self._routes: dict[Hashable, str] = {}
        self._order = itertools.count(1)

    # --- places ----------------------------------------------------------------------------------------------

    def add(self, tracked: Tracked, now: float) -> None:
        """Give a launch a place: at once, or from its phase's ``not_before`` on."""
        phase = tracked.phase
        assert isinstance(phase, Waiting | InDoubt)
        ticket = self._tickets[tracked.number] = next(self._order)
        if phase.not_before > now:
            heapq.heappush(self._delayed, (phase.not_before, ticket, tracked))
            return
        queue = self.queues.get(self.placement_of(tracked)) or self.queues[None]
        place = (phase.patience.probes, -tracked.launch.priority, tracked.number, ticket, tracked)
        heapq.heappush(queue.heap, place)

    def ticket(self, tracked: Tracked) -> int | None:
        """Return the number of a launch's present place; it changes with every new one."""
        return self._tickets.get(tracked.number)

    def is_current(self, tracked: Tracked, ticket: int | None) -> bool:
        """Return whether a launch is still to be sent from a place, which may have been popped."""
        return self._tickets.get(tracked.number) == ticket and isinstance(tracked.phase, UNLAUNCHED)

    def forget(self, tracked: Tracked) -> None:
        """Void whatever place a launch has."""
        self._tickets.pop(tracked.number, None)
        self._placements.pop(tracked.number, None)

    def advance(self, now: float) -> None:
        """Bring launches whose time has come into their queues."""
        while self._delayed and self._delayed[0][0] <= now:
            _, ticket, tracked = heapq.heappop(self._delayed)
            if self.is_current(tracked, ticket):
                self.add(tracked, now)

    def next_at(self) -> float | None:
        """Return when :meth:`advance` is due; None if no launch waits for a time."""
        return self._delayed[0][0] if self._delayed else None

    def __bool__(self) -> bool:
        return bool(self._delayed) or any(queue.heap for queue in self.queues.values())

    # --- queues ----------------------------------------------------------------------------------------------

    def head(self, queue: LaunchQueue) -> Tracked | None:
        """Return the launch that is next in a queue, and drop void places before it."""
        while queue.heap:
            _, _, _, ticket, tracked = queue.heap[0]
            if self.is_current(tracked, ticket):
                return tracked
            heapq.heappop(queue.heap)
        return None

    def pop(self, queue: LaunchQueue) -> None:
        """Take the head of a queue out of it."""
        heapq.heappop(queue.heap)

    def members(self, queue: LaunchQueue) -> list[Tracked]:
        """Return the launches of a queue, in no order; drop void places, as nothing else does at a closed gate."""
        current = [place for place in queue.heap if self.is_current(place[4], place[3])]
        if len(current) < len(queue.heap):
            heapq.heapify(current)
            queue.heap = current
        return [place[4] for place in current]

    def drop(self, queue: LaunchQueue) -> None:
        """Forget a queue that nothing waits in."""
        if queue.placement is not None and not queue.heap:
            self.queues.pop(queue.placement, None)
            for route, placement in list(self._routes.items()):
                if placement == queue.placement:
                    del self._routes[route]

    # --- placements ------------------------------------------------------------------------------------------

    def placement_of(self, tracked: Tracked) -> str | None:
        """Return what a launch shares limits with: by its own request, or else by its route's last one."""
        return self._placements.get(tracked.number) or self._routes.get(tracked.launch.route)

    def bucket_of(self, tracked: Tracked) -> str | None:
        """Return the rate bucket that a launch waits for, None if that is unknown."""
        queue = self.queues.get(self.placement_of(tracked))
        return queue.bucket if queue is not None else None

    def learn_route(self, tracked: Tracked, placement: str, bucket: str) -> None:
        """Remember which limits a launch, and those like it, fall under."""
        queue = self.queues.get(placement)
        if queue is None:
            self.queues[placement] = LaunchQueue(placement, bucket)
        else:
            queue.bucket = bucket
        self._placements[tracked.number] = placement
        if len(self._routes) >= ROUTES_KEPT:
            self._routes.clear()
        self._routes[tracked.launch.route] = placement

    def needed_placements(self, launches: Iterable[Tracked]) -> set[str]:
        """Return the placements that launches without a container wait at, or were last sent to."""
        needed = {self._placements[t.number] for t in launches if t.number in self._placements}
        # An unrendered launch has no placement yet; it queues under that of earlier launches with the same route.
        waited_at = (q.placement for q in self.queues.values() if self.head(q) is not None)
        return needed | {placement for placement in waited_at if placement is not None}


class Timetable:
    """Launches that something is done about at a time; a launch has one entry at most."""

    def __init__(self, is_due: Callable[[Tracked], bool]) -> None:
        self._is_due = is_due
        self._heap: list[tuple[float, int, Tracked]] = []
        self._tickets: dict[int, int] = {}
        self._order = itertools.count(1)

    def add(self, tracked: Tracked, at: float) -> None:
        """Enter a launch, or move its entry."""
        ticket = self._tickets[tracked.number] = next(self._order)
        heapq.heappush(self._heap, (at, ticket, tracked))

    def ticket(self, tracked: Tracked) -> int | None:
        """Return the number of a launch's latest entry, taken out or not."""
        return self._tickets.get(tracked.number)

    def forget(self, tracked: Tracked) -> None:
        """Void a launch's entry."""
        self._tickets.pop(tracked.number, None)

    def due(self, now: float) -> list[Tracked]:
        """Take out every launch whose time has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, ticket, tracked = heapq.heappop(self._heap)
            if self._tickets.get(tracked.number) == ticket and self._is_due(tracked):
                due.append(tracked)
        return due

    def next_at(self) -> float | None:
        """Return when :meth:`due` has something to return; None if nothing is entered."""
        return self._heap[0][0] if self._heap else None
