"""
How the earlier tries of a task instance ended: what this scheduler saw, else what Airflow's event log has.

May import ``core``, ``engine.daemons``, Airflow, SQLAlchemy and the service-free adapter. The main thread adds
ends, in microseconds. Asking for them can wait for the database: neither the main thread nor the loop's does that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import structlog
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import select

from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import End, end_in
from ecs_async_executor.engine.daemons import DaemonThreads
from ecs_async_executor.services.redaction import redacted

log = structlog.get_logger(__name__)

CONTAINER_FAILURE: Final = "container failure"
OUT_OF_MEMORY: Final = "container out of memory"
INTERRUPTED: Final = "container interrupted"
RETRY_RULE: Final = "retry rule"
"""
The event log's names, after the service's: for a container that failed, for one that exited 0 although a process
in it was killed for want of memory, or although its spot capacity or its host was taken away, and for a try that
is launched differently from those before it.
"""
ENDS: Final = (CONTAINER_FAILURE, OUT_OF_MEMORY, INTERRUPTED)
"""Those that tell of an end, besides those of launches that failed."""
ENDS_KEPT: Final = 20_000
LAUNCHES_KEPT: Final = 10_000
"""As many as can wait for a container, with some to spare."""
TIMEOUT: Final = 5.0
PAUSE: Final = 30.0
"""Seconds for which a database that did not answer is not asked again: launches wait one after the other."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Entry(NamedTuple):
    """An entry of the event log, as far as it is read here."""

    id: int
    try_number: int
    event: str
    extra: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """
    What is known of the tries before a launch's.

    :param told: the event log says already what this try is launched with
    """

    ends: tuple[End, ...] = ()
    told: bool = False


class LastEnds:
    """
    Remembers how tries ended, and looks up what it does not remember.

    What has once been answered for a launch stays its answer: each time that it is rendered it comes to the same
    request.

    :param read: returns the entries of a task instance's tries up to one; may block
    :param monotonic: the clock, in seconds
    :ivar wanted: a rule could apply to some launch: before that nothing is remembered
    """

    def __init__(
        self,
        adapter: ServiceAdapter,
        read: Callable[[Any, Collection[str]], Sequence[Entry]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        service = adapter.service.name.lower()
        self._event = adapter.service.event
        self._retry_rule = f"{service} {RETRY_RULE}"
        self._events = tuple(f"{service} {name}" for name in (*ENDS, adapter.launch_failure, RETRY_RULE))
        self._read = read_entries if read is None else read
        self._monotonic = monotonic
        self._ends: dict[Hashable, End | None] = {}
        self._told: dict[Hashable, None] = {}
        self._answers: dict[str, Past] = {}
        self._notes: dict[str, str] = {}
        self._under_way: Future[Sequence[Entry]] | None = None
        self._not_before = 0.0
        self.wanted = False

    # --- on the main thread ----------------------------------------------------------------------------------

    def remember(self, key: Any, end: End | None) -> None:
        """
        Remember how a try ended.

        :param key: Airflow's, of its task instance
        :param end: None if it ended well, as far as its container tells
        """
        if self.wanted and hasattr(key, "try_number"):
            _put(self._ends, key, end, ENDS_KEPT)

    def note_of(self, launch_id: str, key: Any) -> str | None:
        """Return what people should read of a launch that has its container; None if they have read it already."""
        return None if key in self._told else self._notes.get(launch_id)

    def noted(self, launch_id: str, key: Any) -> None:
        """Take it that people have read what :meth:`note_of` has returned."""
        _put(self._told, key, None, ENDS_KEPT)
        self.forget(launch_id)

    def forget(self, launch_id: str) -> None:
        """Forget what people should read of a launch."""
        self._notes.pop(launch_id, None)

    # --- on the loop's thread and on its worker thread -------------------------------------------------------

    def known(self, launch: Launch) -> Past | None:
        """Return what is known of the tries before a launch's, if it can be told without the database."""
        found = self._answers.get(launch.launch_id)
        if found is None:
            key: Any = launch.key
            earlier = [key._replace(try_number=number) for number in range(1, key.try_number)]
            if all(one in self._ends for one in earlier):
                ends = [self._ends.get(one) for one in earlier]
                found = self._answer(launch, Past(tuple(end for end in ends if end is not None)))
        return found

    def before(self, launch: Launch) -> Past:
        """Return what is known of the tries before a launch's; nothing if the database does not answer in time."""
        return self.known(launch) or self._answer(launch, self._looked_up(launch))

    def note(self, launch: Launch, text: str) -> None:
        """Have people read something as soon as a launch has its container."""
        if text and not self.before(launch).told:
            _put(self._notes, launch.launch_id, text, LAUNCHES_KEPT)

    def _answer(self, launch: Launch, past: Past) -> Past:
        _put(self._answers, launch.launch_id, past, LAUNCHES_KEPT)
        return past

    def _looked_up(self, launch: Launch) -> Past:
        key: Any = launch.key
        ends: dict[int, End] = {}
        told = False
        for entry in sorted(self._asked(launch)):
            if entry.try_number == key.try_number:
                told = told or entry.event == self._retry_rule
            elif (end := end_in(entry.extra or "", entry.try_number)) is not None:
                ends[entry.try_number] = end
        for number in range(1, key.try_number):
            # The entry of an end that this scheduler saw may not be written yet.
            end = self._ends.get(key._replace(try_number=number))
            if end is not None:
                ends[number] = end
        return Past(tuple(ends.values()), told)

    def _asked(self, launch: Launch) -> Sequence[Entry]:
        """Ask the database; return nothing if it does not answer, and say so."""
        if self._monotonic() < self._not_before:
            return ()
        problem = "the last question has no answer yet"
        if self._under_way is None or self._under_way.done():
            # A thread of its own: a question that hangs holds up launches for so long only.
            asked = self._under_way = DaemonThreads().submit(self._read, launch.key, self._events)
            try:
                return asked.result(TIMEOUT)
            except (FutureTimeoutError, TimeoutError):
                problem = f"no answer within {TIMEOUT:g} s"
            except Exception as error:  # noqa: BLE001 - the launch goes on without
                problem = redacted(f"{type(error).__name__}: {error}", 200)
        self._not_before = self._monotonic() + PAUSE
        log.warning(self._event("retry_rules.unknown"), launch=str(launch), error=problem, paused_for=PAUSE)
        return ()


def read_entries(key: Any, events: Collection[str]) -> Sequence[Entry]:
    """Return the entries of the event log with these names about a task instance's tries up to one."""
    query: Any = select(Log.id, Log.try_number, Log.event, Log.extra)
    query = query.where(
        Log.dag_id == key.dag_id,
        Log.task_id == key.task_id,
        Log.run_id == key.run_id,
        Log.map_index == key.map_index,
        Log.try_number <= key.try_number,
        Log.event.in_(events),
    )
    with create_session(scoped=False) as session:
        return [Entry(*row) for row in session.execute(query)]


def _put(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """Keep a value; drop the oldest beyond so many. One thread alone adds to each dictionary."""
    kept[key] = value
    if len(kept) > most:
        with suppress(RuntimeError):  # another thread has dropped one at this moment
            kept.pop(next(iter(kept)), None)
