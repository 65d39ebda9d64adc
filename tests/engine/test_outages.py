"""Credentials that do not work, or a service that does not answer: launches wait, and people are told why."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import BackendError
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    DENIED,
    EXPIRED,
    NO_MEMORY,
    THROTTLED,
    TIMED_OUT,
    UNSENT,
    failing,
)
from tests.engine.harness import RULES, Harness

pytestmark = pytest.mark.anyio


async def test_expired_credentials_pause_everything_and_fail_nothing() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        return EXPIRED if 2 <= anyio.current_time() < 600 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(duration=30))
    async with Harness(cloud).running() as harness:
        harness.launch("before")
        await anyio.sleep(5)
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(500)
        assert sum(cloud.calls.values()) < 120, "one probe at a time"
        assert "The security token is expired" in (harness.snapshots[-1].paused or "")
        await harness.until(lambda: len(harness.finished()) == 101)
    assert all(f.success for f in harness.finished())


async def test_a_refusal_of_another_kind_shows_that_the_credentials_are_good_again() -> None:
    cloud = FakeCloud()
    cloud.fault = lambda operation, _: (
        None if operation != "launch" else (EXPIRED if anyio.current_time() < 20 else NO_MEMORY)
    )
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        assert harness.snapshots[-1].paused
        await anyio.sleep(60)
        assert not harness.snapshots[-1].paused
        assert harness.snapshots[-1].closed_gates == 1


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
        await harness.until_finished("a")
        paused["after"] = harness.snapshots[-1].paused
    assert notice.unlaunched
    assert notice.text == "The container waits: ECS gives no answer: ReadTimeoutError: Read timeout"
    assert paused == {
        "before": None,
        "in it": "AWS does not answer: ReadTimeoutError: Read timeout",
        "after": None,
    }


@pytest.mark.parametrize("repeatable", [True, False], ids=["client tokens", "no client tokens"])
async def test_what_never_left_is_launched_after_an_outage_of_hours_without_a_search(repeatable: bool) -> None:
    cloud = FakeCloud(repeatable=repeatable, fault=failing("launch", UNSENT, until=7200))
    async with Harness(cloud, rules=replace(RULES, repeatable=repeatable)).running() as harness:
        for name in "abcd":
            harness.launch(name)
        await anyio.sleep(90)
        paused = [harness.snapshots[-1].paused]
        assert harness.snapshots[-1].in_doubt == 0
        [notice] = harness.notices("a")
        assert "gives no answer: EndpointConnectionError" in notice.text
        await anyio.sleep(7200 + 30 - 90)
        for name in "abcd":
            assert (await harness.until_finished(name)).success
        paused.append(harness.snapshots[-1].paused)
    assert paused == [f"AWS does not answer: {UNSENT}", None]
    assert cloud.calls["search"] == 0
    assert len(cloud.containers) == 4


async def test_a_request_that_never_leaves_again_stays_in_doubt() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation == "launch:after":
            return TIMED_OUT  # the first request is carried out, its answer lost
        return UNSENT if operation == "launch" and cloud.containers and anyio.current_time() < 300 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(duration=1000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(200)
        assert harness.snapshots[-1].in_doubt == 1
        cloud.fault = failing("launch", UNSENT, until=300)
        assert (await harness.until_finished("a")).success
    assert len(cloud.containers) == 1
    assert harness.rendered == ["a"]


@pytest.mark.parametrize("error", [THROTTLED, DENIED, TIMED_OUT], ids=lambda error: error.code)
async def test_launches_go_on_while_nothing_can_be_described_and_a_refusal_is_logged(error: BackendError) -> None:
    cloud = FakeCloud(fault=failing("describe", error, until=600))
    with capture_logs() as logs:
        async with Harness(cloud).running() as harness:
            for n in range(50):
                harness.launch(f"w{n}")
            await anyio.sleep(60)
            assert cloud.calls["launch"] == 50
            assert not harness.finished()
            await harness.until(lambda: len(harness.finished()) == 50)
    assert all(finished.success for finished in harness.finished())
    told = [line["reason"] for line in logs if line["event"] == "cloud_executor.read.failed"]
    assert error is THROTTLED or error.message in told[0]
    assert len(told) <= 11, "once a minute is enough"
