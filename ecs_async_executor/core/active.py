"""
The launches that have a container, by the destination of that container. Pure.

May import ``backend``, ``destinations`` and ``phases``. A sweep over one destination looks at no
launch of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.phases import LOCATED, Tracked


class Active:
    """Launches with a container, of each destination in the order in which their containers were learnt."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[int, Tracked]] = {}
        self._by_id: dict[str, dict[str, Tracked]] = {}
        self._ids: dict[int, str] = {}

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
        destination = destination_of(handle.scope)
        if tracked.number in self._ids:
            self.discard(tracked.number)  # it has another container now
        self._groups.setdefault(destination, {})[tracked.number] = tracked
        self._by_id.setdefault(destination, {})[handle.id] = tracked
        self._ids[tracked.number] = handle.id

    def discard(self, number: int) -> bool:
        """Take a launch out; return whether it was in."""
        for destination, group in self._groups.items():
            if group.pop(number, None) is not None:
                by_id, handle_id = self._by_id[destination], self._ids.pop(number)
                if handle_id in by_id and by_id[handle_id].number == number:
                    del by_id[handle_id]
                if not group:
                    del self._groups[destination], self._by_id[destination]
                return True
        return False

    def clear(self) -> None:
        """Take all launches out."""
        self._groups.clear()
        self._by_id.clear()
        self._ids.clear()

    def by_id(self, destination: str) -> Mapping[str, Tracked]:
        """Return the launches of one destination by the identifiers of their containers: the latest of each."""
        return self._by_id.get(destination, {})

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
