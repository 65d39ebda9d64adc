"""
The commands of ``airflow ecs-async``.

May import Airflow and everything else of this package. Every ``airflow`` command loads this module, so a command's
own imports wait until it runs.
"""

from __future__ import annotations

import json
from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

from ecs_async_executor.adapter.commands.containers import COMMANDS

_arg: Any = Arg  # untyped in Airflow

_TEAM = _arg(("--team",), help="Use the configuration of this team", default=None)
_SERVICE = _arg(
    ("--service",),
    help="Use the executor for this service; the default is the first configured one, else that for ECS",
    choices=("ecs", "batch"),
    default=None,
)
_LAUNCH = _arg(
    ("--launch",),
    help="Start one container with a harmless command, show its states and its log, stop it, and say what a first "
    "task would meet",
    action="store_true",
)
_TIMEOUT = _arg(
    ("--timeout",),
    help="Seconds to wait for the service, 15 by default; with --launch, for the container, 300 by default",
    type=float,
    default=None,
)
_STRICT = _arg(("--strict",), help="Exit with 1 for warnings too", action="store_true")
_CHECK_OUTPUT = _arg(
    ("-o", "--output"),
    help="text, or json: a list of objects with name, verdict (good, warning, problem, not tried), text and hint",
    choices=("text", "json"),
    default="text",
)
_QUEUE = _arg(("--queue",), help="The Airflow queue of the example task", default=None)
_EXECUTOR_CONFIG = _arg(
    ("--executor-config",), help="The executor_config of the example task, as JSON", type=json.loads, default=None
)
_ASK_AWS = _arg(
    ("--ask-aws",),
    help="Also ask AWS's Service Quotas what the account may use; it takes servicequotas:ListServiceQuotas",
    action="store_true",
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the command group, for the provider info and for Airflow 3.1's executors."""
    return [
        GroupCommand(
            name="ecs-async",
            help="See and steer what the asynchronous executors for ECS and Batch run",
            subcommands=(
                *COMMANDS,
                ActionCommand(
                    name="check",
                    help="Check the settings, and make every request that starts no container",
                    func=lazy_load_command("ecs_async_executor.cli.check"),
                    args=(_TEAM, _SERVICE, _TIMEOUT, _LAUNCH, _QUEUE, _EXECUTOR_CONFIG, _STRICT, _CHECK_OUTPUT),
                ),
                ActionCommand(
                    name="show-request",
                    help="Show the request that would launch a task, without its secrets",
                    func=lazy_load_command("ecs_async_executor.cli.show_request"),
                    args=(_TEAM, _SERVICE, _QUEUE, _EXECUTOR_CONFIG),
                ),
                ActionCommand(
                    name="status",
                    help="Show what the executors do in each running scheduler",
                    func=lazy_load_command("ecs_async_executor.cli.status"),
                    args=(ARG_OUTPUT,),
                ),
                ActionCommand(
                    name="quotas",
                    help="Show how much of AWS's quotas the executors use, who else does, and what to set",
                    func=lazy_load_command("ecs_async_executor.cli.quotas"),
                    args=(_ASK_AWS, ARG_OUTPUT),
                ),
            ),
        )
    ]
