"""What AWS's words about a container without success mean for the kind of its end, on ECS and on Batch."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.services.batch import replies as batch
from ecs_async_executor.services.ecs import replies as ecs
from ecs_async_executor.services.requests import stop_reason
from tests.services.batch.samples import job
from tests.services.ecs.samples import task

STARTED = 1_767_323_050.0
USUAL = "Essential container in task exited"
OOM = "OutOfMemoryError: Container killed due to memory usage"
PULL = "CannotPullContainerError: Error response from daemon: manifest not found"
SECRET = "ResourceInitializationError: unable to pull secrets or registry auth: connection timed out"
NO_COMMAND = 'CannotStartContainerError: OCI runtime create failed: exec: "python": executable file not found'
INTERFACE = "Timeout waiting for network interface provisioning to complete."
SPOT = "Your Spot Task was interrupted."
HOST = "Host EC2 (instance i-0123) terminated."
DRAINED = "Container instance deregistration forced by user"
MAINTENANCE = "ECS is performing maintenance on the underlying infrastructure hosting the task."
TIMEOUT = "Job attempt duration exceeded timeout"
MISCONFIGURED = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement is higher"
NO_INSTANCES = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no instances"
LIMIT = "Canceled by JobStateTimeLimit action due to reason: "


def ecs_task(code: str | None = "EssentialContainerExited", why: str = USUAL, /, **container: Any) -> Any:
    """An ECS task that ran and stopped."""
    return task("STOPPED", container, startedAt=STARTED, stopCode=code, stoppedReason=why)


def unstarted(why: str, code: str = "TaskFailedToStart", **container: Any) -> Any:
    return task("STOPPED", container, stopCode=code, stoppedReason=why)


ECS: list[tuple[Any, Ending | None]] = [
    (task("PENDING"), None),
    (task("RUNNING", startedAt=STARTED), None),
    (task("DEPROVISIONING", stopCode="TaskFailedToStart", stoppedReason=PULL), None),
    (ecs_task(exitCode=0), None),
    (ecs_task("SpotInterruption", SPOT, exitCode=0), Ending.SPOT),
    (ecs_task("TerminationNotice", HOST, exitCode=0), Ending.HOST),
    (ecs_task("InfrastructureHealth", "", exitCode=0), Ending.HOST),
    (ecs_task("UserInitiated", "not wanted", exitCode=0), None),
    (ecs_task(exitCode=0, reason=OOM), Ending.OOM),
    (ecs_task(exitCode=1), Ending.EXIT),
    (task("RUNNING", {"exitCode": 1}, startedAt=STARTED), Ending.EXIT),
    (ecs_task(exitCode=137), Ending.EXIT),
    (ecs_task(exitCode=137, reason=OOM), Ending.OOM),
    (ecs_task(exitCode=137, reason=OOM.replace("Error", "")), Ending.OOM),
    (task("RUNNING", {"exitCode": 137, "reason": OOM}, startedAt=STARTED), Ending.OOM),
    (ecs_task(None, OOM, reason=OOM), Ending.OOM),
    (unstarted("Task failed to start", reason=PULL), Ending.IMAGE),
    (unstarted(PULL), Ending.IMAGE),
    (unstarted(PULL.replace("Container", "ImageManifest")), Ending.IMAGE),
    (unstarted(PULL.replace("Container", "ECRContainer")), Ending.IMAGE),
    (unstarted(SECRET), Ending.START),
    (unstarted("Task failed to start", reason=NO_COMMAND), Ending.START),
    (ecs_task(exitCode=127, reason=NO_COMMAND), Ending.START),
    (unstarted(INTERFACE), Ending.START),
    (unstarted("ATTRIBUTE"), Ending.START),
    (unstarted(""), Ending.START),
    (task("STOPPED") | {"containers": []}, Ending.START),
    (unstarted("RESOURCE:MEMORY"), Ending.CAPACITY),
    (unstarted("Capacity is unavailable at this time."), Ending.CAPACITY),
    (unstarted("AGENT"), Ending.CAPACITY),
    (ecs_task("SpotInterruption", SPOT, exitCode=143), Ending.SPOT),
    (ecs_task("SpotInterruption", "", exitCode=137), Ending.SPOT),
    (ecs_task("TerminationNotice", SPOT), Ending.SPOT),
    (unstarted(SPOT, "SpotInterruption"), Ending.SPOT),
    (ecs_task("TerminationNotice", HOST), Ending.HOST),
    (ecs_task("InfrastructureHealth", ""), Ending.HOST),
    (ecs_task("UserInitiated", HOST), Ending.HOST),
    (ecs_task("UserInitiated", DRAINED, exitCode=143), Ending.HOST),
    (ecs_task("ServiceSchedulerInitiated", MAINTENANCE), Ending.HOST),
    (unstarted(HOST), Ending.HOST),
    (ecs_task("UserInitiated", "not wanted", exitCode=143), Ending.STOPPED),
    (ecs_task("UserInitiated", "spot interrupts me", exitCode=143), Ending.STOPPED),
    (ecs_task("UserInitiated", "", exitCode=137), Ending.STOPPED),
    (ecs_task("UserInitiated", stop_reason("revoked")), Ending.STOPPED),
    (unstarted("not wanted", "UserInitiated"), Ending.STOPPED),
    (ecs_task("ServiceSchedulerInitiated", "Scaling activity", exitCode=143), Ending.STOPPED),
    (ecs_task(), Ending.LOST),
    (ecs_task(None, ""), Ending.LOST),
    (ecs_task(reason="DockerTimeoutError: Could not transition to stopped; timed out"), Ending.LOST),
    (unstarted("", reason="DockerTimeoutError: Could not transition to created; timed out"), Ending.START),
]


def batch_job(exit_code: int | None, why: str = USUAL, reason: str | None = None, **more: Any) -> Any:
    """A Batch job that ran and failed."""
    container = {"exitCode": exit_code, "reason": reason}
    return job("FAILED", statusReason=why, container=container, **{"startedAt": 1_767_323_050_000, **more})


def unstarted_job(why: str, reason: str | None = None, **more: Any) -> Any:
    return batch_job(None, why, reason, startedAt=None, attempts=[], **more)


BATCH: list[tuple[Any, Ending | None]] = [
    (job("RUNNABLE", statusReason=NO_INSTANCES), None),
    (job("RUNNING", startedAt=1_767_323_050_000), None),
    (job("SUCCEEDED", container={"exitCode": 0}), None),
    (batch_job(0), None),
    (
        job("RUNNABLE", container={"exitCode": 137, "reason": OOM}, attempts=[{"container": {"exitCode": 137}}]),
        None,
    ),
    (batch_job(1), Ending.EXIT),
    (job("SUCCEEDED", container={"exitCode": 4}), Ending.EXIT),
    (batch_job(137), Ending.EXIT),
    (batch_job(137, reason=OOM), Ending.OOM),
    (unstarted_job("Task failed to start", PULL), Ending.IMAGE),
    (unstarted_job(PULL), Ending.IMAGE),
    (unstarted_job(SECRET), Ending.START),
    (unstarted_job("Task failed to start", NO_COMMAND), Ending.START),
    (batch_job(127, reason=NO_COMMAND), Ending.START),
    (unstarted_job("Dependent Job failed"), Ending.START),
    (unstarted_job(""), Ending.START),
    (unstarted_job(LIMIT + NO_INSTANCES, isCancelled=True), Ending.CAPACITY),
    (unstarted_job(LIMIT + NO_INSTANCES), Ending.CAPACITY),
    (batch_job(143, SPOT), Ending.SPOT),
    (batch_job(None, SPOT), Ending.SPOT),
    (batch_job(None, HOST), Ending.HOST),
    (unstarted_job(HOST), Ending.HOST),
    (batch_job(143, "not wanted", isTerminated=True), Ending.STOPPED),
    (batch_job(143, HOST, isTerminated=True), Ending.STOPPED),
    (unstarted_job(f"no more {NO_INSTANCES}", isCancelled=True), Ending.STOPPED),
    (unstarted_job(LIMIT + MISCONFIGURED, isCancelled=True), Ending.STOPPED),
    (batch_job(143, stop_reason("revoked"), isTerminated=True), Ending.STOPPED),
    (batch_job(143, TIMEOUT), Ending.STOPPED),
    (batch_job(137, TIMEOUT), Ending.STOPPED),
    (batch_job(None), Ending.LOST),
    (batch_job(None, ""), Ending.LOST),
]


@pytest.mark.parametrize(("record", "ending"), ECS)
def test_the_kind_of_an_end_on_ecs(record: dict[str, Any], ending: Ending | None) -> None:
    assert ecs.observation(record, "airflow", "scope").ending is ending


@pytest.mark.parametrize(("record", "ending"), BATCH)
def test_the_kind_of_an_end_on_batch(record: dict[str, Any], ending: Ending | None) -> None:
    assert batch.observation(record, "q").ending is ending


def test_the_tables_have_every_kind_that_a_container_can_end_with() -> None:
    containers = set(Ending) - {Ending.REFUSED}
    assert {ending for _, ending in ECS} - {None} == containers
    assert {ending for _, ending in BATCH} - {None} == containers
