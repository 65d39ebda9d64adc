"""
``airflow ecs-async status``: what each executor does in each running scheduler.

May import everything of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session

from ecs_async_executor.adapter.commands.configured import executors_or_exit
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.output import duration, quiet, say, show
from ecs_async_executor.adapter.in_database import Reason, Work, latest_reasons, work_of
from ecs_async_executor.adapter.naming import placement_names
from ecs_async_executor.adapter.status import ExecutorStatus, statuses

if TYPE_CHECKING:
    import argparse

_NO_SCHEDULER = "no scheduler runs"


@command
def status(args: argparse.Namespace) -> None:
    """
    Print what each executor does in each running scheduler, and what the database knows.

    :raises SystemExit: if none of ours is configured
    """
    executors_or_exit()
    with quiet(), create_session(scoped=False) as session:
        seen, works, reasons = statuses(session), work_of(session), latest_reasons(session)
    seen += [_unscheduled(work) for work in works if not any(_is_of(one, work) for one in seen)]
    if args.output in {"json", "yaml"}:
        show([_whole(one, works, reasons) for one in seen], args.output)
        return
    show(map(_row, seen), args.output)
    if args.output == "table":
        troubles = (*_problems(seen), *_destinations(seen), *_events(seen), *_gates(seen))
        for line in (*troubles, *_in_database(works, reasons)):
            say(line)


def _unscheduled(work: Work) -> ExecutorStatus:
    return ExecutorStatus("", 0, 0.0, work.executor, work.class_name, work.team, problem=_NO_SCHEDULER)


def _is_of(seen: ExecutorStatus, work: Work) -> bool:
    return (seen.class_name, seen.team) == (work.class_name, work.team)


def _name(of: ExecutorStatus | Work) -> str:
    return f"{of.executor} (team {of.team})" if of.team else of.executor


def _row(seen: ExecutorStatus) -> dict[str, object]:
    """Return the line of a table."""
    figures: Mapping[str, Any] = seen.status["statistics"] if seen.status is not None else {}
    paused = seen.status["paused"] if seen.status is not None else None
    return {
        "executor": _name(seen),
        "scheduler": seen.hostname or "-",
        "state": "unknown" if seen.status is None else f"paused: {paused}" if paused else "works",
        "pending": figures.get("pending", "-"),
        "launching": figures.get("launching", "-"),
        "active": figures.get("active", "-"),
        "oldest": duration(figures["oldest_pending_age"]) if figures else "-",
        "rate": f"{figures['launch_rate']:.1f}/s" if figures else "-",
        "throttles": figures.get("throttles", "-"),
        "gates": figures.get("closed_gates", "-"),
    }


def _whole(seen: ExecutorStatus, works: Sequence[Work], reasons: Sequence[Reason]) -> dict[str, object]:
    """Return all that is known but the launches, for programs; ``airflow ecs-async list`` has those."""
    shown = seen.status or {}
    of_executor: dict[str, object] = {}
    for work in works:
        if _is_of(seen, work):
            of_executor = {
                "queued": work.queued,
                "running": work.running,
                "oldest_queued_at": work.oldest_queued_at.isoformat() if work.oldest_queued_at else None,
            }
    return {
        "executor": seen.executor,
        "class": seen.class_name,
        "team": seen.team,
        "scheduler": seen.hostname or None,
        "job_id": seen.job_id or None,
        "heartbeat_age": round(seen.heartbeat_age, 1),
        "problem": seen.problem,
        **{name: shown.get(name) for name in ("version", "pid", "started_at", "paused")},
        "statistics": shown.get("statistics", {}),
        "gates": shown.get("gates", []),
        "destinations": shown.get("destinations", []),
        "events": shown.get("events", []),
        "rates": shown.get("rates", []),
        "in_database": of_executor,
        "reasons": [{**asdict(reason), "at": reason.at.isoformat()} for reason in reasons],
    }


# --- the lines below a table


def _problems(seen: Iterable[ExecutorStatus]) -> Iterator[str]:
    of_problem: dict[str, list[str]] = {}
    for one in seen:
        if one.problem is not None:
            where = f"{_name(one)} on {one.hostname}" if one.hostname else _name(one)
            of_problem.setdefault(one.problem, []).append(where)
    for problem, places in of_problem.items():
        yield f"{', '.join(places)}: {problem}."


def _destinations(seen: Iterable[ExecutorStatus]) -> Iterator[str]:
    for one in seen:
        for there in one.status.get("destinations", ()) if one.status is not None else ():
            if there["trouble"] is not None:
                yield (
                    f"{_name(one)} on {one.hostname}: {there['pending']} wait for destination "
                    f"{there['name'] or 'home'}: {there['trouble']}"
                )


def _events(seen: Iterable[ExecutorStatus]) -> Iterator[str]:
    for one in seen:
        for queue in one.status.get("events", ()) if one.status is not None else ():
            if queue["trouble"] is not None:
                where = f", destination {queue['destination']}" if queue["destination"] else ""
                yield f"{_name(one)} on {one.hostname}: no events{where}: {queue['trouble']}"


def _gates(seen: Iterable[ExecutorStatus]) -> Iterator[str]:
    for one in seen:
        gates = one.status["gates"] if one.status is not None else ()
        names = placement_names(gate["placement"] for gate in gates)
        for gate in gates:
            choice = f"{gate['choice']}: " if gate.get("choice") else ""
            yield (
                f"{_name(one)} on {one.hostname}: {gate['waiting']} wait ({gate['kind']}) since {gate['since']}, "
                f"{choice}{names[gate['placement']]}: {gate['reason']}"
            )


def _in_database(works: Iterable[Work], reasons: Sequence[Reason]) -> Iterator[str]:
    now = datetime.now(tz=timezone.utc)
    for work in works:
        oldest = work.oldest_queued_at
        since = f" (the oldest for {duration((now - oldest).total_seconds())})" if oldest is not None else ""
        yield f"{_name(work)}, in Airflow's database: {work.queued} queued{since}, {work.running} running."
    if reasons:
        yield "What Airflow's event log was told last; it may be over:"
    for reason in reasons:
        mapped = f" [{reason.map_index}]" if reason.map_index >= 0 else ""
        at, task = (
            reason.at.isoformat(timespec="seconds"),
            f"{reason.dag_id} {reason.run_id} {reason.task_id}{mapped}",
        )
        yield f"  {at}  {task}: {reason.event}: {reason.text}"
