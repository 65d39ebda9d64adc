from __future__ import annotations

import gc
from bisect import bisect_right

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.buckets import AdaptiveBucket, TokenBucket
from ecs_async_executor.core.gates import Gate, Gates
from ecs_async_executor.core.limiter import Limiter, PollPacer
from ecs_async_executor.services.ecs import SERVICE

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


def limiter(now: float = 0.0, **changes: object) -> Limiter:
    settings = {
        "launch_burst": 10,
        "launch_rate_max": 500.0,
        "read_rate": 20.0,
        "read_burst": 20,
        "modify_rate": SERVICE.change_rate,
        "modify_burst": SERVICE.change_burst,
        "launch_rate": SERVICE.rate_of,
        "now": now,
    }
    return Limiter(**{**settings, **changes})  # type: ignore[arg-type]


GENTLE_START = 40
"""Launches, at most, that a bucket of 40/s gives up by beginning below its rate."""


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


# --- Limiter -------------------------------------------------------------------------------------------------


def test_launch_buckets_start_at_the_quota_of_their_launch_type() -> None:
    limits = limiter()
    assert {b: limits.launch_rate(b) for b in SERVICE.launch_rates} == dict(SERVICE.launch_rates)
    assert limits.launch_rate("SOMETHING_NEW") == 20.0
    assert limiter(launch_rate=lambda _: 7.0).launch_rate("EC2") == 7.0
    assert limiter(launch_rate_max=30.0).launch_rate("EC2") == 30.0


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


def test_a_throttle_cuts_only_the_operation_it_hit() -> None:
    limits = limiter()
    limits.take_launch("FARGATE", 0.0)
    limits.take_launch("EC2", 0.0)
    fargate, ec2 = limits.launch_rate("FARGATE"), limits.launch_rate("EC2")
    limits.launch_throttled("FARGATE", 0.0)
    assert limits.launch_rate("FARGATE") < fargate
    assert limits.launch_rate("EC2") == ec2
    assert limits.read_rate == 20.0
    assert limits.launch_ready_at("EC2", 0.0) == limits.stop_ready_at(0.0) == limits.read_ready_at(0.0) == 0.0
    assert limits.launch_ready_at("FARGATE", 0.0) > 0.5
    limits.stop_throttled(0.0)
    assert limits.stop_ready_at(0.0) > 0.5
    assert limits.read_rate == 20.0
    limits.read_throttled(0.0)
    assert limits.read_rate < 20.0


def test_reads_do_not_draw_from_what_launches_and_stops_share() -> None:
    limits = limiter()
    for _ in range(20):
        assert limits.take_read(0.0)
    assert not limits.take_read(0.0)
    assert limits.take_launch("EC2", 0.0)


def test_a_launch_that_may_not_go_takes_nothing() -> None:
    limits = limiter(modify_burst=1.0, launch_burst=20)
    assert limits.take_stop(0.0)
    for _ in range(100):
        assert not limits.take_launch("EC2", 0.0)
    now = 0.0
    went = 0
    while limits.launch_ready_at("EC2", now) < 0.19:
        now = limits.launch_ready_at("EC2", now)
        assert limits.take_launch("EC2", now)
        went += 1
    assert went == 7


def shared(limits: Limiter, seconds: float, *, launches: bool, stops: bool, stop_lane_dead: bool = False) -> str:
    """Let both lanes take what they can from the modify bucket; the launch lane is always served first."""
    limits.launches_waiting(int(launches))
    limits.stops_waiting(int(stops))
    order = ""
    for tick in range(int(seconds * 1000)):
        now = tick / 1000
        if launches and limits.take_launch("EC2", now):
            order += "l"
        if stops and not stop_lane_dead and limits.take_stop(now):
            order += "s"
    return order


def test_stops_go_first_but_take_only_every_second_token_while_launches_wait() -> None:
    order = shared(limiter(launch_rate_max=40.0), 10.0, launches=True, stops=True)
    settled = order[60:]
    assert abs(settled.count("l") - settled.count("s")) <= 1
    assert "ss" not in settled
    assert len(order) == pytest.approx(10 * 40 + 20, abs=2)


