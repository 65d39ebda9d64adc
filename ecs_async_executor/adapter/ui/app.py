"""
The app: a page about each task instance, two redirects into AWS, and a page about all that the executors do.

May import Airflow, FastAPI, and the other modules of this folder. Airflow does not authenticate the apps of
plugins: every route of this one asks for Airflow's own token, and for the permissions of Airflow's own pages.
Routes are plain functions: they run in threads, and whatever they wait for is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ecs_async_executor.adapter.ui import html
from ecs_async_executor.adapter.ui.overview import MOST_ROWS, overview
from ecs_async_executor.adapter.ui.task_page import TaskPage, facts, task_page
from ecs_async_executor.adapter.ui.tries_of_task import Task

_TASK = "/task/{dag_id}/{run_id}/{task_id}/{map_index}"
_MAY_READ_LOGS = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS))


def make_app() -> FastAPI:
    """Return the app; each of its routes answers 401 without a token."""
    app = FastAPI(
        title="ecs-async-executor",
        dependencies=[Depends(get_user)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    pages: dict[str, tuple[Callable[..., Response], list[Any]]] = {
        "/": (show_overview, [Depends(requires_access_view(AccessView.JOBS))]),
        _TASK: (show_task, [_MAY_READ_LOGS]),
        f"{_TASK}/log": (go_to_log, [_MAY_READ_LOGS]),
        f"{_TASK}/console": (go_to_console, [_MAY_READ_LOGS]),
        "/static/{name}": (show_asset, []),
    }
    for path, (endpoint, dependencies) in pages.items():
        app.add_api_route(path, endpoint, dependencies=dependencies, response_class=HTMLResponse)
    return app


def asked_for(
    request: Request,
    user: GetUserDep,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    try_number: Annotated[int | None, Query(ge=1)] = None,
) -> tuple[TaskPage | None, str]:
    """Return the page about the try that the address names, and the try's name, for people."""
    # For a task that is not mapped Airflow's UI leaves the placeholder as it is.
    task = Task(dag_id, run_id, task_id, int(map_index) if map_index.lstrip("-").isdecimal() else -1)
    which = "" if try_number is None else f", try {try_number}"
    page = task_page(task, try_number, lambda: _may_read_event_log(request, user))
    return page, f"{dag_id} {run_id} {task_id}{which}"


# FastAPI resolves it after the permissions of the route.
Asked = Annotated[tuple[TaskPage | None, str], Depends(asked_for)]


def show_task(asked: Asked) -> Response:
    """Show the container of a try."""
    return _lead(asked, lambda _: None)


def go_to_log(asked: Asked) -> Response:
    """Lead to the output of a try's container in CloudWatch; show the container's page if that is not known."""
    return _lead(asked, lambda page: page.log_url)


def go_to_console(asked: Asked) -> Response:
    """Lead to a try's container in the AWS console; show the container's page if its region is not known."""
    return _lead(asked, lambda page: page.console_url)


def _lead(asked: tuple[TaskPage | None, str], url_of: Callable[[TaskPage], str | None]) -> Response:
    """Lead away from the page about a try, or show it where there is no address."""
    page, name = asked
    if page is None:
        return _said("There is no such task instance", f"Airflow's database has no {name}.", status=404)
    url = url_of(page)
    if url:
        return RedirectResponse(url, headers=html.HEADERS)
    return _html("task.html", page=page, facts=facts(page))


def show_overview(user: GetUserDep) -> Response:
    """Show what the executors do, with those task instances whose DAGs the viewer may read."""
    dag_ids = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    # Airflow's own dependency takes the DAG from the query where the path has none, and the viewer writes that.
    may_read = get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.AUDIT_LOG, user=user
    )
    page = overview(dag_ids, shows_reasons=may_read)
    if page is None:
        return _said("No executor of ecs-async-executor is configured", "[core] executor names none of them.")
    return _html("overview.html", page=page, most=MOST_ROWS)


def show_asset(name: str) -> Response:
    """Return a file that the pages load."""
    if name not in html.ASSETS:
        raise HTTPException(404)
    headers = {**html.HEADERS, "Cache-Control": "private, max-age=300"}
    return Response(html.asset(name), media_type=html.ASSETS[name], headers=headers)


def _may_read_event_log(request: Request, user: Any) -> bool:
    """Return whether a user may read the event log of the DAG in the path."""
    try:
        requires_access_dag("GET", DagAccessEntity.AUDIT_LOG)(request, user)
    except HTTPException:
        return False
    return True


def _said(title: str, text: str, status: int = 200) -> Response:
    return _html("message.html", status=status, title=title, text=text)


def _html(template: str, *, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(html.rendered(template, **values), status_code=status, headers=html.HEADERS)
