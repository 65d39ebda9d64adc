"""
AWS Batch: build requests and parse replies (pure functions), then a thin class over the client.

May import the rest of ``services``, ``settings`` and ``core``. No Airflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict
from uuid import UUID

import structlog

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen, Service, Trial
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services.aws import bounded
from ecs_async_executor.services.aws import wrong_parameters as _wrong_parameters
from ecs_async_executor.services.wire import (
    EXECUTOR_MARK,
    Calls,
    decoder_of,
    in_one_line,
    is_of_an_executor,
    kind_of,
    merge,
    parameters_of,
    put_command,
    sealed,
    stop_reason,
    text,
)
from ecs_async_executor.settings import CONTAINER_FORMS, JOB_NAME, MORE_THAN_A_CONTAINER, BatchSettings

if TYPE_CHECKING:
    from ecs_async_executor.services.aws import ClientFactory

SERVICE: Final = Service(
    name="Batch",
    launch_rates={},
    launch_rate=25.0,
    change_rate=30.0,
    change_burst=20.0,
    repeatable=False,
    stop_permission="batch:TerminateJob",
)
"""
What fits into the 50 requests per second that AWS Batch takes from an account in a Region, whatever they are.

From the AWS Batch User Guide ("AWS Batch service quotas"); it cannot be raised. 20 of them are left for status
requests. SubmitJob has no token that would make a repeat safe.
"""
ONE_ATTEMPT: Final = {"attempts": 1}
"""
The retry strategy of a request that names none.

A job definition's own would start the container again within one try of Airflow's: Airflow refuses to run a task
there for a second time, so that all it does is to put off the news of the failure and to hide its reason.
"""

_BUCKET: Final = "SubmitJob"
_SINGLE, _SEVERAL = CONTAINER_FORMS
_NAME_LIMIT: Final = 128
_SUFFIX_ROOM: Final = 16
"""Characters of a job's name after the mark: hyphens, a piece of the launch's identity, number of the attempt."""
_MARK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_BARE_UUID = re.compile(_UUID)
_NAME = re.compile(rf".*-({_UUID})-(?:[0-9a-f]{{8}}-)?\d+")

log = structlog.get_logger(__name__)

# --- requests -----------------------------------------------------------------------------------------------


def base_request(settings: BatchSettings) -> dict[str, Any]:
    """Build the request that all workloads share, as the amazon provider's executor does from the same options."""
    request: dict[str, Any] = {"jobName": settings.job_name, "jobQueue": settings.job_queue}
    if settings.job_definition:
        request["jobDefinition"] = settings.job_definition
    request = _overlay(request, settings.submit_job_kwargs)
    if _SEVERAL not in request:
        request.setdefault(_SINGLE, {})["command"] = []
    return request


def wrong_parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Say which parameters SubmitJob does not take, and what it does, once tags are as it wants them."""
    return _wrong_parameters("batch", "SubmitJob", _with_tags(parameters))


def _overlay(request: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge; what overrides the container and what overrides one of several replace each other."""
    for form, other in ((_SINGLE, _SEVERAL), (_SEVERAL, _SINGLE)):
        if form in overrides and other in request:
            request = {key: value for key, value in request.items() if key != other}
    return merge(request, _with_tags(overrides))


