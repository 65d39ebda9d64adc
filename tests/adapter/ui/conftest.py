"""Our app as Airflow finds and mounts it, with Airflow's own authentication, over a database of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.orm import scoped_session

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from tests.adapter.metadata import Metadata

# Airflow reads the names of the executors once.
os.environ["AIRFLOW__CORE__EXECUTOR"] = "ecs_async_executor.AsyncEcsExecutor,LocalExecutor"

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/other/0123456789abcdef"
SignIn = Callable[..., Mapping[str, str]]


def mounted_apps() -> list[dict[str, Any]]:
    """Return what Airflow's plugin manager finds to be mounted."""
    from airflow import plugins_manager

    manager: Any = plugins_manager
    if hasattr(manager, "get_fastapi_plugins"):
        return list(manager.get_fastapi_plugins()[0])
    manager.initialize_fastapi_plugins()
    return list(manager.fastapi_apps)


@pytest.fixture(scope="session")
def api_server() -> Any:
    """What Airflow's API server makes of our app: it mounts it beside an auth manager."""
    from airflow.api_fastapi import app as airflow_app
    from fastapi import FastAPI

    api_server = FastAPI()
    airflow_app.init_auth_manager(api_server)
    ours = [one for one in mounted_apps() if one["name"] == "ecs-async"]
    assert len(ours) == 1
    api_server.mount(ours[0]["url_prefix"], ours[0]["app"])
    return api_server


@pytest.fixture
def airflows_database(database: Metadata, monkeypatch: pytest.MonkeyPatch) -> Metadata:
    """Make the database Airflow's own."""
    from airflow import settings

    monkeypatch.setattr(settings, "Session", scoped_session(database.sessions))
    monkeypatch.setattr(settings, "NonScopedSession", database.sessions)
    return database


@pytest.fixture
def client(api_server: Any, airflows_database: Metadata, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client without a token; no answer is kept for another request."""
    from fastapi.testclient import TestClient

    from ecs_async_executor.adapter.ui import containers, holders, overview

    for module, name in ((containers, "KEPT_FOR"), (containers, "KEPT_AFTER_END"), (overview, "KEPT_FOR")):
        monkeypatch.setattr(module, name, 0.0)
    holders.configured.cache_clear()
    with TestClient(api_server, follow_redirects=False) as client:
        yield client
    holders.configured.cache_clear()


@pytest.fixture
def sign_in(client: TestClient) -> SignIn:
    """Sign in with a role of Airflow's simple auth manager; return the headers of a request."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def signed_in(role: str | None = "admin") -> Mapping[str, str]:
        manager: Any = get_auth_manager()
        token = manager.generate_jwt(SimpleAuthManagerUser(username=f"a {role}", role=role))
        return {"Authorization": f"Bearer {token}"}

    return signed_in


@dataclass
class Rows:
    """Task instances in the database, and what is written about them."""

    database: Metadata
    run_id: str = field(default="", init=False)

    def set(self, task_id: str, state: str | None, external_id: str | None = None, **columns: Any) -> None:
        """Give a task instance its state; queued two minutes ago."""
        with self.database.session() as session:
            ti = next(ti for ti in self.database.tis(session) if ti.task_id == task_id)
            self.run_id = ti.run_id
            ti.state, ti.external_executor_id, ti.try_number = state, external_id, columns.pop("try_number", 1)
            ti.queued_dttm = datetime.now(tz=timezone.utc) - timedelta(minutes=2)
            for name, value in columns.items():
                setattr(ti, name, value)

    def retry(self, task_id: str) -> None:
        """Let Airflow prepare the next try, as it does when a running one has failed."""
        with self.database.session() as session:
            ti = next(ti for ti in self.database.tis(session) if ti.task_id == task_id)
            ti.prepare_db_for_next_try(session)

    def say(self, task_id: str, event: str, text: str, try_number: int = 1) -> None:
        """Put an entry into the event log."""
        from airflow.models.log import Log

        with self.database.session() as session:
            ti = next(ti for ti in self.database.tis(session) if ti.task_id == task_id)
            self.run_id = ti.run_id
            entry: Any = Log(event, ti, owner="airflow", extra=text)
            entry.try_number = try_number
            session.add(entry)

    def page(self, task_id: str, more: str = "") -> str:
        """Return the path of the page about a task instance."""
        return f"/ecs-async/task/adopted/{self.run_id}/{task_id}/-1{more}"


@pytest.fixture
def rows(airflows_database: Metadata) -> Rows:
    return Rows(airflows_database)
