"""What the api-server and the command line see: instances that were never started."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ecs_async_executor import AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat, task_log
from ecs_async_executor.adapter.ecs import EcsAdapter
from ecs_async_executor.core.backend import Handle, Observation, Seen, Trial
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.findings import Finding

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/other/0123456789abcdef"


class Backend:
    """A service that knows one container."""

    def __init__(self, answer: Observation | Exception | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Sequence[str]]] = []
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.opened += 1
        yield

    def scope_of(self, handle_id: str | None) -> str:
        assert handle_id == ARN
        return "other"

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        self.asked.append((scope, ids))
        if self.answer is None:
            await asyncio.sleep(3600)
        if isinstance(self.answer, Exception):
            raise self.answer
        assert self.answer is not None
        return [self.answer]

    untried = "RunTask"

    def trials(self, specs: Any = ()) -> Sequence[Trial]:
        return [Trial("ListTasks", self.list), Trial("StopTask", self.check)]

    async def list(self) -> None:
        """Say yes."""

    async def check(self) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer


class Ti:
    def __init__(self, external_executor_id: str | None, try_number: int = 1) -> None:
        self.external_executor_id = external_executor_id
        self.try_number = try_number


@pytest.fixture
def looking_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Observation | Exception | None], AsyncEcsExecutor]:
    def make(answer: Observation | Exception | None) -> AsyncEcsExecutor:
        backend = Backend(answer)
        monkeypatch.setattr(EcsAdapter, "make_backend", lambda _: backend)
        return AsyncEcsExecutor()

    return make


def seen(seen: Seen, status: str, **more: Any) -> Observation:
    return Observation(Handle("other", ARN), seen, status, **more)


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (seen(Seen.PENDING, "PROVISIONING"), "PROVISIONING"),
        (seen(Seen.RUNNING, "RUNNING", exit_code=0), "RUNNING, exit code 0"),
        (
            seen(Seen.STOPPED, "STOPPED", stop_code="SpotInterruption", reason="Your Spot Task was interrupted."),
            "STOPPED, SpotInterruption, Your Spot Task was interrupted.",
        ),
        (seen(Seen.MISSING, ""), "not known to the service (any more)"),
    ],
)
def test_the_task_log_starts_with_the_status_of_the_container(
    looking_at: Callable[..., AsyncEcsExecutor], observation: Observation, text: str
) -> None:
    messages, logs = looking_at(observation).get_task_log(Ti(ARN), 1)
    assert messages == [f"ECS container {ARN}: {text}"]
    assert logs == []


@pytest.mark.parametrize(
    ("ti", "try_number"),
    [(Ti(None), 1), (Ti("5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11"), 1), (Ti(ARN, try_number=2), 1)],
)
def test_the_task_log_says_nothing_about_a_container_that_is_not_known(
    looking_at: Callable[..., AsyncEcsExecutor], ti: Ti, try_number: int
) -> None:
    executor = looking_at(seen(Seen.RUNNING, "RUNNING"))
    assert executor.get_task_log(ti, try_number) == ([], [])


def test_the_task_log_never_raises(looking_at: Callable[..., AsyncEcsExecutor]) -> None:
    error = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform ecs:DescribeTasks")
    messages, _ = looking_at(error).get_task_log(Ti(ARN), 1)
    assert messages[0].endswith(
        "could not be read: AccessDeniedException: not authorized to perform ecs:DescribeTasks"
    )


def test_the_task_log_waits_for_no_slow_service(
    looking_at: Callable[..., AsyncEcsExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 0.05)
    before = time.monotonic()
    messages, _ = looking_at(None).get_task_log(Ti(ARN), 1)
    assert messages == ["The status of the ECS container could not be read: no answer within 0.05 s"]
    assert time.monotonic() - before < 3


def test_views_of_the_task_log_leave_no_thread_each_where_a_secrets_backend_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    def hangs(**_: Any) -> None:
        go.wait(20)
        raise LookupError

    monkeypatch.setattr("ecs_async_executor.services.credentials._hook_class", lambda: hangs)
    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 0.1)
    before = threading.active_count()
    try:
        for _ in range(5):
            messages, _ = AsyncEcsExecutor().get_task_log(Ti(ARN), 1)
            assert messages == ["The status of the ECS container could not be read: no answer within 0.1 s"]
        deadline = time.monotonic() + 5
        while threading.active_count() > before + 1 and time.monotonic() < deadline:
            time.sleep(0.01)  # the loops' threads are about to end
        assert threading.active_count() <= before + 1
    finally:
        go.set()


def test_the_task_log_tells_of_missing_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME")
    messages, _ = AsyncEcsExecutor().get_task_log(Ti(ARN), 1)
    assert "container_name is not set" in messages[0]


# --- airflow ecs-async -------------------------------------------------------------------------------------------


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_found(*_: Any) -> AsyncIterator[Finding]:
        return
        yield

    monkeypatch.setattr(compat, "configured_executors", list)
    monkeypatch.setattr(EcsAdapter, "look_at_definitions", nothing_found)


def arguments(**given: Any) -> argparse.Namespace:
    defaults: dict[str, Any] = {"team": None, "service": None, "timeout": 1.0, "launch": False, "queue": None}
    defaults |= {"strict": False, "output": "text"}
    return argparse.Namespace(**defaults, executor_config=None, **given)


def with_arguments(**given: Any) -> argparse.Namespace:
    made = arguments()
    vars(made).update(given)
    return made


@pytest.mark.usefixtures("configured")
def test_check_says_what_it_has_tried_and_what_not(
    looking_at: Callable[..., AsyncEcsExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    looking_at(seen(Seen.RUNNING, "RUNNING"))
    cli.check(arguments())
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["ListTasks: good.", "StopTask: good.", "Not tried: RunTask."]


@pytest.mark.usefixtures("configured")
def test_check_ends_with_what_ecs_said_and_has_tried_the_rest(
    looking_at: Callable[..., AsyncEcsExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    looking_at(BackendError(Kind.REFUSED, "ClusterNotFoundException", "Cluster not found."))
    with pytest.raises(SystemExit, match=r"^ECS: StopTask: ClusterNotFoundException: Cluster not found\.$"):
        cli.check(arguments())
    assert "ListTasks: good." in capsys.readouterr().out


@pytest.mark.usefixtures("configured")
def test_check_ends_with_every_problem_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_BURST", "many")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__POLL_INTERVAL", "often")
    with pytest.raises(SystemExit) as caught:
        cli.check(arguments())
    assert "launch_burst" in str(caught.value)
    assert "poll_interval" in str(caught.value)


@pytest.mark.usefixtures("configured")
def test_show_request_shows_all_but_the_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = {
        "overrides": {
            "containerOverrides": [{"name": "airflow", "environment": [{"name": "PASSWORD", "value": "hunter2"}]}]
        }
    }
    cli.show_request(with_arguments(executor_config=overrides))
    shown = capsys.readouterr().out
    request = json.loads(shown)
    assert "hunter2" not in shown
    assert request["cluster"] == "main"
    assert request["overrides"]["containerOverrides"][0]["environment"][0] == {"name": "PASSWORD", "value": "***"}
    assert request["overrides"]["containerOverrides"][0]["command"][-1] == "***"


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"count": 2}, "count must be 1: one workload is one container"),
        ({"bogus": 1, "group": ["g"]}, "RunTask has no bogus; .*; group must be a string, not list"),
        ({"memory": "1"}, r"RunTask has no memory; did you mean overrides\.memory\?"),
        ([1], "executor_config must be a dictionary of RunTask parameters, not list"),
    ],
)
def test_show_request_says_what_is_wrong_with_an_executor_config(config: Any, said: str) -> None:
    with pytest.raises(SystemExit, match=f"^A task with this executor_config would fail: {said}"):
        cli.show_request(with_arguments(executor_config=config))


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("config", [None, {"group": "g"}])
def test_show_request_blames_the_settings_of_the_queue_for_what_they_do(
    monkeypatch: pytest.MonkeyPatch, config: Any
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", '{"gpu": {"startedBy": "not a mark"}}')
    with pytest.raises(
        SystemExit, match=r"^A task with the setting queues for queue 'gpu' would fail: startedBy must"
    ):
        cli.show_request(with_arguments(queue="gpu", executor_config=config))
    cli.show_request(with_arguments(queue="gpu", executor_config={"startedBy": "a-mark"}))


@pytest.mark.usefixtures("configured")
def test_show_request_blames_the_settings_for_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION")
    with pytest.raises(SystemExit, match=r"^A task with these settings would fail: no task definition"):
        cli.show_request(with_arguments(executor_config={"group": "g"}))


def test_show_request_uses_the_hooks_of_the_configured_subclass(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tagging(AsyncEcsExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            request = super()._run_task_kwargs(task_id, cmd, queue, exec_config)
            return {**request, "group": queue}

    monkeypatch.setattr(compat, "configured_executors", lambda: [object, Tagging])
    cli.show_request(with_arguments(queue="night"))
    assert json.loads(capsys.readouterr().out)["group"] == "night"


def test_the_commands_parse() -> None:
    (group,) = cli.get_cli_commands()
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    for command in group.subcommands:
        one = commands.add_parser(command.name)
        for argument in command.args:
            argument.add_to_parser(one)
    parsed = parser.parse_args(["show-request", "--executor-config", '{"cpu": "1"}', "--queue", "q"])
    assert parsed.executor_config == {"cpu": "1"}
    assert parser.parse_args(["check", "--timeout", "3"]).timeout == 3.0
    assert parser.parse_args(["check", "--launch", "--queue", "q"]).launch
