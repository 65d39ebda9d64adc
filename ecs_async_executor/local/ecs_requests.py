"""
What a RunTask and its task definition make of each other: containers, with the overrides applied.

Pure functions over request parameters; may import moto's types, :mod:`life` and :mod:`sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moto.ecs.models import TaskDefinition

from ecs_async_executor.local.life import Container, Fetched
from ecs_async_executor.local.sizes import Size, amount, check_task, container_size, gpus, smaller


def container_of(
    definition: Mapping[str, Any],
    override: Mapping[str, Any],
    size: Size,
    reader: Callable[[Sequence[str]], Callable[[], Fetched] | None] = lambda _: None,
) -> Container:
    """
    Make a container of its definition and what the request overrides.

    :param size: of the task: a container can have no more than that
    :param reader: returns what reads environment files, by their ARNs; those of a request replace the definition's
    """
    command = override.get("command") or definition.get("command") or []
    environment = {
        pair["name"]: pair.get("value", "")
        for source in (definition, override)
        for pair in source.get("environment") or ()
    }
    files = override.get("environmentFiles") or definition.get("environmentFiles") or ()
    timeout = definition.get("stopTimeout")
    return Container(
        name=definition["name"],
        command=(*(definition.get("entryPoint") or ()), *command),
        environment=environment,
        essential=definition.get("essential", True),
        directory=definition.get("workingDirectory"),
        stop_timeout=float(timeout) if timeout is not None else None,
        image=definition.get("image", ""),
        memory=smaller(amount(override.get("memory") or definition.get("memory")), size.memory),
        fetch=reader([str(one["value"]) for one in files]),
    )


def size_of(params: Mapping[str, Any], definition: TaskDefinition, *, fargate: bool) -> Size:
    """
    Return what a task asks for.

    :raises AwsError: if AWS has nothing like it
    """
    overrides = params.get("overrides") or {}
    by_name = overrides_of(params)
    disk = overrides.get("ephemeralStorage") or definition.ephemeral_storage or {}
    containers: Sequence[Mapping[str, Any]] = definition.container_definitions
    size = Size(
        cpu=amount(overrides.get("cpu") or definition.cpu),
        memory=amount(overrides.get("memory") or definition.memory),
        gpu=sum(
            gpus(one.get("resourceRequirements"), by_name.get(one["name"], {}).get("resourceRequirements"))
            for one in containers
        ),
        disk=int(disk.get("sizeInGiB") or 0),
    )
    sizes = {str(one["name"]): container_size(by_name.get(one["name"], {}), one) for one in containers}
    check_task(size, sizes, fargate=fargate, code="InvalidParameterException")
    return size


def overrides_of(params: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return what a request overrides, by the name of the container."""
    overrides = params.get("overrides") or {}
    return {one["name"]: one for one in overrides.get("containerOverrides") or ()}


def amounts_of(definition: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, str]:
    """Return the size of a container as DescribeTasks shows it: ``cpu`` always, the rest if somebody says it."""
    found = {name: override.get(name) or definition.get(name) for name in ("memory", "memoryReservation")}
    cpu = override.get("cpu") or definition.get("cpu") or 0
    return {"cpu": str(cpu), **{name: str(value) for name, value in found.items() if value}}


def main_of(containers: Sequence[Container], overrides: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the container that does the work: whose command was given, else the first essential one."""
    for container in containers:
        if overrides.get(container.name, {}).get("command"):
            return container.name
    return next((c.name for c in containers if c.essential), containers[0].name)
