from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import requests
from botocore import exceptions as boto
from botocore.credentials import ReadOnlyCredentials
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.services.credentials import ReloadedCredentials, ThreadedCredentials
from ecs_async_executor.services.errors import classify
from tests.services.fakes import refusal, until

AGENT = "Error retrieving metadata: Received non 200 response {} from container metadata: no"
AGENT_REFUSES_TO_CONNECT = (
    "Error retrieving metadata: Received error when attempting to retrieve container metadata: Could not connect"
)


def of_the_idp(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(str(status), response=response)


class Source:
    """Credentials of boto3 whose refresh waits in a thread until it is let go."""

    def __init__(self) -> None:
        self.seconds_left = 3600.0
        self.refreshes = 0
        self.threads: list[threading.Thread] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self.seconds_left <= (900 if refresh_in is None else refresh_in)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.threads.append(threading.current_thread())
        assert self.go.wait(60)
        if self.error:
            raise self.error
        self.refreshes += 1
        self.seconds_left = 3600
        return ReadOnlyCredentials("key", f"secret{self.refreshes}", None)


def test_credentials_are_read_in_a_thread_once_for_all_who_wait() -> None:
    async def run() -> None:
        source = Source()
        credentials = ThreadedCredentials(source, "ecs_executor")
        waiting = [asyncio.create_task(credentials.get_frozen_credentials()) for _ in range(5)]
        await until(lambda: source.threads)
        ticks = 0
        for _ in range(50):  # the loop is free meanwhile
            await asyncio.sleep(0)
            ticks += 1
        assert ticks == 50
        assert not any(one.done() for one in waiting)
        source.go.set()
        assert {frozen.secret_key for frozen in await asyncio.gather(*waiting)} == {"secret1"}
        assert source.threads != [threading.current_thread()]
        assert len(source.threads) == 1
        await credentials.get_frozen_credentials()
        assert len(source.threads) == 1

    asyncio.run(run())


def test_nobody_waits_for_an_early_refresh() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        credentials._not_before = 0.0
        source.go.clear()
        source.seconds_left = 600
        assert [(await credentials.get_frozen_credentials()).secret_key for _ in range(3)] == ["secret1"] * 3
        await until(lambda: len(source.threads) == 2)
        source.go.set()
        await until(lambda: source.refreshes == 2)
        await until(lambda: credentials._refreshing is None)
        assert (await credentials.get_frozen_credentials()).secret_key == "secret2"

    asyncio.run(run())


def test_an_early_refresh_that_fails_is_not_repeated_all_the_time() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        credentials._not_before = 0.0
        source.seconds_left, source.error = 600, RuntimeError("hunter2")
        with capture_logs() as logs:
            await credentials.get_frozen_credentials()
            await until(lambda: credentials._refreshing is None)
            assert (await credentials.get_frozen_credentials()).secret_key == "secret1"
        assert len(source.threads) == 2
        assert [entry["event"] for entry in logs] == ["ecs_executor.credentials.not_refreshed"]
        assert "hunter2" not in str(logs)

    asyncio.run(run())


def test_in_the_last_minute_everybody_waits() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        source.seconds_left = 30
        assert (await credentials.get_frozen_credentials()).secret_key == "secret2"
        source.seconds_left, source.error = 30, RuntimeError("x")
        with capture_logs(), pytest.raises(RuntimeError):
            await credentials.get_frozen_credentials()

    asyncio.run(run())


class Fixed:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("key", self.secret, None)


def test_refused_credentials_are_loaded_again_but_not_all_the_time() -> None:
    async def run() -> None:
        loads = iter("abc")

        async def load() -> Fixed:
            await asyncio.sleep(0)
            return Fixed(next(loads))

        credentials = ReloadedCredentials(load)

        async def secret() -> Any:
            return (await credentials.get_frozen_credentials()).secret_key

        assert list(await asyncio.gather(secret(), secret())) == ["a", "a"]
        credentials.forget()
        assert await secret() == "a"  # too soon
        credentials._not_before = 0.0
        assert list(await asyncio.gather(secret(), secret())) == ["b", "b"]

    asyncio.run(run())


def test_what_went_wrong_is_said_until_it_is_tried_again() -> None:
    async def run() -> None:
        loads = 0

        async def load() -> Fixed:
            nonlocal loads
            loads += 1
            await asyncio.sleep(0)
            if loads == 1:
                raise RuntimeError("STS says no")
            return Fixed("a")

        credentials = ReloadedCredentials(load)
        for _ in range(2):
            with pytest.raises(boto.CredentialRetrievalError, match="STS says no"):
                await credentials.get_frozen_credentials()
        assert loads == 1
        credentials._not_before = 0.0
        assert (await credentials.get_frozen_credentials()).secret_key == "a"

    asyncio.run(run())


def test_no_credentials_are_no_credentials() -> None:
    async def load() -> None:
        return None

    async def run() -> Any:
        return await ReloadedCredentials(load).get_frozen_credentials()

    assert asyncio.run(run()) is None


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (boto.EndpointConnectionError(endpoint_url="https://sts.amazonaws.com"), True),
        (boto.ReadTimeoutError(endpoint_url="https://sts.amazonaws.com"), True),
        (refusal("ServiceUnavailable", "later", "AssumeRole", 503), True),
        (refusal("Throttling", "slow", "AssumeRoleWithWebIdentity"), True),
        (refusal("IDPCommunicationError", "no answer of the IdP", "AssumeRoleWithWebIdentity"), True),
        (boto.CredentialRetrievalError(provider="container-role", error_msg=AGENT.format(503)), True),
        (boto.CredentialRetrievalError(provider="container-role", error_msg=AGENT_REFUSES_TO_CONNECT), True),
        (requests.ConnectionError("IdP"), True),
        (requests.Timeout("IdP"), True),
        (of_the_idp(503), True),
        (TimeoutError("no credentials within 10 s"), True),
        (of_the_idp(401), False),
        (refusal("AccessDenied", "no", "AssumeRole", 403), False),
        (refusal("InvalidIdentityToken", "no", "AssumeRoleWithWebIdentity"), False),
        (boto.CredentialRetrievalError(provider="container-role", error_msg=AGENT.format(403)), False),
        (boto.CredentialRetrievalError(provider="custom-process", error_msg="no such profile"), False),
        (RuntimeError("the database is away"), False),
        (boto.NoCredentialsError(), False),
    ],
    ids=str,
)
def test_what_goes_wrong_with_credentials_is_about_credentials_and_unavailable_is_not_no(
    error: Exception, unavailable: bool
) -> None:
    """An unreachable STS must not look as if RunTask had been sent."""

    async def load() -> Fixed:
        raise error

    async def run() -> None:
        await ReloadedCredentials(load).get_frozen_credentials()

    with pytest.raises(boto.BotoCoreError) as caught:
        asyncio.run(run())
    found = classify(caught.value, "RunTask")
    assert found.kind is Kind.CREDENTIALS
    assert found.unavailable is unavailable
