"""
Replies of Batch: decoders, and what jobs mean. Pure functions.

Imports ``core``, ``names`` and ``requests`` beside it, and ``endings``, ``parsing`` and ``requests`` of the folder
above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypedDict

from msgspec.structs import replace

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.sizes import VCPU, Size, memory_mib
from ecs_async_executor.services.batch.names import mark_in
from ecs_async_executor.services.batch.requests import containers_of
from ecs_async_executor.services.endings import ending_in, is_host_lost, is_out_of_memory, is_spot
from ecs_async_executor.services.parsing import UNREADABLE, decoder_of, first_amount, text, with_seldom_fields
from ecs_async_executor.services.requests import EXECUTOR_MARK, is_from_executor

# --- decoding -----------------------------------------------------------------------------------------------


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
    stoppedAt: float | None
    container: _Container | None
    ecsProperties: _EcsProperties | None
    attempts: list[_Attempt] | None


class _Need(TypedDict, total=False):
    type: str
    value: str | None


class _Needs(TypedDict, total=False):
    vcpus: float | None
    memory: float | None
    environment: list[_Variable] | None
    resourceRequirements: list[_Need] | None


class _TaskNeeds(TypedDict, total=False):
    containers: list[_Needs] | None


class _EcsNeeds(TypedDict, total=False):
    taskProperties: list[_TaskNeeds] | None


class _JobNeeds(TypedDict, total=False):
    jobId: str
    container: _Needs | None
    ecsProperties: _EcsNeeds | None


class _Sizes(TypedDict, total=False):
    jobs: list[_JobNeeds]


class _Submitted(TypedDict, total=False):
    jobId: str


class _Described(TypedDict, total=False):
    jobs: list[_Job]


DECODERS: Final = {
    "SubmitJobResponse": decoder_of(_Submitted),
    "DescribeJobsResponse": decoder_of(_Described, seldom=_Sizes),
}

# --- jobs ---------------------------------------------------------------------------------------------------

_SEEN: Final = {"RUNNING": Seen.RUNNING, "SUCCEEDED": Seen.STOPPED, "FAILED": Seen.STOPPED}
"""What a job's status means; with any other status the job waits."""
_QUEUED: Final = "RUNNABLE"
"""The status of a job that waits for a place. Batch names a reason late, or none at all."""
_USUAL: Final = "Essential container in task exited"
_WAITS: Final = re.compile(r"[A-Z][A-Z0-9_]*(:[A-Z0-9_]+)?( - |$)")
"""How Batch's reasons for a job that stays RUNNABLE begin: with a code, ``CAPACITY:...`` or ``UNDETERMINED``."""
_TIME_LIMIT: Final = re.compile(r"cancell?ed by JobStateTimeLimit action", re.IGNORECASE)
"""A person has configured that for the job's queue. Whether ``isCancelled`` is true then is not documented."""
_OUT_OF_TIME: Final = re.compile(r"\bduration exceeded timeout\b", re.IGNORECASE)
"""A person has configured that for the job."""
_MISFIT: Final = re.compile(r"MISCONFIGURATION:")
"""How Batch's reasons begin for a job that gets no place there, whatever room there is."""
_NO_ROOM: Final = re.compile(r"(^|: *)CAPACITY:")
_NEVER_STARTED: Final = "Task failed to start"


def observation(job: Mapping[str, Any], scope: str) -> Observation:
    """
    Return what a record of DescribeJobs means.

    Batch can try a job several times: as long as the job is not over, the end of an attempt decides nothing.

    :param scope: the job queue, as it is named in requests
    :raises KeyError, TypeError, ValueError, AttributeError: if the record is malformed
    """
    status = text(job["status"])
    container = ran_airflow(job)
    attempts: Sequence[Mapping[str, Any]] = job.get("attempts") or ()
    seen = _SEEN.get(status, Seen.PENDING)
    started = status in {"RUNNING", "SUCCEEDED"} or any(map(_has_started, [*attempts, job]))
    exit_code = None
    if status == "SUCCEEDED":
        exit_code = int(container.get("exitCode") or 0)
    elif status == "FAILED" and container.get("exitCode") is not None:
        exit_code = int(container["exitCode"])
    status_reason = text(job.get("statusReason") or "")
    by_hand = _ended_by_hand(job, status_reason)
    reason, ending = "", None
    if seen is Seen.STOPPED:
        container_reason = text(container.get("reason") or "")
        tries = len(attempts)
        if exit_code is not None:
            reason = _exit_reason(exit_code, container_reason, status_reason, tries)
        else:
            reason = _end_reason(container_reason, status_reason, tries, started=started)
        if exit_code == 0:
            if is_out_of_memory(container_reason):
                ending = Ending.OOM  # of a process in it: Airflow's own has lived on
        else:
            asked = by_hand or is_from_executor(status_reason)
            ending = _ending(exit_code, container_reason, status_reason, asked=asked, started=started)
    elif seen is Seen.PENDING and (not attempts or _WAITS.match(status_reason)):
        reason = status_reason  # without a code, after an attempt, it can be the reason for that attempt's end
    return Observation(
        handle=Handle(scope, text(job["jobId"])),
        seen=seen,
        status=status,
        exit_code=exit_code,
        started=started,
        reason=reason,
        by_hand=by_hand,
        created_at=_seconds(job.get("createdAt")),
        started_by=mark_in(job.get("jobName")),
        stopped_at=_seconds(job.get("stoppedAt")),
        ending=ending,
        queued=status == _QUEUED and not _MISFIT.match(status_reason),
    )


