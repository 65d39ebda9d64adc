"""A container of the local ECS and Batch prints its last words and dies; people read them in Airflow."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import scoped_session

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import Fault, LocalEcs
from ecs_async_executor.services import logs
from tests.adapter.airflow_logs import keep_remotely, s3, s3_log_io
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import queue

pytestmark = pytest.mark.slow

JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
SCRIPT = f"echo 'Executing workload {JWT}'; for n in 1 2 3; do echo line $n; done; echo the last words; exit 3"
LOGGED = {"logDriver": "awslogs", "options": {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a"}}
ELSEWHERE = "eu-west-1"
NO_LOGS = Fault(kind="error", operation="GetLogEvents", code="AccessDeniedException", message="not authorized")


class Dies:
    """Mixed into an executor: its containers print their last words and exit 3."""

    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        return ["sh", "-c", SCRIPT]


class DiesOnEcs(Dies, AsyncEcsExecutor):
    """On ECS."""


class DiesOnBatch(Dies, AsyncBatchExecutor):
    """On Batch."""


EXECUTORS: Any = {"ecs": DiesOnEcs, "batch": DiesOnBatch}


class Airflow:
    """A scheduler and an api-server around one executor, as far as ends and logs go."""

    def __init__(self, database: Metadata, executor: Any) -> None:
        self.database = database
        self.executor = executor
        database.orphan("queued", executor_config={})
        with database.session() as session:
            self.ti = database.tis(session)[0]
            compat.load_for_adoption([self.ti])
            self.log_path = compat.log_paths()(self.ti)
            queue(executor, *compat.rebuild([self.ti]).values())

    process: Any = staticmethod(SchedulerJobRunner._process_task_event_logs)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < deadline, self.entries()
            self.executor.heartbeat()
            with create_session() as session:
                self.process(self.executor._task_event_logs, session)
            time.sleep(0.05)
        return found

    def entries(self) -> dict[str, str]:
        """Return the event log of the task instance."""
        with self.database.sessions() as session:
            query: Any = select(Log.event, Log.extra).where(Log.event.contains("container"))
            return {entry.event: entry.extra for entry in session.execute(query)}

    def log(self) -> str:
        """Return what the Logs tab shows of the failed try."""
        with self.database.session() as session:
            ti: Any = session.get(TaskInstance, self.ti.id)
            ti.state = "failed"
            ti.hostname = "127.0.0.1"
            session.flush()
            stream, _ = FileTaskHandler(str(self.folder))._read(ti, 1)
            return "\n".join(str(getattr(one, "event", one)) for one in stream)

    folder: Path


@pytest.fixture
def airflow(
    database: Metadata,
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Airflow]:
    """Start an executor with a task instance of the database queued."""
    monkeypatch.setattr("airflow.settings.Session", scoped_session(database.sessions))
    monkeypatch.setattr(logs, "_PAUSE", 0.1)
    folder = tmp_path / "logs"
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(folder))
    keep_remotely(monkeypatch, None)

    def start(service: str, *faults: Fault) -> Airflow:
        local = local_ecs(runner="subprocess", stop_timeout=1.0, regions=[ELSEWHERE])
        local.register("family", "airflow", place=local.place(ELSEWHERE))
        for place in (local.place(), local.place(ELSEWHERE)):
            local.register("family", "airflow", logConfiguration=LOGGED, place=place)
            local.register_job("airflow", place=place)
        for fault in faults:
            local.faults.add(fault)
        monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:2")
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", local.url)
        airflow = Airflow(database, started(EXECUTORS[service]))
        airflow.folder = folder
        return airflow

    return start


@pytest.mark.parametrize("service", EXECUTORS)
def test_the_last_words_of_a_container_are_in_the_event_log_and_in_the_logs_tab_of_the_failed_try(
    airflow: Callable[..., Airflow], service: str
) -> None:
    scene = airflow(service)
    text = scene.until(lambda: scene.entries().get(f"{service} container output"))
    assert "exited 3" in text.split("\n")[0]
    assert text.split("\n")[-5:] == ["Executing workload ***", "line 1", "line 2", "line 3", "the last words"]
    assert "exited 3" in scene.entries()[f"{service} container failure"]
    file = scene.folder / f"{scene.log_path}.container.log"
    scene.until(file.exists)
    scene.until(lambda: "the last words" in file.read_text())
    shown = scene.log()
    assert "the last words" in shown
    assert "exited 3" in shown
    assert not re.search(r"eyJ[\w-]+\.", shown + text)
    assert "Could not read served logs" not in shown


@pytest.mark.parametrize("service", EXECUTORS)
def test_the_last_words_of_a_container_in_another_region_are_read_there(
    airflow: Callable[..., Airflow], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = json.dumps({"queue": {"region_name": ELSEWHERE}})
    monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__QUEUES", queues)
    scene = airflow(service)
    text = scene.until(lambda: scene.entries().get(f"{service} container output"))
    assert text.split("\n")[-1] == "the last words"


def test_with_remote_logs_they_are_in_the_logs_tab_from_s3(
    airflow: Callable[..., Airflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = airflow("ecs")
    with s3(monkeypatch) as (client, bucket):
        keep_remotely(monkeypatch, s3_log_io(scene.folder, f"s3://{bucket}/airflow"))
        scene.until(lambda: "ecs container output" in scene.entries())
        scene.until(lambda: client.list_objects_v2(Bucket=bucket).get("Contents"))
        shown = scene.log()
    assert "the last words" in shown
    assert not list(scene.folder.glob("**/*.container.log")), "there is no other source"


@pytest.mark.parametrize("service", EXECUTORS)
def test_a_permission_that_is_missing_is_named_and_changes_nothing_else(
    airflow: Callable[..., Airflow], service: str
) -> None:
    scene = airflow(service, NO_LOGS)
    text = scene.until(lambda: scene.entries().get(f"{service} container output"))
    assert "lack the permission logs:GetLogEvents" in text
    assert "exited 3" in scene.entries()[f"{service} container failure"]
    assert scene.executor.running == set()
