"""The last lines of failed containers: read slowly, bounded, and never in anybody's way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import LastWords, PostMortem, Report
from ecs_async_executor.core.metrics import LOG_READS_DROPPED
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.postmortems import (
    CONCURRENCY,
    INTERVAL,
    LINGER,
    TIMEOUT,
    WAITING_MAX,
    PostMortems,
    Read,
    Reading,
)
from ecs_async_executor.engine.wakeup import Wakeup
from tests.engine.bridged import DEADLY, Scheduler, a_launch, die
from tests.engine.cloud import FakeCloud, Plan


def dead(number: int) -> PostMortem:
    return PostMortem(f"id-{number}", f"key-{number}", f"arn-{number}", Ending.EXIT, reason="exited 1")


def held_open(read: Read) -> Reading:
    @asynccontextmanager
    async def reading() -> AsyncIterator[Read]:
        yield read

    return reading


class Lane:
    """The lane alone, and what it did."""

    def __init__(self, read: Read) -> None:
        self.waiting: deque[PostMortem] = deque()
        self.outbox: deque[Report] = deque()
        self.meters = Meters()
        self.reading = held_open(read)
        self._wakeup = Wakeup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Lane]:
        async with anyio.create_task_group() as tasks:
            self.lane = PostMortems(
                waiting=self.waiting,
                reading=self.reading,
                outbox=self.outbox,
                wakeup=self._wakeup,
                meters=self.meters,
                event="executor.{}".format,
            )
            tasks.start_soon(self.lane.run)
            yield self
            tasks.cancel_scope.cancel()

    def add(self, *numbers: int) -> None:
        self.waiting.extend(map(dead, numbers))
        self.lane.wake()

    def told(self) -> list[str]:
        return [report.launch_id for report in self.outbox if isinstance(report, LastWords)]

    @property
    def dropped(self) -> int:
        return self.meters.counts()[LOG_READS_DROPPED.name]


class Slow:
    """Reads that take their time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.begun: list[float] = []
        self.at_once = 0
        self.most = 0

    async def __call__(self, dead: PostMortem) -> str:
        self.begun.append(anyio.current_time())
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        return f"{dead.handle_id} said so"


@pytest.mark.anyio
async def test_what_a_container_printed_last_is_reported_with_its_key() -> None:
    async with Lane(Slow()).running() as lane:
        lane.add(1)
        await anyio.sleep(0.1)
        assert list(lane.outbox) == [LastWords("id-1", "key-1", "arn-1 said so")]


@pytest.mark.anyio
async def test_reads_are_two_a_second_and_two_at_a_time() -> None:
    quick, slow = Slow(), Slow(seconds=10.0)
    async with Lane(quick).running() as lane:
        lane.add(*range(10))
        await anyio.sleep(60.0)
        assert lane.told() == [f"id-{number}" for number in range(10)]
    assert quick.begun == pytest.approx([quick.begun[0] + number * INTERVAL for number in range(10)])
    async with Lane(slow).running() as lane:
        lane.add(*range(10))
        await anyio.sleep(60.0)
    assert slow.most == CONCURRENCY


@pytest.mark.anyio
async def test_of_too_many_the_newest_are_dropped_and_counted() -> None:
    async with Lane(Slow(seconds=1.0)).running() as lane:
        lane.add(*range(WAITING_MAX + 50))
        await anyio.sleep(3600.0)
        assert lane.told() == [f"id-{number}" for number in range(WAITING_MAX)]
        assert lane.dropped == 50
        lane.add(1000)
        await anyio.sleep(10.0)
        assert lane.told()[-1] == "id-1000"


