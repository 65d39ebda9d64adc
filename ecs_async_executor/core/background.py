"""
The refusals that do not depend on our own rate: how a rate learns their share, and sees more than that. Pure.

May import the standard library only. Rates are calls per second, every ``now`` is in seconds of one monotonic
clock.
"""

from __future__ import annotations

import math

_PERIOD_SECONDS = 10.0
"""Half of it is quiet: at 1 % of 20/s, less than that learns too slowly; more would cost too much of the quota."""
_QUIET_SECONDS = 5.0
_GUARD_SECONDS = 0.6
"""Until a call sent before the slot has its answer, where clocks differ by 0.2 s and a call takes 0.2 s."""
_LATELY_SECONDS = 60.0
"""A rate that nobody refuses has no quiet slots. It is refused about every 30 s where the quota is all its own."""
_QUIET = 0.8
"""Where no call in a quiet slot was refused yet. A lower rate costs a single scheduler more than 5 % of its
quota."""
_QUIETER = 0.65
"""Once one was: with 0.7 and more, twelve schedulers took their own overload for background, and ran away."""
_SUSPECT = 0.5
"""Refused calls, with the older ones forgotten by and by, from which on a slot is quieter."""

_FEWEST_CALLS = 100.0
_WINDOW_SECONDS = 30.0
"""The share is that of this many seconds' worth of calls: it forgets a neighbour in two minutes."""
_BEGINNING_CALLS = 2.0
"""Accepted calls to begin with, so that the very first call decides nothing."""
_STRAY = 1.3
"""Refused calls that may be no background: one, and some of the second and third."""
_NONE = 0.001
"""Less is no background: the evidence is then such that one refused call is enough."""
_LEARNT = 0.003
_FULLY_LEARNT = 0.005
_OVERRUN = 0.3

_MORE = 0.08
"""A rate that is too fast has this share refused above the background, or..."""
_MORE_OF_SHARE = 0.2
"""...that much more where the background varies more by itself."""
_MOST = 0.98
_EVIDENCE = 4.3
"""Just below what one refused call weighs while there is no background, ln(0.081 / 0.001)."""
_EVIDENCE_LEARNT = 1.5
"""Added where there is a background. 6 costs schedulers that share a quota a quarter of their calls beside
noise."""
_EVIDENCE_SHARE = 15.0
"""Added for a large background, whose own ups and downs are larger."""
_EVIDENCE_FAST = 3.0
_FAST = 40.0
"""A faster rate needs more evidence, as it has more calls in flight that are refused together. With 20, of several
schedulers at the quota the faster needs two refusals and the slower one: the rich get richer."""

_STORM_SECONDS = 1.5
"""Without an accepted call. The calls in flight when a large bucket runs dry are refused within less."""
_STORM_EVIDENCE = 7.0
_FEWEST_IN_STORM = 2


