"""How containers end against their will: too much memory, and images that cannot be had; through boto3."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
Submit = Callable[..., str]

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
# A child takes the memory, as a task's process does below Airflow's supervisor.
GREEDY = (
    "import os, time\n"
    "print('hungry', flush=True)\n"
    "if os.fork() == 0:\n"
    "    eaten = [b'x' * (1 << 20) for _ in range({mib})]\n"
    "    print('full', flush=True)\n"
    "    time.sleep({rest})\n"
    "    os._exit(0)\n"
    "os.wait()\n"
)
ABOVE, BELOW = GREEDY.format(mib=200, rest=600), GREEDY.format(mib=1, rest=0.5)


def requirements(memory: int) -> list[dict[str, str]]:
    return [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": str(memory)}]


def ends(record: dict[str, Any]) -> tuple[Any, Any]:
    (container,) = record["containers"]
    return container.get("exitCode"), container.get("reason")


@pytest.mark.parametrize(
    ("script", "expected"), [(ABOVE, (137, OUT_OF_MEMORY)), (BELOW, (0, None))], ids=["above", "below"]
)
def test_a_task_is_killed_above_the_memory_of_its_container(
    start: Start, run: Run, script: str, expected: tuple[Any, Any]
) -> None:
    ecs = start(runner="subprocess")
    ecs.register("limited", "main", memory=120)
    task = run(ecs.client(), sys.executable, "-c", script, taskDefinition="limited")
    ecs.wait_stopped()
    record = ecs.task(task["taskArn"])
    assert ends(record) == expected
    assert record["stopCode"] == "EssentialContainerExited"
    assert "hungry" in ecs.log(task["taskArn"])


def test_the_request_can_override_the_memory_of_a_container(start: Start, request_for: Run) -> None:
    ecs = start(runner="subprocess")
    ecs.register("limited", "main", size=("4096", "16384"), memory=10_000)
    request = request_for(sys.executable, "-c", ABOVE, taskDefinition="limited")
    request["overrides"]["containerOverrides"][0]["memory"] = 120
    (task,) = ecs.client().run_task(**request)["tasks"]
    ecs.wait_stopped()
    assert ends(ecs.task(task["taskArn"])) == (137, OUT_OF_MEMORY)


def test_what_kills_itself_below_its_limit_was_not_out_of_memory(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    ecs.register("limited", "main", memory=120)
    task = run(ecs.client(), "sh", "-c", "kill -9 $$", taskDefinition="limited")
    ecs.wait_stopped()
    assert ends(ecs.task(task["taskArn"])) == (137, None)


@pytest.mark.parametrize("overridden", [False, True])
def test_a_job_is_killed_above_its_memory(start: Start, overridden: bool) -> None:
    aws = start(runner="subprocess")
    properties = {"image": "local", "resourceRequirements": requirements(10_000 if overridden else 120)}
    aws.register_job("limited", containerProperties=properties)
    client = aws.client("batch")
    overrides: dict[str, Any] = {"command": [sys.executable, "-c", ABOVE]}
    if overridden:
        overrides["resourceRequirements"] = requirements(120)
    job = client.submit_job(
        jobName="hello", jobQueue="default", jobDefinition="limited", containerOverrides=overrides
    )["jobId"]
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["statusReason"]) == ("FAILED", "Essential container in task exited")
    assert (record["container"]["exitCode"], record["container"]["reason"]) == (137, OUT_OF_MEMORY)


def test_a_task_whose_image_is_missing_never_starts(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess", missing_images=["registry.example/*"])
    ecs.register("imageless", "main", image="registry.example/etl:7")
    task = run(ecs.client(), "true", taskDefinition="imageless")
    ecs.wait_stopped()
    record = ecs.task(task["taskArn"])
    code, reason = ends(record)
    assert code is None
    assert reason == (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref "
        "registry.example/etl:7: registry.example/etl:7: not found"
    )
    assert (record["stopCode"], record["stoppedReason"]) == ("TaskFailedToStart", "Task failed to start")
    assert "startedAt" not in record


def test_a_job_whose_image_is_missing_never_starts(start: Start, submit: Submit) -> None:
    aws = start(runner="subprocess", missing_images=["gone:*"])
    aws.register_job(
        "imageless", containerProperties={"image": "gone:1", "resourceRequirements": requirements(512)}
    )
    job = submit(aws.client("batch"), "one", "true", jobDefinition="imageless")
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["statusReason"]) == ("FAILED", "Task failed to start")
    assert record["container"]["reason"].startswith("CannotPullContainerError: ")
    assert not {"exitCode", "startedAt"} & {*record["container"], *record}


def test_an_image_that_nobody_calls_missing_is_there(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess", missing_images=["gone:*"])
    ecs.register("other", "main", image="here:1")
    task = run(ecs.client(), "true", taskDefinition="other")
    ecs.wait_stopped()
    assert ends(ecs.task(task["taskArn"])) == (0, None)
