"""How many calls at once, how many a second, and which launch goes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    NO_MEMORY,
    THROTTLED,
    failing,
)
from tests.engine.harness import OPTIONS, QUOTA, Harness

pytestmark = pytest.mark.anyio
CAPPED = replace(QUOTA, launch_rate_max=20.0)


async def test_never_more_requests_in_flight_than_allowed() -> None:
    cloud = FakeCloud(latency=3.0)
    options = replace(OPTIONS, max_concurrent_launches=7, max_concurrent_describes=3)
    async with Harness(cloud, options=options).running() as harness:
        for n in range(500):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 500)
    assert cloud.peak["launch"] == 7
    assert cloud.peak["describe"] <= 3


async def test_launches_keep_to_the_rate() -> None:
    cloud = FakeCloud()
    async with Harness(cloud, options=CAPPED).running() as harness:
        for n in range(400):
            harness.launch(f"w{n}")
        await anyio.sleep(10.05)
        assert 195 <= cloud.calls["launch"] <= 211


async def test_throttles_cost_no_attempt_and_fail_nothing() -> None:
    cloud = FakeCloud(fault=failing("launch", THROTTLED, until=60))
    async with Harness(cloud).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 50)
    assert all(f.success for f in harness.finished())
    assert cloud.calls["launch"] < 600, "the rate follows the throttles"


async def test_the_most_urgent_goes_first_and_among_equals_the_oldest() -> None:
    cloud = FakeCloud()
    options = replace(OPTIONS, launch_rate=lambda bucket: 10.0, launch_rate_max=10.0, launch_burst=1)
    async with Harness(cloud, options=options).running() as harness:
        for n in range(10):
            harness.launch(f"low{n}", priority=1)
        await anyio.sleep(0.25)
        for n in range(10):
            harness.launch(f"high{n}", priority=5)
        await harness.until(lambda: len(harness.finished()) == 20)
    order = [c.label for c in cloud.containers.values()]
    late = order.index("high0")
    assert late <= 5
    assert order[late : late + 10] == [f"high{n}" for n in range(10)]
    assert [label for label in order if label.startswith("low")] == [f"low{n}" for n in range(10)]


async def test_stops_do_not_queue_behind_a_backlog_of_launches() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud, options=CAPPED).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        for n in range(2000):
            harness.launch(f"w{n}")
        await anyio.sleep(1)
        harness.stop(launch_id)
        asked = anyio.current_time()
        await harness.until(lambda: cloud.calls["stop"])
        assert anyio.current_time() - asked < 1


async def test_requests_for_one_place_that_draw_from_different_rates_keep_the_loop_from_nothing() -> None:
    rates = {"slow": 0.5, "fast": 100.0}

    def render(launch: Launch) -> LaunchSpec:
        bucket = "slow" if launch.label.startswith("slow") else "fast"
        return LaunchSpec({"label": launch.label}, "default", "main", bucket, launch.started_by)

    options = replace(OPTIONS, launch_rate=rates.__getitem__, launch_rate_max=100.0, launch_burst=1)
    cloud = FakeCloud()
    async with Harness(cloud, options=options, render=render).running() as engine:
        for n in range(3):
            engine.launch(f"fast{n}")
            engine.launch(f"slow{n}")
        await engine.until(lambda: len(engine.finished()) == 6)
    assert len(engine.rendered) < 30


async def test_no_more_is_taken_than_a_slow_hook_lets_through() -> None:
    """A third of Airflow's patience is 200 s: what is said to be launched in it has to be."""

    def slowly(launch: Launch) -> LaunchSpec:
        return harness.default_render(launch)

    harness = Harness(
        FakeCloud(plan=lambda label, nth: Plan(duration=10_000)),
        options=QUOTA,
        rendering=Rendering(slowly, blocks=lambda _: True),
    )

    async def in_thread(call: Callable[..., LaunchSpec], *arguments: Any, **_: Any) -> LaunchSpec:
        await anyio.sleep(1.0)
        return call(*arguments)

    async with harness.running():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(anyio.to_thread, "run_sync", in_thread)
            for n in range(1000):
                harness.launch(f"w{n}")
            await anyio.sleep(60)
            promised, before = harness.snapshots[-1].launch_rate * 200.0, len(harness.cloud.containers)
            await anyio.sleep(200)
            launched = len(harness.cloud.containers) - before
    assert promised <= 1.5 * launched


async def test_one_rendering_that_waited_does_not_limit_what_is_taken_for_long() -> None:
    """A hook can take its time over one launch, and none over others."""

    def render(launch: Launch) -> LaunchSpec:
        return harness.default_render(launch)

    async def in_thread(call: Callable[..., LaunchSpec], *arguments: Any, **_: Any) -> LaunchSpec:
        await anyio.sleep(5.0)
        return call(*arguments)

    rendering = Rendering(render, blocks=lambda launch: launch.label == "asks")
    harness = Harness(FakeCloud(), options=QUOTA, rendering=rendering)
    async with harness.running():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(anyio.to_thread, "run_sync", in_thread)
            harness.launch("asks")
            await harness.until_finished("asks")
            assert rendering.rate < 5.0
            for n in range(50):
                harness.launch(f"w{n}")
            await harness.until(lambda: len(harness.finished()) == 51)
    assert rendering.rate > 100.0


async def test_revoked_and_requeued_over_and_over_during_an_outage_leaves_nothing_behind() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY))
    async with Harness(cloud).running() as harness:
        harness.launch("urgent", priority=1)
        ids = {n: harness.launch(f"w{n}") for n in range(200)}
        for _ in range(20):
            await anyio.sleep(600)
            for n, launch_id in list(ids.items()):
                harness.stop(launch_id)
                ids[n] = harness.launch(f"w{n}")
        await anyio.sleep(10)
        assert harness.queue_length() <= 250
        assert len(harness.launches()) == 201
