"""Buckets: how many tokens at what rate, and how the rate follows what the service takes and refuses."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.buckets import AdaptiveBucket, TokenBucket

starts = st.floats(0.0, 1e7)
rates = st.floats(0.5, 500.0)
bursts = st.floats(1.0, 100.0)
steps = st.lists(st.floats(0.0, 30.0) | st.floats(0.0, 0.1), max_size=80)
jumps = st.lists(st.floats(-5.0, 5.0), max_size=80)


def taken(bucket: TokenBucket | AdaptiveBucket, now: float, at_most: int = 10_000) -> int:
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


# --- AdaptiveBucket ------------------------------------------------------------------------------------------


def use(bucket: AdaptiveBucket, now: float, seconds: float) -> float:
    """Take tokens as fast as the bucket gives them."""
    end = now + seconds
    while now < end:
        if bucket.take(now):
            bucket.succeeded()
        else:
            bucket.wanted(now)
            now = bucket.ready_at(now)
    return now


def test_unthrottled_the_rate_doubles_every_seven_seconds_of_waiting() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    now = use(bucket, 0.0, 0.5)
    before = bucket.rate
    use(bucket, now, 7.0)
    assert bucket.rate == pytest.approx(2 * before, rel=0.02)


def test_the_rate_does_not_grow_while_nobody_waits() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    for second in range(600):
        assert taken(bucket, float(second), at_most=9) == 9
    assert bucket.rate == 20.0


def test_waiting_once_after_each_long_rest_is_no_evidence() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    for second in range(0, 600, 2):
        taken(bucket, float(second))
        bucket.wanted(float(second))
    assert bucket.rate == 20.0


def test_a_throttle_cuts_empties_and_holds_the_bucket() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    for _ in range(50):
        bucket.succeeded()
    bucket.throttled(0.0)
    assert bucket.rate == pytest.approx(14.0)
    assert bucket.ready_at(0.0) == pytest.approx(0.5 + 1 / 14.0)


def test_what_was_on_its_way_cuts_no_further() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    bucket.succeeded()
    bucket.throttled(0.0)
    rate = bucket.rate
    for i in range(30):
        bucket.throttled(i * 0.03)
    assert bucket.rate == rate


@pytest.mark.parametrize(("passed", "factor"), [(99, 0.7), (3, 0.7), (1, 0.5), (0, 0.4)])
def test_a_cut_is_as_deep_as_the_share_let_through_within_bounds(passed: int, factor: float) -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    for _ in range(passed):
        bucket.succeeded()
    bucket.throttled(0.0)
    assert bucket.rate == pytest.approx(20.0 * factor)


def test_after_a_cut_the_rate_dwells_below_what_failed_and_then_leaves_it() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    bucket.succeeded()
    bucket.succeeded()
    bucket.succeeded()
    bucket.throttled(0.0)
    at = {}
    now = 0.0
    for second in (8, 16, 24, 60):
        now = use(bucket, now, second - now)
        at[second] = bucket.rate
    assert 17.0 < at[8] < 18.0
    assert at[16] == pytest.approx(18.0, abs=0.1)
    assert 18.0 < at[24] < 19.5
    assert at[60] > 80.0


def test_the_rate_is_soon_back_after_a_storm_in_which_nothing_passed() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    now = use(bucket, 0.0, 10.0)
    for _ in range(15):
        bucket.throttled(now)
        now += 1.0
    assert bucket.rate == 0.5
    use(bucket, now, 30.0)
    assert bucket.rate >= 18.0


def test_a_storm_of_throttles_ends_at_the_floor() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0, floor=0.5)
    for second in range(60):
        bucket.throttled(float(second))
    assert bucket.rate == 0.5


def test_the_rate_never_exceeds_the_ceiling() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=30.0)
    use(bucket, 0.0, 60.0)
    assert bucket.rate == 30.0


def test_without_growth_the_rate_recovers_to_the_first_with_time_alone() -> None:
    bucket = AdaptiveBucket(20.0, 20.0, 0.0, ceiling=1000.0, grow=False)
    use(bucket, 0.0, 100.0)
    assert bucket.rate == 20.0
    bucket.throttled(100.0)
    assert bucket.rate == pytest.approx(14.0)
    bucket.ready_at(130.0)
    assert bucket.rate == 20.0


@settings(deadline=None)
@given(starts, st.lists(st.tuples(st.floats(-5.0, 20.0), st.sampled_from("twse")), max_size=100), st.booleans())
def test_whatever_happens_the_rate_stays_within_bounds_and_ready_at_is_truthful(
    start: float,
    events: list[tuple[float, str]],
    grow: bool,
) -> None:
    bucket = AdaptiveBucket(20.0, 10.0, start, ceiling=100.0, floor=0.5, grow=grow)
    now = start
    for step, event in events:
        now += step
        if event == "t":
            bucket.throttled(now)
        elif event == "w":
            bucket.wanted(now)
        elif event == "s":
            bucket.succeeded()
        else:
            assert bucket.take(max(now, bucket.ready_at(now)))
        assert 0.5 <= bucket.rate <= (100.0 if grow else 20.0)


def waited(bucket: AdaptiveBucket, seconds: float, start: float = 0.0) -> None:
    """Take whatever there is, and wait for more, for so long."""
    for tick in range(int(seconds * 100)):
        while bucket.take(start + tick / 100):
            pass
        bucket.wanted(start + tick / 100)


def test_one_that_begins_gently_is_at_its_whole_rate_after_two_seconds_of_waiting() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=100.0, gently=True)
    assert bucket.rate == 5.0
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    waited(bucket, 2.1)
    assert bucket.rate == pytest.approx(20.0, rel=0.05)


def test_one_that_is_throttled_as_it_begins_takes_itself_to_share_the_quota() -> None:
    alone, crowded = (AdaptiveBucket(20.0, 10.0, 0.0, ceiling=100.0, gently=True) for _ in range(2))
    waited(crowded, 1.5)
    before = crowded.rate
    assert before < 20.0
    crowded.throttled(1.5)
    assert crowded.rate == pytest.approx(0.4 * before)
    waited(alone, 6.0)
    before = alone.rate
    assert before > 26.0
    for _ in range(99):
        alone.succeeded()
    alone.throttled(6.0)
    assert alone.rate == pytest.approx(0.7 * before)
