"""
All tries of one task instance that Airflow's database knows anything about.

May import Airflow, ``compat`` and ``tries``. Reads only, in the caller's session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.log import Log
from sqlalchemy import select

from ecs_async_executor.adapter import tries
from ecs_async_executor.adapter.tries import Entry, Try

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

OURS = ("container", "launch", "ecs", "batch")
"""How the names of our entries in the event log begin; the others are Airflow's own and other people's."""


@dataclass(frozen=True, slots=True)
class Task:
    """Names a task instance, whatever its try."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def conditions(self, model: Any) -> list[Any]:
        """Return the conditions of a model with the columns of a task instance."""
        return [
            model.dag_id == self.dag_id,
            model.run_id == self.run_id,
            model.task_id == self.task_id,
            model.map_index == self.map_index,
        ]


@dataclass(frozen=True, slots=True)
class Tries:
    """
    The tries of a task instance, by their number.

    Up to Airflow 3.3 a try that failed before it ran has no row of its own once the next one began. Only the event
    log knows it; ``of`` has no entry for its number then.
    """

    of: Mapping[int, Try]

    def get(self, number: int | None) -> Try | None:
        """Return a try; the latest if no number is given."""
        if number is None:
            return self.of[max(self.of)] if self.of else None
        return self.of.get(number)


def tries_of(session: Session, task: Task) -> Tries:
    """Return the tries of a task instance; none if there is no such task instance."""
    found = tries.find(session, task.conditions, earlier=True) + tries.find(
        session, task.conditions, earlier=False
    )
    by_number: dict[int, Try] = {}
    for one in found:
        # A failed try can have two rows while the next one is due: the past one has the container.
        if one.number not in by_number or one.external_id or not by_number[one.number].external_id:
            by_number[one.number] = one
    return Tries(by_number)


def entries_of(session: Session, task: Task) -> Mapping[int, Sequence[Entry]]:
    """Return what the executors have put into Airflow's event log about each try, the oldest first."""
    query: Any = select(Log.try_number, Log.dttm, Log.event, Log.extra)
    query = query.where(*task.conditions(Log), Log.try_number.is_not(None)).order_by(Log.id)
    found: dict[int, list[Entry]] = {}
    for number, at, event, text in session.execute(query):
        if (event or "").startswith(OURS):
            found.setdefault(number, []).append(Entry.of(at, event, text))
    return found
