"""
The links of a try: its container in the AWS console, and its output in CloudWatch.

May import Airflow, ``compat``, ``tries``, ``services.links`` and the service-free adapter. AWS is never asked: the
page of the task instance waits for its links. So the log's link leads to a page of ours, which asks and redirects.
"""

from __future__ import annotations

from typing import Any

import structlog
from airflow.utils.session import create_session

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.ui import addresses
from ecs_async_executor.adapter.ui.holders import configured
from ecs_async_executor.adapter.ui.tries_of_task import Task, tries_of

log = structlog.get_logger(__name__)


def container_link(ti_key: Any) -> str:
    """Return the address of a try's container in the AWS console; empty if it has none of ours. Raise nothing."""
    try:
        container = _container(ti_key)
        if container is None:
            return ""
        adapter, handle_id = container
        return adapter.console_url(handle_id) or _page(ti_key, "console")
    except Exception:
        log.warning("ecs_async.ui.link_failed", key=str(ti_key), exc_info=True)
        return ""


def log_link(ti_key: Any) -> str:
    """Return the address of our page that leads to a try's output; empty if it has no container of ours."""
    try:
        return "" if _container(ti_key) is None else _page(ti_key, "log")
    except Exception:
        log.warning("ecs_async.ui.link_failed", key=str(ti_key), exc_info=True)
        return ""


def _container(ti_key: Any) -> tuple[ServiceAdapter, str] | None:
    """Return the container of a try, and its service; None if the try is not ours, or has no container yet."""
    fleet = configured()
    if fleet is None:
        return None
    with create_session(scoped=False) as session:
        task = Task(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
        one = tries_of(session, task).get(ti_key.try_number)
        if one is None or not one.external_id:
            return None
        member = fleet.of(one, compat.teams_of([one.dag_id], session))
    if member is None or member.executor is None:
        return None
    handle_id = member.adapter.handle_id(one.external_id)
    return None if handle_id is None else (member.adapter, handle_id)


def _page(ti_key: Any, page: str) -> str:
    return addresses.of_try(
        ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index, ti_key.try_number, page
    )
