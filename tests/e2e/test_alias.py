"""A task that names its executor by an alias runs in a container whose image knows nothing of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.demo.airflow_home import AirflowHome, Try
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.local_ecs import Ecs
from ecs_async_executor.local.demo.processes import Processes

pytestmark = pytest.mark.e2e

ALIAS = "AwsEcsExecutor"
PATIENCE = 150
DAGS = f"""\
from airflow.sdk import dag, task


@dag(schedule=None)
def aliased():
    @task(executor="{ALIAS}")
    def names_it():
        print("ran")

    @task
    def names_none():
        print("ran")

    names_it() >> names_none()


@dag(schedule=None)
def stalled():
    @task(executor="{ALIAS}", executor_config={{"environment": {{"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}}}})
    def is_told_otherwise():
        print("ran")

    is_told_otherwise()


aliased()
stalled()
"""
WITHOUT_EXECUTORS = """\
import sys

for name in ("executor", "ecs", "batch"):
    sys.modules["ecs_async_executor.adapter." + name] = None
"""
"""Lets a container's Python have no executor of ours, as if the package were not in the image."""


def airflow(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "airflow", *arguments


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts() as found:
        yield found


def test_a_task_that_names_its_executor_by_an_alias_runs(tmp_path: Path, interrupts: Interrupts) -> None:
    home = AirflowHome(tmp_path / "airflow")
    for path in home.dags.iterdir():
        path.unlink()
    (home.dags / "dags.py").write_text(DAGS)
    image = tmp_path / "image"
    image.mkdir()
    (image / "sitecustomize.py").write_text(WITHOUT_EXECUTORS)
    logs = tmp_path / "logs"
    logs.mkdir()

    with LocalEcs(runner="subprocess", log_dir=logs, environment={"PYTHONPATH": str(image)}) as local:
        cloud = Ecs(local.url)
        settings = cloud.settings(home, provider=False)
        # The definition of the containers has no [core] executor.
        settings["AIRFLOW__CORE__EXECUTOR"] = f"{ALIAS}:{settings['AIRFLOW__CORE__EXECUTOR']}"
        processes = Processes(logs, {**home.environment, **settings}, interrupts)

        def until(holds: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE
            while not holds():
                processes.check()
                assert time.monotonic() < deadline, home.tries()
                time.sleep(0.2)

        def tries_of(dag: str) -> list[Try]:
            return [one for one in home.tries() if one.dag_id == dag]

        try:
            processes.run("db-migrate", *airflow("db", "migrate"))
            processes.run("check", *airflow("ecs-async", "check"))
            assert "Executors in containers" not in processes.log("check").read_text()
            for name in ("api-server", "dag-processor", "scheduler"):
                processes.start(name, *airflow(name, *(["--skip-serve-logs"] if name == "scheduler" else [])))
            until(lambda: bool(home._read("SELECT count(*) = 2 FROM serialized_dag")[0][0]))
            until(lambda: bool(home.health()))
            for dag in ("aliased", "stalled"):
                processes.run("trigger", *airflow("dags", "trigger", dag))
            until(lambda: [one.state for one in tries_of("aliased")] == ["success", "success"])
            until(lambda: tries_of("stalled")[0].state in {"up_for_reschedule", "failed"})
            said = home.task_log(tries_of("stalled")[0])
            assert f"specifies executor '{ALIAS}', which is not available" in said
        finally:
            processes.stop(patience=10)
