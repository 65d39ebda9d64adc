"""What somebody can do with the JWT in a container's command: docs/security.md says it, by version of Airflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from packaging.version import Version

from ecs_async_executor.adapter import compat
from tests.adapter.scripted import make_workload

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

ONLY_STARTS_ITS_TASK_SINCE = Version("3.2.2")
CONNECTION = "warehouse"
PASSWORD = "hunter2"


@pytest.fixture
def execution_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Airflow's own execution API, with a connection that it has from its environment."""
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app
    from fastapi.testclient import TestClient

    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", f"postgres://etl:{PASSWORD}@db/prod")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with TestClient(create_task_execution_api_app()) as client:
        yield client


def token_of_a_launch(executor: Any) -> str:
    """Return the JWT that a launch's command has."""
    workload = make_workload().model_copy(update={"token": ""})
    return str(compat.with_fresh_jwt(workload, executor.jwt_generator)[0].token)


def test_a_token_opens_connections_on_old_airflow_only(executor: Any, execution_api: TestClient) -> None:
    headers = {"Authorization": f"Bearer {token_of_a_launch(executor)}"}
    answer = execution_api.get(f"/connections/{CONNECTION}", headers=headers)
    if Version(airflow.__version__) >= ONLY_STARTS_ITS_TASK_SINCE:
        assert answer.status_code == 403
        assert PASSWORD not in answer.text
    else:
        assert answer.status_code == 200
        assert answer.json()["password"] == PASSWORD


def test_without_a_token_nothing_opens(execution_api: TestClient) -> None:
    assert execution_api.get(f"/connections/{CONNECTION}").status_code == 401


def test_a_token_lasts_as_long_as_the_page_says(executor: Any) -> None:
    expiry = compat.jwt_expiry(token_of_a_launch(executor))
    assert expiry is not None
    assert expiry - time.time() == pytest.approx(600, abs=30)
