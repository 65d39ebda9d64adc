from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from botocore import exceptions as boto

from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind
from ecs_async_executor.services import credentials
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.errors import classify
from ecs_async_executor.settings import EcsSettings, Tuning
from tests.services.server import answer, served


@pytest.mark.usefixtures("keys")
def test_a_request_is_sent_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def fail(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return answer({"__type": "ServerException", "message": "no"}, 500)

    async def run() -> BackendError:
        async with served(fail) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            async with ClientFactory(region_name="eu-west-1").client("ecs") as client:
                with pytest.raises(boto.ClientError) as caught:
                    await client.run_task(taskDefinition="f")
                return classify(caught.value, "RunTask")

    assert asyncio.run(run()).kind is Kind.AMBIGUOUS
    assert calls == 1


@pytest.mark.usefixtures("keys")
def test_the_pool_has_room_for_everything_that_can_be_under_way() -> None:
    tuning = Tuning(max_concurrent_launches=200, max_concurrent_describes=20, connect_timeout=2, read_timeout=3)
    settings = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")

    async def run() -> Any:
        async with ClientFactory.from_settings(settings, tuning).client("ecs") as client:
            return client.meta.config, client.meta.region_name

    config, region = asyncio.run(run())
    assert config.max_pool_connections > 220
    assert (config.connect_timeout, config.read_timeout) == (2, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert config.tcp_keepalive is True
    assert region == "eu-west-1"


@pytest.mark.usefixtures("keys")
def test_a_connection_without_the_provider_is_a_clear_error() -> None:
    async def run() -> None:
        async with ClientFactory(conn_id="aws_prod").client("ecs"):
            pass

    with pytest.raises(ConfigurationError, match=r"conn_id = 'aws_prod'.*need the amazon provider"):
        asyncio.run(run())


@pytest.mark.usefixtures("keys")
def test_without_a_region_nothing_can_be_opened() -> None:
    async def run() -> None:
        async with ClientFactory().client("ecs"):
            pass

    with pytest.raises(boto.NoRegionError) as caught:
        asyncio.run(run())
    assert classify(caught.value, "CreateClient").kind is Kind.REFUSED


@pytest.mark.usefixtures("keys")
def test_forgotten_credentials_are_found_again_by_the_open_client(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    async def note(request: web.Request) -> web.Response:
        used.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
        return answer({"taskArns": []})

    async def run() -> None:
        async with served(note) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            factory = ClientFactory(region_name="eu-west-1")
            async with factory.client("ecs") as client:
                await client.list_tasks()
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
                await client.list_tasks()
                factory.forget_credentials()
                factory._credentials[0]._not_before = 0.0
                await client.list_tasks()
            assert factory._credentials == []

    asyncio.run(run())
    assert used == ["AKIDKEY", "AKIDKEY", "AKIDOTHER"]


class Hook:
    """Stands in for AwsBaseHook: resolving takes place where it is noted."""

    threads: list[threading.Thread] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, *, aws_conn_id: str | None, region_name: str | None, client_type: str, config: Any) -> None:
        from botocore.config import Config

        assert client_type == "ecs"
        self.threads.append(threading.current_thread())
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name or "sa-east-1"
        self.verify = None
        self.config: Any = config or Config(user_agent_extra="x/1", retries={"max_attempts": 9})
        self.conn_config = SimpleNamespace(profile_name=None, get_service_endpoint_url=lambda _: None)

    def get_session(self, *, region_name: str) -> Any:
        from botocore.credentials import Credentials

        self.threads.append(threading.current_thread())
        assert region_name == self.region_name
        assert (self.config.connect_timeout, self.config.read_timeout) == (5.0, 10.0)  # STS must not hang either
        return SimpleNamespace(get_credentials=lambda: Credentials(f"AKID{self.aws_conn_id}", "s"))


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("conn_id", "used"), [(None, "aws_default"), ("prod", "prod"), ("", "None")])
def test_a_connection_is_resolved_by_the_hook_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, conn_id: str | None, used: str
) -> None:
    monkeypatch.setattr(credentials, "_hook_class", lambda: Hook)
    Hook.threads.clear()
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"].split("Credential=")[1])
        return answer({"taskArns": []})

    async def run() -> Any:
        async with served(note) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            async with ClientFactory(conn_id=conn_id).client("ecs") as client:
                await client.list_tasks()
                return client.meta.config

    config = asyncio.run(run())
    assert seen[0].startswith(f"AKID{used}/")
    assert "/sa-east-1/ecs/" in seen[0]
    assert config.user_agent_extra == "x/1"
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert Hook.threads
    assert threading.main_thread() not in Hook.threads


def test_making_a_factory_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook_class() -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(credentials, "_hook_class", hook_class)
    ClientFactory(conn_id="x").forget_credentials()
