"""
Token buckets, of a fixed rate and of a rate that follows the throttles. Pure.

May import the standard library only. Rates are calls per second. Every ``now`` is in seconds of one monotonic
clock; a reading older than an earlier one is harmless: it never makes a permit.
"""

from __future__ import annotations

import math

_ROUNDING_SECONDS = 1e-6
_CUT = 0.7
_DEEPEST_CUT = 0.4
_AIM = 0.9
_CURVATURE = 0.001
_DOUBLING_SECONDS = 8.0
_FIRST_DOUBLING_SECONDS = 7.0
_START = 0.25
_START_DOUBLING_SECONDS = 1.0
_CROWDED = 1.3
_CROWDED_CUT = 0.4
_CROWDED_AIM = 0.5
_PAUSE_SECONDS = 0.5
_SETTLING_SECONDS = 1.0


class TokenBucket:
    """
    Hand out ``rate`` permits per second, and ``burst`` at once after a rest.

    The bucket is kept as the moment at which it was empty, so that :meth:`take` succeeds at the very time that
    :meth:`ready_at` returns, and no earlier.

    :param rate: permits per second; may be changed at any time
    :param burst: how many permits it holds, at least 1; it starts full
    """

    __slots__ = ("_empty_at", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if not (rate > 0 and burst >= 1):
            msg = f"a bucket needs a rate above 0 and a burst of at least 1, not {rate} and {burst}"
            raise ValueError(msg)
        self.rate = rate
        self.burst = burst
        self._empty_at = now - burst / rate

    def ready_at(self, now: float, permits: float = 1.0) -> float:
        """Return the earliest time at which ``permits`` are available; ``now`` if they are."""
        ready_at = self._empty_at + min(permits, self.burst) / self.rate
        return ready_at if ready_at > now + _ROUNDING_SECONDS else now

    def take(self, now: float) -> bool:
        """Take one permit if there is one."""
        if self.ready_at(now) > now:
            return False
        self._empty_at = max(self._empty_at, now - self.burst / self.rate) + 1.0 / self.rate
        return True

    def drain(self, now: float) -> None:
        """Throw the permits away."""
        self._empty_at = max(self._empty_at, now)


class AdaptiveBucket:
    """
    A :class:`TokenBucket` whose rate follows the throttles.

    The rule is that of TCP CUBIC, tuned in simulation. A throttle multiplies the rate by 0.7, or by the share of
    calls that passed since the last throttle if that is less (down to 0.4); it empties the bucket and holds it for
    half a second. A call refused in the second after that was already on its way and cuts no further. The rate
    then returns along ``known + C * (t - K)**3``, where ``known`` is 0.9 of the rate that was too fast: quickly at
    first, then it stays near ``known``, then it leaves it slowly. After another ``max(K, 8)`` seconds without a
    throttle the quota must have changed, and the rate doubles every 8 s (every 7 s before the first throttle).
    Only time in which the bucket was the bottleneck counts, see :meth:`wanted`.

    Schedulers that start together would each burst, and then ask at the full rate of the quota that they share. So
    a bucket that begins ``gently`` has half of its burst and a quarter of its rate, which doubles every second up
    to the full rate. If its first throttle comes below 1.3 times the full rate, it shares the quota: the cut is
    then to 0.4, and ``known`` is half of the rate that failed. In simulation this reduces the refused calls of
    four schedulers on one quota of 20/s in the first 40 s from 6 % to 2 %, and costs a single scheduler one
    second's worth of launches.

    Where no call passed since the last cut, the rate is not the cause: ``known`` stays unchanged, so that the rate
    is back within half a minute after a storm of refusals.

    CUBIC itself would return to the very rate that failed, and sooner (C = 0.0035). Then four schedulers on one
    quota of 20/s have 3.3 % of their calls refused; with 0.9 and C = 0.001 it is 1.9 %. A slower return takes
    minutes to share the quota fairly and finds a raised quota too late.

    :param ceiling: the rate is never above this
    :param floor: the rate is never below this
    :param gently: begin below the rate
    :param grow: False: the rate never exceeds the one it started with, and returns to it with time alone
    """

    __slots__ = (
        "_bucket", "_ceiling", "_clock", "_cut_at", "_floor", "_full_rate", "_grow", "_k", "_known", "_passed",
        "_refused", "_seen_at", "throttles",
    )  # fmt: skip

    def __init__(
        self,
        rate: float,
        burst: float,
        now: float,
        *,
        ceiling: float,
        floor: float = 0.5,
        grow: bool = True,
        gently: bool = False,
    ) -> None:
        self._ceiling = max(floor, ceiling) if grow else rate
        self._floor = min(floor, self._ceiling)
        rate = min(rate, self._ceiling)
        self._bucket = TokenBucket(max(self._floor, rate * _START) if gently else rate, burst, now)
        self._grow = grow
        self._full_rate = 0.0
        if gently:
            self._full_rate = rate
            self._bucket.drain(now - burst / 2.0 / self._bucket.rate)
        self._known: float | None = None
        self._k = 0.0
        self._clock = 0.0
        self._passed = 0
        self._refused = 0
        self._seen_at = now
        self._cut_at = -math.inf
        self.throttles = 0

    @property
    def rate(self) -> float:
        """The present rate, in calls per second."""
        return self._bucket.rate

    def ready_at(self, now: float) -> float:
        """Return the earliest time at which a permit is available; ``now`` if one is."""
        self._recover(now)
        return self._bucket.ready_at(now)

    def take(self, now: float) -> bool:
        """Take one permit if there is one."""
        self._recover(now)
        return self._bucket.take(now)

    def wanted(self, now: float) -> None:
        """
        Note that a caller has to wait for a permit.

        If the bucket cannot have been full between two such moments, every permit in between was used: the rate
        was the bottleneck for all of that time.
        """
        if self._grow:
            elapsed = now - self._seen_at
            if 0.0 < elapsed <= self._bucket.burst / self._bucket.rate:
                self._advance(elapsed)
            self._seen_at = max(self._seen_at, now)

    def throttled(self, now: float) -> None:
        """Note that the service refused a call from this bucket for its rate."""
        self.throttles += 1
        self._refused += 1
        self._bucket.drain(now + _PAUSE_SECONDS)
        if now < self._cut_at + _SETTLING_SECONDS:
            return
        rate = self._bucket.rate
        if self._known is None and rate <= _CROWDED * self._full_rate:
            known, rate = rate * _CROWDED_AIM, rate * _CROWDED_CUT
        else:
            passed = self._passed / (self._passed + self._refused)
            rate *= max(_DEEPEST_CUT, min(_CUT, passed))
            known = self._known if self._known is not None and not self._passed else rate * _AIM / _CUT
        self._bucket.rate = max(self._floor, rate)
        self._known = max(self._floor, known)
        self._k = ((self._known - self._bucket.rate) / _CURVATURE) ** (1.0 / 3.0)
        self._cut_at = self._seen_at = now
        self._clock = 0.0
        self._passed = self._refused = 0

    def succeeded(self) -> None:
        """Note that the service accepted a call from this bucket."""
        self._passed += 1

    def _recover(self, now: float) -> None:
        if not self._grow and self._known is not None and now > self._seen_at:
            self._advance(now - self._seen_at)
            self._seen_at = now

    def _advance(self, elapsed: float) -> None:
        self._clock += elapsed
        beyond = self._clock - self._k
        if self._known is None and self._bucket.rate < self._full_rate:
            rate = min(self._full_rate, self._bucket.rate * 2.0 ** (elapsed / _START_DOUBLING_SECONDS))
        elif self._known is None:
            rate = self._bucket.rate * 2.0 ** (elapsed / _FIRST_DOUBLING_SECONDS)
        elif beyond > max(self._k, _DOUBLING_SECONDS):
            rate = self._bucket.rate * 2.0 ** (elapsed / _DOUBLING_SECONDS)
        else:
            rate = self._known + _CURVATURE * beyond**3
        self._bucket.rate = min(self._ceiling, max(self._floor, rate))
