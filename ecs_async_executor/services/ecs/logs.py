"""
The log stream of an ECS task's container.

Imports ``calls``, ``clients`` and ``logs`` of the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.logs import LogStream, NoLogStream, options_of

_OPERATIONS: Final = {
    "DescribeTaskDefinition": Operation("describe_task_definition", frozenset({"taskDefinition"}))
}


async def log_stream(
    clients: ClientFactory, task_definition: str, container_name: str, task_arn: str
) -> LogStream:
    """
    Return where the output of a task's container is: ``<prefix>/<container>/<task id>`` in the definition's group.

    From the Amazon ECS Developer Guide ("Using the awslogs log driver").

    :raises BackendError: if ECS does not show the task definition
    :raises NoLogStream: if the output is not in CloudWatch Logs, or in a stream named after the Docker container
    """
    calls = Calls(clients, "ecs", operations=_OPERATIONS, decoders={})
    async with calls.open():
        reply = await calls("DescribeTaskDefinition", taskDefinition=task_definition)
    containers = reply["taskDefinition"].get("containerDefinitions") or ()
    container: Mapping[str, Any] = next((one for one in containers if one.get("name") == container_name), {})
    options = options_of(container.get("logConfiguration") or {}, f"container {container_name!r}")
    group, prefix = options.get("awslogs-group"), options.get("awslogs-stream-prefix")
    if not group or not prefix:
        raise NoLogStream(
            f"container {container_name!r} has no awslogs-stream-prefix, which its stream is found by"
        )
    return LogStream(
        str(group), f"{prefix}/{container_name}/{task_arn.rpartition('/')[2]}", options.get("awslogs-region")
    )
