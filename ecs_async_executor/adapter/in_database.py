"""
What Airflow's database knows of the executors' work: how much is queued and runs, and the latest reasons.

May import Airflow, SQLAlchemy and the service-free adapter. It reads with a few queries, whatever runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import func, select

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.last_ends import ENDS
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.core.retries import without_line
from ecs_async_executor.services.redaction import redacted

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LATEST = 5
"""The most reasons that are returned."""
_ti: Any = TaskInstance
_log: Any = Log


@dataclass(slots=True)
class Work:
    """
    The task instances of one executor, of all schedulers.

    :param executor: the service
    :param oldest_queued_at: when the one was queued that is queued for the longest; None if none is
    """

    executor: str
    class_name: str
    team: str | None
    queued: int = 0
    running: int = 0
    oldest_queued_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """An entry of Airflow's event log about a container that waits, or about a launch or container that failed."""

    at: datetime
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    event: str
    text: str


def work_of(session: Session) -> list[Work]:
    """Count the task instances of each executor of ours."""
    names = compat.executor_names()
    works = {
        name: Work(executor.adapter.service.name, class_name(type(executor)), executor.team_name)
        for name, executor in compat.our_executors(AsyncExecutor)
    }
    query = (
        select(_ti.executor, _ti.dag_id, _ti.state, func.count(), func.min(_ti.queued_dttm))
        .where(_ti.state.in_(("queued", "running", "restarting")))
        .group_by(_ti.executor, _ti.dag_id, _ti.state)
    )
    rows = session.execute(query).all()
    teams = compat.teams_of({row[1] for row in rows}, session)
    for executor, dag_id, state, count, queued_at in rows:
        work = works.get(_owner(names, executor, teams.get(dag_id)))
        if work is None:
            continue
        if str(state) == "queued":
            work.queued += count
            oldest = work.oldest_queued_at
            work.oldest_queued_at = queued_at if oldest is None else min(oldest, queued_at or oldest)
        else:
            work.running += count
    return list(works.values())


def _owner(names: Sequence[Any], executor: str | None, team: str | None) -> Any:
    """Return the name of the executor that a task instance is for, as the scheduler finds it."""
    for candidates in (_of_team(names, team), _of_team(names, None)):
        for name in candidates:
            if executor is None or executor in {name.alias, name.module_path, name.module_path.rpartition(".")[2]}:
                return name
    return None


def _of_team(names: Sequence[Any], team: str | None) -> list[Any]:
    return [name for name in names if getattr(name, "team_name", None) == team]


def latest_reasons(session: Session, limit: int = LATEST) -> list[Reason]:
    """Return the latest entries of the event log about containers that wait or failed, the newest first."""
    events = {"container waits", "container not followed"}
    for _, executor in compat.our_executors(AsyncExecutor):
        service = executor.adapter.service.name.lower()
        ours = (*ENDS, executor.adapter.launch_failure)
        events |= {f"{service} {name}" for name in ours}
    query: Any = select(_log).where(_log.event.in_(sorted(events))).order_by(_log.id.desc()).limit(limit)
    return [
        Reason(
            at=entry.dttm,
            dag_id=entry.dag_id or "",
            run_id=entry.run_id or "",
            task_id=entry.task_id or "",
            map_index=-1 if entry.map_index is None else entry.map_index,
            try_number=entry.try_number or 0,
            event=entry.event,
            text=redacted(without_line(entry.extra or "")),
        )
        for entry in session.scalars(query)
    ]
