"""
Token buckets, of a fixed rate and of one that recovers from throttles, and the curve of a recovery. Pure.

May import the standard library only. Rates are calls per second. Every ``now`` is in seconds of one monotonic
clock; a reading older than an earlier one is harmless: it never makes a permit.
"""

from __future__ import annotations

import math

CUT = 0.7
DEEPEST_CUT = 0.4
PAUSE_SECONDS = 0.5
"""Of a bucket after a cut: what is in flight is refused meanwhile."""
SETTLING_SECONDS = 1.0
"""After a cut, in which a refused call was already on its way."""

_ROUNDING_SECONDS = 1e-6
_AIM = 0.9
_CURVATURE = 0.001
_DOUBLING_SECONDS = 8.0


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


class Curve:
    """
    The way of a rate from a cut back to what is known, and beyond it: ``known + c * (clock - returns_at)**3``.

    It is that of TCP CUBIC, tuned in simulation. CUBIC itself would return to the very rate that failed, and
    sooner (c = 0.0035): then four schedulers on one quota have 3.3 % of their calls refused. A slower return
    takes minutes to share the quota fairly and finds a raised quota too late.

    :param rate: the rate after the cut
    :param known: the rate to return to
    :param longest: seconds that the return takes at most
    :ivar clock: seconds since the cut that count
    """

    __slots__ = ("_curvature", "clock", "known", "returns_at")

    def __init__(self, rate: float, known: float, *, longest: float = math.inf) -> None:
        missing = max(0.0, known - rate)
        self.known = known
        self.clock = 0.0
        self.returns_at: float = min(longest, (missing / _CURVATURE) ** (1.0 / 3.0))
        self._curvature: float = max(_CURVATURE, missing / self.returns_at**3) if self.returns_at else _CURVATURE

    def rate(self) -> float:
        """Return the rate at this time of the clock."""
        beyond = self.clock - self.returns_at
        return self.known + self._curvature * beyond * beyond * beyond


class RecoveringBucket:
    """
    A :class:`TokenBucket` that slows down after throttles and recovers to the rate it started with.

    A throttle multiplies the rate by 0.7, or by the share of calls that passed since the last throttle if that
    is less (down to 0.4); it empties the bucket and holds it for half a second. A call refused in the second
    after that was already on its way and cuts no further. The rate recovers with time alone.

    :param floor: the rate is never below this, unless it started lower
    """

    __slots__ = (
        "_bucket",
        "_curve",
        "_cut_at",
        "_first",
        "_floor",
        "_passed",
        "_refused",
        "_seen_at",
        "throttles",
    )

    def __init__(self, rate: float, burst: float, now: float, *, floor: float = 0.5) -> None:
        self._bucket = TokenBucket(rate, burst, now)
        self._first = rate
        self._floor = min(floor, rate)
        self._curve: Curve | None = None
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

    def succeeded(self) -> None:
        """Note that the service accepted a call from this bucket."""
        self._passed += 1

    def throttled(self, now: float) -> None:
        """Note that the service refused a call from this bucket for its rate."""
        self.throttles += 1
        self._refused += 1
        self._bucket.drain(now + PAUSE_SECONDS)
        if now < self._cut_at + SETTLING_SECONDS:
            return
        rate = self._bucket.rate * max(DEEPEST_CUT, min(CUT, self._passed / (self._passed + self._refused)))
        known = self._curve.known if self._curve and not self._passed else rate * _AIM / CUT
        self._bucket.rate = max(self._floor, rate)
        self._curve = Curve(self._bucket.rate, max(self._floor, known))
        self._cut_at = self._seen_at = now
        self._passed = self._refused = 0

    def _recover(self, now: float) -> None:
        curve = self._curve
        if curve is None or now <= self._seen_at:
            return
        elapsed = now - self._seen_at
        self._seen_at = now
        curve.clock += elapsed
        over = curve.clock > curve.returns_at + max(curve.returns_at, _DOUBLING_SECONDS)
        rate = self._bucket.rate * 2.0 ** (elapsed / _DOUBLING_SECONDS) if over else curve.rate()
        self._bucket.rate = min(self._first, max(self._floor, rate))
