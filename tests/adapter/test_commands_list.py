"""``airflow ecs-async list``, on ECS and on Batch, with a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.adapter.commands import held
from ecs_async_executor.adapter.commands import list as command
from ecs_async_executor.local import Fault
from tests.adapter.steering import DAG, Place, ago

Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]
pytestmark = pytest.mark.slow

SERVICES = ("ecs", "batch")


def rows(shown: Shown) -> dict[str, dict[str, Any]]:
    return {row["task_id"]: row for row in json.loads(shown.readouterr().out)}


@pytest.mark.parametrize("service", SERVICES)
def test_what_the_executors_hold_is_shown_with_its_containers(place: Open, service: str, capsys: Shown) -> None:
    at = place(service)
    running = at.runs(0)
    at.until_running(running)
    at.set(1, state="queued")
    at.says(1, "container waits", f"The container waits: {service} has no capacity for it: RESOURCE:MEMORY")
    at.set(2, state="success", external_executor_id="arn:old")
    at.call("list", "-o", "json")
    found = rows(capsys)
    assert set(found) == {"task_0", "task_1"}
    assert (found["task_0"]["container"], found["task_0"]["status"]) == (running, "RUNNING")
    assert found["task_0"]["place"] == ("main" if service == "ecs" else "")
    assert found["task_0"]["state"] == "running"
    assert found["task_1"]["container"] == ""
    assert found["task_1"]["reason"].endswith("RESOURCE:MEMORY")


@pytest.mark.parametrize("service", SERVICES)
def test_the_state_of_the_container_filters_not_that_of_the_task_instance(
    place: Open, service: str, capsys: Shown
) -> None:
    at = place(service)
    running, over = at.runs(0), at.runs(1)
    at.set(2, state="queued")
    at.call("stop", over, "-y")
    at.until(over, "STOPPED", "FAILED")
    at.until_running(running)
    for state, tasks in (
        ("active", {"task_0"}),
        ("stopped", {"task_1"}),
        ("pending", {"task_2"}),
        ("all", {"task_0", "task_1", "task_2"}),
    ):
        capsys.readouterr()
        at.call("list", "--state", state, "-o", "json")
        assert set(rows(capsys)) == tasks, state


@pytest.mark.parametrize("service", SERVICES)
def test_a_table_names_each_reason_once_and_fits_eighty_columns(
    place: Open, service: str, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place(service)
    for number in range(3):
        at.set(number, state="queued", queued_dttm=ago(12))
        at.says(number, "container waits", "The container waits: no capacity")
    monkeypatch.setattr(command, "AirflowConsole", _narrow)
    at.call("list", "-d", DAG)
    shown = capsys.readouterr().out
    assert shown.count("no capacity") == 1
    assert "[1] 3 task instances: The container waits: no capacity" in shown
    assert "queued 12 min" in shown
    assert max(map(len, shown.splitlines())) <= 80


def _narrow() -> Any:
    from airflow.cli.simple_table import AirflowConsole

    console = AirflowConsole(width=80)
    console._width = 80
    return console


def test_the_container_of_an_earlier_queueing_is_not_that_of_a_task_that_waits(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    at.runs(0, state="queued", queued_dttm=ago(-1))
    at.call("list", "-o", "json")
    assert rows(capsys)["task_0"]["container"] == ""


@pytest.mark.parametrize(
    ("service", "operation", "permission"),
    [("ecs", "DescribeTasks", "ecs:DescribeTasks"), ("batch", "DescribeJobs", "batch:DescribeJobs")],
)
def test_without_the_permission_to_describe_the_database_is_shown_and_the_permission_named(
    place: Open, service: str, operation: str, permission: str, capsys: Shown
) -> None:
    at = place(service)
    running = at.runs(0)
    at.local.faults.add(
        Fault(kind="error", operation=operation, code="AccessDeniedException", message="not authorized")
    )
    at.call("list", "-o", "json")
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["container"] == running
    assert f"Allow {permission} to whoever runs this command." in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_table_says_that_aws_gave_no_answer_where_it_was_asked(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    at.runs(0)
    at.local.faults.add(Fault(kind="error", operation="DescribeTasks", code="AccessDeniedException"))
    at.call("list")
    assert "no answer" in capsys.readouterr().out
    at.call("list", "--offline")
    assert "not asked for" in capsys.readouterr().out


REFUSED = "The container waits: ECS refuses it: not authorized"


@pytest.mark.parametrize(
    ("paused", "launch", "said", "holds"),
    [
        (None, {"phase": "waiting", "reason": None}, "The container waits for its turn: 7 wait, 20", True),
        (None, {"phase": "waiting", "reason": "not authorized"}, REFUSED, True),
        (
            None,
            {"phase": "waiting", "reason": "RESOURCE:CPU", "placement": "main"},
            "The container waits: ECS has no capacity for it: RESOURCE:CPU",
            True,
        ),
        (None, {"phase": "in_doubt", "reason": None}, REFUSED, False),
        ("AWS credentials", {"phase": "waiting", "reason": None}, "nothing is launched: AWS credentials", True),
        (None, None, REFUSED, False),
    ],
)
def test_a_reason_that_has_gone_is_not_shown_where_the_status_port_shows_what_is_waited_for(
    place: Open,
    capsys: Shown,
    monkeypatch: pytest.MonkeyPatch,
    paused: str | None,
    launch: dict[str, Any] | None,
    said: str,
    holds: bool,
) -> None:
    at = place("ecs")
    at.set(0, state="queued", queued_dttm=ago(2))
    at.says(0, "container waits", REFUSED)
    at.call("list", "--offline", "-o", "json")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["reason"] == REFUSED
    assert row["reason_at"]
    key = {name: row[name] for name in ("dag_id", "run_id", "task_id")}
    key |= {name: int(row[name]) for name in ("map_index", "try_number")}
    launches = [] if launch is None else [key | launch]
    figures = {"pending": 7, "launch_rate": 20.0}
    gates = [{"placement": "main", "kind": "capacity", "reason": "RESOURCE:CPU"}]
    status = {"paused": paused, "launches": launches, "statistics": figures, "gates": gates}
    shown = SimpleNamespace(status=status, class_name="AsyncEcsExecutor", hostname="a")
    monkeypatch.setattr(held, "statuses", lambda *_, **__: [shown])
    at.call("list", "-o", "json")
    (row,) = json.loads(capsys.readouterr().out)
    assert said in row["reason"]
    assert (row["reason_at"] == "") is holds
    at.call("list")
    assert (" ago)" not in capsys.readouterr().out) is holds


def test_a_pause_is_named_also_where_airflow_hands_over_nothing(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs")
    shown = SimpleNamespace(
        status={"paused": "AWS credentials", "launches": []},
        class_name="ecs_async_executor.AsyncEcsExecutor",
        hostname="a-host",
    )
    works = SimpleNamespace(status={"paused": None, "launches": []}, class_name="other", hostname="b")
    monkeypatch.setattr(held, "statuses", lambda *_, **__: [shown, works, SimpleNamespace(status=None)])
    at.call("list")
    said = capsys.readouterr()
    assert "No task instance is queued or running" in said.out
    assert said.err == (
        "ecs_async_executor.AsyncEcsExecutor on a-host launches nothing: AWS credentials. Airflow keeps its tasks "
        "scheduled meanwhile, and they are not listed.\n"
    )


def test_offline_asks_nobody_but_the_database(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    at.runs(0)
    before = at.local.statistics.operation("DescribeTasks").calls
    at.call("list", "--offline", "-o", "json")
    assert rows(capsys)["task_0"]["status"] == ""
    assert at.local.statistics.operation("DescribeTasks").calls == before


def test_many_task_instances_are_cut_and_the_cut_is_said(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    for number in range(5):
        at.set(number, state="queued", queued_dttm=ago(5 - number))
    at.call("list", "--limit", "2", "--offline", "-o", "json")
    shown = capsys.readouterr()
    assert [row["task_id"] for row in json.loads(shown.out)] == ["task_0", "task_1"]
    assert shown.err == "2 of 5 task instances are shown; --limit 0 shows all.\n"


def test_another_executors_task_instances_are_not_shown(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,ecs:ecs_async_executor.AsyncEcsExecutor")
    at.set(0, state="running")
    at.set(1, state="running", executor="ecs")
    at.set(2, state="running", executor="AsyncEcsExecutor")
    at.set(3, state="running", executor="LocalExecutor")
    at.call("list", "--offline", "-o", "json")
    assert set(rows(capsys)) == {"task_1", "task_2"}


def test_without_an_executor_of_this_package_the_command_says_so(
    place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    with pytest.raises(SystemExit, match="'LocalExecutor' names no executor of this package"):
        at.call("list")


def test_watching_shows_it_again_until_ctrl_c(place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    at = place("ecs")
    at.set(0, state="queued")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt
        at.set(1, state="queued")

    monkeypatch.setattr(command, "_pause", pause)
    at.call("list", "--offline", "--watch", "2")
    shown = capsys.readouterr().out
    assert pauses == [2.0, 2.0]
    assert (shown.count("task_0"), shown.count("task_1")) == (2, 1)
