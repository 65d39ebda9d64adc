"""
Requests to ECS: RunTask's parameters, from the settings to the finished spec. Pure functions.

Imports ``core``, the settings, ``sizes`` beside it, and ``parameters``, ``requests``, ``sizes`` and ``templates``
of the folder above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services import parameters as sdk
from ecs_async_executor.services.ecs.sizes import REFUSED, Part, lines_about_size, put_sizes, wrong_sizes
from ecs_async_executor.services.requests import (
    TAGS_LIMIT,
    checked_parameters,
    layers_in,
    merge,
    overlaid,
    placement_name,
    put_command,
    sealed,
    type_name,
)
from ecs_async_executor.services.sizes import are_sized, layers_of, without_sizes
from ecs_async_executor.services.templates import Template
from ecs_async_executor.settings import EcsSettings
from ecs_async_executor.settings.values import INSTEAD_OF_MANAGED_INSTANCES, MANAGED_INSTANCES

DEFAULT_CLUSTER: Final = "default"
FARGATE_PROVIDERS: Final = frozenset({"FARGATE", "FARGATE_SPOT"})

_OPERATION: Final = ("ecs", "RunTask")
_REPEATABLE: Final = (
    "clientToken must not be set: the executor sets it, to repeat a launch without starting a second container"
)
_LONG_ARN_PARTS: Final = 3
_WHAT_RUNS_WHERE: Final = ("taskDefinition", "launchType", "capacityProviderStrategy")
_EXCLUSIVE: Final = "launchType and capacityProviderStrategy are mutually exclusive"
_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{1,128}")

# --- what all workloads share -------------------------------------------------------------------------------


def base_request(settings: EcsSettings) -> dict[str, Any]:
    """
    Return the parameters that all workloads share, as the provider's executor does from the same options.

    Without launch type and capacity provider strategy the result has neither: the cluster's default applies, and
    :class:`~ecs_async_executor.services.ecs.EcsBackend` adds it.
    """
    request: dict[str, Any] = {"cluster": settings.cluster, "count": 1}
    if settings.task_definition:
        request["taskDefinition"] = settings.task_definition
    if settings.launch_type:
        request["launchType"] = settings.launch_type
    if settings.capacity_provider_strategy:
        request["capacityProviderStrategy"] = list(settings.capacity_provider_strategy)
    request["platformVersion"] = settings.platform_version
    if settings.subnets or settings.security_groups or settings.assign_public_ip:
        request["networkConfiguration"] = {"awsvpcConfiguration": _network(settings)}
    request = _overlay(request, {**settings.run_task_kwargs, "count": 1})
    overrides = request.setdefault("overrides", {})
    if not overrides.get("containerOverrides"):
        overrides["containerOverrides"] = [{}]
    containers: list[dict[str, Any]] = overrides["containerOverrides"]
    # The provider takes the first container for Airflow's, whatever its name, and configurations rely on that. But
    # where one already has the right name, renaming the first would address it twice.
    named = [container for container in containers if container.get("name") == settings.container_name]
    container = named[0] if named else containers[0]
    container["name"] = settings.container_name
    container["command"] = []
    return sdk.with_numbers_as_text(*_OPERATION, request)


def _network(settings: EcsSettings) -> dict[str, Any]:
    network: dict[str, Any] = {}
    if settings.subnets:
        network["subnets"] = list(settings.subnets)
    if settings.security_groups:
        network["securityGroups"] = list(settings.security_groups)
    if settings.launch_type != "EC2":  # which does not take it
        network["assignPublicIp"] = "ENABLED" if settings.assign_public_ip else "DISABLED"
    return network


def wrong_parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each parameter that cannot be used, or that the SDK or ECS would refuse."""
    yield from wrong_sizes(parameters)
    sent = {
        key: value for key, value in without_sizes(parameters).items() if key != "startedBy" or value is not None
    }
    yield from sdk.wrong_parameters(*_OPERATION, _with_tags(sent))
    if sent.get("launchType") == MANAGED_INSTANCES:
        yield INSTEAD_OF_MANAGED_INSTANCES


