"""Settings, requests and records of ECS, and a backend to try."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.services import ecs
from ecs_async_executor.settings import EcsSettings
from tests.services.fakes import FakeClient, FakeFactory
from tests.services.samples import COMMAND

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/c/"


def settings(**options: Any) -> EcsSettings:
    return EcsSettings(**{"cluster": "c", "container_name": "airflow", "task_definition": "f", **options})


def request(executor_config: Any = None, queue: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return ecs.workload_request(ecs.base_request(settings(**options)), queue, executor_config, "airflow", COMMAND)


def spec(executor_config: Any = None, **options: Any) -> LaunchSpec:
    return ecs.launch_spec(request(executor_config, **{"launch_type": "FARGATE", **options}), started_by="mark")


def container(**parameters: Any) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": [{"name": "airflow", **parameters}]}}


def task(status: str = "RUNNING", main: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    containers = [{"name": "side", "exitCode": 137}, {"name": "airflow", **(main or {})}]
    return {"taskArn": ARN + "1", "clusterArn": "c", "lastStatus": status, "containers": containers, **more}


def use(client: FakeClient, work: Callable[[ecs.EcsBackend], Any], factory: FakeFactory | None = None) -> Any:
    async def run() -> Any:
        session: Any = factory or FakeFactory(client)
        backend = ecs.EcsBackend(session, settings())
        async with backend.open():
            return await work(backend)

    return asyncio.run(run())
