"""
A model of schedulers against AWS's rate buckets, in virtual time.

Every call spends half of its latency on the way to the service, draws from the service's buckets there, and
spends the other half on the way back; latencies and wake-ups have jitter from a seeded generator. Tests and
``benchmarks.simulation`` use it.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


class Aws:
    """The buckets of one account."""

    def __init__(self, quota: Quota) -> None:
        self.modify = TokenBucket(*quota.modify, 0.0)
        self.launches = TokenBucket(*quota.launches, 0.0) if quota.launches else None

    def change_to(self, quota: Quota) -> None:
        """Raise or lower the quota."""
        self.modify.rate, self.modify.burst = quota.modify
        if self.launches and quota.launches:
            self.launches.rate, self.launches.burst = quota.launches

    def run_task(self, now: float) -> bool:
        """Return whether a launch is let through."""
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
        """Return how many calls per second were let through."""
        return sum(self._count(times, start, end) for times in self.passed) / (end - start)

    def refused_share(self, start: float, end: float) -> float:
        """Return the share of calls that was refused."""
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
    changes: tuple[float, Quota] | None = None,
    rate_max: float = 500.0,
    launch_rate: float | None = None,
    noise: float = 0.0,
    greedy: float = 0.0,
    storm: tuple[float, float] = (0.0, 0.0),
    skew: Sequence[float] = (0.0,),
    limiter: Callable[..., Limiter] = Limiter,
) -> Outcome:
    """
    Let schedulers launch as fast as their limits allow.

    :param joins: when a scheduler begins, by its number; 0 for others
    :param demand: whether a scheduler has something to launch
    :param changes: when the quota changes, and to what
    :param launch_rate: the option of that name
    :param noise: the share of calls that is refused whatever the rate
    :param greedy: calls per second of a neighbour that ignores refusals
    :param storm: from when until when everything is refused
    :param skew: seconds by which the wall clocks of the schedulers differ, in turn
    :param limiter: makes the limits of a scheduler
    """
    chance = random.Random(seed)
    aws = Aws(quota)
    limits = [
        limiter(
            launch_rate=SERVICE.rate_of if launch_rate is None else lambda _: launch_rate,
            launch_burst=10,
            launch_rate_max=rate_max,
            read_rate=20.0,
            read_burst=20,
            modify_rate=launch_rate or SERVICE.change_rate,
            modify_burst=SERVICE.change_burst,
            now=0.0,
            gently=launch_rate is None,
            wall_offset=skew[number % len(skew)],
        )
        for number in range(schedulers)
    ]
    outcome = Outcome([[] for _ in limits], [[] for _ in limits], limits)
    slots = [SLOTS] * schedulers
    agenda: list[tuple[float, int, str, int, bool]] = []
    entries = 0

    def plan(at: float, what: str, who: int = 0, *, passed: bool = False) -> None:
        nonlocal entries
        entries += 1
        heapq.heappush(agenda, (at, entries, what, who, passed))

    for who in range(schedulers):
        limits[who].launches_waiting(1)
        plan((joins or {}).get(who, 0.0), "awake", who)
    if changes:
        plan(changes[0], "change")
    if greedy:
        plan(0.0, "neighbour")
    while agenda and agenda[0][0] < until:
        now, _, what, who, passed = heapq.heappop(agenda)
        if what == "change":
            assert changes
            aws.change_to(changes[1])
        elif what == "neighbour":
            aws.run_task(now)
            plan(now + chance.expovariate(greedy), "neighbour")
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
            unlucky = storm[0] <= now < storm[1] or (noise and chance.random() < noise)
            passed = not unlucky and aws.run_task(now)
            (outcome.passed if passed else outcome.refused)[who].append(now)
            plan(now + chance.uniform(*LATENCY) / 2, "return", who, passed=passed)
        else:
            slots[who] += 1
            if passed:
                limits[who].launch_succeeded(quota.bucket, now)
            else:
                limits[who].launch_throttled(quota.bucket, now)
    return outcome