def test_stops_that_ask_first_leave_every_second_token_to_waiting_launches() -> None:
    limits = limiter(launch_rate_max=40.0, modify_burst=3.0)
    limits.launches_waiting(1)
    assert limits.take_stop(0.0)
    assert limits.take_stop(0.0)
    assert not limits.take_stop(0.0)
    assert limits.take_launch("EC2", 0.0)
    order = ""
    for tick in range(1, 5001):
        now = tick / 1000
        if limits.take_stop(now):
            order += "s"
        if limits.take_launch("EC2", now):
            order += "l"
    assert abs(order.count("l") - order.count("s")) <= 2
    assert len(order) == pytest.approx(200, abs=2)


def test_with_the_stop_s_turn_a_launch_leaves_the_last_token() -> None:
    limits = limiter(modify_burst=3.0)
    limits.launches_waiting(1)
    limits.stops_waiting(1)
    assert limits.take_launch("EC2", 0.0)
    assert limits.take_launch("EC2", 0.0)
    assert not limits.take_launch("EC2", 0.0)
    assert limits.take_stop(0.0)


def test_alone_stops_and_launches_each_get_everything() -> None:
    assert shared(limiter(), 5.0, launches=False, stops=True).count("s") == pytest.approx(220, abs=2)
    launched = shared(limiter(launch_rate_max=40.0), 10.0, launches=True, stops=False).count("l")
    assert launched >= 400 - GENTLE_START


def test_stops_that_never_come_do_not_hold_up_launches() -> None:
    order = shared(limiter(launch_rate_max=40.0), 10.0, launches=True, stops=True, stop_lane_dead=True)
    assert order.count("l") >= 400 - GENTLE_START


def test_the_shared_bucket_follows_a_growing_launch_rate() -> None:
    limits = limiter()
    order = shared(limits, 20.0, launches=True, stops=False)
    assert limits.launch_rate("EC2") > 150.0
    assert len(order) > 1500


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 0.2), st.sampled_from("LSWwTt")), max_size=150))
@example([(0.0, "T"), *[(0.0, "L")] * 8, (0.0, "W"), (0.0, "T"), (0.0, "L"), (0.1484375, "L")])
def test_what_ready_at_promises_take_keeps(events: list[tuple[float, str]]) -> None:
    limits = limiter()
    now = 0.0
    for step, event in events:
        now += step
        if event == "L":
            at = limits.launch_ready_at("EC2", now)
            assert limits.take_launch("EC2", now) == (at == now)
            now = limits.launch_ready_at("EC2", now)
            assert limits.take_launch("EC2", now)
        elif event == "S":
            at = limits.stop_ready_at(now)
            assert limits.take_stop(now) == (at == now)
            now = limits.stop_ready_at(now)
            assert limits.take_stop(now)
        elif event == "T":
            limits.launch_throttled("EC2", now)
        elif event == "t":
            limits.stop_throttled(now)
        else:
            limits.launches_waiting(int(event == "W"))
            limits.stops_waiting(int(event == "w"))


# --- Gate ----------------------------------------------------------------------------------------------------


def test_an_open_gate_lets_everybody_pass() -> None:
    gate = Gate()
    gate.probe_started(0.0)
    gate.undecided(0.0)
    gate.succeeded()
    assert gate.is_open
    assert gate.may_pass(0.0)
    assert gate.closed_since is None
    assert gate.next_probe_at is None


def test_probes_follow_each_other_at_growing_distances() -> None:
    gate = Gate()
    gate.close(100.0, "RESOURCE:MEMORY")
    now = 100.0
    gaps = []
    for _ in range(6):
        at = gate.next_probe_at
        assert at is not None
        assert not gate.may_pass(at - 0.001)
        assert gate.may_pass(at)
        gaps.append(at - now)
        gate.probe_started(at)
        now = at + 0.25
        gate.refused(now, "RESOURCE:CPU")
    assert gaps == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert gate.closed_since == 100.0
    assert gate.reason == "RESOURCE:CPU"


