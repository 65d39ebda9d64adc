"""
Requests to Batch: SubmitJob's parameters, from the settings to the finished spec. Pure functions.

Imports ``core``, the settings, ``names`` and ``sizes`` beside it, and ``parameters``, ``requests``, ``sizes`` and
``templates`` of the folder above.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services import parameters as sdk
from ecs_async_executor.services.batch.names import name_prefix, own_prefix
from ecs_async_executor.services.batch.sizes import REFUSED, put_sizes, wrong_sizes
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
from ecs_async_executor.settings import CONTAINER_FORMS, JOB_NAME, MORE_THAN_A_CONTAINER, BatchSettings

ONE_ATTEMPT: Final = {"attempts": 1}
"""
The retry strategy of a request that names none, instead of the job definition's.

Batch's own retries start the container again within one try of Airflow's, and Airflow refuses to run a task there
a second time: such a retry only delays the news of the failure and hides its reason.
"""

_OPERATION: Final = ("batch", "SubmitJob")
_BUCKET: Final = "SubmitJob"
_SINGLE, _SEVERAL = CONTAINER_FORMS

# --- what all workloads share -------------------------------------------------------------------------------


def base_request(settings: BatchSettings) -> dict[str, Any]:
    """Return the parameters that all workloads share, as the provider's executor does from the same options."""
    request: dict[str, Any] = {"jobName": settings.job_name, "jobQueue": settings.job_queue}
    if settings.job_definition:
        request["jobDefinition"] = settings.job_definition
    request = _overlay(request, settings.submit_job_kwargs)
    if _SEVERAL not in request:
        request.setdefault(_SINGLE, {})["command"] = []
    return sdk.with_numbers_as_text(*_OPERATION, request)


def wrong_parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each parameter that cannot be used, or that the SDK would refuse."""
    yield from wrong_sizes(parameters)
    yield from sdk.wrong_parameters(*_OPERATION, _with_tags(without_sizes(parameters)))


def _overlay(request: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge; an override of a single container replaces that of several containers, and the other way round."""
    for form, other in ((_SINGLE, _SEVERAL), (_SEVERAL, _SINGLE)):
        if form in overrides and other in request:
            request = {key: value for key, value in request.items() if key != other}
    return merge(request, _with_tags(overrides))


