"""
Which log stream has the output of a Batch job's container. Pure functions.

Imports ``logs`` of the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ecs_async_executor.services.logs import DRIVER, LogStream, NoLog, awslogs_options

DEFAULT_GROUP: Final = "/aws/batch/job"


def stream_of(name: object, configuration: Mapping[str, Any] | None, region: str, container: str) -> LogStream:
    """
    Return where the output of a job's container is.

    A job definition without a log configuration means awslogs and the group ``/aws/batch/job``: AWS Batch User
    Guide ("Using the awslogs log driver").

    :param name: the ``logStreamName`` that Batch gives, if any
    :param configuration: the container's ``logConfiguration``
    :param region: the job's, for a configuration that names none
    :param container: for people
    :raises NoLog: if the output is not in CloudWatch Logs, or Batch names no stream
    """
    options = awslogs_options(configuration or {"logDriver": DRIVER}, container)
    if not name:
        raise NoLog(f"Batch names no log stream of {container}: it does so once the container runs")
    group = str(options.get("awslogs-group") or DEFAULT_GROUP)
    return LogStream(group, str(name), str(options.get("awslogs-region") or region))
