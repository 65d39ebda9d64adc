"""How soon the engine sees an end, how many calls that takes, and descriptions that the service refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    failing,
)
from tests.engine.harness import OPTIONS, RULES, Harness, make_launch

pytestmark = pytest.mark.anyio
LONG = Plan(start_after=1.0, duration=1e5)
SHORT = Plan(start_after=1.0, duration=10.0)
PACED = replace(OPTIONS, describe_rate=20.0, describe_burst=20)


@pytest.mark.parametrize("running", [400, 6000])
async def test_a_short_task_is_seen_to_end_soon_however_many_long_ones_run(running: int) -> None:
    cloud = FakeCloud(plan=lambda label, nth: LONG if label.startswith("long") else SHORT)
    late: list[float] = []
    async with Harness(cloud, options=PACED).running() as engine:
        for number in range(running):
            engine.launch(f"long-{number}")
        await engine.until(lambda: len(cloud.containers) == running)
        await anyio.sleep(200.0)
        began, asked = anyio.current_time(), cloud.calls["describe"]
        for number in range(20):
            label = f"short-{number}"
            engine.launch(label)
            await engine.until(partial(engine.finished, label))
            late.append(anyio.current_time() - cloud.of(label)[0].ends_at)
        spent = (cloud.calls["describe"] - asked) / (anyio.current_time() - began)
    assert max(late) < 3.0
    assert spent < 0.375 * PACED.describe_rate + 1.0


async def test_two_schedulers_with_many_young_containers_leave_a_quarter_of_the_reads_to_others() -> None:
    cloud = FakeCloud(plan=lambda label, nth: LONG)
    async with Harness(cloud, options=PACED).running() as engine:
        for number in range(6000):
            engine.launch(f"long-{number}")
        await engine.until(lambda: len(cloud.containers) == 6000)
        await anyio.sleep(20.0)
        asked = cloud.calls["describe"]
        await anyio.sleep(60.0)
        spent = (cloud.calls["describe"] - asked) / 60.0
    assert spent <= 0.375 * PACED.describe_rate + 1.0


async def test_a_loop_that_was_replaced_knows_what_is_young() -> None:
    cloud = FakeCloud(plan=lambda label, nth: LONG)
    harness = Harness(cloud, options=PACED)
    async with harness.running():
        for label in ("old", "older"):
            harness.launch(label)
        await harness.until_launched("older", times=1)
        await anyio.sleep(60.0)
        young = harness.launch("young")
        await harness.until_launched("young")
    harness.new_loop()
    async with harness.running():
        now = anyio.current_time()
        assert harness.followed_since(now - 30.0) == [young]
        assert len(harness.followed_since(now - 100.0)) == 3


async def test_describes_go_in_batches_of_100() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        for n in range(950):
            harness.launch(f"w{n}")
        await harness.until(lambda: cloud.calls["launch"] == 950)
        await anyio.sleep(2)
        before = cloud.calls["describe"]
        await anyio.sleep(20)
        assert (cloud.calls["describe"] - before) / 20 == pytest.approx(10, rel=0.2)


async def test_one_identifier_that_the_service_does_not_take_spoils_no_other() -> None:
    class Cloud(FakeCloud):
        async def describe(self, scope: str, ids: Any) -> Any:
            if "arn:of:another:world" in ids:
                self.calls["describe"] += 1
                raise INVALID
            return await super().describe(scope, ids)

    cloud = Cloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        for n in range(60):
            first.launch(f"w{n}")
        await first.until(lambda: len(first.handles()) == 60)
    known = first.handles()
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("odd"), AirflowState.RUNNING, "arn:of:another:world")
        for n in range(60):
            second.adopt(make_launch(f"w{n}"), AirflowState.RUNNING, known[f"w{n}"])
        await second.until(lambda: len(second.finished()) == 61)
        assert anyio.current_time() < 200
    assert {f.key for f in second.finished() if not f.success} == {"odd"}
    assert cloud.calls["describe"] < 3000


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("running", [1, 20, 250])
async def test_a_refusal_to_describe_that_is_about_no_container_fails_none(running: int, repeatable: bool) -> None:
    odd = BackendError(Kind.INVALID, "ClientException", "The proxy does not take this")
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000), repeatable=repeatable)
    async with Harness(cloud, rules=replace(RULES, repeatable=repeatable)).running() as harness:
        for n in range(running):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(cloud.containers) == running)
        await anyio.sleep(30)
        calls = cloud.calls["describe"]
        with capture_logs() as logs:
            cloud.fault = failing("describe", odd, until=anyio.current_time() + 1200)
            await anyio.sleep(1200)
        # A sweep each second as ever, and each minute one batch is tried in parts.
        batches = -(-running // cloud.describe_batch)
        assert cloud.calls["describe"] - calls < 1210 * batches + 21 * 2 * min(running, cloud.describe_batch)
        assert not harness.finished()
        assert not any(c.stop_reasons for c in cloud.containers.values())
        assert {(entry["event"], entry["reason"]) for entry in logs if entry["log_level"] != "info"} == {
            ("cloud_executor.read.failed", "The proxy does not take this")
        }
        await harness.until(lambda: len(harness.finished()) == running, timeout=2000)
    assert all(end.success for end in harness.finished())
