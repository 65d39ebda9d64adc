"""
The commands about containers: their arguments.

May import Airflow and ``durations``; every ``airflow`` command loads this module.
"""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import (
    ARG_DAG_ID_OPT,
    ARG_OUTPUT,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    lazy_load_command,
)

from ecs_async_executor.adapter.commands.durations import count, count_from_one, seconds

_arg: Any = Arg  # untyped in Airflow
_CLI = "ecs_async_executor.cli"

_TEAM = _arg(("--team",), help="Only the executors of this team", default=None)
_SERVICE = _arg(("--service",), help="Only the executors for this service", choices=("ecs", "batch"), default=None)
_RUN_ID = _arg(("--run-id",), help="Only the task instances of this DAG run", default=None)
_LIMIT = _arg(
    ("--limit",), help="The most task instances to show, 0 for all (default: 200)", type=count, default=200
)
_STATE = _arg(
    ("--state",),
    help="pending: the container has not started; active: it runs; stopped: it has ended, or AWS does not know "
    "it, and Airflow still waits (default: all)",
    choices=("pending", "active", "stopped", "all"),
    default="all",
)
_OFFLINE = _arg(("--offline",), help="Ask Airflow's database only, not AWS", action="store_true")
_WATCH = _arg(
    ("--watch",),
    help="Show it again every SECONDS (5) until Ctrl-C",
    metavar="SECONDS",
    nargs="?",
    type=seconds,
    default=0.0,
)
_MAP_INDEX = _arg(("--map-index",), help="The index of a mapped task", type=int, default=None)
_TRY = _arg(
    ("--try",), help="The number of the try (default: the latest)", dest="try_number", type=int, default=None
)
_TARGET_HELP = "the ARN or id of an ECS task, the id of a Batch job, or DAG_ID RUN_ID TASK_ID"
_TARGET = _arg(("target",), help=_TARGET_HELP, metavar="TARGET", nargs="+")
_TARGETS = _arg(("target",), help=f"{_TARGET_HELP}; several containers can be named", metavar="TARGET", nargs="+")
_FOLLOW = _arg(("-f", "--follow"), help="Go on with what it prints, until the container ends", action="store_true")
_LINES = _arg(
    ("-n", "--lines"), help="How many of the last lines (default: 100)", type=count_from_one, default=100
)
_SINCE = _arg(
    ("--since",), help="Only lines of the last 90s, 10m, 2h", type=seconds, metavar="DURATION", default=None
)
_CONTAINER = _arg(("--container",), help="A container other than Airflow's", metavar="NAME", default=None)
_RAW = _arg(("--raw",), help="The lines as they are, not Airflow's JSON made readable", action="store_true")
_REASON = _arg(("--reason",), help="Why, for AWS and for Airflow's event log", default=None)
_OLDER_THAN = _arg(
    ("--older-than",),
    help="Only those that nobody has waited for during 90s, 10m, 2h (default: 10m)",
    type=seconds,
    metavar="DURATION",
    default=600.0,
)
_STOP = _arg(("--stop",), help="Stop the orphans", action="store_true")
_UNKNOWN = _arg(
    ("--include-unknown",),
    help="Also those that this database has never known: another deployment's containers can be among them",
    action="store_true",
)
_COMMAND = _arg(
    ("--command",), help="What to run in the container (default: /bin/sh)", dest="command_line", default="/bin/sh"
)

_COMMON = (_TEAM, _SERVICE, ARG_VERBOSE)
_NAMED = (_TARGET, _MAP_INDEX, _TRY)

COMMANDS = (
    ActionCommand(
        name="list",
        help="Show the task instances that the executors hold, with their containers",
        func=lazy_load_command(f"{_CLI}.list_containers"),
        args=(_STATE, ARG_DAG_ID_OPT, _RUN_ID, _LIMIT, _OFFLINE, _WATCH, ARG_OUTPUT, *_COMMON),
    ),
    ActionCommand(
        name="describe",
        help="Show what is known of a task instance's container",
        func=lazy_load_command(f"{_CLI}.describe"),
        args=(*_NAMED, ARG_OUTPUT, *_COMMON),
    ),
    ActionCommand(
        name="logs",
        help="Show what a container has printed, from CloudWatch Logs",
        func=lazy_load_command(f"{_CLI}.logs"),
        args=(*_NAMED, _FOLLOW, _LINES, _SINCE, _CONTAINER, _RAW, *_COMMON),
    ),
    ActionCommand(
        name="stop",
        help="Stop containers; their task instances fail, and Airflow's retries apply",
        func=lazy_load_command(f"{_CLI}.stop"),
        args=(_TARGETS, _MAP_INDEX, _TRY, _REASON, ARG_YES, *_COMMON),
    ),
    ActionCommand(
        name="orphans",
        help="Show, or stop, the containers that no task instance waits for",
        description="Show, or stop, the containers that no task instance waits for. Exit code 3: there are some, "
        "and they were not to be stopped.",
        func=lazy_load_command(f"{_CLI}.orphans"),
        args=(_OLDER_THAN, _STOP, _UNKNOWN, ARG_YES, ARG_OUTPUT, *_COMMON),
    ),
    ActionCommand(
        name="exec",
        help="Print the command that opens a shell in a container",
        func=lazy_load_command(f"{_CLI}.exec_"),
        args=(*_NAMED, _CONTAINER, _COMMAND, *_COMMON),
    ),
)
