"""What can never be sent is refused with the SDK's words and the name of the setting, before anything is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import credentials
from ecs_async_executor.services.batch import BatchBackend
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.ecs import EcsBackend
from ecs_async_executor.settings import BatchSettings, EcsSettings
from tests.services.server import answer, served

pytestmark = pytest.mark.usefixtures("keys")
ECS = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")
BATCH = BatchSettings(job_name="a", job_queue="q", job_definition="d", region_name="eu-west-1")


def error_of_check(conn_id: str | None = None, *, batch: bool = False) -> BackendError:
    """Make the health check's call, which anything that can be sent passes."""

    async def run() -> BackendError:
        clients = ClientFactory(conn_id=conn_id, region_name="eu-west-1")
        backend: Any = BatchBackend(clients, BATCH) if batch else EcsBackend(clients, ECS)
        with pytest.raises(BackendError) as caught:
            async with backend.open():
                await backend.check()
        return caught.value

    return asyncio.run(run())


class Hook:
    """Stands in for AwsBaseHook."""

    endpoint: str | None = None
    verify: Any = None
    keys = ("AKID", "secret", None)

    def __init__(self, *, region_name: str | None, config: Any = None, **_: Any) -> None:
        from botocore.config import Config

        self.region_name = region_name
        self.config = config or Config()
        self.conn_config = SimpleNamespace(profile_name=None, get_service_endpoint_url=lambda _: self.endpoint)

    def get_session(self, **_: Any) -> Any:
        from botocore.credentials import Credentials

        return SimpleNamespace(get_credentials=lambda: Credentials(*self.keys))


@pytest.mark.parametrize("endpoint", ["localhost:4566", "http://", "http://localhost:99999/"])
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECS"])
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, variable: str, endpoint: str) -> None:
    monkeypatch.setenv(variable, endpoint)
    error = error_of_check()
    assert error.kind is Kind.REFUSED
    assert error.message.startswith(f"{variable} = {endpoint!r}: Invalid endpoint: {endpoint}")


def test_an_endpoint_of_batch_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BATCH", "localhost:4566")
    assert error_of_check(batch=True).message.startswith("AWS_ENDPOINT_URL_BATCH = 'localhost:4566': Invalid")


def test_an_endpoint_of_a_connection_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_hook_class", lambda: Hook)
    monkeypatch.setattr(Hook, "endpoint", "localhost:4566")
    error = error_of_check("prod")
    assert error.kind is Kind.REFUSED
    assert error.message.startswith("endpoint_url of the connection = 'localhost:4566': Invalid endpoint")


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_bundle_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    for bundle, words in (
        ("/missing.pem", "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        (str(empty), "no certificate"),
    ):
        monkeypatch.setenv(variable, bundle)
        error = error_of_check()
        assert error.kind is Kind.REFUSED
        assert error.message.startswith(f"{variable} = {bundle!r}: [")
        assert words in error.message


def test_a_ca_bundle_of_a_connection_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_hook_class", lambda: Hook)
    monkeypatch.setattr(Hook, "verify", "/missing.pem")
    assert error_of_check("prod").message.startswith("verify of the connection = '/missing.pem': [Errno 2]")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize(
    ("end", "what"),
    [("\n", "ends in a newline"), ("\r\n", "ends in a newline"), (" ", "has a blank at an end")],
    ids=["newline", "two", "blank"],
)
def test_a_key_that_no_request_can_carry(
    monkeypatch: pytest.MonkeyPatch, variable: str, end: str, what: str
) -> None:
    monkeypatch.setenv(variable, f"hunter2{end}")
    error = error_of_check()
    assert error.kind is Kind.CREDENTIALS, "it is looked up again: whoever mends it need not restart"
    assert f"{variable} {what}" in error.message
    assert "hunter2" not in str(error)


def test_a_key_of_a_connection_that_no_request_can_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_hook_class", lambda: Hook)
    monkeypatch.setattr(Hook, "keys", ("AKID", "secret\n", None))
    assert "aws_secret_access_key (of the connection) ends in a newline" in error_of_check("prod").message


def test_what_can_be_sent_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def respond(_: web.Request) -> web.Response:
        return answer(
            {"__type": "InvalidParameterException", "message": "The referenced task was not found."}, 400
        )

    async def run() -> None:
        async with served(respond) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            backend = EcsBackend(ClientFactory(region_name="eu-west-1"), ECS)
            async with backend.open():
                await backend.check()

    asyncio.run(run())
