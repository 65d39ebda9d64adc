"""
The commands of ``airflow ecs-async``.

May import Airflow and everything else of this package; what a command does is imported when it runs, since every
``airflow`` command loads this module.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    import argparse

    from ecs_async_executor.adapter.executor import AsyncExecutor
    from ecs_async_executor.core.backend import Backend

__all__ = ["check", "get_cli_commands", "show_request"]

_arg: Any = Arg  # untyped in Airflow

_TEAM = _arg(("--team",), help="Use the configuration of this team", default=None)
_SERVICE = _arg(
    ("--service",),
    help="Whose executor is meant: by default the first one that is configured, else that of ECS",
    choices=("ecs", "batch"),
    default=None,
)
_TIMEOUT = _arg(("--timeout",), help="Seconds to wait for the service", type=float, default=15.0)
_QUEUE = _arg(("--queue",), help="The Airflow queue of the imagined task", default=None)
_EXECUTOR_CONFIG = _arg(
    ("--executor-config",), help="The executor_config of the imagined task, as JSON", type=json.loads, default=None
)
_HIDDEN = "***"


def get_cli_commands() -> list[GroupCommand]:
    """Return the command group, for the provider info and for Airflow 3.1's executors."""
    return [
        GroupCommand(
            name="ecs-async",
            help="Look after the asynchronous executors for ECS and Batch",
            subcommands=(
                ActionCommand(
                    name="check",
                    help="Check the settings, and try every request that starts nothing",
                    func=lazy_load_command("ecs_async_executor.cli.check"),
                    args=(_TEAM, _SERVICE, _TIMEOUT),
                ),
                ActionCommand(
                    name="show-request",
                    help="Show the request that a task would be launched with, without its secrets",
                    func=lazy_load_command("ecs_async_executor.cli.show_request"),
                    args=(_TEAM, _SERVICE, _QUEUE, _EXECUTOR_CONFIG),
                ),
            ),
        )
    ]


def check(args: argparse.Namespace) -> None:
    """Check settings and service; the exit code is 1 if anything is wrong."""
    from ecs_async_executor.adapter.executor import in_words, run_bounded
    from ecs_async_executor.core.errors import BackendError

    executor = _executor(args)
    name = executor.service.name
    _say(f"Settings: good ({executor.destination}).")

    async def ask(backend: Backend) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        async with backend.open():
            for trial in backend.trials():
                problem = None
                try:
                    await trial.make()
                except BackendError as error:
                    problem = in_words(error)
                found.append((trial.name, problem))
        return found

    try:
        backend = executor._make_backend()  # noqa: SLF001 - one package
        found = run_bounded(partial(ask, backend), args.timeout)
    except Exception as error:  # noqa: BLE001 - said, with the exit code
        sys.exit(f"{name}: {in_words(error)}")
    for trial, problem in found:
        if problem is None:
            _say(f"{trial}: good.")
    _say(f"Not tried: {backend.untried}.")
    if problems := [f"{name}: {trial}: {problem}" for trial, problem in found if problem is not None]:
        sys.exit("\n".join(problems))


def show_request(args: argparse.Namespace) -> None:
    """Print a launch request as JSON, with values of environment variables and the workload left out."""
    executor = _executor(args)
    request, problems = _try_request(executor, args.queue, args.executor_config)
    if problems:
        culprit = _culprit(executor, args.queue, args.executor_config)
        sys.exit(f"A task with {culprit} would fail: {'; '.join(problems)}")
    _say(json.dumps(_without_secrets(request), indent=2, default=str))


def _try_request(executor: AsyncExecutor, queue: str | None, config: Any) -> tuple[Any, list[str]]:
    """Return a task's request, and what the SDK or we ourselves would refuse it for."""
    from ecs_async_executor.adapter.executor import in_words
    from ecs_async_executor.core.errors import Rejected
    from ecs_async_executor.core.messages import Launch

    try:
        command = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", _HIDDEN]
        launch = Launch("launch-id", "show-request", None, 0, "launch-id", 0.0)
        request = executor._request("show-request", command, queue, config or {})  # noqa: SLF001
        spec = executor._spec(request, launch, None)  # noqa: SLF001
    except Rejected as rejected:
        return None, [rejected.reason]
    except Exception as error:  # noqa: BLE001 - whatever it is, the launch fails of it too
        return None, [f"The container request could not be built: {in_words(error)}"]
    return spec.request, list(executor._wrong_parameters(spec.request))  # noqa: SLF001


def _culprit(executor: AsyncExecutor, queue: str | None, config: Any) -> str:
    """Name what has to change for a request that is refused: the last part that it is not refused without."""
    if config and not _try_request(executor, queue, None)[1]:
        return "this executor_config"
    if queue in executor.tuning.queues and not _try_request(executor, None, config)[1]:
        return f"what queues sets for queue {queue!r}"
    return "these settings"


def _executor(args: argparse.Namespace) -> AsyncExecutor:
    from ecs_async_executor.core.errors import ConfigurationError

    executor = _class(args.service)(team_name=args.team)
    try:
        _ = executor.tuning, executor.max_attempts
    except ConfigurationError as error:
        sys.exit(str(error))
    return executor


def _class(service: str | None) -> type[AsyncExecutor]:
    """Return the configured subclass, whose hooks shape requests too, if there is one."""
    from ecs_async_executor.adapter.batch import AsyncBatchExecutor
    from ecs_async_executor.adapter.compat import configured_executors
    from ecs_async_executor.adapter.ecs import AsyncEcsExecutor

    ours: dict[str | None, type[AsyncExecutor]] = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}
    wanted = (ours[service],) if service else tuple(ours.values())
    for found in configured_executors():
        if issubclass(found, wanted):
            return found
    return wanted[0]


def _without_secrets(request: Any) -> Any:
    """Hide the values of environment variables: names are enough to see what is configured."""
    if isinstance(request, dict):
        return {
            key: [_hide_value(one) for one in value]
            if key == "environment" and isinstance(value, list)
            else _without_secrets(value)
            for key, value in request.items()
        }
    if isinstance(request, list | tuple):
        return [_without_secrets(one) for one in request]
    return request


def _hide_value(variable: Any) -> Any:
    return {**variable, "value": _HIDDEN} if isinstance(variable, dict) and "value" in variable else variable


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
