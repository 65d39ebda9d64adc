"""
Placements whose launches are refused: the gate of each, why it is closed, and when it is forgotten. Pure.

May import ``errors``, ``events`` and ``gates``. ``now`` is in seconds of one monotonic clock. A placement is
what shares capacity and rights: see :class:`~ecs_async_executor.core.backend.LaunchSpec`.

A service can accept a request although there is no room: its container then waits for a place, and ends without
one. Launches that have nowhere else to go are sent all the same, as what waits is what a group of hosts grows by.
For launches that can go elsewhere, a placement has a second gate, its *room*: it is closed when a container found
no room, or has waited for it for longer than its launch is patient, and only a container that gets its place opens
it: one that began to wait no earlier, as it has not been overtaken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred
from ecs_async_executor.core.gates import Gate, Gates

FORGOTTEN_AFTER = 60.0
"""Seconds without a launch at a closed gate after which the gate is forgotten: no probe would ever open it."""
LEFT_FOR = 3600.0
"""The same for a placement that launches leave: the next one is the probe, and need not be patient again."""
NEWS_FOR = 60.0
"""Seconds for which it counts that a launch without a known placement has found no room."""
REVIEW_INTERVAL = 1.0
FORGET_INTERVAL = FORGOTTEN_AFTER / 4.0
ROOM_PROBE_TIMEOUT = 600.0
"""Seconds after which a container that waits for a place is no probe any more."""
CLOSED_AGAIN = 600.0
"""Seconds within which it is no news that a room is closed again: where few get a place, that is often."""
CHOSEN_KEPT = 1024


class Placements:
    """The gates of all placements; ``len()`` is the number of closed placements."""

    def __init__(self) -> None:
        self._gates = Gates()
        self._rooms = Gates(probe_timeout=ROOM_PROBE_TIMEOUT)
        self._room_probes: dict[str, int] = {}
        self._placed_since: dict[str, float] = {}
        self._awaited_at: dict[str, float] = {}
        self._choices: dict[str, str] = {}
        self._refusals: dict[str, tuple[Kind, float]] = {}
        self._reviewed_at = -math.inf
        self._needed_at: dict[str, float] = {}
        self._forgot_at = -math.inf
        self._full: dict[Hashable, tuple[str, float]] = {}

    def __len__(self) -> int:
        return len(self._closed())

    def _closed(self) -> dict[str, None]:
        return dict.fromkeys((*self._gates, *self._rooms))

    def gate(self, placement: str) -> Gate:
        """Return the gate of a placement; hold it while a request is in flight."""
        return self._gates[placement]

    def may_pass(self, placement: str, now: float, *, room: bool = False) -> bool:
        """
        Return whether a request may be sent: any to an open placement, else the next probe.

        :param room: the launch can go elsewhere, so that the placement's room counts too
        """
        return all(gate.may_pass(now) for gate in self._closed_gates(placement, room=room))

    def next_probe_at(self, placement: str, *, room: bool = False) -> float:
        """Return when the next probe may pass if no answer comes before; minus infinity if it is open."""
        times = [gate.next_probe_at or -math.inf for gate in self._closed_gates(placement, room=room)]
        return max(times, default=-math.inf)

    def closed_since(self, placement: str, *, room: bool = False) -> float | None:
        """Return since when a placement is closed, whatever for; None if it is open."""
        gates = self._closed_gates(placement, room=room)
        return min((gate.closed_since for gate in gates if gate.closed_since is not None), default=None)

    def barred(self, placement: str, *, room: bool = False) -> Barred | None:
        """Return why the launches of a placement wait, or None if it is open."""
        gates = self._closed_gates(placement, room=room)
        if not gates:
            return None
        gate = gates[0]
        assert gate.closed_since is not None
        kind, since = self._refusals.get(placement, (Kind.CAPACITY, gate.closed_since))
        return Barred(kind, gate.reason, since, gate.refused_at, gate.pause, placement)

    def _closed_gates(self, placement: str, *, room: bool) -> list[Gate]:
        gates = [self._gates.closed(placement), self._rooms.closed(placement) if room else None]
        return [gate for gate in gates if gate is not None]

    def choice_of(self, placement: str) -> str | None:
        """Return the choice that a placement was last sent a launch by, None if by none."""
        return self._choices.get(placement)

    def closed(self) -> Iterator[tuple[str, Barred]]:
        """Yield each placement that is closed, with the reason."""
        for placement in self._closed():
            barred = self.barred(placement, room=True)
            if barred is not None:
                yield placement, barred

    def succeeded(self, placement: str, gate: Gate) -> None:
        """Note that a probe was accepted."""
        gate.succeeded()
        self._refusals.pop(placement, None)

    def refused(self, placement: str, gate: Gate, kind: Kind, reason: str, now: float) -> None:
        """Note that a probe, or a request that left through the open gate, was refused."""
        known, _ = self._refusals.get(placement, (None, now))
        if gate.is_open or known is not kind:
            self._refusals[placement] = (kind, now)
        gate.refused(now, reason)

    def refused_late(self, placement: str, kind: Kind, reason: str, now: float) -> None:
        """
        Note that a request was refused that left before the gate closed, and is no probe.

        A refusal that a person has to mend is worth more than a want of room, so it is what people are told until
        the next probe has an answer. When that is sent stays as it was.
        """
        gate = self._gates.closed(placement)
        if gate is None or kind is not Kind.REFUSED:
            return
        if self._refusals.get(placement, (None, now))[0] is not kind:
            self._refusals[placement] = (kind, now)
            gate.pause = 0.0
        gate.reason, gate.refused_at = reason, now

    # --- room ------------------------------------------------------------------------------------------------

    def chosen(self, placement: str, choice: str, number: int, now: float) -> None:
        """
        Note that the request of a launch with a choice is sent; its container is the probe of a closed room.

        :param number: of the launch
        """
        if len(self._choices) >= CHOSEN_KEPT:
            self._choices.clear()
        self._choices[placement] = choice
        room = self._rooms.closed(placement)
        if room is not None and room.may_pass(now):
            room.probe_started(now)
            self._room_probes[placement] = number

    def give_up_probes(self, is_out: Callable[[str, int], bool], now: float) -> None:
        """
        Let the next probes of closed rooms pass whose containers find out nothing any more.

        :param is_out: returns whether the launch with a number waits for its place at a placement
        """
        for placement, number in list(self._room_probes.items()):
            if not is_out(placement, number):
                self.found_out_nothing(placement, number, now)

    def found_out_nothing(self, placement: str, number: int, now: float) -> None:
        """Note that a launch tells nothing of the room of a placement; if it was the probe, let the next pass."""
        room = self._rooms.closed(placement)
        if room is not None and self._room_probes.get(placement) == number:
            del self._room_probes[placement]
            room.void(now)

    def had_no_place(self, placement: str, number: int, reason: str, *, since: float, now: float) -> None:
        """
        Note that the container of a launch with a choice has ended without a place.

        :param since: since when it looked for one
        """
        room = self._rooms[placement]
        self._awaited_at.pop(placement, None)
        if room.is_open:
            self._close_room(placement, reason, since, now)
        elif self._room_probes.get(placement) == number:
            del self._room_probes[placement]
            room.refused(now, reason)

    def waits_for_place(self, placement: str, reason: str, *, since: float, patience: float, now: float) -> bool:
        """
        Note that the container of a launch that could have gone elsewhere has no place yet.

        :param since: since when it looks for one
        :param patience: of the launch, in seconds
        :returns: True if that closes the room, and has not done so a short while ago
        """
        if self._rooms.closed(placement) is not None or now < self._waits_since(placement, since) + patience:
            return False
        last_at = self._awaited_at.get(placement, -math.inf)
        self._awaited_at[placement] = now
        self._close_room(placement, reason, since, now)
        return now >= last_at + CLOSED_AGAIN

    def has_placed(self, placement: str, *, since: float) -> None:
        """
        Note that the container of a launch with a choice runs.

        :param since: since when it looked for its place
        """
        if len(self._placed_since) >= CHOSEN_KEPT:
            self._placed_since.clear()
        self._placed_since[placement] = self._waits_since(placement, since)
        room = self._rooms.closed(placement)
        if room is not None and room.closed_since is not None and since >= room.closed_since:
            self._room_probes.pop(placement, None)
            room.open()

    def _close_room(self, placement: str, reason: str, since: float, now: float) -> None:
        room = self._rooms[placement]
        room.refused(now, reason)
        room.closed_since = min(now, self._waits_since(placement, since))

    def _waits_since(self, placement: str, since: float) -> float:
        """Return since when a wait counts: there was room when what came later has got its place."""
        return max(since, self._placed_since.get(placement, since))

    def holds_back(self, placement: str, patience: float, now: float) -> bool:
        """
        Return whether the room of a placement counts for launches with a patience.

        Where containers wait yet, those can wait as well for as long as they are patient.
        """
        room = self._rooms.closed(placement)
        since = None if room is None else room.closed_since
        return since is None or placement not in self._awaited_at or now >= since + patience

    # --- news, reviews, forgetting ---------------------------------------------------------------------------

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
        if not (len(self._gates) or len(self._rooms)) or now < self._reviewed_at + REVIEW_INTERVAL:
            return False
        self._reviewed_at = now
        return True

    def forget(self, needed: Callable[[], Collection[str | None]], now: float) -> list[str]:
        """
        Forget the closed gates at which no launch has waited for a minute, or for an hour if launches leave there.

        :param needed: returns the placements of all launches that want a container; called four times a minute
        :returns: the placements whose gates are forgotten
        """
        if not (len(self._gates) or len(self._rooms)) or now < self._forgot_at + FORGET_INTERVAL:
            return []
        self._forgot_at = now
        placements = needed()
        forgotten = []
        for placement in self._closed():
            kept = LEFT_FOR if placement in self._choices else FORGOTTEN_AFTER
            if placement in placements:
                self._needed_at[placement] = now
            elif now >= self._needed_at.setdefault(placement, now) + kept:
                self._gates.forget(placement)
                self._rooms.forget(placement)
                self._refusals.pop(placement, None)
                self._room_probes.pop(placement, None)
                self._awaited_at.pop(placement, None)
                forgotten.append(placement)
        closed = self._closed()
        self._needed_at = {name: at for name, at in self._needed_at.items() if name in closed}
        return forgotten
