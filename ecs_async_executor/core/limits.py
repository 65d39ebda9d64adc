"""
Rates and gates: how fast the cloud may be asked, and what has to wait for room.

Pure: imports the standard library only, reads no clock. Every ``now`` is in seconds of one monotonic clock;
a reading older than one before it is harmless, it only never makes a token. Rates are calls per second.

What the rates are to begin with is the service's business (:class:`~ecs_async_executor.core.backend.Service`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

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
    Hand out ``rate`` tokens per second, and ``burst`` at once after a rest.

    The bucket is kept as the moment at which it was empty, so that :meth:`take` succeeds at the very time that
    :meth:`ready_at` returns, and no earlier.

    :param rate: tokens per second; may be changed at any time
    :param burst: how many tokens it holds, at least 1; it starts full
    """

    __slots__ = ("_empty_at", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if not (rate > 0 and burst >= 1):
            msg = f"a bucket needs a rate above 0 and a burst of at least 1, not {rate} and {burst}"
            raise ValueError(msg)
        self.rate = rate
        self.burst = burst
        self._empty_at = now - burst / rate

    def ready_at(self, now: float, tokens: float = 1.0) -> float:
        """Return the earliest time at which so many tokens are there; ``now`` if they are."""
        ready_at = self._empty_at + min(tokens, self.burst) / self.rate
        return ready_at if ready_at > now + _ROUNDING_SECONDS else now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self.ready_at(now) > now:
            return False
        self._empty_at = max(self._empty_at, now - self.burst / self.rate) + 1.0 / self.rate
        return True

    def drain(self, now: float) -> None:
        """Throw away what is in the bucket."""
        self._empty_at = max(self._empty_at, now)


class AdaptiveBucket:
    """
    A :class:`TokenBucket` whose rate follows the throttles.

    The rule is that of TCP CUBIC, tuned in simulation. A throttle multiplies the rate by 0.7, or by the share
    that was let through since the last one if that is less (down to 0.4); it empties the bucket and
    holds it for half a second. What is refused in the second after that was on its way already and cuts no
    further. The rate then returns along ``known + C * (t - K)**3``, ``known`` being 0.9 of the rate
    that was too fast: quickly at first, then dwelling about it, then leaving it slowly. After another
    ``max(K, 8)`` seconds without a throttle the quota must have changed, and the rate doubles every 8 s, every 7 s
    before the first throttle. Only time in which the bucket was the bottleneck counts, see
    :meth:`wanted`.

    Schedulers that start together would each burst, and then ask at the full rate of the quota that they share.
    So one that begins ``gently`` has half of its burst and a quarter of its rate, which doubles every second up
    to the whole. If it is first throttled below 1.3 times the whole, it is not alone: the cut is to 0.4 then, and
    ``known`` is half of what failed. Of four schedulers' calls on one quota of 20/s 2 % so are refused in the
    first 40 s, not 6 %, and a lone one gives up a second's worth of launches for it.

    Where nothing at all was let through since the last cut, something else is wrong than the rate: ``known`` stays
    what it is then, so that the rate is back within half a minute after a storm of refusals.

    Why 0.9 and C = 0.001, where CUBIC would come back to the very rate that failed, and C = 0.0035 would do
    it sooner: four schedulers on one quota of 20/s then have 3.3 % of their calls refused, so 1.9 %. Slower
    still, and they take minutes to share fairly, and a raised quota is found too late.

    :param ceiling: the rate is never above this
    :param floor: the rate is never below this
    :param gently: begin below the rate
    :param grow: False: the rate never exceeds the one it started with, and returns to it with time alone
    """

    __slots__ = (
        "_bucket", "_ceiling", "_clock", "_cut_at", "_floor", "_full_rate", "_grow", "_k", "_known", "_passed",
        "_refused", "_seen_at", "_throttles",
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
        self._throttles = 0

    @property
    def rate(self) -> float:
        """The present rate, in calls per second."""
        return self._bucket.rate

    @property
    def throttles(self) -> int:
        """How many calls were refused so far."""
        return self._throttles

    def ready_at(self, now: float) -> float:
        """Return the earliest time at which a token is there; ``now`` if one is."""
        self._recover(now)
        return self._bucket.ready_at(now)

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self._recover(now)
        return self._bucket.take(now)

    def wanted(self, now: float) -> None:
        """
        Note that a caller has to wait for a token.

        Between two such moments, if the bucket cannot have been full in between, every token that there was
        has been used: the rate was the bottleneck for all of that time.
        """
        if self._grow:
            elapsed = now - self._seen_at
            if 0.0 < elapsed <= self._bucket.burst / self._bucket.rate:
                self._advance(elapsed)
            self._seen_at = max(self._seen_at, now)

    def throttled(self, now: float) -> None:
        """Note that a call that drew from this bucket was refused for its rate."""
        self._throttles += 1
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

    def succeeded(self, now: float) -> None:  # noqa: ARG002 - the counterpart of throttled()
        """Note that a call that drew from this bucket was let through."""
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


class Limiter:
    """
    The one place that knows which buckets an operation draws from.

    Launches draw from the bucket that their spec names, stops and reads from one each; launches and stops
    also share one for modifying calls. Of that one stops take first, but no more than every second token
    while launches wait. It follows the fastest launch bucket upwards, for no launch can be faster than it.

    :param launch_rate: the rate to start with, by launch bucket
    :param launch_burst: how many launches may leave at once after a rest
    :param launch_rate_max: no launch bucket grows beyond this rate
    :param read_rate: the rate of reading calls that is never exceeded
    :param modify_rate: the rate of launches and stops together to start with
    :param gently: others may start on the same quota at the same time: see :class:`AdaptiveBucket`
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
        gently: bool = True,
    ) -> None:
        self._launch_rate = launch_rate
        self._gently = gently
        self._launch_burst = launch_burst
        self._launch_rate_max = launch_rate_max
        self._launch: dict[str, AdaptiveBucket] = {}
        self._stop = AdaptiveBucket(modify_rate, modify_burst, now, ceiling=modify_rate, grow=False)
        self._read = AdaptiveBucket(read_rate, read_burst, now, ceiling=read_rate, grow=False)
        self._modify = TokenBucket(modify_rate, modify_burst, now)
        self._modify_rate = modify_rate
        self._launches_waiting = 0
        self._stops_waiting = 0
        self._stop_was_last = False

    @property
    def throttles(self) -> int:
        """How many calls of any kind were refused so far."""
        return self._stop.throttles + self._read.throttles + sum(b.throttles for b in self._launch.values())

    @property
    def read_rate(self) -> float:
        """The present rate of reading calls."""
        return self._read.rate

    @property
    def stop_rate(self) -> float:
        """The present rate of stops, as far as launches leave it to them."""
        return self._stop.rate

    def launch_rate(self, bucket: str) -> float:
        """Return the present rate of launches from this bucket."""
        known = self._launch.get(bucket)
        return known.rate if known else min(self._launch_rate(bucket), self._launch_rate_max)

    def launches_waiting(self, count: int, now: float) -> None:  # noqa: ARG002 - like every other method
        """Say how many launches could be sent at once were it not for the limits."""
        self._launches_waiting = count

    def stops_waiting(self, count: int, now: float) -> None:  # noqa: ARG002 - like every other method
        """Say how many stops could be sent at once were it not for the limits."""
        self._stops_waiting = count

    def launch_ready_at(self, bucket: str, now: float) -> float:
        """
        Return the earliest time at which a launch may be sent; ``now`` if it may be.

        While launches wait, asking is taken for evidence that the limit is what holds them up: ask only on
        behalf of a launch that nothing else keeps from being sent.
        """
        launch = self._launch_bucket(bucket, now)
        ready_at = max(launch.ready_at(now), self._modify.ready_at(now, self._launch_needs()))
        if ready_at <= now or not self._launches_waiting:
            return ready_at
        launch.wanted(now)
        self._follow()
        return max(launch.ready_at(now), self._modify.ready_at(now, self._launch_needs()))

    def take_launch(self, bucket: str, now: float) -> bool:
        """Take what one launch needs, if it is there."""
        if self.launch_ready_at(bucket, now) > now:
            return False
        self._stop_was_last = False
        return self._launch_bucket(bucket, now).take(now) and self._modify.take(now)

    def launch_throttled(self, bucket: str, now: float) -> None:
        """Note that a launch was refused for its rate."""
        self._launch_bucket(bucket, now).throttled(now)
        self._follow()

    def launch_succeeded(self, bucket: str, now: float) -> None:
        """Note that a launch was let through."""
        self._launch_bucket(bucket, now).succeeded(now)

    def stop_ready_at(self, now: float) -> float:
        """Return the earliest time at which a stop may be sent; ``now`` if it may be."""
        return max(self._stop.ready_at(now), self._modify.ready_at(now, self._stop_needs()))

    def take_stop(self, now: float) -> bool:
        """Take what one stop needs, if it is there."""
        if self.stop_ready_at(now) > now:
            return False
        self._stop_was_last = True
        return self._stop.take(now) and self._modify.take(now)

    def stop_throttled(self, now: float) -> None:
        """Note that a stop was refused for its rate."""
        self._stop.throttled(now)

    def stop_succeeded(self, now: float) -> None:
        """Note that a stop was let through."""
        self._stop.succeeded(now)

    def read_ready_at(self, now: float) -> float:
        """Return the earliest time at which a reading call may be sent; ``now`` if it may be."""
        return self._read.ready_at(now)

    def take_read(self, now: float) -> bool:
        """Take what one reading call needs, if it is there."""
        return self._read.take(now)

    def read_throttled(self, now: float) -> None:
        """Note that a reading call was refused for its rate."""
        self._read.throttled(now)

    def read_succeeded(self, now: float) -> None:
        """Note that a reading call was let through."""
        self._read.succeeded(now)

    # Whose turn it is not leaves one token in the bucket rather than waiting for the other side to take it:
    # so neither can hold up the other, even if it never comes.
    def _launch_needs(self) -> float:
        return 2.0 if self._stops_waiting and not self._stop_was_last else 1.0

    def _stop_needs(self) -> float:
        return 2.0 if self._launches_waiting and self._stop_was_last else 1.0

    def _follow(self) -> None:
        self._modify.rate = max(self._modify_rate, *(bucket.rate for bucket in self._launch.values()))

    def _launch_bucket(self, bucket: str, now: float) -> AdaptiveBucket:
        found = self._launch.get(bucket)
        if found is None:
            rate = self._launch_rate(bucket)
            found = AdaptiveBucket(
                rate, self._launch_burst, now, ceiling=self._launch_rate_max, gently=self._gently
            )
            self._launch[bucket] = found
        return found


class Gate:
    """
    What shares a fate with others and is being refused waits here, while one of them probes at a time.

    Open at first. A refusal closes it; from then on one probe at a time may pass, ``first_delay`` seconds
    after the refusal and, refused again, after twice as long each time, at most ``most_delay``. A probe that
    succeeds opens it.

    ``refused_at`` is when it was refused last: since then, nothing is known. ``pause`` is for how long nothing was
    let through before that, on purpose.

    :param probe_timeout: a probe that nothing was heard of for so many seconds is taken for lost
    """

    __slots__ = (
        "__weakref__", "_changed", "_delay", "_first_delay", "_next_probe_at",
        "_probe_sent_at", "_probe_timeout", "closed_since", "most_delay", "pause", "probes", "reason",
        "refused_at",
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
        self.probes = 0
        self._delay = first_delay
        self._next_probe_at = math.inf
        self._probe_sent_at: float | None = None

    @property
    def is_open(self) -> bool:
        """True if everybody may pass."""
        return self.closed_since is None

    @property
    def next_probe_at(self) -> float | None:
        """When the next probe may pass if nothing is heard until then; None if the gate is open."""
        if self.is_open:
            return None
        if self._probe_sent_at is not None:
            return self._probe_sent_at + self._probe_timeout
        return self._next_probe_at

    def may_pass(self, now: float) -> bool:
        """Tell if one may be sent: anyone if the gate is open, else the next probe."""
        at = self.next_probe_at
        return at is None or now >= at

    def probe_started(self, now: float) -> None:
        """Note that one was sent; if the gate is closed, it is the probe."""
        if not self.is_open:
            self._probe_sent_at = now
            self.probes += 1

    def succeeded(self, now: float) -> None:  # noqa: ARG002 - the counterpart of refused()
        """Note that one was let through: opens the gate, unless it was sent before the gate closed."""
        if self._probe_sent_at is not None:
            self.closed_since = None
            self.reason = ""
            self.probes = 0
            self._delay = self._first_delay
            self._probe_sent_at = None
            self._notify()

    def close(self, now: float, reason: str) -> None:
        """Close the gate if it is open; either way remember the latest reason."""
        self.reason = reason
        if self.is_open:
            self.closed_since = now
            self._next_probe_at = now + self._delay
            self._notify()

    def refused(self, now: float, reason: str) -> None:
        """Note that one was refused: closes an open gate, and puts the next probe off if it was the probe."""
        self.refused_at = now
        self.pause = 0.0 if self._probe_sent_at is None else self._delay
        self.close(now, reason)
        if self._probe_sent_at is not None:
            self._delay = min(2.0 * self._delay, self.most_delay)
            self._retry(now)

    def undecided(self, now: float) -> None:
        """Note that the probe came back without an answer to the question; the next may follow as before."""
        if self._probe_sent_at is not None:
            self._retry(now)

    def _retry(self, now: float) -> None:
        self._probe_sent_at = None
        self._next_probe_at = now + self._delay

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed(self)


class Gates:
    """
    One :class:`Gate` per name, made on demand and forgotten once it is open and nobody holds it, or on request.

    Iterating gives the names of the closed ones, ``len()`` their number.
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

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._closed))

    def __len__(self) -> int:
        return len(self._closed)

    def forget(self, name: str) -> None:
        """Forget a gate although it is closed: whoever comes next finds an open one."""
        self._closed.pop(name, None)
        self._gates.pop(name, None)

    def _keep(self, name: str, gate: Gate) -> None:
        if not gate.is_open:
            self._closed[name] = gate
        elif self._closed.get(name) is gate:
            del self._closed[name]


class PollPacer:
    """
    How long from the start of one sweep to the start of the next.

    :param poll_interval: seconds, as long as sweeps stay within their share of the read budget
    :param share: that share
    """

    def __init__(self, poll_interval: float = 1.0, share: float = 0.25) -> None:
        self._poll_interval = poll_interval
        self._share = share

    def interval(self, batches: int, read_rate: float) -> float:
        """
        Return the seconds between the starts of two sweeps.

        :param batches: how many calls one sweep takes
        :param read_rate: how many reading calls per second there may be in all
        """
        return max(self._poll_interval, batches / (self._share * read_rate))
