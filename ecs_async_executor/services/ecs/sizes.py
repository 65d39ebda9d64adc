"""
Sizes on ECS: what a launch asks for, put where its launch type wants it. Pure functions.

Imports ``core``, and ``fargate``, ``prices`` and ``sizes`` of the folder above.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.sizes import Size, in_words, memory_in_words
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

REFUSED: Final = {
    "image": "RunTask cannot change it: register a task definition with that image, and name that in "
    "taskDefinition, for a queue or for the task",
    "command_timeout": "RunTask has no time limit: set execution_timeout of the Airflow task",
}
"""The keys that ECS has no place for."""


class Part(enum.Enum):
    """What has the size of a launch."""

    FARGATE = "the task, on Fargate, or where that is not known: a size of Fargate's"
    TASK = "the task, on instances: its definition has a size, which no container may exceed"
    CONTAINER = "Airflow's container, on instances"
    BOTH = "both, on instances: whether the definition has a size for the task is not known"


_NO_SUCH_SIZE: Final = "No Fargate configuration exists for given values"


def wrong_sizes(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each key of a size whose value cannot be used, whatever the rest of a request is."""
    yield from problems_in(parameters, REFUSED)


def size_refusal(error: BackendError, request: Mapping[str, Any]) -> BackendError:
    """Return ECS's refusal of a request, with the way out if half of its size comes from the task definition."""
    overrides = _overrides_in(request)
    given = [key for key in ("cpu", "memory") if overrides.get(key) is not None]
    if len(given) != 1 or _NO_SUCH_SIZE not in error.message:
        return error
    other = "memory" if given == ["cpu"] else "cpu"
    words = (
        f"{error.message.rstrip('.')}: the task definition's {other} does not go with {given[0]} = "
        f"{overrides[given[0]]}; ask for {other} too"
    )
    return BackendError(error.kind, error.code, words, token_used=error.token_used)


def put_sizes(request: dict[str, Any], container: dict[str, Any], layers: Sequence[Layer], part: Part) -> None:
    """
    Put what the layers of a request ask for into it.

    :param request: the merged request
    :param container: in it, the override of Airflow's container
    :param part: what has the size
    :raises Rejected: if the launch type has no such size, or a layer contradicts itself
    """
    resolver = Resolver(layers)
    name = container["name"]
    if part is Part.FARGATE:
        _on_fargate(request, container, resolver)
    else:
        _on_instances(request, container, resolver, part)
    variables = resolver.environment(lambda one: _container_in(one, name).get("environment"))
    resolver.finish()
    put_environment(container, variables)


def _on_fargate(request: dict[str, Any], container: dict[str, Any], resolver: Resolver) -> None:
    overrides: dict[str, Any] = request["overrides"]
    cpu, _ = resolver.amount("cpu", _of_task("cpu"))
    memory, layer = resolver.amount("memory", _of_task("memory"))
    gpu, _ = resolver.amount("gpu", _requirement_of(container["name"], "GPU"))
    disk, _ = resolver.amount("disk", _DISK)
    if gpu:
        resolver.problems.append(
            f"gpu = {gpu}: Fargate has no GPUs; use the launch type EC2, or a capacity provider of GPU instances"
        )
    elif gpu is not None:
        put_requirement(container, "GPU", None)
    if cpu is not None or memory is not None:
        whole = (
            amount_of(overrides.get("cpu")) if cpu is None else cpu,
            amount_of(overrides.get("memory")) if memory is None else memory,
        )
        _put_size(overrides, whole, resolver)
    if memory is not None and resolver.is_below(_of_container(container["name"], "memory"), memory, layer):
        container["memory"] = memory
    if disk is not None:
        _put_disk(overrides, disk, resolver)


def _put_size(overrides: dict[str, Any], wanted: tuple[int | None, int | None], resolver: Resolver) -> None:
    asked = fargate.as_asked(*wanted)
    fit = fargate.fitting(*wanted)
    if fit is None:
        resolver.problems.append(
            f"{asked}: Fargate has at most {fargate.LARGEST}; ask for less, or use the launch type EC2"
        )
    elif fit != wanted and resolver.round_up is False:
        near = " and ".join(fargate.nearest(*wanted))
        resolver.problems.append(
            f"{asked}: Fargate has no such size; the nearest are {near}, "
            "or leave round_up out to get the larger one"
        )
    else:
        for key, amount in zip(("cpu", "memory"), fit, strict=True):
            if amount is not None:
                overrides[key] = str(amount)


def _put_disk(overrides: dict[str, Any], disk: int, resolver: Resolver) -> None:
    least, most = fargate.DISK[0], fargate.DISK[-1]
    if disk > most:
        resolver.problems.append(
            f"disk = {disk} GB: Fargate has at most {most} GB; ask for less, or add an EBS volume with "
            "volumeConfigurations"
        )
    elif disk < least and resolver.round_up is False:
        resolver.problems.append(
            f"disk = {disk} GB: the least is {least} GB; write that, or leave disk out to have 20 GB"
        )
    else:
        overrides["ephemeralStorage"] = {"sizeInGiB": max(least, disk)}


