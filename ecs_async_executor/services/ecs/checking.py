"""
A look at the task definitions that launches name: are they there, with Airflow's container, and where it logs.

Imports ``core``, ``logs`` and ``sizes`` beside it, and what the folder above has for checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.definitions import (
    NO_SUCH_STREAM,
    JudgeExecutors,
    executors_findings,
    log_finding,
    unreadable,
)
from ecs_async_executor.services.ecs.logs import stream_of
from ecs_async_executor.services.ecs.sizes import limit_in_the_way
from ecs_async_executor.services.findings import Finding, good, problem, warning
from ecs_async_executor.services.logs import LogReader, NoLog, awslogs_options

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

_OPERATIONS: Final = {
    "DescribeTaskDefinition": Operation("describe_task_definition", frozenset({"taskDefinition"}))
}


async def look_at_definitions(
    clients: ClientFactory,
    reader: LogReader,
    container_name: str,
    specs: Sequence[LaunchSpec],
    judge_executors: JudgeExecutors,
) -> AsyncIterator[Finding]:
    """
    Yield what is found of each task definition that the requests name.

    :param reader: opened
    :param container_name: the container with Airflow's command
    :param judge_executors: is told what containers have as ``[core] executor``
    """
    groups: set[tuple[str, str]] = set()
    calls = Calls(clients, "ecs", operations=_OPERATIONS, decoders={})
    async with calls.open():
        for definition in dict.fromkeys(str(spec.request["taskDefinition"]) for spec in specs):
            name = f"DescribeTaskDefinition, task definition {definition!r}"
            try:
                reply = await calls("DescribeTaskDefinition", taskDefinition=definition)
            except BackendError as error:
                yield unreadable(name, error, "ecs:DescribeTaskDefinition")
                continue
            described: Mapping[str, Any] = reply["taskDefinition"]
            containers = {str(one.get("name")): one for one in described.get("containerDefinitions") or ()}
            if (status := described.get("status")) not in {None, "ACTIVE"}:
                yield problem(name, f"it is {status}", "name a revision that is ACTIVE")
                continue
            if container_name not in containers:
                has = ", ".join(map(repr, containers)) or "none"
                yield problem(
                    name,
                    f"it has no container named {container_name!r}",
                    f"set [aws_ecs_executor] container_name to one of its containers: {has}",
                )
                continue
            yield good(name)
            container = containers[container_name]
            of_it = [one for one in specs if one.request["taskDefinition"] == definition]
            requests = [one.request for one in of_it]
            if any(one.handed_over is not None for one in of_it):
                for finding in _about_files(definition, described, container, requests):
                    yield finding
            if words := limit_in_the_way(container, requests):
                yield warning(f"Memory, task definition {definition!r}", *words)
            requested = (_override(one, container_name).get("environment") for one in requests)
            of_definition = f"task definition {definition!r}"
            for finding in executors_findings(
                judge_executors, of_definition, requested, container.get("environment")
            ):
                yield finding
            try:
                stream = stream_of(container, NO_SUCH_STREAM, calls.region_name, NO_SUCH_STREAM)
                options = awslogs_options(container.get("logConfiguration") or {}, repr(container_name))
            except NoLog as why:
                yield warning(f"Log configuration, task definition {definition!r}", str(why))
                continue
            if (stream.group, stream.region) not in groups:
                groups.add((stream.group, stream.region))
                yield await log_finding(reader, stream, options)


def _about_files(
    definition: str,
    described: Mapping[str, Any],
    container: Mapping[str, Any],
    requests: Sequence[Mapping[str, Any]],
) -> Iterator[Finding]:
    """Yield what is in the way of workloads that are handed over in environment files."""
    name = f"Environment files, task definition {definition!r}"
    with_role = ((one.get("overrides") or {}).get("executionRoleArn") for one in requests)
    if not described.get("executionRoleArn") and not all(with_role):
        yield problem(
            name,
            "it has no execution role, with which ECS reads them",
            "give it one that may s3:GetObject and s3:GetBucketLocation in workload_bucket",
        )
    own = {str(one.get("value")) for one in container.get("environmentFiles") or ()}
    if own and any(own - _files_in(_override(one, str(container["name"]))) for one in requests):
        yield warning(
            name,
            f"its own ({', '.join(sorted(own))}) are replaced by those of a launch",
            "name them in overrides.containerOverrides of run_task_kwargs, too",
        )


def _files_in(container: Mapping[str, Any]) -> set[str]:
    return {str(one.get("value")) for one in container.get("environmentFiles") or ()}


def _override(request: Mapping[str, Any], container_name: str) -> Mapping[str, Any]:
    """Return what a request overrides of a container, nothing if it does not; a user's hook may have made it."""
    overrides: Sequence[Mapping[str, Any]] = (request.get("overrides") or {}).get("containerOverrides") or ()
    return next((one for one in overrides if one.get("name") == container_name), {})
