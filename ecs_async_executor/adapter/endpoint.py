"""
What an executor shows of itself at its ``status_port``, besides its engine.

May import ``compat``, ``engine.status`` and the service-free adapter.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import ecs_async_executor
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.adapter.naming import class_name, fields_of
from ecs_async_executor.engine.status import Endpoint
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.settings import Tuning

if TYPE_CHECKING:
    from ecs_async_executor.adapter.executor import AsyncExecutor


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
