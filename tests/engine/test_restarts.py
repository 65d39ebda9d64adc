"""The loop thread dies and another one takes over the ledger: no launch is lost and none runs twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Stop
from ecs_async_executor.core.queue import LaunchQueues
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import RULES, Harness, make_launch

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.anyio


async def test_a_dead_loop_is_replaced_over_the_same_ledger_and_nothing_runs_twice() -> None:
    cloud = FakeCloud(latency=1.0, plan=lambda label, nth: Plan(duration=30))
    harness = Harness(cloud)
    for death in range(6):
        async with harness.running():
            for n in range(20):
                harness.launch(f"w{death}-{n}")
            await anyio.sleep(0.4 + death * 0.3)
        harness.new_loop()
    async with harness.running():
        await harness.until(lambda: len(harness.finished()) == 120)
    assert all(f.success for f in harness.finished())
    assert all(len(cloud.of(f"w{d}-{n}")) == 1 for d in range(6) for n in range(20))


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_superseded_launch_that_was_in_flight_when_the_loop_died_is_not_sent_again(
    repeatable: bool,
) -> None:
    cloud = FakeCloud(latency=2.0, repeatable=repeatable)
    harness = Harness(cloud, rules=replace(RULES, repeatable=repeatable))
    async with harness.running():
        harness.launch("first", key="k")
        await anyio.sleep(0.5)
        harness.launch("second", key="k")
        await anyio.sleep(0.2)
    harness.new_loop()
    async with harness.running():
        await harness.until_finished("k")
        await anyio.sleep(100)
    assert cloud.of("first") == []
    assert len(cloud.of("second")) == 1
    assert harness.is_idle()


class Death(BaseException):
    """The loop thread dies at this statement."""


CALLS: dict[str, type] = {"_carry_out": Ledger, "_emit": Ledger, "_forget": Ledger, "add": LaunchQueues}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_death_at_any_call_of_the_ledgers_loses_and_doubles_nothing(
    method: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call in turn is the last one that the thread makes."""
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            if not await dies_at(method, nth, when, patch):
                assert nth > 2
                return
    pytest.fail("it never got through")


async def dies_at(method: str, nth: int, when: str, patch: pytest.MonkeyPatch) -> bool:
    owner: Any = CALLS[method]
    real = getattr(owner, method)
    calls = 0

    def dying(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != nth:
            return real(self, *args)
        if when == "after":
            real(self, *args)
        raise Death

    patch.setattr(owner, method, dying)
    cloud = FakeCloud(plan=lambda label, n: Plan(starts=n > 1, exit_code=1 if label == "bad" else 0))
    harness = Harness(cloud)
    good, bad, revoked = launches = [make_launch(label) for label in ("good", "bad", "revoked")]
    died = False

    async def live() -> None:
        nonlocal died
        try:
            async with harness.running():
                await harness.until(lambda: not harness.inbox)
                await anyio.sleep(0.5)
                harness.submit(Stop(revoked.launch_id, "revoked"))
                await harness.until(lambda: harness.is_idle() and not harness.inbox)
        except BaseExceptionGroup as deaths:
            died = deaths.split(Death)[1] is None
            if not died:
                raise
            harness.new_loop()

    harness.inbox.extend(launches)
    await live()
    if died:
        await live()
    # Told again, perhaps, but the same.
    assert {(f.launch_id, f.success) for f in harness.finished()} == {
        (good.launch_id, True),
        (bad.launch_id, False),
    }, (method, nth)
    assert len(cloud.of("good")) == len(cloud.of("bad")) == 2
    assert not harness.ledger.active
    assert not harness.owes_stops()
    return died
