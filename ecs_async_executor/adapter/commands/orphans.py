"""
``airflow ecs-async orphans``.

May import everything of this package.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.session import create_session

from ecs_async_executor.adapter import tries
from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import Fleet, Member, fleet
from ecs_async_executor.adapter.commands.judging import Judged, Verdict, judge
from ecs_async_executor.adapter.commands.output import duration, say, show
from ecs_async_executor.adapter.commands.progress import progress
from ecs_async_executor.adapter.commands.words import confirmed, moment, refusal, short_id, warn
from ecs_async_executor.adapter.tries import Try
from ecs_async_executor.core.destinations import destination_of, for_people, within
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.console import Console, Marked

if TYPE_CHECKING:
    import argparse

TIMEOUT = 600.0
"""Seconds that one executor's places may take to be read, and its orphans to be stopped."""
SOME = 3
"""Exit code: there are orphans, and they were not to be stopped."""
REASON = "No Airflow task instance waits for it (airflow ecs-async orphans)"

_LISTING = {"ECS": "ecs:ListTasks and ecs:DescribeTasks", "Batch": "batch:ListJobs"}


@dataclass(slots=True)
class _Scan:
    """
    The containers that were listed.

    :ivar of: the executor that each was found by, by its identifier
    :ivar failed: a place could not be read
    :ivar read: the places that were read
    """

    found: dict[str, Marked] = field(default_factory=dict)
    of: dict[str, Member] = field(default_factory=dict)
    failed: bool = False
    read: list[str] = field(default_factory=list)

    @property
    def places(self) -> str:
        """The places that were read."""
        return ", ".join(dict.fromkeys(self.read))


@command
@suppress_logs_and_warning
def orphans(args: argparse.Namespace) -> None:
    """
    Show the containers that no task instance waits for; with ``--stop``, stop them.

    :raises SystemExit: 3 if there are some that were not to be stopped, 1 if something failed
    """
    ours = fleet(args)
    with progress("Listing containers") as told:
        scan = _scan(ours, told)
    judged = _judged(list(scan.found.values()), args.older_than)
    wanted = {Verdict.ORPHAN, Verdict.UNKNOWN} if args.include_unknown else {Verdict.ORPHAN}
    chosen = [one for one in judged if one.verdict in wanted]
    _show(judged, scan, args)
    if chosen and args.stop:
        many = "this container" if len(chosen) == 1 else f"these {len(chosen)} containers"
        if not confirmed(f"Stop {many}?", yes=args.yes):
            sys.exit("Nothing was stopped.")
        # A person may have thought about it for long.
        again = _judged([one.container for one in chosen], args.older_than)
        good = _stop([one for one in again if one.verdict in wanted], scan)
        if not good or scan.failed:
            sys.exit(1)
    elif scan.failed:
        sys.exit(1)
    elif chosen:
        sys.exit(SOME)


# --- AWS first, then the database ----------------------------------------------------------------------------


def _scan(ours: Fleet, told: Callable[[int, int], None]) -> _Scan:
    scan = _Scan()
    for member in ours.wanted:
        try:
            run_bounded(partial(_list, member, scan, told), TIMEOUT)
        except Exception as error:  # noqa: BLE001, PERF203 - another executor's places can be read all the same
            scan.failed = True
            warn(f"{member.service} could not be searched ({member}): {refusal(error, _LISTING[member.service])}")
    return scan


async def _list(member: Member, scan: _Scan, told: Callable[[int, int], None]) -> None:
    console: Console = member.adapter.make_console()
    async with console.open():
        for scope in console.scopes:
            try:
                containers = await console.marked(scope, told)
            except BackendError as error:
                scan.failed = True
                why = refusal(error, _LISTING[member.service])
                warn(f"{member.service} {for_people(scope)} could not be read: {why}")
                continue
            scan.read.append(f"{member.service} {for_people(scope)}")
            for one in containers:
                scan.found.setdefault(one.handle.id, one)
                scan.of.setdefault(one.handle.id, member)


def _judged(containers: Sequence[Marked], older_than: float) -> list[Judged]:
    """Judge containers by what the database says now."""
    marks = {UUID(one.mark) for one in containers if one.mark is not None}
    with create_session(scoped=False) as session:
        # By index first: the column of external ids has none.
        related = _by_name(
            [
                *tries.with_ids(session, marks),
                *tries.with_external_ids(session, _names(containers), states=tries.HELD),
            ]
        )
        callbacks = tries.callback_states(session, marks)
        rest = [
            one for one in containers if not _related(one, related) and UUID(one.mark or NOBODY) not in callbacks
        ]
        for name, found in _by_name(tries.with_external_ids(session, _names(rest))).items():
            related[name] += found
    now = time.time()
    judged = []
    for one in containers:
        mark = UUID(one.mark or NOBODY)
        judged.append(
            judge(
                one,
                _related(one, related),
                callbacks.get(mark),
                known=mark in callbacks,
                now=now,
                older_than=older_than,
            )
        )
    return sorted(judged, key=lambda one: one.container.created_at or 0.0)