def _on_instances(request: dict[str, Any], container: dict[str, Any], resolver: Resolver, part: Part) -> None:
    name, overrides = container["name"], request["overrides"]
    for key in ("cpu", "memory"):
        of_task, of_container = _of_task(key), _of_container(name, key)
        has_it, limits_it = (of_task, of_container) if part is Part.TASK else (of_container, of_task)
        amount, layer = resolver.amount(key, has_it)
        if amount is None:
            continue
        too_small = resolver.is_below(limits_it, amount, layer)
        if part is not Part.CONTAINER or too_small:
            overrides[key] = str(amount)
        if part is not Part.TASK or (too_small and key == "memory"):
            container[key] = amount
            if key == "memory" and (amount_of(container.get("memoryReservation")) or 0) >= amount:
                del container["memoryReservation"]  # ECS wants less to be reserved than there is
    gpu, _ = resolver.amount("gpu", _requirement_of(name, "GPU"))
    if gpu is not None:
        put_requirement(container, "GPU", str(gpu) if gpu else None)
    disk, _ = resolver.amount("disk", _DISK)
    if disk is not None:
        resolver.problems.append(
            f"disk = {disk} GB: only Fargate takes it from a request; elsewhere a container has the disk of its "
            "instance, or a volume of its task definition"
        )


# --- where a layer has it -----------------------------------------------------------------------------------


def _of_task(key: str) -> Place:
    return Place(f"overrides.{key}", lambda parameters: _overrides_in(parameters).get(key))


def _of_container(name: str, key: str) -> Place:
    return Place(f"{key} of container {name!r}", lambda parameters: _container_in(parameters, name).get(key))


def _requirement_of(name: str, kind: str) -> Place:
    place = f"resourceRequirements of container {name!r}"
    return Place(place, lambda parameters: requirement(_container_in(parameters, name), kind))


def _overrides_in(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    overrides = parameters.get("overrides")
    return overrides if isinstance(overrides, Mapping) else {}


def _container_in(parameters: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    containers = _overrides_in(parameters).get("containerOverrides")
    for one in containers if isinstance(containers, list | tuple) else ():
        if isinstance(one, Mapping) and one.get("name") == name:
            return one
    return {}


def _disk_in(parameters: Mapping[str, Any]) -> object:
    storage = _overrides_in(parameters).get("ephemeralStorage")
    return storage.get("sizeInGiB") if isinstance(storage, Mapping) else None


_DISK: Final = Place("overrides.ephemeralStorage", _disk_in)


# --- the size of a request ----------------------------------------------------------------------------------


def size_of(request: Mapping[str, Any], container_name: str) -> tuple[Size, Size]:
    """Return the size that a request gives its task, and the one that it gives Airflow's container."""
    overrides, container = _overrides_in(request), _container_in(request, container_name)
    disk, gpu = amount_of(_disk_in(request)), amount_of(requirement(container, "GPU"))
    task = Size(amount_of(overrides.get("cpu")), amount_of(overrides.get("memory")), None, disk)
    return task, Size(amount_of(container.get("cpu")), amount_of(container.get("memory")), gpu)


def limit_in_the_way(
    definition: Mapping[str, Any], requests: Iterable[Mapping[str, Any]]
) -> tuple[str, str] | None:
    """
    Return what a limit in a container's definition does to requests that give their task more, and the way out.

    :param definition: of Airflow's container
    """
    limit = amount_of(definition.get("memory"))
    if limit is None:
        return None
    sizes = (size_of(one, str(definition.get("name"))) for one in requests)
    most = max((task.memory or 0 for task, own in sizes if own.memory is None), default=0)
    if most <= limit:
        return None
    words = (
        f"it limits the container to {memory_in_words(limit)}, and a task of {memory_in_words(most)} uses no more"
    )
    return words, "remove memory from the container's definition: the size of the task is limit enough"


def lines_about_size(
    request: Mapping[str, Any], container_name: str, region: str | None, *, on_fargate: bool, spot: bool
) -> list[str]:
    """
    Return lines for people about the size that a request asks for, and what it costs.

    :param on_fargate: whether the request is for Fargate, or may become so
    :param spot: it may run on Fargate Spot
    """
    task, own = size_of(request, container_name)
    lines = []
    if task != Size():
        rest = "" if task.cpu and task.memory else "; the task definition decides the rest"
        lines.append(f"Size of the task: {in_words(task)}{rest}.")
    if own != Size():
        lines.append(f"Size of container {container_name!r}: {in_words(own)}.")
    if not lines:
        return ["Size: that of the task definition."]
    if not on_fargate:
        return [*lines, "A container instance runs it: it has no price of its own."]
    price = an_hour(task, region, spot=spot) or "No price: the task definition decides a part of the size."
    return [*lines, price]
