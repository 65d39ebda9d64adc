"""``airflow ecs-async describe`` and ``exec``, on ECS and on Batch, with a real database."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

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


def test_an_earlier_try_is_said_to_be_one_after_its_state(place: Open, capsys: Shown) -> None:
    at = place("ecs", **KILLED)
    over = at.runs(0, state="failed", end_date=ago(1))
    at.until(over, "STOPPED")
    at.next_try(0)
    at.call("describe", *at.target(0), "--try", "1")
    (state,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("state "))
    assert re.search(r"\| failed since [\w:-]+Z, [^;]+ ago; an earlier try$", state.rstrip())


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
    shown = capsys.readouterr()
    for said in (shown.out, shown.err):  # the table has it too: who reads the table alone would see "running"
        assert "does not know it (any more)" in " ".join(said.split())


def test_an_executor_that_is_called_as_the_providers_is_shown_with_its_class(
    place: Open, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = place("ecs", **FOREVER)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "AwsEcsExecutor:ecs_async_executor.AsyncEcsExecutor")
    at.runs(0)
    at.call("describe", *at.target(0))
    said = "AwsEcsExecutor, which is ecs_async_executor.AsyncEcsExecutor (ECS)"
    assert said in " ".join(capsys.readouterr().out.split())


# --- why a try has failed

ENDED_IN_ORDER = {"runner": "scripted", "script": [{"duration": 0, "exit_code": 0}]}
REPORTED = '{"host_name": "ip-10-0-0-1"}'
MISMATCH = (
    "Executor AsyncEcsExecutor(parallelism=32) reported that the task instance finished with state failed, but "
    "the task instance's state attribute is queued. Extra info: "
)


def rows(shown: str) -> dict[str, str]:
    """Return what a table of facts says."""
    facts = shown.partition("\n\n")[0].splitlines()
    return {what.strip(): said.strip() for what, _, said in (line.partition("|") for line in facts)}


def described(at: Place, capsys: Shown, *arguments: str) -> tuple[dict[str, str], str]:
    """Return the facts about a task instance as people read them, and all that was shown."""
    at.call("describe", *(arguments or at.target(0)))
    shown = capsys.readouterr().out
    return rows(shown), shown


def failed_in_order(at: Place) -> None:
    over = at.runs(0, state="failed", end_date=ago(0))
    at.until(over, "STOPPED", "SUCCEEDED")


@pytest.mark.parametrize("service", SERVICES)
def test_of_a_task_that_raised_its_own_code_is_named_and_the_command_for_the_traceback(
    place: Open, service: str, capsys: Shown
) -> None:
    at = place(service, **ENDED_IN_ORDER)
    failed_in_order(at)
    at.says(0, "running", REPORTED)
    at.says(0, "failed", REPORTED)
    at.call("describe", *at.target(0), "-o", "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["reason"].startswith("The task itself failed")
    assert shlex.join(["airflow", "ecs-async", "logs", *at.target(0)]) in found["hint"]
    assert found["ending"] == ""


def test_without_the_containers_report_nobody_is_said_to_have_failed_the_task(place: Open, capsys: Shown) -> None:
    at = place("ecs", **ENDED_IN_ORDER)
    failed_in_order(at)
    facts, _ = described(at, capsys)
    assert "does not say why" in facts["reason"]  # before Airflow 3.2 no report is noted
    at.says(0, "running", REPORTED)
    facts, _ = described(at, capsys)
    assert "reason" not in facts  # a person can have done it


def test_a_try_that_airflow_failed_is_not_said_to_have_failed_by_itself(place: Open, capsys: Shown) -> None:
    at = place("ecs", **ENDED_IN_ORDER)
    failed_in_order(at)
    at.says(0, "running", REPORTED)
    at.says(0, "heartbeat timeout", "Task did not emit heartbeat within time limit")
    facts, _ = described(at, capsys)
    assert facts["reason"].startswith("Airflow failed it (heartbeat timeout): Task did not emit heartbeat")


def test_a_task_that_succeeded_has_no_reason(place: Open, capsys: Shown) -> None:
    at = place("ecs", **ENDED_IN_ORDER)
    over = at.runs(0, state="success", end_date=ago(0))
    at.until(over, "STOPPED")
    assert not {"reason", "hint"} & described(at, capsys)[0].keys()


@pytest.mark.parametrize("service", SERVICES)
def test_a_launch_that_was_refused_has_its_reason_once(place: Open, service: str, capsys: Shown) -> None:
    at = place(service, **FOREVER)
    at.set(0, state="failed", queued_dttm=ago(2), end_date=ago(1))
    event = f"{service} {at.executor.adapter.launch_failure}"
    reason = f"{service} refused to run the container: no such definition"
    at.says(0, "state mismatch", f"{MISMATCH}{reason}")
    at.says(0, event, f"{reason}\nNothing ran.\nending=refused")
    facts, shown = described(at, capsys)
    assert facts["container"] == "none: the try failed without one"
    assert (facts["reason"], facts["hint"]) == (reason, "Nothing ran.")
    assert shown.count("no such definition") == 1
    assert "Airflow's own entry" in shown
    at.call("describe", *at.target(0), "-o", "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["reason"] == reason
    assert reason in found["event_log"][0]["text"]  # programs get all of it


def test_a_mismatch_that_does_not_follow_from_the_failure_is_shown(place: Open, capsys: Shown) -> None:
    at = place("ecs", **FOREVER)
    at.set(0, state="failed")
    at.says(0, "state mismatch", f"{MISMATCH}another one")
    at.says(0, "ecs task submit failure", "refused\nending=refused")
    assert "another one" in described(at, capsys)[1]


def test_a_failed_try_whose_container_is_an_earlier_queueings_has_the_launchs_reason(
    place: Open, capsys: Shown
) -> None:
    at = place("ecs", **KILLED)
    over = at.launch(at.ti_id(0))
    at.until(over, "STOPPED")
    later = datetime.now(tz=timezone.utc) + timedelta(minutes=1)
    at.set(0, state="failed", external_executor_id=over, queued_dttm=later)
    at.says(0, "ecs task submit failure", "ECS refused it\nending=refused")
    facts, _ = described(at, capsys)
    assert facts["which is"] == "the container of an earlier queueing; this one got none"
    assert facts["reason"] == "ECS refused it"


def test_the_event_log_is_in_the_order_of_time(place: Open, capsys: Shown) -> None:
    at = place("ecs", **FOREVER)
    at.set(0, state="queued", queued_dttm=ago(9))
    at.says(0, "written first", "", at=ago(1))
    at.says(0, "written later", "", at=ago(5))
    shown = described(at, capsys)[1]
    assert shown.index("written later") < shown.index("written first")


@pytest.mark.parametrize("service", SERVICES)
def test_the_containers_that_a_launch_had_before_are_listed(place: Open, service: str, capsys: Shown) -> None:
    never = "CannotPullContainerError: not found"
    at = place(service, runner="scripted", script=[{"starts": False, "container_reason": never}])
    mark = at.ti_id(0)
    at.set(0, queued_dttm=ago(1))
    handles = []
    for number in (1, 2, 3):
        handles.append(at.launch(mark, number=number))
        at.until(handles[-1], "STOPPED", "FAILED")
    at.launch()  # of another launch
    at.set(0, state="failed", external_executor_id=handles[-1], queued_dttm=ago(1))
    at.call("describe", *at.target(0), "-o", "json")
    (found,) = json.loads(capsys.readouterr().out)
    why = f"{found['reason']} (container 3 of 3, none of them started)"
    assert [one["container"] for one in found["before"]] == handles[:2]
    assert all(never in one["reason"] for one in found["before"])
    at.says(0, f"{service} container failure", f"{why}\nending=image")
    facts, _ = described(at, capsys)
    assert facts["reason"].endswith("(container 3 of 3, none of them started)")
    assert {"container 1", "container 2"} <= facts.keys()


def test_that_earlier_containers_cannot_be_listed_is_said(place: Open, capsys: Shown) -> None:
    at = place("ecs", runner="scripted", script=[{"starts": False}])
    over = at.runs(0, state="failed")
    at.until(over, "STOPPED")
    at.local.faults.add(
        Fault(kind="error", operation="ListTasks", code="AccessDeniedException", message="not authorized")
    )
    assert "Allow ecs:ListTasks to whoever runs this command." in described(at, capsys)[1].replace("\n", " ")


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