class Background:
    """
    Learn which share of calls is refused whatever the rate, and find out when more are.

    Neighbours on the same quota and hiccups of the service refuse calls that a lower rate would not have saved.
    A scheduler cannot tell these from its own by lowering its rate alone: of four on one quota, one that halves
    its rate changes the sum by an eighth. So all of ours lower their rates together, in *quiet slots* of the
    wall clock: the first half of every ten seconds, as long as calls are being refused. What is refused even
    then is background. Its share is a lower bound: one stray refusal is none.

    Refusals beyond the background are found by a sequential test, CUSUM: each call adds the logarithm of how much
    more likely its result is if the rate is too fast, and the sum never falls below zero.

    :param wall_offset: seconds to add to ``now`` for the wall clock, which schedulers have in common
    """

    __slots__ = (
        "_accepted_at", "_calls", "_evidence", "_if_accepted", "_if_refused", "_in_a_row", "_refused",
        "_refused_at", "_since", "_wall_offset", "share",
    )  # fmt: skip

    def __init__(self, now: float, wall_offset: float = 0.0) -> None:
        self._wall_offset = wall_offset
        self._calls = _BEGINNING_CALLS
        self._refused = 0.0
        self._evidence = 0.0
        self._in_a_row = 0
        self._accepted_at = now
        self._refused_at = -math.inf
        self._since = math.inf
        self._weigh()

    @property
    def is_learnt(self) -> bool:
        """Whether there is a background that is worth to be reckoned with."""
        return self.share > _LEARNT

    @property
    def is_overrun(self) -> bool:
        """Whether so many are refused that a lower rate of ours makes room for others only."""
        return self.share > _OVERRUN

    def is_quiet(self, now: float) -> bool:
        """Return whether a quiet slot is on."""
        return now - self._refused_at < _LATELY_SECONDS and self._into_period(now) < _QUIET_SECONDS

    def part(self, now: float) -> float:
        """Return which part of its rate a bucket may use now, 1 outside quiet slots."""
        if not self.is_quiet(now):
            return 1.0
        return _QUIET if self._refused < _SUSPECT or self.is_overrun else _QUIETER

    def is_shared_quiet(self, now: float) -> bool:
        """Return whether the schedulers that share the quota are in this quiet slot, too."""
        into = self._into_period(now)
        return _GUARD_SECONDS <= into < _QUIET_SECONDS and now - into >= self._since

    def accepted(self, now: float, rate: float, *, teaches: bool) -> None:
        """
        Note an accepted call.

        :param teaches: it was sent in a quiet slot, so that it says something about the background
        """
        self._in_a_row = 0
        self._accepted_at = now
        if teaches:
            self._learn(0.0, rate)
        self._evidence = max(0.0, self._evidence + self._if_accepted)

    def refused(self, now: float, rate: float, *, teaches: bool) -> bool:
        """
        Note a refused call, and return whether the service refuses everything.

        Then the rate is not the cause, and the call teaches nothing.
        """
        self._in_a_row += 1
        if now - self._refused_at >= _LATELY_SECONDS:
            self._since = now
        self._refused_at = max(self._refused_at, now)
        chance = min(0.95, max(0.01, self.share))
        if (
            self._in_a_row >= _FEWEST_IN_STORM
            and now - self._accepted_at > _STORM_SECONDS
            and self._in_a_row * -math.log(chance) > _STORM_EVIDENCE
        ):
            return True
        if teaches:
            self._learn(1.0, rate)
        return False

    def is_exceeded(self, rate: float) -> bool:
        """Add one refused call to the evidence, and return whether it now shows that the rate is too fast."""
        self._evidence += self._if_refused
        learnt = min(1.0, (self.share - _NONE) / (_FULLY_LEARNT - _NONE))
        fast = math.log(max(1.0, rate / _FAST))
        more = _EVIDENCE_LEARNT * learnt + _EVIDENCE_SHARE * self.share + _EVIDENCE_FAST * fast
        return self._evidence >= _EVIDENCE + more

    def forget_evidence(self) -> None:
        """Begin the test anew: the rate has changed."""
        self._evidence = 0.0

    def _into_period(self, now: float) -> float:
        return (now + self._wall_offset) % _PERIOD_SECONDS

    def _learn(self, refused: float, rate: float) -> None:
        most = max(_FEWEST_CALLS, _WINDOW_SECONDS * rate)
        if self._calls > most:
            self._refused *= most / self._calls
            self._calls = most
        self._calls += 1.0
        self._refused += refused
        self._weigh()

    def _weigh(self) -> None:
        self.share = max(_NONE, (self._refused - min(_STRAY, math.sqrt(self._refused))) / self._calls)
        too_fast = min(_MOST, self.share + _MORE + _MORE_OF_SHARE * self.share * (1.0 - self.share))
        self._if_refused = math.log(too_fast / self.share)
        self._if_accepted = math.log((1.0 - too_fast) / (1.0 - self.share))
