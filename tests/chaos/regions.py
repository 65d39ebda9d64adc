"""A second Region, and placements to choose from: which workloads go where, and how long launches took."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ecs_async_executor.core.choices import Choices

HOME, ABROAD = "us-east-1", "eu-west-1"
PROVIDERS: Mapping[str, str] = {"spot": "FARGATE_SPOT", "on-demand": "FARGATE"}
CHOICES = Choices(tuple(PROVIDERS), patience=1.0)
GO_ABROAD, CHOOSE = 0.4, 0.4
"""Shares of the workloads."""
FEWEST = 20
"""Launches during outages below which nothing is said about their delay."""
FACTOR, MARGIN_SECONDS = 2.0, 6.0
"""
How much longer launches at home may take while the other Region is down: the median, with a margin. It is wide, as
launches come in bursts whenever a scheduler begins; where nothing else goes wrong a test holds a narrow one.
"""


@dataclass(frozen=True)
class Course:
    """
    Where a workload goes, as its placement has it: ``abroad/spot/512``.

    :param chooses: its launches choose between placements
    """

    abroad: bool
    chooses: bool
    size: str

    @classmethod
    def read(cls, placement: str) -> Course:
        *words, size = placement.split("/")
        return cls("abroad" in words, "spot" in words, size)

    @classmethod
    def drawn(cls, draw: random.Random, size: str) -> str:
        """Return a placement of this size."""
        words = ["abroad"] * (draw.random() < GO_ABROAD) + ["spot"] * (draw.random() < CHOOSE)
        return "/".join((*words, size))


@dataclass(frozen=True)
class Outage:
    """A time during which the other Region was down, in wall-clock seconds."""

    begin: float
    end: float


@dataclass(frozen=True)
class Delays:
    """
    Seconds from the queueing of launches at home to their first containers: medians.

    :param during: while the other Region was down
    :param launches: how many these are
    :param otherwise: at other times
    """

    during: float = 0.0
    launches: int = 0
    otherwise: float = 0.0

    @property
    def problem(self) -> str | None:
        """Say that launches at home were held up by the other Region's outages, None if they were not."""
        if self.launches < FEWEST or self.during <= FACTOR * self.otherwise + MARGIN_SECONDS:
            return None
        return f"{self.launches} launches at home took {self.during:.1f} s, otherwise {self.otherwise:.1f} s"


def delays(
    queued_at: Mapping[tuple[str, int], float],
    containers: Mapping[tuple[str, int], Iterable[Mapping[str, Any]]],
    outages: Sequence[Outage],
) -> Delays:
    """
    Compare how long launches at home took while the other Region was down with how long they took otherwise.

    :param queued_at: when each launch was queued, in wall-clock seconds
    :param containers: the entries of the local service's ledger, by launch
    """
    during: list[float] = []
    otherwise: list[float] = []
    for launch, at in queued_at.items():
        made = [entry["created_at"] for entry in containers.get(launch, ()) if entry["region"] == HOME]
        if made:
            down = any(outage.begin <= at < outage.end for outage in outages)
            (during if down else otherwise).append(min(made) - at)
    if not during or not otherwise:
        return Delays(launches=len(during))
    return Delays(median(during), len(during), median(otherwise))
