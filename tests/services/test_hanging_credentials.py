"""Credentials that never come: every call is bounded, says so, and leaves no more than one thread behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore import exceptions as boto

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import credentials
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.ecs import EcsBackend
from ecs_async_executor.settings import EcsSettings
from tests.services.server import answer, listening, served

HANGS = 600.0
"""Seconds for which nothing is said; only who waits for that exceeds a limit that no loaded machine does."""
LIMIT = 60.0

SETTINGS = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")
Hang = Callable[[pytest.MonkeyPatch, Path, int], None]


async def _say_nothing(reader: Any, _: Any) -> None:
    await reader.read()


def process(monkeypatch: pytest.MonkeyPatch, folder: Path, _: int) -> None:
    """A profile names a process that does not end until it is killed."""
    script = folder / "silent"
    script.write_text(f"#!/bin/sh\necho $$ > {folder / 'pid'}\nexec sleep {HANGS:g}\n")
    script.chmod(0o755)
    (folder / "config").write_text(f"[default]\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def web_identity(monkeypatch: pytest.MonkeyPatch, folder: Path, port: int) -> None:
    """A service account's role, and an STS that takes the connection and never answers."""
    (folder / "token").write_text("a.b.c")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/airflow")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


class SecretsBackend:
    """An Airflow connection whose secrets backend does not answer."""

    go = threading.Event()

    def __init__(self, **_: Any) -> None:
        self.go.wait(HANGS)
        raise LookupError


def connection(monkeypatch: pytest.MonkeyPatch, _: Path, __: int) -> None:
    monkeypatch.setattr(credentials, "_hook_class", lambda: SecretsBackend)


@pytest.fixture(autouse=True)
def no_keys(keys: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    yield
    SecretsBackend.go.set()
    if (pid := tmp_path / "pid").exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("hang", "words"),
    [
        (process, "no credentials within 0.3 s"),
        (web_identity, "Read timeout on endpoint URL|no credentials within 0.3 s"),
        (connection, "no answer of Airflow's about the connection 'aws_default' within 0.3 s"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_credentials_that_never_come_are_waited_for_no_longer_than_an_answer_of_awss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hang: Hang, words: str
) -> None:
    async def run() -> list[BackendError]:
        async with listening(_say_nothing) as port:
            hang(monkeypatch, tmp_path, port)
            errors = []
            for _ in range(4):
                backend = EcsBackend(ClientFactory(region_name=region, read_timeout=0.3), SETTINGS)
                with pytest.raises(BackendError, match=words) as caught:
                    async with backend.open():
                        await asyncio.gather(*(backend.check() for _ in range(20)))
                errors.append(caught.value)
            return errors

    region = f"eu-{hang.__name__.replace('_', '')}-1"  # the questions of another test are not this one's
    SecretsBackend.go.clear()
    begun, before = time.monotonic(), set(threading.enumerate())
    errors = asyncio.run(run())
    assert time.monotonic() - begun < LIMIT, "nobody waits until there is an answer"
    assert {(error.kind, error.unavailable) for error in errors} == {(Kind.CREDENTIALS, True)}
    assert len(set(threading.enumerate()) - before) <= 1


def test_a_process_that_takes_longer_than_anybody_waits_is_used_once_it_has_said_something(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = {"Version": 1, "AccessKeyId": "AKIDSLOW", "SecretAccessKey": "secret"}
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\nsleep 1\necho '{json.dumps(keys)}'\n")
    script.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    used: list[str] = []

    async def note(request: web.Request) -> web.Response:
        used.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
        return answer({"taskArns": []})

    async def run() -> None:
        refused = 0
        async with served(note) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            factory = ClientFactory(region_name="eu-slow-1", read_timeout=0.3)
            async with factory.client("ecs") as client:
                while not used:
                    try:
                        await client.list_tasks()
                    except boto.CredentialRetrievalError:  # noqa: PERF203
                        refused += 1
                        assert refused < 20
                        await asyncio.sleep(1.0)  # it ends while nobody waits for it
                        factory._credentials[0]._not_before = 0.0

    asyncio.run(run())
    assert used == ["AKIDSLOW"]
