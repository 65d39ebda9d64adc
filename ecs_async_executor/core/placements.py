"""
Placements whose launches are refused: the gate of each, why it is closed, and when it is forgotten. Pure.

May import ``errors``, ``events`` and ``gates``. ``now`` is in seconds of one monotonic clock. A placement is
what shares capacity and rights: see :class:`~ecs_async_executor.core.backend.LaunchSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred
from ecs_async_executor.core.gates import Gate, Gates

FORGOTTEN_AFTER = 60.0
"""Seconds without a launch at a closed gate after which the gate is forgotten: no probe would ever open it."""
NEWS_FOR = 60.0
"""Seconds for which it counts that a launch without a known placement has found no room."""
REVIEW_INTERVAL = 1.0
FORGET_INTERVAL = FORGOTTEN_AFTER / 4.0


class Placements:
    """The gates of all placements; ``len()`` is the number of closed ones."""

    def __init__(self) -> None:
        self._gates = Gates()
        self._refusals: dict[str, tuple[Kind, float]] = {}
        self._reviewed_at = -math.inf
        self._needed_at: dict[str, float] = {}
        self._forgot_at = -math.inf
        self._full: dict[Hashable, tuple[str, float]] = {}

    def __len__(self) -> int:
        return len(self._gates)

    def gate(self, placement: str) -> Gate:
        """Return the gate of a placement; hold it while a request is in flight."""
        return self._gates[placement]

    def barred(self, placement: str) -> Barred | None:
        """Return why the launches of a placement wait, or None if its gate is open."""
        gate = self._gates[placement]
        if gate.closed_since is None:
            return None
        kind, since = self._refusals.get(placement, (Kind.CAPACITY, gate.closed_since))
        return Barred(kind, gate.reason, since, gate.refused_at, gate.pause, placement)

    def longest_waits(self, now: float) -> Mapping[Kind, float]:
        """Return for how many seconds a gate has been closed, by the kind of its refusal: the longest of each."""
        longest: dict[Kind, float] = {}
        for _, barred in self.closed():
            longest[barred.kind] = max(longest.get(barred.kind, 0.0), now - barred.since)
        return longest

    def closed(self) -> Iterator[tuple[str, Barred]]:
        """Yield each placement whose gate is closed, with the reason."""
        for placement in self._gates:
            barred = self.barred(placement)
            if barred is not None:
                yield placement, barred

    def succeeded(self, placement: str, gate: Gate) -> None:
        """Note that a probe got its container."""
        gate.succeeded()
        self._refusals.pop(placement, None)

    def refused(self, placement: str, gate: Gate, kind: Kind, reason: str, now: float) -> None:
        """Note that a probe, or a request that left through the open gate, was refused."""
        known, _ = self._refusals.get(placement, (None, now))
        if gate.is_open or known is not kind:
            self._refusals[placement] = (kind, now)
        gate.refused(now, reason)

    def found_no_room(self, route: Hashable, reason: str, now: float) -> None:
        """Note that a container found no room whose placement is not known: only a new request tells it."""
        self._full = {known: news for known, news in self._full.items() if now < news[1] + NEWS_FOR}
        self._full[route] = (reason, now)

    def take_news(self, route: Hashable, now: float) -> str | None:
        """Return once why a container of a route has found no room, None if nothing new is known."""
        reason, at = self._full.pop(route, ("", -math.inf))
        return reason if now < at + NEWS_FOR else None

    def begins_review(self, now: float) -> bool:
        """Return whether to review the launches at closed gates now: once a second, while any gate is closed."""
        if not len(self._gates) or now < self._reviewed_at + REVIEW_INTERVAL:
            return False
        self._reviewed_at = now
        return True

    def forget(self, needed: Callable[[], Collection[str | None]], now: float) -> list[str]:
        """
        Forget the closed gates at which no launch has waited for a minute.

        :param needed: returns the placements of all launches that want a container; called four times a minute
        :returns: the placements whose gates are forgotten
        """
        if not len(self._gates) or now < self._forgot_at + FORGET_INTERVAL:
            return []
        self._forgot_at = now
        placements = needed()
        forgotten = []
        for placement in self._gates:
            if placement in placements:
                self._needed_at[placement] = now
            elif now >= self._needed_at.setdefault(placement, now) + FORGOTTEN_AFTER:
                self._gates.forget(placement)
                self._refusals.pop(placement, None)
                forgotten.append(placement)
        closed = set(self._gates)
        self._needed_at = {name: at for name, at in self._needed_at.items() if name in closed}
        return forgotten
