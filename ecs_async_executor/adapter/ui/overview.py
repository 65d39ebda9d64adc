"""
What the menu's page "ECS" says: what runs, what waits and why, and what the engine of each scheduler does.

May import Airflow, and everything of the adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from airflow.utils.session import create_session

from ecs_async_executor.adapter import looking
from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.held import Held, held
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.status import READ_TIMEOUT, ExecutorStatus, statuses
from ecs_async_executor.adapter.ui.holders import configured

MOST_ROWS = 200
"""Task instances in each table, those first that have been there for longest."""
KEPT_FOR = 5.0
"""Seconds for which all viewers are shown the same of the schedulers."""


@dataclass(frozen=True, slots=True)
class Overview:
    """
    What our executors do.

    :param executors: those of ours that are configured, for people
    :param waiting: task instances that are queued
    :param running: task instances that run
    :param shows_reasons: the viewer may read the event log, which has the reasons
    :param statuses: of each executor in each scheduler
    :param problem: why there are no statuses; empty if there are
    """

    executors: Sequence[str]
    waiting: Sequence[Held]
    running: Sequence[Held]
    shows_reasons: bool
    statuses: Sequence[ExecutorStatus]
    problem: str


def overview(dag_ids: Collection[str], *, shows_reasons: bool) -> Overview | None:
    """
    Return what our executors do.

    :param dag_ids: the DAGs that the viewer may read; of others nothing is shown but that the engine counts them
    :returns: None if no executor of ours is configured
    """
    fleet = configured()
    if fleet is None:
        return None
    rows = [row for row in held(fleet) if row.of.dag_id in dag_ids]
    problem = ""
    shown: list[ExecutorStatus] = []
    try:
        shown = run_bounded(_shared_statuses, READ_TIMEOUT * 2)
    except Exception as error:  # noqa: BLE001 - the rows are worth showing without them
        problem = f"The schedulers cannot be asked: {in_words(error)}"
    return Overview(
        executors=[f"{one} ({one.service})" for one in fleet.wanted],
        waiting=[row for row in rows if row.of.state == "queued"],
        running=[row for row in rows if row.of.state != "queued"],
        shows_reasons=shows_reasons,
        statuses=shown,
        problem=problem,
    )


async def _shared_statuses() -> list[ExecutorStatus]:
    return await looking.of_running_loop().ask(
        "statuses", partial(asyncio.to_thread, _read_statuses), lambda _: KEPT_FOR
    )


def _read_statuses() -> list[ExecutorStatus]:
    with create_session(scoped=False) as session:
        return statuses(session)
