"""
The log stream of a Batch job's container.

Imports ``calls``, ``clients`` and ``logs`` of the folder above, and ``replies`` beside it.
"""

from __future__ import annotations

from typing import Any, Final

from ecs_async_executor.services.batch.replies import ran_airflow
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.logs import DRIVER, LogStream, NoLogStream, options_of

DEFAULT_GROUP: Final = "/aws/batch/job"

_OPERATIONS: Final = {"DescribeJobs": Operation("describe_jobs", frozenset({"jobs"}))}


async def log_stream(clients: ClientFactory, job_id: str) -> LogStream:
    """
    Return where the output of a job's container is.

    A job definition without a log configuration means awslogs and the group ``/aws/batch/job``: AWS Batch User
    Guide ("Using the awslogs log driver").

    :raises BackendError: if Batch does not show the job
    :raises NoLogStream: if the output is not in CloudWatch Logs, or the job has not started
    """
    calls = Calls(clients, "batch", operations=_OPERATIONS, decoders={})
    async with calls.open():
        reply = await calls("DescribeJobs", jobs=[job_id])
    jobs: list[dict[str, Any]] = reply["jobs"] or [{}]
    container = ran_airflow(jobs[0])
    options = options_of(container.get("logConfiguration") or {"logDriver": DRIVER}, "the job's container")
    name = container.get("logStreamName")
    if not name:
        raise NoLogStream("Batch names no log stream for the job")
    return LogStream(str(options.get("awslogs-group") or DEFAULT_GROUP), str(name), options.get("awslogs-region"))
