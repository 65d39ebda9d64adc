"""What people read of a Batch job: scripted replies, and a local Batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services import batch
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.logs import LogStream
from tests.services.batch.samples import JOB, job
from tests.services.fakes import FakeClient, FakeFactory, refusal
from tests.services.samples import MARK

ARN = f"arn:aws:batch:eu-north-1:123456789012:job/{JOB}"
QUEUE = "arn:aws:batch:eu-north-1:123456789012:job-queue/q"


def ask(answer: Any, work: Callable[[Inspector], Any]) -> Any:
    async def run() -> Any:
        factory: Any = FakeFactory(FakeClient(describe_jobs=answer), "batch")
        async with batch.inspecting(factory, "q") as inspector:
            return await work(inspector)

    return asyncio.run(run())


def details(inspector: Inspector) -> Any:
    return inspector.details(JOB)


def look(status: str, **more: Any) -> Details:
    found = ask({"jobs": [job(status, jobArn=ARN, jobQueue=QUEUE, **more)]}, details)
    assert isinstance(found, Details)
    return found


def container(**more: Any) -> dict[str, Any]:
    needs = [{"type": "VCPU", "value": "0.5"}, {"type": "MEMORY", "value": "1024"}, {"type": "GPU", "value": "1"}]
    return {"image": "repository/airflow:3", "resourceRequirements": needs, **more}


def stream(name: str, group: str = "/aws/batch/job") -> LogStream:
    return LogStream(group, name, "eu-north-1")


def test_a_job_is_described_for_people() -> None:
    found = look(
        "RUNNING",
        container=container(logStreamName="d/default/1"),
        startedAt=1_767_323_050_000,
        jobDefinition="arn:aws:batch:eu-north-1:123456789012:job-definition/d:1",
        platformCapabilities=["FARGATE"],
    )
    assert found.observation.seen is Seen.RUNNING
    assert found.region == "eu-north-1"
    assert found.definition.endswith("job-definition/d:1")
    assert found.place == "job queue q, FARGATE"
    assert found.size == "0.5 vCPU, 1 GB, 1 GPU"
    assert found.times == (("submitted", 1_767_323_045.25), ("started", 1_767_323_050.0))
    assert found.console_url.endswith(f"#jobs/detail/{JOB}")
    assert found.containers == (
        ContainerDetails(
            "default",
            status="RUNNING",
            image="repository/airflow:3",
            runs_airflow=True,
            attempt=1,
            stream=stream("d/default/1"),
        ),
    )


def attempt(number: int, **more: Any) -> dict[str, Any]:
    ended = {"exitCode": 1, "logStreamName": f"d/default/{number}", **more}
    moments = {"startedAt": number * 1000, "stoppedAt": number * 1000 + 500}
    return {"container": ended, "statusReason": "Essential container in task exited", **moments}


def test_every_attempt_has_its_own_stream() -> None:
    found = look(
        "FAILED",
        attempts=[attempt(1, reason="OutOfMemoryError: killed"), attempt(2)],
        container=container(logStreamName="d/default/2", exitCode=1),
    )
    shown = [(one.attempt, one.status, one.exit_code, one.reason, one.stream) for one in found.containers]
    assert shown == [
        (1, "FAILED", 1, "OutOfMemoryError: killed", stream("d/default/1")),
        (2, "FAILED", 1, "Essential container in task exited", stream("d/default/2")),
    ]
    assert found.airflow_container is found.containers[1]
    assert [word for word, _ in found.times[:4]] == [
        "attempt 1 started",
        "attempt 1 stopped",
        "attempt 2 started",
        "attempt 2 stopped",
    ]


@pytest.mark.parametrize("stale", [{}, {"logStreamName": "d/default/1", "exitCode": 1}])
def test_an_attempt_that_waits_has_no_stream_yet(stale: dict[str, Any]) -> None:
    found = look("RUNNABLE", attempts=[attempt(1)], container=container(**stale))
    assert [one.stream for one in found.containers] == [stream("d/default/1"), None]
    waiting = found.containers[1]
    assert (waiting.attempt, waiting.status, waiting.exit_code) == (2, "RUNNABLE", None)
    assert "it does so once the container runs" in waiting.no_stream


def test_the_attempt_that_runs_comes_after_those_that_have_ended() -> None:
    found = look("RUNNING", attempts=[attempt(1)], container=container(logStreamName="d/default/2"))
    shown = [(one.attempt, one.status, one.exit_code, one.stream) for one in found.containers]
    assert shown == [
        (1, "FAILED", 1, stream("d/default/1")),
        (2, "RUNNING", None, stream("d/default/2")),
    ]


def several() -> dict[str, Any]:
    side = {"name": "side", "logStreamName": "side/1", "logConfiguration": {"logDriver": "splunk"}}
    logged = {"logDriver": "awslogs", "options": {"awslogs-group": "g"}}
    main = {
        "name": "main",
        "environment": [MARK],
        "logStreamName": "main/2",
        "logConfiguration": logged,
    }
    return {"ecsProperties": {"taskProperties": [{"containers": [side, main]}]}}


def test_each_of_several_containers_has_its_own_stream() -> None:
    ended = {"name": "main", "exitCode": 1, "logStreamName": "main/1"}, {"name": "side", "exitCode": 0}
    attempts = [{"taskProperties": [{"containers": list(ended)}], "statusReason": "over"}]
    found = look("RUNNING", attempts=attempts, **several())
    shown = [(one.attempt, one.name, one.runs_airflow, one.exit_code, one.stream) for one in found.containers]
    assert shown == [
        (1, "main", True, 1, stream("main/1", "g")),
        (1, "side", False, 0, None),
        (2, "side", False, None, None),
        (2, "main", True, None, stream("main/2", "g")),
    ]
    assert found.containers[2].no_stream == (
        "container 'side' of attempt 2 has the log driver splunk, and only the output of awslogs can be read"
    )


TASK = "arn:aws:ecs:eu-north-1:123456789012:task/AWSBatch-environment-1/1f2e"
"""The ECS task of a job, as Batch names it from STARTING on."""


def alone(**of_task: Any) -> dict[str, Any]:
    return {"container": container(**of_task)}


def among_several(**of_task: Any) -> dict[str, Any]:
    (task,) = several()["ecsProperties"]["taskProperties"]
    return {"ecsProperties": {"taskProperties": [task | of_task]}}


@pytest.mark.parametrize("made", [alone, among_several])
def test_a_shell_opens_in_the_ecs_task_of_a_job_that_runs_with_it(made: Callable[..., dict[str, Any]]) -> None:
    found = look("RUNNING", **made(taskArn=TASK, enableExecuteCommand=True))
    assert found.takes_exec
    assert found.ecs_task == ("AWSBatch-environment-1", TASK)
    assert not look("STARTING", **made(taskArn=TASK, enableExecuteCommand=True)).takes_exec
    assert not look("RUNNING", **made(taskArn=TASK)).takes_exec
    assert look("RUNNING", **made(taskArn=TASK)).ecs_task is not None


@pytest.mark.parametrize("made", [alone, among_several])
@pytest.mark.parametrize("arn", [None, "arn:aws:ecs:eu-north-1:123456789012:task/1f2e"])
def test_no_shell_opens_where_the_cluster_is_unknown(made: Callable[..., dict[str, Any]], arn: str | None) -> None:
    found = look("RUNNING", **made(taskArn=arn, enableExecuteCommand=True))
    assert not found.takes_exec
    assert found.ecs_task is None


def test_a_job_of_several_containers_on_an_instance_is_one_on_ec2() -> None:
    found = look("RUNNING", platformCapabilities=["EC2"], **among_several(containerInstanceArn="arn:instance"))
    assert found.place == "job queue q, EC2"


def test_a_job_that_batch_has_forgotten_has_neither_details_nor_a_stream() -> None:
    assert ask({"jobs": []}, details) is None
    (container,) = ask({"jobs": []}, lambda inspector: inspector.log_streams(JOB))
    assert container.no_stream.startswith(f"Batch does not know job {JOB} any more")


def test_what_batch_does_not_describe_raises() -> None:
    with pytest.raises(BackendError, match="not you"):
        ask(refusal("AccessDeniedException", "not you", "DescribeJobs"), details)


@pytest.mark.parametrize("broken", [{"status": None}, {"attempts": [7]}, {"createdAt": "yesterday"}])
def test_a_record_that_cannot_be_read_is_an_error_of_the_service(broken: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="malformed record"):
        ask({"jobs": [{**job("RUNNING"), **broken}]}, details)


# --- a local Batch ---------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, keys: None) -> Iterator[Any]:
    pytest.importorskip("moto", reason="needs the extra 'local'")
    from ecs_async_executor.local import LocalEcs

    with LocalEcs(runner="subprocess") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_job_of_the_local_batch_is_described_with_its_attempts(local: Any) -> None:
    submitted = local.client("batch").submit_job(
        jobName="hello",
        jobQueue="default",
        jobDefinition="airflow",
        containerOverrides={"command": ["sh", "-c", "exit 3"]},
        retryStrategy={"attempts": 2},
    )
    local.wait_stopped(2)

    async def look() -> Details | None:
        async with batch.inspecting(ClientFactory(region_name=local.region), "default") as inspector:
            return await inspector.details(submitted["jobId"])

    found = asyncio.run(look())
    assert found is not None
    assert found.place.startswith("job queue default")
    assert [(one.attempt, one.exit_code, one.status) for one in found.containers] == [
        (1, 3, "FAILED"),
        (2, 3, "FAILED"),
    ]
    streams = {one.stream.name for one in found.containers if one.stream is not None}
    assert len(streams) == 2
