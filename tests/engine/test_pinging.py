"""What the engine says of itself, in its snapshots and, once a minute, in the log."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import BackendError, Kind
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import failing
from tests.engine.harness import Harness

pytestmark = pytest.mark.anyio

NO_MEMORY = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no container instance met all of its requirements")
DENIED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:RunTask")
THROTTLED = BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded")


def work_lines(logs: Any) -> list[Any]:
    return [line for line in logs if line["event"] == "cloud_executor.work"]


async def test_while_there_is_work_a_line_a_minute_says_what_and_an_idle_engine_says_nothing() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=150.0))
    with capture_logs() as logs:
        async with Harness(cloud).running() as harness:
            await anyio.sleep(300.0)
            assert work_lines(logs) == []
            harness.launch("a")
            harness.launch("b")
            await harness.until_finished("a")
            await anyio.sleep(600.0)
    lines = work_lines(logs)
    assert [line["active"] for line in lines[1:]] == [2, 2]
    assert {line["log_level"] for line in lines} == {"info"}
    assert lines[1].keys() >= {
        "pending",
        "launching",
        "launch_rate",
        "throttled",
        "closed_gates",
        "oldest_unlaunched",
    }


async def test_the_line_counts_the_throttles_since_the_line_before() -> None:
    cloud = FakeCloud(fault=failing("launch", THROTTLED, until=90.0))
    with capture_logs() as logs:
        async with Harness(cloud).running() as harness:
            harness.launch("a")
            await harness.until_finished("a")
        throttles = harness.meters.throttles
    lines = work_lines(logs)
    assert len(lines) >= 2
    assert all(0 < line["throttled"] < throttles for line in lines)
    assert sum(line["throttled"] for line in lines) <= throttles
    assert lines[1]["oldest_unlaunched"] == pytest.approx(60.0, abs=1.0)


async def test_the_snapshot_has_the_longest_wait_at_a_gate_of_each_kind() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation != "launch":
            return None
        return NO_MEMORY if cloud.calls["launch"] == 1 or anyio.current_time() > 50.0 else DENIED

    async with Harness(FakeCloud(fault=fault)).running() as harness:
        harness.launch("a", route="full")
        await harness.until(lambda: harness.snapshots and harness.snapshots[-1].closed_gates == 1)
        await anyio.sleep(3.0)
        harness.launch("b", route="denied")
        await harness.until(lambda: harness.snapshots[-1].closed_gates == 2)
        latest = harness.snapshots[-1]
        assert 3.0 <= latest.capacity_wait < 5.0
        assert 0.0 < latest.refused_wait < 2.0


async def test_the_notices_of_launches_at_a_closed_gate_name_its_placement_and_what_they_wait_for() -> None:
    async with Harness(FakeCloud(fault=failing("launch", NO_MEMORY))).running() as harness:
        for number in range(100):
            harness.launch(f"w{number}")
        await harness.until(lambda: all(harness.notices(f"w{number}") for number in range(100)), timeout=60.0)
        notices = [one for number in range(100) for one in harness.notices(f"w{number}")]
    assert {(one.about, one.placement) for one in notices} == {("no capacity: RESOURCE:MEMORY", "main")}
