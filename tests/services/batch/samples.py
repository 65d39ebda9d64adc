"""Settings, requests and records of Batch, and a backend to try."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.services import batch
from ecs_async_executor.settings import BatchSettings
from tests.services.fakes import FakeClient, FakeFactory
from tests.services.samples import COMMAND

TI = "0199c0de-1111-7222-8333-444455556666"
LAUNCH = "5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11"
JOB = "876da822-4198-45f2-a252-6cea32512ea8"
OTHER = "11111111-4198-45f2-a252-6cea32512ea8"


def settings(**options: Any) -> BatchSettings:
    return BatchSettings(**{"job_name": "airflow", "job_queue": "q", "job_definition": "d:1", **options})


def request(executor_config: Any = None, queue: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return batch.workload_request(batch.base_request(settings(**options)), queue, executor_config, COMMAND)


def spec(executor_config: Any = None, **options: Any) -> LaunchSpec:
    return batch.launch_spec(request(executor_config, **options), started_by=TI)


def container(**parameters: Any) -> dict[str, Any]:
    return {"containerOverrides": parameters}


def job(status: str, **more: Any) -> dict[str, Any]:
    return {
        "jobId": JOB,
        "jobName": f"airflow-{TI}-5b2f7f2e-1",
        "status": status,
        "createdAt": 1_767_323_045_250,
        **more,
    }


def use(client: FakeClient, work: Callable[[batch.BatchBackend], Any], factory: FakeFactory | None = None) -> Any:
    async def run() -> Any:
        session: Any = factory or FakeFactory(client, "batch")
        backend = batch.BatchBackend(session, settings())
        async with backend.open():
            return await work(backend)

    return asyncio.run(run())
