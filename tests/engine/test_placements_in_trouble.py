"""Launches with several placements, of which one refuses, is down, or has probes that come to nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.destinations import sent_to
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from tests.engine.cloud import FakeCloud, Plan, There
from tests.engine.faults import DENIED, EXPIRED, NO_MEMORY
from tests.engine.harness import OPTIONS, RULES, Harness

pytestmark = pytest.mark.anyio

NOTHING = BackendError(Kind.CAPACITY, "Capacity", "Capacity is unavailable at this time.", token_used=True)
TWO = Choices(("spot", "on-demand"), 60.0)


def where(cloud: FakeCloud, label: str) -> list[str]:
    return [container.placement for container in cloud.of(label)]


@pytest.mark.parametrize("latency", [0.05, 11.5, 12.0, 14.0])
async def test_a_probe_that_is_refused_after_the_grace_goes_elsewhere_too(latency: float) -> None:
    cloud = FakeCloud(latency=latency)
    cloud.full["spot"] = DENIED
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert finished.success, finished.reason
    assert where(cloud, "a") == ["on-demand"]


@pytest.mark.parametrize("best", ["spot", "on-demand"])
async def test_a_launch_that_one_placement_refuses_waits_for_another_that_is_only_full(best: str) -> None:
    cloud = FakeCloud()
    cloud.full |= {"spot": NO_MEMORY, "on-demand": NO_MEMORY, best: DENIED}
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        for n in range(5):
            harness.launch(f"w{n}")
        await anyio.sleep(1000)
        assert not harness.finished()
        other = "on-demand" if best == "spot" else "spot"
        del cloud.full[other]
        await harness.until(lambda: len(harness.finished()) == 5, timeout=100)
    assert all(finished.success for finished in harness.finished())
    assert {c.placement for c in cloud.containers.values()} == {other}


async def test_a_probe_that_is_revoked_is_followed_by_another() -> None:
    cloud = FakeCloud()
    cloud.no_place["spot"] = Plan(start_after=20.0, unplaced=20.0, starts=False)
    async with Harness(cloud, choices=lambda _: Choices(TWO.names, 0.0)).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        cloud.no_place["spot"] = Plan(start_after=800.0, unplaced=800.0, starts=False)
        probe = harness.launch("probe")
        await harness.until_launched("probe")
        assert where(cloud, "probe") == ["spot"]
        cloud.no_place.clear()
        harness.stop(probe)
        await anyio.sleep(60)
        for n in range(70):
            harness.launch(f"w{n}")
            await anyio.sleep(1)
        await harness.until_idle()
    assert where(cloud, "w69") == ["spot"]


async def test_a_probe_that_fails_for_another_reason_is_followed_by_another() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=label != "broken", start_after=3.0))
    cloud.no_place["spot"] = Plan(start_after=20.0, unplaced=20.0, starts=False)
    async with Harness(cloud, choices=lambda _: Choices(TWO.names, 0.0)).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        cloud.no_place.clear()
        harness.launch("broken")
        await harness.until_finished("broken")
        for n in range(70):
            harness.launch(f"w{n}")
            await anyio.sleep(1)
        await harness.until_idle()
    assert where(cloud, "broken")[0] == "spot"
    assert where(cloud, "w69") == ["spot"]


async def test_a_probe_that_is_over_by_the_next_sweep_has_found_room() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=0.2, duration=0.2))
    cloud.no_place["spot"] = Plan(start_after=20.0, unplaced=20.0, starts=False)
    options = replace(OPTIONS, poll_interval=5.0)
    async with Harness(cloud, choices=lambda _: Choices(TWO.names, 0.0), options=options).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        cloud.no_place.clear()
        for n in range(40):
            harness.launch(f"w{n}")
            await anyio.sleep(1)
        await harness.until_idle()
    assert [where(cloud, f"w{n}") for n in range(25, 40)] == [["spot"]] * 15


class Far(Harness):
    def chosen(self, spec: LaunchSpec, choice: str) -> LaunchSpec:
        destination, _, _ = choice.rpartition("/")
        return sent_to(destination, super().chosen(spec, choice))


@pytest.mark.parametrize("down", ["credentials", "hangs"])
async def test_a_placement_in_a_destination_that_is_down_is_passed_over(down: str) -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    if down == "credentials":
        cloud.there["eu"].fault = lambda operation, _: EXPIRED
    else:
        cloud.there["eu"].hangs_for = 15.0
    options = replace(OPTIONS, destinations=("eu",), max_concurrent_launches=5)
    choices = Choices(("spot", "eu/spot", "on-demand"), 60.0)
    async with Far(cloud, choices=lambda _: choices, options=options).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(300)
        done = [finished.choice for finished in harness.finished()]
    # What is in doubt there stays there, and each look at the credentials takes a launch.
    assert Counter(done) == {"on-demand": len(done)}
    assert len(done) >= (99 if down == "credentials" else 75)


ONCE = replace(RULES, repeatable=False, absent_grace=1.0)
"""Of a service that tells only by a search what became of a request without an answer."""
FAR_OPTIONS = replace(OPTIONS, destinations=("eu",), max_concurrent_launches=5)


def goes_down(cloud: FakeCloud, down: str) -> None:
    if down == "credentials":
        cloud.there["eu"].fault = lambda operation, _: EXPIRED
    else:
        cloud.there["eu"].hangs_for = 15.0


@pytest.mark.parametrize("down", ["credentials", "hangs"])
async def test_a_destination_that_is_down_is_left_after_the_patience_of_a_launch(down: str) -> None:
    cloud = FakeCloud()
    choices = Choices(("eu/spot", "on-demand"), 100.0)
    async with Far(cloud, choices=lambda _: choices, options=FAR_OPTIONS).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        goes_down(cloud, down)
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(90)
        assert len(harness.finished()) == 1  # it may come back by then
        await anyio.sleep(40)
        early = len(harness.finished())
        harness.launch("late")
        await harness.until_finished("late", timeout=20)  # the destination has long been down
        there = [phase for phase in harness.phases() if phase in ("in doubt", "sending")]
        assert {f.choice for f in harness.finished()[1:]} == {"on-demand"}
        assert early + len(there) == 101
        # What hangs is in doubt and stays; from the first minute without an answer on it is the probe.
        assert len(there) <= (1 if down == "credentials" else 25)
        why = "AWS credentials: ExpiredTokenException" if down == "credentials" else "AWS does not answer: Read"
        [notice] = harness.notices("late")
        assert "Launched at placement 'on-demand': 'eu/spot' has been out of reach for 1" in notice.text
        assert why in notice.text
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=200)
        await anyio.sleep(60)
        harness.launch("after")
        await harness.until_finished("after")
    assert where(cloud, "after") == ["destination=eu eu/spot"]
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(100))


async def test_a_launch_leaves_no_destination_for_another_one_that_is_down() -> None:
    cloud = FakeCloud(fault=lambda operation, _: EXPIRED)
    choices = Choices(("eu/spot", "on-demand"), 0.0)
    async with Far(cloud, choices=lambda _: choices, options=FAR_OPTIONS).running() as harness:
        harness.launch("a")
        await anyio.sleep(300)
        cloud.fault = lambda operation, _: None
        await harness.until_finished("a", timeout=60)


async def test_a_request_without_an_answer_long_ago_sends_no_launch_elsewhere() -> None:
    cloud = FakeCloud()
    goes_down(cloud, "hangs")
    choices = Choices(("eu/spot", "on-demand"), 0.0)
    async with Far(cloud, choices=lambda _: choices, options=FAR_OPTIONS, rules=ONCE).running() as harness:
        hung = harness.launch("hung")
        await harness.until(lambda: "in doubt" in harness.phases() or "searching" in harness.phases())
        cloud.there["eu"] = There()
        harness.stop(hung)
        await harness.until_idle()
        await anyio.sleep(1000)
        for n in range(5):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 5)
    assert {c.placement for c in cloud.containers.values()} == {"destination=eu eu/spot"}


@pytest.mark.parametrize("down", ["credentials", "hangs"])
async def test_placements_in_the_one_destination_that_is_down_are_used_as_before(down: str) -> None:
    """There is nowhere else to go: every slot asks whether it is back."""
    cloud = FakeCloud()
    goes_down(cloud, down)
    choices = Choices(("eu/spot", "eu/on-demand"), 0.0)
    async with Far(cloud, choices=lambda _: choices, options=FAR_OPTIONS).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await anyio.sleep(300)
        assert cloud.there["eu"].peak["launch"] == 5
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=200)
    assert {c.placement for c in cloud.containers.values()} == {"destination=eu eu/spot"}


async def test_what_is_known_of_a_launch_that_is_revoked_while_it_is_rendered_is_forgotten() -> None:
    harness = Harness(FakeCloud(), choices=lambda _: TWO)
    hold = anyio.Event()

    async def choices(launch: Launch) -> Choices:
        await hold.wait()
        return TWO

    harness.rendering.choices = choices  # type: ignore[method-assign]
    async with harness.running():
        launch = harness.launch("a")
        await anyio.sleep(1)
        harness.stop(launch)
        await harness.until_idle()
        hold.set()
        await anyio.sleep(1)
    assert not harness.ledger.queues._own
    assert not harness.rendered