NOBODY = str(UUID(int=0))


def _names(containers: Sequence[Marked]) -> set[str]:
    return {name for one in containers for name in (one.mark, one.handle.id) if name is not None}


def _by_name(found: Sequence[Try]) -> dict[str, list[Try]]:
    """Return tries by what a container can name them by."""
    by_name: dict[str, list[Try]] = defaultdict(list)
    for one in found:
        for name in {str(one.id), one.external_id} - {None}:
            by_name[str(name)].append(one)
    return by_name


def _related(one: Marked, by_name: Mapping[str, list[Try]]) -> list[Try]:
    found = [*by_name.get(one.handle.id, ()), *(by_name.get(one.mark, ()) if one.mark else ())]
    return list(dict.fromkeys(found))


# --- what is shown -------------------------------------------------------------------------------------------


def _show(judged: Sequence[Judged], scan: _Scan, args: argparse.Namespace) -> None:
    shown = [one for one in judged if one.verdict in {Verdict.ORPHAN, Verdict.UNKNOWN}]
    if args.output != "table":
        show([_record(one, scan) for one in shown], args.output)
        return
    for verdict, title in (
        (Verdict.ORPHAN, "No task instance waits for these containers:"),
        (
            Verdict.UNKNOWN,
            "This database does not know these, which may be another deployment's:",
        ),
    ):
        rows = [one for one in shown if one.verdict is verdict]
        if rows:
            say(title)
            show(map(_cells, rows), "table")
    count = sum(one.verdict is Verdict.ORPHAN for one in judged)
    waited = sum(one.verdict is Verdict.WAITED_FOR for one in judged)
    young = sum(one.verdict is Verdict.YOUNG for one in judged)
    say(f"{scan.places or 'No place'}: {len(judged)} containers with an executor's mark.")
    say(
        f"Orphans: {count}. Waited for: {waited}. Too young to tell: {young}. Unknown: {len(shown) - count}."
        + (" Nothing is stopped without --stop." if count and not args.stop else "")
    )


def _members(scan: _Scan) -> list[Member]:
    return list(dict.fromkeys(scan.of.values()))


def _cells(one: Judged) -> dict[str, Any]:
    container, now = one.container, time.time()
    cells = {
        "container": short_id(container.handle.id),
        "status": container.status,
        "age": duration(now - container.created_at) if container.created_at is not None else "",
    }
    if one.verdict is Verdict.ORPHAN:
        cells["made for"] = str(one.of) if one.of is not None else f"callback {container.mark}"
        cells["which is"] = _state(one, now)
    return cells


def _state(one: Judged, now: float) -> str:
    if one.of is None:
        return "over"
    state = one.of.state or "not scheduled"
    return state if one.since is None else f"{state} for {duration(now - one.since)}"


def _record(one: Judged, scan: _Scan) -> dict[str, Any]:
    container, of = one.container, one.of
    return {
        "verdict": one.verdict.value,
        "container": container.handle.id,
        "place": within(container.handle.scope),
        "destination": destination_of(container.handle.scope),
        "executor": str(scan.of[container.handle.id]),
        "status": container.status,
        "created": moment(container.created_at),
        "mark": container.mark or "",
        "dag_id": of.dag_id if of else "",
        "run_id": of.run_id if of else "",
        "task_id": of.task_id if of else "",
        "map_index": of.map_index if of else "",
        "try_number": of.number if of else "",
        "state": (of.state or "") if of else "",
        "unwanted_since": moment(one.since),
    }


# --- stopping ------------------------------------------------------------------------------------------------


def _stop(chosen: Sequence[Judged], scan: _Scan) -> bool:
    """Stop containers, with a line about each; return whether all were stopped."""
    good = True
    for member in _members(scan):
        left = [one.container for one in chosen if scan.of[one.container.handle.id] is member]
        try:
            good = run_bounded(partial(_stop_all, member, left), TIMEOUT) and good
        except Exception as error:  # noqa: BLE001 - another executor's can be stopped all the same
            good = False
            for one in left:
                warn(f"{one.handle.id}: not stopped: {refusal(error, member.adapter.service.stop_permission)}")
    return good


async def _stop_all(member: Member, left: list[Marked]) -> bool:
    backend = member.adapter.make_backend()
    good = True
    async with backend.open():
        while left:
            handle = left[0].handle
            try:
                # In the executor's name: should one follow it after all, it is no decision of a person's.
                await backend.stop(handle, REASON)
                say(f"{handle.id}: told to stop.")
            except BackendError as error:
                good = False
                warn(f"{handle.id}: not stopped: {refusal(error, member.adapter.service.stop_permission)}")
            left.pop(0)
    return good
