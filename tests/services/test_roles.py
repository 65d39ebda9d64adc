"""Destinations of the rules as clients see them: their Region, their connection, and a role that is assumed."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp import web

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.ecs import EcsBackend
from ecs_async_executor.settings import EcsSettings, Tuning
from ecs_async_executor.settings.rules import Destination
from tests.services.server import answer, listening, served

ROLE = "arn:aws:iam::222222222222:role/airflow"
SETTINGS = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1", conn_id="")
TUNING = Tuning(connect_timeout=1, read_timeout=1)

pytestmark = pytest.mark.usefixtures("keys")


class Aws:
    """STS and ECS in one place."""

    def __init__(self) -> None:
        self.lifetime = timedelta(hours=1)
        self.refuses = False
        self.assumed: list[tuple[str, str]] = []
        self.keys: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        signed_with, signed_for = re.search(
            r"Credential=(\w+)/\d+/([\w-]+)/", request.headers["Authorization"]
        ).groups()  # type: ignore[union-attr]
        if "X-Amz-Target" in request.headers:
            self.keys.append(f"{signed_with}/{signed_for}")
            return answer({"taskArns": []})
        if self.refuses:
            error = "<Error><Code>AccessDenied</Code><Message>no sts:AssumeRole</Message></Error>"
            text = f"<ErrorResponse>{error}</ErrorResponse>"
            return web.Response(status=403, text=text, content_type="text/xml")
        asked = await request.post()
        self.assumed.append((f"{signed_with}/{signed_for}", str(asked["RoleArn"])))
        until = (datetime.now(timezone.utc) + self.lifetime).isoformat()
        credentials = (
            f"<AccessKeyId>ASIA{len(self.assumed)}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{until}</Expiration>"
        )
        text = f"<AssumeRoleResult><Credentials>{credentials}</Credentials></AssumeRoleResult>"
        return web.Response(text=f"<AssumeRoleResponse>{text}</AssumeRoleResponse>", content_type="text/xml")


def use(monkeypatch: pytest.MonkeyPatch, destination: Destination, work: Any) -> Any:
    async def run() -> Any:
        aws = Aws()
        async with served(aws.handle) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            backend = EcsBackend(ClientFactory.from_settings(SETTINGS, TUNING, destination), SETTINGS)
            async with backend.open():
                return await work(aws, backend)

    return asyncio.run(run())


def test_a_role_is_assumed_once_with_the_sections_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: EcsBackend) -> None:
        await asyncio.gather(*(backend._list("c") for _ in range(10)))
        assert aws.assumed == [("AKIDKEY/us-east-2", ROLE)]
        assert aws.keys == ["ASIA1/us-east-2"] * 10

    use(monkeypatch, Destination(region_name="us-east-2", role_arn=ROLE), work)


def test_a_role_alone_is_for_the_sections_region(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: EcsBackend) -> None:
        await backend._list("c")
        assert aws.keys == ["ASIA1/eu-west-1"]

    use(monkeypatch, Destination(role_arn=ROLE), work)


def test_a_role_is_assumed_again_before_its_credentials_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: EcsBackend) -> None:
        aws.lifetime = timedelta(seconds=30)  # everybody waits in the last minute
        await backend._list("c")
        aws.lifetime = timedelta(hours=1)
        await backend._list("c")
        await backend._list("c")
        assert len(aws.assumed) == 2
        assert aws.keys[-1].startswith("ASIA2/")

    use(monkeypatch, Destination(role_arn=ROLE), work)


def test_a_role_that_may_not_be_assumed_says_what_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: EcsBackend) -> None:
        aws.refuses = True
        with pytest.raises(BackendError) as caught:
            await backend._list("c")
        assert caught.value.kind is Kind.CREDENTIALS
        assert not caught.value.unavailable
        for words in (ROLE, "no sts:AssumeRole", "trust policy"):
            assert words in str(caught.value)
        assert aws.keys == []

    use(monkeypatch, Destination(role_arn=ROLE), work)


def test_an_sts_that_does_not_answer_is_waited_for_no_longer_than_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: Any, _: Any) -> None:
        await reader.read()

    async def run(talk: Any) -> BackendError:
        async with listening(talk) as port:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            backend = EcsBackend(
                ClientFactory.from_settings(SETTINGS, TUNING, Destination(role_arn=f"{ROLE}-{bool(talk)}")),
                SETTINGS,
            )
            async with backend.open():
                with pytest.raises(BackendError) as caught:
                    await backend._list("c")
                return caught.value

    for talk in (silent, None):
        error = asyncio.run(asyncio.wait_for(run(talk), 60))
        assert (error.kind, error.unavailable) == (Kind.CREDENTIALS, True)
        assert ROLE in str(error)


def test_a_destinations_connection_brings_its_own_region() -> None:
    of = ClientFactory.from_settings(SETTINGS, TUNING, Destination(conn_id="aws_us"))
    assert (of._connection._conn_id, of._connection._region_name, of._default_region) == (
        "aws_us",
        None,
        "eu-west-1",
    )
    of = ClientFactory.from_settings(SETTINGS, TUNING, Destination(conn_id="aws_us", region_name="us-west-2"))
    assert of._connection._region_name == "us-west-2"


def test_a_second_destinations_client_reads_nothing_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.loaders import JSONFileLoader

    read: list[str] = []
    load = JSONFileLoader.load_file

    def noting(self: Any, file_path: str) -> Any:
        read.append(file_path)
        return load(self, file_path)

    async def run() -> None:
        for region in ("eu-west-1", "us-east-2"):
            read.clear()
            there = Destination(region_name=region)
            async with ClientFactory.from_settings(SETTINGS, TUNING, there).client("ecs") as client:
                assert client.meta.region_name == region
        assert read == []

    monkeypatch.setattr(JSONFileLoader, "load_file", noting)
    asyncio.run(run())
