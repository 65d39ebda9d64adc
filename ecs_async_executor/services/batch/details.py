"""
What people want to read of a Batch job: DescribeJobs, with every attempt and every container.

Imports ``core``, ``logs``, ``replies`` and ``requests`` beside it, and ``calls``, ``details``, ``links``, ``logs``
and ``parsing`` of the folder above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.sizes import VCPU, Size, in_words
from ecs_async_executor.services import links
from ecs_async_executor.services.batch.logs import stream_of
from ecs_async_executor.services.batch.replies import observation, ran_airflow
from ecs_async_executor.services.batch.requests import containers_of
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.logs import NoLog
from ecs_async_executor.services.parsing import UNREADABLE
from ecs_async_executor.services.redaction import redacted

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

_OPERATIONS: Final = {"DescribeJobs": Operation("describe_jobs", frozenset({"jobs"}))}
_SINGLE: Final = "default"
"""Batch's own name for the container of a job that has one: it is part of the log stream's name."""
_OVER: Final = frozenset({"SUCCEEDED", "FAILED"})


@asynccontextmanager
async def inspecting(clients: ClientFactory, job_queue: str) -> AsyncIterator[JobInspector]:
    """
    Hold a client of Batch open that looks at jobs.

    :param job_queue: the default job queue
    """
    calls = Calls(clients, "batch", operations=_OPERATIONS, decoders={})
    async with calls.open():
        yield JobInspector(calls, job_queue)


class JobInspector:
    """Looks at single jobs; see :func:`inspecting`."""

    def __init__(self, calls: Calls, job_queue: str) -> None:
        self._call = calls
        self._job_queue = job_queue

    async def details(self, handle_id: str) -> Details | None:
        """
        Return what Batch says about a job; None if Batch does not know it.

        :raises BackendError: if Batch does not describe it
        """
        reply = await self._call("DescribeJobs", jobs=[handle_id])
        jobs: Sequence[Mapping[str, Any]] = reply.get("jobs") or ()
        if not jobs:
            return None
        try:
            return _details(jobs[0], self._job_queue, self._call.region_name)
        except UNREADABLE as error:
            said = f"DescribeJobs answered with a malformed record: {type(error).__name__}"
            raise BackendError(Kind.AMBIGUOUS, "MalformedReply", said) from None

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        """
        Return the containers of a job and their log streams, which only Batch can name.

        :raises BackendError: if Batch does not describe it
        """
        details = await self.details(handle_id)
        if details is not None:
            return details.containers
        why = f"Batch does not know job {handle_id} any more, and nothing else names its log stream"
        return [ContainerDetails(_SINGLE, runs_airflow=True, no_stream=why)]


def _details(job: Mapping[str, Any], job_queue: str, region: str) -> Details:
    arn = str(job.get("jobArn") or "")
    region = arn.split(":")[3] if arn else region
    seen = observation(job, job_queue)
    containers = _defined(job)
    queue = str(job.get("jobQueue") or job_queue).rpartition("/")[2]
    tasks = _ecs_tasks(job)
    on_instance = any(one.get("containerInstanceArn") for one in tasks)
    ecs_task = _address(tasks)
    platform = "EC2" if on_instance else "".join((job.get("platformCapabilities") or ())[:1])
    return Details(
        observation=seen,
        region=region,
        definition=str(job.get("jobDefinition") or ""),
        place=", ".join(one for one in (f"job queue {queue}", platform) if one),
        size=_size(containers),
        times=_times(job),
        containers=tuple(_containers(job, containers, region)),
        console_url=links.batch_job(region, seen.handle.id),
        takes_exec=ecs_task is not None
        and job.get("status") == "RUNNING"
        and any(one.get("enableExecuteCommand") for one in tasks),
        ecs_task=ecs_task,
    )


def _defined(job: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the containers of the latest attempt, as the job describes them."""
    several = job.get("ecsProperties")
    if several and not job.get("container"):
        return containers_of(several)
    return [job.get("container") or {}]


