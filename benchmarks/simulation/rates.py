"""What a quota gives schedulers by the rule of this version and by the one before, over the share of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.simulation.loss_driven import LossDrivenLimiter
from ecs_async_executor.core.limiter import Limiter
from tests.core.quotas import EC2, FARGATE, RAISED, Outcome, Quota, simulate

RULES: Mapping[str, Callable[..., Limiter]] = {"loss-driven": LossDrivenLimiter, "background learnt": Limiter}
SHARES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2)
LEARNT_AT = 60.0
LATER = 180.0
RAISED_AT = 120.0
STORM = (60.0, 120.0)

Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """
    One line of the table.

    :param group: lines of one table have it in common
    :param figures: what is read off the outcome
    :param settings: of :func:`tests.core.quotas.simulate`
    """

    group: str
    label: str
    quota: Quota
    schedulers: int
    until: float
    figures: Callable[[Case, Outcome], Figures]
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, rule: str, seed: int) -> Figures:
        """Simulate it once."""
        outcome = simulate(
            self.quota, self.schedulers, self.until, seed=seed, limiter=RULES[rule], **self.settings
        )
        return self.figures(self, outcome)


def cases() -> Iterator[Case]:
    """Yield every line of the tables."""
    for per_second, quota in ((20, FARGATE), (200, RAISED["FARGATE"])):
        settings, until = ({}, 300.0) if quota is FARGATE else ({"launch_rate": quota.rate}, 240.0)
        for share in SHARES:
            yield Case(
                f"noise, {per_second}/s", f"{share:.1%}", quota, 1, until, _had, {"noise": share, **settings}
            )
        yield Case(
            f"noise, {per_second}/s", "neighbour", quota, 1, until, _had, {"greedy": 2 * quota.rate, **settings}
        )
    for quota, numbers in ((FARGATE, (1, 2, 4, 8, 12)), (EC2, (1, 2, 4))):
        for number in numbers:
            yield Case(f"sharing, {quota.bucket}", str(number), quota, number, 420.0, _shared)
    for share in (0.01, 0.05):
        yield Case("sharing beside noise", f"4, {share:.0%}", FARGATE, 4, 420.0, _shared, {"noise": share})
    for quota in (FARGATE, EC2):
        changes = (RAISED_AT, RAISED[quota.bucket])
        yield Case("changes", f"{quota.bucket}, from the start", RAISED[quota.bucket], 1, 75.0, _found)
        yield Case("changes", f"{quota.bucket}, raised", quota, 1, RAISED_AT + 90.0, _found, {"changes": changes})
        yield Case("changes", f"{quota.bucket}, storm", quota, 1, 240.0, _after_storm, {"storm": STORM})
    lowered = {"changes": (60.0, FARGATE), "launch_rate": RAISED["FARGATE"].rate}
    yield Case("changes", "4, lowered to a tenth", RAISED["FARGATE"], 4, 300.0, _lowered, lowered)


def _had(case: Case, outcome: Outcome) -> Figures:
    to_be_had = case.quota.rate * (1.0 - case.settings.get("noise", 0.0))
    return {
        "after 1 min": outcome.rate(LEARNT_AT, case.until) / to_be_had,
        "after 3 min": outcome.rate(LATER, case.until) / to_be_had,
    }


def _shared(case: Case, outcome: Outcome) -> Figures:
    to_be_had = case.quota.rate * (1.0 - case.settings.get("noise", 0.0))
    return {
        "used": outcome.rate(60.0, case.until) / to_be_had,
        "refused": outcome.refused_share(60.0, case.until),
        "refused, 40 s": outcome.refused_share(0.0, 40.0),
        "Jain": outcome.fairness(60.0, case.until),
    }


def _found(case: Case, outcome: Outcome) -> Figures:
    after = case.settings.get("changes", (0.0,))[0]
    return {"seconds": outcome.reached(0.9 * RAISED[case.quota.bucket].rate, after)}


def _after_storm(case: Case, outcome: Outcome) -> Figures:
    return {"used": outcome.rate(STORM[1] + 30.0, case.until) / case.quota.rate}


def _lowered(case: Case, outcome: Outcome) -> Figures:
    return {
        "used": outcome.rate(100.0, case.until) / FARGATE.rate,
        "refused": outcome.refused_share(100.0, case.until),
    }
