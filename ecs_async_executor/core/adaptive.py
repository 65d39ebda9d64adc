"""
A token bucket whose rate finds what the service takes. Pure.

May import :mod:`~ecs_async_executor.core.background` and :mod:`~ecs_async_executor.core.buckets`. Rates are
calls per second. Every ``now`` is in seconds of one monotonic clock; a reading older than an earlier one makes
no permit.
"""

from __future__ import annotations

import math

from ecs_async_executor.core.background import Background
from ecs_async_executor.core.buckets import CUT, DEEPEST_CUT, PAUSE_SECONDS, SETTLING_SECONDS, Curve, TokenBucket

_AIM = 0.9
_DOUBTED_AIM = 0.92
_LONGEST_RETURN_SECONDS = 16.0
"""Of the curve from a cut to what is known: with its own curvature a rate of 200/s takes 39 s."""
_FIRST_DOUBLING_SECONDS = 7.0
_QUIET_CLOCK = 0.7
"""The curve's clock in quiet slots, where growth would go unnoticed: with 1, four schedulers are refused too
often."""
_START = 0.25
_START_DOUBLING_SECONDS = 1.0
_CROWDED = 1.3
_CROWDED_CUT = 0.4
_CROWDED_AIM = 0.5
_TAUGHT_SECONDS = 1.2
"""After a cut: until the calls from before it have their answers. Without it a quota that falls to a tenth
looks like background to four schedulers, for ever."""
_SLOW = 1.0
"""At this rate and below, all calls teach, not only those of quiet slots, of which there are too few."""
_DOUBT_SECONDS = 300.0
"""In which cuts that may have been for nothing are half forgotten and more: the quota may have changed since."""
_ENOUGH = 0.98


