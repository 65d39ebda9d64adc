"""
Tries of task instances, as Airflow's database has them, for people: commands and pages.

May import ``compat``, ``core`` and SQLAlchemy. Reads only, in the caller's session. Nothing of the scheduler's
imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from airflow.models.log import Log
from sqlalchemy import func, select

from ecs_async_executor.adapter import compat
from ecs_async_executor.core.retries import without_line

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")
Conditions = Callable[[Any], Iterable[Any]]
"""Makes conditions of a model that has the columns of a task instance."""

HELD = ("queued", "running", "restarting")
"""States in which a task instance has, or waits for, a container."""
WAITS = "container waits"
"""The event log's name for a reason to wait."""

_COLUMNS = (
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "try_number",
    "state",
    "executor",
    "external_executor_id",
    "queued_dttm",
    "start_date",
    "end_date",
    "updated_at",
    "queue",
)
_AT_ONCE = 500
"""Values in one condition: SQLite takes 999."""


@dataclass(frozen=True, slots=True)
class Try:
    """
    One try of a task instance.

    :param id: new with each try
    :param executor: as the DAG names it; None for the default
    :param external_id: Airflow's ``external_executor_id``: a container's, or an identity that Airflow assigned
    :param changed_at: when the row was changed last
    :param earlier: a later try has taken its place
    :param queue: Airflow's; None if it is not known
    """

    id: UUID
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    number: int
    state: str | None
    executor: str | None
    external_id: str | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    changed_at: datetime | None
    earlier: bool = False
    queue: str | None = None

    @property
    def holds(self) -> bool:
        """Whether it has, or waits for, a container."""
        return not self.earlier and self.state in HELD

    @property
    def since(self) -> datetime | None:
        """Since when it is in its state, as far as the database tells."""
        if not self.holds:
            return self.ended_at or self.changed_at
        return self.started_at if self.state == "running" else self.queued_at

    @property
    def task(self) -> str:
        """The task, with the map index of a mapped one."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.dag_id} {self.run_id} {self.task}, try {self.number}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of Airflow's event log ("Audit Log") about a try."""

    at: datetime | None
    event: str
    text: str

    @classmethod
    def of(cls, at: datetime | None, event: str | None, text: str | None) -> Entry:
        """Return an entry without the line that is for programs."""
        return cls(at, event or "", without_line(text or ""))


def find(session: Session, conditions: Conditions, *, earlier: bool) -> list[Try]:
    """Return the present tries that meet the conditions, or the earlier ones."""
    model, id_column, more, options = compat.tries_table(earlier=earlier)
    query = select(id_column.label("id"), *(getattr(model, name).label(name) for name in _COLUMNS))
    rows = session.execute(query.where(*conditions(model), *more).execution_options(**options))
    return [_try(row, earlier=earlier) for row in rows]


def with_ids(session: Session, ids: Collection[UUID]) -> list[Try]:
    """Return the tries with these ids, present and earlier ones."""
    found: list[Try] = []
    for earlier in (False, True):
        id_column = compat.tries_table(earlier=earlier)[1]
        for some in _slices(ids):
            found += find(session, partial(_with_id, some, id_column), earlier=earlier)
    return found


def _with_id(ids: Collection[UUID], id_column: Any, _: Any) -> list[Any]:
    return [compat.has_id(ids, id_column)]


def with_external_ids(
    session: Session, external_ids: Collection[str], *, states: Sequence[str] | None = None
) -> list[Try]:
    """
    Return the tries that Airflow knows by these ``external_executor_id``.

    :param states: only the present tries in these states, which an index finds; None: earlier ones too
    """
    found: list[Try] = []
    for earlier in (False, True) if states is None else (False,):
        for some in _slices(external_ids):
            found += find(session, partial(_with_external_id, some, states), earlier=earlier)
    return found


def _with_external_id(external_ids: Collection[str], states: Sequence[str] | None, model: Any) -> list[Any]:
    condition = [model.external_executor_id.in_(external_ids)]
    return condition if states is None else [*condition, model.state.in_(states)]


def callback_states(session: Session, ids: Collection[UUID]) -> dict[UUID, str | None]:
    """Return the states of those of these callbacks that Airflow knows."""
    model = compat.callback_model()
    states: dict[UUID, str | None] = {}
    for some in _slices(ids) if model is not None else ():
        rows = session.execute(select(model.id, model.state).where(compat.has_id(some, model.id)))
        states |= {row.id: None if row.state is None else str(row.state) for row in rows}
    return states


def entries(session: Session, of: Try) -> list[Entry]:
    """Return the entries of Airflow's event log about a try by time: those of executors are written later."""
    query: Any = select(Log.dttm, Log.event, Log.extra)
    query = query.where(
        Log.dag_id == of.dag_id,
        Log.run_id == of.run_id,
        Log.task_id == of.task_id,
        Log.map_index == of.map_index,
        Log.try_number == of.number,
    )
    return [Entry.of(row.dttm, row.event, row.extra) for row in session.execute(query.order_by(Log.dttm, Log.id))]


def waits(session: Session, of: Sequence[Try]) -> dict[UUID, Entry]:
    """Return the latest reason to wait, by its id, of each of these tries that has one since it was queued."""
    oldest = min((one.queued_at for one in of if one.queued_at is not None), default=None)
    if oldest is None:
        return {}
    tries = {(one.dag_id, one.run_id, one.task_id, one.map_index, one.number): one for one in of}
    query: Any = select(Log.dag_id, Log.run_id, Log.task_id, Log.map_index, Log.try_number, Log.dttm, Log.extra)
    reasons: dict[UUID, Entry] = {}
    for *key, at, text in session.execute(query.where(Log.event == WAITS, Log.dttm >= oldest).order_by(Log.id)):
        found = tries.get(tuple(key))
        if found is not None and found.queued_at is not None and at >= found.queued_at:
            reasons[found.id] = Entry.of(at, WAITS, text)
    return reasons


def counted(session: Session, *columns: Any, **equal: str) -> list[Any]:
    """Return the values that some columns of present tries have together, those of the latest queueing last."""
    model: Any = compat.tries_table(earlier=False)[0]
    wanted = [getattr(model, name) for name in columns]
    query = select(*(column.label(name) for name, column in zip(columns, wanted, strict=True))).where(
        *(getattr(model, name) == value for name, value in equal.items())
    )
    return list(session.execute(query.group_by(*wanted).order_by(func.max(model.queued_dttm), *wanted)))


def _slices(values: Collection[T]) -> Iterator[list[T]]:
    listed = list(values)
    for start in range(0, len(listed), _AT_ONCE):
        yield listed[start : start + _AT_ONCE]


def _try(row: Any, *, earlier: bool) -> Try:
    return Try(
        id=compat.uuid_of(row),
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        number=row.try_number,
        state=None if row.state is None else str(row.state),
        executor=row.executor,
        external_id=row.external_executor_id or None,
        queued_at=row.queued_dttm,
        started_at=row.start_date,
        ended_at=row.end_date,
        changed_at=row.updated_at,
        earlier=earlier,
        queue=row.queue,
    )
