"""The status endpoint, of a bridge on a real loop thread: what it shows, and that nothing depends on it."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine import status, status_server
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.status import FILTERS, Endpoint
from ecs_async_executor.services.redaction import redacted
from tests.engine.bridged import DEADLY, Scheduler, a_launch, die, render
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import EXPIRED, NO_MEMORY, failing


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


ENDPOINT = Endpoint(
    host="127.0.0.1",
    port=0,
    setting="[ecs_async_executor] status_port",
    identity={"executor": "ECS", "team": None},
    fields=lambda launch: {"dag_id": "dag", "task_id": launch.label},
    redacted=redacted,
)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def shown(cloud: FakeCloud, port: int) -> Iterator[Scheduler]:
    """Make a scheduler that shows its status, and is ended after the test."""
    scheduler = Scheduler(cloud, endpoint=replace(ENDPOINT, port=port))
    scheduler.bridge.start()
    scheduler.until(lambda: listens(port))
    yield scheduler
    scheduler.bridge.stop(5, stop_containers=False, reason="")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True


def ask(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(body) if answer.getheader("Content-Type", "").startswith(
        "application/json"
    ) else body


def document(port: int, state: str = "") -> Any:
    code, answer = ask(port, f"/status?state={state}" if state else "/status")
    assert code == 200
    return answer


def by_name(answer: Any) -> dict[str, Any]:
    return {launch["task_id"]: launch for launch in answer["launches"]}


def test_it_shows_who_it_is_its_figures_and_its_launches(cloud: FakeCloud, shown: Scheduler, port: int) -> None:
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    shown.bridge.submit(a_launch("runs"))
    shown.until(lambda: by_name(document(port)).get("runs", {}).get("phase") == "running")
    shown.until(lambda: document(port)["statistics"]["active"] == 1)
    answer = document(port)
    assert answer["executor"] == "ECS"
    assert answer["paused"] is None
    assert answer["statistics"]["launches"] == 1
    assert answer["gates"] == []
    assert {(rate["operation"], rate["bucket"]) for rate in answer["rates"]} == {
        ("launch", "FARGATE"),
        ("stop", ""),
        ("read", ""),
    }
    (launch,) = answer["launches"]
    assert launch["dag_id"] == "dag"
    assert launch["state"] == "active"
    assert launch["handle_id"]
    assert answer["launch_count"] == 1


def test_the_page_describes_every_field_and_every_state(cloud: FakeCloud, shown: Scheduler, port: int) -> None:
    page = (Path(__file__).parents[2] / "docs" / "status.md").read_text()
    cloud.fault = failing("launch", NO_MEMORY)
    shown.bridge.submit(a_launch("waits"))
    shown.until(lambda: document(port)["gates"])
    answer = document(port)
    launch = {name for one in answer["launches"] for name in one}
    named = {*answer, *launch, *(name for one in answer["gates"] + answer["rates"] for name in one), *FILTERS}
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_a_closed_gate_says_why_since_when_and_how_many_wait(
    cloud: FakeCloud, shown: Scheduler, port: int
) -> None:
    cloud.fault = failing(
        "launch", BackendError(Kind.CAPACITY, "RESOURCE:CPU", "no room for eyJhbGciOi.eyJzdWIi.x")
    )
    for n in range(3):
        shown.bridge.submit(a_launch(f"w{n}"))
    shown.until(lambda: [gate["waiting"] for gate in document(port)["gates"]] == [3])
    answer = document(port)
    (gate,) = answer["gates"]
    assert gate["placement"] == "main"
    assert gate["kind"] == "capacity"
    assert "no room for ***" in gate["reason"]
    assert gate["since"].startswith("20")
    waiting = by_name(answer)["w0"]
    assert waiting["state"] == "pending"
    assert waiting["reason"] == gate["reason"]
    assert "eyJ" not in json.dumps(answer)


def test_each_rate_says_what_was_sent_and_refused_of_late(cloud: FakeCloud, shown: Scheduler, port: int) -> None:
    cloud.fault = failing("launch", BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded"), times=1)
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    shown.bridge.submit(a_launch("slow"))
    shown.until(lambda: document(port)["statistics"]["active"])
    rates = {rate["operation"]: rate for rate in document(port)["rates"]}
    launch = rates["launch"]
    assert (launch["bucket"], launch["begins_at"]) == ("FARGATE", 900.0)
    assert (launch["calls"], launch["refused"], launch["throttles"]) == (2, 1, 1)
    assert launch["sent_when_refused"] == 1
    assert launch["refused_since"] == launch["refused_at"]
    assert launch["refused_at"].startswith("20")
    assert rates["read"]["calls"] >= 1
    assert (rates["stop"]["calls"], rates["stop"]["refused_since"]) == (0, None)


def test_launches_can_be_asked_for_by_state(cloud: FakeCloud, shown: Scheduler, port: int) -> None:
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    shown.bridge.submit(a_launch("runs"))
    shown.until(lambda: set(by_name(document(port, "running"))) == {"runs"})
    cloud.fault = failing("launch", NO_MEMORY)
    shown.bridge.submit(a_launch("waits"))
    shown.until(lambda: set(by_name(document(port, "pending"))) == {"waits"})
    assert set(by_name(document(port, "active"))) == {"runs"}
    code, answer = ask(port, "/status?state=nonsense")
    assert code == 400
    assert "in_doubt" in answer["error"]


def test_no_more_launches_are_shown_than_a_page_can_take(
    cloud: FakeCloud, shown: Scheduler, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "LAUNCHES_SHOWN", 150)
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    for n in range(200):
        shown.bridge.submit(a_launch(f"w{n}"))
    shown.until(lambda: document(port)["launch_count"] == 200)
    assert len(document(port)["launches"]) == 150


def test_what_pauses_everything_is_said_and_the_loop_is_healthy_all_the_same(
    cloud: FakeCloud, shown: Scheduler, port: int
) -> None:
    cloud.fault = failing("launch", EXPIRED)
    shown.bridge.submit(a_launch("a"))
    shown.until(lambda: document(port)["paused"])
    code, health = ask(port, "/health")
    assert code == 200
    assert health["status"] == "ok"
    assert "expired" in health["paused"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed_through_it(shown: Scheduler, port: int, method: str) -> None:
    assert ask(port, "/status", method)[0] == 405
    assert ask(port, "/launches", method)[0] == 404


def test_a_port_in_use_is_said_once_and_is_no_failure(cloud: FakeCloud, port: int, quick: None) -> None:
    with socket.socket() as other, capture_logs() as logs:
        other.bind(("127.0.0.1", port))
        other.listen()
        scheduler = Scheduler(cloud, endpoint=replace(ENDPOINT, port=port))
        scheduler.bridge.start()
        scheduler.until(lambda: logged(logs, "status.unavailable"))
        scheduler.bridge.submit(a_launch("a"))
        scheduler.until(scheduler.outcomes)
        time.sleep(0.2)  # several tries
        other.close()
        scheduler.until(lambda: logged(logs, "status.listening"))
        assert document(port)["executor"] == "ECS"
        assert scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert scheduler.outcomes() == {"a": True}
    (entry,) = logged(logs, "status.unavailable")
    assert entry["setting"] == f"[ecs_async_executor] status_port = {port}"
    assert "in use" in entry["reason"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(status_server, "CONNECTION_SECONDS", 0.2)


def logged(logs: list[Any], what: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == f"ecs_executor.{what}"]


@pytest.mark.parametrize("sent", [b"", b"GET /sta", b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_client_that_hangs_is_cut_off_and_delays_nobody(
    cloud: FakeCloud, port: int, quick: None, sent: bytes
) -> None:
    scheduler = Scheduler(cloud, endpoint=replace(ENDPOINT, port=port))
    scheduler.bridge.start()
    scheduler.until(lambda: listens(port))
    with socket.create_connection(("127.0.0.1", port), 5) as hanging:
        hanging.sendall(sent)
        scheduler.bridge.submit(a_launch("a"))
        scheduler.until(scheduler.outcomes)
        assert document(port)["executor"] == "ECS"
        hanging.settimeout(5)
        while True:  # ends by end of file or by a reset; a hanging connection would time out
            try:
                if not hanging.recv(65536):
                    break
            except ConnectionResetError:
                break
    began = time.monotonic()
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert time.monotonic() - began < 3


def test_a_client_that_hangs_does_not_delay_the_end(cloud: FakeCloud, shown: Scheduler, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as hanging:
        hanging.sendall(b"GET /status HTTP/1.1\r\n")
        began = time.monotonic()
        assert shown.bridge.stop(5, stop_containers=False, reason="")
        assert time.monotonic() - began < 3
    assert not listens(port)


def test_of_too_many_clients_the_latest_are_refused(shown: Scheduler, port: int) -> None:
    most = (
        status_server.CONNECTIONS_MAX + status_server.BACKLOG + 1
    )  # those of one look at the backlog count later
    with ExitStack() as stack:
        clients = []
        for _ in range(most + 10):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            clients.append(client)
            client.setblocking(False)
        shown.until(lambda: sum(map(is_open, clients)) <= most)
        assert sum(map(is_open, clients)) >= status_server.CONNECTIONS_MAX
    shown.until(lambda: answers(port))


def is_open(client: socket.socket) -> bool:
    try:
        client.recv(1)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


def answers(port: int) -> bool:
    try:
        return ask(port, "/health")[0] == 200
    except OSError:
        return False


def test_a_child_that_outlives_the_scheduler_does_not_keep_the_port(shown: Scheduler, port: int) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent closes its end, or is gone
        os._exit(0)
    try:
        assert document(port)["executor"] == "ECS"
        assert shown.bridge.stop(5, stop_containers=False, reason="")
        assert not listens(port)
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["header", "long", "ambiguous", "tls"],
)
def test_what_is_no_http_is_answered_and_not_logged(
    shown: Scheduler, port: int, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(sent)
        assert b" 400 " in client.recv(65536)
    assert ask(port, "/health")[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@DEADLY
def test_a_replaced_loop_thread_opens_the_port_again(
    cloud: FakeCloud, shown: Scheduler, port: int, quick_restarts: None
) -> None:
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    shown.bridge.submit(a_launch("runs"))
    shown.until(lambda: set(by_name(document(port, "active"))) == {"runs"})
    thread = shown.bridge.loop_thread.thread
    assert thread is not None
    shown.bridge.loop_thread.tell(die)
    thread.join(5)
    assert not thread.is_alive()
    shown.until(lambda: shown.bridge.statistics().restarts == 1 and listens(port))
    answer = document(port)
    assert answer["statistics"]["restarts"] == 1
    assert set(by_name(answer)) == {"runs"}


def test_a_bug_in_the_status_is_an_error_for_the_client_alone(
    cloud: FakeCloud, shown: Scheduler, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(status, "shown", fail)
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=0.5)
    shown.bridge.submit(a_launch("a"))
    shown.until(lambda: ask(port, "/status")[0] == 500)
    shown.until(shown.outcomes)
    assert ask(port, "/status")[0] == 200
    assert shown.bridge.statistics().restarts == 0


def test_a_bug_in_the_lane_restarts_the_lane_alone(
    cloud: FakeCloud, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecs_async_executor.engine.engine.LANE_RESTART_DELAY", 0.05)
    real, failures = status_server.StatusServer._listen, iter([RuntimeError("a bug")])

    async def listen(self: Any, *arguments: Any) -> None:
        for failure in failures:
            raise failure
        await real(self, *arguments)

    monkeypatch.setattr(status_server.StatusServer, "_listen", listen)
    scheduler = Scheduler(cloud, endpoint=replace(ENDPOINT, port=port))
    with capture_logs() as logs:
        scheduler.bridge.start()
        scheduler.until(lambda: listens(port))
    assert next(failures, None) is None
    assert [entry["lane"] for entry in logged(logs, "engine.lane_failed")] == ["status"]
    assert scheduler.bridge.statistics().restarts == 0
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")


def test_without_an_endpoint_there_is_no_lane_for_it(cloud: FakeCloud, scheduler: Scheduler) -> None:
    served: list[Engine] = []
    scheduler.bridge.start()
    scheduler.until(scheduler.works)
    scheduler.bridge.loop_thread.tell(served.append)
    scheduler.until(lambda: served)
    assert served[0]._endpoint is None


def test_a_command_is_never_shown(cloud: FakeCloud, port: int) -> None:
    def with_secret(launch: Launch) -> LaunchSpec:
        return replace(render(launch), request={"label": launch.label, "command": "a secret"})

    scheduler = Scheduler(cloud, endpoint=replace(ENDPOINT, port=port), render=with_secret)
    cloud.plan = lambda label, nth: Plan(start_after=0.0, duration=60.0)
    scheduler.bridge.start()
    launch = a_launch("a").evolve(workload={"token": "a secret"})
    scheduler.bridge.submit(launch)
    scheduler.until(lambda: listens(port) and by_name(document(port, "active")))
    assert "a secret" not in json.dumps(document(port))
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")
