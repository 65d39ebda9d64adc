"""
Schedulers against AWS's rate buckets, in virtual time.

Every call spends half of its latency on the way to the service, draws from the service's buckets there, and
spends the other half on the way back; latencies and wake-ups have jitter from a seeded generator.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from ecs_async_executor.core.buckets import TokenBucket
from ecs_async_executor.core.limiter import Limiter
from ecs_async_executor.services.ecs import SERVICE

LATENCY = (0.05, 0.15)
SLOTS = 64
RESTING_POLL = 0.05

Demand = Callable[[int, float], bool]


@dataclass(frozen=True)
class Quota:
    """What AWS allows one account: the bucket of the launch type, if it has one, and that of modifying calls."""

    bucket: str
    rate: float
    launches: tuple[float, float] | None
    modify: tuple[float, float]


FARGATE = Quota("FARGATE", 20.0, launches=(20.0, 20.0), modify=(40.0, 100.0))
EC2 = Quota("EC2", 40.0, launches=None, modify=(40.0, 100.0))
RAISED = {
    "FARGATE": Quota("FARGATE", 200.0, launches=(200.0, 200.0), modify=(200.0, 400.0)),
    "EC2": Quota("EC2", 200.0, launches=None, modify=(200.0, 400.0)),
}
quotas = pytest.mark.parametrize("quota", [FARGATE, EC2], ids=lambda quota: quota.bucket)
seeds = pytest.mark.parametrize("seed", [1, 2, 3])


class Aws:
    def __init__(self, quota: Quota) -> None:
        self.modify = TokenBucket(*quota.modify, 0.0)
        self.launches = TokenBucket(*quota.launches, 0.0) if quota.launches else None

    def raise_to(self, quota: Quota) -> None:
        self.modify.rate, self.modify.burst = quota.modify
        if self.launches and quota.launches:
            self.launches.rate, self.launches.burst = quota.launches

    def run_task(self, now: float) -> bool:
        buckets = [bucket for bucket in (self.launches, self.modify) if bucket]
        return all(bucket.ready_at(now) <= now for bucket in buckets) and all(b.take(now) for b in buckets)


@dataclass
class Outcome:
    """When each scheduler's calls were let through and refused, in order of time."""

    passed: list[list[float]]
    refused: list[list[float]]
    limits: list[Limiter]

    @staticmethod
    def _count(times: Sequence[float], start: float, end: float) -> int:
        return bisect_left(times, end) - bisect_left(times, start)

    def rate(self, start: float, end: float) -> float:
        return sum(self._count(times, start, end) for times in self.passed) / (end - start)

    def refused_share(self, start: float, end: float) -> float:
        refused = sum(self._count(times, start, end) for times in self.refused)
        return refused / (refused + self.rate(start, end) * (end - start))

    def fairness(self, start: float, end: float) -> float:
        """Return Jain's index: 1 if all got the same, 1/n if one got everything."""
        counts = [self._count(times, start, end) for times in self.passed]
        return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))

    def reached(self, rate: float, after: float) -> float:
        """Return how many seconds after that moment two seconds at this rate had first gone by."""
        seconds = 0.0
        while self.rate(after + seconds, after + seconds + 2.0) < rate:
            seconds += 0.5
            assert seconds < 300.0, "never"
        return seconds + 2.0


def simulate(
    quota: Quota,
    schedulers: int,
    until: float,
    *,
    seed: int = 1,
    joins: Mapping[int, float] | None = None,
    demand: Demand = lambda _scheduler, _now: True,
    raised: tuple[float, Quota] | None = None,
    rate_max: float = 500.0,
) -> Outcome:
    chance = random.Random(seed)
    aws = Aws(quota)
    limits = [
        Limiter(
            launch_rate=SERVICE.rate_of,
            launch_burst=10,
            launch_rate_max=rate_max,
            read_rate=20.0,
            read_burst=20,
            modify_rate=SERVICE.change_rate,
            modify_burst=SERVICE.change_burst,
            now=0.0,
        )
        for _ in range(schedulers)
    ]
    outcome = Outcome([[] for _ in limits], [[] for _ in limits], limits)
    slots = [SLOTS] * schedulers
    agenda: list[tuple[float, int, str, int, bool]] = []
    entries = 0

    def plan(at: float, what: str, who: int, *, passed: bool = False) -> None:
        nonlocal entries
        entries += 1
        heapq.heappush(agenda, (at, entries, what, who, passed))

    for who in range(schedulers):
        limits[who].launches_waiting(1)
        plan((joins or {}).get(who, 0.0), "awake", who)
    if raised:
        plan(raised[0], "raise", 0)
    while agenda and agenda[0][0] < until:
        now, _, what, who, passed = heapq.heappop(agenda)
        if what == "raise":
            assert raised
            aws.raise_to(raised[1])
        elif what == "awake":
            if not slots[who] or not demand(who, now):
                plan(now + (RESTING_POLL if slots[who] else 0.005), "awake", who)
            elif limits[who].take_launch(quota.bucket, now):
                slots[who] -= 1
                plan(now + chance.uniform(*LATENCY) / 2, "arrive", who)
                plan(now + 0.0007, "awake", who)
            else:
                ready_at = limits[who].launch_ready_at(quota.bucket, now)
                plan(ready_at + chance.uniform(0.0002, 0.003), "awake", who)
        elif what == "arrive":
            passed = aws.run_task(now)
            (outcome.passed if passed else outcome.refused)[who].append(now)
            plan(now + chance.uniform(*LATENCY) / 2, "return", who, passed=passed)
        else:
            slots[who] += 1
            if passed:
                limits[who].launch_succeeded(quota.bucket)
            else:
                limits[who].launch_throttled(quota.bucket, now)
    return outcome


