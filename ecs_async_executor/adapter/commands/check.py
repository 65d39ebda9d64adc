"""
``airflow ecs-async check``.

May import everything of this package.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.configured import executor_of
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.core.backend import Backend
from ecs_async_executor.core.errors import BackendError

if TYPE_CHECKING:
    import argparse

TIMEOUT = 15.0
"""Seconds that the service has by default to answer all requests that start no container."""


def check(args: argparse.Namespace) -> None:
    """
    Check the settings, and make every request that starts no container; with ``--launch``, then start one.

    :raises SystemExit: with each problem, if there is any
    """
    if not args.launch and (args.queue or args.executor_config):
        sys.exit("--queue and --executor-config are about the container that --launch starts.")
    adapter = executor_of(args).adapter
    name = adapter.service.name
    for doubt in adapter.doubts:
        sys.stdout.write(f"Warning: {doubt}\n")
    sys.stdout.write(f"Settings: good ({adapter.destination}).\n")
    try:
        backend = adapter.make_backend()
        problems = run_bounded(partial(_make_trials, backend), _seconds(args))
    except Exception as error:  # noqa: BLE001 - said, with the exit code
        sys.exit(f"{name}: {in_words(error)}")
    for trial, problem in problems:
        if problem is None:
            sys.stdout.write(f"{trial}: good.\n")
    if not args.launch:
        sys.stdout.write(f"Not tried: {backend.untried}.\n")
    if found := [f"{name}: {trial}: {problem}" for trial, problem in problems if problem is not None]:
        sys.exit("\n".join(found))
    if args.launch:
        from ecs_async_executor.adapter.commands.launch import launch

        launch(adapter, args.queue, args.executor_config, args.timeout)


def _seconds(args: argparse.Namespace) -> float:
    """Return how long the requests may take that start no container."""
    return TIMEOUT if args.launch or args.timeout is None else float(args.timeout)


async def _make_trials(backend: Backend) -> list[tuple[str, str | None]]:
    """Return the name of each trial and its problem, None if it has none."""
    problems: list[tuple[str, str | None]] = []
    async with backend.open():
        for trial in backend.trials():
            problem = None
            try:
                await trial.make()
            except BackendError as error:
                problem = in_words(error)
            problems.append((trial.name, problem))
    return problems
