"""
What the checks of task definitions and of job definitions have in common.

Imports ``core``, ``errors``, ``findings``, ``logs`` and ``redaction``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.errors import is_denied
from ecs_async_executor.services.findings import Finding, good, problem, warning
from ecs_async_executor.services.logs import LogReader, LogStream, NoLog
from ecs_async_executor.services.redaction import redacted

NO_SUCH_STREAM = "ecs-async-executor/check"
"""A log stream that no container has."""


def unreadable(name: str, error: BackendError, permission: str) -> Finding:
    """
    Return what it means that a definition could not be read: launches do not need it.

    :param permission: what it takes to read it
    """
    if is_denied(error):
        return warning(
            name,
            redacted(str(error)),
            f"allow {permission}: this check and the display of logs need it, launches do not",
        )
    return problem(name, redacted(str(error)))


async def log_finding(reader: LogReader, stream: LogStream, options: Mapping[str, Any]) -> Finding:
    """
    Return whether the lines of a container could be shown, by reading a stream that no container has.

    :param options: of the container's log configuration
    """
    name = f"GetLogEvents, log group {stream.group!r}"
    try:
        await reader.read(LogStream(stream.group, NO_SUCH_STREAM, stream.region), 1)
    except NoLog as why:
        if "does not exist" in str(why) and str(options.get("awslogs-create-group")).lower() != "true":
            return warning(
                name,
                redacted(str(why)),
                "create it: a container that logs to a group that is not there does not start",
            )
        if not why.passing:
            return warning(name, redacted(str(why)))
    return good(name)
