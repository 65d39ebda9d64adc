"""
The configured executors, as the API server sees them: never started, made once.

May import everything of the adapter.
"""

from __future__ import annotations

import argparse
from functools import cache

import structlog

from ecs_async_executor.adapter.commands.fleet import Fleet, fleet

log = structlog.get_logger(__name__)


@cache
def configured() -> Fleet | None:
    """Return the configured executors; None if none is of this package, or the setting cannot be used."""
    try:
        return fleet(argparse.Namespace(service=None, team=None))
    except SystemExit as problem:
        log.info("ecs_async.ui.no_executor", problem=str(problem))
        return None