@pytest.mark.anyio
async def test_a_read_that_hangs_is_given_up_and_holds_up_no_other_for_ever() -> None:
    async def read(dead: PostMortem) -> str:
        if dead.key in {"key-0", "key-1"}:
            await anyio.sleep_forever()
        return "said so"

    async with Lane(read).running() as lane:
        lane.add(0, 1, 2)
        with capture_logs() as lines:
            await anyio.sleep(TIMEOUT + INTERVAL + 0.1)
        assert lane.told() == ["id-2"]
        assert [line["handle"] for line in lines if line["event"] == "executor.last_words.hang"] == [
            "arn-0",
            "arn-1",
        ]


@pytest.mark.anyio
async def test_a_bug_in_a_read_is_logged_and_ends_that_one_alone() -> None:
    async def read(dead: PostMortem) -> str:
        if dead.key == "key-0":
            raise RuntimeError("a bug")
        return "said so"

    async with Lane(read).running() as lane:
        with capture_logs() as lines:
            lane.add(0, 1)
            await anyio.sleep(5.0)
        assert lane.told() == ["id-1"]
        assert [(line["event"], line["handle"]) for line in lines] == [("executor.last_words.failed", "arn-0")]


@pytest.mark.anyio
async def test_at_the_end_what_waits_and_what_is_being_read_is_dropped_and_counted() -> None:
    async with Lane(Slow(seconds=10.0)).running() as lane:
        lane.add(*range(5))
        await anyio.sleep(1.0)
        lane.lane.drain()
        assert (len(lane.waiting), lane.dropped) == (0, 3)
        lane.add(5)
        await anyio.sleep(1.0)
        assert (lane.told(), lane.dropped) == ([], 4)
    assert (lane.told(), lane.dropped) == ([], 6)


@pytest.mark.anyio
async def test_what_reads_need_is_open_for_a_burst_and_closed_after_it() -> None:
    open_at: list[tuple[float, float]] = []

    @asynccontextmanager
    async def reading() -> AsyncIterator[Read]:
        began = anyio.current_time()
        try:
            yield Slow()
        finally:
            open_at.append((began, anyio.current_time()))

    lane = Lane(Slow())
    lane.reading = reading
    async with lane.running():
        for number in range(3):
            lane.add(number)
            await anyio.sleep(LINGER / 2)
        await anyio.sleep(1000.0)
        lane.add(4)
        await anyio.sleep(1.0)
    assert open_at == [pytest.approx((0.0, 2 * LINGER)), pytest.approx((1000 + 1.5 * LINGER, 1001 + 1.5 * LINGER))]
    assert len(lane.told()) == 4


def test_a_read_that_hangs_delays_neither_outcomes_nor_the_end() -> None:
    hung: list[str] = []

    async def read(dead: PostMortem) -> str:
        hung.append(dead.handle_id)
        await anyio.sleep_forever()
        raise AssertionError

    cloud = FakeCloud(latency=0.01, plan=lambda label, nth: Plan(start_after=0.02, duration=0.05))
    scheduler = Scheduler(cloud, last_words=held_open(read))
    scheduler.bridge.start()
    scheduler.bridge.examine(dead(1))
    scheduler.until(lambda: hung)
    for number in range(20):
        scheduler.bridge.submit(a_launch(f"a-{number}"))
        scheduler.bridge.examine(dead(number))
    scheduler.until(lambda: len(scheduler.outcomes()) == 20)
    began = time.monotonic()
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert time.monotonic() - began < 2.0
    assert scheduler.bridge.statistics().counts[LOG_READS_DROPPED.name] == 21


@DEADLY
def test_what_waits_outlives_a_dead_loop_thread(quick_restarts: None) -> None:
    async def read(dead: PostMortem) -> str:
        return f"{dead.handle_id} said so"

    scheduler = Scheduler(FakeCloud(), last_words=held_open(read))
    scheduler.bridge.start()
    scheduler.until(scheduler.works)
    scheduler.bridge.loop_thread.tell(die)
    scheduler.bridge.examine(dead(1))
    scheduler.until(lambda: LastWords("id-1", "key-1", "arn-1 said so") in scheduler.reports)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
