"""docker-compose.yaml fits together: its services run here as processes, without Docker, and its DAG succeeds."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from ecs_async_executor.local.demo.airflow_home import FOREIGN
from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.processes import MARK, Processes
from tests.e2e.postgres import Postgres, binaries

yaml = pytest.importorskip("yaml")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not there: install the dependency group 'ha'"),
]

FOLDER = Path(__file__).parents[2] / "infrastructure" / "docker"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text())["services"]
PATIENCE = 120


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Played:
    """
    The services as processes: names of hosts are ports of this machine, and /opt/airflow is a folder.

    :param folder: becomes /opt/airflow
    """

    def __init__(self, folder: Path, database: str, inherited: Mapping[str, str]) -> None:
        self.ports = {"api-server:8080": free_port(), "ecs:5055": free_port(), "8796": free_port()}
        self._folder = folder
        self._database = database
        self._inherited = inherited
        for name in ("logs", "output"):
            (folder / name).mkdir()
        (folder / "dags").symlink_to(FOLDER / "dags")
        definition = self.here((FOLDER / "task-definition.json").read_text())
        (folder / "task-definition.json").write_text(definition)
        self.processes: dict[str, Processes] = {}

    def here(self, value: str) -> str:
        """Return a text of the file as it has to be on this machine."""
        value = re.sub(r"postgresql\+psycopg2://\S+", self._database, value)
        for place, port in self.ports.items():
            host, _, number = place.rpartition(":")
            value = value.replace(place, f"127.0.0.1:{port}" if host else str(port))
            value = str(port) if value == number else value
        return value.replace("/opt/airflow", str(self._folder)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    def environment(self, service: str) -> dict[str, str]:
        image = {"AIRFLOW_HOME": str(self._folder), MARK: secrets.token_hex(8)}
        given = {name: self.here(str(value)) for name, value in SERVICES[service]["environment"].items()}
        port = {"AIRFLOW__API__HOST": "127.0.0.1", "AIRFLOW__API__PORT": str(self.ports["api-server:8080"])}
        return {**self._inherited, **image, **given, **(port if service == "api-server" else {})}

    def command(self, service: str) -> list[str]:
        """Return the command, as the entrypoint of Airflow's image understands it."""
        first, *rest = (self.here(word) for word in SERVICES[service]["command"])
        return [sys.executable, *rest] if first == "python" else [sys.executable, "-m", "airflow", first, *rest]

    def of(self, service: str, interrupts: Interrupts) -> Processes:
        if service not in self.processes:
            output = self._folder / "output"
            self.processes[service] = Processes(output, self.environment(service), interrupts)
        return self.processes[service]

    def ledger(self) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.ports['ecs:5055']}/_local/ledger"
        with urllib.request.urlopen(url) as reply:
            entries: list[dict[str, Any]] = json.load(reply)["entries"]
        return entries


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):  # noqa: S310 - our own servers
            return True
    except OSError:
        return False


@pytest.fixture
def inherited() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    here = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**kept, "PATH": here, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts() as found:
        yield found


def test_the_services_of_docker_compose_run_its_dag(
    tmp_path: Path, inherited: dict[str, str], interrupts: Interrupts
) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(Postgres()).url()
        played = Played(tmp_path, database, inherited)
        engine = create_engine(database, isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)

        def start(service: str) -> None:
            processes = played.of(service, interrupts)
            stack.callback(processes.stop, patience=10)
            processes.start(service, *played.command(service))

        def until(holds: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE
            while not holds():
                for processes in played.processes.values():
                    processes.check()
                assert time.monotonic() < deadline
                time.sleep(0.2)

        def rows(query: str) -> list[Any]:
            with engine.connect() as connection:
                return list(connection.execute(text(query)))

        start("ecs")
        played.of("migration", interrupts).run("migration", *played.command("migration"))
        until(lambda: is_up(f"http://127.0.0.1:{played.ports['ecs:5055']}/_local/health"))
        for service in ("api-server", "dag-processor"):
            start(service)
        until(lambda: is_up(f"http://127.0.0.1:{played.ports['api-server:8080']}/api/v2/version"))
        until(lambda: bool(rows("SELECT 1 FROM serialized_dag WHERE dag_id = 'hello'")))
        person = played.of("scheduler", interrupts)
        person.run("check", sys.executable, "-m", "airflow", "ecs-async", "check")
        person.run("trigger", sys.executable, "-m", "airflow", "dags", "trigger", "hello")
        start("scheduler")
        until(lambda: rows("SELECT state FROM dag_run") in ([("success",)], [("failed",)]))

        ran = rows("SELECT external_executor_id, state FROM task_instance")
        assert [state for _, state in ran] == ["success"] * 4
        until(lambda: all(one["exit_code"] is not None for one in played.ledger()))
        entries = played.ledger()
        assert sorted(one["id"] for one in entries) == sorted(arn for arn, _ in ran)
        assert [one["exit_code"] for one in entries] == [0] * 4
        assert is_up(f"http://127.0.0.1:{played.ports['8796']}/health")
