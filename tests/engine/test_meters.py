"""What the engine counts and times: totals by operation and result, and samples whose number is bounded."""

from __future__ import annotations

import random
from statistics import mean

import anyio
import pytest

from ecs_async_executor.core.backend import Handle, LaunchSpec, Paced, unpaced
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.metrics import (
    CALL_DURATION,
    DETECTION_DURATION,
    LAUNCH_DURATION,
    START_DURATION,
    Metric,
    Operation,
    Result,
)
from ecs_async_executor.engine.meters import SAMPLES_KEPT, SAMPLES_PER_WINDOW, Meters
from ecs_async_executor.engine.pinging import WINDOW
from ecs_async_executor.engine.session import Session
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import Harness

pytestmark = pytest.mark.anyio

SPEC = LaunchSpec({"label": "a"}, "default", "main", "FARGATE", "ti")
LATENCY = CALL_DURATION[Operation.DESCRIBE]


def samples(meters: Meters, metric: Metric) -> list[float]:
    return [round(seconds, 3) for one, seconds in meters.samples if one is metric]


def test_each_of_a_few_calls_is_a_sample_and_the_window_hands_them_over() -> None:
    meters = Meters()
    for seconds in (0.1, 0.2, 0.3):
        meters.called(Operation.DESCRIBE, Result.OK, seconds)
    assert not meters.samples
    meters.end_window()
    assert samples(meters, LATENCY) == [0.1, 0.2, 0.3]
    meters.end_window()
    assert len(meters.samples) == 3


def test_of_thousands_of_calls_in_a_window_a_few_are_samples_and_each_has_the_same_chance() -> None:
    meters = Meters(random.Random(1))
    taken: list[float] = []
    for _ in range(500):
        for number in range(1000):
            meters.called(Operation.DESCRIBE, Result.OK, float(number))
        meters.end_window()
        assert len(meters.samples) == SAMPLES_PER_WINDOW
        taken += samples(meters, LATENCY)
        meters.samples.clear()
    assert meters.api_calls == 500_000
    assert mean(taken) == pytest.approx(500, rel=0.05)
    assert min(taken) < 20
    assert max(taken) > 980


def test_a_scheduler_that_takes_no_samples_for_long_gets_the_latest() -> None:
    meters = Meters()
    for number in range(SAMPLES_KEPT + 1):
        meters.called(Operation.STOP, Result.OK, float(number))
        meters.end_window()
    assert len(meters.samples) == SAMPLES_KEPT
    assert meters.samples[-1] == (CALL_DURATION[Operation.STOP], float(SAMPLES_KEPT))


async def test_calls_are_counted_by_operation_and_result() -> None:
    meters = Meters()
    answers = {"launch": Kind.THROTTLED, "describe": Kind.REFUSED, "stop": Kind.THROTTLED}

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        kind = answers.get(operation)
        return None if kind is None else BackendError(kind, kind.name, "words")

    session = Session(FakeCloud(fault=fault, latency=0.5), meters, event="cloud.{}".format)
    with pytest.raises(BackendError):
        await session.launch(SPEC, "1")
    with pytest.raises(BackendError):
        await session.describe("default", ["1"])
    del answers["launch"]
    observation = await session.launch(SPEC, "1")
    with pytest.raises(BackendError):
        await session.stop(observation.handle, "why")
    await session.check()
    counts = meters.counts()
    assert {name: total for name, total in counts.items() if total} == {
        "launches": 1,
        "throttles": 2,
        "api.launch.throttled": 1,
        "api.launch.ok": 1,
        "api.describe.error": 1,
        "api.stop.throttled": 1,
        "api.check.ok": 1,
    }
    meters.end_window()
    assert samples(meters, CALL_DURATION[Operation.LAUNCH]) == [0.25, 0.5]


async def test_a_call_that_is_cancelled_has_no_result() -> None:
    meters = Meters()
    session = Session(FakeCloud(latency=60.0), meters, event="cloud.{}".format)
    with anyio.move_on_after(1.0):
        await session.check()
    assert meters.api_calls == 0
    meters.end_window()
    assert not meters.samples


async def test_the_time_of_a_search_leaves_out_its_waits_for_the_rate() -> None:
    class Paged(FakeCloud):
        async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> list[Handle]:
            await anyio.sleep(0.2)
            await paced()
            await anyio.sleep(0.2)
            return []

    async def pacing() -> None:
        await anyio.sleep(30.0)

    meters = Meters()
    session = Session(Paged(), meters, event="cloud.{}".format)
    await session.search("default", "mark", pacing)
    meters.end_window()
    assert samples(meters, CALL_DURATION[Operation.SEARCH]) == [0.4]


async def test_a_launch_is_timed_until_it_is_accepted_runs_and_is_known_to_have_ended() -> None:
    cloud = FakeCloud(latency=0.5, plan=lambda label, nth: Plan(start_after=20.0, duration=30.25))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
        await anyio.sleep(WINDOW + 1.0)
    meters = harness.meters
    [launched] = samples(meters, LAUNCH_DURATION)
    [started] = samples(meters, START_DURATION)
    [detected] = samples(meters, DETECTION_DURATION)
    assert 0.5 <= launched < 1.0
    assert 19.0 <= started <= 21.5  # the cloud accepts half a second before its answer; a sweep takes a second
    assert 0.0 <= detected <= 2.0
    assert meters.counts()["launches"] == 1
