"""
What the checks of task definitions and of job definitions have in common.

Imports ``core``, ``errors``, ``findings``, ``logs``, ``redaction`` and ``requests``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.errors import is_denied
from ecs_async_executor.services.findings import Finding, good, problem, warning
from ecs_async_executor.services.logs import LogReader, LogStream, NoLog
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.services.requests import EXECUTOR_SETTING, variable_in

JudgeExecutors: TypeAlias = Callable[[str, "str | None"], "Finding | None"]
"""
Judges what containers have as ``[core] executor``.

Takes what is shown of their definition, and the value; None: their image decides.
"""

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


def executors_findings(
    judge: JudgeExecutors, definition: str, requested: Iterable[Any], defined: Any
) -> Iterator[Finding]:
    """
    Yield what is wrong with the executors that Airflow in a definition's containers knows.

    :param requested: the environments in the requests, in the API's form
    :param defined: the environment in the definition
    """
    given = dict.fromkeys(variable_in(one, EXECUTOR_SETTING) for one in requested)
    default = variable_in(defined, EXECUTOR_SETTING)
    for setting in dict.fromkeys(default if one is None else one for one in given):
        if (finding := judge(definition, setting)) is not None:
            yield finding
