"""
What an executor shows of itself at its ``status_port``, besides its engine.

May import ``compat``, ``core``, ``engine.status`` and the service-free adapter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import ecs_async_executor
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.status import Endpoint
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.settings import Tuning

if TYPE_CHECKING:
    from ecs_async_executor.adapter.executor import AsyncExecutor

_NAMES = ("dag_id", "run_id", "task_id", "map_index", "try_number")


def endpoint_of(executor: AsyncExecutor) -> Endpoint | None:
    """Return where an executor that starts shows what it does; None if it has no ``status_port``."""
    tuning = executor.adapter.tuning
    if tuning.status_port is None:
        return None
    return Endpoint(
        host=tuning.status_host,
        port=tuning.status_port,
        setting=port_setting(tuning, executor.team_name),
        identity={
            "version": ecs_async_executor.__version__,
            "executor": executor.adapter.service.name,
            "class": class_name(type(executor)),
            "team": executor.team_name,
            "hostname": compat.hostname(),
            "pid": os.getpid(),
            "job_id": executor.job_id,
            "started_at": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        },
        fields=fields_of,
        redacted=redacted,
    )


def port_setting(tuning: Tuning, team_name: str | None) -> str:
    """Return the name of the option ``status_port`` with its section, for people."""
    return f"{source_of(team_name).section(tuning.section)} status_port"


def class_name(cls: type) -> str:
    """Return the full name of an executor's class; for ours the one that people configure."""
    if cls.__module__.partition(".")[0] == "ecs_async_executor":
        return f"ecs_async_executor.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def fields_of(launch: Launch) -> Mapping[str, object]:
    """Return the fields that name a launch's task instance; None for each of a callback's."""
    # The key is the task instance's id on some versions of Airflow; an adopted workload has no task instance.
    ti = getattr(launch.workload, "ti", None)
    return {name: getattr(ti, name, getattr(launch.key, name, None)) for name in _NAMES}