def _with_tags(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(tags := overrides.get("tags"), (list, tuple)):
        return {**overrides, "tags": _tag_map(tags)}
    return overrides


def _tag_map(tags: Sequence[Any]) -> Any:
    """Turn ``[{"Key": "team", "Value": "data"}]``, which other services take, into what Batch takes."""
    found = {}
    for tag in tags:
        lower = {str(key).lower(): value for key, value in tag.items()} if isinstance(tag, Mapping) else {}
        if lower.keys() != {"key", "value"} or not isinstance(lower["key"], str):
            return list(tags)  # for botocore to refuse
        found[lower["key"]] = lower["value"]
    return found


def workload_request(
    base: Mapping[str, Any],
    queue_overrides: Mapping[str, Any] | None,
    executor_config: Any,
    command: Sequence[str],
) -> dict[str, Any]:
    """
    Build the request of one workload.

    :param base: what all workloads share; see :func:`base_request`
    :param queue_overrides: what the workload's queue changes in it
    :param executor_config: what the workload itself changes, as its author wrote it
    :param command: what the container is to run
    :raises Rejected: if the executor_config cannot be used; nothing of its values is in the reason
    """
    executor_config = parameters_of(executor_config, "SubmitJob")
    if "command" in executor_config:
        raise Rejected('executor_config must never override "command"')
    request = _overlay(base, queue_overrides) if queue_overrides else base
    try:
        request = _overlay(request, executor_config)
    except Exception as error:  # noqa: BLE001 - it comes from the author's own objects
        raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None
    _check_single(request)
    if _SEVERAL not in request:
        container = request.setdefault(_SINGLE, {})
        if not isinstance(container, dict):
            raise Rejected(f"{_SINGLE} must be a dictionary, not {kind_of(container)}")
        put_command(container, command, _SINGLE)
    elif _SINGLE in request:
        raise Rejected(f"{_SINGLE} and {_SEVERAL} exclude each other")
    else:
        # A job definition of several containers takes no override of a single one.
        put_command(_first_of_several(request[_SEVERAL]), command, f"the first container of {_SEVERAL}")
    return request


def _first_of_several(override: object) -> dict[str, Any]:
    if not isinstance(override, dict):
        raise Rejected(f"{_SEVERAL} must be a dictionary, not {kind_of(override)}")
    found: dict[str, Any] = override
    for key in ("taskProperties", "containers"):
        members = found[key] = found.get(key) or [{}]
        if not isinstance(members, list) or not isinstance(members[0], dict):
            raise Rejected(f"{key} must be a list of dictionaries")
        found = members[0]
    return found


def launch_spec(
    request: Mapping[str, Any],
    *,
    started_by: str,
    launch_id: str | None = None,
    expires_at: float | None = None,
) -> LaunchSpec:
    """
    Check a finished request, put our mark into its name and say what it shares limits with.

    The name of the request that is sent is the one of the result and a suffix, see :func:`job_name`. The result's
    ``started_by`` is what the names of all launches of the workload begin with, its ``own_mark`` what those of
    this one do, for :meth:`BatchBackend.find`.

    :param started_by: our mark
    :param launch_id: the identity that the launch's tokens are made of
    :param expires_at: wall-clock seconds after which the container could not use its command any more
    :raises Rejected: if Batch would refuse the request for what can be seen here
    """
    _check_single(request)
    for key, option in (("jobName", "job_name"), ("jobQueue", "job_queue"), ("jobDefinition", "job_definition")):
        value = request.get(key)
        if value and not isinstance(value, str):
            raise Rejected(f"{key} must be a text, not {kind_of(value)}")
        if not value:
            raise Rejected(f"no {key}: set [aws_batch_executor] {option}, or {key} in executor_config")
    if not JOB_NAME.fullmatch(request["jobName"]):
        raise Rejected(
            "jobName must have 1 to 128 letters, digits, hyphens and underscores, a letter or digit first"
        )
    whole = sealed(request, _SEVERAL if _SEVERAL in request else _SINGLE)
    whole.setdefault("retryStrategy", dict(ONE_ATTEMPT))
    prefix = whole["jobName"] = name_prefix(whole["jobName"], started_by)
    return LaunchSpec(
        request=whole,
        scope=whole["jobQueue"],
        placement=_placement(whole),
        bucket=_BUCKET,
        started_by=prefix,
        expires_at=expires_at,
        own_mark=prefix + own if launch_id and (own := _own(prefix, launch_id)) else None,
    )


def _check_single(request: Mapping[str, Any]) -> None:
    for key, why in MORE_THAN_A_CONTAINER.items():
        if request.get(key) is not None:
            raise Rejected(f"{key} must not be set: {why}")


def name_prefix(name: str, mark: str) -> str:
    """
    Return what the names of all jobs of a launch begin with.

    :param name: as it is configured; its end is cut off if it is too long
    :param mark: see :class:`~ecs_async_executor.core.messages.Launch`
    :raises Rejected: if the mark cannot be part of a name
    """
    if not _MARK.fullmatch(mark):
        raise Rejected("the mark of a launch must have 1 to 64 letters, digits, hyphens or underscores")
    return f"{name[: _NAME_LIMIT - _SUFFIX_ROOM - len(mark) - 1]}-{mark}"


def job_name(prefix: str, token: str) -> str:
    """
    Return the name of one attempt's job.

    :param prefix: see :func:`name_prefix`
    :param token: ``<launch_id>-<number of the attempt>``; as much of the identity as tells the launches that
        have the same mark from one another is put into the name
    """
    launch_id, _, number = token.rpartition("-")
    return f"{prefix}{_own(prefix, launch_id)}-{number}"


def _own(prefix: str, launch_id: str) -> str:
    return "" if prefix.endswith(f"-{launch_id}") else f"-{launch_id[:8]}"


def _placement(request: Mapping[str, Any]) -> str:
    """Name what competes for the same room; for people too, so it is readable."""
    container = request.get(_SINGLE) or {}
    parts = {"queue": request["jobQueue"], "definition": request["jobDefinition"]}
    for key in ("vcpus", "memory", "instanceType", "resourceRequirements"):
        parts[key] = container.get(key)
    if isinstance(several := request.get(_SEVERAL), Mapping):
        needs = [one.get("resourceRequirements") for one in _containers(several)]
        parts["resourceRequirements"] = needs if any(needs) else None
    return in_one_line(parts)


def _containers(of_several: Mapping[str, Any]) -> list[Any]:
    return [one for task in of_several.get("taskProperties") or () for one in task.get("containers") or ()]


# --- replies ------------------------------------------------------------------------------------------------


class _Container(TypedDict, total=False):
    exitCode: int | None
    reason: str | None


class _Variable(TypedDict, total=False):
    name: str


class _OneOfSeveral(_Container, total=False):
    environment: list[_Variable] | None


class _Task(TypedDict, total=False):
    containers: list[_OneOfSeveral] | None


class _EcsProperties(TypedDict, total=False):
    taskProperties: list[_Task] | None


class _Attempt(TypedDict, total=False):
    container: _Container | None
    startedAt: float | None
    statusReason: str | None


class _Job(TypedDict, total=False):
    jobId: str
    jobName: str
    status: str
    statusReason: str | None
    isCancelled: bool | None
    isTerminated: bool | None
    createdAt: float | None
    startedAt: float | None
    container: _Container | None
    ecsProperties: _EcsProperties | None
    attempts: list[_Attempt] | None


class _Submitted(TypedDict, total=False):
    jobId: str


class _Described(TypedDict, total=False):
    jobs: list[_Job]


DECODERS: Final = {"SubmitJobResponse": decoder_of(_Submitted), "DescribeJobsResponse": decoder_of(_Described)}

_SEEN: Final = {"RUNNING": Seen.RUNNING, "SUCCEEDED": Seen.STOPPED, "FAILED": Seen.STOPPED}
"""What a job's status means; with any other one it waits."""
_USUAL: Final = "Essential container in task exited"
_WAITS: Final = re.compile(r"[A-Z][A-Z0-9_]*(:[A-Z0-9_]+)?( - |$)")
"""What Batch's reasons for a job that stays RUNNABLE begin with, such as ``CAPACITY:...`` and ``UNDETERMINED``."""
_NEVER_STARTED: Final = "Task failed to start"


def observation(job: Mapping[str, Any], scope: str) -> Observation:
    """
    Say what a record of DescribeJobs means.

    Batch can try a job several times: as long as it is not over, what an attempt ended with decides nothing.

    :param scope: the job queue as it is given in requests
    :raises KeyError, TypeError, ValueError, AttributeError: if the record is malformed
    """
    status = text(job["status"])
    container = _ran_airflow(job)
    attempts: Sequence[Mapping[str, Any]] = job.get("attempts") or ()
    seen = _SEEN.get(status, Seen.PENDING)
    started = status in {"RUNNING", "SUCCEEDED"} or any(map(_has_started, [*attempts, job]))
    exit_code = None
    if status == "SUCCEEDED":
        exit_code = int(container.get("exitCode") or 0)
    elif status == "FAILED" and container.get("exitCode") is not None:
        exit_code = int(container["exitCode"])
    why = text(job.get("statusReason") or "")
    return Observation(
        handle=Handle(scope, text(job["jobId"])),
        seen=seen,
        status=status,
        exit_code=exit_code,
        started=started,
        reason=_failure(exit_code, text(container.get("reason") or ""), why, started=started, tries=len(attempts))
        if seen is Seen.STOPPED
        else _wait(why, attempts)
        if seen is Seen.PENDING
        else "",
        by_hand=bool(job.get("isTerminated") or job.get("isCancelled")) and not is_of_an_executor(why),
        unusual=status == "FAILED" and why not in {"", _USUAL},
        created_at=None if job.get("createdAt") is None else float(job["createdAt"]) / 1000.0,
        started_by=mark_in(job.get("jobName")),
    )


def _ran_airflow(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the container that has Airflow's command; of several, it is told by the mark in its environment."""
    if (single := job.get("container")) or not (several := job.get("ecsProperties")):
        return single or {}
    containers = _containers(several)
    mark = EXECUTOR_MARK["name"]
    found = [one for one in containers if any(v.get("name") == mark for v in one.get("environment") or ())]
    found = found or containers
    return found[0] if len(found) == 1 else {}


def _wait(why: str, attempts: Sequence[object]) -> str:
    """Return why a job has to wait; after an attempt of Batch's own it can be that one's end that is shown."""
    return why if not attempts or _WAITS.match(why) else ""


def _has_started(attempt: Mapping[str, Any]) -> bool:
    """Tell if user code can have run: there was a container, and the task was not given up before it ran."""
    if (attempt.get("container") or {}).get("exitCode") is not None:
        return True
    return attempt.get("startedAt") is not None and attempt.get("statusReason") != _NEVER_STARTED


def _failure(exit_code: int | None, container: str, why: str, *, started: bool, tries: int) -> str:
    after = f" after {tries} attempts of Batch's own" if tries > 1 else ""
    if exit_code is not None:
        if exit_code == 0:
            return ""
        said = f"Batch container exited {exit_code}{after}"
        if container:
            said += f" ({container})"
        return said if why in {"", _USUAL, container} else f"{said}: {why}"
    said = "Batch job failed " + (
        "without an exit code from its container" if started else "before its container ran"
    )
    if container and why == _NEVER_STARTED:
        why = ""  # which is what was said
    whys = "; ".join(dict.fromkeys(one for one in (why, container) if one))
    return f"{said}{after}: {whys}" if whys else said + after


def mark_in(name: object) -> str | None:
    """Return the mark in the name of a job of ours; None if there is none that can be recognized."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return found[1] if found else None


# --- the service --------------------------------------------------------------------------------------------


class BatchBackend:
    """
    AWS Batch as a :class:`~ecs_async_executor.core.backend.Backend`.

    A scope is a job queue: jobs are described whatever their queue, but listed by it.

    :param session: makes the client
    :param settings: where jobs go by default, and what their names begin with
    """

    describe_batch = 100
    """The most identifiers that DescribeJobs takes."""

    def __init__(self, session: ClientFactory, settings: BatchSettings) -> None:
        self._call = Calls(session, "batch", decoders=DECODERS, methods=_METHODS, always_there=_ALWAYS_THERE)
        self._settings = settings
        self._malformed: set[str] = set()

    def scope_of(self, handle_id: str | None) -> str:  # noqa: ARG002 - no identifier tells its queue
        """Return the job queue that jobs go to by default."""
        return self._settings.job_queue

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the loop that runs this."""
        return self._call.open()

    async def launch(self, spec: LaunchSpec, token: str) -> Observation:
        """Submit one job; the same spec and token again make another job of the same name."""
        request = spec.request
        reply = await self._call("SubmitJob", **{**request, "jobName": job_name(request["jobName"], token)})
        job_id = reply.get("jobId")
        if not isinstance(job_id, str) or not job_id:
            raise BackendError(Kind.AMBIGUOUS, "MalformedReply", "SubmitJob answered without the job's identifier")
        return Observation(Handle(spec.scope, job_id), Seen.PENDING, status="SUBMITTED")

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Say where jobs are; those that are not in the answer are MISSING.

        Nothing is said about a record that cannot be read, and if that does not even have its identifier, about
        none that could be meant by it; it is logged once.
        """
        reply = await self._call("DescribeJobs", jobs=list(ids))
        found: list[Observation] = []
        unread: set[object] = set()
        for job in reply.get("jobs") or ():
            try:
                found.append(observation(job, scope))
            except (KeyError, TypeError, ValueError, AttributeError) as error:  # noqa: PERF203
                job_id = job.get("jobId") if isinstance(job, Mapping) else None
                unread.add(job_id if isinstance(job_id, str) else None)
                self._log_malformed(job_id, error)
        if None not in unread:
            answered = unread | {one.handle.id for one in found}
            found += [_missing(scope, one) for one in ids if one not in answered]
        return found

    def _log_malformed(self, job_id: object, error: Exception) -> None:
        known_as = str(job_id)
        if known_as not in self._malformed:
            self._malformed.add(known_as)
            log.warning(SERVICE.event("describe.malformed"), job_id=bounded(known_as), error=type(error).__name__)

    async def find(self, scope: str, started_by: str) -> Sequence[Handle]:
        """
        List the jobs whose names begin with a launch's, in whatever status they are.

        :param started_by: see :func:`launch_spec`; or a launch's mark alone, for jobs of the configured name
        :raises BackendError: REFUSED if one of them has no identifier
        """
        prefix = started_by
        if _BARE_UUID.fullmatch(started_by):
            prefix = name_prefix(self._settings.job_name, started_by)
        asked = {"jobQueue": scope, "filters": [{"name": "JOB_NAME", "values": [f"{prefix}-*"]}]}
        jobs = await self._call.pages("ListJobs", "jobSummaryList", **asked)
        try:
            return [Handle(scope, text(job["jobId"])) for job in jobs]
        except (KeyError, TypeError) as error:
            # It has the mark that is looked for: to leave it out could make it run twice.
            raise BackendError(
                Kind.REFUSED,
                "MalformedReply",
                f"ListJobs answered with a record that cannot be read: {type(error).__name__}",
            ) from None

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask for a job to be ended, or not to be begun."""
        await self._call("TerminateJob", jobId=handle.id, reason=stop_reason(reason))

    async def check(self) -> None:
        """
        Describe a job that cannot exist, as the provider's health check does.

        :raises BackendError: with why not
        """
        await self._call("DescribeJobs", jobs=["a" * 32])

    def trials(self) -> Sequence[Trial]:
        """Return what polling and looking for a lost job need; the latter in the job queue that is configured."""
        queue = self._settings.job_queue
        return (
            Trial("DescribeJobs", self.check),
            Trial(f"ListJobs, job queue {queue!r}", partial(self.find, queue, str(UUID(int=0)))),
        )

    @property
    def untried(self) -> str:
        """What would need a job."""
        return "SubmitJob, with the job definition, and TerminateJob; both would need a job"


def _missing(scope: str, job_id: str) -> Observation:
    return Observation(
        handle=Handle(scope, job_id), seen=Seen.MISSING, status="MISSING", reason="Batch does not know the job"
    )


_ALWAYS_THERE: Final = {
    "DescribeJobs": frozenset({"jobs"}),
    "ListJobs": frozenset({"jobSummaryList"}),
}
_METHODS: Final = {
    "DescribeJobs": "describe_jobs",
    "ListJobs": "list_jobs",
    "SubmitJob": "submit_job",
    "TerminateJob": "terminate_job",
}