class AdaptiveBucket:
    """
    A token bucket whose rate grows while it is used up, and follows refusals.

    A cut multiplies the rate by 0.7, or by the share of calls that passed since the last cut if that is less
    (down to 0.4); it empties the bucket and holds it for half a second. A call refused in the second after that
    was already on its way and cuts no further. The rate then returns along the curve of TCP CUBIC to ``known``,
    0.9 of the rate that was too fast: quickly at first, then it stays near ``known``, then it leaves it slowly.
    After as much time again without a cut the quota must have changed, and the rate doubles every 6 s (every 7
    s before the first cut). Only time in which the bucket was the bottleneck counts, see :meth:`wanted`.

    A refused call cuts only if the refusals are more than the
    :class:`~ecs_async_executor.core.background.Background`. Before that is learnt each refused call is: so cuts
    may have been for nothing. Once it is learnt, ``known`` is 0.92 of the rate before those cuts. If that was
    too much, the next cut, which knows the background, says so. Where neighbours overrun the quota, the rate
    stays at the one that it started with: any lower one leaves more to them alone, and none higher is fair.

    Schedulers that start together would each burst, and then ask at the full rate of the quota that they share. So
    a bucket that begins ``gently`` has half of its burst and a quarter of its rate, which doubles every second up
    to the full rate. If its first cut comes below 1.3 times the full rate, it shares the quota: the cut is then to
    0.4, and ``known`` is half of the rate that failed.

    While the service refuses everything, the rate is not the cause: it falls, but ``known`` stays unchanged, so
    that the rate is back within half a minute.

    :param ceiling: the rate is never above this
    :param floor: the rate is never below this
    :param gently: begin below the rate
    :param wall_offset: seconds to add to ``now`` for the wall clock
    """

    __slots__ = (
        "_background", "_bucket", "_ceiling", "_curve", "_cut_at", "_doubted", "_doubted_at", "_floor",
        "_full_rate", "_passed", "_rate", "_refused", "_seen_at", "_start", "throttles",
    )  # fmt: skip

    DOUBLING_SECONDS = 6.0

    def __init__(
        self,
        rate: float,
        burst: float,
        now: float,
        *,
        ceiling: float,
        floor: float = 0.5,
        gently: bool = False,
        wall_offset: float = 0.0,
    ) -> None:
        self._ceiling = max(floor, ceiling)
        self._floor = floor
        self._start = min(rate, self._ceiling)
        self._rate = max(floor, self._start * _START) if gently else self._start
        self._bucket = TokenBucket(self._rate, burst, now)
        self._full_rate = 0.0
        if gently:
            self._full_rate = self._start
            self._bucket.drain(now - burst / 2.0 / self._rate)
        self._background = Background(now, wall_offset)
        self._curve: Curve | None = None
        self._passed = 0
        self._refused = 0
        self._seen_at = now
        self._cut_at = -math.inf
        self._doubted = 0.0
        self._doubted_at = now
        self.throttles = 0

    @property
    def rate(self) -> float:
        """The present rate, in calls per second; in quiet slots part of it is used."""
        return self._rate

    @property
    def background(self) -> float:
        """The share of calls that is refused whatever the rate, as far as it is known."""
        return self._background.share

    def ready_at(self, now: float) -> float:
        """Return the earliest time at which a permit is available; ``now`` if one is."""
        return self._bucket.ready_at(now)

    def take(self, now: float) -> bool:
        """Take one permit if there is one."""
        self._apply(now)
        return self._bucket.take(now)

    def wanted(self, now: float) -> None:
        """
        Note that a caller has to wait for a permit.

        If the bucket cannot have been full between two such moments, every permit in between was used: the rate
        was the bottleneck for all of that time.
        """
        elapsed = now - self._seen_at
        if 0.0 < elapsed <= self._bucket.burst / self._bucket.rate:
            self._grow(elapsed * _QUIET_CLOCK if self._background.is_quiet(now) else elapsed)
        self._seen_at = max(self._seen_at, now)
        self._apply(now)

    def succeeded(self, now: float) -> None:
        """Note that the service accepted a call from this bucket."""
        self._passed += 1
        self._background.accepted(now, self._rate, teaches=self._teaches(now))

    def throttled(self, now: float) -> None:
        """Note that the service refused a call from this bucket for its rate."""
        self.throttles += 1
        self._refused += 1
        background = self._background
        storm = background.refused(now, self._rate, teaches=self._teaches(now))
        if storm or not background.is_learnt:
            self._bucket.drain(now + PAUSE_SECONDS)
        if now >= self._cut_at + SETTLING_SECONDS and (storm or background.is_exceeded(self._rate)):
            self._cut(now, storm=storm)
        self._apply(now)

    def _teaches(self, now: float) -> bool:
        return self._rate <= max(self._floor, _SLOW) or (
            now >= self._cut_at + _TAUGHT_SECONDS and self._background.is_shared_quiet(now)
        )

    def _cut(self, now: float, *, storm: bool) -> None:
        rate, background = self._rate, self._background
        background.forget_evidence()
        self._bucket.drain(now + PAUSE_SECONDS)
        if not storm:
            forgotten = math.exp(min(0.0, self._doubted_at - now) / _DOUBT_SECONDS)
            self._doubted = rate if background.is_learnt else max(rate, self._doubted * forgotten)
            self._doubted_at = now
        if self._curve is None and rate <= _CROWDED * self._full_rate:
            known, rate = rate * _CROWDED_AIM, rate * _CROWDED_CUT
        elif storm:
            known, rate = self._curve.known if self._curve else rate * _AIM, rate * DEEPEST_CUT
        else:
            known = max(rate * _AIM, self._undoubted())
            passed = self._passed / (self._passed + self._refused) / (1.0 - background.share)
            rate *= max(DEEPEST_CUT, min(CUT, passed))
        self._rate = max(self._floor, rate)
        self._aim_at(max(self._floor, known))
        self._cut_at = self._seen_at = now
        self._passed = self._refused = 0

    def _undoubted(self) -> float:
        """Return the rate to try again after cuts that may have been for nothing; 0 if there is none."""
        if not self._background.is_learnt:
            return 0.0
        rate = self._doubted * _DOUBTED_AIM
        return max(rate, self._start) if self._background.is_overrun else rate

    def _aim_at(self, known: float) -> None:
        self._curve = Curve(self._rate, known, longest=_LONGEST_RETURN_SECONDS)

    def _grow(self, elapsed: float) -> None:
        before, curve = self._rate, self._curve
        if curve is None:
            doubling = _START_DOUBLING_SECONDS if before < self._full_rate else _FIRST_DOUBLING_SECONDS
            rate = before * 2.0 ** (elapsed / doubling)
            if before < self._full_rate:
                rate = min(self._full_rate, rate)
        else:
            undoubted = self._undoubted()
            if curve.known < _ENOUGH * undoubted:
                self._aim_at(undoubted)
                curve = self._curve
            assert curve is not None
            curve.clock += elapsed
            over = curve.clock > curve.returns_at + max(curve.returns_at, self.DOUBLING_SECONDS)
            rate = before * 2.0 ** (elapsed / self.DOUBLING_SECONDS) if over else curve.rate()
            if self._background.is_overrun and rate > before:
                rate = min(rate, max(before, self._start, curve.known))
        self._rate = min(self._ceiling, max(self._floor, rate))

    def _apply(self, now: float) -> None:
        part = self._background.part(now)
        self._bucket.rate = min(self._ceiling, max(self._floor, self._rate * part))
