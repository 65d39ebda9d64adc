"""
AWS's rate limits of ECS and Batch as token buckets, which :class:`~ecs_async_executor.local.LocalEcs` can enforce.

May import :mod:`place` only. The figures are AWS's documented defaults for an account and Region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecs_async_executor.local.place import Place

MODIFY = "modify"
READ = "read"
BATCH = "batch"
BATCH_READ = "batch_read"
BATCH_MODIFY = "batch_modify"
READS = frozenset(
    {
        "DescribeClusters",
        "DescribeContainerInstances",
        "DescribeServices",
        "DescribeTaskDefinition",
        "DescribeTasks",
        "ListClusters",
        "ListContainerInstances",
        "ListServices",
        "ListTasks",
        "ListTagsForResource",
        "ListTaskDefinitions",
    }
)
MODIFIES = frozenset({"RunTask", "StartTask", "StopTask"})


@dataclass(frozen=True, slots=True)
class Rate:
    """
    One rate limit.

    :param per_second: calls per second, sustained
    :param burst: calls that may come at once
    """

    per_second: float
    burst: float


AWS_RATES: Mapping[str, Rate] = {
    MODIFY: Rate(40, 100),
    READ: Rate(20, 100),
    "FARGATE": Rate(20, 20),
    BATCH: Rate(50, 50),
    BATCH_READ: Rate(20, 20),
    BATCH_MODIFY: Rate(50, 50),
}
"""
The defaults. ECS: operations that modify, that read, and RunTask on Fargate on top, On-Demand and Spot together.
Batch: SubmitJob (``batch``). No rate is published for its other operations, and that of DescribeJobs is said to be
low: the rates for those that read (``batch_read``) and change (``batch_modify``) are guesses.
"""


class Buckets:
    """
    Token buckets that refuse calls above their rate.

    :param rates: the rate of each bucket; a bucket without a rate is not limited
    """

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self.rates = dict(rates)
        self._levels: dict[tuple[Place, str], tuple[float, float]] = {}

    def take(self, place: Place, names: tuple[str, ...], now: float) -> bool:
        """Take one token from each bucket, or none if one of them is empty; return whether tokens were taken."""
        levels = {}
        for name in names:
            rate = self.rates.get(name)
            if rate is None:
                continue
            tokens, then = self._levels.get((place, name), (rate.burst, now))
            tokens = min(rate.burst, tokens + (now - then) * rate.per_second)
            if tokens < 1:
                return False
            levels[place, name] = (tokens - 1, now)
        self._levels.update(levels)
        return True