def _ecs_tasks(job: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return what the job says of its ECS task: beside what it says of a single container, or around several."""
    if single := job.get("container"):
        return [single]
    return (job.get("ecsProperties") or {}).get("taskProperties") or ()


def _address(tasks: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the cluster, which is the compute environment's, and the ARN of the ECS task that a job runs in."""
    for one in tasks:
        arn = str(one.get("taskArn") or "")
        if (parts := arn.rpartition(":")[2].split("/"))[1:-1]:
            return parts[1], arn
    return None


def _times(job: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    attempts: Sequence[Mapping[str, Any]] = job.get("attempts") or ()
    moments = [("submitted", job.get("createdAt"))]
    for number, attempt in enumerate(attempts, 1) if len(attempts) > 1 else ():
        moments.append((f"attempt {number} started", attempt.get("startedAt")))
        moments.append((f"attempt {number} stopped", attempt.get("stoppedAt")))
    moments += [("started", job.get("startedAt")), ("stopped", job.get("stoppedAt"))]
    known: dict[float, str] = {}
    for word, at in moments:
        if at:
            known.setdefault(float(at) / 1000.0, word)  # the job's moments can be those of its last attempt
    return tuple((word, at) for at, word in sorted(known.items()))


def _size(containers: Iterable[Mapping[str, Any]]) -> str:
    needs = {"VCPU": 0.0, "MEMORY": 0.0, "GPU": 0.0}
    for one in containers:
        own = {str(need.get("type")): need.get("value") for need in one.get("resourceRequirements") or ()}
        own = {"VCPU": one.get("vcpus"), "MEMORY": one.get("memory")} | own
        for name in needs:
            needs[name] += float(own.get(name) or 0)
    return in_words(Size(round(needs["VCPU"] * VCPU), int(needs["MEMORY"]), int(needs["GPU"])))


# --- containers ---------------------------------------------------------------------------------------------


def _containers(
    job: Mapping[str, Any], defined: Sequence[Mapping[str, Any]], region: str
) -> Iterator[ContainerDetails]:
    """Yield the containers of every attempt; those of the attempt under way last."""
    attempts: Sequence[Mapping[str, Any]] = job.get("attempts") or ()
    status, airflow = str(job["status"]), ran_airflow(job)
    parts = _by_name(defined)
    ended = [_outcomes(one) for one in attempts]
    for number, outcomes in enumerate(ended, 1):
        # All attempts but the last have failed: else there would be no other.
        of_attempt = status if number == len(attempts) and status in _OVER else "FAILED"
        for name, outcome in outcomes.items():
            part = parts.get(name, {})
            yield _container(name, part, outcome, of_attempt, number, region, runs_airflow=part is airflow)
    if attempts and status in _OVER:
        return
    streams = {outcome.get("logStreamName") for outcomes in ended for outcome in outcomes.values()}
    for name, part in parts.items():
        # Until the next attempt runs, the job can still describe the container of the one before.
        outcome = {} if part.get("logStreamName") in streams else {"reason": job.get("statusReason")} | _said(part)
        yield _container(name, part, outcome, status, len(attempts) + 1, region, runs_airflow=part is airflow)


def _container(
    name: str,
    part: Mapping[str, Any],
    outcome: Mapping[str, Any],
    status: str,
    attempt: int,
    region: str,
    *,
    runs_airflow: bool,
) -> ContainerDetails:
    known = ContainerDetails(
        name,
        status=status,
        exit_code=None if outcome.get("exitCode") is None else int(outcome["exitCode"]),
        reason=redacted(str(outcome.get("reason") or "")),
        image=str(part.get("image") or ""),
        runs_airflow=runs_airflow,
        attempt=attempt,
    )
    label = f"container {name!r} of attempt {attempt}"
    try:
        stream = stream_of(outcome.get("logStreamName"), part.get("logConfiguration"), region, label)
    except NoLog as problem:
        return replace(known, no_stream=str(problem))
    return replace(known, stream=stream)


def _outcomes(attempt: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return what became of the containers of an attempt that has ended."""
    several = containers_of(attempt)
    outcomes = _by_name(several) if several else {_SINGLE: attempt.get("container") or {}}
    return {name: {"reason": attempt.get("statusReason")} | _said(one) for name, one in outcomes.items()}


def _said(container: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: container.get(key) for key in ("exitCode", "reason", "logStreamName")}
    return {key: value for key, value in said.items() if value not in (None, "")}


def _by_name(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    alone = len(containers) == 1
    return {
        str(one.get("name") or (_SINGLE if alone else f"container {number}")): one
        for number, one in enumerate(containers, 1)
    }
