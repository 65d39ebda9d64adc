"""``airflow ecs-async logs``, on ECS and on Batch, with real processes and a real database."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.adapter.commands import logs as command
from ecs_async_executor.core import last_words
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import PostMortem
from ecs_async_executor.local import Fault
from ecs_async_executor.services import logs
from ecs_async_executor.services.readable import readable
from tests.adapter.steering import Place

Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]
pytestmark = pytest.mark.slow

SERVICES = ("ecs", "batch")
JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
LINE = json.dumps({"timestamp": "2026-11-28T01:02:03.456Z", "level": "info", "event": "hello", "who": "world"})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAUSE", 0.05)
    monkeypatch.setattr(command, "_LOOK", 0.05)


def printed(at: Place, *lines: str) -> str:
    """Run a container that prints these lines and ends."""
    said = "; ".join(f"echo '{line}'" for line in lines)
    handle = at.launch(at.ti_id(0), command=said or "true")
    at.set(0, state="running", external_executor_id=handle)
    at.until(handle, "STOPPED", "SUCCEEDED")
    return handle


@pytest.mark.parametrize("service", SERVICES)
def test_the_last_lines_are_printed_readable_and_without_tokens(place: Open, service: str, capsys: Shown) -> None:
    at = place(service)
    printed(at, "first", f"token={JWT}", LINE)
    at.call("logs", *at.target(0), "-n", "2")
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith("token=")
    assert JWT not in first
    assert second == "2026-11-28T01:02:03 INFO hello who=world"
    assert "log stream" in shown.err
    at.call("logs", *at.target(0), "-n", "1", "--raw")
    assert capsys.readouterr().out == f"{LINE}\n"


@pytest.mark.parametrize("service", SERVICES)
def test_following_ends_with_the_container(place: Open, service: str, capsys: Shown) -> None:
    at = place(service)
    handle = at.launch(at.ti_id(0), command="echo one; sleep 1; echo two")
    at.set(0, state="running", external_executor_id=handle)
    at.until_running(handle)
    at.call("logs", handle, "-f")
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("service", SERVICES)
def test_without_the_permission_to_read_logs_the_permission_and_the_group_are_named(
    place: Open, service: str
) -> None:
    at = place(service)
    handle = printed(at, "hello")
    at.local.faults.add(
        Fault(kind="error", operation="GetLogEvents", code="AccessDeniedException", message="not authorized")
    )
    group = "/airflow" if service == "ecs" else "/aws/batch/job"
    for follow in ([], ["-f"]):
        with pytest.raises(SystemExit, match=rf"lack the permission logs:GetLogEvents for log group {group}"):
            at.call("logs", handle, *follow)


def test_another_log_driver_is_named(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    at = place("ecs")
    at.local.register("family", "airflow", logConfiguration={"logDriver": "splunk", "options": {}})
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:3")
    at = Place(at.service, at.local, at.database, at.shown)
    handle = printed(at, "hello")
    with pytest.raises(SystemExit, match="log driver splunk"):
        at.call("logs", handle)


def test_a_container_that_is_not_there_is_told_from_those_that_are(place: Open) -> None:
    at = place("ecs")
    handle = printed(at, "hello")
    with pytest.raises(SystemExit, match="has no container 'side': it has airflow"):
        at.call("logs", handle, "--container", "side")


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_that_prints_nothing_is_said_to_have_printed_nothing(
    place: Open, service: str, capsys: Shown
) -> None:
    at = place(service)
    handle = printed(at)
    if service == "ecs":
        group, stream = "/airflow", f"a/airflow/{handle.rpartition('/')[2]}"
    else:
        group, stream = "/aws/batch/job", at.local.job(handle)["container"]["logStreamName"]
    client = at.local.client("logs")
    client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    at.call("logs", handle)
    assert f"has printed nothing so far: log stream {stream} in {group} is empty." in capsys.readouterr().err


@pytest.mark.parametrize("follow", [[], ["-f"]])
@pytest.mark.parametrize("service", SERVICES)
def test_a_container_that_never_ran_is_said_to_have_never_run_and_why(
    place: Open, service: str, follow: list[str]
) -> None:
    never = "CannotPullContainerError: not found"
    at = place(service, runner="scripted", script=[{"starts": False, "container_reason": never}])
    handle = at.runs(0, state="failed")
    at.until(handle, "STOPPED", "FAILED")
    for target in ([handle], at.target(0)):
        with pytest.raises(SystemExit) as ended:
            at.call("logs", *target, *follow)
        said = str(ended.value)
        assert "the container never ran, so that it has printed nothing." in said
        assert never in said
        assert f"`{shlex.join(['airflow', 'ecs-async', 'describe', *at.target(0)])}`" in said


def test_a_container_that_aws_has_forgotten_never_ran_if_the_event_log_says_so(place: Open) -> None:
    at = place("ecs")
    handle = printed(at, "hello")
    at.set(0, state="failed", external_executor_id=f"{handle[:-4]}0000")
    at.says(0, "ecs container failure", "ECS task stopped before its container ran: no image\nending=image")
    with pytest.raises(SystemExit) as before:
        at.call("logs", *at.target(0))
    assert "never ran" not in str(before.value)
    dead = PostMortem("", "", handle, Ending.IMAGE, reason="no image")
    at.says(0, "ecs container output", last_words.entry(dead, ()))
    with pytest.raises(SystemExit, match=r"never ran, so that it has printed nothing. ECS task stopped before"):
        at.call("logs", *at.target(0))


def test_a_container_that_has_not_started_is_said_to_be_on_its_way(place: Open) -> None:
    at = place("ecs", runner="scripted", script=[{"pending": 600}])
    handle = at.runs(0, state="queued")
    at.until(handle, "PENDING")
    with pytest.raises(SystemExit, match=r"the container has not started yet: it is PENDING."):
        at.call("logs", *at.target(0))


def test_a_launch_without_a_container_is_said_to_have_failed_and_why(place: Open) -> None:
    at = place("ecs")
    at.set(0, state="failed")
    at.says(0, "ecs task submit failure", "ECS refused it: no such definition\nNothing ran.\nending=refused")
    with pytest.raises(SystemExit, match=r"has failed without a container .* no such definition. Nothing ran."):
        at.call("logs", *at.target(0))


def test_old_lines_are_left_out_if_only_recent_ones_are_wanted(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    handle = printed(at, "hello")
    at.call("logs", handle, "--since", "1h")
    assert capsys.readouterr().out == "hello\n"
    at.call("logs", handle, "--since", "0s")
    assert "no lines since then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (LINE, "2026-11-28T01:02:03 INFO hello who=world"),
        ('{"event": "x", "n": [1]}', "x n=[1]"),
        (
            '{"event": "x", "ti_id": "1", "dag_id": "d", "run_id": "r", "task_id": "t", "try_number": 1, "n": 2}',
            "x n=2",
        ),
        ('{"event": "x", "task_id": "another\'s"}', "x task_id=another's"),
        ("{no json", "{no json"),
        ('{"other": 1}', '{"other": 1}'),
        ("Traceback:", "Traceback:"),
    ],
)
def test_airflows_json_is_made_readable_and_nothing_else_is_changed(line: str, shown: str) -> None:
    assert readable(line) == shown
