"""
``airflow ecs-async describe``.

May import everything of this package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.commands.asking import details_of, is_older_than_queueing
from ecs_async_executor.adapter.commands.before import Before, containers_before
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import Member, fleet
from ecs_async_executor.adapter.commands.output import duration, say, show
from ecs_async_executor.adapter.commands.targets import NoTarget, Target, resolve_one
from ecs_async_executor.adapter.commands.told import (
    OUTPUT,
    Told,
    failure_of_task,
    has_failed,
    without_repetition,
)
from ecs_async_executor.adapter.commands.words import moment, short_id, warn
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.core.hints import hint
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.readable import readable
from ecs_async_executor.services.redaction import redacted

if TYPE_CHECKING:
    import argparse

    from ecs_async_executor.adapter.tries import Entry

_LAST_LINES = 5
_NONE_YET = frozenset({None, "scheduled", "queued", "running", "restarting"})
"""Airflow's states of a try that can still get a container."""


@dataclass(frozen=True, slots=True)
class _Known:
    """
    What is known of a target.

    :param details: of its container, None if AWS does not know it or did not answer
    :param old: the container is an earlier queueing's
    :param why: why the try has failed, or why its container does not start
    """

    target: Target
    details: Details | None
    old: bool
    why: Told | None
    before: Before

    @property
    def by_aws(self) -> str:
        """AWS's words about the container, if they are others than those about the failure."""
        said = redacted(self.details.observation.reason) if self.details is not None else ""
        return "" if self.why is not None and said in self.why.reason else said


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
    known = _known(target, details)
    if args.output in {"json", "yaml"}:
        show([_record(known)], args.output)
    else:
        rows = [{"what": what, "is": value} for what, value in _facts(known, missing) if value not in {"", None}]
        show(rows, args.output)
        if target.entries:
            say("")
            show(_entries(without_repetition(one, known.why) for one in target.entries), args.output)
    if missing:
        warn(missing)
        sys.exit(1)


def _known(target: Target, details: Details | None) -> _Known:
    of, told = target.of, target.failure
    if details is None:
        return _Known(target, None, old=False, why=told, before=Before())
    seen = details.observation
    old = of is not None and (of.state == "queued" or has_failed(of)) and is_older_than_queueing(of, seen)
    if told is None and of is not None and has_failed(of) and not old:
        told = failure_of_task(of, seen, target.entries)
    if not (old and has_failed(of)):
        means = hint(seen.ending, seen.exit_code, seen.reason) or ""
        told = Told(redacted(seen.reason), means) if told is None else replace(told, hint=told.hint or means)
    before = Before() if old else containers_before(target, seen)
    return _Known(target, details, old=old, why=told, before=before)


# --- for people ----------------------------------------------------------------------------------------------


def _facts(known: _Known, missing: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the rows; ``missing`` says why AWS says nothing of the container."""
    now = time.time()
    target, details, why = known.target, known.details, known.why
    if (of := target.of) is not None:
        yield "task instance", str(of)
        state = of.state or "not scheduled"
        if of.since is not None:
            state += f" since {_ago(of.since.timestamp(), now)}"
        yield "state", f"{state}; an earlier try" if of.earlier else state
        yield "queued", _ago(of.queued_at.timestamp(), now) if of.queued_at is not None else ""
    else:
        yield "task instance", "none in this Airflow's database"
    yield "executor", _executor(target.member)
    yield "container", target.handle_id or _no_container(target)
    if known.old:
        got = "got none" if has_failed(of) else "has none yet"
        yield "which is", f"the container of an earlier queueing; this one {got}"
    yield "status", missing if details is None else details.observation.status
    if why is not None:
        yield "reason", redacted(why.reason)
        yield "hint", redacted(why.hint)
    if details is None:
        return
    observation = details.observation
    yield f"{target.member.service} says", known.by_aws
    yield "stop code", observation.stop_code
    yield "exit code", observation.exit_code
    yield from _before_it(known.before, observation.created_at or 0.0)
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


def _before_it(before: Before, created_at: float) -> Iterator[tuple[str, str]]:
    for position, one in enumerate(before.containers, 1):
        number = position + ((one.created_at or 0.0) >= created_at)  # the present one has a number, too
        said = redacted(one.reason) or one.status
        yield f"container {number}", f"{short_id(one.handle.id)}, created {moment(one.created_at)}: {said}"
    yield "before it", before.problem


def _executor(member: Member) -> str:
    """Name an executor with its class, where tasks call it something else: the provider's name, too."""
    called = class_name(type(member.executor))
    which = "" if called.endswith(f".{member.names[0]}") else f", which is {called}"
    return f"{member}{which} ({member.service})"


def _no_container(target: Target) -> str:
    of = target.of
    if of is None or (not of.earlier and of.state in _NONE_YET):
        return "none yet that Airflow knows of"
    return "none: the try failed without one" if has_failed(of) else "none that Airflow knows of"


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


def _entries(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [{"when": moment(one.at), "event": one.event, "text": _text(one)} for one in entries]


def _text(entry: Entry) -> str:
    """Return the text of an entry; of a container's output the end, as its begin repeats the entry before it."""
    if not entry.event.endswith(f" {OUTPUT}"):
        return redacted(entry.text)
    lines = entry.text.splitlines()[-_LAST_LINES:]
    return "\n".join(redacted(readable(line)) for line in lines)


# --- for programs --------------------------------------------------------------------------------------------


def _record(known: _Known) -> dict[str, Any]:
    target, details, why = known.target, known.details, known.why
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
        "reason": redacted(why.reason) if why is not None else "",
        "hint": redacted(why.hint) if why is not None else "",
    }
    if details is not None:
        observation = details.observation
        record |= {
            "status": observation.status,
            "service_says": known.by_aws,
            "before": [
                {"container": one.handle.id, "created": moment(one.created_at), "reason": redacted(one.reason)}
                for one in known.before.containers
            ],
            "ending": observation.ending.value if observation.ending is not None else "",
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
    return record | {"event_log": _entries(target.entries)}
