"""
How big tasks and jobs are: the sizes that Fargate has, and what AWS says of those that it has not.

Imports :mod:`errors` only. The words are AWS's, from public reports. Not known are those for a GPU on Fargate, nor
those for a container with more CPU than any host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecs_async_executor.local.errors import AwsError

GIB = 1024
FARGATE: Mapping[int, Sequence[int]] = {
    256: (512, 1 * GIB, 2 * GIB),
    512: range(1 * GIB, 4 * GIB + 1, GIB),
    1024: range(2 * GIB, 8 * GIB + 1, GIB),
    2048: range(4 * GIB, 16 * GIB + 1, GIB),
    4096: range(8 * GIB, 30 * GIB + 1, GIB),
    8192: range(16 * GIB, 60 * GIB + 1, 4 * GIB),
    16384: range(32 * GIB, 120 * GIB + 1, 8 * GIB),
    32768: (60 * GIB, 120 * GIB, 244 * GIB),
}
"""The MiB of memory that a task on Fargate can have, by its CPU units."""
DISK, MIN_DISK, MAX_DISK = 20, 21, 200
"""GiB of ephemeral storage: what a task on Fargate has, and the bounds of what it can ask for."""
MAX_CPU = 196_608
"""CPU units of the largest container instance."""

_AMOUNT = re.compile(r"(\d+|\d*\.\d+) *(vcpu|gb)?", re.IGNORECASE)
_NUMBER = re.compile(r"[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Size:
    """
    What a task asks for; 0 for what nobody says.

    :param cpu: in CPU units
    :param memory: in MiB
    :param disk: in GiB
    """

    cpu: int = 0
    memory: int = 0
    gpu: int = 0
    disk: int = 0


def amount(value: Any) -> int:
    """
    Return the CPU units or the MiB that a text stands for, such as ``1024``, ``1 vCPU``, ``2 GB``.

    What is no amount is 0: clients are tested with sizes that are mere words.
    """
    found = _AMOUNT.fullmatch(str(value or ""))
    if found is None:
        return 0
    return int(float(found[1]) * (1024 if found[2] else 1))


def gpus(*requirements: Iterable[Mapping[str, Any]] | None) -> int:
    """Return how many GPUs a container has: the last of these that names any decides."""
    named = [amount(one["value"]) for some in requirements for one in some or () if one.get("type") == "GPU"]
    return named[-1] if named else 0


def smaller(*limits: int | None) -> int | None:
    """Return the limit that is reached first, None if there is none."""
    return min((limit for limit in limits if limit), default=None)


def check_task(size: Size, containers: Mapping[str, Size], *, fargate: bool, code: str) -> None:
    """
    Check the size of a task.

    :param containers: what those of its containers ask for that say so
    :param code: of the error for a size that Fargate does not have; RunTask's is not RegisterTaskDefinition's
    :raises AwsError: if AWS would refuse it
    """
    if fargate:
        _check_fargate(size, code)
    elif size.cpu > MAX_CPU:
        raise AwsError("ClientException", "Invalid 'cpu' setting for task.")
    for name, own in containers.items():
        if size.memory and own.memory > size.memory:
            raise AwsError(code, f"The 'memory' setting for container '{name}' is greater than for the task.")
        if not size.cpu and own.cpu > MAX_CPU:
            raise AwsError("ClientException", f"Invalid 'cpu' setting for container '{name}'.")
    if size.cpu and sum(own.cpu for own in containers.values()) > size.cpu:
        raise AwsError(
            code, "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."
        )


def container_size(*sources: Mapping[str, Any]) -> Size:
    """Return what a container asks for; of several sources the first that says an amount decides."""
    cpu, memory = (next((one[name] for one in sources if one.get(name)), 0) for name in ("cpu", "memory"))
    return Size(cpu=amount(cpu), memory=amount(memory))


def _check_fargate(size: Size, code: str) -> None:
    known = {memory for memories in FARGATE.values() for memory in memories}
    memories = FARGATE.get(size.cpu, ()) if size.cpu else known
    if (size.cpu and not memories) or (size.memory and size.memory not in memories):
        raise AwsError(
            code,
            f"No Fargate configuration exists for given values: {size.cpu} CPU, {size.memory} memory. "
            "See the Amazon ECS documentation for the valid values.",
        )
    if size.disk and size.disk < MIN_DISK:
        raise AwsError(code, f"EphemeralStorage size should be at least {MIN_DISK}")
    if size.disk > MAX_DISK:
        raise AwsError(code, f"EphemeralStorage size should be at most {MAX_DISK}")
    if size.gpu:
        raise AwsError(code, "Tasks using the Fargate launch type do not support GPU resource requirements.")


def check_job(requirements: Mapping[str, str], *, fargate: bool) -> None:
    """
    Check the ``resourceRequirements`` of a job, by type.

    :raises AwsError: if AWS would refuse it
    """
    if not fargate:
        for name, value in requirements.items():
            if not _NUMBER.fullmatch(value):
                raise AwsError(
                    "ClientException",
                    f"Error executing request, Exception : Value {value} for type {name} in resourceRequirement "
                    "is not valid. Please provide a numeric value.",
                )
        return
    if "GPU" in requirements:
        raise AwsError("ClientException", "GPU resource requirement is not supported for Fargate jobs.")
    cpu, memory = requirements.get("VCPU", ""), amount(requirements.get("MEMORY"))
    try:
        vcpus = float(cpu)
    except ValueError:
        vcpus = 0.0
    if memory not in FARGATE.get(round(vcpus * 1024), ()):
        raise AwsError(
            "ClientException", f"Fargate resource requirements ({vcpus:.2f} vCPU, {memory} MiB) not valid."
        )
