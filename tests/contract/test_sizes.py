"""A size that a launch asks for is taken by the local ECS and Batch, and is what people read of the container."""

from __future__ import annotations

import uuid
from typing import Any

import anyio
import pytest

from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.details import Details
from tests.contract.services import BATCH_SETTINGS, SETTINGS, TUNING, local

COMMAND = ["long", "jwt"]
ON_INSTANCES = {
    "family": "on-instances",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["EC2"],
    "containerDefinitions": [{"name": "main", "image": "local", "memory": 512}],
}


def on_ecs(executor_config: dict[str, Any]) -> Details | None:
    """Launch a task, and return what is said about it."""
    clients = ClientFactory.from_settings(SETTINGS, TUNING)
    request = ecs.workload_request(ecs.base_request(SETTINGS), None, executor_config, "main", COMMAND)

    async def run() -> Details | None:
        backend = ecs.EcsBackend(clients, SETTINGS)
        async with backend.open(), ecs.inspecting(clients, "default", "main", lambda: "airflow", {}) as inspector:
            launched = await backend.launch(ecs.launch_spec(request, started_by="me"), f"{uuid.uuid4()}-1")
            return await inspector.details(launched.handle.id)

    return anyio.run(run)


@pytest.mark.parametrize(
    ("executor_config", "size"),
    [
        ({"cpu": 1, "memory": "3500 MB", "disk": "50 GB"}, "1 vCPU, 4 GB, 50 GB disk"),
        ({"cpu": 256, "memory": 512}, "0.25 vCPU, 512 MB, 20 GB disk"),
        ({"cpu": 32, "memory": "244 GB"}, "32 vCPU, 244 GB, 20 GB disk"),
    ],
)
def test_ecs_gives_a_task_the_size_that_it_asks_for(executor_config: dict[str, Any], size: str) -> None:
    with local("ecs"):
        details = on_ecs(executor_config)
    assert details is not None
    assert details.size == size


@pytest.mark.parametrize(
    ("definition", "size", "own_size"),
    [
        ("airflow", ("2048", "3072"), (None, None)),  # one for Fargate too
        ("on-instances", ("2048", "3072"), (2048, 3072)),
    ],
)
def test_ecs_gives_a_container_on_an_instance_what_it_asks_for(
    definition: str, size: tuple[str, str], own_size: tuple[int | None, int | None]
) -> None:
    own = {"launchType": "EC2", "cpu": 2, "memory": "3 GB", "gpu": 1, "environment": {"STAGE": "prod"}}
    with local("ecs") as service:
        service.server.register_task_definition(ON_INSTANCES)
        details = on_ecs({**own, "taskDefinition": definition})
        assert details is not None
        [task] = service.server.client("ecs").describe_tasks(tasks=[details.observation.handle.id])["tasks"]
    [override] = task["overrides"]["containerOverrides"]
    assert (override.get("cpu"), override.get("memory")) == own_size
    assert (task["cpu"], task["memory"]) == size
    assert override["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert override["environment"][0] == {"name": "STAGE", "value": "prod"}


@pytest.mark.parametrize(
    ("executor_config", "size"),
    [
        ({"cpu": 2, "memory": "3 GB", "gpu": 1, "command_timeout": "2 h"}, "2 vCPU, 3 GB, 1 GPU"),
        ({"jobDefinition": "on-fargate", "cpu": 0.25, "memory": "1.5 GB"}, "0.25 vCPU, 2 GB"),
        ({"jobDefinition": "on-fargate", "cpu": 3, "memory": "5 GB", "round_up": True}, "4 vCPU, 8 GB"),
    ],
)
def test_batch_gives_a_job_the_size_that_it_asks_for(executor_config: dict[str, Any], size: str) -> None:
    def made() -> Details | None:
        clients = ClientFactory.from_settings(BATCH_SETTINGS, TUNING)
        request = batch.workload_request(batch.base_request(BATCH_SETTINGS), None, executor_config, COMMAND)

        async def run() -> Details | None:
            backend = batch.BatchBackend(clients, BATCH_SETTINGS)
            async with backend.open(), batch.inspecting(clients, "default") as inspector:
                launched = await backend.launch(batch.launch_spec(request, started_by="me"), f"{uuid.uuid4()}-1")
                return await inspector.details(launched.handle.id)

        return anyio.run(run)

    with local("batch") as service:
        service.server.register_job("on-fargate", platformCapabilities=["FARGATE"])
        details = made()
    assert details is not None
    assert details.size == size
