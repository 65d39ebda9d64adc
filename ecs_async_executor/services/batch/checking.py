"""
A look at the job queues and job definitions that launches name: are they fit for Airflow, where do they log.

Imports ``core``, ``logs`` and ``requests`` beside it, and what the folder above has for checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ecs_async_executor.core.backend import LaunchSpec, unpaced
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.batch.logs import stream_of
from ecs_async_executor.services.batch.requests import containers_of
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.definitions import (
    NO_SUCH_STREAM,
    JudgeExecutors,
    executors_findings,
    log_finding,
    unreadable,
)
from ecs_async_executor.services.findings import Finding, good, problem, warning
from ecs_async_executor.services.logs import LogReader, NoLog
from ecs_async_executor.settings import CONTAINER_FORMS

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

_OPERATIONS: Final = {
    "DescribeJobDefinitions": Operation("describe_job_definitions", frozenset({"jobDefinitions"})),
    "DescribeJobQueues": Operation("describe_job_queues", frozenset({"jobQueues"})),
}
_SINGLE, _SEVERAL = CONTAINER_FORMS


async def look_at_definitions(
    clients: ClientFactory, reader: LogReader, specs: Sequence[LaunchSpec], judge_executors: JudgeExecutors
) -> AsyncIterator[Finding]:
    """
    Yield what is found of each job queue and job definition that the requests name.

    :param reader: opened
    :param judge_executors: is told what containers have as ``[core] executor``
    """
    groups: set[tuple[str, str]] = set()
    calls = Calls(clients, "batch", operations=_OPERATIONS, decoders={})
    async with calls.open():
        for queue in dict.fromkeys(spec.scope for spec in specs):
            yield await _queue(calls, queue)
        for definition, forms in _forms(specs).items():
            name = f"DescribeJobDefinitions, job definition {definition!r}"
            try:
                described = await _describe(calls, definition)
            except BackendError as error:
                yield unreadable(name, error, "batch:DescribeJobDefinitions")
                continue
            if described is None:
                yield problem(name, "there is none, or none that is ACTIVE", "register it, or name another")
                continue
            if unfit := _unfit(described, forms):
                yield problem(name, *unfit)
                continue
            yield good(name)
            container = _first_container(described)
            requested = (
                _environment_in(one.request) for one in specs if one.request["jobDefinition"] == definition
            )
            of_definition = f"job definition {definition!r}"
            for finding in executors_findings(
                judge_executors, of_definition, requested, container.get("environment")
            ):
                yield finding
            configuration: Mapping[str, Any] = container.get("logConfiguration") or {}
            try:
                stream = stream_of(NO_SUCH_STREAM, configuration, calls.region_name, "the container")
            except NoLog as why:
                yield warning(f"Log configuration, job definition {definition!r}", str(why))
                continue
            if (stream.group, stream.region) not in groups:
                groups.add((stream.group, stream.region))
                # Batch makes its own group with the first job.
                options = configuration.get("options") or {"awslogs-create-group": "true"}
                yield await log_finding(reader, stream, options)


def _forms(specs: Iterable[LaunchSpec]) -> dict[str, set[str]]:
    """Return, by job definition, the forms of overrides that the requests have for it."""
    found: dict[str, set[str]] = {}
    for spec in specs:
        forms = found.setdefault(str(spec.request["jobDefinition"]), set())
        forms.add(_SEVERAL if _SEVERAL in spec.request else _SINGLE)
    return found


def _environment_in(request: Mapping[str, Any]) -> Any:
    """Return the variables that a request gives Airflow's container."""
    several = request.get(_SEVERAL)
    override = next(iter(containers_of(several)), {}) if several else request.get(_SINGLE) or {}
    return override.get("environment")


async def _queue(calls: Calls, queue: str) -> Finding:
    name = f"DescribeJobQueues, job queue {queue!r}"
    try:
        reply = await calls("DescribeJobQueues", jobQueues=[queue])
    except BackendError as error:
        return unreadable(name, error, "batch:DescribeJobQueues")
    if not reply["jobQueues"]:
        return problem(name, "there is none", "create it, or name another")
    described = reply["jobQueues"][0]
    state, status = described.get("state"), described.get("status")
    if state != "ENABLED":
        return problem(name, f"it is {state}: it takes no jobs", "enable it")
    if status not in {"VALID", None}:
        return problem(name, f"its status is {status} ({described.get('statusReason') or 'no reason given'})")
    return good(name)


async def _describe(calls: Calls, definition: str) -> Mapping[str, Any] | None:
    """Return a job definition; of a name alone the newest ACTIVE revision, which SubmitJob takes."""
    name = definition.rpartition("/")[2]
    exact = ":" in name
    asked: dict[str, Any] = (
        {"jobDefinitions": [definition]} if exact else {"jobDefinitionName": name, "status": "ACTIVE"}
    )
    found = await calls.pages("DescribeJobDefinitions", "jobDefinitions", paced=unpaced, **asked)
    active = [one for one in found if one.get("status") in {"ACTIVE", None}]
    return max(active, key=lambda one: int(one.get("revision") or 0), default=None)


def _unfit(described: Mapping[str, Any], forms: set[str]) -> tuple[str, str] | None:
    """Return why no workload can run in a job of a definition, and the way out."""
    if described.get("type", "container") != "container":
        return f"its type is {described['type']}, and one workload is one container", "name one of type container"
    if described.get("eksProperties"):
        return "its jobs run on EKS, which is not supported", "name one whose jobs run on ECS"
    if described.get("ecsProperties") and _SINGLE in forms:
        return (
            f"it has ecsProperties, and the request overrides a single container ({_SINGLE})",
            f"set {_SEVERAL} in submit_job_kwargs",
        )
    if not described.get("ecsProperties") and _SEVERAL in forms:
        return (
            f"it has a single container, and the request has {_SEVERAL}",
            f"use {_SINGLE} instead",
        )
    return None


def _first_container(described: Mapping[str, Any]) -> Mapping[str, Any]:
    several = described.get("ecsProperties")
    containers: Sequence[Any] = containers_of(several) if several else [described.get("containerProperties")]
    return next((one for one in containers if one), {})
