"""An Airflow connection with a role, through the installed provider's hook."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp import web

pytest.importorskip("airflow.providers.amazon")

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import EcsSettings, Tuning

SETTINGS = EcsSettings(cluster="c", container_name="a", conn_id="role", region_name="eu-west-1")


class Aws:
    """STS and ECS on the loop of the client: a refresh that blocked the loop would never be answered."""

    def __init__(self, lifetime: timedelta = timedelta(hours=1)) -> None:
        self.lifetime = lifetime
        self.assumed = 0
        self.keys: list[str] = []
        self.refuse = False
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def answer(self, request: web.Request) -> web.Response:
        if "X-Amz-Target" in request.headers:
            self.keys.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
            return web.Response(text='{"taskArns": []}', content_type="application/x-amz-json-1.1")
        self.asked.set()
        await self.go.wait()
        if self.refuse:
            error = "<Error><Code>AccessDenied</Code><Message>may not sts:AssumeRole</Message></Error>"
            return web.Response(
                status=403, text=f"<ErrorResponse>{error}</ErrorResponse>", content_type="text/xml"
            )
        self.assumed += 1
        until = (datetime.now(timezone.utc) + self.lifetime).isoformat()
        credentials = (
            f"<AccessKeyId>ASIA{self.assumed}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{until}</Expiration>"
        )
        result = f"<AssumeRoleResult><Credentials>{credentials}</Credentials></AssumeRoleResult>"
        return web.Response(text=f"<AssumeRoleResponse>{result}</AssumeRoleResponse>", content_type="text/xml")


async def serve(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> web.AppRunner:
    application = web.Application()
    application.router.add_post("/", aws.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
    return runner


@pytest.fixture(autouse=True)
def connection(duel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a connection with a role; the other fixture cleans the environment."""
    assert duel
    extra = {"role_arn": "arn:aws:iam::123456789012:role/airflow", "region_name": "us-east-2"}
    monkeypatch.setenv("AIRFLOW_CONN_ROLE", json.dumps({"conn_type": "aws", "extra": extra}))


def use(aws_of: Any, monkeypatch: pytest.MonkeyPatch, work: Any) -> Any:
    async def run() -> Any:
        aws = aws_of()
        runner = await serve(aws, monkeypatch)
        backend = ecs.EcsBackend(ClientFactory.from_settings(SETTINGS, Tuning()), SETTINGS)
        try:
            async with backend.open():
                return await work(aws, backend)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_a_role_is_assumed_without_blocking_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: ecs.EcsBackend) -> None:
        await backend._list("c")
        await backend._list("c")
        assert aws.keys == ["ASIA1", "ASIA1"]
        assert aws.assumed == 1

    use(Aws, monkeypatch, work)


def test_a_role_is_renewed_while_requests_go_on_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: ecs.EcsBackend) -> None:
        await backend._list("c")
        (first,) = aws.keys
        aws.lifetime = timedelta(hours=1)
        aws.asked.clear()
        aws.go.clear()
        current: Any = backend._call._clients._credentials[0]._current
        current._not_before = 0.0
        try:
            await backend._list("c")
            await aws.asked.wait()
            await backend._list("c")
        finally:
            aws.go.set()
        assert aws.keys == [first] * 3
        while current._refreshing is not None:
            await current._refreshing
        await backend._list("c")
        assert aws.keys[-1] == f"ASIA{aws.assumed}" != first

    # Good for 12 minutes: botocore renews from 15 minutes on, and makes everybody wait for it from 10 on.
    use(lambda: Aws(timedelta(minutes=12)), monkeypatch, work)


def test_a_role_that_may_not_be_assumed_is_about_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(aws: Aws, backend: ecs.EcsBackend) -> None:
        aws.refuse = True
        for _ in range(2):
            with pytest.raises(BackendError, match=r"AccessDenied.*AssumeRole.*may not") as caught:
                await backend._list("c")
            assert caught.value.kind is Kind.CREDENTIALS
        assert aws.keys == []

    use(Aws, monkeypatch, work)
