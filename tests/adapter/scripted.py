"""A bridge that does what the test says: the real queues, and nobody on the other side of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.core.messages import (
    Adopt,
    Command,
    Finished,
    Launch,
    Launched,
    Notice,
    PostMortem,
    Release,
    Report,
    Stop,
)
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.statistics import Statistics
from ecs_async_executor.settings import Tuning


class ScriptedBridge(Bridge):
    """Keep commands, report what it is told to; draining is the real bridge's."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.arguments = arguments
        self.commands: list[Command] = []
        self.dead: list[PostMortem] = []
        self.calls: list[str] = []
        self.draining = False
        self.silent = False
        self.health: Exception | None = None
        self.now = Statistics(launch_rate=20.0)
        self.stopped_with: list[dict[str, Any]] = []

    def start(self) -> None:
        self.calls.append("start")

    def check(self, timeout: float) -> None:
        self.calls.append(f"check {timeout:g}")
        if self.health is not None:
            raise self.health

    def submit(self, command: Command) -> None:
        self.commands.append(command)

    def examine(self, dead: PostMortem) -> None:
        self.dead.append(dead)

    def drain(self, apply: Callable[[Report], None], budget: float = 0.002) -> int:
        self.draining = True
        try:
            return super().drain(apply, budget)
        finally:
            self.draining = False

    def heartbeat(self, *, may_launch: bool = True) -> None:
        self.calls.append("heartbeat" if may_launch else "heartbeat, launching nothing")
        self.silent = self.silent and not may_launch

    def is_silent(self) -> bool:
        return self.silent

    def stop(self, timeout: float, *, stop_containers: bool, reason: str) -> bool:
        self.stopped_with.append({"timeout": timeout, "stop_containers": stop_containers, "reason": reason})
        return True

    def statistics(self) -> Statistics:
        return self.now

    # --- for tests -------------------------------------------------------------------------------------------

    def report(self, *reports: Report) -> None:
        """Put reports into the outbox."""
        self.ledger.outbox.extend(reports)

    @property
    def launches(self) -> list[Launch]:
        return [command for command in self.commands if isinstance(command, Launch)]

    @property
    def adoptions(self) -> list[Adopt]:
        return [command for command in self.commands if isinstance(command, Adopt)]

    @property
    def stops(self) -> list[Stop]:
        return [command for command in self.commands if isinstance(command, Stop)]

    @property
    def releases(self) -> list[Release]:
        return [command for command in self.commands if isinstance(command, Release)]

    def say(self, **changes: Any) -> None:
        """Change the statistics."""
        self.now = replace(self.now, **changes)


class Scripted(AsyncExecutor):
    """An executor over a scripted bridge."""

    bridge_type = ScriptedBridge
    scripted: ScriptedBridge
    health: Exception | None = None

    def _make_bridge(self, tuning: Tuning, stall_timeout: float) -> Bridge:
        self.scripted = cast("ScriptedBridge", super()._make_bridge(tuning, stall_timeout))
        self.scripted.health = self.health
        return self.scripted


class ScriptedExecutor(Scripted, AsyncEcsExecutor):
    """The one for ECS."""


class ScriptedBatchExecutor(Scripted, AsyncBatchExecutor):
    """The one for Batch."""


def make_workload(task_id: str = "task", **of_ti: Any) -> Any:
    """Make a real ExecuteTask of the running Airflow's version."""
    from airflow.executors.workloads import ExecuteTask

    ti = {
        "id": uuid.uuid4(),
        "dag_version_id": uuid.uuid4(),
        "task_id": task_id,
        "dag_id": "dag",
        "run_id": "run",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        **of_ti,
    }
    return ExecuteTask.model_validate(
        {
            "ti": ti,
            "dag_rel_path": "dag.py",
            "token": "eyJstale.eyJstale.stale",
            "log_path": "dag/task.log",
            "bundle_info": {"name": "bundle", "version": None},
        }
    )


def make_callback(**data: Any) -> Any:
    """Make a real ExecuteCallback, with this beside what Airflow puts into its data; Airflow 3.1 has none."""
    from airflow.executors.workloads import ExecuteCallback

    return ExecuteCallback.model_validate(
        {
            "callback": {
                "id": str(uuid.uuid4()),
                "fetch_method": "import_path",
                "data": {"path": "module.function", "kwargs": {}, **data},
            },
            "dag_rel_path": "dag.py",
            "token": "eyJstale.eyJstale.stale",
            "log_path": "callback.log",
            "bundle_info": {"name": "bundle", "version": None},
        }
    )


def queue(executor: Any, *workloads: Any) -> None:
    """Queue workloads as the scheduler does."""
    for workload in workloads:
        executor.queue_workload(workload, session=None)


def launched(launch: Launch, handle_id: str = "arn:aws:ecs:eu-west-1:1:task/c/1") -> Launched:
    return Launched(launch.launch_id, launch.key, handle_id)


def succeeded(launch: Launch) -> Finished:
    return Finished(launch.launch_id, launch.key, success=True, handle_id="arn:1", exit_code=0)


def failed(launch: Launch, reason: str = "ECS container exited 1", **more: Any) -> Finished:
    return Finished(launch.launch_id, launch.key, success=False, reason=reason, **more)


def notice(launch: Launch, text: str) -> Notice:
    return Notice(launch.launch_id, launch.key, "waiting for capacity", text, unlaunched=True)


def states(executor: AsyncEcsExecutor) -> dict[str, tuple[str, Any]]:
    """Return and clear the events, by task id or key."""
    coordinates = dict(getattr(executor, "_task_coordinates", {}))
    return {
        str(getattr(coordinates.get(key, key), "task_id", key)): (str(state), info)
        for key, (state, info) in executor.get_event_buffer().items()
    }


def task_ids(launches: Sequence[Launch]) -> list[str]:
    return [launch.workload.ti.task_id for launch in launches]
