"""A bug in the engine is logged, its lane restarts, the other lanes go on, and no launch is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core import table
from ecs_async_executor.core.events import Observed, Replied
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.limiter import Limiter
from ecs_async_executor.core.messages import AirflowState
from ecs_async_executor.engine.intake import Intake
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.pinging import Pinging
from ecs_async_executor.engine.polling import Polling
from ecs_async_executor.engine.searching import SearchLane
from ecs_async_executor.engine.stopping import Stopping
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import Harness, make_launch

pytestmark = pytest.mark.anyio
WHERE: dict[str, tuple[type, str]] = {
    "intake": (Intake, "take"),
    "launching": (Launching, "choose"),
    "polling": (Polling, "sweep"),
    "searching": (SearchLane, "search"),
    "stopping": (Stopping, "next_at"),
    "pinging": (Pinging, "snapshot"),
}
"""What each lane calls again and again, where a bug can be."""


def break_it(monkeypatch: pytest.MonkeyPatch, lane: str, times: float) -> Callable[[], int]:
    """Have a lane meet a bug so many times in a row; return what counts how often it has."""
    owner, name = WHERE[lane]
    original: Any = getattr(owner, name)
    met = 0

    def broken(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal met
        if met < times:
            met += 1
            raise KeyError("a bug")
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, broken)
    return lambda: met


def failures(logs: Any) -> set[str]:
    return {entry["lane"] for entry in logs if entry["event"].endswith("engine.lane_failed")}


async def everything(harness: Harness) -> tuple[str, str]:
    """Give every lane something to do; return the launch that runs on and the one that is revoked."""
    revoked = harness.launch("revoked")
    harness.launch("done")
    harness.launch("done as well")
    found = make_launch("found", tokened=False)
    harness.adopt(found, AirflowState.RUNNING)
    harness.engine.wake()
    await anyio.sleep(1.5)
    harness.stop(revoked)
    return found.launch_id, revoked


@pytest.mark.parametrize("lane", WHERE)
@pytest.mark.parametrize("times", [1, 20])
async def test_a_lane_that_meets_a_bug_starts_again_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, lane: str, times: int
) -> None:
    def plan(label: str, nth: int) -> Plan:
        return Plan(start_after=1.0, duration=4000.0 if label == "revoked" else 5.0)

    cloud = FakeCloud(plan=plan)
    harness = Harness(cloud)
    met = break_it(monkeypatch, lane, times)
    with capture_logs() as logs:
        async with harness.running():
            await everything(harness)
            await harness.until(lambda: not harness.inbox and harness.is_idle() and not harness.owes_stops())
    assert met() == times
    assert lane in failures(logs)
    assert failures(logs) <= {lane, "polling_young"}, "no other lane is the worse for it"
    assert {(r.key, r.success) for r in harness.finished()} == {
        ("done", True),
        ("done as well", True),
        ("found", False),  # nobody had launched it
    }
    assert {label: len(cloud.of(label)) for label in ("done", "done as well", "found")} == {
        "done": 1,
        "done as well": 1,
        "found": 0,
    }
    # Where the lane did not get to it before it was revoked, there is none.
    assert [c.stop_reasons for c in cloud.of("revoked")] in ([["revoked"]], [])


@pytest.mark.parametrize("lane", ["polling", "searching", "stopping", "pinging"])
async def test_a_lane_that_meets_a_bug_each_time_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1.0, duration=5.0))
    harness = Harness(cloud)
    break_it(monkeypatch, lane, float("inf"))
    with capture_logs() as logs:
        async with harness.running():
            await everything(harness)
            await anyio.sleep(60.0)
    assert lane in failures(logs)
    assert len(cloud.containers) == 3, "launches go on"
    ended = {r.key: r.success for r in harness.finished()}
    if lane != "polling":
        assert ended.items() >= {("done", True), ("done as well", True)}
    if lane != "searching":
        assert ended.items() >= {("found", False)}
    # What the broken lane did not get to is still known, and would be done by the next loop thread.
    still = {launch.label for launch in harness.launches()}
    assert still | set(ended) >= {"done", "done as well", "found"}


async def test_a_look_up_that_a_bug_interrupts_is_made_again() -> None:
    class Cloud(FakeCloud):
        bugs = 1

        def scope_of(self, handle_id: str | None) -> str:
            if self.bugs:
                self.bugs -= 1
                raise ZeroDivisionError
            return super().scope_of(handle_id)

    cloud = Cloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("a"), AirflowState.RUNNING, "container-77")
        await harness.until_finished("a", timeout=300)


async def test_a_command_that_a_bug_interrupts_has_one_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Ledger._carry_out
    bugs = [1]

    def carry_out(self: Ledger, *args: Any) -> None:
        if bugs:
            bugs.pop()
            raise MemoryError
        real(self, *args)

    monkeypatch.setattr(Ledger, "_carry_out", carry_out)
    cloud = FakeCloud()
    harness = Harness(cloud)
    async with harness.running():
        harness.launch("a")
        await harness.until_finished("a")
    harness.new_loop()
    async with harness.running():
        await anyio.sleep(60)
    assert len(harness.finished("a")) == 1
    assert not cloud.of("a")
    assert harness.is_idle()


async def test_a_container_whose_reply_could_not_be_taken_in_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = table.step

    def step(tracked: Any, event: Any, now: float, rules: Any) -> Any:
        if isinstance(event, Replied):
            raise KeyError("unparsable")
        return real(tracked, event, now, rules)

    monkeypatch.setattr("ecs_async_executor.core.ledger.step", step)
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
        await harness.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60)


async def test_one_bad_observation_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real = table.step

    def step(tracked: Any, event: Any, now: float, rules: Any) -> Any:
        if isinstance(event, Observed) and tracked.launch.label == "w7":
            raise KeyError("unparsable")
        return real(tracked, event, now, rules)

    monkeypatch.setattr("ecs_async_executor.core.ledger.step", step)
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 100)
    failed = [f for f in harness.finished() if not f.success]
    assert [(f.key, f.reason) for f in failed] == [("w7", "Internal error of the executor: KeyError")]


async def test_a_bug_in_taking_one_answer_in_ends_no_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Limiter, *arguments: Any) -> None:
        raise KeyError("a bug")

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600))
    async with Harness(cloud).running() as harness:
        harness.launch("before")
        await harness.until_launched("before")
        with monkeypatch.context() as patch:
            patch.setattr(Limiter, "launch_succeeded", broken)
            harness.launch("a")
            finished = await harness.until_finished("a")
            assert finished.reason == "Internal error of the executor: KeyError"
            await harness.until(lambda: cloud.of("a")[0].stop_reasons)
        with monkeypatch.context() as patch:
            patch.setattr(Limiter, "stop_succeeded", broken)
            harness.stop(harness.launch("b"))
            await anyio.sleep(5)
        harness.launch("after")
        await harness.until_finished("after")
        await harness.until(lambda: not harness.owes_stops(), timeout=300)
