"""A temporary Airflow: its folder, its environment and what its database says about task instances."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import sqlite3
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ecs_async_executor.local.demo.burst import DAG, LAUNCH_RATE, NUMBER
from ecs_async_executor.local.demo.processes import MARK
from ecs_async_executor.local.demo.scenario import HOME, LASTING, LASTING_DAG, PLACEMENT_DAG, label

EXECUTORS = {
    "ecs": (
        "ecs_async_executor.AsyncEcsExecutor",
        "airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor",
    ),
    "batch": (
        "ecs_async_executor.AsyncBatchExecutor",
        "airflow.providers.amazon.aws.executors.batch.AwsBatchExecutor",
    ),
}
"""Per service our executor and the amazon provider's."""

CONCURRENCY = 3
"""Task instances at a time: each is a process that imports Airflow, and this should work on two cores."""

FOREIGN = ("AIRFLOW", "AWS_", "_AIRFLOW", "PYTHONWARNINGS", "PYTHONSTARTUP", "VIRTUAL_ENV_PROMPT")
"""Beginnings of the names of variables that must not get into the demo from outside."""


def executor_class(service: str, *, provider: bool) -> str:
    """Name the class of an executor, as Airflow's configuration wants it."""
    return EXECUTORS[service][provider]


@dataclass(frozen=True, slots=True)
class Try:
    """
    One try of a task instance, as Airflow's database has it.

    :param external_executor_id: what the executor last reported for it (the ECS task ARN, the Batch job id)
    :param settled: Airflow will not change its state any more
    """

    dag_id: str
    task_id: str
    map_index: int
    number: int
    state: str | None
    queued: datetime | None
    started: datetime | None
    ended: datetime | None
    external_executor_id: str | None
    settled: bool

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.dag_id, self.task_id, self.map_index)


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One entry of Airflow's event log, which the UI calls Audit Log.

    :param number: the try of the task instance
    """

    at: datetime | None
    dag_id: str
    task_id: str
    map_index: int
    number: int
    event: str
    text: str

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.dag_id, self.task_id, self.map_index)


class AirflowHome:
    """
    Where the demo's Airflow lives.

    :param folder: an empty folder that becomes AIRFLOW_HOME
    :param lasting: it also runs what lasts as long as the demo is kept
    :param steered: it also runs what the rules of an executor of ours steer
    """

    def __init__(self, folder: Path, *, lasting: bool = False, steered: bool = True) -> None:
        self.folder = folder
        self.dags = folder / "dags"
        self.task_logs = folder / "logs"
        self.database = folder / "airflow.db"
        self.port, status_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        # What lasts takes no place of what does not.
        self.concurrency = CONCURRENCY + (len(LASTING) if lasting else 0)
        left_out = shutil.ignore_patterns(
            "__pycache__", *(() if lasting else (LASTING_DAG,)), *(() if steered else (PLACEMENT_DAG,))
        )
        shutil.copytree(Path(__file__).parent / "dags", self.dags, ignore=left_out)
        self._status_port = str(status_port)
        self.rules = folder / "rules.yaml"
        self._light = _light_runner(folder / "light")
        self._token = ""
        self._jwt_secret = secrets.token_hex(32)
        self._base = {
            MARK: secrets.token_hex(8),
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.task_logs),
            # A container notices at its next heartbeat only that its task has ended; the default is 5 s.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "DEMO_BURST": str(NUMBER),
            # The home page of Airflow's UI shows the runs of the last 24 hours.
            "DEMO_DATE": datetime.now(timezone.utc).replace(microsecond=0).isoformat(),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            # The commands that Airflow sends begin with "python".
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """What Airflow's own components need, but for what :meth:`executor` adds."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)},
            **self._base,
            "AIRFLOW__API_AUTH__JWT_SECRET": self._jwt_secret,
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": str(self.concurrency),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    @property
    def container_environment(self) -> dict[str, str]:
        """What a container needs to find Airflow, as a task definition would give it."""
        return dict(self._base)

    def light_environment(self, *, reports: bool) -> dict[str, str]:
        """
        Return the same for a container in which a script runs in place of Airflow's task runner.

        :param reports: the script tells Airflow how its task fares
        """
        path = os.pathsep.join((str(self._light), self._base["PATH"]))
        return {**self._base, "PATH": path, **({"DEMO_API": f"127.0.0.1:{self.port}"} if reports else {})}

    @property
    def staged(self) -> dict[str, str]:
        """The part of the environment by which the burst runs first, all at once; the rest waits."""
        rate = str(LAUNCH_RATE)
        return {
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(self.concurrency),
            "AIRFLOW__CORE__PARALLELISM": str(self.concurrency + NUMBER),
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
            **{
                f"AIRFLOW__{service}_ASYNC_EXECUTOR__{name}": rate
                for service in ("ECS", "BATCH")
                for name in ("LAUNCH_RATE", "LAUNCH_RATE_MAX")
            },
        }

    def steering(self, rules: str) -> dict[str, str]:
        """Write the rules of an executor of ours, and return the part of the environment that names them."""
        self.rules.write_text(rules)
        return {
            f"AIRFLOW__{service}_ASYNC_EXECUTOR__EXECUTOR_RULES": str(self.rules) for service in ("ECS", "BATCH")
        }

    @property
    def status(self) -> dict[str, str]:
        """The part of the environment that lets an executor of ours show what it does: one scheduler's."""
        return {
            f"AIRFLOW__{service}_ASYNC_EXECUTOR__STATUS_PORT": self._status_port for service in ("ECS", "BATCH")
        }

    def executor(self, *, provider: bool, ecs_url: str, subnets: str, security_groups: str) -> dict[str, str]:
        """Return the part of the environment that an executor on ECS needs: the same settings for either."""
        return {
            "AIRFLOW__CORE__EXECUTOR": executor_class("ecs", provider=provider),
            "AIRFLOW__AWS_ECS_EXECUTOR__ASSIGN_PUBLIC_IP": "True",
            "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "demo",
            # The provider's default, a connection that is not there, is answered with a long warning.
            "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
            "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "airflow",
            "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
            "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": HOME,
            "AIRFLOW__AWS_ECS_EXECUTOR__SECURITY_GROUPS": security_groups,
            "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": subnets,
            "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "demo",
            "AIRFLOW__ECS_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": "17",
            "DEMO_DEFINITION": "taskDefinition",
            **self._aws(ecs_url),
        }

    def batch_executor(self, *, provider: bool, url: str, job_definition: str) -> dict[str, str]:
        """Return the part of the environment that an executor on Batch needs: the same settings for either."""
        return {
            "AIRFLOW__CORE__EXECUTOR": executor_class("batch", provider=provider),
            # The provider's default, a connection that is not there, is answered with a long warning.
            "AIRFLOW__AWS_BATCH_EXECUTOR__CONN_ID": "",
            "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION": job_definition,
            "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_NAME": "demo",
            "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_QUEUE": "default",
            "AIRFLOW__AWS_BATCH_EXECUTOR__REGION_NAME": HOME,
            "AIRFLOW__BATCH_ASYNC_EXECUTOR__SHUTDOWN_TIMEOUT": "17",
            "DEMO_DEFINITION": "jobDefinition",
            **self._aws(url),
        }

    @staticmethod
    def _aws(url: str) -> dict[str, str]:
        return {
            # Invented credentials, and no way past the local server to a real account.
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_DEFAULT_REGION": HOME,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": url,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def health(self) -> dict[str, str]:
        """Return the state of each of Airflow's components; empty while the API server does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310
                told: dict[str, dict[str, str | None]] = json.load(answer)
        except (OSError, urllib.error.URLError):
            return {}
        return {name: state["status"] or "absent" for name, state in told.items()}

    def make_pool(self) -> None:
        """Make the pool of the burst, which thus takes no slot of the other tasks."""
        self._call("POST", "pools", {"name": DAG, "slots": NUMBER})

    def unpause(self) -> bool:
        """Let all DAGs run; return whether all have been parsed by now."""
        answer = self._call("PATCH", "dags?dag_id_pattern=~", {"is_paused": False})
        return len(answer["dags"]) == len(list(self.dags.glob("*.py")))

    def _call(self, method: str, path: str, data: dict[str, Any]) -> dict[str, Any]:
        """Send a request to Airflow's public API."""
        if not self._token:
            with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:  # noqa: S310
                self._token = json.load(answer)["access_token"]
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/api/v2/{path}",
            data=json.dumps(data).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            read: dict[str, Any] = json.load(answer)
        return read

    def burst(self) -> tuple[dict[str, int], float | None]:
        """Return how many task instances of the burst are in each state, and when the first was queued."""
        rows = self._read(
            "SELECT COALESCE(state, 'none'), COUNT(*), MIN(queued_dttm) FROM task_instance "  # noqa: S608
            f"WHERE dag_id = '{DAG}' AND map_index >= 0 GROUP BY state"
        )
        queued = [moment.timestamp() for *_, at in rows if (moment := _time(at)) is not None]
        return {state: count for state, count, _ in rows}, min(queued, default=None)

    def tries(self) -> list[Try]:
        """Read every try of every task instance but the burst's, in the order in which they were queued."""
        columns = "dag_id, task_id, map_index, try_number, state, queued_dttm, start_date, end_date"
        rows = self._read(
            f"SELECT {columns}, external_executor_id, 1 FROM task_instance_history WHERE dag_id <> '{DAG}' "  # noqa: S608
            f"UNION ALL SELECT {columns}, external_executor_id, "
            "state IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed') FROM task_instance "
            f"WHERE dag_id <> '{DAG}'"
        )
        found = {}
        for row in rows:
            read = _read(row)
            # While a try is being archived it can be in both tables; the live one, read last, is current.
            found[read.label, read.number] = read
        never = datetime.max.replace(tzinfo=timezone.utc)
        return sorted(
            found.values(), key=lambda read: (read.dag_id, read.label, read.number, read.queued or never)
        )

    def executor_entries(self) -> list[Entry]:
        """Read what an executor for ECS or Batch added to the event log, the oldest entry first."""
        rows = self._read(
            "SELECT dttm, dag_id, task_id, map_index, try_number, event, extra FROM log "
            "WHERE event LIKE 'container %' OR (event LIKE 'ecs %' OR event LIKE 'batch %') "
            "AND event NOT LIKE '% container output' ORDER BY id"
        )
        return [Entry(_time(row[0]), *row[1:]) for row in rows]

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(
            sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=10)
        ) as connection:
            return connection.execute(query).fetchall()

    def task_log(self, of: Try) -> str:
        """Return the log of a try, as far as it has been written here."""
        return self._log(of, "")

    def last_words(self, of: Try) -> str:
        """
        Return what the executor has put beside the log of a try, and after it that log, as the tab Logs has both.

        What the container has printed is left out beside a log that has it.
        """
        beside = self._log(of, ".container.log")
        return "\n".join([beside.rstrip("\n"), self._log(of, "")]) if beside else ""

    def _log(self, of: Try, suffix: str) -> str:
        name = f"attempt={of.number}.log{suffix}"
        found = self.task_logs.glob(f"dag_id={of.dag_id}/*/task_id={of.task_id}/**/{name}")
        mapped = f"map_index={of.map_index}"
        return "\n".join(
            path.read_text(errors="replace") for path in sorted(found) if of.map_index < 0 or mapped in path.parts
        )


def _read(row: tuple[Any, ...]) -> Try:
    dag_id, task_id, map_index, number, state, queued, started, ended, external_id, settled = row
    return Try(
        dag_id, task_id, map_index, number, state, _time(queued), _time(started), _time(ended),
        external_id, bool(settled),
    )  # fmt: skip


def _time(text: str | None) -> datetime | None:
    """Read SQLAlchemy's way to keep a UTC time in SQLite."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _light_runner(folder: Path) -> Path:
    """Make a folder with a program ``python`` that runs no Airflow, for the path of some containers."""
    folder.mkdir(parents=True)
    program = folder / "python"
    script = Path(__file__).with_name("light_task.py")
    # Without the site's packages Python starts in a tenth of the time.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {shlex.quote(str(script))} "$@"\n')
    program.chmod(0o755)
    return folder


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
