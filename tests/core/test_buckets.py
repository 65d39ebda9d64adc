"""Buckets: how many tokens at what rate, and how a rate recovers from throttles."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.buckets import RecoveringBucket, TokenBucket

starts = st.floats(0.0, 1e7)
rates = st.floats(0.5, 500.0)
bursts = st.floats(1.0, 100.0)
steps = st.lists(st.floats(0.0, 30.0) | st.floats(0.0, 0.1), max_size=80)
jumps = st.lists(st.floats(-5.0, 5.0), max_size=80)


def taken(bucket: TokenBucket | RecoveringBucket, now: float, at_most: int = 10_000) -> int:
    count = 0
    while count < at_most and bucket.take(now):
        count += 1
    return count


# --- TokenBucket ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "burst", "rest", "expected"),
    [
        (20.0, 10.0, 0.0, 10),
        (20.0, 10.0, 1e6, 10),
        (20.0, 1.0, 5.0, 1),
        (0.5, 3.5, 9.0, 3),
    ],
)
def test_a_full_bucket_gives_its_burst_and_no_more(
    rate: float, burst: float, rest: float, expected: float
) -> None:
    bucket = TokenBucket(rate, burst, 100.0)
    assert taken(bucket, 100.0 + rest) == expected


@pytest.mark.parametrize(("waited", "expected"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (2.5, 10), (99.0, 10)])
def test_an_emptied_bucket_fills_at_its_rate(waited: float, expected: float) -> None:
    bucket = TokenBucket(4.0, 10.0, 0.0)
    bucket.drain(0.0)
    assert taken(bucket, waited) == expected


def test_a_changed_rate_counts_from_the_last_token() -> None:
    bucket = TokenBucket(1.0, 1.0, 0.0)
    assert bucket.take(0.0)
    bucket.rate = 4.0
    assert bucket.ready_at(0.0) == 0.25


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.5), (float("nan"), 1.0)])
def test_a_bucket_that_could_never_give_a_token_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="a bucket needs"):
        TokenBucket(rate, burst, 0.0)


@settings(deadline=None)
@given(starts, rates, bursts, steps)
def test_no_window_sees_more_than_burst_and_rate_allow(
    start: float, rate: float, burst: float, steps: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    times = []
    now = start
    for step in steps:
        now += step
        times += [now] * taken(bucket, now, at_most=100)
    for i, first in enumerate(times):
        for length in (0.0, 0.1, 1.0, 10.0):
            inside = bisect_right(times, first + length) - i
            assert inside <= burst + rate * length + 1e-3


@settings(deadline=None)
@given(starts, rates, bursts, jumps)
def test_a_clock_that_goes_backwards_makes_no_tokens(
    start: float, rate: float, burst: float, jumps: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now = latest = start
    count = 0
    for jump in jumps:
        now += jump
        latest = max(latest, now)
        count += taken(bucket, now)
    assert count <= burst + rate * (latest - start) + 1e-3


@settings(deadline=None)
@given(starts, rates, bursts, steps)
def test_ready_at_is_the_earliest_time_at_which_take_succeeds(
    start: float, rate: float, burst: float, steps: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now = start
    for step in steps:
        ready_at = bucket.ready_at(now)
        assert ready_at >= now
        if ready_at > now:
            assert not bucket.take(now)
            assert not bucket.take(max(now, ready_at - 1e-5))
        assert bucket.take(ready_at)
        now = ready_at + step


@settings(deadline=None)
@given(starts, rates, bursts, st.lists(st.floats(0.0, 10.0), min_size=2, max_size=2))
def test_asking_later_never_gives_an_earlier_time(
    start: float, rate: float, burst: float, offsets: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    taken(bucket, start)
    earlier, later = sorted(offsets)
    assert bucket.ready_at(start + earlier) <= bucket.ready_at(start + later) + 1e-5


# --- RecoveringBucket ----------------------------------------------------------------------------------------


def test_a_throttle_slows_down_and_holds_and_time_alone_recovers_the_first_rate() -> None:
    bucket = RecoveringBucket(20.0, 20.0, 0.0)
    for _ in range(50):
        bucket.succeeded()
    bucket.throttled(100.0)
    assert bucket.rate == pytest.approx(14.0)
    assert bucket.ready_at(100.0) == pytest.approx(100.5 + 1 / 14.0)
    bucket.ready_at(130.0)
    assert bucket.rate == 20.0


@pytest.mark.parametrize(("passed", "factor"), [(99, 0.7), (3, 0.7), (1, 0.5), (0, 0.4)])
def test_a_cut_is_as_deep_as_the_share_let_through_within_bounds(passed: int, factor: float) -> None:
    bucket = RecoveringBucket(20.0, 10.0, 0.0)
    for _ in range(passed):
        bucket.succeeded()
    bucket.throttled(0.0)
    assert bucket.rate == pytest.approx(20.0 * factor)


def test_after_a_storm_it_recovers_what_it_knew_before() -> None:
    bucket = RecoveringBucket(20.0, 10.0, 0.0)
    for second in range(15):
        bucket.throttled(float(second))
    assert bucket.rate == 0.5
    bucket.ready_at(60.0)
    assert bucket.rate == 20.0


@settings(deadline=None)
@given(starts, st.lists(st.tuples(st.floats(-5.0, 20.0), st.sampled_from("tse")), max_size=100))
def test_whatever_happens_a_recovering_rate_stays_within_bounds_and_ready_at_is_truthful(
    start: float, events: list[tuple[float, str]]
) -> None:
    bucket = RecoveringBucket(20.0, 10.0, start)
    now = start
    for step, event in events:
        now += step
        if event == "t":
            bucket.throttled(now)
        elif event == "s":
            bucket.succeeded()
        else:
            assert bucket.take(max(now, bucket.ready_at(now)))
        assert 0.5 <= bucket.rate <= 20.0
