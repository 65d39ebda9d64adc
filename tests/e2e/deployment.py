"""A real Airflow on PostgreSQL whose schedulers come and go, over a local ECS with played containers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.demo.airflow_home import AirflowHome
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.processes import Processes
from ecs_async_executor.local.life import Job
from tests.e2e.played import Ending, Play, PlayedRunner
from tests.e2e.postgres import Postgres

HEALTH_THRESHOLD = 12
"""Seconds without a heartbeat after which a scheduler's task instances are adopted."""
SHUTDOWN_TIMEOUT = 9
OURS = "ecs_async_executor.AsyncEcsExecutor"
BOTH_EXECUTORS = f"{OURS},LocalExecutor"
TEAM = "blue"

SETTINGS = {
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1000",
    "AIRFLOW__CORE__PARALLELISM": "400",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": str(HEALTH_THRESHOLD),
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT),
    "AIRFLOW__ECS_ASYNC_EXECUTOR__CONNECT_TIMEOUT": "2",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__READ_TIMEOUT": "5",
}


@dataclass(frozen=True, slots=True)
class Instance:
    """A task instance, or a try of one that is over."""

    label: str
    number: int
    state: str | None
    job: int | None
    external_executor_id: str | None


class Scheduler:
    """A scheduler's process, and its row among Airflow's jobs."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], job: int) -> None:
        self.name = name
        self.process = process
        self.job = job


class Deployment:
    """
    PostgreSQL, API server and DAG processor; schedulers and a local ECS are a test's own.

    :param dags: the text of a DAG file; its DAGs are paused until :meth:`unpause`
    :param team: the DAGs are those of a team (:data:`TEAM`), which has an executor of ours; nobody else has one
    """

    def __init__(
        self, folder: Path, postgres: Postgres, dags: str, interrupts: Interrupts, *, team: bool = False
    ) -> None:
        self.home = AirflowHome(folder / "airflow")
        for path in self.home.dags.iterdir():
            path.unlink()
        (self.home.dags / "dags.py").write_text(dags)
        logs = folder / "logs"
        logs.mkdir()
        self._base = {
            **self.home.environment,
            **SETTINGS,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            # Whoever reads DAGs checks the executors that tasks name.
            "AIRFLOW__CORE__EXECUTOR": BOTH_EXECUTORS,
        }
        self._team = team
        if team:
            self._base |= self._of_a_team()
        self.processes = Processes(logs, self._base, interrupts)
        self._engine = create_engine(postgres.url(), isolation_level="AUTOCOMMIT")
        self._started = 0

    def _of_a_team(self) -> dict[str, str]:
        bundle = {
            "name": "team-dags",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(self.home.dags)},
            "team_name": TEAM,
        }
        return {
            "AIRFLOW__CORE__MULTI_TEAM": "True",
            "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor;{TEAM}={OURS}",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        }

    def start(self, dags: int) -> None:
        """Make the database and start what all tests share."""
        self.processes.run("db-migrate", *_airflow("db", "migrate"))
        if self._team:
            # The command would want the executor, which wants the team.
            self.execute("INSERT INTO team (name) VALUES (:team)", team=TEAM)
        self.processes.start("api-server", *_airflow("api-server"))
        self.processes.start("dag-processor", *_airflow("dag-processor"))
        self.until(self.home.health)
        self.until(lambda: self.value("SELECT count(*) FROM serialized_dag") >= dags)

    def close(self) -> None:
        self.processes.stop(patience=10)
        self._engine.dispose()

    # --- a test's own ----------------------------------------------------------------------------------------

    @contextmanager
    def ecs(
        self, play: Play, ending: Callable[[Job], Ending] = lambda job: Ending(), **options: Any
    ) -> Iterator[LocalEcs]:
        """Open a local ECS whose containers do this; what a test leaves behind ends with it."""
        with LocalEcs(runner=PlayedRunner(self.home.url, play, ending), clusters=["demo"], **options) as ecs:
            ecs.register("demo", "airflow")
            try:
                yield ecs
            finally:
                for name in [f"scheduler-{number + 1}" for number in range(self._started)]:
                    self.processes.stop([name], patience=0)
                self.execute("UPDATE dag SET is_paused = true")
                self.execute("UPDATE task_instance SET state = 'failed' WHERE state IS DISTINCT FROM 'success'")
                self.execute("UPDATE dag_run SET state = 'failed' WHERE state <> 'success'")

    def start_scheduler(self, ecs: LocalEcs, settings: Mapping[str, str] | None = None) -> Scheduler:
        """Start a scheduler and wait until it works."""
        self._started += 1
        name = f"scheduler-{self._started}"
        environment = {
            **self._base,
            **self.home.executor(provider=False, ecs_url=ecs.url, subnets="subnet-1", security_groups="sg-1"),
            **SETTINGS,
            **(settings or {}),
        }
        if self._team:
            environment |= self._of_a_team() | _as_the_teams(environment)
        self.processes.environment = environment
        before = self.value("SELECT coalesce(max(id), 0) FROM job")
        process = self.processes.start(name, *_airflow("scheduler", "--skip-serve-logs"))
        find = "SELECT max(id) FROM job WHERE job_type = 'SchedulerJob' AND state = 'running' AND id > :before"
        return Scheduler(name, process, self.until(lambda: self.value(find, before=before)))

    def kill(self, scheduler: Scheduler, how: signal.Signals) -> float:
        """End a scheduler; return how many seconds it took."""
        began = time.monotonic()
        scheduler.process.send_signal(how)
        scheduler.process.wait(60)
        took = time.monotonic() - began
        self.processes.stop([scheduler.name], patience=0)
        return took

    def unpause(self, *dags: str) -> None:
        for dag in dags:
            self.execute("UPDATE dag SET is_paused = false WHERE dag_id = :dag", dag=dag)

    # --- looking ---------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], timeout: float = 150.0, pause: float = 0.1) -> Any:
        """Wait for a condition; return what it says."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            self.processes.check()
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:g} s; {self.states()}\n{self.logs()}")
            time.sleep(pause)
        return value

    def execute(self, statement: str, **values: Any) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(statement), values)

    def value(self, statement: str, **values: Any) -> Any:
        with self._engine.connect() as connection:
            return connection.execute(text(statement), values).scalar()

    def instances(self, *dags: str) -> list[Instance]:
        """Read every try of the task instances of some DAGs."""
        columns = "dag_id || '.' || task_id || '[' || map_index || ']', try_number, state, queued_by_job_id"
        with self._engine.connect() as connection:
            rows = connection.execute(
                text(
                    f"SELECT {columns}, external_executor_id FROM task_instance "  # noqa: S608
                    f"WHERE dag_id = ANY(:dags) UNION ALL SELECT {columns}, external_executor_id "
                    "FROM task_instance_history WHERE dag_id = ANY(:dags)"
                ),
                {"dags": list(dags)},
            )
            return [Instance(*row) for row in rows]

    def states(self, *dags: str) -> Counter[tuple[str, int]]:
        """Count states and try numbers."""
        return Counter((one.state or "none", one.number) for one in self.instances(*dags))

    def succeeded(self, *dags: str) -> int:
        return sum(one.state == "success" for one in self.instances(*dags))

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.processes.logs.glob("scheduler*.log")
        )


def _as_the_teams(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the team the executor's settings: it does not take those that are everybody's."""
    begin = "AIRFLOW__"
    return {
        f"{begin}{TEAM.upper()}___{name.removeprefix(begin)}": value
        for name, value in environment.items()
        if name.startswith((f"{begin}AWS_ECS_EXECUTOR__", f"{begin}ECS_ASYNC_EXECUTOR__"))
    }


def _airflow(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "airflow", *arguments
