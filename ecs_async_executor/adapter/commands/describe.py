"""
``airflow ecs-async describe``.

May import everything of this package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.commands.asking import details_of, is_of_an_earlier_queueing
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import fleet
from ecs_async_executor.adapter.commands.output import duration, say, show
from ecs_async_executor.adapter.commands.targets import NoTarget, Target, resolve_one
from ecs_async_executor.adapter.commands.words import moment, warn
from ecs_async_executor.core.hints import hint
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.readable import readable
from ecs_async_executor.services.redaction import redacted

if TYPE_CHECKING:
    import argparse

    from ecs_async_executor.adapter.tries import Entry

_OUTPUT = " container output"
_LAST_LINES = 5


@command
@suppress_logs_and_warning
def describe(args: argparse.Namespace) -> None:
    """
    Show what Airflow's database, its event log and AWS know of a task instance and its container.

    :raises SystemExit: if there is nothing to show; 1 also if AWS did not answer
    """
    details, missing = None, ""
    try:
        target = resolve_one(fleet(args), args)
    except NoTarget as problem:
        sys.exit(str(problem))
    if target.handle_id is not None:
        try:
            details = details_of(target)
        except NoTarget as problem:
            missing = str(problem)
            if target.of is None:
                sys.exit(missing)
    if args.output in {"json", "yaml"}:
        show([_record(target, details)], args.output)
    else:
        rows = [{"what": what, "is": value} for what, value in _facts(target, details) if value not in {"", None}]
        show(rows, args.output)
        if target.entries:
            say("")
            show(_entries(target), args.output)
    if missing:
        warn(missing)
        sys.exit(1)


# --- for people ----------------------------------------------------------------------------------------------


def _facts(target: Target, details: Details | None) -> Iterator[tuple[str, Any]]:
    now = time.time()
    if (of := target.of) is not None:
        yield "task instance", str(of)
        state = of.state or "not scheduled"
        if of.earlier:
            state += ", an earlier try"
        yield "state", f"{state} since {_ago(of.since.timestamp(), now)}" if of.since is not None else state
        yield "queued", _ago(of.queued_at.timestamp(), now) if of.queued_at is not None else ""
    else:
        yield "task instance", "none in this Airflow's database"
    yield "executor", f"{target.member} ({target.member.service})"
    if target.handle_id is None:
        yield "container", "none yet that Airflow knows of"
        return
    yield "container", target.handle_id
    if details is None:
        return
    observation = details.observation
    if of is not None and is_of_an_earlier_queueing(of, observation):
        yield "which is", "the container of an earlier queueing; this one has none yet"
    yield "status", observation.status
    yield "reason", redacted(observation.reason)
    yield "hint", hint(observation.ending, observation.exit_code, observation.reason)
    yield "stop code", observation.stop_code
    yield "exit code", observation.exit_code
    yield "destination", details.destination
    yield "place", details.place
    yield "size", details.size
    yield "definition", details.definition
    for name, at in details.times:
        yield name, _ago(at, now)
    for one in details.containers:
        yield from _container_facts(one)
    yield "shell", "takes `airflow ecs-async exec`" if details.takes_exec else ""
    yield "console", details.console_url


def _container_facts(one: ContainerDetails) -> Iterator[tuple[str, str]]:
    attempt = f" attempt {one.attempt}" if one.attempt is not None else ""
    name = f"{one.name}{attempt}"
    parts = [one.status, f"exit code {one.exit_code}" if one.exit_code is not None else "", redacted(one.reason)]
    whose = "runs Airflow's command" if one.runs_airflow else ""
    yield name, ", ".join(part for part in (*parts, whose) if part)
    yield f"{name} image", one.image
    yield f"{name} log", str(one.stream) if one.stream is not None else one.no_stream


def _ago(at: float, now: float) -> str:
    return f"{moment(at)}, {duration(now - at)} ago"


def _entries(target: Target) -> list[dict[str, Any]]:
    return [{"when": moment(one.at), "event": one.event, "text": _text(one)} for one in target.entries]


def _text(entry: Entry) -> str:
    """Return the text of an entry; of a container's output the end, as its begin repeats the entry before it."""
    if not entry.event.endswith(_OUTPUT):
        return redacted(entry.text)
    lines = entry.text.splitlines()[-_LAST_LINES:]
    return "\n".join(redacted(readable(line)) for line in lines)


# --- for programs --------------------------------------------------------------------------------------------


def _record(target: Target, details: Details | None) -> dict[str, Any]:
    of = target.of
    record: dict[str, Any] = {
        "dag_id": of.dag_id if of else "",
        "run_id": of.run_id if of else "",
        "task_id": of.task_id if of else "",
        "map_index": of.map_index if of else "",
        "try_number": of.number if of else "",
        "state": (of.state or "") if of else "",
        "since": moment(of.since) if of else "",
        "queued": moment(of.queued_at) if of else "",
        "executor": str(target.member),
        "service": target.member.service,
        "container": target.handle_id or "",
    }
    if details is not None:
        observation = details.observation
        record |= {
            "status": observation.status,
            "reason": redacted(observation.reason),
            "ending": observation.ending.value if observation.ending is not None else "",
            "hint": hint(observation.ending, observation.exit_code, observation.reason) or "",
            "stop_code": observation.stop_code or "",
            "exit_code": observation.exit_code,
            "destination": details.destination,
            "place": details.place,
            "size": details.size,
            "region": details.region,
            "definition": details.definition,
            "times": {name: moment(at) for name, at in details.times},
            "containers": [
                {
                    "name": one.name,
                    "attempt": one.attempt,
                    "status": one.status,
                    "exit_code": one.exit_code,
                    "reason": redacted(one.reason),
                    "image": one.image,
                    "runs_airflow": one.runs_airflow,
                    "log_group": one.stream.group if one.stream is not None else "",
                    "log_stream": one.stream.name if one.stream is not None else "",
                    "no_log": one.no_stream,
                }
                for one in details.containers
            ],
            "takes_exec": details.takes_exec,
            "console_url": details.console_url,
        }
    return record | {"event_log": _entries(target)}
