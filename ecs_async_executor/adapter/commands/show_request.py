"""
``airflow ecs-async show-request``.

May import everything of this package.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ecs_async_executor.adapter.commands.configured import executor_of
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.example import KEY, default_queue, example_spec, example_workload
from ecs_async_executor.adapter.workloads import COMMAND
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.messages import Launch

if TYPE_CHECKING:
    import argparse

_HIDDEN = "***"


@command
def show_request(args: argparse.Namespace) -> None:
    """
    Print a launch request as JSON, without the values of environment variables and without the workload.

    What it asks for in words, and what that costs, goes to the standard error: programs read the JSON.

    :raises SystemExit: if the request would be refused; names the reasons and the part of it that has to change
    """
    launch = Launch("launch-id", KEY, None, 0, "launch-id", 0.0)
    workload = example_workload(KEY, args.queue or default_queue())
    adapter = executor_of(args).adapter
    spec = example_spec(adapter, launch, [*COMMAND, workload], args.queue, args.executor_config)
    sys.stdout.write(json.dumps(_without_secrets(spec.request, workload), indent=2, default=str) + "\n")
    if destination := destination_of(spec.scope):
        sys.stderr.write(f"It goes to destination {destination}.\n")
    if spec.handed_over is not None:
        bucket = adapter.tuning.workload_bucket
        sys.stderr.write(
            f"The workload goes to {bucket}, in an environment file that the request names besides.\n"
        )
    sys.stderr.writelines(f"{line}\n" for line in adapter.about_size(spec))


def _without_secrets(request: Any, workload: str) -> Any:
    """Hide the workload, and the values of environment variables: their names show what is configured."""
    if request == workload:
        return _HIDDEN
    if isinstance(request, dict):
        return {
            key: [_hide_value(one) for one in value]
            if key == "environment" and isinstance(value, list)
            else _without_secrets(value, workload)
            for key, value in request.items()
        }
    if isinstance(request, list | tuple):
        return [_without_secrets(one, workload) for one in request]
    return request


def _hide_value(variable: Any) -> Any:
    return {**variable, "value": _HIDDEN} if isinstance(variable, dict) and "value" in variable else variable
