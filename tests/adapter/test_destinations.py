"""An executor whose queues go to other Regions and accounts, and commands about the containers there."""

from __future__ import annotations

import json
import socket
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")
pytest.importorskip("airflow.providers.amazon", reason="needs the extra 'amazon'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.ui.containers import look_at
from ecs_async_executor.local import Fault, LocalEcs
from tests.adapter.scripted import make_workload, queue
from tests.adapter.steering import LOGGED, Place, ago
from tests.adapter.test_on_local_ecs import beat_until, over

pytestmark = pytest.mark.slow

HERE, THERE, OTHER = "us-east-1", "eu-west-1", "999988887777"
ROLE = f"arn:aws:iam::{OTHER}:role/airflow"
SERVICES = ("ecs", "batch")
QUEUES = {
    "eu": {"region_name": THERE},
    "other": {"role_arn": ROLE},
    "refused": {"conn_id": "aws_refused"},
    "hanging": {"conn_id": "aws_hanging"},
    "untrusted": {"conn_id": "aws_untrusted"},
}
DOWN = ("refused", "hanging", "untrusted")
FOREVER: dict[str, Any] = {"runner": "scripted", "script": [{"duration": None}]}
Open = Callable[..., Place]
Shown = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def rules(settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send queues elsewhere; two of them where nobody answers."""
    for section in ("ECS", "BATCH"):
        monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__QUEUES", json.dumps(QUEUES))
        # Long enough for an answer of the local AWS on a busy machine.
        monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__CONNECT_TIMEOUT", "2")
        monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__READ_TIMEOUT", "4")
    with closing(socket.create_server(("127.0.0.1", 0))) as hanging:
        with closing(socket.create_server(("127.0.0.1", 0))) as refusing:
            ports = {"hanging": hanging.getsockname()[1], "refused": refusing.getsockname()[1]}
        for name, port in ports.items():
            extra = {"region_name": "sa-east-1", "endpoint_url": f"http://127.0.0.1:{port}"}
            connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
            monkeypatch.setenv(f"AIRFLOW_CONN_AWS_{name.upper()}", json.dumps(connection))
        untrusted = {"conn_type": "aws", "extra": {"region_name": "sa-east-1", "verify": "/no/such/ca.pem"}}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_UNTRUSTED", json.dumps(untrusted))
        yield


def furnish(local: LocalEcs, monkeypatch: pytest.MonkeyPatch) -> LocalEcs:
    """Let a local service have what the settings name in every place."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", local.url)
    for place in (local.place(THERE), local.place(account=OTHER)):
        if place.account == OTHER:
            local.client("sts", account=OTHER).get_caller_identity()
            local.create_cluster("main", place=place)
        for _ in range(2):
            local.register("family", "airflow", logConfiguration=LOGGED, place=place)
    return local


# --- the executor ------------------------------------------------------------------------------------------------


def test_queues_run_in_their_own_region_and_account_while_others_are_down(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = furnish(local_ecs(regions=[THERE], script=[{"duration": 0.2}]), monkeypatch)
    executor = started()
    begun = time.monotonic()
    queue(
        executor,
        *(make_workload(f"stays-{name}-{n}", queue=name) for name in DOWN for n in range(3)),
    )
    queue(
        executor,
        *(make_workload(f"{name}-{n}", queue=name) for name in ("default", "eu", "other") for n in range(5)),
    )

    events = beat_until(executor, over(15))

    assert {str(of_one[-1][0]) for of_one in events.values()} == {"success"}
    assert not [name for name in events if name.startswith("stays")]
    assert time.monotonic() - begun < 30
    places = {(entry.region, entry.account) for entry in local.ledger.entries()}
    assert places == {(HERE, local.account), (THERE, local.account), (HERE, OTHER)}
    assert len(local.ledger) == 15


def test_credentials_that_one_destination_refuses_are_good_for_the_others(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = furnish(local_ecs(regions=[THERE], script=[{"duration": 0.2}]), monkeypatch)
    local.faults.add(Fault(kind="expired_token", region=THERE))
    executor = started()
    queue(executor, *(make_workload(f"eu-{n}", queue="eu") for n in range(3)))
    queue(executor, *(make_workload(f"home-{n}") for n in range(5)))
    events = beat_until(executor, over(5))
    assert {name.partition("-")[0] for name in events} == {"home"}
    assert len(executor.running) == 3


# --- what people look at -----------------------------------------------------------------------------------------


@pytest.fixture
def at(place: Open, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    """Open a service with several places."""
    found = place(request.param, regions=[THERE], **FOREVER)
    furnish(found.local, monkeypatch)
    if request.param == "batch":
        # Another account's job queues are not there, and no Batch of its own is needed for these tests.
        queues = {name: QUEUES[name] for name in ("eu", *DOWN)}
        monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    return found


both = pytest.mark.parametrize("at", SERVICES, indirect=True)


@both
def test_list_names_the_destination_of_each_container(at: Place, capsys: Shown) -> None:
    home, there = at.runs(0), at.runs(1, queue="eu")
    at.until_running(home)
    at.until_running(there)
    at.call("list", "-o", "json")
    found = {row["container"]: row for row in json.loads(capsys.readouterr().out)}
    assert {one: row["status"] for one, row in found.items()} == {home: "RUNNING", there: "RUNNING"}
    assert [found[one]["destination"] for one in (home, there)] == ["", THERE]
    at.call("list")
    shown = capsys.readouterr().out
    assert "destination" in shown
    assert THERE in shown


@both
def test_describe_and_logs_find_a_container_whatever_its_queue_is_called(at: Place, capsys: Shown) -> None:
    there = at.runs(0, queue="eu")
    at.until_running(there)
    at.set(0, state="running", queue="renamed", external_executor_id=there)
    for target in (at.target(0), [there]):
        at.call("describe", *target, "-o", "json")
        [record] = json.loads(capsys.readouterr().out)
        assert (record["destination"], record["region"], record["status"]) == (THERE, THERE, "RUNNING")
        assert f"{THERE}.console.aws" in record["console_url"]


@both
def test_stop_reaches_a_container_elsewhere_and_only_that(at: Place, capsys: Shown) -> None:
    home, there = at.runs(0), at.runs(1, queue="eu")
    at.until_running(home)
    at.until_running(there)
    at.call("stop", *at.target(1), "-y")
    assert capsys.readouterr().out.endswith("told to stop.\n")
    at.until(there, "STOPPED", "FAILED")
    assert at.status(home) == "RUNNING"


@both
def test_orphans_are_found_and_stopped_everywhere_but_where_nobody_answers(
    at: Place, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = at.runs(0, state="failed", queue="eu", end_date=ago(30), updated_at=ago(30))
    at.until_running(lost)
    at.minutes_later(monkeypatch, 20)
    with pytest.raises(SystemExit) as ended:
        at.call("orphans", "--stop", "-y")
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert f"{lost}: told to stop." in shown.out
    assert f" in {THERE}" in shown.out
    for name in DOWN:
        assert f" in aws_{name} could not be read" in shown.err
    at.until(lost, "STOPPED", "FAILED")


def test_places_are_those_that_queues_and_placements_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = {
        "eu": {"region_name": THERE, "cluster": "eu"},
        "gpu": {"cluster": "gpu", "placements": ["here", "far"]},
    }
    placements = {
        "here": {"cluster": "other"},
        "far": {"role_arn": ROLE},
        "alone": {"region_name": "sa-east-1"},
    }
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__PLACEMENTS", json.dumps(placements))
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME", HERE)
    adapter = AsyncEcsExecutor().adapter
    assert adapter.make_console().scopes == [
        *("main", "other", "gpu"),
        f"{THERE}|eu",
        *(f"{ROLE}|main", f"{ROLE}|gpu"),
        "sa-east-1|main",
    ]
    unknown = f"arn:aws:ecs:{THERE}:{OTHER}:task/eu/1"
    assert adapter.make_backend().scopes_of(unknown) == [f"{THERE}|eu"]


@both
def test_a_page_shows_a_container_elsewhere_while_a_destination_hangs(at: Place) -> None:
    there = at.runs(0, queue="eu")
    at.until_running(there)
    look = look_at(at.executor.adapter, there)
    assert look.problem == ""
    assert look.details is not None
    assert (look.details.destination, look.details.region) == (THERE, THERE)
    assert at.executor.adapter.console_url(there).startswith(f"https://{THERE}.console.aws")


def test_the_log_of_a_container_in_another_account_is_read_with_its_role(
    place: Open, monkeypatch: pytest.MonkeyPatch, capsys: Shown
) -> None:
    at = place("ecs", regions=[THERE])
    furnish(at.local, monkeypatch)
    there = at.runs(0, queue="other", command="echo hello from there; sleep 60")
    at.until_running(there)
    assert there.split(":")[4] == OTHER
    deadline = time.monotonic() + 60
    shown = ""
    while "hello from there" not in shown:
        assert time.monotonic() < deadline, shown
        at.call("logs", *at.target(0))
        shown = capsys.readouterr().out
    at.call("describe", *at.target(0), "-o", "json")
    [record] = json.loads(capsys.readouterr().out)
    assert record["destination"] == ROLE
    with pytest.raises(SystemExit, match="enableExecuteCommand"):
        at.call("exec", *at.target(0))


def test_the_request_of_a_queue_is_shown_with_its_destination(capsys: Shown) -> None:
    of = {"team": None, "service": "ecs", "executor_config": None}
    cli.show_request(Namespace(**of, queue="eu"))
    assert f"It goes to destination {THERE}." in capsys.readouterr().err
    cli.show_request(Namespace(**of, queue=None))
    assert "destination" not in capsys.readouterr().err


# --- check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_check_tries_each_destination_and_has_one_line_for_each_that_is_down(
    local_ecs: Callable[..., LocalEcs], monkeypatch: pytest.MonkeyPatch, capsys: Shown, service: str
) -> None:
    cls = AsyncBatchExecutor if service == "batch" else AsyncEcsExecutor
    monkeypatch.setattr(compat, "configured_executors", lambda: [cls])
    monkeypatch.setattr(compat, "our_executors", lambda _: [])
    furnish(local_ecs(regions=[THERE]), monkeypatch)
    arguments = {"team": None, "service": service, "timeout": 15.0, "launch": False, "queue": None}
    with pytest.raises(SystemExit):
        cli.check(Namespace(**arguments, executor_config=None, strict=False, output="json"))
    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    bad = {name: one["text"] for name, one in findings.items() if one["verdict"] == "problem"}
    tried = "ListTasks, cluster 'main'" if service == "ecs" else "ListJobs, job queue 'default'"
    assert findings[tried]["verdict"] == "good"
    assert findings[f"{tried}, destination {THERE}"]["verdict"] == "good"
    for name in DOWN:
        assert len([one for one in bad if f"destination aws_{name}" in one]) == 1
        assert len([text for text in bad.values() if f"destination aws_{name}" in text]) == 1
    assert "verify of the connection = '/no/such/ca.pem'" in bad["Client, destination aws_untrusted"]
    assert findings["Connection 'aws_refused'"]["verdict"] == "good"
