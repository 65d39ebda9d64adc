"""
The launches that have a container, by the destination of that container. Pure.

May import ``backend``, ``destinations`` and ``phases``. A sweep over one destination looks at no
launch of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.phases import LOCATED, Tracked


class Active:
    """Launches with a container, of each destination in the order in which their containers were learnt."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[int, Tracked]] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def __contains__(self, destination: object) -> bool:
        """Return whether a destination has containers."""
        return destination in self._groups

    def __iter__(self) -> Iterator[str]:
        """Iterate over the destinations that have containers."""
        return iter(list(self._groups))

    def has(self, number: int) -> bool:
        """Return whether a launch is in."""
        return any(number in group for group in self._groups.values())

    def add(self, tracked: Tracked, handle: Handle) -> None:
        """Add a launch with its container."""
        self._groups.setdefault(destination_of(handle.scope), {})[tracked.number] = tracked

    def discard(self, number: int) -> bool:
        """Take a launch out; return whether it was in."""
        for destination, group in self._groups.items():
            if group.pop(number, None) is not None:
                if not group:
                    del self._groups[destination]
                return True
        return False

    def clear(self) -> None:
        """Take all launches out."""
        self._groups.clear()

    def at(self, destination: str) -> Sequence[Tracked]:
        """Return the launches of one destination."""
        return list(self._groups.get(destination, {}).values())

    def since(self, destination: str, then: float) -> list[Tracked]:
        """Return the launches of one destination whose containers were learnt after a time."""
        found = []
        for tracked in reversed(self._groups.get(destination, {}).values()):
            if not isinstance(tracked.phase, LOCATED) or tracked.phase.since <= then:
                break
            found.append(tracked)
        return found
