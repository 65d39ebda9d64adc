"""
What is launched next: one launch queue for those with the same ways, and the launches that wait for a time. Pure.

May import ``choices`` and ``phases``. A launch has one place at most; taking a new one voids the old, which is
dropped when it is met.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.dictionaries import take_out
from ecs_async_executor.core.phases import UNLAUNCHED, InDoubt, Tracked, Waiting

ROUTES_KEPT = 1024

Place: TypeAlias = tuple[int, int, int, int, Tracked]
"""
(rounds of refused probes, -priority, launch number, ticket, launch): a heap of these pops the highest priority,
oldest first, but before a launch whose own requests were refused every one that has not been tried as often.
Tickets are unique.
"""


class Way(NamedTuple):
    """
    What one request of a launch is made with, and the limits that it falls under.

    :param choice: see :mod:`.choices`; None if there is none
    :param placement: see :class:`~ecs_async_executor.core.backend.LaunchSpec`; None while it is unknown
    :param bucket: likewise
    """

    choice: str | None = None
    placement: str | None = None
    bucket: str | None = None


NO_NAME: Final = (None,)
UNKNOWN: Final = (Way(),)
"""The ways of a launch of which only a request can tell where it goes."""


@dataclass(slots=True)
class LaunchQueue:
    """
    Launches that fall under the same limits.

    :param ways: the requests that they may be made with, best first; there is always one
    :param patience: see :class:`~ecs_async_executor.core.choices.Choices`
    :ivar tried: the heap can have launches with rounds of refused probes
    """

    ways: tuple[Way, ...]
    patience: float
    heap: list[Place] = field(default_factory=list)
    tried: bool = False


@dataclass(slots=True)
class _Known:
    """
    What is known of where a launch, or those with the same route, can go.

    :param choices: None until they are asked for
    :param ways: the latest that was learnt of each choice
    """

    choices: Choices | None = None
    ways: dict[str | None, Way] = field(default_factory=dict)


class LaunchQueues:
    """Every place in every launch queue, and the times that launches wait for."""

    def __init__(self) -> None:
        self.unknown = LaunchQueue(UNKNOWN, 0.0)
        self.queues: dict[tuple[tuple[Way, ...], float], LaunchQueue] = {(UNKNOWN, 0.0): self.unknown}
        self._delayed: list[tuple[float, int, Tracked]] = []
        self._tickets: dict[int, int] = {}
        self._own: dict[int, _Known] = {}
        self._routes: dict[Hashable, _Known] = {}
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
        queue = self.queue_of(tracked)
        # What is refused at one placement goes on to the next at once: only a round of all of them is a try.
        rounds = phase.patience.probes // len(queue.ways)
        queue.tried = queue.tried or rounds > 0
        heapq.heappush(queue.heap, (rounds, -tracked.launch.priority, tracked.number, ticket, tracked))

    def ticket(self, tracked: Tracked) -> int | None:
        """Return the number of a launch's present place; it changes with every new one."""
        return self._tickets.get(tracked.number)

    def is_current(self, tracked: Tracked, ticket: int | None) -> bool:
        """Return whether a launch is still to be sent from a place, which may have been popped."""
        return self._tickets.get(tracked.number) == ticket and isinstance(tracked.phase, UNLAUNCHED)

    def forget(self, tracked: Tracked) -> None:
        """Void whatever place a launch has."""
        take_out(self._tickets, tracked.number)
        take_out(self._own, tracked.number)

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

    def forgive(self, queue: LaunchQueue) -> None:
        """Order a queue by urgency alone: what its launches were refused for is left behind."""
        if queue.tried:
            queue.heap = [(0, *place[1:]) for place in queue.heap]
            heapq.heapify(queue.heap)
            queue.tried = False

    def members(self, queue: LaunchQueue) -> list[Tracked]:
        """Return the launches of a queue, in no order; drop void places, as nothing else does at a closed gate."""
        current = [place for place in queue.heap if self.is_current(place[4], place[3])]
        if len(current) < len(queue.heap):
            heapq.heapify(current)
            queue.heap = current
        return [place[4] for place in current]

    def drop(self, queue: LaunchQueue) -> None:
        """Forget a queue that nothing waits in."""
        if queue is not self.unknown and not queue.heap:
            self.queues.pop((queue.ways, queue.patience), None)

    # --- ways ------------------------------------------------------------------------------------------------

    def queue_of(self, tracked: Tracked) -> LaunchQueue:
        """Return the queue that a launch waits in, by its own requests, or else by the latest of its route."""
        ways = self.ways_of(tracked)
        if ways[0].placement is None:
            return self.unknown
        choices = self.choices_of(tracked)
        patience = choices.patience if choices is not None and len(ways) > 1 else 0.0
        queue = self.queues.get((ways, patience))
        if queue is None:
            queue = self.queues[ways, patience] = LaunchQueue(ways, patience)
        return queue

    def choices_of(self, tracked: Tracked) -> Choices | None:
        """Return what a launch may choose from, as those of its route may; None if that is unknown."""
        own = self._own.get(tracked.number)
        if own is None or own.choices is None:
            own = self._routes.get(tracked.launch.route)
        return own.choices if own is not None else None

    def ways_of(self, tracked: Tracked) -> tuple[Way, ...]:
        """Return the ways of a launch, best first, as far as they are known; there is always one."""
        phase = tracked.phase
        if isinstance(phase, InDoubt) and phase.doubt.spec is not None:
            return (_way_of(phase.doubt.spec),)  # only the same request tells what became of it
        choices = self.choices_of(tracked)
        if choices is None:
            return UNKNOWN
        own, route = self._own.get(tracked.number), self._routes.get(tracked.launch.route)
        known: Mapping[str | None, Way] = route.ways if route is not None else {}
        if own is not None and own.ways:
            known = {**known, **own.ways}
        return tuple([known.get(name) or Way(name) for name in choices.names or NO_NAME])

    def learn_choices(self, tracked: Tracked, choices: Choices) -> None:
        """Remember what a launch, and those like it, may choose from."""
        for known in self._known(tracked):
            known.choices = choices

    def learn_way(self, tracked: Tracked, spec: LaunchSpec) -> None:
        """Remember which limits a launch, and those like it, fall under with one of their choices."""
        way = _way_of(spec)
        for known in self._known(tracked):
            known.ways[way.choice] = way

    def _known(self, tracked: Tracked) -> tuple[_Known, _Known]:
        own, route = self._own.get(tracked.number), self._routes.get(tracked.launch.route)
        if own is None:
            own = self._own[tracked.number] = _Known()
        if route is None:
            if len(self._routes) >= ROUTES_KEPT:
                self._routes.clear()
            route = self._routes[tracked.launch.route] = _Known()
        return own, route

    def needed_placements(self, launches: Iterable[Tracked]) -> set[str]:
        """Return the placements that launches without a container wait at, or were last sent to."""
        ways = [way for t in launches if t.number in self._own for way in self._own[t.number].ways.values()]
        # An unrendered launch has no way of its own yet; it queues under those of earlier launches of its route.
        ways += [way for queue in self.queues.values() if self.head(queue) is not None for way in queue.ways]
        return {way.placement for way in ways if way.placement is not None}


def _way_of(spec: LaunchSpec) -> Way:
    return Way(spec.choice, spec.placement, spec.bucket)


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
        take_out(self._tickets, tracked.number)

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
