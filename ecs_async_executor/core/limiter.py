"""
How fast a service may be called: which buckets each operation draws from, and the time between sweeps. Pure.

May import :mod:`~ecs_async_executor.core.adaptive` and :mod:`~ecs_async_executor.core.buckets`. Rates are calls
per second, every ``now`` is in seconds of one monotonic clock. The rates to begin with come from
:class:`~ecs_async_executor.core.backend.Service`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ecs_async_executor.core.adaptive import AdaptiveBucket
from ecs_async_executor.core.buckets import RecoveringBucket, TokenBucket

THROTTLED_SHARE = 0.5
"""A rate of launches below this part of the one it began with holds launches up for long."""


@dataclass(frozen=True, slots=True)
class Rate:
    """
    The present rate of one bucket, for people.

    :param operation: launch, stop or read
    :param bucket: of launches, the one that their specs name; else empty
    :param per_second: calls per second
    :param throttles: calls that the service has refused for their rate since the bucket was made
    :param destination: whose bucket it is; "" is home
    """

    operation: str
    bucket: str
    per_second: float
    throttles: int
    destination: str = ""


class Limiter:
    """
    The one place that knows which buckets an operation draws from.

    Launches draw from the bucket that their spec names, stops and reads from one each. Where the service has one
    quota for all modifying calls, launches and stops also share a bucket. Stops take first from it, but no more
    than every second permit while launches wait. It follows the fastest launch bucket upwards: no launch can be
    faster than it.

    :param launch_rate: the rate to start with, by launch bucket
    :param launch_burst: how many launches may leave at once after a rest
    :param launch_rate_max: no launch bucket grows beyond this rate
    :param read_rate: the rate of reading calls that is never exceeded
    :param modify_rate: the rate of launches and stops together to start with, or of stops alone
    :param shares_modify: launches and stops share a bucket
    :param gently: other schedulers may start on the same quota at the same time: see
        :class:`~ecs_async_executor.core.adaptive.AdaptiveBucket`
    :param wall_offset: seconds to add to ``now`` for the wall clock: see there
    """

    def __init__(
        self,
        *,
        launch_rate: Callable[[str], float],
        launch_burst: float,
        launch_rate_max: float,
        read_rate: float,
        read_burst: float,
        modify_rate: float,
        modify_burst: float,
        now: float,
        shares_modify: bool = True,
        gently: bool = True,
        wall_offset: float = 0.0,
    ) -> None:
        self._launch_rate = launch_rate
        self._gently = gently
        self._wall_offset = wall_offset
        self._launch_burst = launch_burst
        self._launch_rate_max = launch_rate_max
        self._launch: dict[str, AdaptiveBucket] = {}
        self._stop = RecoveringBucket(modify_rate, modify_burst, now)
        self._read = RecoveringBucket(read_rate, read_burst, now)
        self._modify = TokenBucket(modify_rate, modify_burst, now) if shares_modify else None
        self._modify_rate = modify_rate
        self._launches_waiting = 0
        self._stops_waiting = 0
        self._stop_was_last = False

    @property
    def read_rate(self) -> float:
        """The present rate of reading calls."""
        return self._read.rate

    def launch_rate(self, bucket: str) -> float:
        """Return the present rate of launches from this bucket."""
        known = self._launch.get(bucket)
        return known.rate if known else min(self._launch_rate(bucket), self._launch_rate_max)

    def is_throttled(self) -> bool:
        """Return whether the service has cut any rate of launches to less than half of what it began with."""
        return any(
            bucket.throttles
            and bucket.rate < THROTTLED_SHARE * min(self._launch_rate(name), self._launch_rate_max)
            for name, bucket in self._launch.items()
        )

    def rates(self) -> Iterator[Rate]:
        """Yield the rate of each bucket that is in use."""
        for name, bucket in self._launch.items():
            yield Rate("launch", name, bucket.rate, bucket.throttles)
        yield Rate("stop", "", self._stop.rate, self._stop.throttles)
        yield Rate("read", "", self._read.rate, self._read.throttles)

    def launches_waiting(self, count: int) -> None:
        """Note how many launches could be sent at once without the limits."""
        self._launches_waiting = count

    def stops_waiting(self, count: int) -> None:
        """Note how many stops could be sent at once without the limits."""
        self._stops_waiting = count

    def launch_ready_at(self, bucket: str, now: float) -> float:
        """
        Return the earliest time at which a launch may be sent; ``now`` if it may be.

        While launches wait, each question counts as evidence that only the limit holds them up: ask only for a
        launch that nothing else keeps from being sent.
        """
        launch = self._launch_bucket(bucket, now)
        ready_at = max(launch.ready_at(now), self._shared_ready_at(now, self._launch_needs()))
        if ready_at <= now or not self._launches_waiting:
            return ready_at
        launch.wanted(now)
        self._follow()
        return max(launch.ready_at(now), self._shared_ready_at(now, self._launch_needs()))

    def take_launch(self, bucket: str, now: float) -> bool:
        """Take the permits of one launch and return True, or return False if they are not available."""
        if self.launch_ready_at(bucket, now) > now:
            return False
        self._stop_was_last = False
        return self._launch_bucket(bucket, now).take(now) and self._take_shared(now)

    def launch_throttled(self, bucket: str, now: float) -> None:
        """Note that the service refused a launch for its rate."""
        self._launch_bucket(bucket, now).throttled(now)
        self._follow()

    def launch_succeeded(self, bucket: str, now: float) -> None:
        """Note that the service accepted a launch that :meth:`take_launch` let go."""
        self._launch[bucket].succeeded(now)

    def stop_ready_at(self, now: float) -> float:
        """Return the earliest time at which a stop may be sent; ``now`` if it may be."""
        return max(self._stop.ready_at(now), self._shared_ready_at(now, self._stop_needs()))

    def take_stop(self, now: float) -> bool:
        """Take the permits of one stop and return True, or return False if they are not available."""
        if self.stop_ready_at(now) > now:
            return False
        self._stop_was_last = True
        return self._stop.take(now) and self._take_shared(now)

    def stop_throttled(self, now: float) -> None:
        """Note that the service refused a stop for its rate."""
        self._stop.throttled(now)

    def stop_succeeded(self) -> None:
        """Note that the service accepted a stop."""
        self._stop.succeeded()

    def read_ready_at(self, now: float) -> float:
        """Return the earliest time at which a reading call may be sent; ``now`` if it may be."""
        return self._read.ready_at(now)

    def take_read(self, now: float) -> bool:
        """Take the permit of one reading call and return True, or return False if none is available."""
        return self._read.take(now)

    def read_throttled(self, now: float) -> None:
        """Note that the service refused a reading call for its rate."""
        self._read.throttled(now)

    def read_succeeded(self) -> None:
        """Note that the service answered a reading call."""
        self._read.succeeded()

    # Out of turn, a launch or a stop leaves one permit in the bucket and does not wait for the other side to take
    # it: neither can hold up the other, even if the other never comes.
    def _launch_needs(self) -> float:
        return 2.0 if self._stops_waiting and not self._stop_was_last else 1.0

    def _stop_needs(self) -> float:
        return 2.0 if self._launches_waiting and self._stop_was_last else 1.0

    def _shared_ready_at(self, now: float, needs: float) -> float:
        return now if self._modify is None else self._modify.ready_at(now, needs)

    def _take_shared(self, now: float) -> bool:
        return self._modify is None or self._modify.take(now)

    def _follow(self) -> None:
        if self._modify is not None:
            self._modify.rate = max(self._modify_rate, *(bucket.rate for bucket in self._launch.values()))

    def _launch_bucket(self, bucket: str, now: float) -> AdaptiveBucket:
        found = self._launch.get(bucket)
        if found is None:
            rate = self._launch_rate(bucket)
            found = AdaptiveBucket(
                rate,
                self._launch_burst,
                now,
                ceiling=self._launch_rate_max,
                gently=self._gently,
                wall_offset=self._wall_offset,
            )
            self._launch[bucket] = found
        return found


class PollPacer:
    """
    The time from the start of one sweep to the start of the next.

    :param poll_interval: seconds, as long as sweeps stay within their share of the read budget
    :param share: the part of the read budget that sweeps may use
    """

    def __init__(self, poll_interval: float = 1.0, share: float = 0.25) -> None:
        self._poll_interval = poll_interval
        self._share = share

    def interval(self, batches: int, read_rate: float) -> float:
        """
        Return the seconds between the starts of two sweeps.

        :param batches: calls of one sweep
        :param read_rate: reading calls per second, of all kinds
        """
        return max(self._poll_interval, batches / (self._share * read_rate))
