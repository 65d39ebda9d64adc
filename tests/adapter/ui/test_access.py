"""Who may see what: Airflow does not authenticate the apps of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.adapter.ui.conftest import ARN, Rows, SignIn

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

VALUES = {"dag_id": "adopted", "run_id": "a run", "task_id": "task_0", "map_index": "-1", "name": "page.css"}


def paths(api_server: Any) -> list[str]:
    from fastapi.routing import APIRoute

    [ours] = [route.app for route in api_server.routes if getattr(route, "path", "") == "/ecs-async"]
    # What is mounted below an app does not inherit its dependencies.
    assert all(isinstance(route, APIRoute) for route in ours.routes)
    return [f"/ecs-async{route.path.format(**VALUES)}" for route in ours.routes]


def test_every_route_needs_airflows_token(api_server: Any, client: TestClient) -> None:
    asked = paths(api_server)
    assert len(asked) >= 5
    assert {path: client.get(path).status_code for path in asked} == dict.fromkeys(asked, 401)


def test_a_token_of_somebody_else_is_no_token(api_server: Any, client: TestClient) -> None:
    forged = {"Authorization": "Bearer eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJl"}
    for path in paths(api_server):
        assert client.get(path, headers=forged).status_code in {401, 403}, path


def test_the_cookie_of_the_ui_is_enough(client: TestClient, sign_in: SignIn) -> None:
    from airflow.api_fastapi.core_api import security

    if not hasattr(security, "COOKIE_NAME_JWT_TOKEN"):
        pytest.skip("Airflow 3.1.0 takes the token from no cookie")
    client.cookies.set("_token", sign_in()["Authorization"].removeprefix("Bearer "))
    assert client.get("/ecs-async/").status_code == 200


def test_a_user_without_a_role_sees_no_container_and_no_overview(
    client: TestClient, sign_in: SignIn, rows: Rows
) -> None:
    rows.set("task_0", "running", ARN)
    nobody = sign_in(None)
    for path in ("/ecs-async/", *(rows.page("task_0", below) for below in ("", "/log", "/console"))):
        assert client.get(path, headers=nobody).status_code == 403, path


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> str:
    """Take away the DAG from everybody, as an auth manager with permissions for each DAG does."""
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    allowed = SimpleAuthManager.is_authorized_dag

    def is_authorized_dag(self: Any, *, details: Any = None, **arguments: Any) -> bool:
        if details is not None and details.id == "adopted":
            return False
        return bool(allowed(self, details=details, **arguments))

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized_dag)
    monkeypatch.setattr(SimpleAuthManager, "get_authorized_dag_ids", lambda *_, **__: set(), raising=False)
    return "adopted"


def test_nothing_is_shown_of_a_dag_that_the_viewer_may_not_read(
    client: TestClient, sign_in: SignIn, rows: Rows, unreadable: str
) -> None:
    rows.set("task_0", "queued")
    rows.say("task_0", "container waits", "a reason that only readers of the DAG may see")
    assert client.get(rows.page("task_0"), headers=sign_in()).status_code == 403
    overview = client.get("/ecs-async/", headers=sign_in())
    assert overview.status_code == 200
    for word in (unreadable, "task_0", "a reason"):
        assert word not in overview.text


def test_the_event_log_takes_the_permission_to_read_it(
    client: TestClient, sign_in: SignIn, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    allowed = SimpleAuthManager.is_authorized_dag

    def is_authorized_dag(self: Any, *, access_entity: Any = None, **arguments: Any) -> bool:
        if access_entity is DagAccessEntity.AUDIT_LOG:
            return False
        return bool(allowed(self, access_entity=access_entity, **arguments))

    rows.set("task_0", "queued")
    rows.say("task_0", "container waits", "ECS has no capacity for it")
    pages = (rows.page("task_0"), "/ecs-async/")
    assert all("no capacity" in client.get(path, headers=sign_in()).text for path in pages)
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized_dag)
    assert not any("no capacity" in client.get(path, headers=sign_in()).text for path in pages)


def test_the_event_log_of_one_dag_opens_that_of_no_other(
    client: TestClient, sign_in: SignIn, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    allowed = SimpleAuthManager.is_authorized_dag

    def is_authorized_dag(self: Any, *, access_entity: Any = None, details: Any = None, **arguments: Any) -> bool:
        if access_entity is DagAccessEntity.AUDIT_LOG:
            return details is not None and details.id == "another"
        return bool(allowed(self, access_entity=access_entity, details=details, **arguments))

    rows.set("task_0", "queued")
    rows.say("task_0", "container waits", "ECS has no capacity for it")
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized_dag)
    answer = client.get("/ecs-async/?dag_id=another", headers=sign_in())
    assert answer.status_code == 200
    assert "task_0" in answer.text
    assert "no capacity" not in answer.text


def test_nothing_foreign_is_loaded_and_no_foreign_page_may_frame_ours(
    api_server: Any, client: TestClient, sign_in: SignIn
) -> None:
    for path in paths(api_server):
        policy = client.get(path, headers=sign_in()).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