def _with_tags(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(tags := overrides.get("tags"), (list, tuple)):
        return {**overrides, "tags": _tag_map(tags)}
    return overrides


def _tag_map(tags: Sequence[Any]) -> Any:
    """Turn ``[{"Key": "team", "Value": "data"}]``, other services' form, into Batch's."""
    found = {}
    for tag in tags:
        lower = {str(key).lower(): value for key, value in tag.items()} if isinstance(tag, Mapping) else {}
        if lower.keys() != {"key", "value"} or not isinstance(lower["key"], str):
            return list(tags)  # for botocore to refuse
        found[lower["key"]] = lower["value"]
    return found


# --- one workload -------------------------------------------------------------------------------------------


def workload_request(
    base: Mapping[str, Any],
    queue_overrides: Mapping[str, Any] | None,
    executor_config: Any,
    command: Sequence[str],
    executors: str | None = None,
) -> dict[str, Any]:
    """
    Return the parameters of one workload's request.

    :param base: the parameters that all workloads share; see :func:`base_request`
    :param queue_overrides: the changes of the workload's queue
    :param executor_config: the changes of the workload itself, as the DAG's author wrote them
    :param command: the container's
    :param executors: the executors that tasks can name, if Airflow in the container has to be told
    :raises Rejected: if the executor_config cannot be used; the reason holds none of its values
    """
    changes = checked_parameters(executor_config, "SubmitJob")
    if "command" in changes:
        raise Rejected('executor_config must never override "command"')
    layers: Sequence[Mapping[str, Any]] = (base, queue_overrides or {}, *layers_in(changes))
    sized = layers_of(layers, REFUSED) if are_sized(layers) else ()
    request = overlaid([one.parameters for one in sized] if sized else layers, _overlay)
    _check_single(request)
    name = _SINGLE
    if _SEVERAL not in request:
        container = request.setdefault(_SINGLE, {})
        if not isinstance(container, dict):
            raise Rejected(f"{_SINGLE} must be a dictionary, not {type_name(container)}")
    elif _SINGLE in request:
        raise Rejected(f"{_SINGLE} and {_SEVERAL} exclude each other")
    else:
        # A job definition of several containers takes no override of a single one.
        container, name = _first_of_several(request[_SEVERAL]), f"the first container of {_SEVERAL}"
    if sized:
        put_sizes(request, container, sized)
    put_command(container, command, name, executors)
    return request


def _first_of_several(override: object) -> dict[str, Any]:
    if not isinstance(override, dict):
        raise Rejected(f"{_SEVERAL} must be a dictionary, not {type_name(override)}")
    found: dict[str, Any] = override
    for key in ("taskProperties", "containers"):
        members = found[key] = found.get(key) or [{}]
        if not isinstance(members, list) or not isinstance(members[0], dict):
            raise Rejected(f"{key} must be a list of dictionaries")
        found = members[0]
    return found


def launch_spec(
    request: Mapping[str, Any],
    *,
    started_by: str,
    launch_id: str | None = None,
    expires_at: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> LaunchSpec:
    """
    Check a finished request, mark its name, and return it with the names of the limits that it falls under.

    The marks of the result are beginnings of job names: ``started_by`` of all the workload's jobs, ``own_mark`` of
    this launch's only. Each attempt adds its own end; see :mod:`~ecs_async_executor.services.batch.names`.

    :param started_by: our mark
    :param launch_id: the launch's, for a mark of its own
    :param expires_at: wall-clock seconds after which the container could not use its command any more
    :param tags: added to the request's own, which win, as far as there is room
    :raises Rejected: if Batch would certainly refuse the request
    """
    _check_single(request)
    request = sdk.with_numbers_as_text(*_OPERATION, dict(request))
    for key, option in (("jobName", "job_name"), ("jobQueue", "job_queue"), ("jobDefinition", "job_definition")):
        value = request.get(key)
        if value and not isinstance(value, str):
            raise Rejected(f"{key} must be a string, not {type_name(value)}")
        if not value:
            raise Rejected(f"no {key}: set [aws_batch_executor] {option}, or {key} in executor_config")
    if not JOB_NAME.fullmatch(request["jobName"]):
        raise Rejected(
            "jobName must have 1 to 128 letters, digits, hyphens and underscores, a letter or digit first"
        )
    whole = sealed(request, _SEVERAL if _SEVERAL in request else _SINGLE, _added(request["jobQueue"]))
    whole.setdefault("retryStrategy", dict(ONE_ATTEMPT))
    if tags:
        whole["tags"] = _tagged(whole.get("tags"), tags)
    prefix = whole["jobName"] = name_prefix(whole["jobName"], started_by)
    own_mark = own_prefix(prefix, launch_id) if launch_id else prefix
    return LaunchSpec(
        request=whole,
        scope=whole["jobQueue"],
        placement=_placement(whole),
        bucket=_BUCKET,
        started_by=prefix,
        expires_at=expires_at,
        own_mark=own_mark if own_mark != prefix else None,
    )


class BatchTemplate:
    """
    A request that becomes those of many launches, by their commands and marks.

    :param spec: see :class:`~ecs_async_executor.services.templates.Template`; without a launch's own tags
    :param name: the job's, before it was marked
    """

    def __init__(self, spec: LaunchSpec, name: str) -> None:
        overrides = _SEVERAL if _SEVERAL in spec.request else _SINGLE
        added = _added(spec.request["jobQueue"])
        self._template = Template(spec, _OPERATION, overrides=overrides, added=added)
        self._name = name

    def spec_for(
        self, command: Sequence[str], launch: Launch, expires_at: float | None, tags: Mapping[str, str]
    ) -> LaunchSpec | None:
        """
        Return what :func:`launch_spec` does for a launch; None if it would refuse it.

        :param expires_at: likewise
        :param tags: likewise
        """
        spec, request = self._template.spec, self._template.request(command)
        if request is None:
            return None
        if tags:
            request["tags"] = _tagged(request.get("tags"), tags)
        prefix = request["jobName"] = name_prefix(self._name, launch.started_by)
        own_mark = own_prefix(prefix, launch.launch_id)
        own = own_mark if own_mark != prefix else None
        return replace(spec, request=request, started_by=prefix, expires_at=expires_at, own_mark=own)


def _tagged(own: Any, tags: Mapping[str, str]) -> Any:
    """Add tags to a request's own; leave what is no map of tags for the SDK to refuse."""
    own = {} if own is None else _with_tags({"tags": own})["tags"]
    if not isinstance(own, Mapping):
        return own
    more = [(key, value) for key, value in tags.items() if key not in own]
    return {**own, **dict(more[: max(0, TAGS_LIMIT - len(own))])}


def _added(queue: str) -> str:
    """Return the least that Batch adds to a container's environment; only Batch knows the compute environment."""
    values = {"JOB_ID": str(UUID(int=0)), "JQ_NAME": queue.rpartition("/")[2], "CE_NAME": "x", "JOB_ATTEMPT": "1"}
    added = [{"name": f"AWS_BATCH_{name}", "value": value} for name, value in values.items()]
    return "," + json.dumps(added, separators=(",", ":"))[1:-1]  # our own variable is before them


def _check_single(request: Mapping[str, Any]) -> None:
    for key, why in MORE_THAN_A_CONTAINER.items():
        if request.get(key) is not None:
            raise Rejected(f"{key} must not be set: {why}")


def _placement(request: Mapping[str, Any]) -> str:
    """Return the name of the capacity that the request competes for."""
    container = request.get(_SINGLE) or {}
    parts = {"queue": request["jobQueue"], "definition": request["jobDefinition"]}
    for key in ("vcpus", "memory", "instanceType", "resourceRequirements"):
        parts[key] = container.get(key)
    if isinstance(several := request.get(_SEVERAL), Mapping):
        needs = [one.get("resourceRequirements") for one in containers_of(several)]
        parts["resourceRequirements"] = needs if any(needs) else None
    return placement_name(parts)


def containers_of(several: Mapping[str, Any]) -> list[Any]:
    """Return the containers in the properties, or the override, of a job of several containers."""
    return [one for task in several.get("taskProperties") or () for one in task.get("containers") or ()]
