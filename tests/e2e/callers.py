"""
What running containers ask of Airflow's API, over and over, and how long each answer took: a process of its own.

Reads one JSON document from its standard input, then a line for each phase: ``go`` and, in the end, ``stop``. Says
``ready`` when task instances run and calls were measured with nothing else going on; last the calls, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp

ACROSS = 4
"""Requests of a kind at a time."""
PAUSE = 0.01
BASELINE_SECONDS = 3.0


class Callers:
    """Containers that are allowed to run, and say that they are alive; and others that ask to be."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.calls: list[dict[str, Any]] = []
        self.phase = "before"

    async def call(self, method: str, what: str, one: dict[str, str], told: dict[str, Any]) -> None:
        began = time.monotonic()
        async with self.session.request(
            method,
            f"{self.url}/execution/task-instances/{one['id']}/{what}",
            json={"hostname": one["id"], "pid": 1, **told},
            headers={"Authorization": f"Bearer {one['token']}"},
        ) as reply:
            await reply.read()
            one["token"] = reply.headers.get("Refreshed-API-Token", one["token"])
            ended = time.monotonic()
        self.calls.append(
            {"what": what, "phase": self.phase, "began": began, "ended": ended, "status": reply.status}
        )

    async def run(self, one: dict[str, str]) -> None:
        told = {"state": "running", "unixname": "nobody", "start_date": "2025-01-01T00:00:00Z"}
        await self.call("PATCH", "run", one, told)

    async def ask_to_run(self, waiting: list[dict[str, str]], until: asyncio.Event) -> None:
        while waiting and not until.is_set():
            await self.run(waiting.pop())
            await asyncio.sleep(PAUSE)

    async def heartbeat(self, running: list[dict[str, str]], until: asyncio.Event) -> None:
        while not until.is_set():
            for one in running:
                await self.call("PUT", "heartbeat", one, {})
                await asyncio.sleep(PAUSE)
                if until.is_set():
                    return

    async def all(
        self, running: list[dict[str, str]], waiting: list[dict[str, str]], until: asyncio.Event
    ) -> None:
        await asyncio.gather(
            *(self.heartbeat(running[n::ACROSS], until) for n in range(ACROSS)),
            *(self.ask_to_run(waiting, until) for _ in range(ACROSS)),
        )


async def line() -> str:
    text: str = await asyncio.to_thread(sys.stdin.readline)
    return text.strip()


async def main() -> None:
    told = json.loads(await line())
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        callers = Callers(told["url"], session)
        for one in told["running"]:
            await callers.run(one)
        waiting: list[dict[str, str]] = told["waiting"]
        kept = waiting[: len(waiting) // 2]
        callers.phase = "baseline"
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(BASELINE_SECONDS, over.set)
        await callers.all(told["running"], waiting[len(kept) :], over)
        print("ready", flush=True)  # noqa: T201
        assert await line() == "go"
        callers.phase = "adoption"
        over = asyncio.Event()
        stop = asyncio.create_task(line())
        stop.add_done_callback(lambda _: over.set())
        await callers.all(told["running"], kept, over)
    print(json.dumps(callers.calls), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
