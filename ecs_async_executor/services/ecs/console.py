"""
ECS, as a person wants to use it.

Imports ``core``, the rest of this folder, and ``calls``, ``console``, ``parsing`` and ``requests`` of the folder
above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypedDict

from ecs_async_executor.core.backend import Handle, unpaced
from ecs_async_executor.core.identity import is_uuid
from ecs_async_executor.services.calls import Calls
from ecs_async_executor.services.console import Marked, Progress, untold
from ecs_async_executor.services.ecs.backend import OPERATIONS, SERVICE, EcsBackend
from ecs_async_executor.services.parsing import UNREADABLE, UnreadableRecords, decoder_of, text
from ecs_async_executor.services.requests import EXECUTOR_MARK, persons_reason

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory


class _Variable(TypedDict, total=False):
    name: str


class _Override(TypedDict, total=False):
    environment: list[_Variable] | None


class _Overrides(TypedDict, total=False):
    containerOverrides: list[_Override] | None


class _Task(TypedDict, total=False):
    """Without the command, which holds a JWT."""

    taskArn: str
    lastStatus: str
    desiredStatus: str
    startedBy: str | None
    createdAt: float | None
    overrides: _Overrides | None


class _Reply(TypedDict, total=False):
    tasks: list[_Task]


_DECODERS: Final = {"DescribeTasksResponse": decoder_of(_Reply)}


class EcsConsole:
    """
    ECS as a :class:`~ecs_async_executor.services.console.Console`.

    :param clients: makes the client
    :param scopes: the clusters of the settings
    """

    def __init__(self, clients: ClientFactory, scopes: Sequence[str]) -> None:
        self.scopes = scopes
        self._call = Calls(clients, "ecs", operations=OPERATIONS, decoders=_DECODERS)
        self._unreadable = UnreadableRecords(SERVICE.event("describe.malformed"), "arn", "taskArn")

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the running loop."""
        return self._call.open()

    async def marked(self, scope: str, progress: Progress = untold) -> Sequence[Marked]:
        """
        List the tasks of a cluster with an executor's mark that are to run; the whole cluster is described.

        ECS filters tasks by family or by a whole mark, and the families of our tasks are not all in the settings.
        """
        arns = await self._call.pages("ListTasks", "taskArns", paced=unpaced, cluster=scope)
        found: list[Marked] = []
        for first in range(0, len(arns), EcsBackend.describe_batch):
            progress(first, len(arns))
            batch = arns[first : first + EcsBackend.describe_batch]
            reply = await self._call.retrying("DescribeTasks", paced=unpaced, cluster=scope, tasks=batch)
            found += self._marked_of(reply, scope)
        progress(len(arns), len(arns))
        return found

    def _marked_of(self, reply: Mapping[str, Any], scope: str) -> Iterator[Marked]:
        for task in reply.get("tasks") or ():
            try:
                mark = task.get("startedBy")
                mark = mark if mark is not None and is_uuid(mark) else None
                if task.get("desiredStatus") == "STOPPED" or (mark is None and not _is_executors(task)):
                    continue
                handle = Handle(scope, text(task["taskArn"]))
                yield Marked(handle, mark, text(task.get("lastStatus") or ""), task.get("createdAt"))
            except UNREADABLE as error:
                self._unreadable.log(task, error, record="task")

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask ECS to stop a task, in a person's name."""
        await self._call("StopTask", cluster=handle.scope, task=handle.id, reason=persons_reason(reason))


def _is_executors(task: Mapping[str, Any]) -> bool:
    containers = (task.get("overrides") or {}).get("containerOverrides") or ()
    name = EXECUTOR_MARK["name"]
    return any(v.get("name") == name for one in containers for v in one.get("environment") or ())
