"""What the account may use: read once, beside the work, and what that changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.account import AccountQuota, AccountQuotas
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.engine.accounts import TIMEOUT, Accounts
from ecs_async_executor.engine.engine import Engine
from tests.engine.cloud import FakeCloud
from tests.engine.faults import failing
from tests.engine.harness import QUOTA, Harness

pytestmark = pytest.mark.anyio

VCPUS = AccountQuota("Fargate On-Demand vCPU resource count", "L-3032A538", 6.0, of_vcpus=True)
SLOW = AccountQuotas("eu-west-1", (VCPUS,), {"FARGATE": 5.0})
NO_VCPUS = BackendError(
    Kind.CAPACITY, "VcpuLimit", "You've reached the limit on the number of vCPUs you can run concurrently"
)
GENTLY = replace(QUOTA, gently=True)


async def slow(_: str) -> AccountQuotas:
    return SLOW


class Asking(Harness):
    """A harness whose engine reads the quotas of the account."""

    def __init__(self, cloud: FakeCloud, reading: Callable[[str], Awaitable[AccountQuotas]], **more: Any) -> None:
        self.reading = reading
        super().__init__(cloud, **more)

    def _make_engine(self) -> Engine:
        engine = super()._make_engine()
        engine._account_quotas = self.reading
        return engine


async def seconds_for(harness: Harness, launches: int) -> float:
    """Return how long it takes until so many have been launched."""
    begun = anyio.current_time()
    for n in range(launches):
        harness.launch(f"w{n}")
    await harness.until(lambda: len(harness.cloud.containers) == launches)
    return anyio.current_time() - begun


async def test_launches_begin_no_faster_than_the_account_allows() -> None:
    took = []
    for options in (GENTLY, replace(QUOTA, gently=False)):
        async with Asking(FakeCloud(), slow, options=options).running() as harness:
            await anyio.sleep(1)
            took.append(await seconds_for(harness, 40))
    assert took[0] > 5  # 5/s after a burst
    assert took[1] < 3  # the settings name a rate


async def test_a_wait_for_vcpus_says_how_many_the_account_has() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_VCPUS))
    async with Asking(cloud, slow).running() as harness:
        await anyio.sleep(1)
        harness.launch("waits")
        await harness.until(lambda: len(harness.notices("waits")) == 1)
        (notice,) = harness.notices("waits")
    assert "run concurrently (Fargate On-Demand vCPU resource count (L-3032A538) is 6)" in notice.text


async def hangs(_: str) -> AccountQuotas:
    await anyio.sleep_forever()
    raise AssertionError


async def fails(error: Exception, _: str) -> AccountQuotas:
    raise error


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (hangs, f"no answer within {TIMEOUT:g} s"),
        (partial(fails, BackendError(Kind.REFUSED, "AccessDenied", "no")), "AccessDenied: no"),
        (partial(fails, RuntimeError("a bug")), "a bug"),
    ],
    ids=["hangs", "denied", "a bug"],
)
async def test_what_cannot_be_read_is_said_once_and_costs_nothing(
    reading: Callable[[str], Awaitable[AccountQuotas]], reason: str
) -> None:
    with capture_logs() as lines:
        async with Asking(FakeCloud(), reading, options=GENTLY).running() as harness:
            assert await seconds_for(harness, 40) < 5
            await anyio.sleep(2 * TIMEOUT)
    assert [line["reason"] for line in lines if line["event"].endswith("quotas.unread")] == [reason]


async def test_each_destination_has_an_account_of_its_own() -> None:
    async def reading(name: str) -> AccountQuotas:
        if name == "down":
            raise BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "no answer")
        return AccountQuotas(name, (), {"FARGATE": 5.0 if name else 7.0})

    accounts = Accounts(reading, ("", "there", "down"), "cloud.{}".format)
    await accounts.run()
    assert [accounts.most(name, "FARGATE") for name in ("", "there", "down")] == [7.0, 5.0, None]
    assert accounts.most("", "EC2") is None


async def test_nothing_is_read_unless_that_is_wanted() -> None:
    accounts = Accounts(None, ("",), "cloud.{}".format)
    await accounts.run()
    assert accounts.quotas_of("") == ()
    error = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no room")
    assert accounts.explained("", error) is error
    assert accounts.explained("", NO_VCPUS) is NO_VCPUS
