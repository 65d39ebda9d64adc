"""A real scheduler is replaced while containers run: in order, and by SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecs_async_executor.local.demo.airflow_home import AirflowHome
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.local_ecs import Ecs
from ecs_async_executor.local.demo.processes import Processes

pytestmark = pytest.mark.e2e

INSTANCES = 6
AT_A_TIME = 4
"""Containers that run at once; the others wait in PROVISIONING, their task instances QUEUED."""
SHUTDOWN_TIMEOUT = 17.0
DAG = """
from __future__ import annotations

import time
from datetime import datetime, timezone

from airflow.sdk import dag, task


@dag(schedule="@once", start_date=datetime(2025, 1, 1, tzinfo=timezone.utc), catchup=False)
def survivor() -> None:
    @task(retries=1)
    def outlive(number: int) -> int:
        time.sleep(20)
        return number

    outlive.expand(number=list(range({instances})))


survivor()
"""


class Deployment:
    """A local ECS and an Airflow without its scheduler."""

    def __init__(self, folder: Path, interrupts: Interrupts) -> None:
        self.home = AirflowHome(folder / "airflow")
        for path in self.home.dags.iterdir():
            path.unlink()
        (self.home.dags / "survivor.py").write_text(DAG.format(instances=INSTANCES))
        logs = folder / "logs"
        logs.mkdir()
        self.processes = Processes(logs, self.home.environment, interrupts)
        self.ecs = self._start_ecs()

    def _start_ecs(self) -> Ecs:
        port_file = self.processes.logs / "ecs.port"
        self.processes.start(
            "local-ecs",
            *(sys.executable, "-m", "ecs_async_executor.local", "--host", "127.0.0.1", "--port", "0"),
            *("--port-file", str(port_file), "--runner", "subprocess", "--max-running", str(AT_A_TIME)),
        )
        self.until(port_file.exists)
        ecs = Ecs(f"http://127.0.0.1:{port_file.read_text().strip()}")
        subnets, groups = ecs.prepare(self.home.container_environment)
        self.processes.environment = {
            **self.home.environment,
            **self.home.executor(provider=False, ecs_url=ecs.url, subnets=subnets, security_groups=groups),
            "AIRFLOW__CORE__PARALLELISM": str(INSTANCES),
            "AIRFLOW__ECS_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": f"{SHUTDOWN_TIMEOUT:g}",
            # A killed scheduler's tasks are adopted once its heartbeat is this old.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
        }
        return ecs

    def start_airflow(self) -> None:
        self.processes.run("db-migrate", sys.executable, "-m", "airflow", "db", "migrate")
        for name in ("api-server", "dag-processor"):
            self.processes.start(name, sys.executable, "-m", "airflow", name)
        self.until(self.home.health)

    def start_scheduler(self, name: str) -> subprocess.Popen[bytes]:
        return self.processes.start(name, sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs")

    def forget(self, name: str) -> None:
        self.processes.stop([name], patience=0)

    def until(self, condition: Callable[[], object], timeout: float = 120.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self.processes.check()
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:g} s; states {self.states()}\n{self.logs()}")
            time.sleep(0.2)

    def states(self) -> Counter[str]:
        return Counter(read.state or "none" for read in self.home.tries())

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in self.processes.logs.glob("scheduler*.log"))

    def every_instance_ran_once(self) -> None:
        tries = self.home.tries()
        assert Counter((read.state, read.number) for read in tries) == {("success", 1): INSTANCES}, self.logs()
        containers = Counter((task.label, task.number) for task in self.ecs.tasks())
        assert containers == {(read.label, 1): 1 for read in tries}


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Interrupts() as interrupts:
        deployment = Deployment(tmp_path, interrupts)
        try:
            deployment.start_airflow()
            yield deployment
        finally:
            deployment.processes.stop(patience=10)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_replaced_schedulers_tasks_are_adopted_and_run_once_at_try_1(
    deployment: Deployment, how: signal.Signals
) -> None:
    first = deployment.start_scheduler("scheduler-1")
    deployment.until(lambda: deployment.states()["running"] >= AT_A_TIME - 1)
    deployment.until(lambda: deployment.states()["queued"] + deployment.states()["running"] == INSTANCES)

    began = time.monotonic()
    first.send_signal(how)
    first.wait(60)
    took = time.monotonic() - began
    deployment.forget("scheduler-1")
    assert deployment.states()["success"] < INSTANCES, "it was too late to interrupt anything"
    if how is signal.SIGTERM:
        assert took <= SHUTDOWN_TIMEOUT

    deployment.start_scheduler("scheduler-2")
    deployment.until(lambda: deployment.states()["success"] == INSTANCES)
    deployment.every_instance_ran_once()