def test_a_probe_that_succeeds_opens_the_gate_and_forgets() -> None:
    gate = Gate()
    gate.refused(0.0, "AGENT")
    gate.probe_started(5.0)
    gate.refused(6.0, "AGENT")
    gate.probe_started(16.0)
    gate.succeeded()
    assert gate.is_open
    assert (gate.reason, gate.next_probe_at) == ("", None)
    gate.refused(20.0, "AGENT")
    assert gate.next_probe_at == 25.0


def test_what_was_sent_before_the_gate_closed_decides_nothing() -> None:
    gate = Gate()
    gate.refused(0.0, "first")
    gate.refused(0.1, "second")
    gate.succeeded()
    assert gate.closed_since == 0.0
    assert gate.reason == "second"
    assert gate.next_probe_at == 5.0


def test_a_probe_without_an_answer_makes_way_for_the_next_at_the_same_distance() -> None:
    gate = Gate()
    gate.close(0.0, "AGENT")
    gate.probe_started(5.0)
    assert not gate.may_pass(15.0)
    gate.undecided(15.0)
    assert gate.next_probe_at == 20.0


def test_a_lost_probe_does_not_keep_the_gate_closed_for_ever() -> None:
    gate = Gate(probe_timeout=120.0)
    gate.close(0.0, "AGENT")
    gate.probe_started(5.0)
    assert not gate.may_pass(124.9)
    assert gate.may_pass(125.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2.0, 10.0), st.sampled_from(["try", "ok", "no", "eh", "close"])), max_size=100)
)
def test_a_closed_gate_never_has_two_probes_out(events: list[tuple[float, str]]) -> None:
    gate = Gate(probe_timeout=1e9)
    now = 0.0
    out = 0
    for step, event in events:
        now += step
        if event == "try" and gate.may_pass(now):
            out += not gate.is_open
            gate.probe_started(now)
        elif event == "close":
            gate.close(now, "x")
        elif event != "try" and out:
            out = 0
            {"ok": lambda _: gate.succeeded(), "no": lambda t: gate.refused(t, "x"), "eh": gate.undecided}[event](
                now
            )
            assert gate.is_open == (event == "ok")
        assert out <= 1


# --- Gates ---------------------------------------------------------------------------------------------------


def test_gates_remember_only_the_closed_ones() -> None:
    gates = Gates()
    for i in range(1000):
        assert gates[f"open {i}"].may_pass(0.0)
    gates["closed"].refused(0.0, "AGENT")
    gc.collect()
    assert list(gates) == ["closed"]
    assert len(gates) == 1
    assert len(gates._gates) == 1
    assert not gates["closed"].may_pass(1.0)
    gates["closed"].probe_started(5.0)
    gates["closed"].succeeded()
    gc.collect()
    assert list(gates) == []
    assert len(gates._gates) == 0


def test_a_gate_held_while_it_was_forgotten_is_still_the_one() -> None:
    gates = Gates(first_delay=2.0)
    held = gates["a"]
    assert gates["a"] is held
    held.refused(0.0, "AGENT")
    assert gates["a"] is held
    assert gates["a"].next_probe_at == 2.0


def test_a_closed_gate_can_be_forgotten() -> None:
    gates = Gates(first_delay=2.0)
    gates["a"].refused(0.0, "AGENT")
    held = gates["a"]
    gates.forget("a")
    gates.forget("unknown")
    assert len(gates) == 0
    assert gates["a"].is_open
    gates["a"].refused(1.0, "AGENT")
    held.probe_started(2.0)
    held.succeeded()  # of the one that was forgotten
    assert list(gates) == ["a"]
    assert not gates["a"].is_open


# --- PollPacer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "rate", "expected"),
    [(0, 20.0, 1.0), (1, 20.0, 1.0), (5, 20.0, 1.0), (10, 20.0, 2.0), (5, 5.0, 4.0)],
)
def test_sweeps_take_a_quarter_of_the_read_budget_at_most(batches: int, rate: float, expected: float) -> None:
    assert PollPacer(1.0).interval(batches, rate) == pytest.approx(expected)
