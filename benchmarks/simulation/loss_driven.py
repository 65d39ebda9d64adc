"""The rule that launches followed before they learnt the background: CUBIC with a cut for each refused call."""

from __future__ import annotations

from ecs_async_executor.core.adaptive import AdaptiveBucket
from ecs_async_executor.core.buckets import CUT, DEEPEST_CUT, PAUSE_SECONDS, SETTLING_SECONDS, Curve
from ecs_async_executor.core.limiter import Limiter

_AIM = 0.9
_CROWDED = 1.3
_CROWDED_CUT = 0.4
_CROWDED_AIM = 0.5


class LossDrivenBucket(AdaptiveBucket):
    """A bucket that takes each refused call for a sign that its rate is too fast."""

    __slots__ = ()
    DOUBLING_SECONDS = 8.0

    def succeeded(self, now: float) -> None:  # noqa: ARG002
        """Note that the service accepted a call from this bucket."""
        self._passed += 1

    def throttled(self, now: float) -> None:
        """Note that the service refused a call from this bucket for its rate."""
        self.throttles += 1
        self._refused += 1
        self._bucket.drain(now + PAUSE_SECONDS)
        if now < self._cut_at + SETTLING_SECONDS:
            return
        rate = self._rate
        if self._curve is None and rate <= _CROWDED * self._full_rate:
            known, rate = rate * _CROWDED_AIM, rate * _CROWDED_CUT
        else:
            rate *= max(DEEPEST_CUT, min(CUT, self._passed / (self._passed + self._refused)))
            known = self._curve.known if self._curve and not self._passed else rate * _AIM / CUT
        self._rate = max(self._floor, rate)
        self._curve = Curve(self._rate, max(self._floor, known))
        self._cut_at = self._seen_at = now
        self._passed = self._refused = 0
        self._apply(now)


class LossDrivenLimiter(Limiter):
    """A limiter whose launches draw from such buckets."""

    def _launch_bucket(self, bucket: str, now: float) -> AdaptiveBucket:
        if bucket not in self._launch:
            self._launch[bucket] = LossDrivenBucket(
                self._launch_rate(bucket),
                self._launch_burst,
                now,
                ceiling=self._launch_rate_max,
                gently=self._gently,
            )
        return self._launch[bucket]
