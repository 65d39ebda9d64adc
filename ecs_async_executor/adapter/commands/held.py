"""
The task instances that our executors hold, with what AWS says of their containers.

May import everything of this package. The database is read first, in one short session; then AWS is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from airflow.utils.session import create_session
from sqlalchemy import or_

from ecs_async_executor.adapter import compat, tries
from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.asking import DESCRIBING, is_of_an_earlier_queueing
from ecs_async_executor.adapter.commands.fleet import Fleet, Member
from ecs_async_executor.adapter.commands.locating import locate
from ecs_async_executor.adapter.commands.words import refusal
from ecs_async_executor.adapter.status import ExecutorStatus, statuses
from ecs_async_executor.adapter.tries import Entry, Try
from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.destinations import destination_of, within
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.notices import why_it_waits
from ecs_async_executor.services.redaction import redacted

_KEY = ("dag_id", "run_id", "task_id", "map_index", "try_number")
ASKING_TIMEOUT = 60.0
"""Seconds that AWS has to describe all containers."""

Asked = Callable[[int, int], None]
"""Is told how many containers were asked for, of how many."""


@dataclass(frozen=True, slots=True)
class Held:
    """
    A task instance that is queued or running, and its container.

    :param member: its executor
    :param handle_id: the container's identifier; None if Airflow knows none yet
    :param place: where the container is, as far as its identifier tells
    :param destination: the executor's name for its Region and account; empty at home, or if it is not known
    :param seen: what AWS says of the container; None if AWS was not asked, or gave no answer
    :param asked: whether AWS was asked about the container
    :param waits: the latest reason to wait in Airflow's event log, or what its executor says at present
    :param waits_at: when the event log was told; None of what holds at present
    """

    of: Try
    member: Member
    handle_id: str | None
    place: str = ""
    destination: str = ""
    asked: bool = False
    seen: Observation | None = None
    waits: str = ""
    waits_at: datetime | None = None

    @property
    def phase(self) -> str:
        """``pending``, ``active`` or ``stopped``: the container's state, or what Airflow's makes likely."""
        if self.seen is None:
            return "active" if self.of.state != "queued" else "pending"
        if self.seen.seen in {Seen.STOPPED, Seen.MISSING} or self.seen.exit_code is not None:
            return "stopped"
        return "active" if self.seen.seen is Seen.RUNNING else "pending"

    @property
    def status(self) -> str:
        """The service's word for the container's state."""
        return "" if self.seen is None else self.seen.status

    @property
    def reason(self) -> str:
        """Why the container does not start, or has ended."""
        if self.seen is not None and self.seen.reason:
            return redacted(self.seen.reason)
        return redacted(self.waits) if self.phase == "pending" else ""

    @property
    def reason_at(self) -> datetime | None:
        """When the event log was told of the reason, which may have gone since; None if it holds at present."""
        return self.waits_at if self.reason and not (self.seen is not None and self.seen.reason) else None


def held(fleet: Fleet, *, dag_id: str | None = None, run_id: str | None = None) -> list[Held]:
    """Return the task instances that the wanted executors hold, those first that are so for longest."""

    def conditions(model: Any) -> list[Any]:
        equal = {"dag_id": dag_id, "run_id": run_id}
        return [
            model.state.in_(tries.HELD),
            or_(model.executor.is_(None), model.executor.in_(fleet.names())),
            *(getattr(model, name) == value for name, value in equal.items() if value),
        ]

    with create_session(scoped=False) as session:
        found = tries.find(session, conditions, earlier=False)
        teams = compat.teams_of({one.dag_id for one in found}, session)
        waits = tries.waits(session, [one for one in found if one.state == "queued"])
    rows = [(one, fleet.of(one, teams)) for one in found]
    ours = [_held(one, member, waits) for one, member in rows if member is not None and member in fleet.wanted]
    return sorted(ours, key=lambda one: (one.of.since is None, one.of.since, str(one.of)))


def _held(of: Try, member: Member, waits: Mapping[UUID, Entry]) -> Held:
    handle_id = member.adapter.handle_id(of.external_id) if of.external_id else None
    told = waits.get(of.id)
    if told is None:
        return Held(of, member, handle_id)
    return Held(of, member, handle_id, waits=told.text, waits_at=told.at)


def shown_by_schedulers() -> list[ExecutorStatus]:
    """Return what executors show of themselves, with the launches that wait (``status_port``)."""
    with create_session(scoped=False) as session:
        return [one for one in statuses(session, state="pending") if one.status is not None]


def at_present(rows: Sequence[Held], shown: Iterable[ExecutorStatus]) -> list[Held]:
    """
    Return the task instances with what they wait for at present, as far as schedulers show it.

    The event log is told when a wait begins, not that its reason has gone.
    """
    launches = {
        tuple(launch.get(name) for name in _KEY): (one.status, launch)
        for one in shown
        if one.status is not None
        for launch in one.status["launches"]
    }
    return [_at_present(row, launches) for row in rows]


def pauses(shown: Iterable[ExecutorStatus]) -> list[str]:
    """Return which executors launch nothing at present and why, as far as schedulers show it."""
    return [
        f"{one.class_name} on {one.hostname} launches nothing: {one.status['paused']}. Airflow keeps its tasks "
        "scheduled meanwhile, and they are not listed."
        for one in shown
        if one.status is not None and one.status.get("paused")
    ]


def _at_present(row: Held, launches: Mapping[Any, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Held:
    of = row.of
    found = launches.get((of.dag_id, of.run_id, of.task_id, of.map_index, of.number))
    if row.handle_id is not None or not row.waits or found is None:
        return row
    status, launch = found
    if not status.get("paused") and launch.get("reason"):  # its gate is closed
        return replace(row, waits=_at_gate(row, status, launch), waits_at=None)
    reason = _waits_for(status, launch)
    return row if reason is None else replace(row, waits=reason, waits_at=None)


def _at_gate(row: Held, status: Mapping[str, Any], launch: Mapping[str, Any]) -> str:
    """Return why a launch waits at its gate, as ``status`` shows it: the event log is told each reason once."""
    for gate in status.get("gates", ()):
        if gate["placement"] == launch.get("placement"):
            return why_it_waits(row.member.service, Kind(gate["kind"]), launch["reason"])
    return row.waits


def _waits_for(status: Mapping[str, Any], launch: Mapping[str, Any]) -> str | None:
    """Return what a launch waits for whose gate is not closed; None if that is not shown."""
    if status.get("paused"):
        return f"The container waits: nothing is launched: {status['paused']}"
    if launch.get("phase") != "waiting":
        return None
    figures = status.get("statistics") or {}
    turn = f"{figures.get('pending')} wait, {figures.get('launch_rate', 0):.3g} are launched per second"
    return f"The container waits for its turn: {turn}"


def look(rows: Sequence[Held], asked: Asked) -> tuple[list[Held], list[str]]:
    """
    Ask AWS for the containers of these task instances.

    :returns: the task instances, and a sentence for each executor and destination that did not answer
    """
    of_member: dict[Member, list[Held]] = defaultdict(list)
    for row in rows:
        if row.handle_id is not None:
            of_member[row.member].append(row)
    seen: dict[UUID, Held] = {}
    problems: list[str] = []
    total = sum(map(len, of_member.values()))
    for member, theirs in of_member.items():
        work = partial(_describe, member, theirs, seen, lambda done: asked(done, total))
        problems += [
            f"{member.service} did not say what containers do ({member}): "
            f"{refusal(error, DESCRIBING[member.service])} Their states are missing here."
            for error in _errors_of(work)
        ]
    return [seen.get(row.of.id) or replace(row, asked=row.handle_id is not None) for row in rows], problems


def _errors_of(work: Callable[[], Coroutine[Any, Any, Collection[Exception]]]) -> Collection[Exception]:
    """Ask AWS; return what prevented that: what the database has is worth showing alone."""
    try:
        return run_bounded(work, ASKING_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - see above
        return [error]


async def _describe(
    member: Member, rows: Sequence[Held], seen: dict[UUID, Held], done: Callable[[int], None]
) -> Collection[Exception]:
    """Note what AWS says of containers; return what prevented an answer."""
    backend = member.adapter.make_backend()
    of_id = {row.handle_id: row for row in rows if row.handle_id is not None}
    before = len(seen)
    async with backend.open():
        queues = {handle_id: row.of.queue for handle_id, row in of_id.items()}
        located = await locate(member.adapter, backend, queues, lambda number: done(before + number))
    for handle_id, observation in located.seen.items():
        if (row := of_id.get(handle_id)) is not None:
            seen[row.of.id] = _seen(row, observation)
    return located.errors.values()


def _seen(row: Held, observation: Observation) -> Held:
    """Return a task instance with its container; one of an earlier queueing is not its own."""
    if is_of_an_earlier_queueing(row.of, observation):
        return replace(row, handle_id=None)
    scope = observation.handle.scope
    place = within(scope).rpartition("/")[2] if row.member.service == "ECS" else ""
    return replace(row, seen=observation, place=place, destination=destination_of(scope))
