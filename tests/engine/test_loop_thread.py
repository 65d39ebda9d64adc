"""The loop thread: its start, its death, a stall, and a fork of the process."""

from __future__ import annotations

import gc
import os
import threading
import time

import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Service
from ecs_async_executor.engine import loop_thread
from ecs_async_executor.services.batch import SERVICE as BATCH
from ecs_async_executor.services.ecs import SERVICE as ECS
from tests.engine.bridged import DEADLY, Scheduler, Unopenable, a_launch, die
from tests.engine.cloud import FakeCloud


def test_start_does_no_io_on_the_callers_thread(cloud: FakeCloud) -> None:
    made_on: list[str] = []

    def backend() -> FakeCloud:
        made_on.append(threading.current_thread().name)
        return cloud

    scheduler = Scheduler(cloud, backend=backend)
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert made_on == ["ecs-async-executor ECS"]


def test_without_a_client_everything_waits_and_nothing_fails(cloud: FakeCloud, quick_restarts: None) -> None:
    attempts = iter([Unopenable(), Unopenable()])
    scheduler = Scheduler(cloud, backend=lambda: next(attempts, cloud))
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    time.sleep(0.05)
    assert "cannot be opened" in (scheduler.bridge.statistics().paused or "")
    scheduler.until(scheduler.outcomes)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert scheduler.outcomes() == {"a": True}
    assert scheduler.bridge.statistics().restarts == 0


@pytest.mark.parametrize("service", [ECS, BATCH], ids=["ECS", "Batch"])
def test_without_a_backend_everything_waits_and_the_check_says_why(
    cloud: FakeCloud, service: Service, quick_restarts: None
) -> None:
    broken = threading.Event()
    broken.set()

    def backend() -> FakeCloud:
        if broken.is_set():
            raise RuntimeError("cannot be made")
        return cloud

    scheduler = Scheduler(cloud, service=service, backend=backend)
    scheduler.bridge.start()
    with pytest.raises(RuntimeError, match="cannot be made"):
        scheduler.bridge.check(5)
    scheduler.bridge.submit(a_launch("a"))
    scheduler.heartbeat()
    assert "cannot be made" in (scheduler.bridge.statistics().paused or "")
    broken.clear()
    scheduler.until(scheduler.outcomes)
    assert scheduler.outcomes() == {"a": True}
    assert scheduler.bridge.statistics().restarts == 0
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")


@DEADLY
def test_a_dead_loop_thread_is_replaced_and_what_it_was_sending_runs_once(
    cloud: FakeCloud, quick_restarts: None
) -> None:
    cloud.latency = 0.3
    kills = 3

    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    for n in range(40):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    with capture_logs() as logs:
        for _ in range(kills):
            scheduler.until(scheduler.works)
            time.sleep(0.2)
            thread = scheduler.bridge.loop_thread.thread
            assert thread is not None
            scheduler.bridge.loop_thread.tell(die)
            thread.join(5)
            assert not thread.is_alive()
        scheduler.until(lambda: len(scheduler.outcomes()) == 40)
    assert scheduler.bridge.statistics().restarts == kills
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert all(scheduler.outcomes().values())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(40))
    assert sum(entry["event"] == "ecs_executor.engine.died" for entry in logs) == kills
    gc.collect()  # here, where it is known what never began


def test_a_stalled_loop_is_reported_with_its_stack_and_never_replaced(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_thread, "STALL_SECONDS", 0.7)
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    woken = threading.Event()
    scheduler.bridge.loop_thread.tell(lambda _: woken.wait(10))
    thread = scheduler.bridge.loop_thread.thread
    with capture_logs() as logs:
        deadline = time.monotonic() + 10
        while not logs and time.monotonic() < deadline:
            scheduler.heartbeat()
            time.sleep(0.05)
    assert [entry["event"] for entry in logs] == ["ecs_executor.engine.stalled"]
    assert "threading.py" in logs[0]["stack"]
    scheduler.until(lambda: scheduler.bridge.statistics().loop_lag > 0)
    woken.set()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    assert scheduler.bridge.loop_thread.thread is thread


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forks_child_leaves_the_parents_loop_alone(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            scheduler.bridge.submit(a_launch("in the child"))
            scheduler.bridge.heartbeat()
            scheduler.bridge.drain(lambda report: None)
            code = 0 if scheduler.bridge.stop(5, stop_containers=True, reason="child") else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    assert set(scheduler.outcomes()) == {"a"}
