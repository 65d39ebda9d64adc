"""A metadata database with the task instances of a dead scheduler, and the real scheduler's adoption of them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

_DAG = """
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("adopted", schedule=None):
    EmptyOperator(task_id="load")
"""


def build(home: Path) -> None:
    """Make a database with one run of a DAG of one task, by Airflow's own commands."""
    dags = home / "dags"
    dags.mkdir()
    (dags / "adopted.py").write_text(_DAG)
    environment = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    }
    for command in ("db migrate", "dags reserialize", "dags unpause adopted", "dags trigger adopted"):
        done = subprocess.run(  # noqa: S603 - Airflow's
            [sys.executable, "-W", "ignore", "-m", "airflow", *command.split()],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {command}: {done.stderr[-2000:]}")


class Database:
    """The database that Airflow's settings name; counts its statements."""

    def __init__(self) -> None:
        from sqlalchemy import event

        settings: Any = importlib.import_module("airflow.settings")
        settings.configure_orm()
        self._session = settings.Session
        self._job: Any = importlib.import_module("airflow.jobs.job").Job
        self.statements = 0
        event.listen(settings.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.statements += 1

    def orphan(self, arns: Sequence[str]) -> None:
        """Make a running task instance for each container, all mapped from one task, under a dead scheduler."""
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import delete, insert, select

        table: Any = TaskInstance.__table__
        with self._session() as session:
            gone = self._job(job_type="SchedulerJob", state="failed")
            session.add(gone)
            session.flush()
            row = dict(session.execute(select(table).where(table.c.dag_id == "adopted")).mappings().one())
            now = datetime.now(tz=timezone.utc)
            row |= {
                "state": "running",
                "try_number": 1,
                "queued_by_job_id": gone.id,
                "queued_dttm": now - timedelta(hours=1),
                "last_heartbeat_at": now,
                "executor_config": {},
            }
            session.execute(delete(table).where(table.c.id == row["id"]))
            index = "region_index" if "region_index" in table.c else "map_index"  # 3.4 and before
            session.execute(
                insert(table),
                [
                    {**row, "id": uuid.uuid4(), index: number, "external_executor_id": arn}
                    for number, arn in enumerate(arns)
                ],
            )
            session.scalars(select(DagRun)).one().state = "running"
            session.commit()

    def adopt(self, executor: Any) -> None:
        """Have the scheduler adopt the task instances, as it does when it finds another scheduler dead."""
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        with self._session() as session:
            job = self._job(job_type="SchedulerJob", state="running")
            session.add(job)
            session.flush()
            job.latest_heartbeat = datetime.now(tz=timezone.utc)
            session.commit()
            runner: Any = SchedulerJobRunner(job=job, executors=[executor])
            reset = runner.adopt_or_reset_orphaned_tasks(session=session)
            session.commit()
        if reset:
            raise RuntimeError(f"{reset} task instances were not adopted")
