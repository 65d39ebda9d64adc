"""Auto Scaling groups behind capacity providers, and the workloads that run there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

GROUPS: Mapping[str, Mapping[str, Any]] = {
    **{
        f"asg-{number}": {"tasks_per_host": 5, "max_hosts": 10, "scale_out": 8.0, "patience": 120.0}
        for number in range(8)
    },
    "tight": {"hosts": 1, "tasks_per_host": 2, "max_hosts": 1, "patience": 1.5},
}
"""
Auto Scaling groups behind capacity providers. The numbered ones have no hosts until long after the first task
waits, and each has its part of the run. ``tight`` gives tasks up for want of room.
"""
GROUPED, TIGHT = 0.1, 0.02
"""Shares of the workloads that run in the numbered groups and in the tight one."""


def group_of(draw: random.Random, run: float) -> str | None:
    """
    Return the capacity provider of a workload, None for a workload on Fargate.

    :param run: the part of the run that the workload belongs to, from 0 to 1
    """
    drawn = draw.random()
    if drawn < TIGHT:
        return "tight"
    return f"asg-{int(run * 8)}" if drawn < TIGHT + GROUPED else None
