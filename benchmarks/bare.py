"""Bare aiobotocore: the requests and nothing else, as the lower bound of their cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cells import Cell, Figures

CONNECTIONS = 128
BATCH = 100


def _client(endpoint: str, service: str = "ecs") -> Any:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=CONNECTIONS, retries={"mode": "standard", "total_max_attempts": 1})
    return get_session().create_client(service, region_name="us-east-1", endpoint_url=endpoint, config=config)


def burst(
    endpoint: str, requests: Sequence[dict[str, Any]], progress: Callable[..., None], service: str = "ecs"
) -> Figures:
    """Send prepared requests, as many at a time as there are connections."""

    async def work() -> Figures:
        async with _client(endpoint, service) as client:
            # The first request of a client loads endpoint rules and the like.
            if service == "batch":
                launch = client.submit_job
                await client.describe_jobs(jobs=["a" * 32])
            else:
                launch = client.run_task
                await client.describe_tasks(cluster="default", tasks=["a" * 32])
            left = iter(requests)
            done = 0

            async def lane() -> None:
                nonlocal done
                for request in left:
                    await launch(**request)
                    done += 1
                    if done % 50 == 0:
                        progress(launched=done)

            cpu, wall, clock = time.process_time(), time.perf_counter(), time.time()
            await asyncio.gather(*(lane() for _ in range(CONNECTIONS)))
            return {
                "t0": clock,
                "wall_s": time.perf_counter() - wall,
                "cpu_per_launch_s": (time.process_time() - cpu) / len(requests),
            }

    return asyncio.run(work())


def poll(cell: Cell, endpoint: str, arns: Sequence[str]) -> Figures:
    """Describe tasks over and over, one request at a time."""

    async def work() -> Figures:
        async with _client(endpoint) as client:
            await client.describe_tasks(cluster="default", tasks=["a" * 32])
            until, cpu, polled, first = time.perf_counter() + cell.seconds, time.process_time(), 0, 0
            while time.perf_counter() < until:
                reply = await client.describe_tasks(cluster="default", tasks=arns[first : first + BATCH])
                polled += len(reply["tasks"])
                first = (first + BATCH) % len(arns)
            return {"polled": polled, "cpu_per_polled_s": (time.process_time() - cpu) / max(1, polled)}

    return asyncio.run(work())
