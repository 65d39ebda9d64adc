"""
Which destinations a container can be in, by its identifier.

Imports ``core.destinations`` and the rules' ``Destination``. An ARN names Region and account; the identifier of a
Batch job names neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.settings.rules import Destination

_MOST_FOUND: Final = 4096
_ARN_PARTS: Final = 6


@dataclass(slots=True)
class _Place:
    """
    What is known of a destination.

    :ivar regions: empty if its connection decides, and nothing has come from there yet
    :ivar accounts: empty as long as nothing has come from there
    """

    regions: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)

    def fits(self, region: str, account: str) -> bool:
        return (not self.regions or region in self.regions) and (not self.accounts or account in self.accounts)

    def is_surely(self, region: str, account: str) -> bool:
        return region in self.regions and account in self.accounts


class Places:
    """
    What is known of the destinations, home among them, and of the containers in them.

    Used by several threads; each statement that changes it is one of a dictionary's or a set's own.

    :param destinations: by their names
    """

    def __init__(self, destinations: Mapping[str, Destination]) -> None:
        self._places = {name: _known_of(one) for name, one in destinations.items()}
        self._found: OrderedDict[str, str] = OrderedDict()

    def of(self, handle_id: str) -> tuple[str, ...]:
        """
        Return the destinations that can have a container, the likeliest first, and never none.

        An ARN that fits no destination is home's: its rule is gone.
        """
        if found := self._found.get(handle_id):
            return (found,)
        where = _region_and_account(handle_id)
        if where is None:
            return tuple(self._places)
        fitting = [name for name, place in self._places.items() if place.fits(*where)]
        fitting.sort(key=lambda name: not self._places[name].is_surely(*where))
        return tuple(fitting) or (HOME,)

    def learn(self, destination: str, handle_id: str) -> None:
        """Note that a container is in a destination, so that others from there are known by their ARNs."""
        place, where = self._places[destination], _region_and_account(handle_id)
        if where is not None and not place.is_surely(*where):
            place.regions.add(where[0])
            place.accounts.add(where[1])

    def remember(self, destination: str, handle_id: str) -> None:
        """Note where a container was found of which the identifier tells nothing."""
        self.learn(destination, handle_id)
        if len(self._places) > 1 and self.of(handle_id) != (destination,):
            self._found[handle_id] = destination
            while len(self._found) > _MOST_FOUND:
                self._found.popitem(last=False)


def _known_of(destination: Destination) -> _Place:
    place = _Place()
    if destination.region_name is not None:
        place.regions.add(destination.region_name)
    if destination.role_arn is not None and (account := destination.role_arn.split(":")[4:5]):
        place.accounts.update(account)
    return place


def _region_and_account(handle_id: str) -> tuple[str, str] | None:
    parts = handle_id.split(":", _ARN_PARTS - 1)
    return (parts[3], parts[4]) if len(parts) == _ARN_PARTS and parts[0] == "arn" else None
