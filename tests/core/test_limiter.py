"""The limiter: which buckets a launch, a stop and a read draw from, and who goes first."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.limiter import Limiter, PollPacer
from ecs_async_executor.services.ecs import SERVICE


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


def test_launch_buckets_start_at_the_quota_of_their_launch_type() -> None:
    limits = limiter()
    assert {b: limits.launch_rate(b) for b in SERVICE.launch_rates} == dict(SERVICE.launch_rates)
    assert limits.launch_rate("SOMETHING_NEW") == 20.0
    assert limiter(launch_rate=lambda _: 7.0).launch_rate("EC2") == 7.0
    assert limiter(launch_rate_max=30.0).launch_rate("EC2") == 30.0


def test_where_each_operation_has_its_own_quota_stops_and_launches_take_nothing_from_each_other() -> None:
    limits = limiter(shares_modify=False, modify_rate=5.0, modify_burst=5, launch_rate=lambda _: 40.0)
    limits.launches_waiting(100)
    limits.stops_waiting(100)
    launches = stops = 0
    for now in (step / 100 for step in range(1001)):
        while limits.take_launch("SubmitJob", now):
            limits.launch_succeeded("SubmitJob", now)
            launches += 1
        while limits.take_stop(now):
            stops += 1
    assert stops == pytest.approx(5 + 10 * 5, abs=1)
    assert launches >= 10 * 40 - GENTLE_START
    limits.stop_throttled(10.0)
    assert limits.launch_rate("SubmitJob") >= 40.0


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


@pytest.mark.parametrize(
    ("batches", "rate", "expected"),
    [(0, 20.0, 1.0), (1, 20.0, 1.0), (5, 20.0, 1.0), (10, 20.0, 2.0), (5, 5.0, 4.0)],
)
def test_sweeps_take_a_quarter_of_the_read_budget_at_most(batches: int, rate: float, expected: float) -> None:
    assert PollPacer(1.0).interval(batches, rate) == pytest.approx(expected)
