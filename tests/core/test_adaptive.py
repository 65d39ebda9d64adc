"""The rate that finds what the service takes: how it grows, what cuts it, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.adaptive import AdaptiveBucket


def taken(bucket: AdaptiveBucket, now: float, at_most: int = 10_000) -> int:
    count = 0
    while count < at_most and bucket.take(now):
        count += 1
    return count


def use(bucket: AdaptiveBucket, now: float, seconds: float, *, refused_every: int = 0) -> float:
    """Take tokens as fast as the bucket gives them; every so many calls is refused, whatever the rate."""
    end, calls = now + seconds, 0
    while now < end:
        if bucket.take(now):
            calls += 1
            if refused_every and calls % refused_every == 0:
                bucket.throttled(now)
            else:
                bucket.succeeded(now)
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
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0, wall_offset=5.0)
    for _ in range(50):
        bucket.succeeded(0.0)
    bucket.throttled(0.0)
    assert bucket.rate == pytest.approx(14.0)
    assert bucket.ready_at(0.0) == pytest.approx(0.5 + 1 / 14.0)


def test_what_was_on_its_way_cuts_no_further() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    bucket.succeeded(0.0)
    bucket.throttled(0.0)
    rate = bucket.rate
    for i in range(30):
        bucket.throttled(i * 0.03)
    assert bucket.rate == rate


def test_after_a_cut_the_rate_dwells_below_what_failed_and_then_leaves_it() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    bucket.succeeded(0.0)
    bucket.succeeded(0.0)
    bucket.succeeded(0.0)
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
        alone.succeeded(6.0)
    alone.throttled(6.0)
    assert alone.rate == pytest.approx(0.7 * before)


@pytest.mark.parametrize(("passed", "factor"), [(99, 0.7), (3, 0.7), (1, 0.5), (0, 0.4)])
def test_a_cut_is_as_deep_as_the_share_let_through_within_bounds(passed: int, factor: float) -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=1000.0)
    for _ in range(passed):
        bucket.succeeded(0.0)
    bucket.throttled(0.0)
    assert bucket.rate == pytest.approx(20.0 * factor, rel=0.002)


def test_a_share_of_refusals_that_does_not_depend_on_the_rate_is_learnt_and_cuts_no_more() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=40.0)
    now = use(bucket, 0.0, 300.0, refused_every=20)
    assert bucket.background == pytest.approx(0.05, rel=0.25)
    assert bucket.rate == 40.0
    use(bucket, now, 60.0, refused_every=20)
    assert bucket.rate == 40.0


def test_more_refusals_than_the_learnt_share_cut_the_rate() -> None:
    bucket = AdaptiveBucket(20.0, 10.0, 0.0, ceiling=40.0)
    now = use(bucket, 0.0, 300.0, refused_every=20)
    use(bucket, now, 10.0, refused_every=3)
    assert bucket.rate < 30.0


def test_in_the_quiet_half_of_ten_seconds_after_a_refusal_less_of_the_rate_is_used() -> None:
    sent = {}
    for offset in (0.0, 5.0):
        bucket = AdaptiveBucket(20.0, 1.0, 0.0, ceiling=20.0, wall_offset=offset)
        now = use(bucket, 0.0, 40.0 - offset)
        bucket.throttled(now - 39.0 + offset)
        count, end = 0, now + 5.0
        while now < end:
            if bucket.take(now):
                count += 1
            else:
                now = bucket.ready_at(now)
        sent[offset] = count / bucket.rate
    assert sent[0.0] == pytest.approx(4.0, abs=0.3)
    assert sent[5.0] == pytest.approx(4.0, abs=0.3)


@settings(deadline=None)
@given(
    st.floats(0.0, 1e7),
    st.floats(-1e9, 1e9),
    st.lists(st.tuples(st.floats(-5.0, 20.0) | st.floats(0.0, 0.1), st.sampled_from("ttwsse")), max_size=200),
    st.booleans(),
)
def test_whatever_happens_the_rate_stays_within_bounds_and_ready_at_is_truthful(
    start: float, offset: float, events: list[tuple[float, str]], gently: bool
) -> None:
    bucket = AdaptiveBucket(20.0, 10.0, start, ceiling=100.0, floor=0.5, gently=gently, wall_offset=offset)
    now = start
    for step, event in events:
        now += step
        if event == "t":
            bucket.throttled(now)
        elif event == "w":
            bucket.wanted(now)
        elif event == "s":
            bucket.succeeded(now)
        else:
            ready_at = bucket.ready_at(now)
            if not bucket.take(max(now, ready_at)):  # a quiet slot has begun meanwhile
                assert bucket.take(bucket.ready_at(max(now, ready_at)))
        assert 0.5 <= bucket.rate <= 100.0
        assert 0.0 <= bucket.background < 1.0
