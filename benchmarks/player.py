"""
Containers without processes: what a task's supervisor tells Airflow is written straight into its database.

It runs in the stub's process and imports nothing of Airflow's. Each container has transactions of its own, as the
requests of real ones to Airflow's API server have.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

CONNECTIONS = 8
STARTED = """
UPDATE task_instance SET state = 'running', start_date = now(), last_heartbeat_at = now(), hostname = 'played'
WHERE id = $1::uuid AND state = 'queued'
"""
ENDED = """
UPDATE task_instance SET state = 'success', end_date = now(), duration = extract(epoch FROM now() - start_date)
WHERE id = $1::uuid AND state = 'running'
"""


class Player:
    """
    Starts and ends task instances.

    :param pool: connections to Airflow's database
    :param duration: seconds that a container runs
    """

    def __init__(self, pool: Any, duration: float) -> None:
        self.refused: list[str] = []
        """Task instances that were not queued when their container started; Airflow would not let it run."""
        self._pool = pool
        self._duration = duration
        self._alive: set[asyncio.Task[None]] = set()

    @classmethod
    async def to(cls, dsn: str, duration: float) -> Player:
        """Return a player that writes to this database."""
        asyncpg: Any = importlib.import_module("asyncpg")
        return cls(await asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS), duration)

    def play(self, overrides: Any, ended: Callable[[], None]) -> None:
        """Start the container that these overrides ask for; ``ended`` is called once Airflow knows of its end."""
        task = asyncio.create_task(self._live(_task_instance(overrides), ended))
        self._alive.add(task)
        task.add_done_callback(self._alive.discard)

    async def _live(self, ti: str, ended: Callable[[], None]) -> None:
        if await self._pool.execute(STARTED, ti) != "UPDATE 1":
            self.refused.append(ti)
        await asyncio.sleep(self._duration)
        await self._pool.execute(ENDED, ti)
        ended()

    async def close(self) -> None:
        """End all containers."""
        for task in self._alive:
            task.cancel()
        await asyncio.gather(*self._alive, return_exceptions=True)
        await asyncio.wait_for(self._pool.close(), 10)


def _task_instance(overrides: Any) -> str:
    command: Sequence[str] = overrides["containerOverrides"][0]["command"]
    return str(json.loads(command[command.index("--json-string") + 1])["ti"]["id"])
