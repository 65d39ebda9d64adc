"""A real Airflow on PostgreSQL: a database that is made once and copied for each measurement; its scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from benchmarks import executors
from benchmarks.cells import PROVIDER

if TYPE_CHECKING:
    from typing_extensions import Self

CLASSES = {PROVIDER: "airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor"}
"""The executors that are not ours, as Airflow's settings name them."""
ROOM = "100000"
"""Of everything that Airflow limits: neither executor is to be held up by what people set."""
SETTINGS = {
    **executors.SETTINGS,
    "AIRFLOW__CORE__PARALLELISM": ROOM,
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": ROOM,
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": ROOM,
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_DAGS = """
from datetime import datetime, timezone

from airflow.sdk import dag, task


def wide(size):
    begun = datetime(2025, 1, 1, tzinfo=timezone.utc)

    @dag(dag_id=f"wide_{size}", schedule="@once", start_date=begun, catchup=False)
    def make():
        @task
        def work(number): ...

        work.expand(number=list(range(size)))

    return make()


"""
_SETUP = """
from airflow.cli.cli_parser import get_parser

for command in (["db", "migrate"], ["dags", "reserialize"]):
    options = get_parser().parse_args(command)
    options.func(options)
"""
"""Airflow's own commands, in one process because each would import Airflow for seconds."""


def dag_of(size: int) -> str:
    """Name the DAG with one task that is mapped this many times; it is due once, as soon as it is unpaused."""
    return f"wide_{size}"


class Deployment:
    """
    A PostgreSQL server with a migrated database, started when the first copy is wanted.

    :param sizes: of the DAGs, see :func:`dag_of`
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sorted(set(sizes))
        self._open = ExitStack()
        self._making = threading.Lock()
        self._postgres: Any = None
        self._copies = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @contextmanager
    def copy(self) -> Iterator[Airflow]:
        """Copy the database, for one measurement."""
        from sqlalchemy import create_engine, text

        with self._making:
            if self._postgres is None:
                self._make()
            self._copies += 1
            name = f"copy_{self._copies}"
            engine = create_engine(self._postgres.url("postgres"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name} TEMPLATE airflow"))
            engine.dispose()
        environment = {**self._environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._postgres.url(name)}
        airflow = Airflow(
            environment, f"postgresql://airflow@/{name}?host={self._postgres.folder}", self._home / f"{name}.log"
        )
        try:
            yield airflow
        finally:
            airflow.close()

    def _make(self) -> None:
        from tests.e2e.postgres import Postgres, binaries

        if binaries() is None:
            raise RuntimeError("there is no PostgreSQL: install the dependency group 'ha'")
        self._home = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="ecs-bench-airflow-")))
        dags = self._home / "dags"
        dags.mkdir()
        (dags / "wide.py").write_text(_DAGS + "".join(f"dag_{size} = wide({size})\n" for size in self._sizes))
        postgres = self._open.enter_context(Postgres())
        foreign = ("AIRFLOW", "AWS_", "_AIRFLOW")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            **SETTINGS,
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(),
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(  # noqa: S603 - Airflow's
            [sys.executable, "-c", _SETUP], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"Airflow's database: {done.stderr[-2000:]}")
        self._postgres = postgres


class Airflow:
    """
    A database and a scheduler.

    :param environment: of Airflow's processes
    :param dsn: of the database, for drivers
    :param log: what the scheduler says
    """

    def __init__(self, environment: Mapping[str, str], dsn: str, log: Path) -> None:
        from sqlalchemy import create_engine

        self.dsn = dsn
        self._environment = environment
        self._log = log
        self._engine = create_engine(
            environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], isolation_level="AUTOCOMMIT"
        )
        self._scheduler: subprocess.Popen[bytes] | None = None

    def start_scheduler(self, subject: str, settings: Mapping[str, str]) -> int:
        """Start a scheduler with this executor; return its process id."""
        environment = {
            **self._environment,
            "AIRFLOW__CORE__EXECUTOR": CLASSES.get(subject, f"ecs_async_executor.{subject}"),
            **settings,
        }
        with self._log.open("wb") as log:
            self._scheduler = subprocess.Popen(
                [sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._scheduler.pid

    def check(self) -> None:
        """
        Look whether the scheduler runs.

        :raises RuntimeError: if it does not; with the end of its log
        """
        if self._scheduler is not None and self._scheduler.poll() is not None:
            raise RuntimeError(f"the scheduler ended with {self._scheduler.returncode}: {self.said()}")

    def said(self) -> str:
        """Return the end of the scheduler's log."""
        return self._log.read_text(errors="replace")[-2000:]

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Return the rows of a query."""
        from sqlalchemy import text

        with self._engine.connect() as connection:
            found = connection.execute(text(statement), values)
            return list(found) if found.returns_rows else []

    def close(self) -> None:
        """Kill the scheduler; the provider's executor would wait for all of its containers before it ends."""
        if self._scheduler is not None:
            self._scheduler.kill()
            self._scheduler.wait()
        self._engine.dispose()
