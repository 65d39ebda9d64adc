"""
What the tab "Container" says of one try of a task instance.

May import Airflow, ``compat``, ``tries``, and the other modules of this folder. The database is read first, in one
short session; then AWS is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from airflow.configuration import conf
from airflow.utils.session import create_session

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands.asking import is_of_an_earlier_queueing
from ecs_async_executor.adapter.commands.fleet import Member
from ecs_async_executor.adapter.tries import WAITS, Entry, Try
from ecs_async_executor.adapter.ui.containers import Look, look_at
from ecs_async_executor.adapter.ui.holders import configured
from ecs_async_executor.adapter.ui.tries_of_task import Task, entries_of, tries_of
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.core.hints import hint
from ecs_async_executor.services import links
from ecs_async_executor.services.redaction import redacted

ENTRY_LENGTH = 8000
"""Characters of an entry of the event log that are shown; ours are shorter."""
_FAILED = ("failed", "up_for_retry")


@dataclass(frozen=True, slots=True)
class Step:
    """
    Something that happened to a container.

    :param after: seconds since the step before it; None for the first
    """

    what: str
    at: float
    after: float | None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """
    One try, and the numbers of the others.

    :param one: the try; None if only the event log knows it
    :param numbers: of all tries that are known
    :param member: its executor; None if that is none of this package
    :param handle_id: its container's identifier; None if it has none
    :param entries: what the executor said of it in the event log; None if the viewer may not read that
    """

    task: Task
    number: int
    numbers: Sequence[int]
    one: Try | None
    member: Member | None
    handle_id: str | None
    entries: Sequence[Entry] | None
    look: Look

    @property
    def core_executor(self) -> str:
        """The executors of this API server, by which the page tells whose the try is."""
        return conf.get("core", "executor", fallback="")

    @property
    def waits(self) -> bool:
        """Whether it waits for a container, or for one to start."""
        if self.one is None or not self.one.holds or self.one.state != "queued":
            return False
        details = self.look.details
        return details is None or details.observation.seen in {Seen.PENDING, Seen.MISSING}

    @property
    def waits_for(self) -> Entry | None:
        """The latest reason to wait that the executor has named since it was queued."""
        since = self.one.queued_at if self.one is not None else None
        told = [entry for entry in self.entries or () if entry.event == WAITS]
        if not told or (since is not None and told[-1].at is not None and told[-1].at < since):
            return None
        return told[-1]

    @property
    def live(self) -> bool:
        """Whether the page can change by itself."""
        return self.one is not None and self.one.holds and not self.look.ended

    @property
    def hint(self) -> str | None:
        """What its end means, and what to do about it."""
        if self.look.details is None:
            return None
        seen = self.look.details.observation
        in_order = seen.exit_code == 0 and seen.ending is None
        if in_order and self.one is not None and self.one.state in _FAILED:
            return "The container did its work, and the task in it failed. The tab Logs says why."
        lines = [line for output in self.look.outputs if output.container.runs_airflow for line in output.lines]
        return hint(seen.ending, seen.exit_code, seen.reason, lines)

    @property
    def console_url(self) -> str:
        """Its page in the AWS console; empty if it has no container, or AWS would have to say where it is."""
        if self.look.details is not None:
            return self.look.details.console_url
        if self.member is None or self.handle_id is None:
            return ""
        try:
            return self.member.adapter.console_url(self.handle_id) or ""
        except ConfigurationError:  # which the look names as its problem
            return ""

    @property
    def log_url(self) -> str:
        """The page of its output in CloudWatch; empty if that is not known, or elsewhere."""
        streams = (output.container.stream for output in self.look.outputs)
        found = next((stream for stream in streams if stream is not None), None)
        return "" if found is None else links.log_stream(found.region, found.group, found.name)

    @property
    def steps(self) -> list[Step]:
        """What happened to the container, and to its task instance before it had one."""
        details = self.look.details
        moments = list(details.times) if details is not None else []
        if self.one is not None and self.one.queued_at is not None:
            moments.append(("queued in Airflow", self.one.queued_at.timestamp()))
        moments.sort(key=lambda moment: moment[1])
        begun = [Step(what, at, None) for what, at in moments[:1]]
        return begun + [Step(what, at, at - before) for (_, before), (what, at) in pairwise(moments)]


def task_page(task: Task, number: int | None, may_read_entries: Callable[[], bool]) -> TaskPage | None:
    """
    Return what there is to say of a try.

    :param number: the try's; None for the latest
    :param may_read_entries: returns whether the viewer may read the event log of the DAG
    :returns: None if there is no such try
    """
    fleet = configured()
    with create_session(scoped=False) as session:
        tried = tries_of(session, task)
        entries = entries_of(session, task) if may_read_entries() else None
        teams = compat.teams_of([task.dag_id], session)
    one = tried.get(number)
    numbers = sorted({*tried.of, *(entries or ())} - {0})
    if one is None and number not in numbers:
        return None
    member = fleet.of(one, teams) if fleet is not None and one is not None else None
    if member is not None and member.executor is None:
        member = None
    handle_id = None
    look = Look()
    if one is not None and member is not None and one.external_id:
        handle_id = member.adapter.handle_id(one.external_id)
    if one is not None and member is not None and handle_id is not None:
        look = look_at(member.adapter, handle_id)
        if look.details is not None and is_of_an_earlier_queueing(one, look.details.observation):
            handle_id, look = None, Look()
    shown = one.number if one is not None else (number or 0)
    said = None if entries is None else [_shortened(entry) for entry in entries.get(shown, ())]
    return TaskPage(task, shown, numbers, one, member, handle_id, said, look)


def _shortened(entry: Entry) -> Entry:
    return Entry(
        entry.at, entry.event, "\n".join(redacted(line, ENTRY_LENGTH) for line in entry.text.splitlines())
    )


def facts(page: TaskPage) -> list[tuple[str, Any]]:
    """Return what is known of a try's container, each with a name."""
    details = page.look.details
    found: list[tuple[str, Any]] = [("Executor", str(page.member)), ("Container", page.handle_id)]
    if details is not None:
        found += [("Place", details.place), ("Size", details.size), ("Definition", details.definition)]
        found += [("Region", details.region), ("Destination", details.destination)]
    return [(name, value) for name, value in found if value]
