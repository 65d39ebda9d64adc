"""What the lean clients send is what a bare client of the SDK sends, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import web

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.batch import BatchBackend, job_name
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.ecs import EcsBackend
from ecs_async_executor.settings import BatchSettings, EcsSettings
from tests.services.server import answer, served

pytestmark = pytest.mark.usefixtures("keys")

OF_THE_MOMENT = {b"authorization", b"x-amz-date", b"amz-sdk-invocation-id"}
ECS: list[dict[str, Any]] = [
    {"taskDefinition": "family:1", "launchType": "FARGATE"},
    {
        "cluster": "main",
        "count": 1,
        "taskDefinition": "family:1",
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "startedBy": "5f0a3b7e",
        "networkConfiguration": {
            "awsvpcConfiguration": {"subnets": ["subnet-1", "subnet-2"], "assignPublicIp": "DISABLED"}
        },
        "overrides": {
            "cpu": "256",
            "containerOverrides": [
                {"name": "airflow", "command": ["python", "-c", 'print("ü\\n\u2028")'], "environment": []},
                {"name": "sidecar", "memoryReservation": 64, "environment": [{"name": "A", "value": "b"}]},
            ],
        },
        "tags": [{"key": "team", "value": "data"}],
        "propagateTags": "TASK_DEFINITION",
        "enableExecuteCommand": True,
    },
    {
        "taskDefinition": "family",
        "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}],
        "overrides": {"ephemeralStorage": {"sizeInGiB": 30}, "taskRoleArn": "arn:aws:iam::123456789012:role/r"},
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:a == b"}],
    },
]
BATCH: list[dict[str, Any]] = [
    {"jobName": "airflow-mark", "jobQueue": "default", "jobDefinition": "airflow:1"},
    {
        "jobName": "airflow-mark",
        "jobQueue": "default",
        "jobDefinition": "airflow:1",
        "retryStrategy": {"attempts": 1},
        "containerOverrides": {
            "command": ["python", 'print("ü\\n\u2028")'],
            "environment": [{"name": "A", "value": "b"}],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}],
        },
        "tags": {"team": "data"},
        "schedulingPriorityOverride": 3,
    },
]
ASKED: dict[str, list[dict[str, Any]]] = {"ecs": ECS, "batch": BATCH}


class Wire:
    """Keeps the requests that arrive, as they arrive."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self.seen: list[tuple[str, list[tuple[bytes, bytes]], bytes]] = []

    async def serve(self, request: web.Request) -> web.Response:
        headers = [
            (name, b"" if name == b"Host" else value)  # each is served on a port of its own
            for name, value in request.raw_headers
            if name.lower() not in OF_THE_MOMENT
        ]
        self.seen.append((f"{request.method} {request.raw_path}", headers, await request.read()))
        return answer(self._reply)


def spec(request: dict[str, Any], **more: Any) -> LaunchSpec:
    return LaunchSpec(request=request, scope="default", placement="p", bucket="b", **more)


async def send_lean(service: str, requests: Sequence[dict[str, Any]]) -> None:
    clients = ClientFactory(region_name="eu-west-1")
    backend = (
        EcsBackend(clients, EcsSettings(cluster="main", container_name="airflow", region_name="eu-west-1"))
        if service == "ecs"
        else BatchBackend(clients, BatchSettings(job_name="airflow", job_queue="default"))
    )
    async with backend.open():
        for request in requests:
            for checked in (False, True):
                await backend.launch(spec(request, checked=checked), "launch-1")


async def send_bare(service: str, requests: Sequence[dict[str, Any]]) -> None:
    session = AioSession()
    config = AioConfig(retries={"mode": "standard", "total_max_attempts": 1}, user_agent=session.user_agent())
    async with session.create_client(service, region_name="eu-west-1", config=config) as client:
        for request in requests:
            for _ in range(2):
                if service == "ecs":
                    await client.run_task(**request, clientToken="launch-1")
                else:
                    await client.submit_job(**{**request, "jobName": job_name(request["jobName"], "launch-1")})


@pytest.mark.parametrize("service", ASKED)
def test_a_launch_is_on_the_wire_as_a_bare_client_sends_it(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"taskArn": "arn:aws:ecs:eu-west-1:1:task/main/a", "lastStatus": "PENDING"}
    wires = [Wire({"tasks": [task], "failures": [], "jobId": "j", "jobName": "n"}) for _ in range(2)]

    async def run() -> None:
        for wire, send in zip(wires, (send_lean, send_bare), strict=True):
            async with served(wire.serve) as url:
                monkeypatch.setenv("AWS_ENDPOINT_URL", url)
                await send(service, ASKED[service])

    asyncio.run(run())
    assert len(wires[0].seen) == 2 * len(ASKED[service])
    assert wires[0].seen == wires[1].seen


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"taskDefinition": "f", "count": "one"}, "count must be int, not str"),
    "unknown": ({"taskDefinition": "f", "overrides": {"cpus": "1"}}, "cpus is no parameter of overrides"),
    "missing": ({}, "taskDefinition is missing in the request"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_sdk_would_refuse_is_refused_in_the_same_words_and_not_sent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, words = WRONG[name]
    wire = Wire({})

    async def run() -> BackendError:
        async with served(wire.serve) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            with pytest.raises(BackendError) as caught:
                await send_lean("ecs", [{"launchType": "FARGATE", **request}])
            return caught.value

    error = asyncio.run(run())
    assert (error.kind, error.code) == (Kind.INVALID, "ParamValidationError")
    assert error.message == f"the request is malformed: {words}"
    assert wire.seen == []


@pytest.mark.parametrize("service", ["ecs", "batch"])
def test_the_endpoint_of_the_services_depends_on_no_request(service: str) -> None:
    """So that it can be settled by the first."""
    session = AioSession()
    rules = session.get_component("data_loader").load_service_model(service, "endpoint-rule-set-1")
    assert set(rules["parameters"]) <= {"Region", "UseDualStack", "UseFIPS", "Endpoint"}
    model = session.get_component("data_loader").load_service_model(service, "service-2")
    for operation in model["operations"].values():
        assert not operation.keys() & {"staticContextParams", "operationContextParams", "endpoint"}


@pytest.mark.parametrize("service", ["ecs", "batch"])
def test_the_endpoint_is_worked_out_once(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a newer aiobotocore has moved its resolver, and each request pays for it."""
    asked = []

    async def run() -> None:
        async with ClientFactory(region_name="eu-west-1").client(service, lean=True) as client:
            client.meta.events.register("before-endpoint-resolution", lambda **_: asked.append(1))
            method = client.describe_tasks if service == "ecs" else client.describe_jobs
            names = {"tasks": ["a"]} if service == "ecs" else {"jobs": ["a"]}
            for _ in range(3):
                await method(**names)

    async def serve() -> None:
        async with served(Wire({}).serve) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            await run()

    asyncio.run(serve())
    assert len(asked) == 1
