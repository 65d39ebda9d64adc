"""
Containers without processes: what Airflow's supervisor says to the execution API, said by one thread.

A hundred real containers at a time would be a hundred times importing Airflow. What is real here is all that the
executor is about: the workload and its token come out of the RunTask request, and Airflow decides who may run.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import aiohttp

from ecs_async_executor.local.life import Exit, Job, Life

EXITED = ("EssentialContainerExited", "Essential container in task exited")
TERMINATED = 143
ATTEMPTS = 8
"""Of a request that gets no answer, or one that it is the server's fault; the task SDK's client repeats too."""


class RefusedError(Exception):
    """
    Airflow does not want this container to go on; the supervisor exits with an error then.

    :param status: of the answer
    """

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status} {text}")
        self.status = status


def label(command: Sequence[str]) -> str:
    """Name the task instance that a container's command runs."""
    ti = _workload(command)["ti"]
    return f"{ti['dag_id']}.{ti['task_id']}[{ti['map_index']}]"


def _workload(command: Sequence[str]) -> dict[str, Any]:
    workload: dict[str, Any] = json.loads(command[command.index("--json-string") + 1])
    return workload


class Container:
    """One container, as Airflow's execution API sees it."""

    def __init__(self, job: Job, url: str, session: aiohttp.ClientSession) -> None:
        workload = _workload(job.command)
        self.job = job
        self.ti: dict[str, Any] = workload["ti"]
        self._token = workload["token"]
        self._url = f"{url}/execution/task-instances/{self.ti['id']}"
        self._session = session
        self._who = {"hostname": f"container-{job.id}", "pid": job.number}

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.job.command)

    async def run(self) -> dict[str, Any]:
        """
        Ask to be allowed to run user code.

        :raises RefusedError: if it is not
        """
        told = {**self._who, "state": "running", "unixname": "played", "start_date": _now()}
        answer: dict[str, Any] = await self._ask("PATCH", "run", told)
        return answer

    async def heartbeat(self) -> None:
        """
        Say that it is alive.

        :raises RefusedError: if the task instance is somebody else's or is to end
        """
        await self._ask("PUT", "heartbeat", self._who)

    async def succeed(self) -> None:
        """Say that the task has succeeded."""
        await self._ask("PATCH", "state", {"state": "success", "end_date": _now()})

    async def defer(self, seconds: float) -> None:
        """Give the container back until a trigger fires, or its time is over."""
        await self._ask(
            "PATCH",
            "state",
            {
                "state": "deferred",
                "classpath": "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
                "trigger_kwargs": {},
                "trigger_timeout": f"PT{seconds:g}S",
                "next_method": "resume",
                "next_kwargs": {},
            },
        )

    async def reschedule(self, seconds: float) -> None:
        """Give the container back, and ask for another in so many seconds, as a sensor between two pokes does."""
        now = datetime.now(tz=timezone.utc)
        told = {
            "state": "up_for_reschedule",
            "reschedule_date": (now + timedelta(seconds=seconds)).isoformat(),
            "end_date": now.isoformat(),
        }
        await self._ask("PATCH", "state", told)

    async def _ask(self, method: str, what: str, told: dict[str, Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                async with self._session.request(
                    method,
                    f"{self._url}/{what}",
                    json=told,
                    headers={"Authorization": f"Bearer {self._token}"},
                    timeout=aiohttp.ClientTimeout(total=5),
                ) as reply:
                    text = await reply.text()
                    if reply.status < 400:
                        self._token = reply.headers.get("Refreshed-API-Token", self._token)
                        return json.loads(text) if text else None
                    if reply.status < 500 and reply.status != 429:
                        raise RefusedError(what, reply.status, text)
            except (aiohttp.ClientConnectionError, TimeoutError, asyncio.TimeoutError):
                pass
            await asyncio.sleep(0.2 * 2**attempt)
        raise RefusedError(what, 503, "no answer")


Play = Callable[[Container], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ending:
    """
    How a container stops once it is done; in seconds.

    :param exit_shows: from its end until ECS knows its exit code
    :param stops: from then until it is STOPPED
    """

    exit_shows: float = 0.0
    stops: float = 0.0


class PlayedRunner:
    """
    A runner of the local ECS whose containers are coroutines.

    :param url: of Airflow's API server
    :param play: what a container does; when it returns the container exits 0, on :class:`RefusedError` 1
    :param ending: how it stops then
    """

    def __init__(self, url: str, play: Play, ending: Callable[[Job], Ending] = lambda job: Ending()) -> None:
        self.url = url
        self.play = play
        self.ending = ending
        self.allowed: list[str] = []
        """The label of the task instance for each container that Airflow let run user code."""
        self.refused: list[str] = []
        self.failed: list[BaseException] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # --- the runner's protocol -------------------------------------------------------------------------------

    def open(self, lock: threading.RLock, clock: Callable[[], float], changed: Callable[[Job], None]) -> None:
        self._lock, self._clock, self._changed = lock, clock, changed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="played-containers", daemon=True)
        self._thread.start()
        self._session = self._do(self._open_session())

    def start(self, job: Job, life: Life, at: float) -> None:
        life.provisioned_at = at
        life.touch()
        self._loop.call_soon_threadsafe(self._begin, job, life)

    def stop(self, job: Job, life: Life, at: float) -> None:
        life.stopping_at = life.stopping_at or at
        life.touch()
        self._loop.call_soon_threadsafe(self._cancel, job.id)

    def lose(self, job: Job, life: Life, at: float) -> None:
        raise NotImplementedError

    def forget(self, job: Job) -> None:
        pass

    def close(self, timeout: float) -> None:
        self._do(self._close(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- on the loop -----------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open_session(self) -> aiohttp.ClientSession:
        # As many connections as the API server's threads serve well; the rest waits here and not there.
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=24))

    async def _close(self, timeout: float) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        await self._session.close()

    def _begin(self, job: Job, life: Life) -> None:
        task = self._tasks[job.id] = self._loop.create_task(self._live(job, life))
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    def _cancel(self, job_id: str) -> None:
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()

    async def _live(self, job: Job, life: Life) -> None:
        with self._lock:
            life.started_at = self._clock()
            life.touch()
        code = 1
        try:
            container = Container(job, self.url, self._session)
            await container.run()
            self.allowed.append(container.label)
            await self.play(container)
            code = 0
        except RefusedError as error:
            self.refused.append(f"{job.id} {error}")
        except asyncio.CancelledError:
            code = TERMINATED
        except Exception as error:  # noqa: BLE001 - a bug of the test's, which has to see it
            self.failed.append(error)
        with self._lock:
            now = self._clock()
            ending = self.ending(job)
            shows = now + ending.exit_shows
            life.exits[job.main] = Exit(shows, code)
            if life.stop_code is None:
                life.stop_code, life.stopped_reason = EXITED
            life.doomed_at = life.doomed_at or shows
            life.stopping_at = life.stopping_at or shows
            life.ended_at = shows
            life.stopped_at = shows + ending.stops
            life.touch()
            self._changed(job)


def _now() -> str:
    return datetime.now(tz=timezone.utc).isoformat()
