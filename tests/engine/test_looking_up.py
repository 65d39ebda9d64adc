"""Launches of which something has to be looked up in a database, which can take its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.messages import AirflowState, Launch
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, Harness, make_launch

pytestmark = pytest.mark.anyio

TAKES = 4.0
"""Seconds of one question."""


class Database:
    """Knows of each launch whose label begins with ``again`` where it goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: set[str] = set()
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        monkeypatch.setattr(anyio.to_thread, "run_sync", self.in_thread)

    async def in_thread(self, call: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await anyio.sleep(TAKES)
        self.at_once -= 1
        return call(*arguments)

    def lacks(self, launch: Launch) -> bool:
        return launch.label.startswith("again") and launch.label not in self.known

    def look_up(self, launch: Launch) -> None:
        self.asked.append(launch.label)
        self.known.add(launch.label)

    def choices(self, launch: Launch) -> Choices:
        assert not self.lacks(launch)
        return Choices(("spot", "on-demand"))

    def harness(self, cloud: FakeCloud, **more: Any) -> Harness:
        def render(launch: Launch, choice: str | None = None) -> Any:
            assert not self.lacks(launch)
            return harness._render(launch, choice)

        rendering = Rendering(render, choices=self.choices, lacks=self.lacks, look_up=self.look_up)
        harness = Harness(cloud, rendering=rendering, **more)
        return harness


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


async def test_nobody_waits_for_what_is_looked_up_about_another(database: Database) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000.0))
    async with database.harness(cloud).running() as harness:
        for n in range(10):
            harness.launch(f"again{n}", priority=10, route=f"again{n}")
        await anyio.sleep(1)
        for n in range(100):
            harness.launch(f"w{n}")
        began = anyio.current_time()
        await harness.until(lambda: len(cloud.containers) == 100)
        assert anyio.current_time() - began < 3.0
        assert harness.snapshots[-1].launch_rate == OPTIONS.launch_rate_max
        await harness.until(lambda: len(cloud.containers) == 110, timeout=10 * TAKES + 1)
    assert sorted(database.asked) == sorted(f"again{n}" for n in range(10))
    assert database.most_at_once == 1


async def test_a_launch_that_is_revoked_while_it_is_looked_up_is_not_launched(database: Database) -> None:
    cloud = FakeCloud()
    with capture_logs() as logs:
        async with database.harness(cloud).running() as harness:
            revoked = harness.launch("again")
            harness.launch("again, too")
            await anyio.sleep(1)
            harness.stop(revoked)
            await harness.until_idle()
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert [container.label for container in cloud.containers.values()] == ["again, too"]
    assert not harness.ledger.queues._own


async def test_a_launch_that_is_looked_up_outlives_the_loop_thread(database: Database) -> None:
    cloud = FakeCloud()
    harness = database.harness(cloud)
    async with harness.running():
        harness.launch("again")
        await anyio.sleep(1)
    harness.new_loop()
    async with harness.running():
        await harness.until_finished("again")
    assert len(cloud.containers) == 1


async def test_a_search_looks_up_what_it_needs(database: Database) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000.0))
    async with database.harness(cloud).running() as harness:
        harness.adopt(make_launch("again", tokened=True), AirflowState.QUEUED)
        await harness.until_launched("again")
    assert database.asked == ["again"]


async def test_a_bug_in_looking_up_fails_its_launch_alone(database: Database) -> None:
    def broken(launch: Launch) -> None:
        raise ZeroDivisionError

    database.look_up = broken  # type: ignore[method-assign]
    async with database.harness(FakeCloud()).running() as harness:
        harness.launch("again")
        harness.launch("other")
        await harness.until(lambda: len(harness.finished()) == 2)
    [again], [other] = harness.finished("again"), harness.finished("other")
    assert other.success
    assert again.reason == "Internal error of the executor: ZeroDivisionError"
