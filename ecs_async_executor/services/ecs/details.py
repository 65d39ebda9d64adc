"""
What people want to read of an ECS task: DescribeTasks, and the task definition for the log streams.

Imports ``core``, ``logs``, ``replies`` and ``requests`` beside it, and ``calls``, ``details``, ``errors``,
``links``, ``logs`` and ``parsing`` of the folder above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.sizes import Size, in_words
from ecs_async_executor.services import links
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.ecs.logs import stream_of
from ecs_async_executor.services.ecs.replies import observation
from ecs_async_executor.services.ecs.requests import cluster_of
from ecs_async_executor.services.errors import is_denied
from ecs_async_executor.services.logs import NoLog
from ecs_async_executor.services.parsing import UNREADABLE
from ecs_async_executor.services.redaction import redacted

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

_OPERATIONS: Final = {
    "DescribeTasks": Operation("describe_tasks", frozenset({"tasks", "failures"})),
    "DescribeTaskDefinition": Operation("describe_task_definition", frozenset({"taskDefinition"})),
}
_MOMENTS: Final = {
    "createdAt": "created",
    "pullStartedAt": "pull began",
    "pullStoppedAt": "pulled",
    "startedAt": "started",
    "executionStoppedAt": "containers ended",
    "stoppingAt": "stopping",
    "stoppedAt": "stopped",
}
_MOST_DEFINITIONS: Final = 1000


@asynccontextmanager
async def inspecting(
    clients: ClientFactory,
    cluster: str,
    container_name: str,
    configured: Callable[[], str],
    definitions: MutableMapping[str, Mapping[str, Any]],
) -> AsyncIterator[TaskInspector]:
    """
    Hold a client of ECS open that looks at tasks.

    :param cluster: the default cluster
    :param container_name: the container with Airflow's command
    :param configured: returns the task definition of tasks that ECS has forgotten
    :param definitions: keeps the task definitions that were read, by their ARNs: they never change
    """
    calls = Calls(clients, "ecs", operations=_OPERATIONS, decoders={})
    async with calls.open():
        yield TaskInspector(calls, cluster, container_name, configured, definitions)


class TaskInspector:
    """Looks at single tasks; see :func:`inspecting`."""

    def __init__(
        self,
        calls: Calls,
        cluster: str,
        container_name: str,
        configured: Callable[[], str],
        definitions: MutableMapping[str, Mapping[str, Any]],
    ) -> None:
        self._call = calls
        self._cluster = cluster
        self._container_name = container_name
        self._configured = configured
        self._definitions = definitions

    async def details(self, handle_id: str) -> Details | None:
        """
        Return what ECS and the task definition say about a task; None if ECS does not know it.

        :raises BackendError: if ECS does not describe it
        """
        scope = cluster_of(handle_id, self._cluster)
        reply = await self._call("DescribeTasks", cluster=scope, tasks=[handle_id])
        tasks: Sequence[Mapping[str, Any]] = reply.get("tasks") or ()
        if not tasks:
            return None
        try:
            definition, why_none = await self._definition(str(tasks[0].get("taskDefinitionArn") or ""))
            return self._details(tasks[0], definition, why_none, scope)
        except UNREADABLE as error:
            said = f"DescribeTasks answered with a malformed record: {type(error).__name__}"
            raise BackendError(Kind.AMBIGUOUS, "MalformedReply", said) from None

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        """
        Return the containers of a task and their log streams.

        ECS forgets a task an hour after its end; its output stays. Then the streams are those that a task of the
        configured definition has.

        :raises BackendError: if ECS does not describe it
        """
        details = await self.details(handle_id)
        if details is not None:
            return details.containers
        definition, why_none = await self._definition(self._configured())
        names = [str(one.get("name")) for one in definition.get("containerDefinitions") or ()]
        forgotten = [{"name": one} for one in names or [self._container_name]]
        return self._containers(forgotten, definition, why_none, handle_id)

    async def _definition(self, name: str) -> tuple[Mapping[str, Any], str]:
        """Return a task definition, or nothing and why."""
        if not name:
            return {}, "no task definition is known, which would name the log group"
        if name in self._definitions:
            return self._definitions[name], ""
        try:
            reply = await self._call("DescribeTaskDefinition", taskDefinition=name)
        except BackendError as error:
            if is_denied(error):
                lacks = "the credentials lack the permission ecs:DescribeTaskDefinition"
                return {}, f"{lacks}, which names the log group: allow it on * ({error})"
            return {}, f"the task definition, which names the log group, cannot be read: {error}"
        definition: Mapping[str, Any] = reply["taskDefinition"]
        if name == definition.get("taskDefinitionArn"):  # a family alone means another revision tomorrow
            if len(self._definitions) >= _MOST_DEFINITIONS:
                self._definitions.clear()
            self._definitions[name] = definition
        return definition, ""

    # --- in our words

    def _details(
        self, task: Mapping[str, Any], definition: Mapping[str, Any], why_none: str, scope: str
    ) -> Details:
        arn, cluster = str(task["taskArn"]), str(task.get("clusterArn") or scope).rpartition("/")[2]
        seen = observation(task, self._container_name, scope)
        where = task.get("capacityProviderName") or task.get("launchType")
        place = [f"cluster {cluster}", where, task.get("availabilityZone"), _instance(task)]
        moments = ((word, _seconds(task.get(key))) for key, word in _MOMENTS.items())
        return Details(
            observation=seen,
            region=_region(arn),
            definition=str(task.get("taskDefinitionArn") or ""),
            place=", ".join(str(one) for one in place if one),
            size=_size(task),
            times=tuple(sorted(((word, at) for word, at in moments if at is not None), key=lambda one: one[1])),
            containers=self._containers(task.get("containers") or (), definition, why_none, arn),
            console_url=links.ecs_task(_region(arn), cluster, arn),
            takes_exec=bool(task.get("enableExecuteCommand")) and task.get("lastStatus") == "RUNNING",
            ecs_task=(scope, arn),
        )

    def _containers(
        self,
        containers: Sequence[Mapping[str, Any]],
        definition: Mapping[str, Any],
        why_none: str,
        task_arn: str,
    ) -> tuple[ContainerDetails, ...]:
        defined = {str(one.get("name")): one for one in definition.get("containerDefinitions") or ()}
        found = []
        for one in containers:
            name = str(one["name"])
            part = defined.get(name, {"name": name})
            known = ContainerDetails(
                name,
                status=str(one.get("lastStatus") or ""),
                exit_code=None if one.get("exitCode") is None else int(one["exitCode"]),
                reason=redacted(str(one.get("reason") or "")),
                image=str(one.get("image") or part.get("image") or ""),
                runs_airflow=name == self._container_name,
            )
            if why_none:
                found.append(replace(known, no_stream=why_none))
                continue
            try:
                task_id = task_arn.rpartition("/")[2]
                stream = stream_of(part, task_id, _region(task_arn), one.get("runtimeId"))
                found.append(replace(known, stream=stream))
            except NoLog as problem:
                found.append(replace(known, no_stream=str(problem)))
        return tuple(found)


def console_url(task_arn: str, default_cluster: str) -> str:
    """Return the page about a task in the AWS console; the default is for ARNs that name no cluster."""
    return links.ecs_task(_region(task_arn), cluster_of(task_arn, default_cluster), task_arn)


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _instance(task: Mapping[str, Any]) -> str:
    arn = task.get("containerInstanceArn")
    return f"container instance {str(arn).rpartition('/')[2]}" if arn else ""


def _size(task: Mapping[str, Any]) -> str:
    gpus = sum(len(one.get("gpuIds") or ()) for one in task.get("containers") or ())
    disk = (task.get("ephemeralStorage") or {}).get("sizeInGiB")
    return in_words(Size(int(task.get("cpu") or 0), int(task.get("memory") or 0), gpus, disk))


def _seconds(value: object) -> float | None:
    return value.timestamp() if isinstance(value, datetime) else None
