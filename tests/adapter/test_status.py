"""Executors' status, read from outside: over HTTP, from the database, and by ``airflow ecs-async status``."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from airflow.jobs.job import Job as AirflowJob
from airflow.models.log import Log
from sqlalchemy import text

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands import status as status_command
from ecs_async_executor.adapter.in_database import latest_reasons, work_of
from ecs_async_executor.adapter.status import StatusUnreadable, read_status, statuses
from ecs_async_executor.local import LocalEcs
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import make_workload, queue

Job: Any = AirflowJob
ECS, BATCH = "ecs_async_executor.AsyncEcsExecutor", "ecs_async_executor.AsyncBatchExecutor"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Configure these executors, each a class with a team or without."""

    def configure(*executors: type[Any] | tuple[str, type[Any]]) -> None:
        from airflow.executors.executor_utils import ExecutorName

        named = []
        for one in executors:
            team, cls = one if isinstance(one, tuple) else (None, one)
            name: Any = ExecutorName(module_path=f"ecs_async_executor.{cls.__name__}", alias=None)
            name.team_name = team
            named.append((name, cls))
        monkeypatch.setattr(compat, "_configured", lambda: named)
        monkeypatch.setattr(compat, "executor_names", lambda: [name for name, _ in named])

    return configure


@pytest.fixture
def scheduler(database: Metadata) -> Callable[..., int]:
    """Enter a running scheduler into the database; return the number of its job."""

    def enter(hostname: str | None = None, age: float = 0.0) -> int:
        with database.session() as session:
            job = Job(job_type="SchedulerJob", state="running")
            job.hostname = hostname or compat.hostname()
            job.latest_heartbeat = datetime.now(tz=timezone.utc) - timedelta(seconds=age)
            session.add(job)
            session.flush()
            return int(job.id)

    return enter


