"""
The container's status at the head of a running task's log.

May import ``core``, ``engine.daemons`` and the service-free adapter. It runs in Airflow's api-server, on an
executor that is never started: no bridge, no engine, one client per question.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.engine.daemons import DaemonThreads

T = TypeVar("T")

TASK_LOG_TIMEOUT = 5.0
"""Seconds that the reader of a log waits for the container's status."""
SYNCHRONOUS_SECONDS = 1.0
"""More than the timeout: Airflow's connection is read synchronously, which no timeout of the loop ends."""


def task_log(adapter: ServiceAdapter, ti: Any, try_number: int) -> list[str]:
    """
    Return a line about the container of a running task instance; none if no container is known. Raise nothing.

    :param try_number: the try whose log is read
    """
    name = adapter.service.name
    try:
        external_id = ti.external_executor_id
        handle_id = adapter.handle_id(external_id) if external_id else None
        if handle_id is None or ti.try_number != try_number:
            return []
        return [f"{name} container {handle_id}: {_status(_observe(adapter, handle_id))}"]
    except Exception as error:  # noqa: BLE001 - it is a line of a log
        return [f"The status of the {name} container could not be read: {in_words(error)}"]


def _observe(adapter: ServiceAdapter, handle_id: str) -> Observation:
    async def observe() -> Observation:
        backend = adapter.make_backend()
        async with backend.open():
            return (await backend.describe(backend.scope_of(handle_id), [handle_id]))[0]

    return run_bounded(observe, TASK_LOG_TIMEOUT)


def _status(observation: Observation) -> str:
    if observation.seen is Seen.MISSING:
        return "not known to the service (any more)"
    parts = [observation.status or observation.seen.value]
    if observation.exit_code is not None:
        parts.append(f"exit code {observation.exit_code}")
    if observation.stop_code:
        parts.append(observation.stop_code)
    if observation.reason:
        parts.append(observation.reason)
    return ", ".join(parts)


def run_bounded(work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """
    Run a coroutine function on a loop of its own, in a thread that is left behind if it takes too long.

    :param timeout: seconds
    :raises TimeoutError: if it takes longer
    """
    outcome: Future[T] = Future()

    async def bounded() -> T:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        return await asyncio.wait_for(work(), timeout)

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(bounded()))
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name="ecs-async-look", daemon=True).start()
    try:
        return outcome.result(timeout + SYNCHRONOUS_SECONDS)
    except (FutureTimeoutError, asyncio.TimeoutError):
        raise TimeoutError(f"no answer within {timeout:g} s") from None