def _ending(
    exit_code: int | None, container_reason: str, status_reason: str, *, asked: bool, started: bool
) -> Ending:
    """
    Return the kind of an end without success: what ended the job, else what became of its container.

    :param asked: a person, a limit of the job's queue or an executor has ended the job
    """
    if asked:
        # The limit of a queue for jobs that find no room only ends that wait.
        had_no_room = _TIME_LIMIT.search(status_reason) and _NO_ROOM.search(status_reason)
        return Ending.CAPACITY if had_no_room else Ending.STOPPED
    if is_host_lost(status_reason):
        return Ending.HOST
    if is_spot(status_reason):
        return Ending.SPOT
    if _OUT_OF_TIME.search(status_reason):
        return Ending.STOPPED
    words = container_reason if exit_code is not None else f"{container_reason} {status_reason}"
    return ending_in(words, exit_code, started=started)


def sized(found: list[Observation], reply: Mapping[str, Any]) -> list[Observation]:
    """Return observations with the size of each container that the next try may be made bigger for."""
    ended = {one.handle.id for one in found if one.ending is not None}
    if not ended:
        return found
    sizes: dict[str, Size | None] = {}
    for job in with_seldom_fields(reply).get("jobs") or ():
        with suppress(*UNREADABLE):
            if (name := job["jobId"]) in ended:
                sizes[name] = size_of(job)
    return [one if one.ending is None else replace(one, size=sizes.get(one.handle.id)) for one in found]


def size_of(job: Mapping[str, Any]) -> Size | None:
    """
    Return what Airflow's container of a job had, the job's overrides included, as Batch shows it.

    :raises KeyError, TypeError, ValueError, AttributeError: if the record is malformed
    """
    container = ran_airflow(job)
    needs = {need["type"]: need.get("value") for need in container.get("resourceRequirements") or ()}
    vcpus = float(needs.get("VCPU") or container.get("vcpus") or 0)
    cpu = round(vcpus * VCPU) or None
    memory = first_amount((needs.get("MEMORY"), container.get("memory")), memory_mib)
    return Size(cpu, memory) if cpu or memory else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else float(milliseconds) / 1000.0


def _ended_by_hand(job: Mapping[str, Any], status_reason: str) -> bool:
    if _TIME_LIMIT.search(status_reason):
        return True
    return bool(job.get("isTerminated") or job.get("isCancelled")) and not is_from_executor(status_reason)


def ran_airflow(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the container with Airflow's command; among several, the one with our mark in its environment."""
    if (single := job.get("container")) or not (several := job.get("ecsProperties")):
        return single or {}
    containers = containers_of(several)
    mark = EXECUTOR_MARK["name"]
    found = [one for one in containers if any(v.get("name") == mark for v in one.get("environment") or ())]
    found = found or containers
    return found[0] if len(found) == 1 else {}


def _has_started(attempt: Mapping[str, Any]) -> bool:
    """Return whether user code can have run: there was a container, and Batch did not give up before it ran."""
    if (attempt.get("container") or {}).get("exitCode") is not None:
        return True
    return attempt.get("startedAt") is not None and attempt.get("statusReason") != _NEVER_STARTED


def _exit_reason(exit_code: int, container_reason: str, status_reason: str, tries: int) -> str:
    """Return what there is to say about a container that has exited."""
    if exit_code == 0 and not is_out_of_memory(container_reason):
        return ""
    said = f"Batch container exited {exit_code}{_after(tries)}"
    if container_reason:
        said += f" ({container_reason})"
    usual = exit_code == 0 or status_reason in {"", _USUAL, container_reason}
    return said if usual else f"{said}: {status_reason}"


def _end_reason(container_reason: str, status_reason: str, tries: int, *, started: bool) -> str:
    """Return what there is to say about a job that has failed without an exit code."""
    end = "without an exit code from its container" if started else "before its container ran"
    if container_reason and status_reason == _NEVER_STARTED:
        status_reason = ""  # the sentence says it already
    whys = "; ".join(dict.fromkeys(one for one in (status_reason, container_reason) if one))
    said = f"Batch job failed {end}{_after(tries)}"
    return f"{said}: {whys}" if whys else said


def _after(tries: int) -> str:
    return f" after {tries} attempts by Batch" if tries > 1 else ""


def missing(scope: str, job_id: str) -> Observation:
    """Return what it means that DescribeJobs left out a job that was asked for."""
    return Observation(
        handle=Handle(scope, job_id), seen=Seen.MISSING, status="MISSING", reason="Batch does not know the job"
    )


# --- launches -----------------------------------------------------------------------------------------------


def launched(reply: Mapping[str, Any], scope: str) -> Observation:
    """
    Return the job in SubmitJob's reply.

    :raises BackendError: if there is none
    """
    job_id = reply.get("jobId")
    if not isinstance(job_id, str) or not job_id:
        raise BackendError(Kind.AMBIGUOUS, "MalformedReply", "SubmitJob answered without a job identifier")
    return Observation(Handle(scope, job_id), Seen.PENDING, status="SUBMITTED")
