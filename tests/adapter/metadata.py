"""A real metadata database with a real DAG's run in it, and a real scheduler's adoption."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast
from unittest import mock

from airflow.jobs import job as job_module
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.orm import Session, sessionmaker

from ecs_async_executor.adapter.compat import AIRFLOW_VERSION

Job: Any = job_module.Job

TASKS = 40

DAG = f"""
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("adopted", schedule=None):
    for number in range({TASKS}):
        EmptyOperator(
            task_id=f"task_{{number}}",
            queue="queue",
            priority_weight=number + 1,
            weight_rule="absolute",
            on_success_callback=lambda context: None,
            executor_config={{"group": str(number)}},
        )
"""


def build(home: Path, url: str | None = None) -> Path:
    """
    Make a database with one run of a DAG of ``TASKS`` tasks.

    :param url: an empty database; None for a new SQLite file, which is returned
    """
    dags = home / "dags"
    dags.mkdir(parents=True)
    (dags / "adopted.py").write_text(DAG)
    database = home / "template.db"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url or f"sqlite:///{database}",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    }
    for command in (
        ["db", "migrate"],
        ["dags", "reserialize"],
        ["dags", "unpause", "adopted"],
        ["dags", "trigger", "adopted"],
    ):
        done = subprocess.run(  # the CLI is the interface that all versions share
            [sys.executable, "-W", "ignore", "-m", "airflow", *command],
            env=environment,
            cwd=Path.cwd(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(command)}: {done.stderr[-2000:]}")
    return database


@dataclass
class Metadata:
    """A database of one test's own."""

    url: str
    statements: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = create_engine(self.url)
        event.listen(self.engine, "before_cursor_execute", self._count)
        self.sessions = sessionmaker(bind=self.engine, expire_on_commit=False)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.statements.append(statement)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.sessions() as session:
            yield session
            session.commit()

    def orphan(self, *states: str, external_ids: list[str | None] | None = None, **columns: Any) -> list[Any]:
        """Give the first task instances these states and a scheduler that is gone; return their ids."""
        with self.session() as session:
            gone = Job(job_type="SchedulerJob", state="failed")
            session.add(gone)
            session.flush()
            tis = self.tis(session)[: len(states)]
            for number, (ti, state) in enumerate(zip(tis, states, strict=True)):
                ti.state = state
                ti.try_number = 1
                ti.queued_by_job_id = gone.id
                ti.queued_dttm = datetime.now(tz=timezone.utc)
                ti.last_heartbeat_at = datetime.now(tz=timezone.utc)
                ti.external_executor_id = external_ids[number] if external_ids else None
                for name, value in columns.items():
                    setattr(ti, name, value)
            for run in {ti.dag_run for ti in tis}:
                run.state = "running"
            return [ti.id for ti in tis]

    def orphan_mapped(self, *external_ids: str | None) -> None:
        """Make the first task a mapped one: an instance for each of these, queued by a scheduler that is gone."""
        self.orphan("queued")
        table: Any = TaskInstance.__table__
        with self.session() as session:
            ti = self.tis(session)[0]
            row = dict(session.execute(select(table).where(table.c.id == ti.id)).mappings().one())
            row["executor_config"] = {}  # one that ECS takes
            changes: Any = (
                {"id": _new_id(), _map_index().name: number, "external_executor_id": external_id}
                for number, external_id in enumerate(external_ids)
            )
            session.execute(insert(table), [{**row, **change} for change in changes])
            ti.state = "success"

    @staticmethod
    def mapped(session: Session) -> list[Any]:
        """Return what :meth:`orphan_mapped` made."""
        return list(session.scalars(select(TaskInstance).where(_map_index() >= 0)))

    @staticmethod
    def tis(session: Session) -> list[Any]:
        found = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == "adopted"))
        return sorted(found, key=lambda ti: int(ti.task_id.removeprefix("task_")))


def _new_id() -> Any:
    new = uuid.uuid4()
    return str(new) if TaskInstance.__table__.c.id.type.python_type is str else new  # 3.1 and after


def _map_index() -> Any:
    columns: Any = TaskInstance.__table__.c
    return columns.region_index if "region_index" in columns else columns.map_index  # 3.4 and before


@contextmanager
def scheduler_of(executor: Any, session: Session) -> Iterator[Any]:
    """Make a scheduler with this executor and a job that is alive."""
    job = Job(job_type="SchedulerJob", state="running")
    session.add(job)
    session.flush()
    job.latest_heartbeat = datetime.now(tz=timezone.utc)
    if AIRFLOW_VERSION >= (3, 2):
        yield cast("Any", SchedulerJobRunner)(job=job, executors=[executor])
        return
    with (
        mock.patch.object(Job, "executors", [executor]),
        mock.patch.object(Job, "executor", executor),
    ):
        yield SchedulerJobRunner(job=job)


def adopt(executor: Any, session: Session) -> int:
    """Run the scheduler's own adoption; return how many task instances it reset."""
    with scheduler_of(executor, session) as scheduler:
        return int(scheduler.adopt_or_reset_orphaned_tasks(session=session))


def look_for_stuck(executor: Any, session: Session) -> None:
    """Run the scheduler's own search for task instances that were queued for too long."""
    with scheduler_of(executor, session) as scheduler:
        queued = select(TaskInstance).where(TaskInstance.state == "queued")
        for ti in session.scalars(queued):
            ti.queued_by_job_id = scheduler.job.id
        session.flush()
        scheduler._handle_tasks_stuck_in_queued(session=session)


def copy_of(template: Path, path: Path) -> Metadata:
    shutil.copy(template, path)
    return Metadata(f"sqlite:///{path}")


def process_events(executor: Any, session: Session, job_id: int) -> int:
    """Run the scheduler's own processing of an executor's events; return how many there were."""
    bag: Any = importlib.import_module("airflow.models.dagbag").DBDagBag(load_op_links=False)
    runner: Any = SchedulerJobRunner
    return int(runner.process_executor_events(executor, job_id, bag, session))
