"""Bare aiobotocore: the requests and nothing else, as the lower bound of their cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal

from benchmarks.cells import Cell, Figures

if TYPE_CHECKING:
    from typing_extensions import Self

CONNECTIONS = 128
BATCH = 100


def _client(endpoint: str, service: str = "ecs") -> Any:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    config = AioConfig(max_pool_connections=CONNECTIONS, retries={"mode": "standard", "total_max_attempts": 1})
    return get_session().create_client(service, region_name="us-east-1", endpoint_url=endpoint, config=config)


class Blocks:
    """
    Launches blocks of workloads by a client in a thread of its own, while others take turns with it.

    :param endpoint: the server's address
    """

    def __init__(self, endpoint: str, service: str = "ecs") -> None:
        self._endpoint = endpoint
        self._service = service
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._portal = self._open.enter_context(start_blocking_portal())
        client = _client(self._endpoint, self._service)
        self._client = self._open.enter_context(self._portal.wrap_async_context_manager(client))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def launch(self, requests: Sequence[dict[str, Any]]) -> float:
        """Send requests all at once; return the CPU seconds that this took the process."""
        seconds: float = self._portal.call(self._launch, requests)
        return seconds

    async def _launch(self, requests: Sequence[dict[str, Any]]) -> float:
        send = self._client.submit_job if self._service == "batch" else self._client.run_task
        cpu = time.process_time()
        await asyncio.gather(*(send(**request) for request in requests))
        return time.process_time() - cpu


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
