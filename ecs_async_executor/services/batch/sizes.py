"""
Sizes on Batch: what a launch asks for, as requirements of Airflow's container. Pure functions.

Imports ``core``, the settings, and ``fargate``, ``prices`` and ``sizes`` of the folder above. A request does not
say whether its job queue is on Fargate: only with ``round_up`` does a size become one of Fargate's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ecs_async_executor.core.sizes import VCPU, Size, WrongSize, cpu_in_words, cpu_units, in_words
from ecs_async_executor.services import fargate
from ecs_async_executor.services.prices import an_hour
from ecs_async_executor.services.sizes import (
    Layer,
    Place,
    Resolver,
    amount_of,
    problems_in,
    put_environment,
    put_requirement,
    requirement,
)
from ecs_async_executor.settings import CONTAINER_FORMS

REFUSED: Final = {
    "image": "SubmitJob cannot change it: register a job definition with that image, and name that in "
    "jobDefinition, for a queue or for the task",
    "disk": "SubmitJob cannot change it: register a job definition with ephemeralStorage or a volume, and name "
    "that in jobDefinition, for a queue or for the task",
}
"""The keys that Batch has no place for."""
LEAST_TIMEOUT: Final = 60
"""Seconds."""
_RESERVED: Final = "AWS_BATCH"
_SINGLE, _SEVERAL = CONTAINER_FORMS
_SMALL: Final = tuple(units for units in fargate.SIZES if units < VCPU)


def wrong_sizes(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each key of a size whose value cannot be used, whatever the rest of a request is."""
    yield from problems_in(parameters, REFUSED)


def put_sizes(request: dict[str, Any], container: dict[str, Any], layers: Sequence[Layer]) -> None:
    """
    Put what the layers of a request ask for into it.

    :param request: the merged request
    :param container: in it, the override of Airflow's container
    :raises Rejected: if Batch has no such size, or a layer contradicts itself
    """
    resolver = Resolver(layers)
    cpu, _ = resolver.amount("cpu", _CPU)
    memory, _ = resolver.amount("memory", _MEMORY)
    gpu, _ = resolver.amount("gpu", _GPU)
    timeout, _ = resolver.amount("timeout", _TIMEOUT)
    if cpu is not None or memory is not None:
        _put_size(container, cpu, memory, resolver)
    if gpu is not None:
        if gpu and resolver.round_up:
            resolver.problems.append(f"gpu = {gpu}: Fargate, whose sizes round_up asks for, has no GPUs")
        put_requirement(container, "GPU", str(gpu) if gpu else None)
    if timeout is not None:
        if timeout < LEAST_TIMEOUT:
            resolver.problems.append(
                f"command_timeout = {timeout} s: Batch takes at least {LEAST_TIMEOUT} s; "
                "for a shorter limit set execution_timeout of the Airflow task"
            )
        request["timeout"] = {"attemptDurationSeconds": timeout}
    variables = resolver.environment(lambda one: _container_in(one).get("environment"))
    resolver.problems += [
        f"environment: {name} begins with {_RESERVED}, which Batch keeps for itself; choose another name"
        for name in variables
        if name.startswith(_RESERVED)
    ]
    resolver.finish()
    put_environment(container, variables)


def _put_size(container: dict[str, Any], cpu: int | None, memory: int | None, resolver: Resolver) -> None:
    wanted = (
        amount_of(_CPU.read({_SINGLE: container})) if cpu is None else cpu,
        amount_of(_MEMORY.read({_SINGLE: container})) if memory is None else memory,
    )
    on_fargate = resolver.round_up or (wanted[0] is not None and wanted[0] <= _SMALL[-1])
    asked = fargate.as_asked(*wanted)
    if not on_fargate:
        fit: tuple[int | None, int | None] | None = (
            None if wanted[0] is None else math.ceil(wanted[0] / VCPU) * VCPU,
            wanted[1],
        )
    else:
        fit = fargate.fitting(*wanted)
    if fit is None:
        resolver.problems.append(
            f"{asked}: Fargate has at most {fargate.LARGEST}; ask for less, or leave round_up out"
        )
        return
    if fit != wanted and resolver.round_up is False:
        near = fargate.nearest(*wanted) if on_fargate else _whole(wanted)
        resolver.problems.append(
            f"{asked}: Batch has no such size; the nearest are {' and '.join(near)}, "
            "or leave round_up out to get the larger one"
        )
        return
    for kind, amount, old in (("VCPU", fit[0], "vcpus"), ("MEMORY", fit[1], "memory")):
        if amount is not None:
            container.pop(old, None)  # the older form of the same
            put_requirement(container, kind, f"{amount / VCPU:g}" if kind == "VCPU" else str(amount))


def _whole(wanted: tuple[int | None, int | None]) -> list[str]:
    cpu = wanted[0] or 0
    return [cpu_in_words(units) for units in (cpu // VCPU * VCPU, math.ceil(cpu / VCPU) * VCPU)]


# --- where a layer has it -----------------------------------------------------------------------------------


def _container_in(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the override of the container that runs Airflow's command: the only one, or the first of several."""
    single = parameters.get(_SINGLE)
    if isinstance(single, Mapping):
        return single
    found: object = parameters.get(_SEVERAL)
    for key in ("taskProperties", "containers"):
        members = found.get(key) if isinstance(found, Mapping) else None
        found = members[0] if isinstance(members, list | tuple) and members else None
    return found if isinstance(found, Mapping) else {}


def _place(kind: str, old: str | None) -> Place:
    def read(parameters: Mapping[str, Any]) -> object:
        container = _container_in(parameters)
        value = requirement(container, kind)
        if value is None and old is not None:
            value = container.get(old)
        return _units(value) if kind == "VCPU" and value is not None else value

    return Place(f"the {kind} in resourceRequirements", read)


def _units(vcpus: object) -> int | None:
    """Return the CPU units that a number of vCPUs in Batch's API stands for."""
    try:
        return cpu_units(f"{vcpus} vCPU")
    except WrongSize:
        return None


def _timeout_in(parameters: Mapping[str, Any]) -> object:
    timeout = parameters.get("timeout")
    return timeout.get("attemptDurationSeconds") if isinstance(timeout, Mapping) else None


_CPU: Final = _place("VCPU", "vcpus")
_MEMORY: Final = _place("MEMORY", "memory")
_GPU: Final = _place("GPU", None)
_TIMEOUT: Final = Place("timeout.attemptDurationSeconds", _timeout_in)


# --- the size of a request ----------------------------------------------------------------------------------


def size_of(request: Mapping[str, Any]) -> Size:
    """Return the size that a request gives Airflow's container."""
    container = _container_in(request)
    cpu = requirement(container, "VCPU") or container.get("vcpus")
    memory = requirement(container, "MEMORY") or container.get("memory")
    return Size(None if cpu is None else _units(cpu), amount_of(memory), amount_of(requirement(container, "GPU")))


def about_size(request: Mapping[str, Any], region: str | None) -> list[str]:
    """Return lines for people about the size that a request asks for, and what it costs if Fargate runs it."""
    size = size_of(request)
    if size == Size():
        return ["Size: that of the job definition."]
    rest = "" if size.cpu and size.memory else "; the job definition decides the rest"
    lines = [f"Size of the container: {in_words(size)}{rest}."]
    if not rest and not size.gpu and fargate.is_valid(size.cpu, size.memory):
        lines.append(f"If the job queue is on Fargate: {an_hour(size, region)}")
    return lines
