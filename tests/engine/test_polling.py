"""How soon an end is seen where there is more to look at than the read budget allows in a moment."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio
import pytest

from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, Harness
from tests.engine.test_engine import in_virtual_time

LONG = Plan(start_after=1.0, duration=1e5)
SHORT = Plan(start_after=1.0, duration=10.0)
PACED = replace(OPTIONS, describe_rate=20.0, describe_burst=20)


@in_virtual_time
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
    assert spent < 0.5 * PACED.describe_rate + 1.0


@in_virtual_time
async def test_a_loop_that_was_replaced_knows_what_is_young() -> None:
    cloud = FakeCloud(plan=lambda label, nth: LONG)
    harness = Harness(cloud, options=PACED)
    async with harness.running():
        for label in ("old", "older"):
            harness.launch(label)
        await harness.until(lambda: len(harness.launched("older")) == 1)
        await anyio.sleep(60.0)
        young = harness.launch("young")
        await harness.until(lambda: harness.launched("young"))
    harness.new_loop()
    async with harness.running():
        now = anyio.current_time()
        assert [r.id for r in harness.ledger.active_since(now - 30.0)] == [young]
        assert len(harness.ledger.active_since(now - 100.0)) == 3
