"""A real scheduler whose credentials never come works on, says why it launches nothing, and ends in time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor.local.demo.airflow_home import AirflowHome
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.processes import Processes

pytestmark = pytest.mark.e2e

INSTANCES = 3
HANGS = 900
"""Seconds that the process takes which should say the credentials; longer than the test waits for anything."""
READ_TIMEOUT = 6
"""Seconds until the executor stops waiting for it: long enough for the scheduler to have queued something."""
SHUTDOWN_TIMEOUT = 9
MARGIN = 120.0
"""Seconds for all that a loaded machine adds; a scheduler that waited for the process would take much longer."""
DAG = f"""
from datetime import datetime, timezone

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("waiting", schedule="@once", start_date=datetime(2025, 1, 1, tzinfo=timezone.utc), catchup=False):
    for number in range({INSTANCES}):
        # With a callback an executor gets it: the scheduler itself ends what has nothing to do.
        EmptyOperator(task_id=f"task_{{number}}", on_success_callback=lambda context: None)
"""


class Deployment:
    """A database with a DAG to be run, and a scheduler; nothing else of Airflow's runs."""

    def __init__(self, folder: Path, interrupts: Interrupts) -> None:
        self.home = AirflowHome(folder / "airflow")
        for path in self.home.dags.iterdir():
            path.unlink()
        (self.home.dags / "waiting.py").write_text(DAG)
        logs = folder / "logs"
        logs.mkdir()
        config = folder / "aws-config"
        config.write_text(f"[default]\ncredential_process = sleep {HANGS}\n")
        of_executor = self.home.executor(
            provider=False, ecs_url="http://127.0.0.1:9", subnets="subnet-1", security_groups="sg-1"
        )
        environment = {
            **self.home.environment,
            **of_executor,
            "AWS_CONFIG_FILE": str(config),
            "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
            "AIRFLOW__ECS_ASYNC_EXECUTOR__CONNECT_TIMEOUT": "1",
            "AIRFLOW__ECS_ASYNC_EXECUTOR__READ_TIMEOUT": str(READ_TIMEOUT),
            "AIRFLOW__ECS_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT),
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        }
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del environment[name]
        self.processes = Processes(logs, environment, interrupts)
        self.processes.run("db-migrate", *_airflow("db", "migrate"))
        self.processes.run("dags-reserialize", *_airflow("dags", "reserialize"))

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        return self.processes.start("scheduler", *_airflow("scheduler", "--skip-serve-logs"))

    def log(self) -> str:
        return self.processes.log("scheduler").read_text()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"{self.home.database.as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            return database.execute(query).fetchall()

    def states(self) -> Counter[str | None]:
        return Counter(state for (state,) in self.rows("SELECT state FROM task_instance"))

    def heartbeat(self) -> str:
        [(latest,)] = self.rows("SELECT latest_heartbeat FROM job WHERE job_type = 'SchedulerJob'")
        return str(latest)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + MARGIN
        while not condition():
            self.processes.check()
            if time.monotonic() > deadline:
                pytest.fail(f"not within {MARGIN:g} s; {self.states()}\n{self.log()[-4000:]}")
            time.sleep(0.2)


def _airflow(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "airflow", *arguments


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Interrupts() as interrupts:
        deployment = Deployment(tmp_path, interrupts)
        try:
            yield deployment
        finally:
            # Ends the process that says nothing, too: the SDK has started it, and only the SDK could end it.
            deployment.processes.stop(patience=0)


def test_a_scheduler_whose_credentials_never_come_works_on_fails_nothing_and_ends_in_time(
    deployment: Deployment,
) -> None:
    scheduler = deployment.start_scheduler()
    deployment.until(lambda: "ecs_executor.credentials.paused" in deployment.log())
    [line] = [one for one in deployment.log().splitlines() if "ecs_executor.credentials.paused" in one]
    assert f"no credentials within {READ_TIMEOUT} s" in line

    for _ in range(3):
        before = deployment.heartbeat()
        deployment.until(lambda: deployment.heartbeat() > before)  # noqa: B023
    assert deployment.states() == {"queued": INSTANCES}

    began = time.monotonic()
    scheduler.terminate()
    scheduler.wait(SHUTDOWN_TIMEOUT + MARGIN)
    assert time.monotonic() - began < SHUTDOWN_TIMEOUT + MARGIN
    assert scheduler.returncode == 0, deployment.log()[-4000:]
    assert {one.name() for one in deployment.processes.marked()} <= {"sleep"}
    assert "ecs_executor.ended" in deployment.log()
    assert deployment.states() == {"queued": INSTANCES}, "the next scheduler takes them"
