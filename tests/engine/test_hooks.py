"""User code that takes part in requests, and does not return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import Harness

pytestmark = pytest.mark.anyio


async def test_a_hook_that_hangs_is_told_of_after_a_minute_until_it_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = anyio.Event()

    async def run_sync(call: Callable[..., LaunchSpec], *arguments: Any, **_: Any) -> LaunchSpec:
        await released.wait()
        return call(*arguments)

    def render(launch: Launch) -> LaunchSpec:
        return harness.default_render(launch)

    def shown() -> tuple[str | None, float]:
        return harness.snapshots[-1].paused, harness.snapshots[-1].hook_hangs

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    harness = Harness(
        FakeCloud(plan=lambda label, nth: Plan()), rendering=Rendering(render, blocks=lambda _: True)
    )
    with capture_logs() as logs:
        async with harness.running():
            harness.launch("slow")
            harness.launch("behind")
            await anyio.sleep(55)
            assert shown() == (None, 0.0)
            await anyio.sleep(65)
            assert harness.snapshots[-1].paused == "a hook hangs over slow"
            assert 118.0 < harness.snapshots[-1].hook_hangs < 121.0
            released.set()
            await harness.until_finished("behind")
            await anyio.sleep(1)
            assert shown() == (None, 0.0)
    told = [(line["event"], line["workload"]) for line in logs if "hook" in line["event"]]
    assert told == [("cloud_executor.hook.hangs", "slow"), ("cloud_executor.hook.returned", "slow")]
