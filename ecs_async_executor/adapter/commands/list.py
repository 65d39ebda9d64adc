"""
``airflow ecs-async list``.

May import everything of this package.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.cli.simple_table import AirflowConsole
from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import Fleet, fleet
from ecs_async_executor.adapter.commands.held import Held, at_present, held, look, pauses, shown_by_schedulers
from ecs_async_executor.adapter.commands.output import duration, say, show
from ecs_async_executor.adapter.commands.progress import progress
from ecs_async_executor.adapter.commands.words import HERE, moment, short_id, warn

if TYPE_CHECKING:
    import argparse

_INTERVAL = 5.0
"""Seconds from one look to the next where ``--watch`` names none."""
_WIDE = 140
"""Columns of a terminal that have room for containers' identifiers."""


@command
@suppress_logs_and_warning
def list_containers(args: argparse.Namespace) -> None:
    """
    Show the task instances that our executors hold, with their containers; with ``--watch``, again and again.

    :raises SystemExit: if no executor of this package is configured
    """
    ours = fleet(args)
    console = AirflowConsole()
    interval = _INTERVAL if args.watch is None else args.watch
    if not interval:
        _show(ours, args, console)
        return
    with suppress(KeyboardInterrupt):
        while True:
            if console.is_terminal:
                console.clear()
            _show(ours, args, console)
            _pause(interval)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _show(ours: Fleet, args: argparse.Namespace, console: Any) -> None:
    rows = held(ours, dag_id=args.dag_id, run_id=args.run_id)
    filtered = args.state != "all"
    limit = args.limit or len(rows)
    asked = rows if filtered else rows[:limit]
    problems: list[str] = []
    if not args.offline:
        with progress("Asking AWS") as told:
            shown = shown_by_schedulers()
            asked, problems = look(at_present(asked, shown), told)
        problems = [*pauses(shown), *problems]
    found = [row for row in asked if not filtered or row.phase == args.state]
    total = len(found) if filtered else len(rows)
    found = found[:limit]
    if args.output == "table":
        _show_table(found, args, console)
    else:
        show([_record(row) for row in found], args.output, console)
    for problem in problems:
        warn(problem)
    if total > len(found):
        warn(f"{len(found)} of {total} task instances are shown; --limit 0 shows all.")


def _record(row: Held) -> dict[str, Any]:
    of = row.of
    return {
        "dag_id": of.dag_id,
        "run_id": of.run_id,
        "task_id": of.task_id,
        "map_index": of.map_index,
        "try_number": of.number,
        "state": of.state,
        "since": moment(of.since),
        "executor": str(row.member),
        "container": row.handle_id or "",
        "status": row.status,
        "place": row.place,
        "destination": row.destination,
        "reason": row.reason,
        "reason_at": moment(row.reason_at),
    }


def _show_table(rows: Sequence[Held], args: argparse.Namespace, console: Any) -> None:
    """Print a table that fits a terminal: what is the same in all rows is left out, reasons stand below."""
    if not rows:
        filters = [f"{name} {value}" for name, value in (("DAG", args.dag_id), ("run", args.run_id)) if value]
        of = f" of {', '.join(filters)}" if filters else ""
        state = "" if args.state == "all" else f", with a container that is {args.state},"
        say(f"No task instance{of}{state} is queued or running on these executors.")
        return
    reasons = Counter(row.reason for row in rows if row.reason)
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    now = time.time()
    same: dict[str, str] = {}
    for name, values in (("DAG", {row.of.dag_id for row in rows}), ("run", {row.of.run_id for row in rows})):
        if len(values) == 1:
            same[name] = values.pop()
    if same:
        say(", ".join(f"{name} {value}" for name, value in same.items()))
    several = len({row.destination for row in rows}) > 1
    show([_cells(row, same, numbers, now, console.width, several=several) for row in rows], "table", console)
    for reason, number in numbers.items():
        count = f"{reasons[reason]} task instances: " if reasons[reason] > 1 else ""
        say(f"[{number}] {count}{reason}{_told(rows, reason, now)}")


def _told(rows: Sequence[Held], reason: str, now: float) -> str:
    """Say when the event log was told of a reason last, as it may have gone since."""
    times = [row.reason_at for row in rows if row.reason == reason]
    latest = max((at for at in times if at is not None), default=None)
    return "" if latest is None or None in times else f" (said {duration(now - latest.timestamp())} ago)"


def _cells(
    row: Held, same: Collection[str], numbers: dict[str, int], now: float, width: int, *, several: bool
) -> dict[str, Any]:
    of = row.of
    state = of.state or ""
    if of.since is not None:
        state += f" {duration(now - of.since.timestamp())}"
    missing = "no answer" if row.asked else "not asked for"
    container = row.status or (missing if row.handle_id else "none yet")
    cells: dict[str, Any] = {
        "DAG": of.dag_id,
        "run": of.run_id,
        "task": of.task,
        "try": of.number,
        "state": state,
        "container": container,
    }
    for name in same:
        del cells[name]
    if several:
        cells["destination"] = row.destination or HERE
    if numbers:
        cells["why"] = f"[{numbers[row.reason]}]" if row.reason else ""
    if width >= _WIDE:
        cells |= {"id": short_id(row.handle_id or ""), "place": row.place}
    return cells
