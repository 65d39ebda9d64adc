"""What the api-server shows of a running task: an instance that was never started."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat, task_log
from ecs_async_executor.adapter.ecs import EcsAdapter
from ecs_async_executor.core.backend import Handle, Observation, Seen, Trial
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import pace
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader, LogStream
from tests.services.fakes import FakeClient, FakeFactory

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/other/0123456789abcdef"
STREAM = LogStream("/airflow", "a/airflow/0123456789abcdef", "eu-west-1")
PAGE = (
    "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1"
    "#logsV2:log-groups/log-group/%2Fairflow/log-events/a%2Fairflow%2F0123456789abcdef"
)
JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


class Ti:
    """The columns of a task instance that are read."""

    def __init__(self, external_executor_id: str | None, try_number: int = 1) -> None:
        self.external_executor_id = external_executor_id
        self.try_number = try_number


class Service:
    """A service that knows one container, and what that has printed."""

    def __init__(self, answer: Any, *printed: str) -> None:
        self.answer = answer
        self.asked = 0
        events = [{"message": one} for one in printed]
        self.logs = FakeClient(get_log_events={"events": events, "nextBackwardToken": "b"})

    @asynccontextmanager
    async def inspector(self) -> AsyncIterator[Service]:
        yield self

    def log_reader(self) -> LogReader:
        factory: Any = FakeFactory(self.logs, "logs")
        return LogReader(lambda *_: factory)

    async def details(self, handle_id: str) -> Details | None:
        assert handle_id == ARN
        self.asked += 1
        if self.answer is None:
            await asyncio.sleep(3600)
        if isinstance(self.answer, Exception):
            raise self.answer
        return None if self.answer == "missing" else self.answer

    async def log_streams(self, handle_id: str) -> list[ContainerDetails]:
        assert handle_id == ARN
        return [container()]


Showing = Callable[..., AsyncEcsExecutor]


@pytest.fixture
def showing(monkeypatch: pytest.MonkeyPatch) -> Showing:
    def make(answer: Any, *printed: str, service: Service | None = None) -> AsyncEcsExecutor:
        made = service or Service(answer, *printed)
        monkeypatch.setattr(EcsAdapter, "inspector", lambda _: made.inspector())
        monkeypatch.setattr(EcsAdapter, "log_reader", lambda _: made.log_reader())
        return AsyncEcsExecutor()

    return make


def container(name: str = "airflow", **more: Any) -> ContainerDetails:
    return ContainerDetails(name, **{"runs_airflow": True, "stream": STREAM, **more})


def seen(seen: Seen, status: str, *containers: ContainerDetails, **more: Any) -> Details:
    observation = Observation(Handle("other", ARN), seen, status, **more)
    return Details(observation, "eu-west-1", containers=containers)


def in_json(event: str, at: str) -> str:
    return json.dumps({"timestamp": f"2026-11-29T01:05:46.{at}Z", "level": "info", "event": event})


RUNNING = seen(Seen.RUNNING, "RUNNING", container())


@pytest.fixture(autouse=True)
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "of_log_reads", lambda _: pace.Pace(1e6, 1))


# --- the status ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (seen(Seen.PENDING, "PROVISIONING"), "PROVISIONING"),
        (seen(Seen.RUNNING, "RUNNING", exit_code=0), "RUNNING, exit code 0"),
        (
            seen(Seen.STOPPED, "STOPPED", stop_code="SpotInterruption", reason="Your Spot Task was interrupted."),
            "STOPPED, SpotInterruption, Your Spot Task was interrupted.",
        ),
    ],
)
def test_the_task_log_starts_with_the_status_of_the_container(
    showing: Showing, details: Details, text: str
) -> None:
    messages, logs = showing(details).get_task_log(Ti(ARN), 1)
    assert messages == [f"ECS container {ARN}: {text}"]
    assert logs == []


@pytest.mark.parametrize(
    ("ti", "try_number"),
    [(Ti(None), 1), (Ti("5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11"), 1), (Ti(ARN, try_number=2), 1)],
)
def test_the_task_log_says_nothing_about_a_container_that_is_not_known(
    showing: Showing, ti: Ti, try_number: int
) -> None:
    assert showing(RUNNING).get_task_log(ti, try_number) == ([], [])


def test_the_task_log_never_raises(showing: Showing) -> None:
    error = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform ecs:DescribeTasks")
    messages, _ = showing(error).get_task_log(Ti(ARN), 1)
    assert messages[0].endswith(
        "could not be read: AccessDeniedException: not authorized to perform ecs:DescribeTasks"
    )


def test_the_task_log_tells_of_missing_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME")
    messages, _ = AsyncEcsExecutor().get_task_log(Ti(ARN), 1)
    assert "container_name is not set" in messages[0]


# --- the lines -------------------------------------------------------------------------------------------------


def test_the_last_lines_follow_with_a_link_to_all_of_them(showing: Showing) -> None:
    executor = showing(RUNNING, "one", "two")
    assert executor.get_task_log(Ti(ARN), 1) == ([f"ECS container {ARN}: RUNNING. Its log: {PAGE}"], ["one\ntwo"])


def test_where_the_folder_is_shared_with_containers_a_running_tasks_lines_are_not_shown_twice(
    showing: Showing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    monkeypatch.setattr(compat, "log_paths", lambda: lambda _: "task.log")
    supervisors, printed = in_json("Executing workload", "000001"), in_json("line", "000890")
    about, lines = showing(RUNNING, supervisors, printed).get_task_log(Ti(ARN), 1)
    assert lines == [f"{supervisors}\n{printed}"]

    (tmp_path / "task.log").write_text(in_json("line", "000625") + "\n")
    again, lines = showing(RUNNING, supervisors, printed).get_task_log(Ti(ARN), 1)
    assert lines == [supervisors]
    assert again == [*about, "1 of these lines is shown once: the task's own log has it"]


def test_newer_airflows_get_them_line_by_line(showing: Showing) -> None:
    messages, streams = showing(RUNNING, "one", "two").get_streaming_task_log(Ti(ARN), 1)
    assert len(messages) == 1
    assert [list(stream) for stream in streams] == [["one", "two"]]
    assert str(type(streams[0])) == "<class 'generator'>"  # Airflow tells a stream from a list of texts by that


def test_the_number_of_lines_can_be_set(showing: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__TASK_LOG_LINES", "2")
    service = Service(RUNNING, "two", "three")
    messages, logs = showing(None, service=service).get_task_log(Ti(ARN), 1)
    assert service.logs.asked("get_log_events")[0]["limit"] == 2
    assert logs == ["two\nthree"]
    assert messages[1:] == ["Shown are the last 2 lines of the container (option task_log_lines)"]


@pytest.mark.parametrize(
    "environment",
    [
        {"AIRFLOW__ECS_ASYNC_EXECUTOR__TASK_LOG_LINES": "0"},
        {
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "cloudwatch://arn:aws:logs:eu-west-1:1:log-group:g",
        },
    ],
)
def test_only_the_status_is_shown_where_lines_are_not_wanted_or_airflow_shows_them(
    showing: Showing, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    service = Service(RUNNING, "one")
    messages, logs = showing(None, service=service).get_task_log(Ti(ARN), 1)
    assert messages == [f"ECS container {ARN}: RUNNING. Its log: {PAGE}"]
    assert logs == []
    assert service.logs.calls == []


def test_remote_logging_elsewhere_leaves_the_lines_there(
    showing: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOGGING", "True")
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", "s3://bucket/logs")
    assert showing(RUNNING, "one").get_task_log(Ti(ARN), 1)[1] == ["one"]


def test_an_empty_log_is_named(showing: Showing) -> None:
    messages, logs = showing(RUNNING).get_task_log(Ti(ARN), 1)
    assert logs == []
    assert messages[1] == (
        "There is no output to show: the container has printed nothing so far: log stream "
        "a/airflow/0123456789abcdef in /airflow is empty"
    )


def test_a_container_without_a_log_stream_says_why(showing: Showing) -> None:
    why = "container 'airflow' has the log driver splunk, and only the output of awslogs can be read"
    details = seen(Seen.RUNNING, "RUNNING", container(stream=None, no_stream=why))
    messages, logs = showing(details).get_task_log(Ti(ARN), 1)
    assert messages == [f"ECS container {ARN}: RUNNING", f"The output of the container is not shown: {why}"]
    assert logs == []


def test_other_containers_and_attempts_are_named_with_their_logs(showing: Showing) -> None:
    before = container(attempt=1, status="FAILED", exit_code=1, reason=f"bad {JWT}")
    side = container("side", attempt=2, status="RUNNING", runs_airflow=False, stream=None)
    details = seen(Seen.RUNNING, "RUNNING", before, side, container(attempt=2))
    messages, logs = showing(details, "one").get_task_log(Ti(ARN), 1)
    assert messages[1:] == [
        f"Container airflow of attempt 1: FAILED, exit code 1, bad ***. Its log: {PAGE}",
        "Container side of attempt 2: RUNNING",
    ]
    assert logs == ["one"]


def test_a_container_that_the_service_has_forgotten_still_has_its_lines(showing: Showing) -> None:
    messages, logs = showing("missing", "one").get_task_log(Ti(ARN), 1)
    assert messages == [f"ECS container {ARN}: not known to the service (any more). Its log: {PAGE}"]
    assert logs == ["one"]


def test_airflow_makes_records_of_the_lines_and_shows_no_token(showing: Showing, tmp_path: Path) -> None:
    from airflow.utils.log.file_task_handler import FileTaskHandler

    first = {"timestamp": "2026-11-28T10:00:00Z", "level": "info", "event": "Executing workload", "workload": JWT}
    second = {"timestamp": "2026-11-28T10:00:01Z", "level": "error", "event": "no such table", "logger": "task"}
    handler = FileTaskHandler(str(tmp_path))
    handler._render_filename = lambda *_: "a.log"  # type: ignore[method-assign]
    executor = showing(RUNNING, json.dumps(first), "plain words", json.dumps(second))
    ti: Any = Ti(ARN)
    ti.state, ti.executor, ti.hostname = "running", None, ""
    handler.executor_instances = {handler.DEFAULT_EXECUTOR_KEY: executor}
    found, _ = handler._read(ti, 1)
    records = [json.loads(one.model_dump_json()) for one in found]  # type: ignore[union-attr]
    shown = [(one["event"], one.get("level"), one.get("workload")) for one in records]
    assert f"ECS container {ARN}: RUNNING. Its log: {PAGE}" in json.dumps(
        records[:2]
    )  # the header, in each version
    assert shown[-3:] == [
        ("Executing workload", "info", "***"),
        ("plain words", None, None),
        ("no such table", "error", None),
    ]


# --- many viewers, and no answer -------------------------------------------------------------------------------


def at_once(executor: AsyncEcsExecutor, views: int) -> list[Any]:
    with ThreadPoolExecutor(views) as threads:
        return list(threads.map(lambda _: executor.get_task_log(Ti(ARN), 1), range(views)))


def test_fifty_viewers_of_a_task_make_one_look(showing: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_log, "KEPT_FOR", 60.0)  # however slow the machine
    service = Service(RUNNING, "one")
    executor = showing(None, service=service)
    first = at_once(executor, 50)
    assert first == [first[0]] * 50
    assert (service.asked, len(service.logs.calls)) == (1, 1)


def test_what_is_kept_for_a_moment_is_asked_for_again_after_it(
    showing: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_log, "KEPT_FOR", 0.05)
    service = Service(RUNNING, "one")
    executor = showing(None, service=service)
    deadline = time.monotonic() + 60
    while service.asked < 2:
        assert time.monotonic() < deadline
        executor.get_task_log(Ti(ARN), 1)
    assert len(service.logs.calls) == 2


def test_no_more_looks_than_a_few_at_once(showing: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    four = asyncio.Event()

    async def slow(_: Service, __: str) -> Details:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 4:
            four.set()
        await four.wait()
        await asyncio.sleep(0.01)  # here more could begin, if they may
        under_way -= 1
        return RUNNING

    monkeypatch.setattr(Service, "details", slow)
    executor = showing(RUNNING, "one")
    others = [Ti(ARN.replace("0123", f"{n:04}")) for n in range(20)]
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda ti: executor.get_task_log(ti, 1), others))
    assert all(logs == ["one"] for _, logs in found)
    assert most == 4


def test_the_task_log_waits_for_no_slow_service(showing: Showing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 0.05)
    before = time.monotonic()
    messages, _ = showing(None).get_task_log(Ti(ARN), 1)
    assert messages == ["The status of the ECS container could not be read: no answer within 0.05 s"]
    assert time.monotonic() - before < 60, "the service would take an hour"


def test_the_status_is_shown_where_the_log_does_not_answer(
    showing: Showing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(**_: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 0.3)
    service = Service(RUNNING)
    service.logs.answers["get_log_events"] = never
    executor = showing(None, service=service)
    messages, logs = executor.get_task_log(Ti(ARN), 1)
    assert messages == [
        f"ECS container {ARN}: RUNNING. Its log: {PAGE}",
        "The log of the container could not be read: no answer within 0.3 s",
    ]
    assert logs == []
    assert executor.get_task_log(Ti(ARN), 1)[0] == messages  # kept: nobody waits for it again
    assert service.asked == 1


def test_views_of_the_task_log_leave_no_thread_each_where_a_secrets_backend_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    def hangs(**_: Any) -> None:
        go.wait(600)
        raise LookupError

    monkeypatch.setattr("ecs_async_executor.services.credentials._hook_class", lambda: hangs)
    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 0.1)
    monkeypatch.setattr(task_log, "KEPT_AFTER_SILENCE", 0.0)
    said = ["The status of the ECS container could not be read: no answer within 0.1 s"]
    try:
        assert AsyncEcsExecutor().get_task_log(Ti(ARN), 1)[0] == said  # there is a loop's thread from now on
        before = set(threading.enumerate())
        with ThreadPoolExecutor(20) as threads:
            for _ in range(3):
                found = list(threads.map(lambda _: AsyncEcsExecutor().get_task_log(Ti(ARN), 1)[0], range(20)))
                assert found == [said] * 20
        deadline = time.monotonic() + 60
        while set(threading.enumerate()) - before and time.monotonic() < deadline:
            time.sleep(0.01)  # the viewers' threads, and those that have read settings, are about to end
        assert set(threading.enumerate()) <= before
    finally:
        go.set()


# --- containers of the local ECS and Batch ---------------------------------------------------------------------

LOGGED = {"logDriver": "awslogs", "options": {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a"}}
SERVICES = pytest.mark.parametrize("service", ["ecs", "batch"])


def start(local: Any, service: str, script: str) -> tuple[Any, Ti]:
    """Run a script in a container, and return an executor that knows its service, and its task instance."""
    command = ["sh", "-c", script]
    if service == "batch":
        job = local.client("batch").submit_job(
            jobName="a", jobQueue="default", jobDefinition="airflow", containerOverrides={"command": command}
        )
        return AsyncBatchExecutor(), Ti(job["jobId"])
    reply = local.client("ecs").run_task(
        cluster="main",
        taskDefinition="family",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        overrides={"containerOverrides": [{"name": "airflow", "command": command}]},
    )
    return AsyncEcsExecutor(), Ti(reply["tasks"][0]["taskArn"])


def logs_once_there(executor: Any, ti: Ti) -> tuple[list[str], list[str]]:
    """Look until there are lines, as the UI does."""
    deadline = time.monotonic() + 20
    while True:
        messages, logs = executor.get_task_log(ti, 1)
        if logs:
            return messages, logs
        assert time.monotonic() < deadline, messages


@pytest.fixture
def local(local_ecs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(task_log, "KEPT_FOR", 0.05)
    server = local_ecs(runner="subprocess", stop_timeout=1.0)
    server.register("family", "airflow", logConfiguration=LOGGED)
    return server


@SERVICES
def test_what_a_running_container_prints_is_shown_as_it_runs(local: Any, service: str) -> None:
    executor, ti = start(local, service, f"echo 'Executing workload token={JWT}'; exec sleep 60")
    messages, logs = logs_once_there(executor, ti)
    assert messages[0].startswith(
        f"{executor.adapter.service.name} container {ti.external_executor_id}: RUNNING. "
    )
    assert "Its log: https://" in messages[0]
    assert logs == ["Executing workload token=***"]


@SERVICES
def test_without_the_permission_the_task_log_names_it_and_the_group(local: Any, service: str) -> None:
    from ecs_async_executor.local import Fault

    local.faults.add(Fault(kind="error", operation="GetLogEvents", code="AccessDeniedException", message="no"))
    executor, ti = start(local, service, "echo one; exec sleep 60")
    deadline = time.monotonic() + 20
    while "RUNNING" not in (messages := executor.get_task_log(ti, 1)[0])[0]:
        assert time.monotonic() < deadline, messages
    assert "the credentials lack the permission logs:GetLogEvents for log group /a" in messages[1]


@SERVICES
def test_a_group_that_does_not_exist_is_named(local: Any, service: str) -> None:
    executor, ti = start(local, service, "exec sleep 60")
    deadline = time.monotonic() + 20
    while "RUNNING" not in (messages := executor.get_task_log(ti, 1)[0])[0]:
        assert time.monotonic() < deadline, messages
    group = "/airflow" if service == "ecs" else "/aws/batch/job"
    assert messages[1] == (
        f"The output of the container is not shown: log group {group} does not exist in {local.region}"
    )


def test_a_task_that_ecs_has_forgotten_still_shows_what_it_has_printed(
    local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.local import Fault

    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family")
    executor, ti = start(local, "ecs", "echo one; exec sleep 60")
    logs_once_there(executor, ti)
    local.faults.add(Fault(kind="missing", operation="DescribeTasks"))
    deadline = time.monotonic() + 20
    while "not known to the service" not in (messages := executor.get_task_log(ti, 1)[0])[0]:
        assert time.monotonic() < deadline, messages
    assert executor.get_task_log(ti, 1)[1] == ["one"]


@SERVICES
def test_viewers_of_a_task_whose_log_hangs_are_answered(
    local: Any, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.local import Fault

    executor, ti = start(local, service, "echo one; exec sleep 60")
    logs_once_there(executor, ti)
    monkeypatch.setattr(task_log, "TASK_LOG_TIMEOUT", 1.0)
    monkeypatch.setattr(task_log, "KEPT_FOR", 0.0)
    local.faults.add(Fault(kind="hang", operation="GetLogEvents", seconds=30))
    threads_before = set(threading.enumerate())
    deadline = time.monotonic() + 20
    while len(messages := executor.get_task_log(ti, 1)[0]) == 1:
        assert time.monotonic() < deadline
    assert messages[1] == "The log of the container could not be read: no answer within 1 s"
    asked = local.statistics.operation("GetLogEvents").calls
    with ThreadPoolExecutor(50) as threads:
        found = list(threads.map(lambda _: executor.get_task_log(ti, 1)[0], range(50)))
    assert found == [messages] * 50
    assert local.statistics.operation("GetLogEvents").calls == asked  # they were told what is known
    assert len(set(threading.enumerate()) - threads_before) <= 1


# --- airflow ecs-async -------------------------------------------------------------------------------------------


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

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        return [self.scope_of(handle_id)]

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


@pytest.fixture
def looking_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Observation | Exception | None], AsyncEcsExecutor]:
    def make(answer: Observation | Exception | None) -> AsyncEcsExecutor:
        backend = Backend(answer)
        monkeypatch.setattr(EcsAdapter, "make_backend", lambda _, **__: backend)
        return AsyncEcsExecutor()

    return make


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
    looking_at(RUNNING.observation)
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
@pytest.mark.usefixtures("configured")
def test_show_request_shows_what_a_hook_makes_of_the_workload_in_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Grouping(AsyncEcsExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            request = super()._run_task_kwargs(task_id, cmd, queue, exec_config)
            return {**request, "group": json.loads(cmd[-1])["ti"]["queue"]}

    monkeypatch.setattr(compat, "configured_executors", lambda: [Grouping])
    cli.show_request(with_arguments(queue="gpu"))
    shown = json.loads(capsys.readouterr().out)
    assert shown["group"] == "gpu"
    assert shown["overrides"]["containerOverrides"][0]["command"][-1] == "***"


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
        ({"taskRoleArn": "r"}, r"RunTask has no taskRoleArn; did you mean overrides\.taskRoleArn\?"),
        ({"memory": "1"}, r"memory = '1' would be 1 MiB: write \"1 GB\" or \"1 MB\""),
        ({"cpu": 3, "round_up": False}, r"cpu = 3 vCPU: Fargate has no such size; the nearest are 2 vCPU and 4"),
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


@pytest.mark.usefixtures("configured")
def test_show_request_says_the_size_and_its_price_beside_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME", "us-east-1")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE", "FARGATE")
    cli.show_request(with_arguments(executor_config={"cpu": 1, "memory": "3500 MB"}))
    out, err = capsys.readouterr()
    overrides = json.loads(out)["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == ("1024", "4096")
    assert err.splitlines()[0] == "Size of the task: 1 vCPU, 4 GB."
    assert "An hour costs $0.0583 on x86, $0.0466 on ARM: list prices of August 2026, us-east-1" in err


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
