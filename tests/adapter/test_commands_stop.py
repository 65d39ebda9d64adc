"""``airflow ecs-async stop``, on ECS and on Batch, with a real database."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Callable

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.adapter.commands.asking import look_at
from ecs_async_executor.adapter.commands.fleet import Member
from ecs_async_executor.local import Fault
from tests.adapter.steering import Place, ago

Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]
pytestmark = pytest.mark.slow

SERVICES = ("ecs", "batch")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("service", SERVICES)
def test_a_stop_is_a_persons_and_its_reason_reaches_the_executor(place: Open, service: str, capsys: Shown) -> None:
    at = place(service)
    running = at.runs(0)
    at.until_running(running)
    at.call("stop", *at.target(0), "--reason", "wrong input (by ecs-async-executor)", "-y")
    shown = capsys.readouterr()
    assert "try 1" in shown.out
    assert shown.out.endswith("told to stop.\n")
    at.until(running, "STOPPED", "FAILED")
    seen = look_at(Member(("x",), None, at.executor), {running: None})[running]
    assert seen.by_hand
    assert "(airflow ecs-async stop): wrong input" in seen.reason
    assert "by ecs-async-executor" not in seen.reason


@pytest.mark.parametrize("service", SERVICES)
def test_several_targets_have_a_line_each_and_one_that_fails_fails_the_command(
    place: Open, service: str, capsys: Shown
) -> None:
    at = place(service)
    one, two = at.runs(0), at.runs(1)
    unknown = str(uuid.uuid4()) if service == "batch" else one.rpartition("/")[0] + "/" + "b" * 32
    at.until_running(one)
    at.until_running(two)
    with pytest.raises(SystemExit) as ended:
        at.call("stop", one, unknown, two, "-y")
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert shown.out.count("told to stop") == 2
    assert unknown.rpartition("/")[2] in shown.err
    at.until(one, "STOPPED", "FAILED")
    at.until(two, "STOPPED", "FAILED")


def test_nothing_is_stopped_without_a_yes(place: Open, monkeypatch: pytest.MonkeyPatch, capsys: Shown) -> None:
    at = place("ecs")
    running = at.runs(0)
    at.until_running(running)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(SystemExit, match=r"Nothing was stopped\."):
        at.call("stop", running)
    assert "Stop this container? [y/N]" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit, match="no terminal to ask on: say --yes"):
        at.call("stop", running)
    assert at.local.statistics.operation("StopTask").calls == 0
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    at.call("stop", running)
    at.until(running, "STOPPED")


@pytest.mark.parametrize(
    ("service", "operation", "permission"),
    [("ecs", "StopTask", "ecs:StopTask"), ("batch", "TerminateJob", "batch:TerminateJob")],
)
def test_without_the_permission_to_stop_the_permission_is_named(
    place: Open, service: str, operation: str, permission: str, capsys: Shown
) -> None:
    at = place(service)
    running = at.runs(0)
    at.until_running(running)
    at.local.faults.add(
        Fault(kind="error", operation=operation, code="AccessDeniedException", message="not authorized")
    )
    with pytest.raises(SystemExit) as ended:
        at.call("stop", running, "-y")
    assert ended.value.code == 1
    assert f"not stopped: AccessDeniedException: not authorized. Allow {permission}" in capsys.readouterr().err
    assert at.status(running) == "RUNNING"


def test_what_has_ended_or_is_of_an_earlier_queueing_is_not_stopped(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    over, earlier = at.runs(0), at.runs(1, state="queued", queued_dttm=ago(-1))
    at.until_running(over)
    at.until_running(earlier)
    at.call("stop", over, "-y")
    at.until(over, "STOPPED")
    capsys.readouterr()
    at.call("stop", over, earlier, "-y")
    shown = capsys.readouterr().out
    assert "has ended already: ECS container exited 143" in shown
    assert "the container of an earlier queueing" in shown
    assert at.status(earlier) == "RUNNING"


def test_a_task_instance_without_a_container_says_what_it_waits_for(place: Open, capsys: Shown) -> None:
    at = place("ecs")
    at.set(0, state="queued")
    at.says(0, "container waits", "The container waits: ECS refuses it: no such cluster")
    with pytest.raises(SystemExit) as ended:
        at.call("stop", *at.target(0), "-y")
    assert ended.value.code == 1
    assert "is queued, and Airflow knows no container of it. The container waits: ECS refuses it" in (
        capsys.readouterr().err
    )
