"""A try that fails for want of memory, and the next one by another scheduler: with sockets and a database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import scoped_session

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import last_ends
from ecs_async_executor.local import LocalEcs
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import make_workload, queue

pytestmark = pytest.mark.slow

OOM = "OutOfMemoryError: Container killed due to memory usage"
FIRST = '"try_number":1'
EXECUTORS: dict[str, type[Any]] = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}


def run(executor: Any, number: int) -> tuple[str, str]:
    """Have a try run, as a scheduler's loop does; return its last state and its container."""
    container = ""
    queue(executor, make_workload(try_number=number))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        begun = time.monotonic()
        executor.heartbeat()
        assert time.monotonic() < begun + 1.0
        events = [(str(state), info) for state, info in executor.get_event_buffer().values()]
        with create_session() as session:
            process: Any = SchedulerJobRunner._process_task_event_logs
            process(executor._task_event_logs, session)
        for state, info in events:
            if state != "running":
                return state, container
            container = info
        time.sleep(0.01)
    raise AssertionError(f"try {number} has not ended")


def entries(database: Metadata) -> dict[str, str]:
    with database.sessions() as session:
        found: Any = session.execute(select(Log.event, Log.extra).where(Log.dag_id == "dag").order_by(Log.id))
        return {row.event: row.extra for row in found}


@pytest.fixture
def shared(database: Metadata, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    monkeypatch.setattr("airflow.settings.Session", scoped_session(database.sessions))
    monkeypatch.setattr("airflow.settings.NonScopedSession", database.sessions)
    for section in ("ECS", "BATCH"):
        monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__RETRIES", '[{"when": "oom", "memory": "x2"}]')
    return database


def memory_of(local: LocalEcs, container: str) -> str:
    """Return the memory that a container has."""
    if container.startswith("arn:"):
        return str(local.task(container)["memory"])
    needs = local.job(container)["container"]["resourceRequirements"]
    return str(next(need["value"] for need in needs if need["type"] == "MEMORY"))


@pytest.mark.parametrize("service", EXECUTORS)
@pytest.mark.parametrize("exit_code", [137, 0])
def test_the_next_scheduler_gives_the_next_try_twice_the_memory(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    shared: Metadata,
    service: str,
    exit_code: int,
) -> None:
    local = local_ecs(
        script=[
            {"command": FIRST, "exit_code": exit_code, "container_reason": OOM, "duration": 0.5},
            {"duration": 0.5},
        ]
    )
    if service == "batch":
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
        local.register_job("airflow", containerProperties={"image": "local", "resourceRequirements": needs})
    first = started(EXECUTORS[service])
    state, container = run(first, 1)
    assert state == ("failed" if exit_code else "success")
    assert memory_of(local, container) == "512"
    first.end()
    state, container = run(started(EXECUTORS[service]), 2)
    assert state == "success"
    assert memory_of(local, container) == "1024"
    told = entries(shared)[f"{service} retry rule"]
    assert told == (
        "Try 2 is launched with 1 GB of memory instead of 512 MB: try 1 ended by running out of memory."
    )


def test_no_heartbeat_waits_for_a_database_that_hangs(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    shared: Metadata,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def hangs(*_: Any) -> Any:
        answered.wait(60)
        return []

    monkeypatch.setattr(last_ends, "read_entries", hangs)
    monkeypatch.setattr(last_ends, "TIMEOUT", 2.0)
    local = local_ecs(script=[{"duration": 0.5}])
    begun = time.monotonic()
    state, container = run(started(), 2)
    assert state == "success"
    assert time.monotonic() > begun + 2.0
    answered.set()
    assert memory_of(local, container) == "512"
