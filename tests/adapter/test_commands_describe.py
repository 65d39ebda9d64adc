"""``airflow ecs-async describe`` and ``exec``, on ECS and on Batch, with a real database."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.adapter.batch import BatchAdapter
from ecs_async_executor.adapter.ecs import EcsAdapter
from ecs_async_executor.local import Fault
from ecs_async_executor.services.details import Details
from tests.adapter.steering import DAG, Place, ago

Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]
pytestmark = pytest.mark.slow

SERVICES = ("ecs", "batch")
KILLED = {
    "runner": "scripted",
    "script": [
        {
            "duration": 0,
            "exit_code": 137,
            "container_reason": "OutOfMemoryError: Container killed due to memory usage",
        }
    ],
}
FOREVER = {"runner": "scripted", "script": [{"duration": None}]}


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_described_with_its_hint_and_the_event_log(
    place: Open, service: str, capsys: Shown
) -> None:
    at = place(service, **KILLED)
    over = at.runs(0, state="failed", end_date=ago(1))
    at.until(over, "STOPPED", "FAILED")
    at.says(0, f"{service} container failure", "token=eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl")
    at.call("describe", *at.target(0), "-o", "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["dag_id"], found["task_id"], found["state"]) == (DAG, "task_0", "failed")
    assert (found["container"], found["exit_code"], found["ending"]) == (over, "137", "oom")
    assert "memory" in found["hint"].lower()
    assert [one["event"] for one in found["event_log"]] == [f"{service} container failure"]
    assert "eyJ" not in found["event_log"][0]["text"]
    assert found["console_url"].startswith("https://")
    (container,) = found["containers"]
    assert container["runs_airflow"] == "True"
    assert container["log_group"] == ("/airflow" if service == "ecs" else "/aws/batch/job")


@pytest.mark.parametrize("service", SERVICES)
def test_the_same_is_readable_in_a_terminal(place: Open, service: str, capsys: Shown) -> None:
    at = place(service, **KILLED)
    over = at.runs(0, state="failed", end_date=ago(1))
    at.until(over, "STOPPED", "FAILED")
    at.call("describe", over)
    shown = capsys.readouterr().out
    for words in ("task instance", "failed since", "exit code", "137", "hint", "console"):
        assert words in shown, shown


def test_of_what_a_container_has_printed_the_end_is_shown_as_people_read_it(place: Open, capsys: Shown) -> None:
    at = place("ecs", **KILLED)
    over = at.runs(0, state="failed", end_date=ago(1))
    at.until(over, "STOPPED")
    lines = [f'{{"timestamp": "2026-01-02T03:04:05Z", "level": "info", "event": "part {n}"}}' for n in range(30)]
    token = "token=eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    at.says(0, "ecs container output", "\n".join(["ECS container exited 137", "printed last:", *lines, token]))
    at.call("describe", over, "-o", "json")
    (found,) = json.loads(capsys.readouterr().out)
    *shown, last = found["event_log"][0]["text"].splitlines()
    assert shown == [f"2026-01-02T03:04:05 INFO part {n}" for n in range(26, 30)]
    assert last.startswith("token=")
    assert "eyJ" not in last


def test_a_task_instance_without_a_container_shows_why(place: Open, capsys: Shown) -> None:
    at = place("ecs", **FOREVER)
    at.set(0, state="queued", queued_dttm=ago(12))
    at.says(0, "container waits", "The container waits: ECS has no capacity for it")
    at.call("describe", *at.target(0))
    shown = capsys.readouterr().out
    assert "none yet that Airflow knows of" in shown
    assert "ECS has no capacity for it" in shown


@pytest.mark.parametrize(("service", "operation"), [("ecs", "DescribeTasks"), ("batch", "DescribeJobs")])
def test_without_the_permission_to_describe_the_database_is_shown(
    place: Open, service: str, operation: str, capsys: Shown
) -> None:
    at = place(service, **FOREVER)
    at.runs(0)
    at.local.faults.add(
        Fault(kind="error", operation=operation, code="AccessDeniedException", message="not authorized")
    )
    with pytest.raises(SystemExit) as ended:
        at.call("describe", *at.target(0), "-o", "json")
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["state"] == "running"
    assert f"Allow {service}:{operation} to whoever runs this command." in shown.err


def test_a_forgotten_container_is_said_to_be_forgotten(place: Open, capsys: Shown) -> None:
    at = place("ecs", **FOREVER)
    handle = at.runs(0)
    gone = handle[:-4] + "0000"
    at.set(0, state="failed", external_executor_id=gone)
    with pytest.raises(SystemExit):
        at.call("describe", *at.target(0))
    assert "ECS does not know it (any more): it remembers a container for an hour" in capsys.readouterr().err


# --- exec


def test_the_command_for_a_shell_is_printed_ready_to_be_pasted(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    handle = at.runs(0)
    at.until_running(handle)
    details = EcsAdapter.details

    async def with_a_shell(adapter: EcsAdapter, handle_id: str) -> Details | None:
        found = await details(adapter, handle_id)  # the local ECS has no shells
        return found and replace(found, takes_exec=True)

    monkeypatch.setattr(EcsAdapter, "details", with_a_shell)
    at.call("exec", *at.target(0), "--command", "sh -c 'ps aux'")
    shown = capsys.readouterr()
    assert shlex.split(shown.out) == [
        *("aws", "ecs", "execute-command", "--region", at.local.region, "--cluster", "main", "--task", handle),
        *("--container", "airflow", "--interactive", "--command", "sh -c 'ps aux'"),
    ]
    assert "Session Manager plugin" in shown.err


def test_what_a_shell_would_take_is_said(place: Open) -> None:
    at = place("ecs", **FOREVER)
    handle = at.runs(0)
    at.until_running(handle)
    with pytest.raises(SystemExit, match="started without enableExecuteCommand"):
        at.call("exec", handle)
    at.call("stop", handle, "-y")
    at.until(handle, "STOPPED")
    with pytest.raises(SystemExit, match="has ended: ECS container exited 143"):
        at.call("exec", handle)


def test_a_shell_in_a_batch_job_opens_in_its_ecs_task(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("batch", **FOREVER)
    handle = at.runs(0)
    at.until_running(handle)
    with pytest.raises(SystemExit, match="give it to a revision of the job definition"):
        at.call("exec", handle)
    details = BatchAdapter.details

    async def with_a_shell(adapter: BatchAdapter, handle_id: str) -> Details | None:
        found = await details(adapter, handle_id)  # the local Batch has no shells
        return found and replace(found, takes_exec=True)

    monkeypatch.setattr(BatchAdapter, "details", with_a_shell)
    capsys.readouterr()
    at.call("exec", *at.target(0))
    said = shlex.split(capsys.readouterr().out)
    task = at.local.job(handle)["container"]["taskArn"]
    assert said[said.index("--cluster") + 1] == task.split("/")[1]
    assert said[said.index("--task") + 1] == task
