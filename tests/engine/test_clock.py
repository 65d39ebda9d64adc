"""Somebody sets the machine's clock while launches are under way: durations come from another clock."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import Launch
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import NO_MEMORY, TIMED_OUT
from tests.engine.harness import Harness
from tests.engine.virtual_time import run, wall

NUMBER = 60
HOUR = 3600.0


def troubles(operation: str, _: FakeCloud) -> BackendError | None:
    """No capacity at first, and then every third answer is lost, after the work was done."""
    now = anyio.current_time()
    if operation == "launch" and now < 30:
        return NO_MEMORY
    if operation == "launch:after" and now < 90 and int(now * 1000) % 3 == 0:
        return TIMED_OUT
    return None


async def run_through(jumps: list[float]) -> float:
    """Launch many, and set the clock every 7 seconds; return when all were over."""

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=40), fault=troubles)
    harness = Harness(cloud)

    def render(launch: Launch) -> LaunchSpec:
        return replace(harness.default_render(launch), expires_at=wall() + harness.clock_error + 600.0)

    harness.render = render
    async with harness.running():
        for n in range(NUMBER):
            harness.launch(f"w{n}")
        for jump in jumps:
            await anyio.sleep(7)
            harness.clock_error += jump
        await harness.until(lambda: len(harness.finished()) == NUMBER)
        over = anyio.current_time()
        await anyio.sleep(300)
    assert len(harness.finished()) == NUMBER
    assert all(finished.success for finished in harness.finished())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(NUMBER))
    assert cloud.calls["launch"] > 1.2 * NUMBER, "no answer was lost"
    assert harness.is_idle()
    return over


@pytest.mark.parametrize(
    "jumps",
    [[HOUR] * 10, [-HOUR] * 10, [30 * 24 * HOUR, -60 * 24 * HOUR] * 5],
    ids=["forward", "backward", "to and fro"],
)
def test_a_clock_that_jumps_neither_loses_nor_doubles_nor_delays_anything(jumps: list[float]) -> None:
    steady = run(run_through, [0.0] * len(jumps))
    assert run(run_through, jumps) < steady + 5
