"""The addresses of our pages. Imports the standard library, and Airflow's configuration late."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

PREFIX = "/ecs-async"
"""Where Airflow mounts the app, below the path of ``[api] base_url``."""


def root() -> str:
    """Return the path of the app on the API server's host."""
    return f"{airflow_root()}{PREFIX}"


def airflow_root() -> str:
    """Return the path of Airflow itself: empty, unless ``[api] base_url`` has one."""
    from airflow.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def overview() -> str:
    """Return the page of the menu."""
    return f"{root()}/"


def of_any_task() -> str:
    """Return the tab's address with the placeholders that Airflow's UI fills in."""
    return f"{root()}/task/{{DAG_ID}}/{{RUN_ID}}/{{TASK_ID}}/{{MAP_INDEX}}"


def of_try(
    dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None = None, page: str = ""
) -> str:
    """
    Return the page about a task instance.

    :param page: a page below it: ``log``, ``console``
    """
    parts = "/".join(quote(part, safe="") for part in (dag_id, run_id, task_id))
    address = f"{root()}/task/{parts}/{map_index}{f'/{page}' if page else ''}"
    return address if try_number is None else f"{address}?try_number={try_number}"


def in_airflow(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return Airflow's own page about a task instance."""
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"{airflow_root()}/dags/{dag}/runs/{run}/tasks/{task}{mapped}"
