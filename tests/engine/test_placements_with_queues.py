"""Launches with several placements that accept what they have no room for: job queues, growing groups of hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import Notice
from tests.engine.cloud import Container, FakeCloud, Plan
from tests.engine.harness import RULES, Harness

pytestmark = pytest.mark.anyio

TWO = Choices(("spot", "on-demand"), 60.0)
PROBES = 600.0
"""Seconds for which a container that waits is the probe."""
NEVER = 1e6
SILENT, TOLD = Plan(start_after=NEVER, queued=NEVER), Plan(start_after=NEVER, unplaced=NEVER)


def went(cloud: FakeCloud, label: str) -> list[str]:
    return [container.placement for container in cloud.of(label)]


def elsewhere(harness: Harness, label: str) -> list[str]:
    return [notice.text for notice in harness.notices(label) if notice.event == "container placed elsewhere"]


async def one_a_second(harness: Harness, first: int, last: int) -> None:
    for second in range(first, last):
        harness.launch(f"w{second}")
        await anyio.sleep(1)


@pytest.mark.parametrize(
    ("plan", "why"),
    [(SILENT, "containers wait for a place (PENDING)"), (TOLD, "PROVISIONING")],
    ids=["silent", "told"],
)
async def test_launches_leave_a_queue_in_which_a_container_waits_for_longer_than_their_patience(
    plan: Plan, why: str
) -> None:
    cloud = FakeCloud()
    cloud.no_place["spot"] = plan
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        await one_a_second(harness, 0, 600)
        await harness.until(lambda: len(cloud.containers) == 600)
        placed = {second: went(cloud, f"w{second}") for second in range(600)}
        assert all(placed[second] == ["spot"] for second in range(60)), "accepted, it stays"
        later = [second for second in range(64, 600) if placed[second] == ["spot"]]
        assert len(later) <= 2, "one probe at a time"
        assert all(container.created - int(container.label[1:]) < 1 for container in cloud.containers.values())
        [text] = elsewhere(harness, "w100")
        full_for = text.removeprefix("Launched at placement 'on-demand': 'spot' has been full for ")
        assert 99 <= int(full_for.partition(" s: ")[0]) <= 101
        assert text.endswith(f" s: {why}")
        assert not cloud.asked_to_stop


class RoomLater(dict[str, Plan]):
    """There is room for everything on Spot after five minutes."""

    def get(self, placement: str, default: object = None) -> Any:
        wait = max(1.0, 300.0 - anyio.current_time())
        return Plan(start_after=wait, queued=wait) if placement == "spot" else default


async def test_launches_return_as_soon_as_a_container_that_was_not_overtaken_runs() -> None:
    cloud = FakeCloud()
    cloud.no_place = RoomLater()
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        await one_a_second(harness, 0, 400)
        await harness.until(lambda: len(harness.finished()) == 400)
    assert went(cloud, "w200") == ["on-demand"]
    assert all(went(cloud, f"w{second}") == ["spot"] for second in range(310, 400))


@pytest.mark.parametrize(
    ("wait", "patience"), [(20.0, 60.0), (240.0, 300.0)], ids=["Fargate", "a group that grows"]
)
async def test_a_wait_that_is_shorter_than_the_patience_delays_and_moves_nothing(
    wait: float, patience: float
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=wait, queued=wait))
    async with Harness(cloud, choices=lambda _: Choices(TWO.names, patience)).running() as harness:
        await one_a_second(harness, 0, 600)
        await harness.until(lambda: len(harness.finished()) == 600)
    assert {container.placement for container in cloud.containers.values()} == {"spot"}
    assert all(container.created - int(container.label[1:]) < 1 for container in cloud.containers.values())
    assert not any(isinstance(report, Notice) for report in harness.reports)


async def test_a_room_that_the_impatient_have_left_delays_nobody_who_is_more_patient() -> None:
    cloud = FakeCloud()
    cloud.no_place["spot"] = SILENT
    patient = Choices(TWO.names, 300.0)
    async with Harness(
        cloud, choices=lambda launch: patient if launch.route is not None else TWO
    ).running() as harness:
        harness.launch("first")
        await anyio.sleep(100)
        harness.launch("probe")
        harness.launch("impatient")
        harness.launch("patient", route="patient")
        await harness.until_launched("impatient", timeout=2)
        await harness.until_launched("patient", timeout=2)
        assert (went(cloud, "impatient"), went(cloud, "patient")) == (["on-demand"], ["spot"])
        await anyio.sleep(300)
        harness.launch("later", route="patient")
        await harness.until_launched("later", timeout=2)
        assert went(cloud, "later") == ["on-demand"]


async def test_a_queue_that_moves_too_slowly_is_left_too() -> None:
    """Each container gets its place after ten minutes: there is room, but not for the next one."""
    cloud = FakeCloud()
    cloud.no_place["spot"] = Plan(start_after=600.0, queued=600.0)
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        await one_a_second(harness, 0, 1200)
        await harness.until(lambda: len(harness.finished()) == 1200, timeout=5000)
    late = [second for second in range(64, 1200) if went(cloud, f"w{second}") == ["spot"]]
    assert len(late) < 150


async def test_a_container_that_never_fits_sends_nobody_away() -> None:
    cloud = FakeCloud(plan=lambda label, nth: SILENT if label == "huge" else Plan())
    async with Harness(cloud, choices=lambda _: TWO).running() as harness:
        harness.launch("huge")
        await one_a_second(harness, 0, 600)
    assert {container.placement for container in cloud.containers.values()} == {"spot"}


class Cancelled(Container):
    """A job that a limit of its queue ends."""

    def observe(self, now: float) -> Observation:
        handle = Handle(self.handle.scope, self.handle.id)
        return Observation(
            handle, Seen.STOPPED, status="FAILED", reason="time limit", by_hand=True, ending=Ending.CAPACITY
        )


@pytest.mark.parametrize("limit", ["of the queue", "of the executor"])
async def test_a_wait_that_a_limit_ends_counts_for_the_next_launch(limit: str) -> None:
    cloud = FakeCloud()
    cloud.no_place["spot"] = Plan(start_after=NEVER, unplaced=NEVER)
    rules = replace(RULES, capacity_timeout=None if limit == "of the queue" else 50.0)
    async with Harness(cloud, choices=lambda _: TWO, rules=rules).running() as harness:
        harness.launch("first")
        await anyio.sleep(45)
        if limit == "of the queue":
            [first] = cloud.of("first")
            first.__class__ = Cancelled
        finished = await harness.until_finished("first")
        assert not finished.success
        await anyio.sleep(60)
        cloud.no_place["spot"] = SILENT
        harness.launch("probe")
        harness.launch("second")
        await harness.until(lambda: len(cloud.containers) == 3)
    assert sorted(went(cloud, "probe") + went(cloud, "second")) == ["on-demand", "spot"]
