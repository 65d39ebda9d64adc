"""The end of a bridge at moments that nobody would choose: bounded, repeatable, and nothing launched after it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from ecs_async_executor.engine.engine import Engine
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.test_bridge import Scheduler, _die, a_launch

QUICKLY = 3.0
"""Far less than the ten seconds that each end may take here."""


class Unopenable(FakeCloud):
    def open(self) -> AbstractAsyncContextManager[None]:
        raise RuntimeError("cannot be opened")


class HangsWhenClosed(FakeCloud):
    def open(self) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[None]:
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(8)

        return opened()


def slow_cloud() -> FakeCloud:
    return FakeCloud(latency=0.02, plan=lambda label, nth: Plan(start_after=0.05, duration=1000))


def seconds_of(what: Callable[[], bool]) -> tuple[bool, float]:
    began = time.monotonic()
    return what(), time.monotonic() - began


def test_the_end_without_a_client_does_not_wait_for_one() -> None:
    scheduler = Scheduler(slow_cloud(), backend=Unopenable)
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(lambda: "cannot be opened" in (scheduler.bridge.statistics().paused or ""))
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))
    assert done
    assert seconds < QUICKLY


def test_the_end_right_after_the_start_leaves_no_container_running() -> None:
    for _ in range(20):
        scheduler = Scheduler(slow_cloud())
        scheduler.bridge.start()
        scheduler.bridge.submit(a_launch("a"))
        scheduler.heartbeat()
        done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))  # noqa: B023
        assert done
        assert seconds < QUICKLY
        assert all(container.stop_reasons == ["x"] for container in scheduler.cloud.containers.values())


def test_the_end_of_a_dead_loop_says_that_it_is_not_done() -> None:
    scheduler = Scheduler(slow_cloud())
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(lambda: scheduler.reports)
    thread = scheduler.bridge.loop_thread.thread
    assert thread is not None
    scheduler.bridge.loop_thread.tell(_die)
    thread.join(5)
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))
    assert not done
    assert seconds < QUICKLY


@pytest.mark.parametrize("stop_containers", [True, False])
def test_the_end_of_a_stalled_loop_is_bounded_each_time_and_nothing_is_launched_when_it_wakes(
    stop_containers: bool,
) -> None:
    scheduler = Scheduler(slow_cloud())
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    woken, stalled = threading.Event(), threading.Event()
    thread = scheduler.bridge.loop_thread.thread
    assert thread is not None

    def stall(_: Engine) -> None:
        stalled.set()
        woken.wait(30)

    scheduler.bridge.loop_thread.tell(stall)
    assert stalled.wait(5)
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(3, stop_containers=stop_containers, reason="x"))
    assert not done
    assert seconds < 4
    scheduler.bridge.submit(a_launch("late"))
    assert not scheduler.bridge.stop(1, stop_containers=stop_containers, reason="x")
    woken.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not scheduler.cloud.containers


def test_the_end_does_not_wait_for_a_client_that_does_not_close() -> None:
    scheduler = Scheduler(slow_cloud(), backend=HangsWhenClosed)
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    _, seconds = seconds_of(lambda: scheduler.bridge.stop(3, stop_containers=False, reason="x"))
    assert seconds < 4
