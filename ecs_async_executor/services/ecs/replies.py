"""
Replies of ECS: decoders, and what tasks and failures mean. Pure functions.

Imports ``core``, ``requests`` beside it, and ``endings``, ``errors``, ``parsing``, ``redaction`` and ``requests``
of the folder above.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypedDict

from msgspec.structs import replace

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.sizes import Size, cpu_units, memory_mib
from ecs_async_executor.services.ecs.requests import FARGATE_PROVIDERS
from ecs_async_executor.services.endings import ending_in, is_host_lost, is_out_of_memory, is_spot
from ecs_async_executor.services.errors import is_lack_of_room, kind_of_failure
from ecs_async_executor.services.parsing import UNREADABLE, decoder_of, first_amount, text, with_seldom_fields
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.services.requests import is_from_executor

# --- decoding -----------------------------------------------------------------------------------------------


class _Container(TypedDict, total=False):
    name: str
    lastStatus: str
    exitCode: int | None
    reason: str | None


class _Task(TypedDict, total=False):
    taskArn: str
    lastStatus: str
    createdAt: float | None
    startedAt: float | None
    executionStoppedAt: float | None
    stoppedAt: float | None
    startedBy: str | None
    stopCode: str | None
    stoppedReason: str | None
    capacityProviderName: str | None
    containers: list[_Container]


class _SizeOfContainer(TypedDict, total=False):
    name: str
    cpu: str | None
    memory: str | None
    memoryReservation: str | None


class _EnvironmentFile(TypedDict, total=False):
    value: str


class _ContainerOverride(TypedDict, total=False):
    name: str
    environmentFiles: list[_EnvironmentFile] | None
    cpu: int | None
    memory: int | None
    memoryReservation: int | None


class _Overrides(TypedDict, total=False):
    cpu: str | None
    memory: str | None
    containerOverrides: list[_ContainerOverride] | None


class _SizeOfTask(TypedDict, total=False):
    taskArn: str
    cpu: str | None
    memory: str | None
    overrides: _Overrides | None
    containers: list[_SizeOfContainer] | None


class _Failure(TypedDict, total=False):
    arn: str | None
    reason: str | None
    detail: str | None


class _Reply(TypedDict, total=False):
    tasks: list[_Task]
    failures: list[_Failure]


class _Sizes(TypedDict, total=False):
    tasks: list[_SizeOfTask]


_decode: Final = decoder_of(_Reply, seldom=_Sizes)
DECODERS: Final = {"RunTaskResponse": _decode, "DescribeTasksResponse": _decode}

# --- tasks --------------------------------------------------------------------------------------------------

_BEFORE_START: Final = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
_OVER: Final = frozenset({"STOPPED", "DELETED"})
_USUAL_STOP: Final = "EssentialContainerExited"
_FAILED_TO_START: Final = "TaskFailedToStart"
_UNPLACED_STATUS: Final = "PROVISIONING"
_STOPPED_BY_REQUEST: Final = "UserInitiated"
_STOPPED_BY_DEPLOYMENT: Final = "ServiceSchedulerInitiated"
_SPOT_TAKEN_BACK: Final = frozenset({"SpotInterruption", "TerminationNotice"})
_HOST_UNWELL: Final = "InfrastructureHealth"


def observation(task: Mapping[str, Any], container_name: str, scope: str) -> Observation:
    """
    Return what a Task record of RunTask or DescribeTasks means.

    The exit code of the Airflow container decides as soon as there is one: the other containers, and the task
    itself, can take much longer to end.

    :param scope: the cluster, as it is named in requests
    :raises KeyError, TypeError, ValueError, AttributeError: if the record is malformed
    """
    status = text(task["lastStatus"])
    containers = task.get("containers") or ()
    airflow: Mapping[str, Any] = next((one for one in containers if one.get("name") == container_name), {})
    exit_code = airflow.get("exitCode")
    if exit_code is not None:
        exit_code = int(exit_code)
    started = (
        exit_code is not None
        or task.get("startedAt") is not None
        or status == "RUNNING"
        or airflow.get("lastStatus") == "RUNNING"
    )
    if status in _OVER:
        seen = Seen.STOPPED
    elif started and status not in _BEFORE_START:
        seen = Seen.RUNNING
    else:
        seen = Seen.PENDING
    stop_code = task.get("stopCode")
    stopped_reason = text(task.get("stoppedReason") or "")
    container_reason = text(airflow.get("reason") or "")
    reason = ""
    provider = task.get("capacityProviderName")
    if seen is Seen.STOPPED:
        unplaced = not started and stop_code == _FAILED_TO_START and is_lack_of_room(stopped_reason)
    else:
        # Fargate has no room or it has: nothing there waits for a container instance.
        unplaced = status == _UNPLACED_STATUS and provider is not None and provider not in FARGATE_PROVIDERS
    if unplaced and seen is Seen.PENDING:
        reason = f"{_UNPLACED_STATUS}: capacity provider {text(provider)} has no container instance with room yet"
    ending = None
    if exit_code is not None:
        reason = _exit_reason(exit_code, container_reason, stopped_reason, stop_code)
    elif seen is Seen.STOPPED:
        reason = _stop_reason(container_reason, stopped_reason or stop_code or "", started=started)
    if exit_code == 0:
        ending = _ending_in_order(container_reason, stopped_reason, stop_code)
    elif exit_code or (seen is Seen.STOPPED and exit_code is None):
        if unplaced:
            ending = Ending.CAPACITY
        else:
            ending = _ending(exit_code, container_reason, stopped_reason, stop_code, started=started)
    return Observation(
        handle=Handle(scope, text(task["taskArn"])),
        seen=seen,
        status=status,
        exit_code=exit_code,
        started=started,
        reason=reason,
        stop_code=stop_code,
        by_hand=stop_code == _STOPPED_BY_REQUEST
        and not is_host_lost(stopped_reason)
        and not is_from_executor(stopped_reason),
        created_at=_seconds(task.get("createdAt")),
        started_by=task.get("startedBy"),
        unplaced=unplaced,
        queued=unplaced and seen is Seen.PENDING,
        stopped_at=_seconds(task.get("executionStoppedAt") or task.get("stoppedAt")),
        ending=ending,
    )


def _ending_in_order(container_reason: str, stopped_reason: str, stop_code: str | None) -> Ending | None:
    """Return what befell a container that exited 0: Airflow's own process in it can outlive the task's."""
    if is_out_of_memory(container_reason):
        return Ending.OOM
    if is_host_lost(stopped_reason) or stop_code == _HOST_UNWELL:
        return Ending.HOST
    return Ending.SPOT if _is_interruption(stopped_reason, stop_code) else None


def _is_interruption(stopped_reason: str, stop_code: str | None) -> bool:
    """Return whether spot capacity was taken back."""
    return not is_host_lost(stopped_reason) and (stop_code in _SPOT_TAKEN_BACK or is_spot(stopped_reason))


def _ending(
    exit_code: int | None, container_reason: str, stopped_reason: str, stop_code: str | None, *, started: bool
) -> Ending:
    """Return the kind of an end without success: what stopped the task, else what became of the container."""
    if is_host_lost(stopped_reason) or stop_code == _HOST_UNWELL:
        return Ending.HOST
    if stop_code in {_STOPPED_BY_REQUEST, _STOPPED_BY_DEPLOYMENT}:
        return Ending.STOPPED
    if _is_interruption(stopped_reason, stop_code):
        return Ending.SPOT
    if exit_code is not None and stop_code != _FAILED_TO_START:
        return ending_in(container_reason, exit_code, started=started)
    # Without an exit code, what the task lacked is what its container lacked.
    return ending_in(f"{container_reason} {stopped_reason} {stop_code}", exit_code, started=started)


def _exit_reason(exit_code: int, container_reason: str, stopped_reason: str, stop_code: str | None) -> str:
    """Return what there is to say about a container that has exited."""
    if exit_code == 0 and _ending_in_order(container_reason, stopped_reason, stop_code) is None:
        return ""
    said = f"ECS container exited {exit_code}"
    if container_reason:
        said += f" ({container_reason})"
    why = stopped_reason or stop_code
    if stop_code not in {None, _USUAL_STOP} and why != container_reason:
        said += f": {why}"
    return said


def _stop_reason(container_reason: str, task_reason: str, *, started: bool) -> str:
    """Return what there is to say about a task that has stopped without an exit code."""
    end = "without an exit code from its container" if started else "before its container ran"
    if container_reason in task_reason:
        why = task_reason
    elif task_reason in container_reason:
        why = container_reason
    else:
        why = f"{container_reason}; {task_reason}"
    return f"ECS task stopped {end}: {why}" if why else f"ECS task stopped {end}"


def sized(found: list[Observation], reply: Mapping[str, Any], container_name: str) -> list[Observation]:
    """Return observations with the size of each container that the next try may be made bigger for."""
    ended = {one.handle.id for one in found if one.ending is not None}
    if not ended:
        return found
    sizes: dict[str, Size | None] = {}
    for task in with_seldom_fields(reply).get("tasks") or ():
        with suppress(*UNREADABLE):
            if (name := task["taskArn"]) in ended:
                sizes[name] = size_of(task, container_name)
    return [one if one.ending is None else replace(one, size=sizes.get(one.handle.id)) for one in found]


def size_of(task: Mapping[str, Any], container_name: str) -> Size | None:
    """
    Return what a task had, or, where it has no size of its own, what its Airflow container had.

    :raises TypeError, AttributeError: if the record is malformed
    """
    overrides = task.get("overrides") or {}
    override = _named(overrides.get("containerOverrides"), container_name)
    container = _named(task.get("containers"), container_name)
    sources = (overrides, task, override, container)
    cpu = first_amount((source.get("cpu") for source in sources), cpu_units)
    limits = [source.get("memory") for source in sources]
    reserved = [override.get("memoryReservation"), container.get("memoryReservation")]
    memory = first_amount([*limits, *reserved], memory_mib)
    return Size(cpu, memory) if cpu or memory else None


def environment_files(
    reply: Mapping[str, Any], container_name: str, tasks: Collection[str]
) -> dict[str, list[str]]:
    """Return the ARNs of the environment files that launches gave these tasks' Airflow containers."""
    found: dict[str, list[str]] = {}
    for task in with_seldom_fields(reply).get("tasks") or ():
        with suppress(*UNREADABLE):
            if (name := task["taskArn"]) in tasks:
                override = _named((task.get("overrides") or {}).get("containerOverrides"), container_name)
                found[name] = [str(one["value"]) for one in override.get("environmentFiles") or ()]
    return found


