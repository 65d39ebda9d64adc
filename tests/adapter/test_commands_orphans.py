"""``airflow ecs-async orphans``, on ECS and on Batch, with a real database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.local import Fault
from tests.adapter.steering import Place, ago

Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]
pytestmark = pytest.mark.slow

SERVICES = ("ecs", "batch")
FOREVER: dict[str, Any] = {"runner": "scripted", "script": [{"duration": None}]}


def verdicts(shown: Shown) -> dict[str, str]:
    return {row["container"]: row["verdict"] for row in json.loads(shown.readouterr().out)}


def orphan(at: Place, number: int, **columns: Any) -> str:
    """Make a container whose task instance has failed long ago."""
    return at.runs(number, state="failed", **{"end_date": ago(30), "updated_at": ago(30)} | columns)


@pytest.mark.parametrize("service", SERVICES)
def test_orphans_are_shown_and_the_exit_code_says_that_there_are_some(
    place: Open, service: str, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place(service, **FOREVER)
    lost, waited = orphan(at, 0), at.runs(1)
    unknown = at.launch(str(uuid.uuid4()))
    at.minutes_later(monkeypatch, 20)
    with pytest.raises(SystemExit) as ended:
        at.call("orphans", "-o", "json")
    assert ended.value.code == 3
    assert verdicts(capsys) == {lost: "orphan", unknown: "unknown"}
    with pytest.raises(SystemExit):
        at.call("orphans")
    shown = capsys.readouterr().out
    assert lost.rpartition("/")[2] in shown.replace("\n", "")
    assert (
        "Orphans: 1. Waited for: 1. Too young to tell: 0. Unknown: 1. Nothing is stopped without --stop." in shown
    )
    assert waited.rpartition("/")[2] not in shown


@pytest.mark.parametrize("service", SERVICES)
def test_orphans_alone_are_stopped_in_the_executors_name(
    place: Open, service: str, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place(service, **FOREVER)
    lost, waited, unknown = orphan(at, 0), at.runs(1), at.launch(str(uuid.uuid4()))
    at.minutes_later(monkeypatch, 20)
    at.call("orphans", "--stop", "-y")
    assert f"{lost}: told to stop." in capsys.readouterr().out
    at.until(lost, "STOPPED", "FAILED")
    assert "(by ecs-async-executor)" in at.stop_reason(lost)
    assert {at.status(waited), at.status(unknown)} == {"RUNNING"}
    at.call("orphans")  # exit code 0: what another deployment may have does not alarm
    at.call("orphans", "--stop", "--include-unknown", "-y")
    at.until(unknown, "STOPPED", "FAILED")
    assert at.status(waited) == "RUNNING"


@pytest.mark.parametrize("service", SERVICES)
def test_the_container_of_an_earlier_try_is_an_orphan(
    place: Open, service: str, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place(service, **FOREVER)
    earlier = at.runs(0)
    at.next_try(0)
    at.minutes_later(monkeypatch, 20)
    with pytest.raises(SystemExit):
        at.call("orphans", "-o", "json")
    assert verdicts(capsys) == {earlier: "orphan"}


def test_young_containers_and_recent_ends_are_left_alone(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    orphan(at, 0)
    at.call("orphans")
    assert "Too young to tell: 1." in capsys.readouterr().out
    at.minutes_later(monkeypatch, 20)
    at.set(0, state="success", end_date=ago(-19), updated_at=ago(-19))
    at.call("orphans")
    assert "Too young to tell: 1." in capsys.readouterr().out


def test_another_executors_containers_in_the_cluster_are_not_taken_for_ours(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    client = at.local.client()
    task = {
        "cluster": "main",
        "taskDefinition": "family",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }
    client.run_task(**task, startedBy="a-service")
    others = client.run_task(
        **task,
        overrides={
            "containerOverrides": [
                {
                    "name": "airflow",
                    "environment": [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}],
                }
            ]
        },
    )["tasks"][0]["taskArn"]
    at.minutes_later(monkeypatch, 20)
    at.call("orphans", "-o", "json")
    assert verdicts(capsys) == {others: "unknown"}


def test_a_container_that_is_waited_for_again_at_the_last_moment_is_not_stopped(
    place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    lost = orphan(at, 0)
    at.minutes_later(monkeypatch, 20)

    def agrees(*_: Any, **__: Any) -> bool:
        at.set(0, state="running", external_executor_id=lost)
        return True

    monkeypatch.setattr("ecs_async_executor.adapter.commands.orphans.confirmed", agrees)
    at.call("orphans", "--stop")
    assert at.status(lost) == "RUNNING"


@pytest.mark.parametrize(
    ("service", "operation", "permission"),
    [("ecs", "ListTasks", "ecs:ListTasks"), ("batch", "ListJobs", "batch:ListJobs")],
)
def test_without_the_permission_to_list_the_permission_is_named(
    place: Open, service: str, operation: str, permission: str, capsys: Shown
) -> None:
    at = place(service, **FOREVER)
    at.local.faults.add(
        Fault(kind="error", operation=operation, code="AccessDeniedException", message="not authorized")
    )
    with pytest.raises(SystemExit) as ended:
        at.call("orphans")
    assert ended.value.code == 1
    assert (
        f"could not be read: AccessDeniedException: not authorized. Allow {permission}" in capsys.readouterr().err
    )


def test_a_stop_that_is_refused_has_its_line_and_the_others_are_made(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    one, two = orphan(at, 0), orphan(at, 1)
    at.minutes_later(monkeypatch, 20)
    at.local.faults.add(
        Fault(kind="error", operation="StopTask", code="AccessDeniedException", message="not authorized", count=1)
    )
    with pytest.raises(SystemExit) as ended:
        at.call("orphans", "--stop", "-y")
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert shown.out.count("told to stop") == shown.err.count("Allow ecs:StopTask") == 1
    assert sorted([at.status(one), at.status(two)]) == ["RUNNING", "STOPPED"]
