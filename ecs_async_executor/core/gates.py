"""
Gates: what is being refused waits, and one request at a time finds out whether it still is. Pure.

May import the standard library only. Every ``now`` is in seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary


class Gate:
    """
    Requests that share a fate wait here while they are refused; one of them at a time is the probe.

    A gate begins open. A refusal closes it; from then on one probe at a time may pass, ``first_delay`` seconds
    after the refusal. Each refused probe doubles the delay, up to ``most_delay``. A probe that succeeds opens the
    gate.

    ``refused_at`` is the time of the latest refusal: nothing is known about the time after it. ``pause`` is for
    how many seconds the gate had held requests back before it, on purpose.

    :param probe_timeout: a probe without an answer for so many seconds counts as lost
    """

    __slots__ = (
        "__weakref__", "_changed", "_delay", "_first_delay", "_next_probe_at", "_probe_sent_at",
        "_probe_timeout", "closed_since", "most_delay", "pause", "reason", "refused_at",
    )  # fmt: skip

    def __init__(
        self,
        first_delay: float = 5.0,
        most_delay: float = 60.0,
        probe_timeout: float = 120.0,
        changed: Callable[[Gate], None] | None = None,
    ) -> None:
        self._first_delay = first_delay
        self.most_delay = most_delay
        self._probe_timeout = probe_timeout
        self._changed = changed
        self.closed_since: float | None = None
        self.refused_at = -math.inf
        self.pause = 0.0
        self.reason = ""
        self._delay = first_delay
        self._next_probe_at = math.inf
        self._probe_sent_at: float | None = None

    @property
    def is_open(self) -> bool:
        """True if every request may pass."""
        return self.closed_since is None

    @property
    def next_probe_at(self) -> float | None:
        """When the next probe may pass if no answer comes before; None if the gate is open."""
        if self.is_open:
            return None
        if self._probe_sent_at is not None:
            return self._probe_sent_at + self._probe_timeout
        return self._next_probe_at

    def may_pass(self, now: float) -> bool:
        """Return whether a request may be sent now: any if the gate is open, else the next probe."""
        at = self.next_probe_at
        return at is None or now >= at

    def probe_started(self, now: float) -> None:
        """Note that a request is sent; at a closed gate it is the probe."""
        if not self.is_open:
            self._probe_sent_at = now

    def succeeded(self) -> None:
        """Note that a request succeeded: the gate opens if a probe is out; an older request proves nothing."""
        if self._probe_sent_at is not None:
            self.open()

    def open(self) -> None:
        """Open the gate, whatever shows that requests are accepted."""
        self.closed_since = None
        self.reason = ""
        self._delay = self._first_delay
        self._probe_sent_at = None
        self._notify()

    def close(self, now: float, reason: str) -> None:
        """Close the gate if it is open; in either case keep the latest reason."""
        self.reason = reason
        if self.is_open:
            self.closed_since = now
            self._next_probe_at = now + self._delay
            self._notify()

    def refused(self, now: float, reason: str) -> None:
        """Note that a request was refused: an open gate closes; if the probe is out, the next one comes later."""
        self.refused_at = now
        self.pause = 0.0 if self._probe_sent_at is None else self._delay
        self.close(now, reason)
        if self._probe_sent_at is not None:
            self._delay = min(2.0 * self._delay, self.most_delay)
            self._retry(now)

    def undecided(self, now: float) -> None:
        """Note that the probe was neither accepted nor refused; the next may follow after the same delay."""
        if self._probe_sent_at is not None:
            self._retry(now)

    def void(self, now: float) -> None:
        """Note that the probe's answer was not about what is behind the gate: the next may follow at once."""
        if self._probe_sent_at is not None:
            self._retry(now)
            self._next_probe_at = now

    def _retry(self, now: float) -> None:
        self._probe_sent_at = None
        self._next_probe_at = now + self._delay

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed(self)


class Gates:
    """
    One :class:`Gate` per name, made on demand and dropped once it is open and has no reference, or on request.

    Iteration gives the names of the closed gates, ``len()`` their number.
    """

    def __init__(self, first_delay: float = 5.0, most_delay: float = 60.0, probe_timeout: float = 120.0) -> None:
        self._settings = (first_delay, most_delay, probe_timeout)
        self._gates: WeakValueDictionary[str, Gate] = WeakValueDictionary()
        self._closed: dict[str, Gate] = {}

    def __getitem__(self, name: str) -> Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = Gate(*self._settings, changed=lambda changed: self._keep(name, changed))
            self._gates[name] = gate
        return gate

    def closed(self, name: str) -> Gate | None:
        """Return a gate if it is closed, else None."""
        return self._closed.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._closed))

    def __len__(self) -> int:
        return len(self._closed)

    def forget(self, name: str) -> None:
        """Drop a gate although it is closed: the next request finds an open one."""
        self._closed.pop(name, None)
        self._gates.pop(name, None)

    def _keep(self, name: str, gate: Gate) -> None:
        if not gate.is_open:
            self._closed[name] = gate
        elif self._closed.get(name) is gate:
            del self._closed[name]
