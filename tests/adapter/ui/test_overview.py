"""The page "ECS" of the menu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ecs_async_executor.adapter.status import ExecutorStatus
from ecs_async_executor.adapter.ui import holders, overview
from ecs_async_executor.engine.statistics import Statistics
from tests.adapter.ui.conftest import ARN, Rows, SignIn

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

STATUS = {
    "paused": None,
    "statistics": dict.fromkeys(Statistics.__dataclass_fields__, 0) | {"launch_rate": 17.5, "throttles": 31},
    "gates": [
        {
            "placement": "cluster main, FARGATE",
            "kind": "capacity",
            "reason": "Capacity is <unavailable>",
            "since": "2026-11-28T17:00:00+00:00",
            "waiting": 3,
        }
    ],
    "rates": [{"operation": "launch", "bucket": "fargate", "per_second": 17.5, "throttles": 30}],
}


def status(**changes: Any) -> ExecutorStatus:
    known = {"hostname": "a-scheduler", "job_id": 7, "heartbeat_age": 2.0, "executor": "ECS", "team": None}
    return ExecutorStatus(**{**known, "class_name": "ecs_async_executor.AsyncEcsExecutor", **changes})


@pytest.fixture
def page(client: TestClient, sign_in: SignIn) -> Any:
    def get() -> str:
        answer = client.get("/ecs-async/", headers=sign_in())
        assert answer.status_code == 200
        return str(answer.text)

    return get


def test_it_says_what_waits_and_why_and_what_runs(page: Any, rows: Rows) -> None:
    rows.set("task_0", "queued")
    rows.say("task_0", "container waits", "ECS has no capacity for it")
    rows.set("task_1", "running", ARN)
    rows.set("task_2", "running", "an id of somebody else's", executor="LocalExecutor")
    waiting, _, running = page().partition("Running")
    assert "task_0" in waiting
    assert "ECS has no capacity for it" in waiting
    assert "task_1" in running
    assert rows.page("task_1").replace(":", "%3A").replace("+", "%2B") in running
    assert "task_2" not in waiting + running


def test_a_reason_shows_no_jwt(page: Any, rows: Rows) -> None:
    rows.set("task_0", "queued")
    rows.say("task_0", "container waits", "it was sent eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl")
    shown = page()
    assert "it was sent ***" in shown
    assert "eyJ" not in shown


def test_without_a_status_port_it_says_so_and_shows_what_the_database_knows(page: Any, rows: Rows) -> None:
    from datetime import datetime, timezone

    from tests.adapter.metadata import Job

    with rows.database.session() as session:
        job: Any = Job(job_type="SchedulerJob", state="running")
        job.hostname, job.latest_heartbeat = "a-scheduler", datetime.now(tz=timezone.utc)
        session.add(job)
    rows.set("task_0", "queued")
    shown = page()
    assert "a-scheduler" in shown
    assert "status_port is not set" in shown
    assert "task_0" in shown


def test_each_scheduler_shows_its_gates_rates_and_throttles(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        overview, "statuses", lambda _: [status(status=STATUS), status(job_id=8, problem="no <answer>")]
    )
    shown = page()
    for said in (
        "cluster main, FARGATE",
        "Capacity is &lt;unavailable&gt;",
        "17.5/s",
        "fargate",
        "no &lt;answer&gt;",
    ):
        assert said in shown
    assert "Launches nothing" not in shown


def test_an_executor_that_is_paused_says_why(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = {**STATUS, "paused": "no credentials"}
    monkeypatch.setattr(overview, "statuses", lambda _: [status(status=paused)])
    assert "Launches nothing: no credentials. Airflow keeps its tasks <i>scheduled</i> meanwhile" in page()


def test_schedulers_that_cannot_be_asked_leave_the_rest_of_the_page(
    page: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(overview, "statuses", fail)
    rows.set("task_0", "queued")
    shown = page()
    assert "The schedulers cannot be asked: RuntimeError: a bug" in shown
    assert "task_0" in shown


def test_no_more_rows_are_shown_than_people_can_read(
    page: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.adapter.ui import app

    monkeypatch.setattr(app, "MOST_ROWS", 2)
    for number in range(3):
        rows.set(f"task_{number}", "queued")
    shown = page()
    assert shown.count(">task_") == 2
    assert "The 2 that have been there for longest are shown" in shown


def test_without_an_executor_of_ours_it_says_so(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecs_async_executor.adapter import compat

    monkeypatch.setattr(compat, "our_executors", lambda _: [])
    holders.configured.cache_clear()
    assert "No executor of ecs-async-executor is configured" in page()
