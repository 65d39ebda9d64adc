"""
``airflow ecs-async exec``.

May import everything of this package.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.commands.asking import details_of
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import fleet
from ecs_async_executor.adapter.commands.output import say
from ecs_async_executor.adapter.commands.targets import NoTarget, resolve_one
from ecs_async_executor.adapter.commands.words import warn
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.services.details import Details

if TYPE_CHECKING:
    import argparse

_ALSO = (
    "It takes the Session Manager plugin here, ecs:ExecuteCommand, and the four ssmmessages actions in the task's "
    "or job's role: CreateControlChannel, CreateDataChannel, OpenControlChannel and OpenDataChannel."
)
_THERE = "It takes credentials for destination {}, too: the command uses those that the AWS CLI finds."
_OFF = "it was started without enableExecuteCommand, which cannot be changed afterwards: "
_ON = {
    "ECS": (
        'set {"enableExecuteCommand": true} in run_task_kwargs, in queues or in executor_config for the next try.'
    ),
    "Batch": (
        "for the next try, give it to a revision of the job definition, in containerProperties or, beside the "
        "containers, in ecsProperties. SubmitJob cannot set it."
    ),
}


@command
@suppress_logs_and_warning
def exec_(args: argparse.Namespace) -> None:
    """
    Print the command line that opens a shell in a container.

    :raises SystemExit: if the container takes none; says what is missing
    """
    try:
        target = resolve_one(fleet(args), args)
        details = details_of(target)
    except NoTarget as problem:
        sys.exit(str(problem))
    observation = details.observation
    if observation.seen is Seen.STOPPED or observation.exit_code is not None:
        sys.exit(f"{target} has ended: {observation.reason or observation.status}. There is no shell to open.")
    if observation.seen is not Seen.RUNNING:
        sys.exit(f"{target} does not run yet: it is {observation.status}.")
    if details.ecs_task is None:
        sys.exit(f"{target}: {target.member.service} does not name the ECS task in which it runs.")
    if not details.takes_exec:
        sys.exit(f"{target}: {_OFF}{_ON[target.member.service]}")
    say(shlex.join(_command(details, details.ecs_task, args)))
    warn(_ALSO if not details.destination else f"{_ALSO} {_THERE.format(details.destination)}")


def _command(details: Details, ecs_task: tuple[str, str], args: argparse.Namespace) -> list[str]:
    cluster, task = ecs_task
    command = ["aws", "ecs", "execute-command", "--region", details.region]
    command += ["--cluster", cluster, "--task", task]
    airflow = details.airflow_container
    if name := args.container or (airflow.name if airflow is not None else ""):
        command += ["--container", name]
    return [*command, "--interactive", "--command", args.command_line]
