"""What people read of an ECS task: scripted replies, and a local ECS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.logs import LogStream
from tests.services.fakes import FakeClient, FakeFactory, refusal

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/main/0123"
IMAGE = "repository/airflow:3"
DEFINITION = "arn:aws:ecs:eu-west-1:123456789012:task-definition/family:7"


def awslogs(**options: str) -> dict[str, Any]:
    named = {f"awslogs-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"logDriver": "awslogs", "options": named}


LOGGED = {
    "name": "airflow",
    "image": IMAGE,
    "logConfiguration": awslogs(group="g", stream_prefix="p"),
}


def at(second: int) -> datetime:
    return datetime.fromtimestamp(1764345600 + second, tz=timezone.utc)


def task(**more: Any) -> dict[str, Any]:
    return {
        "taskArn": ARN,
        "clusterArn": "arn:aws:ecs:eu-west-1:123456789012:cluster/main",
        "taskDefinitionArn": DEFINITION,
        "lastStatus": "RUNNING",
        "launchType": "FARGATE",
        "containers": [{"name": "airflow", "lastStatus": "RUNNING", "image": IMAGE}],
        **more,
    }


def client_for(*containers: dict[str, Any], **of_task: Any) -> FakeClient:
    definition = {"taskDefinitionArn": DEFINITION, "containerDefinitions": list(containers) or [LOGGED]}
    return FakeClient(
        describe_tasks={"tasks": [task(**of_task)], "failures": []},
        describe_task_definition={"taskDefinition": definition},
    )


def ask(client: FakeClient, work: Callable[[Inspector], Any]) -> Any:
    async def run() -> Any:
        factory: Any = FakeFactory(client)
        async with ecs.inspecting(factory, "main", "airflow", lambda: "family", {}) as inspector:
            return await work(inspector)

    return asyncio.run(run())


def look(client: FakeClient) -> Details:
    found = ask(client, lambda inspector: inspector.details(ARN))
    assert isinstance(found, Details)
    return found


def test_a_task_is_described_for_people() -> None:
    found = look(
        client_for(
            capacityProviderName="FARGATE_SPOT",
            availabilityZone="eu-west-1b",
            cpu="512",
            memory="2048",
            enableExecuteCommand=True,
            createdAt=at(0),
            pullStartedAt=at(5),
            pullStoppedAt=at(9),
            startedAt=at(10),
        )
    )
    assert found.observation.seen is Seen.RUNNING
    assert found.region == "eu-west-1"
    assert found.definition == DEFINITION
    assert found.place == "cluster main, FARGATE_SPOT, eu-west-1b"
    assert found.size == "0.5 vCPU, 2 GB"
    assert [(word, moment - 1764345600) for word, moment in found.times] == [
        ("created", 0),
        ("pull began", 5),
        ("pulled", 9),
        ("started", 10),
    ]
    assert found.takes_exec
    assert found.console_url.endswith("/ecs/v2/clusters/main/tasks/0123?region=eu-west-1")
    assert found.airflow_container == ContainerDetails(
        "airflow",
        status="RUNNING",
        image=IMAGE,
        runs_airflow=True,
        stream=LogStream("g", "p/airflow/0123", "eu-west-1"),
    )


def test_a_task_on_a_container_instance_names_it_and_its_gpus() -> None:
    instance = "arn:aws:ecs:eu-west-1:123456789012:container-instance/main/9f"
    containers = [{"name": "airflow", "lastStatus": "RUNNING", "gpuIds": ["a", "b"]}]
    found = look(client_for(launchType="EC2", containerInstanceArn=instance, containers=containers))
    assert found.place == "cluster main, EC2, container instance 9f"
    assert found.size == "2 GPU"


def test_every_container_has_its_end_and_its_stream() -> None:
    side = {"name": "side", "image": "envoy", "logConfiguration": awslogs(group="s", region="eu-north-1")}
    shown = [
        {"name": "side", "lastStatus": "STOPPED", "exitCode": 143, "runtimeId": "d0c4"},
        {"name": "airflow", "lastStatus": "STOPPED", "exitCode": 137, "reason": "OutOfMemoryError: killed"},
    ]
    found = look(client_for(side, LOGGED, lastStatus="STOPPED", containers=shown, enableExecuteCommand=True))
    ends = [(one.name, one.exit_code, one.reason, one.image, one.runs_airflow) for one in found.containers]
    assert ends == [
        ("side", 143, "", "envoy", False),
        ("airflow", 137, "OutOfMemoryError: killed", IMAGE, True),
    ]
    assert [one.stream for one in found.containers] == [
        LogStream("s", "d0c4", "eu-north-1"),
        LogStream("g", "p/airflow/0123", "eu-west-1"),
    ]
    assert not found.takes_exec


@pytest.mark.parametrize(
    ("configuration", "why"),
    [
        (
            {"logDriver": "awsfirelens"},
            "container 'airflow' has the log driver awsfirelens, and only",
        ),
        ({"logDriver": "none"}, "has the log driver none"),
        (None, "container 'airflow' has no log configuration"),
        (awslogs(group="g"), "set awslogs-stream-prefix"),
    ],
)
def test_a_container_without_a_stream_says_why(configuration: Any, why: str) -> None:
    container = look(client_for({"name": "airflow", "logConfiguration": configuration})).containers[0]
    assert container.stream is None
    assert why in container.no_stream


def test_a_task_definition_is_asked_for_once() -> None:
    client = client_for()

    async def twice(inspector: Inspector) -> None:
        await inspector.details(ARN)
        await inspector.details(ARN)

    ask(client, twice)
    assert client.asked("describe_task_definition") == [{"taskDefinition": DEFINITION}]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            refusal("AccessDeniedException", "no", "DescribeTaskDefinition"),
            "allow it on * (Acc",
        ),
        (refusal("ServerException", "oops", "DescribeTaskDefinition"), "cannot be read: ServerException: oops"),
    ],
)
def test_without_the_task_definition_the_rest_is_there(answer: Exception, why: str) -> None:
    client = client_for(cpu="256")
    client.answers["describe_task_definition"] = answer
    found = look(client)
    assert found.size == "0.25 vCPU"
    assert found.containers[0].status == "RUNNING"
    assert why in found.containers[0].no_stream


def test_a_task_that_never_had_containers_has_its_reason() -> None:
    found = look(
        client_for(containers=[], lastStatus="STOPPED", stopCode="TaskFailedToStart", stoppedReason="no room")
    )
    assert found.containers == ()
    assert "no room" in found.observation.reason


def test_a_task_that_ecs_has_forgotten_has_no_details_but_a_stream() -> None:
    client = client_for(LOGGED, {"name": "side"})
    client.answers["describe_tasks"] = {"tasks": [], "failures": [{"arn": ARN, "reason": "MISSING"}]}
    assert ask(client, lambda inspector: inspector.details(ARN)) is None
    airflow, side = ask(client, lambda inspector: inspector.log_streams(ARN))
    assert client.asked("describe_task_definition") == [{"taskDefinition": "family"}]
    assert airflow.runs_airflow
    assert airflow.stream == LogStream("g", "p/airflow/0123", "eu-west-1")
    assert (
        side.no_stream == "container 'side' has no log configuration, and only the output of awslogs can be read"
    )


def test_the_latest_revision_of_a_family_is_asked_for_again() -> None:
    client = client_for()
    client.answers["describe_tasks"] = {"tasks": [], "failures": [{"arn": ARN, "reason": "MISSING"}]}

    async def twice(inspector: Inspector) -> None:
        await inspector.log_streams(ARN)
        await inspector.log_streams(ARN)

    ask(client, twice)
    assert len(client.asked("describe_task_definition")) == 2


def test_what_ecs_does_not_describe_raises() -> None:
    client = client_for()
    client.answers["describe_tasks"] = refusal("AccessDeniedException", "not you", "DescribeTasks")
    with pytest.raises(BackendError) as caught:
        look(client)
    assert caught.value.kind is Kind.REFUSED


@pytest.mark.parametrize(
    "broken", [{"lastStatus": None}, {"containers": [{"lastStatus": "RUNNING"}]}, {"cpu": "x"}]
)
def test_a_record_that_cannot_be_read_is_an_error_of_the_service(broken: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="malformed record"):
        look(client_for(**broken))


# --- a local ECS -----------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, keys: None) -> Iterator[Any]:
    pytest.importorskip("moto", reason="needs the extra 'local'")
    from ecs_async_executor.local import LocalEcs

    with LocalEcs(runner="subprocess", clusters=["main"]) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_task_of_the_local_ecs_is_described(local: Any) -> None:
    local.register("family", "airflow", logConfiguration=awslogs(group="g", stream_prefix="p"))
    started = local.client("ecs").run_task(
        cluster="main",
        taskDefinition="family",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        overrides={"containerOverrides": [{"name": "airflow", "command": ["sh", "-c", "exit 3"]}]},
    )
    local.wait_stopped()
    arn = started["tasks"][0]["taskArn"]

    async def look() -> Details | None:
        clients = ClientFactory(region_name=local.region)
        async with ecs.inspecting(clients, "main", "airflow", lambda: "family", {}) as inspector:
            return await inspector.details(arn)

    found = asyncio.run(look())
    assert found is not None
    assert found.observation.exit_code == 3
    assert found.place.startswith(f"cluster main, FARGATE, {local.region}")
    assert (found.times[0][0], found.times[-1][0]) == ("created", "stopped")
    (container,) = found.containers
    assert container.exit_code == 3
    assert container.stream == LogStream("g", f"p/airflow/{arn.rpartition('/')[2]}", local.region)
