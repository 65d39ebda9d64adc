"""Sizes: which there are, what AWS says of the others, what limits a process, what is described."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_async_executor.local import Instance, LocalEcs
from ecs_async_executor.local.sizes import FARGATE, Size, amount, check_task

FOREVER = [{"duration": None}]
NONE_LIKE_IT = (
    "No Fargate configuration exists for given values: {} CPU, {} memory. "
    "See the Amazon ECS documentation for the valid values."
)
TOO_MANY_UNITS = "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]


def refusal(call: Callable[..., Any], **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize(
    ("text", "units"), [("512", 512), ("1 vCPU", 1024), (".5vcpu", 512), ("2 GB", 2048), ("x", 0)]
)
def test_amounts_are_read_as_the_api_takes_them(text: str, units: int) -> None:
    assert amount(text) == units


def test_every_size_of_fargate_is_taken_and_none_between() -> None:
    sizes = [Size(cpu, memory) for cpu, memories in FARGATE.items() for memory in memories]
    assert len(sizes) == 3 + 4 + 7 + 13 + 23 + 12 + 12 + 3
    for size in sizes:
        check_task(size, {}, fargate=True, code="ClientException")
        with pytest.raises(Exception, match=f"given values: {size.cpu} CPU, {size.memory - 1} memory"):
            check_task(Size(size.cpu, size.memory - 1), {}, fargate=True, code="ClientException")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"cpu": "1024"}, NONE_LIKE_IT.format(1024, 512)),
        ({"cpu": "300", "memory": "2048"}, NONE_LIKE_IT.format(300, 2048)),
        ({"cpu": "16384", "memory": "36864"}, NONE_LIKE_IT.format(16384, 36864)),
        ({"memory": "4096"}, NONE_LIKE_IT.format(256, 4096)),
        ({"ephemeralStorage": {"sizeInGiB": 20}}, "EphemeralStorage size should be at least 21"),
        ({"ephemeralStorage": {"sizeInGiB": 201}}, "EphemeralStorage size should be at most 200"),
    ],
)
def test_a_task_that_fargate_does_not_have_is_refused(
    start: Start, request_for: Run, overrides: dict[str, Any], message: str
) -> None:
    ecs = start()
    params = request_for()
    params["overrides"] |= overrides
    assert refusal(ecs.client().run_task, **params) == ("InvalidParameterException", message)
    assert len(ecs.ledger) == 0


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"memory": 513}, "The 'memory' setting for container 'main' is greater than for the task."),
        ({"cpu": 257}, TOO_MANY_UNITS),
        ({"cpu": 99_999_999}, TOO_MANY_UNITS),
        ({"resourceRequirements": [{"type": "GPU", "value": "1"}]}, "do not support GPU"),
    ],
)
def test_a_container_that_its_task_cannot_have_is_refused(
    start: Start, request_for: Run, container: dict[str, Any], message: str
) -> None:
    ecs = start()
    params = request_for()
    params["overrides"]["containerOverrides"][0] |= container
    code, said = refusal(ecs.client().run_task, **params)
    assert code == "InvalidParameterException"
    assert message in said


def test_the_cpu_of_all_containers_together_has_to_fit_into_the_task(start: Start, request_for: Run) -> None:
    ecs = start()
    client = ecs.client()
    ecs.register("pair", size=("512", "1024"), cpu=256, sidecars=[{"name": "proxy", "cpu": 256}])
    params = request_for(taskDefinition="pair")
    assert client.run_task(**params)["failures"] == []
    params["overrides"]["containerOverrides"][0] |= {"cpu": 257}
    assert refusal(client.run_task, **params) == ("InvalidParameterException", TOO_MANY_UNITS)
    params["overrides"] |= {"cpu": "1 vCPU", "memory": "2 GB"}
    assert client.run_task(**params)["failures"] == []


def test_a_definition_whose_containers_have_more_cpu_than_the_task_is_refused(start: Start) -> None:
    code, said = refusal(
        start().client().register_task_definition,
        family="odd",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": "local", "cpu": 512}],
    )
    assert (code, said) == ("ClientException", TOO_MANY_UNITS)


def test_a_container_has_no_more_cpu_than_the_largest_instance(start: Start) -> None:
    ecs = start()
    ecs.client().register_task_definition(
        family="unsized", containerDefinitions=[{"name": "main", "image": "local", "memory": 512}]
    )
    needs = {"containerOverrides": [{"name": "main", "cpu": 99_999_999}]}
    code, said = refusal(ecs.client().run_task, taskDefinition="unsized", launchType="EC2", overrides=needs)
    assert (code, said) == ("ClientException", "Invalid 'cpu' setting for container 'main'.")
    assert len(ecs.ledger) == 0


def test_a_definition_for_fargate_needs_a_size_that_it_has(start: Start) -> None:
    client = start().client()
    definition = {
        "family": "odd",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "containerDefinitions": [{"name": "main", "image": "local"}],
    }
    code, said = refusal(client.register_task_definition, cpu="512", memory="512", **definition)
    assert (code, said) == ("ClientException", NONE_LIKE_IT.format(512, 512))
    assert client.register_task_definition(cpu="512", memory="1024", **definition)
    definition["requiresCompatibilities"] = ["EC2"]
    assert client.register_task_definition(cpu="512", memory="512", **definition)


def test_a_gpu_needs_an_instance_that_has_one(start: Start) -> None:
    ecs = start(script=FOREVER, instances={"mixed": [Instance()]})
    ecs.register("plain", network_mode="bridge")
    needs = [{"name": "main", "resourceRequirements": [{"type": "GPU", "value": "1"}]}]
    params = {
        "cluster": "mixed",
        "taskDefinition": "plain",
        "launchType": "EC2",
        "overrides": {"containerOverrides": needs},
    }
    (failure,) = ecs.client().run_task(**params)["failures"]
    assert failure["reason"] == "RESOURCE:GPU"
    ecs.register_instance("mixed", Instance(gpu=1))
    assert ecs.client().run_task(**params)["failures"] == []


def test_sizes_are_described_as_asked_for(start: Start, request_for: Run) -> None:
    ecs = start(script=FOREVER, realistic=False)
    client = ecs.client()
    ecs.register("own", size=("1024", "4096"), cpu=512, memoryReservation=256)
    params = request_for(taskDefinition="own")
    params["overrides"] |= {"cpu": "2 vCPU", "memory": "8 GB", "ephemeralStorage": {"sizeInGiB": 50}}
    params["overrides"]["containerOverrides"][0] |= {"memory": 1024}
    arns = [client.run_task(**one)["tasks"][0]["taskArn"] for one in (params, request_for())]
    large, plain = client.describe_tasks(tasks=arns)["tasks"]
    assert (large["cpu"], large["memory"], large["ephemeralStorage"]) == ("2048", "8192", {"sizeInGiB": 50})
    amounts = ("cpu", "memory", "memoryReservation")
    assert [large["containers"][0].get(name) for name in amounts] == ["512", "1024", "256"]
    assert (plain["cpu"], plain["memory"], plain["ephemeralStorage"]) == ("256", "512", {"sizeInGiB": 20})
    assert [plain["containers"][0].get(name) for name in amounts] == ["0", None, None]


@pytest.mark.parametrize(
    ("task", "container", "killed"),
    [
        (("256", "512"), {"memory": 120}, True),
        (("256", "512"), {}, False),
        (("256", "1024"), {"memory": 800}, False),
    ],
)
def test_the_smaller_limit_of_task_and_container_kills(
    start: Start, request_for: Run, task: tuple[str, str], container: dict[str, int], killed: bool
) -> None:
    ecs = start(runner="subprocess", environment={"PYTHONUNBUFFERED": "1"})
    ecs.register("sized", size=("512", "2048"), memory=1500)
    allocates = "x = b'x' * (200 << 20)"
    params = request_for(sys.executable, "-c", allocates + ("; import time; time.sleep(60)" if killed else ""))
    params |= {"taskDefinition": "sized"}
    params["overrides"] |= {"cpu": task[0], "memory": task[1]}
    params["overrides"]["containerOverrides"][0] |= {"memory": 500, **container}
    (started,) = ecs.client().run_task(**params)["tasks"]
    ecs.wait_stopped()
    (ran,) = ecs.task(started["taskArn"])["containers"]
    assert ran["exitCode"] == (137 if killed else 0)
    assert ran.get("reason", "").startswith("OutOfMemoryError") == killed


def test_the_limit_of_a_task_holds_for_a_container_without_one(start: Start, request_for: Run) -> None:
    ecs = start(runner="subprocess")
    ecs.register("small", size=("256", "512"))
    grows = "import time\nkept = b'x' * (600 << 20)\ntime.sleep(60)"
    doubled = request_for(sys.executable, "-c", grows.replace("60)", "0)"), taskDefinition="small")
    doubled["overrides"] |= {"memory": "1024"}
    params = request_for(sys.executable, "-c", grows, taskDefinition="small")
    arns = [ecs.client().run_task(**one)["tasks"][0]["taskArn"] for one in (params, doubled)]
    ecs.wait_stopped()
    assert [ecs.task(arn)["containers"][0]["exitCode"] for arn in arns] == [137, 0]


# --- Batch ---------------------------------------------------------------------------------------------------


def needs(**amounts: str) -> list[dict[str, str]]:
    return [{"type": kind, "value": value} for kind, value in amounts.items()]


@pytest.mark.parametrize(
    ("platforms", "asked", "message"),
    [
        (["FARGATE"], needs(MEMORY="4000"), "Fargate resource requirements (1.00 vCPU, 4000 MiB) not valid."),
        (["FARGATE"], needs(VCPU="0.25"), "Fargate resource requirements (0.25 vCPU, 4096 MiB) not valid."),
        (["FARGATE"], needs(GPU="1"), "GPU"),
        (["EC2"], needs(VCPU="1.0"), "Value 1.0 for type VCPU in resourceRequirement is not valid."),
    ],
)
def test_a_job_that_nothing_has_is_refused(
    start: Start, platforms: list[str], asked: list[dict[str, str]], message: str
) -> None:
    aws = start()
    properties = {"image": "local", "resourceRequirements": needs(VCPU="1", MEMORY="4096")}
    aws.register_job("sized", containerProperties=properties, platformCapabilities=platforms)
    params = {"jobName": "one", "jobQueue": "default", "jobDefinition": "sized"}
    client = aws.client("batch")
    code, said = refusal(client.submit_job, containerOverrides={"resourceRequirements": asked}, **params)
    assert code == "ClientException"
    assert message in said
    assert client.submit_job(**params)


def test_what_a_job_asks_for_is_described(start: Start) -> None:
    aws = start(script=FOREVER, realistic=False)
    client = aws.client("batch")
    overrides = {"resourceRequirements": needs(MEMORY="1024", GPU="1")}
    job = client.submit_job(
        jobName="one", jobQueue="default", jobDefinition="airflow", containerOverrides=overrides
    )["jobId"]
    container = client.describe_jobs(jobs=[job])["jobs"][0]["container"]
    assert container["resourceRequirements"] == needs(VCPU="1", MEMORY="1024", GPU="1")