def _named(containers: Sequence[Mapping[str, Any]] | None, name: str) -> Mapping[str, Any]:
    return next((one for one in containers or () if one.get("name") == name), {})


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    return value.timestamp() if isinstance(value, datetime) else float(value)


# --- failures -----------------------------------------------------------------------------------------------

_FAILURE_CODE = re.compile(r"[A-Z_]+([: ][A-Z_]+)*")
_DECISIVE: Final = (Kind.CAPACITY, Kind.REFUSED)
"""Of the reasons of several container instances the first of these kinds decides, in this order."""


def missing(scope: str, task_id: str, failure: Mapping[str, Any]) -> Observation:
    """Return what an entry in the ``failures[]`` of DescribeTasks means for the task that was asked for."""
    reason = str(failure.get("reason") or "unknown")
    detail = f" ({failure['detail']})" if failure.get("detail") else ""
    return Observation(
        handle=Handle(scope, task_id),
        seen=Seen.MISSING,
        status=reason,
        reason=f"ECS does not know the task: {reason}{detail}",
    )


def failure_error(failures: Sequence[Mapping[str, Any]]) -> BackendError:
    """
    Return what the ``failures[]`` of RunTask mean; a new reason goes into ``services/errors.py``.

    There is one entry for each container instance: a full one may have room later, whatever the others lack. ECS
    may give the same answer again under the same client token.
    """
    kinds = [kind_of_failure(str(failure.get("reason") or "")) for failure in failures]
    kind = next((kind for kind in _DECISIVE if kind in kinds), kinds[0])
    decisive = failures[kinds.index(kind)]
    reason, detail = str(decisive.get("reason") or "no reason given"), decisive.get("detail")
    if _FAILURE_CODE.fullmatch(reason):
        return BackendError(kind, reason, redacted(str(detail or reason)), token_used=True)
    words = f"{reason} ({detail})" if detail else reason
    return BackendError(kind, "RunTaskFailure", redacted(words), token_used=True)


# --- launches -----------------------------------------------------------------------------------------------


def launched(reply: Mapping[str, Any], container_name: str, scope: str) -> Observation:
    """
    Return the task in RunTask's reply.

    An hour after a task has stopped, ECS answers a repeated client token with its ARN and status only. Such a
    record is reported as PENDING: DescribeTasks says what became of the task.

    :param scope: the cluster, as it is named in requests
    :raises BackendError: if there is none, or its record is malformed
    """
    try:
        tasks, failures = reply.get("tasks") or [], reply.get("failures") or []
        if tasks:
            seen = observation(tasks[0], container_name, scope)
            if seen.seen is Seen.STOPPED and seen.exit_code is None and "containers" not in tasks[0]:
                return Observation(
                    seen.handle,
                    Seen.PENDING,
                    status=seen.status,
                    created_at=seen.created_at,
                    started_by=seen.started_by,
                )
            return seen
        error = failure_error(failures) if failures else None
    except UNREADABLE as problem:
        raise BackendError(
            Kind.AMBIGUOUS, "MalformedReply", f"RunTask answered with a malformed record: {type(problem).__name__}"
        ) from None
    raise error or BackendError(Kind.AMBIGUOUS, "EmptyReply", "RunTask answered with neither tasks nor failures")
