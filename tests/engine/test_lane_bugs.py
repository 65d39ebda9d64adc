"""A bug in one lane of the engine: it is told, the lane starts again, the others go on, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.messages import Was
from ecs_async_executor.engine.intake import Intake
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.pinging import Pinging
from ecs_async_executor.engine.polling import Polling
from ecs_async_executor.engine.searching import Searching
from ecs_async_executor.engine.stopping import Stopping
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import Harness, make_launch
from tests.engine.virtual_time import run

WHERE: dict[str, tuple[type, str]] = {
    "intake": (Intake, "take"),
    "launching": (Launching, "choose"),
    "polling": (Polling, "sweep"),
    "searching": (Searching, "search"),
    "stopping": (Stopping, "next_at"),
    "pinging": (Pinging, "snapshot"),
}
"""What each lane calls again and again, where a bug can be."""


def break_it(monkeypatch: pytest.MonkeyPatch, lane: str, times: float) -> Callable[[], int]:
    """Have a lane meet a bug so many times in a row; return what counts how often it has."""
    owner, name = WHERE[lane]
    original: Any = getattr(owner, name)
    met = 0

    def broken(self: Any, *arguments: Any) -> Any:
        nonlocal met
        if met < times:
            met += 1
            raise KeyError("a bug")
        return original(self, *arguments)

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
    harness.adopt(found, Was.RUNNING)
    harness.engine.wake()
    await anyio.sleep(1.5)
    harness.stop(revoked)
    return found.launch_id, revoked


@pytest.mark.parametrize("lane", WHERE)
@pytest.mark.parametrize("times", [1, 20])
def test_a_lane_that_meets_a_bug_starts_again_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, lane: str, times: int
) -> None:
    def plan(label: str, nth: int) -> Plan:
        return Plan(start_after=1.0, duration=4000.0 if label == "revoked" else 5.0)

    async def main() -> None:
        cloud = FakeCloud(plan=plan)
        harness = Harness(cloud)
        met = break_it(monkeypatch, lane, times)
        with capture_logs() as logs:
            async with harness.running():
                await everything(harness)
                await harness.until(lambda: not (harness.inbox or harness.ledger.records or harness.ledger.stops))
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

    run(main)


@pytest.mark.parametrize("lane", ["polling", "searching", "stopping", "pinging"])
def test_a_lane_that_meets_a_bug_each_time_holds_up_no_other(monkeypatch: pytest.MonkeyPatch, lane: str) -> None:
    async def main() -> None:
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
        still = {str(record.launch) for record in harness.ledger.records.values()}
        assert still | set(ended) >= {"done", "done as well", "found"}

    run(main)
