"""
The quotas that AWS documents for what the executors do, and how AWS gives more.

From the Amazon ECS API Reference ("Request throttling for the Amazon ECS API"), the Amazon ECS Developer Guide
("AWS Fargate throttling quotas") and the AWS Batch User Guide ("AWS Batch service quotas"). They are the defaults
of an account in a Region; what AWS gives an account beyond them, no call tells. Imports ``core`` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ecs_async_executor.core.account import AccountQuota, is_about_vcpus, vcpus_in_words
from ecs_async_executor.core.quotas import Advice


@dataclass(frozen=True, slots=True)
class Published:
    """
    What AWS documents of a rate.

    :param call: the calls that it limits, for people
    :param per_second: None: nothing is published
    :param raised_by: how an account gets more, a clause; empty: it gets no more
    """

    call: str
    per_second: float | None
    raised_by: str = ""


_SUPPORT: Final = "AWS Support raises this quota on request"
_PUBLISHED: Final[Mapping[tuple[str, str, str], Published]] = {
    ("ECS", "launch", "FARGATE"): Published("RunTask on Fargate", 20.0, _SUPPORT),
    ("ECS", "launch", "EC2"): Published("RunTask on EC2", 40.0, _SUPPORT),
    ("ECS", "launch", "EXTERNAL"): Published("RunTask on external instances", 40.0, _SUPPORT),
    ("ECS", "stop", ""): Published("StopTask", 40.0, _SUPPORT),
    ("ECS", "read", ""): Published("DescribeTasks, ListTasks", 20.0, _SUPPORT),
    ("Batch", "stop", ""): Published("TerminateJob", None, _SUPPORT),
    ("Batch", "read", ""): Published("DescribeJobs, ListJobs", None, _SUPPORT),
}
_LAUNCHES: Final[Mapping[str, Published]] = {
    "ECS": Published("RunTask", 40.0, _SUPPORT),
    "Batch": Published("SubmitJob", 50.0),
}
CHANGES: Final[Mapping[str, Published]] = {"ECS": Published("RunTask and StopTask", 40.0, _SUPPORT)}
"""By service, the wider quota that launches and stops draw from together, where there is one."""


def published(service: str, operation: str, bucket: str) -> Published:
    """
    Return what AWS documents of a rate.

    :param service: ECS or Batch
    :param operation: launch, stop or read
    :param bucket: of launches
    """
    known = _PUBLISHED.get((service, operation, bucket))
    return _LAUNCHES[service] if known is None else known


# --- gates ------------------------------------------------------------------------------------------------------

VCPUS: Final = (
    ("Fargate On-Demand vCPU resource count", "L-3032A538"),
    ("Fargate Spot vCPU resource count", "L-36FBB829"),
)
"""On-Demand and Spot, by AWS's names and codes."""
_PROVISIONING: Final = re.compile(r"\bPROVISIONING\b")


def about_gate(
    subject: str, placement: str, reason: str, account: Sequence[AccountQuota], page: Callable[[str], str]
) -> Advice:
    """
    Return what it means that a placement has no capacity.

    :param subject: its name, for people
    :param placement: what is known of where it is
    :param account: what is known of the account's quotas
    :param page: returns the page where more of a quota is requested, by its code
    """
    said = reason.rstrip(".")
    if is_about_vcpus(reason):
        wanted = _vcpu_quotas_of(placement)
        names = " or ".join(f"{name} ({code})" for name, code in wanted)
        known = vcpus_in_words(account)
        return Advice(
            subject,
            said if not known or known in said else f"{said} ({known})",
            f"request more of {names}, or let other containers end",
            url=page(wanted[0][1]),
        )
    if _PROVISIONING.search(reason):
        return Advice(subject, said, "use more than one cluster: AWS limits what waits for a place in each")
    return Advice(
        subject, said, "this is no quota: add room, or name other placements (placements) to go to meanwhile"
    )


def _vcpu_quotas_of(placement: str) -> Sequence[tuple[str, str]]:
    """Return the quotas that a placement can be about: AWS does not say which."""
    on_demand, spot = VCPUS
    if "FARGATE_SPOT" not in placement:
        return (on_demand,)
    alone = "FARGATE" not in placement.replace("FARGATE_SPOT", "")
    return (spot,) if alone else (spot, on_demand)
