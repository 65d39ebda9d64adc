"""The start of the whole executor over a socket: what can never work stops it, what may pass does not."""

from __future__ import annotations

import gc
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import LocalEcs
from tests.certificates import untrusted


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_ENDPOINT_URL_ECS", "localhost:4566", "AWS_ENDPOINT_URL_ECS = 'localhost:4566': Invalid endpoint"),
        ("AWS_ACCESS_KEY_ID", "local\n", "AWS_ACCESS_KEY_ID ends in a newline"),
        ("AWS_CA_BUNDLE", "/missing.pem", "AWS_CA_BUNDLE = '/missing.pem': .* No such file or directory"),
    ],
)
def test_a_setting_of_awss_with_which_nothing_can_be_sent_stops_the_start(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    local_ecs()
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    monkeypatch.setenv(variable, value)
    with pytest.raises(compat.AirflowException, match=f"ECS Executor health check has failed because: .*{words}"):
        started()


@pytest.mark.parametrize("sts", ["answers 503", "refuses the connection", "never answers"])
def test_a_source_of_credentials_that_gives_no_answer_stops_no_start(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    sts: str,
) -> None:
    local_ecs()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/airflow")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    # The check waits for their sum: long enough for the client to be made on a busy machine.
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__READ_TIMEOUT", "6")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__CONNECT_TIMEOUT", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.getsockname()[1]}")
        if sts == "refuses the connection":
            server.close()
        if sts == "answers 503":
            threading.Thread(target=_answer_503, args=(server,), daemon=True).start()
        with capture_logs() as logs:
            executor = started()
        [line] = [line for line in logs if line["event"] == "ecs_executor.health_check.inconclusive"]
        assert "credentials" in line["reason"]
        deadline = time.monotonic() + 60
        paused = None
        while not paused and time.monotonic() < deadline:
            time.sleep(0.01)
            paused = getattr(executor.statistics(), "paused", None)
        assert str(paused).startswith("AWS credentials: CredentialRetrievalError")
        assert executor.slots_available == 0


def test_a_certificate_that_is_not_trusted_stops_no_start_and_the_check_names_it(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Somebody may be renewing it; nothing is sent meanwhile."""
    local_ecs()
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    with untrusted(tmp_path) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", endpoint)
        with capture_logs() as logs:
            started()
        [line] = [line for line in logs if line["event"] == "ecs_executor.health_check.inconclusive"]
        of_task = {"launch": False, "queue": None, "executor_config": None}
        with pytest.raises(SystemExit) as ended:
            cli.check(Namespace(team=None, service="ecs", timeout=None, strict=False, output="text", **of_task))
    for said in (line["reason"], str(ended.value)):
        assert endpoint in said
        assert "certificate verify failed" in said
        assert "AWS_CA_BUNDLE" in said


def _answer_503(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_start_exempts_what_is_loaded_from_garbage_collection_unless_told_not_to(
    make_executor: Callable[..., object], monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__GC_FREEZE", str(wanted))
    frozen = gc.get_freeze_count()
    try:
        make_executor()
        assert (gc.get_freeze_count() > frozen + 1000) is wanted
    finally:
        gc.unfreeze()
