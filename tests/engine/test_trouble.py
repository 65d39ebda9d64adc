"""Trouble of somebody else's, or that nobody could ask about meanwhile, fails nothing and holds up nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import Launch, Was
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, RULES, Harness, make_launch
from tests.engine.test_engine import DENIED, EXPIRED, NO_MEMORY, TIMED_OUT, failing, in_virtual_time
from tests.engine.virtual_time import wall


class Selective(FakeCloud):
    """Refuses the launches of some workloads, and of no other."""

    def __init__(self, bad: Any, error: BackendError, **more: Any) -> None:
        super().__init__(**more)
        self.bad, self.error = bad, error

    async def launch(self, spec: LaunchSpec, token: str) -> Observation:
        if self.bad(spec.request["label"]):
            self.calls["bad"] += 1
            await anyio.sleep(self.latency)
            raise self.error
        return await super().launch(spec, token)


QUOTA = replace(OPTIONS, launch_rate=lambda bucket: 20.0, launch_burst=10)


@in_virtual_time
async def test_a_refusal_that_is_about_one_workload_fails_no_other() -> None:
    cloud = Selective(lambda label: label == "bad", DENIED)
    async with Harness(cloud, options=QUOTA).running() as harness:
        harness.launch("bad")
        for n in range(100):
            harness.launch(f"good{n}")
        await harness.until(lambda: len(harness.finished()) == 101)
    assert {f.key: f.reason for f in harness.finished() if not f.success}.keys() == {"bad"}


@in_virtual_time
async def test_one_without_room_does_not_hold_up_the_others_of_its_placement_for_ever() -> None:
    cloud = Selective(lambda label: label == "bad", NO_MEMORY)
    async with Harness(cloud, options=QUOTA).running() as harness:
        harness.launch("bad")
        for n in range(100):
            harness.launch(f"good{n}")
        await harness.until(lambda: len(harness.finished()) == 100, timeout=3600)
    assert cloud.calls["bad"] < 100


@in_virtual_time
async def test_capacity_timeout_ends_the_wait_although_some_capacity_comes_now_and_then() -> None:
    """One container gets room every minute."""
    free = [0.0]

    class Cloud(FakeCloud):
        async def launch(self, spec: LaunchSpec, token: str) -> Observation:
            if anyio.current_time() < free[0]:
                await anyio.sleep(self.latency)
                raise NO_MEMORY
            free[0] = anyio.current_time() + 60
            return await super().launch(spec, token)

    async with Harness(Cloud(), rules=replace(RULES, capacity_timeout=300.0), options=QUOTA).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}", priority=-n)
        await anyio.sleep(1000)
        late = [r for r in harness.ledger.records.values() if not r.handle]
        assert not late, len(late)


@in_virtual_time
async def test_what_is_revoked_while_ambiguous_is_stopped_although_the_scheduler_ends() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    cloud.fault = failing("launch:after", TIMED_OUT, until=0.5)
    async with Harness(cloud).running() as harness:
        launch = harness.launch("a")
        await anyio.sleep(0.1)
        assert len(cloud.of("a")) == 1
        harness.stop(launch)
        await anyio.sleep(0.01)
        harness.engine.drain(None)
        await anyio.sleep(15)
    assert cloud.of("a")[0].stop_reasons


@in_virtual_time
async def test_a_hook_that_hangs_over_one_look_up_holds_up_no_other() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=30))
    async with Harness(cloud).running() as first:
        first.launch("b")
        [known] = await first.until(lambda: first.launched("b"))
    released = anyio.Event()

    class Hook(Rendering):
        async def render(self, launch: Launch) -> LaunchSpec:
            await released.wait()
            return first.default_render(launch)

    harness = Harness(cloud, rendering=Hook(first.default_render))
    async with harness.running():
        harness.adopt(make_launch("a", started_by="ti"), Was.RUNNING)
        await anyio.sleep(3)
        harness.adopt(make_launch("b"), Was.RUNNING, known.handle_id)
        await harness.until(lambda: harness.finished("b"), timeout=600)
    assert harness.finished("b")[0].success


@in_virtual_time
async def test_a_request_without_an_answer_is_not_made_at_another_place_once_its_token_of_airflows_is_old() -> (
    None
):
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000))
    cloud.fault = failing("launch:after", TIMED_OUT, until=550)
    rendered = 0

    def render(launch: Launch) -> LaunchSpec:
        nonlocal rendered
        rendered += 1
        return LaunchSpec(
            {"label": launch.label, "jwt": rendered},
            f"cluster{rendered}",
            "main",
            "FARGATE",
            launch.started_by,
            expires_at=wall() + 600,
        )

    async with Harness(cloud, render=render).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"), timeout=8000)
    assert [f.success for f in harness.finished("a")] == [True]
    assert len(cloud.of("a")) == 1


@in_virtual_time
@pytest.mark.parametrize("pause", ["credentials", "silence"])
async def test_a_refusal_that_could_not_be_tried_again_meanwhile_fails_nothing(pause: str) -> None:
    """Refused once, then nothing can be asked for ten minutes, in which somebody mends it."""

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        if operation == "launch" and now < 3:
            return DENIED
        return EXPIRED if pause == "credentials" and 3 <= now < 600 else None

    cloud = FakeCloud(fault=fault)
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0)).running() as harness:
        for n in range(200):
            harness.launch(f"w{n}", tokened=True)
        await anyio.sleep(3)
        if pause == "silence":
            harness.silence = 600.0
            await anyio.sleep(600)
            harness.silence = 0.0
            harness.silences += 1
        await harness.until(lambda: len(harness.finished()) == 200)
    assert Counter(f.reason for f in harness.finished() if not f.success) == {}


@in_virtual_time
@pytest.mark.parametrize("seen", [True, False])
async def test_missing_before_and_after_an_outage_is_not_missing_for_all_of_it(seen: bool) -> None:
    """The service does not know a container for some seconds before an outage, and for some after it."""
    begins = 20.0 if seen else 0.0

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        return TIMED_OUT if operation == "describe" and begins + 5 <= anyio.current_time() < 600 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(duration=1000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(0.04)
        [container] = cloud.of("a")
        await anyio.sleep(begins)
        container.forgotten_until = 605.0
        await harness.until(lambda: harness.finished("a"))
    assert container.stop_reasons == []
    assert harness.finished("a")[0].success


@in_virtual_time
async def test_no_more_is_taken_than_a_slow_hook_lets_through() -> None:
    """A third of Airflow's patience is 200 s: what is said to be launched in it has to be."""

    def slowly(launch: Launch) -> LaunchSpec:
        return harness.default_render(launch)

    harness = Harness(
        FakeCloud(plan=lambda label, nth: Plan(duration=10_000)),
        options=QUOTA,
        rendering=Rendering(slowly, in_thread=True),
    )

    async def in_thread(render: Callable[[Launch], LaunchSpec], launch: Launch, **_: Any) -> LaunchSpec:
        await anyio.sleep(1.0)
        return render(launch)

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


@in_virtual_time
async def test_what_gets_no_answer_for_a_minute_says_so_and_pauses_what_is_taken() -> None:
    cloud = FakeCloud(fault=failing("launch", TIMED_OUT, until=100))
    paused = {}
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(59)
        assert not harness.notices("a")
        paused["before"] = harness.snapshots[-1].paused
        await anyio.sleep(36)
        [notice] = harness.notices("a")
        paused["in it"] = harness.snapshots[-1].paused
        await harness.until(lambda: harness.finished("a"))
        paused["after"] = harness.snapshots[-1].paused
    assert notice.unlaunched
    assert notice.text == "The container waits: ECS gives no answer: ReadTimeoutError: Read timeout"
    assert paused == {"before": None, "in it": "AWS does not answer", "after": None}
