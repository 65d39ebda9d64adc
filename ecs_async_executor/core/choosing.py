"""
Which placement a launch is sent to: its best one, or the next one once that has been closed for long enough. Pure.

May import ``errors``, ``events``, ``phases``, ``placements``, ``policy`` and ``queue``.

A lack of room sends a launch elsewhere after its own patience. A refusal that a person may be mending does so
only after ``permanent_error_grace``, when the launch would fail if it had nowhere else to go. Either counts from
the time at which the placement closed, so that a launch which comes later need not wait as long again. From then
on every other placement of the launch will do, the best open one first; but each time that a probe of a better
one is due, the next launch is that probe.

A destination that takes no request, or gives no answer, is left like a full placement, unless all the others are
out of reach, too. It closes no gate, and fails nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.core.queue import LaunchQueue, Way

_WHAT = {Kind.CAPACITY: "has been full for", Kind.REFUSED: "has refused launches for"}


class Outage(NamedTuple):
    """
    Why a destination is out of reach.

    :param since: since when it takes no request, or answers none
    """

    since: float
    reason: str


def in_reach(_: Way, __: float) -> Outage | None:
    """Return None: whatever is sent gets an answer."""
    return None


class Choosing:
    """
    Chooses among the ways of launches.

    :param placements: the gates
    :param rules: the limits of decisions
    """

    def __init__(self, placements: Placements, rules: Rules) -> None:
        self._placements = placements
        self._rules = rules

    def way(
        self,
        queue: LaunchQueue,
        now: float,
        ready_at: Callable[[Way, float], float],
        outage: Callable[[Way, float], Outage | None] = in_reach,
    ) -> tuple[Way | None, float]:
        """
        Return how the next launch of a queue may be sent now, or None and when to look again.

        :param ready_at: returns when rates and credentials allow a request, ``now`` if they do; it is asked only
            of the way that nothing else keeps from being used
        :param outage: returns why a request is not to be sent now by a launch that can go elsewhere, or None
        """
        placements, ways = self._placements, queue.ways
        room = len(ways) > 1
        outages = _outages(ways, now, outage)
        wake_at = math.inf
        for nth, (way, down) in enumerate(zip(ways, outages, strict=True)):
            placement = way.placement
            if placement is None:
                return way, now  # the request tells where it goes
            counts = room and (nth > 0 or placements.holds_back(placement, queue.patience, now))
            since = placements.closed_since(placement, room=counts)
            if since is not None and not placements.may_pass(placement, now, room=counts):
                wake_at = min(wake_at, placements.next_probe_at(placement, room=counts))
            elif down is None:
                at = ready_at(way, now)
                if at <= now:
                    return way, now
                wake_at = min(wake_at, at)
                if since is None:
                    return None, wake_at  # to wait for a rate is no reason to go elsewhere
            if nth == 0 and room and now < (leaves_at := self._leaves_at(queue, placement, since, down)):
                return None, min(wake_at, leaves_at)
        if not room:
            return None, wake_at
        reached = [way for way, down in zip(ways, outages, strict=True) if down is None]
        return self._anywhere(reached, now, ready_at, wake_at)

    def _anywhere(
        self, ways: Iterable[Way], now: float, ready_at: Callable[[Way, float], float], wake_at: float
    ) -> tuple[Way | None, float]:
        """Return the best way whose requests are accepted, when none of them is known to have room."""
        for way in ways:
            if way.placement is not None and self._placements.closed_since(way.placement) is None:
                at = ready_at(way, now)
                return (way, now) if at <= now else (None, min(wake_at, at))
        return None, wake_at

    def _leaves_at(
        self, queue: LaunchQueue, placement: str, since: float | None, down: Outage | None = None
    ) -> float:
        """
        Return when the launches of a queue leave their best placement.

        :param since: since when it is closed
        """
        leaves_at = math.inf if down is None else down.since + queue.patience
        if since is None:
            return leaves_at
        barred = self._placements.barred(placement, room=True)
        refused = barred is not None and barred.kind is Kind.REFUSED
        return min(leaves_at, since + (self._rules.permanent_error_grace if refused else queue.patience))

    def instead(
        self, queue: LaunchQueue, way: Way, now: float, outage: Callable[[Way, float], Outage | None] = in_reach
    ) -> str:
        """Return in words why a launch is sent this way and not its best one; empty if it is that one."""
        best = queue.ways[0]
        if way.choice == best.choice or best.placement is None:
            return ""
        barred = self._placements.barred(best.placement, room=True)
        since = self._placements.closed_since(best.placement, room=True)
        if barred is not None and since is not None:
            what, why = _WHAT[barred.kind], barred.reason
        elif (down := outage(best, now)) is not None:
            what, since, why = "has been out of reach for", down.since, down.reason
        else:
            return ""
        return f"Launched at placement {way.choice!r}: {best.choice!r} {what} {now - since:.0f} s: {why}"

    def barred(self, queue: LaunchQueue, now: float) -> Barred | None:
        """
        Return why the launches of a queue wait, or None if one of them could be sent but for rates.

        The time counts only while all their placements are closed.
        """
        placements, ways = self._placements, queue.ways
        best = ways[0].placement
        if best is None:
            return None
        if len(ways) == 1:
            return placements.barred(best)
        barred = placements.barred(best, room=True)
        since = placements.closed_since(best, room=True)
        if barred is None or since is None:
            return None
        elsewhere = [
            placements.closed_since(way.placement, room=True) if way.placement is not None else None
            for way in ways[1:]
        ]
        closed = [at for at in elsewhere if at is not None]
        if len(closed) == len(elsewhere):
            accepts = any(placements.closed_since(way.placement) is None for way in ways if way.placement)
            return None if accepts else replace(self._mildest(ways, barred), since=max(barred.since, *closed))
        if now < self._leaves_at(queue, best, since) and (
            placements.closed_since(best) is not None or placements.holds_back(best, queue.patience, now)
        ):
            return replace(barred, elsewhere=True)
        return None

    def _mildest(self, ways: Iterable[Way], barred: Barred) -> Barred:
        """Return why a placement is full, if one is: there can be room again although nobody mends anything."""
        if barred.kind is not Kind.REFUSED:
            return barred
        each = [self._placements.barred(way.placement, room=True) for way in ways if way.placement is not None]
        return next((one for one in each if one is not None and one.kind is Kind.CAPACITY), barred)

    def longest_waits(self, queues: Iterable[LaunchQueue], now: float) -> Mapping[Kind, float]:
        """
        Return for how many seconds launches have been refused, by the kind of the refusal: the longest of each.

        A placement that launches choose counts only while launches that can go nowhere else wait there.
        """
        closed = self._placements.closed()
        waits = [barred for placement, barred in closed if self._placements.choice_of(placement) is None]
        for queue in queues:
            barred = self.barred(queue, now) if queue.heap else None
            if barred is not None and not barred.elsewhere:
                waits.append(barred)
        longest: dict[Kind, float] = {}
        for barred in waits:
            longest[barred.kind] = max(longest.get(barred.kind, 0.0), now - barred.since)
        return longest


def _outages(
    ways: Sequence[Way], now: float, outage: Callable[[Way, float], Outage | None]
) -> Sequence[Outage | None]:
    """Return why the destinations of some ways are out of reach, as far as there is another way."""
    if len(ways) > 1:
        outages = [outage(way, now) for way in ways]
        if not all(outages):
            return outages
    return [None] * len(ways)
