"""A real Airflow whose containers get workloads in environment files, and a scheduler that dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.local import Fault, LocalEcs
from ecs_async_executor.local.demo.airflow_home import AirflowHome
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.processes import Processes
from ecs_async_executor.local.demo.scenario import HOME

pytestmark = pytest.mark.e2e

BUCKET = "workloads"
SETTINGS = {
    "AIRFLOW__ECS_ASYNC_EXECUTOR__WORKLOAD_DELIVERY": "environment_file",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__WORKLOAD_BUCKET": f"s3://{BUCKET}/prod",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "25",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
}
DAGS = """
import os, subprocess
from datetime import datetime, timezone

from airflow.sdk import dag, task

for name, schedule in {"first": "@once", "second": None}.items():
    @dag(dag_id=name, schedule=schedule, start_date=datetime(2025, 1, 1, tzinfo=timezone.utc), catchup=False)
    def make() -> None:
        @task
        def looks() -> None:
            seen = repr(dict(os.environ)) + subprocess.check_output(["env"]).decode()
            assert "ECS_ASYNC_EXECUTOR_WORKLOAD" not in seen
        looks()
    globals()[name] = make()
"""


class Airflow:
    """Airflow's components, over a local ECS whose containers are processes."""

    def __init__(self, folder: Path, ecs: LocalEcs, interrupts: Interrupts) -> None:
        self.home = AirflowHome(folder / "airflow")
        for path in self.home.dags.iterdir():
            path.unlink()
        (self.home.dags / "dags.py").write_text(DAGS)
        ecs.register("demo", "airflow", environment=self.home.container_environment)
        logs = folder / "logs"
        logs.mkdir()
        of_executor = self.home.executor(
            provider=False, ecs_url=ecs.url, subnets="subnet-1", security_groups="sg-1"
        )
        self.processes = Processes(logs, {**self.home.environment, **of_executor, **SETTINGS}, interrupts)

    def airflow(self, name: str, *arguments: str) -> None:
        self.processes.start(name, sys.executable, "-m", "airflow", *arguments)

    def run(self, name: str, *arguments: str) -> None:
        self.processes.run(name, sys.executable, "-m", "airflow", *arguments)

    def until(self, condition: Callable[[], object], timeout: float = 180.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self.processes.check()
            assert time.monotonic() < deadline, self.home.tries()
            time.sleep(0.1)

    def states(self) -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        for one in self.home.tries():
            found.setdefault(one.dag_id, []).append(one.state)
        return found


@pytest.fixture
def ecs() -> Iterator[LocalEcs]:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with LocalEcs(runner="subprocess", environment={"PATH": path}, clusters=["demo"], region=HOME) as local:
        local.client("s3").create_bucket(Bucket=BUCKET)
        yield local


@pytest.fixture
def airflow(ecs: LocalEcs, tmp_path: Path) -> Iterator[Airflow]:
    with Interrupts() as interrupts:
        made = Airflow(tmp_path, ecs, interrupts)
        try:
            made.run("db-migrate", "db", "migrate")
            made.airflow("api-server", "api-server")
            made.airflow("dag-processor", "dag-processor")
            made.until(made.home.health)
            yield made
        finally:
            made.processes.stop(patience=10)


def keys(ecs: LocalEcs) -> list[str]:
    return [one["Key"] for one in ecs.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_tasks_run_nobody_sees_a_jwt_and_a_scheduler_may_die_between_the_object_and_the_launch(
    airflow: Airflow, ecs: LocalEcs
) -> None:
    airflow.airflow("scheduler", "scheduler", "--skip-serve-logs")
    airflow.until(lambda: airflow.states().get("first") == ["success"])
    airflow.until(lambda: not keys(ecs))

    ecs.faults.add(Fault(kind="hang", operation="RunTask", seconds=20))
    airflow.run("trigger", "dags", "trigger", "second")
    airflow.until(lambda: ecs.statistics.operation("RunTask").in_flight and keys(ecs))
    (left,) = keys(ecs)
    dead = airflow.processes._running["scheduler"]
    dead.send_signal(signal.SIGKILL)
    dead.wait(60)
    airflow.processes.stop(["scheduler"], patience=0)
    assert keys(ecs) == [left]
    ecs.faults.clear()
    airflow.airflow("scheduler-2", "scheduler", "--skip-serve-logs")
    airflow.until(lambda: airflow.states().get("second") == ["success"])
    airflow.until(lambda: not keys(ecs))

    assert airflow.states() == {"first": ["success"], "second": ["success"]}
    entries = ecs.ledger.entries()
    assert len(entries) == 2
    shown = json.dumps([ecs.task(entry.id) for entry in entries], default=str)
    assert f"arn:aws:s3:::{BUCKET}/{left}" in shown
    assert "eyJ" not in shown
    logs = "".join(path.read_text() for path in airflow.processes.logs.glob("scheduler*.log"))
    assert "eyJ" not in logs
