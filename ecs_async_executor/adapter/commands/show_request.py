"""
``airflow ecs-async show-request``.

May import everything of this package.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ecs_async_executor.adapter.commands.configured import executor_of
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.workloads import COMMAND
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch

if TYPE_CHECKING:
    import argparse

_HIDDEN = "***"


def show_request(args: argparse.Namespace) -> None:
    """
    Print a launch request as JSON, without the values of environment variables and without the workload.

    :raises SystemExit: if the request would be refused; names the reasons and the part of it that has to change
    """
    adapter = executor_of(args).adapter
    request, problems = _try_request(adapter, args.queue, args.executor_config)
    if problems:
        culprit = _culprit(adapter, args.queue, args.executor_config)
        sys.exit(f"A task with {culprit} would fail: {'; '.join(problems)}")
    sys.stdout.write(json.dumps(_without_secrets(request), indent=2, default=str) + "\n")


def _try_request(adapter: ServiceAdapter, queue: str | None, config: Any) -> tuple[Any, list[str]]:
    """Return a task's request, and the reasons for which the SDK or this package would refuse it."""
    launch = Launch("launch-id", "show-request", None, 0, "launch-id", 0.0)
    try:
        request = adapter.request(launch.key, [*COMMAND, _HIDDEN], queue, config or {})
        spec = adapter.spec(request, launch, None)
    except Rejected as rejected:
        return None, [rejected.reason]
    except Exception as error:  # noqa: BLE001 - whatever it is, it fails the launch too
        return None, [f"The container request could not be built: {in_words(error)}"]
    return spec.request, list(adapter.wrong_parameters(spec.request))


def _culprit(adapter: ServiceAdapter, queue: str | None, config: Any) -> str:
    """Name the part that has to change: the first, from the task's own on, without which the request is good."""
    if config and not _try_request(adapter, queue, None)[1]:
        return "this executor_config"
    if queue in adapter.tuning.queues and not _try_request(adapter, None, config)[1]:
        return f"the setting queues for queue {queue!r}"
    return "these settings"


def _without_secrets(request: Any) -> Any:
    """Hide the values of environment variables: their names show enough of what is configured."""
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