@quotas
@seeds
@pytest.mark.parametrize(("schedulers", "refused"), [(1, 0.01), (2, 0.01), (4, 0.02)])
def test_schedulers_share_the_quota_fairly_use_it_up_and_are_seldom_refused(
    quota: Quota, seed: int, schedulers: int, refused: float
) -> None:
    outcome = simulate(quota, schedulers, until=420.0, seed=seed)
    assert outcome.rate(60.0, 420.0) >= 0.95 * quota.rate
    assert outcome.refused_share(60.0, 420.0) <= refused
    assert outcome.fairness(60.0, 420.0) >= 0.95


@quotas
@seeds
@pytest.mark.parametrize(("schedulers", "refused"), [(1, 0.01), (2, 0.01), (4, 0.02)])
def test_schedulers_that_start_at_once_use_the_quota_and_are_seldom_refused_from_the_very_start(
    quota: Quota, seed: int, schedulers: int, refused: float
) -> None:
    outcome = simulate(quota, schedulers, until=120.0, seed=seed)
    assert outcome.rate(0.0, 40.0) >= 0.95 * quota.rate
    assert outcome.rate(0.0, 120.0) >= 0.95 * quota.rate
    assert outcome.refused_share(0.0, 40.0) <= refused * 1.1
    assert outcome.refused_share(0.0, 120.0) <= refused
    assert outcome.fairness(0.0, 120.0) >= 0.85


@quotas
@seeds
@pytest.mark.parametrize("schedulers", [2, 4])
def test_one_that_joins_later_gets_its_share(quota: Quota, seed: int, schedulers: int) -> None:
    outcome = simulate(quota, schedulers, until=420.0, seed=seed, joins={schedulers - 1: 120.0})
    assert outcome.rate(60.0, 420.0) >= 0.95 * quota.rate
    assert outcome.refused_share(60.0, 420.0) <= 0.02
    assert outcome.fairness(180.0, 420.0) >= 0.95


@quotas
@seeds
def test_a_trickle_does_not_inflate_the_rate_that_a_burst_then_gets(quota: Quota, seed: int) -> None:
    outcome = simulate(
        quota, 2, until=300.0, seed=seed, demand=lambda _, now: now >= 120.0 or now % 1.0 < RESTING_POLL
    )
    assert outcome.refused_share(0.0, 120.0) <= 0.01
    assert outcome.rate(120.0, 300.0) >= 0.95 * quota.rate
    assert outcome.refused_share(120.0, 300.0) <= 0.02
    assert outcome.fairness(120.0, 300.0) >= 0.95


@quotas
def test_a_raised_quota_is_found_within_30_seconds_from_the_start(quota: Quota) -> None:
    outcome = simulate(RAISED[quota.bucket], 1, until=60.0)
    assert outcome.reached(180.0, after=0.0) <= 30.0
    assert outcome.refused_share(0.0, 60.0) <= 0.02


@quotas
@pytest.mark.parametrize("when", [120.0, 126.0, 132.0, 138.0])
def test_a_quota_raised_mid_run_is_found_within_60_seconds(quota: Quota, when: float) -> None:
    outcome = simulate(quota, 1, until=when + 75.0, raised=(when, RAISED[quota.bucket]))
    assert outcome.reached(180.0, after=when) <= 60.0


@quotas
def test_the_ceiling_holds_where_the_quota_is_higher(quota: Quota) -> None:
    outcome = simulate(RAISED[quota.bucket], 1, until=60.0, rate_max=50.0)
    assert outcome.limits[0].launch_rate(quota.bucket) == 50.0
    assert outcome.rate(30.0, 60.0) == pytest.approx(50.0, rel=0.02)
    assert not outcome.refused[0]
