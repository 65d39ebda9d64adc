"""
What is owed a stop. Pure: ``now`` is passed in.

May import ``backend``, ``destinations`` and ``phases``. A stop request outlives the launch that it is about: a
stop is owed even when the outcome is known.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.phases import Tracked


@dataclass(slots=True, eq=False)
class StopRequest:
    """
    A container to be stopped.

    :param tries: that were not throttled
    :param refusals: of these, those with a definite no
    :param gone: the service has told of the container, and does not know it at the latest try
    :param delay: seconds that it was meant to wait before the next try
    """

    tracked: Tracked
    handle: Handle
    reason: str
    tries: int = 0
    refusals: int = 0
    gone: bool = False
    delay: float = 0.0
    not_before: float = 0.0


class Stops:
    """
    Stop requests that are owed, by the destinations of their containers.

    Those in flight are included: what has no answer yet survives the loop thread.
    """

    def __init__(self) -> None:
        self._order = itertools.count()
        self._waiting: dict[str, list[tuple[float, int, StopRequest]]] = {}
        self._in_flight: dict[StopRequest, None] = {}  # in order, so that a walk can be repeated

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._waiting.values()) + len(self._in_flight)

    def add(self, request: StopRequest) -> None:
        """Owe a stop, from the request's ``not_before`` on."""
        heap = self._waiting.setdefault(destination_of(request.handle.scope), [])
        heapq.heappush(heap, (request.not_before, next(self._order), request))
        self._in_flight.pop(request, None)

    @property
    def destinations(self) -> Sequence[str]:
        """Those that a stop has ever been owed in."""
        return list(self._waiting)

    def take(self, destination: str) -> StopRequest:
        """Take out the one that is due first, to send it; give it to :meth:`done` or back to :meth:`add`."""
        request = self._waiting[destination][0][2]
        self._in_flight[request] = None
        heapq.heappop(self._waiting[destination])
        return request

    def done(self, request: StopRequest) -> None:
        """Owe this stop no longer."""
        self._in_flight.pop(request, None)

    def next_at(self, destination: str) -> float | None:
        """Return when the next stop of a destination is due; None if none waits."""
        heap = self._waiting.get(destination)
        return heap[0][0] if heap else None

    def recover(self) -> None:
        """Owe the stops in flight again: nobody will read their answers."""
        for request in list(self._in_flight):
            self.add(request)

    def hopeful(self) -> bool:
        """Return whether any stop is owed that has not been refused, of a container that is not gone."""
        return any(not (request.refusals or request.gone) for request in self._owed())

    def handles(self) -> list[Handle]:
        """Return the containers that are owed a stop. Other threads may call it."""
        return list(dict.fromkeys(request.handle for request in self._owed()))

    def owes(self, tracked: Tracked) -> bool:
        """Return whether a launch's container is owed a stop."""
        return any(request.tracked is tracked for request in self._owed())

    def _owed(self) -> list[StopRequest]:
        waiting = [request for heap in list(self._waiting.values()) for _, _, request in list(heap)]
        return waiting + list(self._in_flight)
