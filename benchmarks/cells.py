"""Cells: a cell is one subject in one situation, measured in a process of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

PROVIDER = "AwsEcsExecutor"
OURS = "AsyncEcsExecutor"
BARE = "aiobotocore"
PROVIDER_ON_BATCH = "AwsBatchExecutor"
OURS_ON_BATCH = "AsyncBatchExecutor"
ALL_OURS = (OURS, OURS_ON_BATCH)

Figures = dict[str, float]
Series = dict[str, list[float | None]]
"""Figures of each second."""


@dataclass(frozen=True)
class Cell:
    """
    One measurement.

    :param scenario: a name in :mod:`benchmarks.scenarios`
    :param subject: the executor or client that is measured
    :param size: number of workloads
    :param running: number of containers that already run
    :param latency: seconds between client and server
    :param server: ``stub`` (fast, checks nothing) or ``local`` (the local ECS)
    :param rate_limits: the server enforces AWS's default quotas
    :param duration: seconds that a container runs; None: for ever
    :param failing: share of the containers that exit 1, after output in CloudWatch Logs
    :param seconds: how long to watch, if the scenario has no end of its own
    :param tuning: options of ``[ecs_async_executor]``
    :param airflow: options of Airflow's, ``SECTION__NAME``
    :param schedulers: number of measuring processes at one server
    :param algorithm: algorithm that signs JWTs
    :param blocks: number of blocks of ``size`` launches by each of two that take turns in one process
    :param note: a special condition, for people
    :param repetition: number of this cell among equal ones
    :param service: ``ecs`` or ``batch``
    """

    scenario: str
    subject: str
    size: int
    running: int = 0
    latency: float = 0.05
    server: str = "stub"
    rate_limits: bool = False
    duration: float | None = None
    failing: float = 0.0
    seconds: float = 0.0
    tuning: dict[str, str] = field(default_factory=dict)
    schedulers: int = 1
    algorithm: str = "HS512"
    blocks: int = 0
    note: str = ""
    repetition: int = 0
    service: str = "ecs"
    airflow: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The cell's name, for people."""
        more = f" + {self.running:,} running" if self.running and self.size else ""
        size = self.size or self.running
        by = f" × {self.schedulers}" if self.schedulers > 1 else ""
        signed = "" if self.algorithm == "HS512" else f" {self.algorithm}"
        note = f", {self.note}" if self.note else ""
        note += f", {self.failing:.0%} fail" if self.failing else ""
        on = " on Batch" if self.service == "batch" else ""
        return f"{self.scenario}{on} {size:,}{more}{by}: {self.subject}{signed}{note}"

    def to_json(self) -> str:
        """Return the cell as JSON, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """Return the cell that :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """A cell and its figures; ``error`` says why there are none."""

    cell: Cell
    figures: Figures
    error: str | None = None
    series: Series = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
