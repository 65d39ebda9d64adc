"""
Which log stream has the output of an ECS task's container. Pure functions.

Imports ``logs`` of the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_async_executor.services.logs import LogStream, NoLog, awslogs_options


def stream_of(container: Mapping[str, Any], task_id: str, region: str, runtime_id: str | None) -> LogStream:
    """
    Return where the output of a task's container is: ``<prefix>/<container>/<task id>`` in the definition's group.

    Without a prefix, which only container instances allow, the stream has the name of the Docker container. From
    the Amazon ECS Developer Guide ("Send Amazon ECS logs to CloudWatch").

    :param container: its part of the task definition
    :param region: the task's, for a definition that names none
    :param runtime_id: Docker's identifier of the container, None if unknown
    :raises NoLog: if the output is not in CloudWatch Logs, or the stream has a name that is not known
    """
    name = str(container.get("name"))
    options = awslogs_options(container.get("logConfiguration") or {}, f"container {name!r}")
    group, prefix = options.get("awslogs-group"), options.get("awslogs-stream-prefix")
    if not group:
        raise NoLog(f"container {name!r} has no awslogs-group in its log configuration")
    stream = f"{prefix}/{name}/{task_id}" if prefix else runtime_id
    if not stream:
        raise NoLog(
            f"container {name!r} has no awslogs-stream-prefix, so its log stream has the name of the Docker "
            "container, which is not known: set awslogs-stream-prefix in the task definition"
        )
    return LogStream(str(group), stream, str(options.get("awslogs-region") or region))