def _overlay(request: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, and keep the parameters consistent that exclude or need each other."""
    base = dict(request)
    if "launchType" in overrides:
        base.pop("capacityProviderStrategy", None)
    if "capacityProviderStrategy" in overrides:
        base.pop("launchType", None)
    result = merge(base, _with_tags(overrides))
    if not _takes_platform_version(result):
        result.pop("platformVersion", None)
    return result


def _with_tags(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(tags := overrides.get("tags"), Mapping):
        return {**overrides, "tags": _tag_list(tags)}
    return overrides


def _tag_list(tags: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn ``{"team": "data"}`` into the API's form; ``{"key": "team", "value": "data"}`` is one tag."""
    if tags.keys() == {"key", "value"}:
        return [dict(tags)]
    return [{"key": key, "value": value} for key, value in tags.items()]


def providers_in(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in a request's capacity provider strategy."""
    strategy = request.get("capacityProviderStrategy")
    if not isinstance(strategy, (list, tuple)):
        return ()
    return tuple(
        str(item.get("capacityProvider")) if isinstance(item, Mapping) else str(item) for item in strategy
    )


def _takes_platform_version(request: Mapping[str, Any]) -> bool:
    """Return whether the request is for Fargate, or may become one: only Fargate has platform versions."""
    if (launch_type := request.get("launchType")) is not None:
        return bool(launch_type == "FARGATE")
    return FARGATE_PROVIDERS.issuperset(providers_in(request))


def about_size(request: Mapping[str, Any], container_name: str, region: str | None) -> list[str]:
    """Return lines for people about the size that a request asks for, and what it costs an hour."""
    on_fargate, spot = _takes_platform_version(request), "FARGATE_SPOT" in providers_in(request)
    return lines_about_size(request, container_name, region, on_fargate=on_fargate, spot=spot)


def _sized_part(request: Mapping[str, Any], layers: Iterable[Mapping[str, Any]]) -> Part:
    """Return what has the size of a launch, by its request and the layers that it is made of."""
    if _takes_platform_version(request):
        return Part.FARGATE
    part, made = Part.CONTAINER, dict[str, Any]()
    for one in layers:
        made = _overlay(made, {key: one[key] for key in _WHAT_RUNS_WHERE if key in one})
        if made.get("taskDefinition") == request.get("taskDefinition") and _takes_platform_version(made):
            # Tasks of this definition run on Fargate, or perhaps do.
            if made.keys() & {"launchType", "capacityProviderStrategy"}:
                return Part.TASK
            part = Part.BOTH
    return part


def cluster_of(task_arn: str | None, default: str) -> str:
    """
    Return the cluster of a task, or, for None, the default.

    ARNs name the cluster (``...:task/<cluster>/<id>``), except in their form from before 2018. If the ARN and the
    default mean the same cluster, the result is the default as it is written: one request then describes all of
    its tasks.
    """
    parts = (task_arn or "").rpartition(":")[2].split("/")
    if len(parts) != _LONG_ARN_PARTS or parts[1] == default.rpartition("/")[2]:
        return default
    return parts[1]


# --- one workload -------------------------------------------------------------------------------------------


def container_for(request: Mapping[str, Any], container_name: str) -> dict[str, Any]:
    """
    Return the override of the Airflow container in a request.

    :raises Rejected: if the request has none, or its overrides do not have the API's form
    """
    overrides = request.get("overrides")
    if not isinstance(overrides, Mapping):
        raise Rejected(f"overrides must be a dictionary, not {type_name(overrides)}")
    containers = overrides.get("containerOverrides")
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise Rejected("overrides.containerOverrides must be a list of dictionaries")
    for container in containers:
        if "name" not in container:
            raise Rejected('container "name" must be provided in each of overrides.containerOverrides')
        if container["name"] == container_name:
            found: dict[str, Any] = container
            return found
    raise Rejected(f"overrides.containerOverrides has no container named {container_name!r}")


def workload_request(
    base: Mapping[str, Any],
    queue_overrides: Mapping[str, Any] | None,
    executor_config: Any,
    container_name: str,
    command: Sequence[str],
    executors: str | None = None,
) -> dict[str, Any]:
    """
    Return the parameters of one workload's request.

    :param base: the parameters that all workloads share; see :func:`base_request`
    :param queue_overrides: the changes of the workload's queue
    :param executor_config: the changes of the workload itself, as the DAG's author wrote them
    :param command: the Airflow container's
    :param executors: the executors that tasks can name, if Airflow in the container has to be told
    :raises Rejected: if the executor_config cannot be used; the reason holds none of its values but sizes
    """
    changes = checked_parameters(executor_config, "RunTask")
    if "name" in changes or "command" in changes:
        raise Rejected('executor_config must never override "name" or "command"')
    if "clientToken" in changes:
        raise Rejected(f"executor_config: {_REPEATABLE}")
    for one in (own := layers_in(changes)):
        if "launchType" in one and "capacityProviderStrategy" in one:
            raise Rejected(f"executor_config: {_EXCLUSIVE}")
    layers: Sequence[Mapping[str, Any]] = (base, queue_overrides or {}, *own)
    sized = layers_of(layers, REFUSED) if are_sized(layers) else ()
    request = overlaid([one.parameters for one in sized] if sized else layers, _overlay)
    _check_count(request)
    container = container_for(request, container_name)
    if sized:
        put_sizes(request, container, sized, _sized_part(request, (one.parameters for one in sized)))
    put_command(container, command, f"container {container_name!r}", executors)
    return request


def launch_spec(
    request: Mapping[str, Any],
    *,
    started_by: str,
    expires_at: float | None = None,
    tags: Mapping[str, str] | None = None,
    handed_over: str | None = None,
    added: str = "",
) -> LaunchSpec:
    """
    Check a finished request, mark it, and return it with the names of the limits that it falls under.

    :param started_by: our mark; a mark that the request already has stays, and the task cannot be searched by it
    :param expires_at: wall-clock seconds after which the container could not use its command any more
    :param tags: added to the request's own, which win, as far as there is room
    :param handed_over: see :class:`~ecs_async_executor.core.backend.LaunchSpec`
    :param added: what the overrides get before they are sent
    :raises Rejected: if ECS would certainly refuse the request
    """
    _check_count(request)
    if "clientToken" in request:
        raise Rejected(_REPEATABLE)
    if not request.get("taskDefinition"):
        raise Rejected(
            "no task definition: set [aws_ecs_executor] task_definition, or taskDefinition in executor_config"
        )
    if request.get("launchType") and request.get("capacityProviderStrategy"):
        raise Rejected(_EXCLUSIVE)
    if request.get("launchType") == MANAGED_INSTANCES:
        raise Rejected(INSTEAD_OF_MANAGED_INSTANCES)
    whole = sealed(sdk.with_numbers_as_text(*_OPERATION, dict(request)), "overrides", added)
    if tags:
        whole["tags"] = _tagged(whole.get("tags"), tags)
    mark: str | None = None
    if whole.get("startedBy") is None:
        mark = whole["startedBy"] = started_by
    if not isinstance(whole["startedBy"], str) or not _STARTED_BY.fullmatch(whole["startedBy"]):
        raise Rejected("startedBy must have 1 to 128 letters, digits, hyphens, underscores or slashes")
    return LaunchSpec(
        request=whole,
        scope=str(whole.get("cluster") or DEFAULT_CLUSTER),
        placement=_placement(whole),
        bucket=_bucket(whole),
        started_by=mark,
        expires_at=expires_at,
        handed_over=handed_over,
    )


class EcsTemplate:
    """
    A request that becomes those of many launches, by their commands and marks.

    :param spec: see :class:`~ecs_async_executor.services.templates.Template`; without a launch's own tags
    """

    def __init__(self, spec: LaunchSpec) -> None:
        self._template = Template(spec, _OPERATION, overrides="overrides", more={"clientToken": "a"})

    def spec_for(
        self, command: Sequence[str], launch: Launch, expires_at: float | None, tags: Mapping[str, str]
    ) -> LaunchSpec | None:
        """
        Return what :func:`launch_spec` does for a launch; None if it would refuse it.

        :param expires_at: likewise
        :param tags: likewise
        """
        spec, request = self._template.spec, self._template.request(command)
        if request is None or not _STARTED_BY.fullmatch(launch.started_by):
            return None
        if tags:
            request["tags"] = _tagged(request.get("tags"), tags)
        mark = spec.started_by
        if mark is not None:
            mark = request["startedBy"] = launch.started_by
        return replace(spec, request=request, started_by=mark, expires_at=expires_at)


def _tagged(own: Any, tags: Mapping[str, str]) -> Any:
    """Add tags to a request's own; leave what is no list of tags for the SDK to refuse."""
    own = [] if own is None else _with_tags({"tags": own})["tags"]
    if not isinstance(own, list) or not all(isinstance(tag, Mapping) for tag in own):
        return own
    names = {tag.get("key") for tag in own}
    more = [{"key": key, "value": value} for key, value in tags.items() if key not in names]
    return [*own, *more[: max(0, TAGS_LIMIT - len(own))]]


def _check_count(request: Mapping[str, Any]) -> None:
    count = request.get("count", 1)
    if isinstance(count, bool) or count != 1:
        raise Rejected("count must be 1: one workload is one container")


def _bucket(request: Mapping[str, Any]) -> str:
    """Return the rate limit that AWS counts the request in; without a kind of capacity it counts as Fargate."""
    providers = frozenset(providers_in(request))
    if not providers:
        return str(request.get("launchType") or "FARGATE")
    return "FARGATE" if providers <= FARGATE_PROVIDERS else "EC2"


def _placement(request: Mapping[str, Any]) -> str:
    """Return the name of the capacity that the request competes for."""
    overrides = request.get("overrides") or {}
    parts = {
        "cluster": request.get("cluster") or DEFAULT_CLUSTER,
        "capacity": "+".join(providers_in(request)) or request.get("launchType") or "default",
        "task": request.get("taskDefinition"),
        "constraints": request.get("placementConstraints"),
        "cpu": overrides.get("cpu"),
        "memory": overrides.get("memory"),
        # Roles and network are not capacity, but a role can be refused and a subnet be full: that must not close
        # the gate of the requests that name others.
        "taskRole": overrides.get("taskRoleArn"),
        "executionRole": overrides.get("executionRoleArn"),
        "network": request.get("networkConfiguration"),
    }
    for container in overrides.get("containerOverrides") or ():
        for key in ("cpu", "memory", "memoryReservation", "resourceRequirements"):
            if key in container:
                parts[f"{container.get('name')}.{key}"] = container[key]
    return placement_name(parts)
