"""
What a command is pointed at: an ECS task ARN, a Batch job id, or DAG_ID RUN_ID TASK_ID.

May import everything of this package. Reads Airflow's database, in a session of its own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session

from ecs_async_executor.adapter import compat, tries
from ecs_async_executor.adapter.commands.fleet import Fleet, Member
from ecs_async_executor.adapter.commands.told import Told, failure_in, has_failed
from ecs_async_executor.adapter.commands.words import short_id
from ecs_async_executor.adapter.tries import Entry, Try
from ecs_async_executor.core.identity import is_uuid

if TYPE_CHECKING:
    import argparse

    from sqlalchemy.orm import Session

_TASK_ARN = re.compile(r"arn:[\w-]+:ecs:(?P<region>[\w-]+):\d*:task/(?:[\w-]+/)?(?P<id>[\w-]+)")
_TASK_ID = re.compile(r"[0-9a-f]{32}")
_PARTS = 3
_SHOWN = 6
"""Names in one line."""
FORMS = "an ECS task's ARN or id, a Batch job's id, or DAG_ID RUN_ID TASK_ID"


class NoTarget(Exception):
    """A target names nothing that a command can work on; the text is a line that says why, and the way out."""


@dataclass(frozen=True, slots=True)
class Target:
    """
    A container, or a try of a task instance that has none yet.

    :param member: the executor that it belongs to
    :param handle_id: the container's identifier; None if Airflow knows none
    :param of: the try; None if Airflow's database does not know the container
    :param entries: Airflow's event log about the try
    """

    member: Member
    handle_id: str | None
    of: Try | None
    entries: tuple[Entry, ...] = ()

    def __str__(self) -> str:
        """Name it for people."""
        container = f"{self.member.service} {short_id(self.handle_id)}" if self.handle_id else ""
        return " / ".join(part for part in (str(self.of or ""), container) if part)

    @property
    def container(self) -> str:
        """
        The container's identifier.

        :raises NoTarget: if there is none
        """
        if self.handle_id is None:
            raise NoTarget(self.no_container)
        return self.handle_id

    @property
    def queue(self) -> str | None:
        """The queue of the task instance; None if there is none."""
        return self.of.queue if self.of is not None else None

    @property
    def failure(self) -> Told | None:
        """Why the try has failed, as the event log tells it; None if it has not, or nothing does."""
        if not has_failed(self.of):
            return None
        return failure_in(self.member.service, self.member.adapter.launch_failure, self.entries)

    @property
    def no_container(self) -> str:
        """Why there is no container."""
        assert self.of is not None
        if has_failed(self.of):
            told = self.failure
            why = "`airflow ecs-async describe` shows what is known of it." if told is None else told.text
            return f"{self.of} has failed without a container that Airflow knows of. {why}"
        reason = next((one.text for one in reversed(self.entries) if one.event == tries.WAITS), "")
        return f"{self.of} is {self.of.state or 'not scheduled'}, and Airflow knows no container of it" + (
            f". {reason}" if reason else ". `airflow ecs-async describe` shows what is known of it."
        )


def resolve(fleet: Fleet, args: argparse.Namespace) -> list[Target | NoTarget]:
    """
    Find what the arguments name; more than one container can be.

    :returns: for each target what was found, or why there is none
    """
    words: list[str] = args.target
    named = args.map_index is not None or args.try_number is not None
    with create_session(scoped=False) as session:
        if all(map(_is_container, words)):
            if named:
                return [NoTarget("--map-index and --try belong to DAG_ID RUN_ID TASK_ID.")]
            return [_caught(_of_container, fleet, session, word) for word in words]
        if len(words) != _PARTS:
            wrong = next(word for word in words if not _is_container(word))
            return [NoTarget(f"{wrong!r} is no target: name {FORMS}.")]
        return [_caught(_of_task, fleet, session, words, args.map_index, args.try_number)]


def resolve_one(fleet: Fleet, args: argparse.Namespace) -> Target:
    """
    Find the one container or task instance that the arguments name.

    :raises NoTarget: if there is none, or more than one
    """
    found = resolve(fleet, args)
    if len(found) != 1:
        raise NoTarget(f"This command takes one target: {FORMS}.")
    if isinstance(found[0], NoTarget):
        raise found[0]
    return found[0]


def _caught(find: Any, *arguments: Any) -> Target | NoTarget:
    try:
        target: Target = find(*arguments)
    except NoTarget as problem:
        return problem
    return target


def _is_container(word: str) -> bool:
    return word.startswith("arn:") or bool(is_uuid(word) or _TASK_ID.fullmatch(word))


# --- containers ----------------------------------------------------------------------------------------------


def _of_container(fleet: Fleet, session: Session, word: str) -> Target:
    is_job = bool(is_uuid(word))
    arn = _TASK_ARN.fullmatch(word)
    if word.startswith("arn:") and arn is None:
        raise NoTarget(f"{word} is not the ARN of an ECS task: name {FORMS}.")
    service = "Batch" if is_job else "ECS"
    members = list(fleet.for_service(service))
    if not members:
        raise NoTarget(f"{word} belongs to {service}, and no executor for {service} is configured.")
    if is_job or arn is not None:
        found = tries.with_external_ids(session, [word])
    else:
        found = [
            one
            for earlier in (False, True)
            for one in tries.find(
                session, lambda model: [model.external_executor_id.like(f"arn:%/{word}")], earlier=earlier
            )
        ]
    if not found:
        # Containers of other deployments, callbacks and checks are not in the table: AWS knows more of them.
        if len(members) > 1:
            raise NoTarget(
                f"Airflow's database does not know {word}: say with --team or --service which executor's it is."
            )
        return Target(members[0], word, None)
    latest = max(found, key=lambda one: (not one.earlier, one.number))
    member = _member_of(fleet, session, latest)
    assert latest.external_id is not None
    return Target(member, latest.external_id, latest, tuple(tries.entries(session, latest)))


# --- task instances ------------------------------------------------------------------------------------------


def _of_task(
    fleet: Fleet, session: Session, words: Sequence[str], map_index: int | None, number: int | None
) -> Target:
    dag_id, run_id, task_id = words

    def conditions(model: Any) -> list[Any]:
        return [
            model.dag_id == dag_id,
            model.run_id == run_id,
            model.task_id == task_id,
            *([] if map_index is None else [model.map_index == map_index]),
        ]

    present = tries.find(session, conditions, earlier=False)
    if not present:
        raise NoTarget(_missing(session, dag_id, run_id, task_id, map_index))
    if len(present) > 1:
        indexes = sorted(one.map_index for one in present)
        raise NoTarget(
            f"{task_id!r} has {len(indexes)} task instances in this run: choose one with --map-index "
            f"({_some([str(one) for one in indexes])})."
        )
    found = present[0]
    if number is not None and number != found.number:
        earlier = tries.find(
            session, lambda model: [*conditions(model), model.map_index == found.map_index], earlier=True
        )
        by_number = {one.number: one for one in earlier}
        if number not in by_number:
            known = ", ".join(map(str, sorted({*by_number, found.number})))
            raise NoTarget(
                f"Airflow does not know try {number} of {dag_id} {run_id} {found.task}: it knows {known}."
            )
        found = by_number[number]
    member = _member_of(fleet, session, found)
    external_id = found.external_id
    handle_id = member.adapter.handle_id(external_id) if external_id else None
    return Target(member, handle_id, found, tuple(tries.entries(session, found)))


def _member_of(fleet: Fleet, session: Session, of: Try) -> Member:
    member = fleet.of(of, compat.teams_of([of.dag_id], session))
    if member is None:
        raise NoTarget(f"{of} names the executor {of.executor!r}, which is not configured here.")
    if member.executor is None:
        raise NoTarget(f"{of} belongs to {member}, which is none of this package: see its log in Airflow's UI.")
    if member not in fleet.wanted:
        raise NoTarget(f"{of} belongs to {member} ({member.service}): leave out --service and --team.")
    return member


def _missing(session: Session, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the first part of a name that Airflow does not know, with those that it knows."""
    runs = [row.run_id for row in tries.counted(session, "run_id", dag_id=dag_id)]
    if not runs:
        dags = [row.dag_id for row in tries.counted(session, "dag_id")]
        return f"Airflow knows no task instance of a DAG {dag_id!r}{_meant(dag_id, dags)}"
    if run_id not in runs:
        return f"DAG {dag_id!r} has no run {run_id!r}: its latest are {_some(runs[::-1])}."
    rows = tries.counted(session, "task_id", "map_index", dag_id=dag_id, run_id=run_id)
    tasks = sorted({row.task_id for row in rows})
    if task_id not in tasks:
        return f"Run {run_id!r} of DAG {dag_id!r} has no task {task_id!r}: it has {_some(tasks)}."
    indexes = sorted(row.map_index for row in rows if row.task_id == task_id)
    return f"Task {task_id!r} has no map index {map_index} in this run: it has {_some([str(i) for i in indexes])}."


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
