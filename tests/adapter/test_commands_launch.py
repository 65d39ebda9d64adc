"""``airflow ecs-async check --launch``, from its arguments to containers of the local ECS and Batch."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands import launch
from ecs_async_executor.adapter.commands.course import Course, Limits
from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.local import Fault, LocalEcs
from ecs_async_executor.services import logs
from ecs_async_executor.services.ecs import SERVICE

Local = Callable[..., LocalEcs]
pytestmark = pytest.mark.slow  # each starts a container that imports Airflow

SERVICES = ("ecs", "batch")
JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
LOGGED = {"logDriver": "awslogs", "options": {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a"}}
NO_LOGS = Fault(kind="error", operation="GetLogEvents", code="AccessDeniedException", message="not authorized")


@pytest.fixture(autouse=True)
def settings_of_its_own(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # A container's `python` is this one, also where the environment is not activated.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(compat, "configured_executors", list)
    monkeypatch.setattr(launch, "_PAUSES", dict.fromkeys(launch._PAUSES, 0.1))
    monkeypatch.setattr(logs, "_PAUSE", 0.1)


@pytest.fixture
def image(local_ecs: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., LocalEcs]:
    """Open a local ECS whose definitions have an "image": what ``python`` is there, and its environment."""

    def build(python: str | None = None, environment: Mapping[str, str] | None = None, **options: Any) -> LocalEcs:
        local = local_ecs(runner="subprocess", stop_timeout=1.0, **options)
        variables = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": local.url}
        if python is not None:
            program = tmp_path / "python"
            program.write_text(f"#!/bin/sh\n{python}\n")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            variables["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        variables |= environment or {}
        local.register("family", "airflow", environment=variables, logConfiguration=LOGGED)
        local.register_job("airflow", environment=variables)
        monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:2")
        monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION", "airflow:2")
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", local.url)
        return local

    return build


def check(service: str, timeout: float = 30.0, queue: str | None = None, config: Any = None) -> None:
    of_task = {"queue": queue, "executor_config": config}
    cli.check(
        Namespace(team=None, service=service, timeout=timeout, launch=True, strict=False, output="text", **of_task)
    )


def nothing_is_left(local: LocalEcs) -> None:
    local.wait_stopped(timeout=60)
    assert len(local.ledger.entries()) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_with_airflow_and_a_way_to_the_api_is_good(
    image: Local, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = image()
    check(service)
    shown = capsys.readouterr().out
    for pattern in (
        r"(?m)^ +\d+\.\d s  accepted: ",
        r"(?m)^ +\d+\.\d s  RUNNING$",
        r"(?m)^  \| Python 3\.",
        r"(?m)^  \| airflow\.sdk\.execution_time\.execute_workload can be imported$",
        r"(?m)^  \| The execution API at 127\.0\.0\.1:\d+ can be reached$",
        r"(?m)^It took: .*RUNNING \d+\.\d s",
        r"The container ran and exited 0\. A first task would start after about \d+ s\.\n$",
    ):
        assert re.search(pattern, shown), (pattern, shown)
    assert "Not tried" not in shown
    nothing_is_left(local)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/"},
            r"exited 41\. The container cannot reach Airflow's execution API",
        ),
        ({"PYTHONNOUSERSITE": "1", "PYTHONPATH": "{broken}"}, r"exited 40\. The image cannot import Airflow's"),
    ],
)
def test_what_every_task_would_lack_is_named(
    image: Local, environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "airflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such airflow')\n")
    image(environment={name: value.format(broken=broken.parent) for name, value in environment.items()})
    with pytest.raises(SystemExit, match=said):
        check("ecs")


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_that_fails_shows_its_log_without_tokens(
    image: Local, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = image(f"echo 'no database: token={JWT}' >&2; exit 1")
    with pytest.raises(SystemExit, match=r"exited 1\. A first task would start .*, and fail like this\.$"):
        check(service)
    shown = capsys.readouterr().out
    assert "  | no database: token=***" in shown
    assert JWT not in shown
    nothing_is_left(local)


@pytest.mark.parametrize("service", SERVICES)
def test_without_the_permission_to_read_logs_the_check_says_so_and_goes_on(
    image: Local, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = image("echo hello")
    local.faults.add(NO_LOGS)
    check(service)
    shown = capsys.readouterr().out
    assert "Its log cannot be read: the credentials lack the permission logs:GetLogEvents for log group /" in shown
    assert "exited 0" in shown


def test_the_output_of_another_log_driver_is_not_asked_for(
    image: Local, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = image("echo hello")
    nowhere = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/"}
    local.register("family", "airflow", environment=nowhere, command=["true"])
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:3")
    with pytest.raises(SystemExit, match=r"exited 41\."):
        check("ecs")
    shown = capsys.readouterr().out
    assert "Its log cannot be read: container 'airflow' has no log configuration, and only" in shown
    assert local.statistics.operation("GetLogEvents").calls == 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_that_takes_too_long_is_stopped(
    image: Local, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = image("echo begun; exec sleep 600")
    with pytest.raises(SystemExit, match=r"^The container was not done within 6 s: it is RUNNING\.$"):
        check(service, timeout=6.0)
    shown = capsys.readouterr().out
    assert "  | begun\n" in shown
    assert "The container was told to stop." in shown
    nothing_is_left(local)


@pytest.mark.parametrize(
    ("service", "sent"), [("ecs", signal.SIGINT), ("batch", signal.SIGINT), ("ecs", signal.SIGTERM)]
)
def test_a_signal_stops_the_container(
    image: Local, service: str, sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    local = image("exec sleep 600")
    # A shell starts what it puts into the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not any(entry.status == "RUNNING" for entry in local.ledger.entries()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(SystemExit, match=r"^Interrupted\.$"):
            check(service)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert "The container was told to stop." in capsys.readouterr().out
    nothing_is_left(local)


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_that_cannot_be_pulled_is_named_by_the_services_words(local_ecs: Local, service: str) -> None:
    why = "CannotPullContainerError: pull image manifest has been retried 1 time(s): not found"
    local = local_ecs(script=[{"starts": False, "pending": 0.3, "stopped_reason": why}])
    with pytest.raises(
        SystemExit, match=r"before its container ran.*CannotPullContainerError.*after 3 containers"
    ):
        check(service)
    nothing_is_left(local)


def test_the_queue_and_the_executor_config_decide_what_is_launched(
    local_ecs: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", '{"big": {"overrides": {"cpu": "512"}}}')
    local = local_ecs()
    check("ecs", queue="big", config={"overrides": {"memory": "2048"}})
    (entry,) = local.ledger.entries()
    overrides = local.task(entry.id)["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == ("512", "2048")
    assert "cpu=512 memory=2048" in capsys.readouterr().out


def test_a_hook_shapes_the_container_and_finds_a_workload_without_a_token_in_its_command(
    local_ecs: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    class Grouping(AsyncEcsExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            workload = json.loads(cmd[-1])
            assert workload["token"] == ""
            request = super()._run_task_kwargs(task_id, cmd, queue, exec_config)
            return {**request, "group": f"{workload['ti']['dag_id']}.{task_id.task_id}.{queue}"}

    monkeypatch.setattr(compat, "configured_executors", lambda: [Grouping])
    local = local_ecs()
    check("ecs")
    (entry,) = local.ledger.entries()
    assert local.task(entry.id)["group"] == "ecs_async_check.launch.default"


def test_a_request_that_would_be_refused_launches_nothing(local_ecs: Local) -> None:
    local = local_ecs()
    with pytest.raises(SystemExit, match=r"^A task with this executor_config would fail: count must be 1"):
        check("ecs", config={"count": 2})
    assert local.ledger.entries() == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            Fault(
                kind="error", operation=("RunTask", "SubmitJob"), code="AccessDeniedException", message="not you"
            ),
            r"started no container: AccessDeniedException: not you\. A first task would wait 120 s for a mending",
        ),
        (
            Fault(kind="failures", operation="RunTask", failures=({"arn": "a", "reason": "RESOURCE:MEMORY"},)),
            r"started no container: RESOURCE:MEMORY\. A first task would wait for capacity, without a limit\.$",
        ),
    ],
)
def test_a_refusal_says_how_long_a_task_would_wait(local_ecs: Local, fault: Fault, said: str) -> None:
    local = local_ecs()
    local.faults.add(fault)
    with pytest.raises(SystemExit, match=said):
        check("ecs", timeout=1.0)
    assert local.ledger.entries() == []


@pytest.mark.parametrize("service", SERVICES)
def test_after_a_request_without_an_answer_its_own_container_is_found(
    local_ecs: Local, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = local_ecs(script=[{"duration": 0.5}])
    local.faults.add(Fault(kind="reset_after", operation=("RunTask", "SubmitJob"), count=1))
    check(service)
    assert "waits: " in capsys.readouterr().out
    nothing_is_left(local)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_of_a_request_that_is_never_answered_is_stopped(local_ecs: Local, service: str) -> None:
    local = local_ecs(script=[{"duration": None}])
    local.faults.add(Fault(kind="hang_after", operation=("RunTask", "SubmitJob"), count=1, seconds=30))
    with pytest.raises(SystemExit, match=r"^No container was known to have started within 1 s\.$"):
        check(service, timeout=1.0)
    nothing_is_left(local)


def test_a_container_that_cannot_be_stopped_is_named(local_ecs: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local = local_ecs(script=[{"duration": None}])
    local.faults.add(Fault(kind="error", operation="TerminateJob", code="AccessDeniedException", message="no"))
    with pytest.raises(SystemExit, match="not done within"):
        check("batch", timeout=1.0)
    (entry,) = local.ledger.entries()
    shown = capsys.readouterr().out
    assert f"could not be stopped (AccessDeniedException: no). Stop it by hand: {entry.id}.\n" in shown


def test_what_a_job_waits_for_is_said_as_it_is_seen(local_ecs: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local = local_ecs(script=[{"stuck": "RUNNABLE", "waiting_reason": "CAPACITY:INSUFFICIENT - none"}])
    with pytest.raises(SystemExit, match=r"not done within 4 s: it is RUNNABLE, and waits: CAPACITY:INSUFF"):
        check("batch", timeout=4.0)
    assert "waits: CAPACITY:INSUFFICIENT - none\n" in capsys.readouterr().out
    nothing_is_left(local)


def test_a_container_that_the_service_does_not_know_is_not_waited_for(
    local_ecs: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__MISSING_GRACE", "1")
    local = local_ecs(script=[{"duration": None}])
    local.faults.add(Fault(kind="missing", operation="DescribeTasks", skip=1))  # the first is a trial
    with pytest.raises(SystemExit, match=r"^ECS does not know the task: MISSING\.$"):
        check("ecs")
    nothing_is_left(local)


def test_without_the_permission_to_describe_the_container_is_stopped(local_ecs: Local) -> None:
    local = local_ecs(script=[{"duration": None}])
    refused = Fault(
        kind="error", operation="DescribeTasks", skip=1, code="AccessDeniedException", message="not you"
    )
    local.faults.add(refused)
    with pytest.raises(SystemExit, match=r"could not be followed: AccessDeniedException: not you\.$"):
        check("ecs")
    nothing_is_left(local)


def test_a_queue_without_launch_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"team": None, "service": "ecs", "timeout": None, "launch": False, "strict": False, "output": "text"}
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.check(Namespace(**given, queue="big", executor_config=None))
    assert "--launch" in capsys.readouterr().err


def test_the_check_is_about_the_service_that_is_asked_for(
    local_ecs: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "configured_executors", lambda: [AsyncBatchExecutor, AsyncEcsExecutor])
    local = local_ecs()
    check("ecs")
    assert [entry.service for entry in local.ledger.entries()] == ["ecs"]


# --- what a first task would meet ----------------------------------------------------------------------------

LIMITS = Limits(timeout=300, max_attempts=3, permanent_error_grace=120, capacity_timeout=900)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Kind.CAPACITY, "would wait for capacity, 900 s at most, and then fail."),
        (Kind.CREDENTIALS, "would wait until the credentials work."),
        (Kind.UNSENT, "would wait until ECS can be reached."),
        (Kind.AMBIGUOUS, "would wait for an answer."),
        (Kind.INVALID, "would fail."),
    ],
)
def test_what_a_refusal_means_for_a_task(kind: Kind, said: str) -> None:
    course = Course(SERVICE, refusal=BackendError(kind, "Code", "words"))
    assert course.verdict(LIMITS) == (False, f"ECS started no container: Code: words. A first task {said}")


def ends(**fields: Any) -> tuple[bool, str]:
    """Return the verdict on a container that was last seen like this."""
    return Course(SERVICE, last=Observation(Handle("main", "arn"), **fields)).verdict(LIMITS)


def test_a_container_that_the_service_gave_up_for_want_of_room_means_a_wait() -> None:
    assert ends(seen=Seen.STOPPED, reason="RESOURCE:MEMORY", unplaced=True) == (
        False,
        "RESOURCE:MEMORY. A first task would wait for capacity, 900 s at most, and then fail.",
    )


def test_a_container_that_never_starts_fails_a_task_after_several_or_at_once_if_a_person_stopped_it() -> None:
    _, words = ends(seen=Seen.STOPPED, reason="CannotPullContainerError")
    assert words == "CannotPullContainerError. A first task would fail like this, after 3 containers."
    _, words = ends(seen=Seen.STOPPED, reason="Canceled", by_hand=True)
    assert words == "Canceled. A first task would fail like this."


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "it is WAITS."),
        ({"reason": "no room", "unplaced": True}, "it is WAITS, and waits: no room. {} for capacity, {}."),
        ({"reason": "MISFIT"}, "it is WAITS, and waits: MISFIT. {} like this, {}."),
    ],
)
def test_what_a_container_that_waits_means_for_a_task(fields: dict[str, Any], words: str) -> None:
    said = words.format("A first task would wait", "900 s at most, and then fail")
    assert ends(seen=Seen.PENDING, status="WAITS", **fields) == (
        False,
        f"The container was not done within 300 s: {said}",
    )


def test_each_state_lasts_until_the_next_one_is_seen() -> None:
    course = Course(SERVICE)
    for status, at in (("PROVISIONING", 1.0), ("PROVISIONING", 5.0), ("PENDING", 12.0), ("RUNNING", 32.0)):
        course.note(Observation(Handle("main", "arn"), Seen.RUNNING, status=status), at)
    course.note(Observation(Handle("main", "arn"), Seen.STOPPED, status="STOPPED", exit_code=0), 40.0)
    assert course.durations() == "PROVISIONING 11.0 s, PENDING 20.0 s, RUNNING 8.0 s"
    good, words = course.verdict(LIMITS)
    assert good
    assert words.endswith("A first task would start after about 32 s.")


def test_a_container_is_stopped_though_the_question_for_it_has_no_answer_either(
    local_ecs: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__READ_TIMEOUT", "3")
    local = local_ecs(script=[{"duration": None}])
    local.faults.add(Fault(kind="hang_after", operation="RunTask", count=2, seconds=30))
    with pytest.raises(SystemExit, match=r"^No container was known to have started within 1 s\.$"):
        check("ecs", timeout=1.0)
    nothing_is_left(local)
