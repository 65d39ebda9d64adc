"""Containers of a local ECS or Batch that task instances of a real database wait for, and commands about them."""

from __future__ import annotations

import argparse
import importlib
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
from airflow.models.log import Log
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter.commands import get_cli_commands
from ecs_async_executor.adapter.commands.example import try_spec
from ecs_async_executor.core.backend import Observation
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.local import LocalEcs
from tests.adapter.metadata import Metadata

EXECUTORS: dict[str, type[Any]] = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}
DAG = "adopted"
LOGGED = {"logDriver": "awslogs", "options": {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a"}}


def forget_executors() -> None:
    """Let Airflow read ``[core] executor`` again."""
    loader: Any = importlib.import_module("airflow.executors.executor_loader")
    for name in vars(loader):
        cache = getattr(loader, name)
        if name.startswith(("_executor_names", "_alias_to", "_module_to", "_classname_to", "_team_name_to")):
            cache.clear()


@dataclass
class Place:
    """A service, and Airflow's database."""

    service: str
    local: LocalEcs
    database: Metadata
    shown: Any
    run_id: str = ""
    executor: Any = field(init=False)

    def __post_init__(self) -> None:
        self.executor = EXECUTORS[self.service]()
        with self.database.session() as session:
            self.run_id = self.database.tis(session)[0].run_id

    # --- containers

    def launch(
        self,
        mark: str | None = None,
        *,
        command: str = "sleep 60",
        queue: str | None = None,
        number: int = 1,
        **parameters: Any,
    ) -> str:
        """
        Start a container as the executor does; return its identifier.

        :param number: of the launch's containers
        """
        launch_id = mark or str(uuid.uuid4())
        adapter = self.executor.adapter
        key = TaskInstanceKey(DAG, "task_0", self.run_id, 1, -1)
        launch = Launch(launch_id, key, None, 0, launch_id, time.time())
        spec, problems = try_spec(adapter, launch, ["sh", "-c", command], queue, parameters)
        assert spec is not None, problems

        async def send() -> Observation:
            backend = adapter.make_backend()
            async with backend.open():
                observation: Observation = await backend.launch(spec, f"{launch_id}-{number}")
                return observation

        return anyio.run(send).handle.id

    def status(self, handle_id: str) -> str:
        record = self.local.task(handle_id) if self.service == "ecs" else self.local.job(handle_id)
        return str(record.get("lastStatus") or record.get("status"))

    def stop_reason(self, handle_id: str) -> str:
        record = self.local.task(handle_id) if self.service == "ecs" else self.local.job(handle_id)
        return str(record.get("stoppedReason") or record.get("statusReason"))

    def until(self, handle_id: str, *statuses: str) -> None:
        """Wait until a container has one of these statuses."""
        deadline = time.monotonic() + 60
        while self.status(handle_id) not in statuses:
            assert time.monotonic() < deadline, self.status(handle_id)
            time.sleep(0.02)

    def until_running(self, handle_id: str) -> None:
        self.until(handle_id, "RUNNING")

    # --- task instances

    def ti_id(self, number: int) -> str:
        with self.database.session() as session:
            return str(self.database.tis(session)[number].id)

    def set(self, number: int, **columns: Any) -> str:
        """Change columns of a task instance; return its id."""
        now = datetime.now(tz=timezone.utc)
        with self.database.session() as session:
            ti = self.database.tis(session)[number]
            ti.try_number = 1
            ti.queued_dttm = now
            if columns.get("state") == "running":
                ti.start_date = now
            for name, value in columns.items():
                setattr(ti, name, value)
            return str(ti.id)

    def runs(self, number: int, *, state: str = "running", command: str = "sleep 60", **columns: Any) -> str:
        """Start a container for a task instance, in this state; return the container's identifier."""
        handle_id = self.launch(self.ti_id(number), command=command, queue=columns.get("queue"))
        self.set(number, state=state, external_executor_id=handle_id, **columns)
        return handle_id

    def next_try(self, number: int) -> None:
        """Put the present try into the history, as the scheduler does, and begin another."""
        with self.database.session() as session:
            ti = self.database.tis(session)[number]
            ti.prepare_db_for_next_try(session)
            session.flush()
            ti = self.database.tis(session)[number]  # 3.4: another row
            ti.state = None
            ti.try_number = 2
            ti.external_executor_id = None

    def says(self, number: int, event: str, text: str, at: datetime | None = None) -> None:
        """Put an entry into the event log of a task instance."""
        with self.database.session() as session:
            ti = self.database.tis(session)[number]
            entry = Log(event=event, extra=text, task_instance=ti.key)
            if at is not None:
                entry.dttm = at
            session.add(entry)

    def minutes_later(self, monkeypatch: Any, minutes: float) -> None:
        """Let the commands believe that it is so much later."""
        at = time.time() + minutes * 60
        monkeypatch.setattr("ecs_async_executor.adapter.commands.orphans.time", _Clock(at))

    # --- commands

    def target(self, number: int) -> list[str]:
        return [DAG, self.run_id, f"task_{number}"]

    def call(self, name: str, *arguments: str) -> None:
        """Call a command with arguments as they are typed; what was printed before is forgotten."""
        self.shown.readouterr()
        (group,) = get_cli_commands()
        command: Any = next(one for one in group.subcommands if one.name == name)
        parser = argparse.ArgumentParser(prog=name)
        for argument in command.args:
            argument.add_to_parser(parser)
        functions = {"list": "list_containers", "exec": "exec_"}
        getattr(cli, functions.get(name, name))(parser.parse_args(arguments))


@dataclass
class _Clock:
    now: float

    def time(self) -> float:
        return self.now


def ago(minutes: float) -> datetime:
    return datetime.now(tz=timezone.utc) - timedelta(minutes=minutes)
