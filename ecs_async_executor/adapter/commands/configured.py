"""
The executor that a command is about.

May import everything of this package.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.batch import AsyncBatchExecutor
from ecs_async_executor.adapter.ecs import AsyncEcsExecutor
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.core.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

_EXECUTORS: dict[str, type[AsyncExecutor]] = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}


def executor_of(args: argparse.Namespace) -> AsyncExecutor:
    """
    Make the executor that the arguments name, with settings that ``start()`` would accept.

    :raises SystemExit: if the settings cannot be used; names every problem
    """
    executor = _class(args.service)(team_name=args.team)
    try:
        _ = executor.adapter.tuning, executor.adapter.max_attempts
    except ConfigurationError as error:
        sys.exit(str(error))
    return executor


def _class(service: str | None) -> type[AsyncExecutor]:
    """Return the configured class, which can be a user's subclass with hooks of its own; ours if there is none."""
    wanted = (_EXECUTORS[service],) if service else tuple(_EXECUTORS.values())
    for configured in compat.configured_executors():
        if issubclass(configured, wanted):
            return configured
    return wanted[0]
