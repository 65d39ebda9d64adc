"""The size that a container had, read at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.core.backend import Observation
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.batch import replies as batch_replies
from ecs_async_executor.services.ecs import replies as ecs_replies
from tests.services.batch import samples as batch
from tests.services.ecs import samples as ecs
from tests.services.fakes import FakeClient

OOM = "OutOfMemoryError: Container killed due to memory usage"
Records = list[dict[str, Any]]


def untouched(_: str, reply: dict[str, Any]) -> dict[str, Any]:
    """Hand over what botocore or a client of a test makes: every field."""
    return reply


def decoded(shape: str, reply: dict[str, Any]) -> dict[str, Any]:
    """Hand over what the typed decoder makes of the bytes."""
    return {**ecs_replies.DECODERS, **batch_replies.DECODERS}[shape](json.dumps(reply).encode())


read = pytest.mark.parametrize("read", [untouched, decoded])
Read = Callable[[str, dict[str, Any]], dict[str, Any]]


def of_tasks(read: Read, *tasks: Any) -> list[Observation]:
    reply = read("DescribeTasksResponse", {"tasks": list(tasks)})
    found = [ecs_replies.observation(task, "airflow", "c") for task in reply["tasks"] if isinstance(task, dict)]
    return ecs_replies.sized(found, reply, "airflow")


def of_jobs(read: Read, *jobs: Any) -> list[Observation]:
    reply = read("DescribeJobsResponse", {"jobs": list(jobs)})
    found = [batch_replies.observation(job, "q") for job in reply["jobs"] if isinstance(job, dict)]
    return batch_replies.sized(found, reply)


# --- ECS ----------------------------------------------------------------------------------------------------

FAILED = {"exitCode": 1}
ECS: dict[str, tuple[dict[str, Any], Size | None]] = {
    "the task's": (ecs.task("STOPPED", FAILED, cpu="1024", memory="4096"), Size(1024, 4096)),
    "the task's, not its container's": (
        ecs.task("STOPPED", {**FAILED, "cpu": "10", "memory": "2048"}, cpu="1024", memory="4096"),
        Size(1024, 4096),
    ),
    "what the request has made of the task's": (
        ecs.task("STOPPED", FAILED, cpu="256", memory="512", overrides={"cpu": "2048", "memory": "8192"}),
        Size(2048, 8192),
    ),
    "with units, as the request had it": (
        ecs.task("STOPPED", FAILED, overrides={"cpu": "2 vCPU", "memory": "8 GB"}),
        Size(2048, 8192),
    ),
    "its container's": (ecs.task("STOPPED", {**FAILED, "cpu": "10", "memory": "2048"}), Size(10, 2048)),
    "what the request has made of its container's": (
        ecs.task(
            "STOPPED",
            {**FAILED, "cpu": "0", "memory": "2048"},
            **ecs.container(cpu=512, memory=4096, environment=[{"name": "a", "value": "b"}]),
        ),
        Size(512, 4096),
    ),
    "what its container is promised": (
        ecs.task("STOPPED", {**FAILED, "cpu": "0", "memoryReservation": "300"}),
        Size(None, 300),
    ),
    "no other container's": (
        ecs.task("STOPPED", FAILED) | {"containers": [{"name": "side", "memory": "9"}, {"name": "airflow"}]},
        None,
    ),
    "none": (ecs.task("STOPPED", FAILED), None),
    "no number": (ecs.task("STOPPED", FAILED, cpu="many", memory="0"), None),
    "of no containers at all": (ecs.task("STOPPED", cpu="256", memory="512") | {"containers": []}, Size(256, 512)),
}


@read
@pytest.mark.parametrize("name", ECS)
def test_the_size_of_a_task(read: Read, name: str) -> None:
    record, size = ECS[name]
    [seen] = of_tasks(read, record)
    assert seen.ending is not None
    assert seen.size == size


@read
def test_the_size_is_that_of_the_same_task(read: Read) -> None:
    tasks = [
        ecs.task("STOPPED", FAILED, memory=str(number)) | {"taskArn": f"{ecs.ARN}{number}"}
        for number in range(1, 9)
    ]
    assert [seen.size for seen in of_tasks(read, *tasks)] == [Size(memory=number) for number in range(1, 9)]


@read
@pytest.mark.parametrize(
    "record",
    [ecs.task(cpu="256", memory="512"), ecs.task("STOPPED", {"exitCode": 0}, cpu="256", memory="512")],
    ids=["running", "succeeded"],
)
def test_of_a_task_that_runs_or_has_succeeded_no_size_is_read(read: Read, record: dict[str, Any]) -> None:
    assert [seen.size for seen in of_tasks(read, record)] == [None]


@pytest.mark.parametrize(
    "malformed",
    [
        {"containers": "none"},
        {"overrides": "none"},
        {"overrides": {"containerOverrides": {"airflow": {}}}},
        {"cpu": 256},
        {"cpu": None, "memory": ["512"]},
        {"taskArn": None},
    ],
    ids=str,
)
def test_a_size_that_cannot_be_read_spoils_no_end(malformed: dict[str, Any]) -> None:
    good, bad = (
        ecs.task("STOPPED", FAILED, memory="512"),
        {**ecs.task("STOPPED", FAILED), "taskArn": f"{ecs.ARN}2"},
    )
    reply = {"tasks": [good, bad | malformed, "no task"]}
    sound = [ecs_replies.observation(task, "airflow", "c") for task in (good, bad)]
    for found in (reply, decoded("DescribeTasksResponse", reply)):
        seen, broken = ecs_replies.sized(sound, found, "airflow")
        assert seen.size == Size(memory=512)
        assert broken.ending is Ending.EXIT


def test_the_backend_tells_the_size_of_what_has_failed() -> None:
    client = FakeClient(describe_tasks={"tasks": [ecs.task("STOPPED", FAILED, cpu="256", memory="512")]})
    [seen] = ecs.use(client, lambda backend: backend.describe("c", [f"{ecs.ARN}1"]))
    assert seen.size == Size(256, 512)


def test_a_launch_that_is_repeated_after_its_end_tells_the_size_too() -> None:
    client = FakeClient(run_task={"tasks": [ecs.task("STOPPED", FAILED, cpu="256", memory="512")]})
    seen = ecs.use(client, lambda backend: backend.launch(ecs.spec(), "token"))
    assert seen.size == Size(256, 512)


# --- Batch --------------------------------------------------------------------------------------------------


def needs(**values: str) -> list[dict[str, str]]:
    return [{"type": type_, "value": value} for type_, value in values.items()]


def several(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"ecsProperties": {"taskProperties": [{"containers": list(containers)}]}}


AIRFLOW: dict[str, Any] = {"environment": [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}]}
BATCH: dict[str, tuple[dict[str, Any], Size | None]] = {
    "requirements": ({"container": {"resourceRequirements": needs(VCPU="0.25", MEMORY="2048")}}, Size(256, 2048)),
    "with GPUs": ({"container": {"resourceRequirements": needs(GPU="1", VCPU="4", MEMORY="1")}}, Size(4096, 1)),
    "as job definitions had it": ({"container": {"vcpus": 2, "memory": 512}}, Size(2048, 512)),
    "requirements count before that": (
        {"container": {"vcpus": 2, "memory": 512, "resourceRequirements": needs(MEMORY="700")}},
        Size(2048, 700),
    ),
    "Airflow's of several containers": (
        several(
            {"resourceRequirements": needs(MEMORY="1")},
            {**AIRFLOW, "resourceRequirements": needs(MEMORY="2")},
        ),
        Size(None, 2),
    ),
    "none": ({"container": {}}, None),
    "no container": ({}, None),
}  # fmt: skip


@read
@pytest.mark.parametrize("name", BATCH)
def test_the_size_of_a_job(read: Read, name: str) -> None:
    more, size = BATCH[name]
    [seen] = of_jobs(read, batch.job("FAILED", **more))
    assert seen.ending is not None
    assert seen.size == size


@read
@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_of_a_job_that_runs_or_has_succeeded_no_size_is_read(read: Read, status: str) -> None:
    [seen] = of_jobs(read, batch.job(status, container={"vcpus": 2, "memory": 512}))
    assert seen.size is None


def test_requirements_that_cannot_be_read_spoil_no_end() -> None:
    jobs = [
        batch.job("FAILED", jobId="1", container={"vcpus": "many", "memory": 512}),
        batch.job("FAILED", jobId="2", container={"resourceRequirements": ["MEMORY"]}),
        batch.job("FAILED", jobId="3", container={"memory": 512}),
    ]
    for read in (untouched, decoded):
        assert [seen.size for seen in of_jobs(read, *jobs)] == [None, None, Size(memory=512)]


def test_the_backend_tells_the_size_of_a_job_that_has_failed() -> None:
    client = FakeClient(describe_jobs={"jobs": [batch.job("FAILED", container={"vcpus": 1, "memory": 512})]})
    [seen] = batch.use(client, lambda backend: backend.describe("q", [batch.JOB]))
    assert seen.size == Size(1024, 512)


# --- out of memory, and exit code 0 -------------------------------------------------------------------------


def test_a_task_whose_airflow_outlived_a_killed_process_tells_of_the_lack_of_memory() -> None:
    main = {"exitCode": 0, "reason": OOM}
    [seen] = of_tasks(untouched, ecs.task("STOPPED", main, stopCode="EssentialContainerExited", memory="512"))
    assert (seen.exit_code, seen.ending, seen.size) == (0, Ending.OOM, Size(memory=512))
    assert seen.reason == f"ECS container exited 0 ({OOM})"


def test_a_job_whose_airflow_outlived_a_killed_process_tells_of_the_lack_of_memory() -> None:
    container = {"exitCode": 0, "reason": OOM, "memory": 512}
    [seen] = of_jobs(untouched, batch.job("SUCCEEDED", container=container, statusReason="as usual"))
    assert (seen.exit_code, seen.ending, seen.size) == (0, Ending.OOM, Size(memory=512))
    assert seen.reason == f"Batch container exited 0 ({OOM})"


@pytest.mark.parametrize("reason", ["", "done", "CannotPullContainerError: once"])
def test_other_words_about_a_success_are_no_end(reason: str) -> None:
    [seen] = of_tasks(untouched, ecs.task("STOPPED", {"exitCode": 0, "reason": reason}))
    assert (seen.ending, seen.reason) == (None, "")
    [seen] = of_jobs(untouched, batch.job("SUCCEEDED", container={"exitCode": 0, "reason": reason}))
    assert (seen.ending, seen.reason) == (None, "")