def beat_until(executor: Any, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        executor.heartbeat()
        time.sleep(0.02)


def works(port: int) -> bool:
    try:
        read_status("127.0.0.1", port)
    except StatusUnreadable:
        return False
    return True


# --- over HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "service"), [(AsyncEcsExecutor, "ECS"), (AsyncBatchExecutor, "Batch")])
def test_the_status_of_a_running_executor_is_found_by_the_table_of_jobs(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
    cls: type[Any],
    service: str,
) -> None:
    port = free_port()
    monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__STATUS_PORT", str(port))
    local_ecs(script=[{"duration": 60.0}])
    configured(cls)
    job_id = scheduler(age=3.0)
    executor = started(partial(_of_job, cls, job_id))
    workload = make_workload("t", map_index=3, try_number=2)
    queue(executor, workload)
    beat_until(executor, lambda: works(port))
    beat_until(executor, lambda: read_status("127.0.0.1", port, state="active")["launches"])

    with database.session() as session:
        (seen,) = statuses(session)

    assert seen.problem is None
    assert (seen.executor, seen.team, seen.job_id, seen.hostname) == (service, None, job_id, compat.hostname())
    assert 3 <= seen.heartbeat_age < 60
    assert seen.status is not None
    assert seen.status["class"] == f"ecs_async_executor.{cls.__name__}"
    (launch,) = seen.status["launches"]
    names = ("dag_id", "run_id", "task_id", "map_index", "try_number")
    assert [launch[name] for name in names] == ["dag", "run", "t", 3, 2]
    assert launch["handle_id"]
    assert "eyJ" not in json.dumps(seen.status)
    executor.end()
    assert not works(port)


@pytest.mark.parametrize("age", [0.0, 60.0])
def test_a_killed_scheduler_whose_successor_has_its_port_is_not_shown(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
    age: float,
) -> None:
    port = free_port()
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", str(port))
    local_ecs()
    configured(AsyncEcsExecutor)
    killed, job_id = scheduler(age=age), scheduler()
    executor = started(partial(_of_job, AsyncEcsExecutor, job_id))
    beat_until(executor, lambda: works(port))

    with database.session() as session:
        seen = {one.job_id: one.problem or "" for one in statuses(session)}

    assert seen.pop(job_id) == ""
    if age:
        assert seen == {}
    else:  # it has just sent a heartbeat, so it runs: two schedulers have one port
        assert "shows another executor" in seen[killed]


@pytest.mark.parametrize(("age", "says"), [(0.0, False), (300.0, True)])
def test_a_scheduler_without_an_answer_or_a_heartbeat_is_said_to_be_down(
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
    age: float,
    says: bool,
) -> None:
    port = free_port()
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", str(port))
    configured(AsyncEcsExecutor)
    scheduler(age=age)

    with database.session() as session:
        (seen,) = statuses(session)

    assert seen.problem is not None
    assert f"nothing listens on 127.0.0.1:{port}" in seen.problem
    assert seen.problem.startswith("the scheduler is down or hangs: it has sent no heartbeat for 30") == says


def test_two_teams_have_a_port_each(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local_ecs()
    ports = {team: free_port() for team in ("BLUE", "RED")}
    for team, port in ports.items():
        for name, value in (
            ("AWS_ECS_EXECUTOR__CLUSTER", "main"),
            ("AWS_ECS_EXECUTOR__CONTAINER_NAME", "airflow"),
            ("AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:1"),
            ("AWS_ECS_EXECUTOR__SUBNETS", "s"),
            ("AWS_ECS_EXECUTOR__REGION_NAME", "eu-west-1"),
            ("AWS_ECS_EXECUTOR__CONN_ID", ""),
            ("AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "False"),
            ("ECS_ASYNC_EXECUTOR__STATUS_PORT", str(port)),
        ):
            monkeypatch.setenv(f"AIRFLOW__{team}___{name}", value)
    configured(("blue", AsyncEcsExecutor), ("red", AsyncEcsExecutor))
    job_id = scheduler()
    for team in ("blue", "red"):
        executor = started(partial(_of_job, AsyncEcsExecutor, job_id, team_name=team))
        beat_until(executor, partial(works, ports[team.upper()]))
    with database.session() as session:
        seen = {one.team: one for one in statuses(session)}
    assert {team: one.problem for team, one in seen.items()} == {"blue": None, "red": None}
    assert all(one.status is not None and one.status["team"] == team for team, one in seen.items())

    monkeypatch.setenv("AIRFLOW__RED___ECS_ASYNC_EXECUTOR__STATUS_PORT", str(ports["BLUE"]))
    with database.session() as session:
        seen = {one.team: one for one in statuses(session)}
    assert seen["blue"].problem is None
    assert "shows another executor" in (seen["red"].problem or "")
    assert "[red=ecs_async_executor] status_port" in (seen["red"].problem or "")


def _of_job(cls: type[Any], job_id: int, **arguments: Any) -> Any:
    executor = cls(**arguments)
    executor.job_id = job_id
    return executor


def test_without_a_port_it_is_said_how_to_set_one(
    configured: Callable[..., None], scheduler: Callable[..., int], database: Metadata
) -> None:
    configured(AsyncEcsExecutor)
    scheduler()
    with database.session() as session:
        (seen,) = statuses(session)
    assert seen.status is None
    assert "[ecs_async_executor] status_port is not set: set it to a free port" in (seen.problem or "")


def test_a_port_for_the_schedulers_own_machine_cannot_be_read_from_another(
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", "1")
    configured(AsyncEcsExecutor)
    scheduler("elsewhere")
    with database.session() as session:
        (seen,) = statuses(session)
    assert "(elsewhere) only: set status_host = 0.0.0.0" in (seen.problem or "")


def test_settings_that_cannot_be_used_here_are_the_problem_of_their_executor_alone(
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", "many")
    configured(AsyncEcsExecutor, AsyncBatchExecutor)
    scheduler()
    with database.session() as session:
        ecs, batch = statuses(session)
    assert "status_port = 'many' is not valid" in (ecs.problem or "")
    assert "[batch_async_executor] status_port is not set" in (batch.problem or "")


@contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_program_of_another_kind_is_told_apart() -> None:
    def hello(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<html>hello</html>")

    with serving(hello) as port, pytest.raises(StatusUnreadable, match="is no executor's status: HTTP 200"):
        read_status("127.0.0.1", port)


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_the_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(StatusUnreadable, match=r"no answer from .* within 0\.2 s"):
            read_status("127.0.0.1", silent.getsockname()[1], timeout=0.2)
        assert time.monotonic() - began < 60, "it would never end"


def test_a_server_that_dribbles_is_not_waited_for_longer_than_the_timeout() -> None:
    over = threading.Event()

    def dribble(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        with suppress(OSError):
            while not over.wait(0.05):
                request.wfile.write(b"{")

    with serving(dribble) as port:
        began = time.monotonic()
        with pytest.raises(StatusUnreadable, match="no answer"):
            read_status("127.0.0.1", port, timeout=0.3)
        seconds = time.monotonic() - began
        over.set()
        assert seconds < 60, "it would never end"


def test_where_nothing_listens_the_reasons_are_named() -> None:
    with pytest.raises(StatusUnreadable, match=r"nothing listens .* started without status_port"):
        read_status("127.0.0.1", free_port())


# --- from the database -----------------------------------------------------------------------------------------


def test_the_database_counts_what_is_queued_and_runs_by_executor(
    configured: Callable[..., None], database: Metadata
) -> None:
    configured(AsyncEcsExecutor, AsyncBatchExecutor)
    database.orphan("queued", "queued", "running", "queued", "running", "running", "success")
    old = datetime.now(tz=timezone.utc) - timedelta(hours=3)
    with database.session() as session:
        tis = database.tis(session)
        tis[0].queued_dttm = old
        tis[1].executor = ECS
        tis[3].executor = tis[4].executor = BATCH
        tis[5].executor = "LocalExecutor"
    with database.session() as session:
        ecs, batch = work_of(session)
    assert (ecs.executor, ecs.queued, ecs.running, ecs.oldest_queued_at) == ("ECS", 2, 1, old)
    assert (batch.executor, batch.queued, batch.running) == ("Batch", 1, 1)


def test_the_latest_reasons_come_first_and_show_no_jwt(
    configured: Callable[..., None], database: Metadata
) -> None:
    configured(AsyncEcsExecutor)
    with database.session() as session:
        for n, event in enumerate(
            ["container waits", "trigger", "ecs container failure", "batch container failure"]
        ):
            session.add(
                Log(
                    event=event,
                    extra=f"{n} eyJhbGciOi.eyJzdWIi.x",
                    dag_id="d",
                    task_id="t",
                    run_id="r",
                    map_index=-1,
                )
            )
            session.flush()
    with database.session() as session:
        reasons = latest_reasons(session)
    assert [(reason.event, reason.text) for reason in reasons] == [
        ("ecs container failure", "2 ***"),
        ("container waits", "0 ***"),
    ]


# --- airflow ecs-async status -----------------------------------------------------------------------------------


@pytest.fixture
def command(database: Metadata, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command; return what it prints."""
    monkeypatch.setattr(status_command, "create_session", lambda scoped: database.session())

    def run(output: str = "table") -> str:
        cli.status(Namespace(output=output))
        return capsys.readouterr().out

    return run


def test_the_command_shows_figures_gates_and_the_database(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    command: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", str(port))
    local_ecs(capacity={"FARGATE": 0})
    configured(AsyncEcsExecutor)
    job_id = scheduler()
    executor = started(partial(_of_job, AsyncEcsExecutor, job_id))
    queue(executor, make_workload("waits"))
    beat_until(executor, lambda: works(port))
    beat_until(executor, lambda: read_status("127.0.0.1", port)["gates"])
    beat_until(executor, lambda: read_status("127.0.0.1", port)["statistics"]["pending"])

    table = command()

    assert "works" in table
    assert "1 wait (capacity) since 20" in table
    assert "ECS, in Airflow's database: 0 queued, 0 running." in table
    (whole,) = json.loads(command("json"))
    assert whole["scheduler"] == compat.hostname()
    assert whole["gates"][0]["kind"] == "capacity"
    assert whole["statistics"]["pending"] == "1"  # Airflow's console makes every value text
    assert command("yaml").startswith("- class: ecs_async_executor.AsyncEcsExecutor")
    assert "ECS" in command("plain").splitlines()[1]


def test_the_command_says_why_no_events_come(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    command: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, server = free_port(), local_ecs()
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__STATUS_PORT", str(port))
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EVENTS_QUEUE_URL", f"{server.url}/123456789012/gone")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    configured(AsyncEcsExecutor)
    executor = started(partial(_of_job, AsyncEcsExecutor, scheduler()))
    beat_until(executor, lambda: works(port))
    beat_until(executor, lambda: [one for one in read_status("127.0.0.1", port)["events"] if one["trouble"]])
    (line,) = [line for line in command().splitlines() if "no events: " in line]
    assert "does not exist" in line


def test_without_a_port_the_command_shows_what_the_database_knows(
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    command: Callable[..., str],
    database: Metadata,
) -> None:
    configured(AsyncEcsExecutor)
    scheduler()
    scheduler("other")
    database.orphan("queued", "running")
    with database.session() as session:
        session.add(
            Log(event="container waits", extra="no room", dag_id="d", task_id="t", run_id="r", map_index=2)
        )
    shown = command()
    assert shown.count("status_port is not set") == 1  # one cause, one line
    assert "1 queued (the oldest for 0 s), 1 running." in shown
    assert "d r t [2]: container waits: no room" in shown


def test_without_a_scheduler_the_command_says_so(
    configured: Callable[..., None], command: Callable[..., str]
) -> None:
    configured(AsyncBatchExecutor)
    assert "Batch: no scheduler runs." in command()


def test_a_database_that_cannot_be_read_is_a_line(
    configured: Callable[..., None], command: Callable[..., str], database: Metadata
) -> None:
    configured(AsyncEcsExecutor)
    with database.session() as session:
        session.execute(text("DROP TABLE log"))
    with pytest.raises(
        SystemExit, match=r"Airflow's database cannot be read: OperationalError: .*no such table: log"
    ):
        command()


def test_without_an_executor_of_ours_the_command_names_them(
    configured: Callable[..., None], command: Callable[..., str]
) -> None:
    configured()
    with pytest.raises(SystemExit, match="names no executor of this package: they are ecs_async_executor"):
        command()
