"""
The whole executor at the moments that are hardest: over a local ECS on real sockets, without a scheduler.

What needs a whole Airflow (a SIGKILL in a burst, between a deferral's end and its RunTask, after a clear) is in
tests/e2e/test_ha.py.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor, airflow_compat
from ecs_async_executor.local import LocalEcs
from tests.airflow.metadata import Metadata, adopt
from tests.airflow.scripted import make_workload, queue

pytestmark = pytest.mark.slow

ASSIGNED = airflow_compat.AIRFLOW_VERSION >= (3, 2)
"""Whether workloads carry an identity that Airflow assigned (3.2.2 and later)."""


class Blocking(AsyncEcsExecutor):
    """A subclass whose hook waits, for a workload that says so."""

    entered = threading.Event()
    release = threading.Event()

    def _run_task_kwargs(self, task_id: Any, cmd: list[str], *more: Any) -> dict[str, Any]:
        if '"task_id":"blocked"' in cmd[-1]:
            self.entered.set()
            assert self.release.wait(60)
        return super()._run_task_kwargs(task_id, cmd, *more)


class Heartbeats:
    """A scheduler's heartbeats: how long they took, and which events they brought."""

    def __init__(self, executor: AsyncEcsExecutor) -> None:
        self.executor = executor
        self.states: Counter[str] = Counter()
        self.last: dict[Any, str] = {}
        self.info: dict[Any, Any] = {}
        self.walls: list[float] = []

    def until(self, done: Callable[[], object], timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, (self.states, self.executor.statistics())
            began = time.perf_counter()
            self.executor.heartbeat()
            self.walls.append(time.perf_counter() - began)
            for key, (state, info) in self.executor.get_event_buffer().items():
                self.states[str(state)] += 1
                self.last[key] = str(state)
                self.info[key] = info
            time.sleep(0.01)

    def during(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until, seconds + 30)


def test_an_overridden_run_task_kwargs_that_blocks_holds_up_neither_heartbeats_nor_polls_nor_the_end(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = local_ecs(script=[{"duration": 1.5}])
    Blocking.entered.clear()
    Blocking.release.clear()
    executor = started(Blocking)
    beats = Heartbeats(executor)
    try:
        queue(executor, make_workload("before"))
        beats.until(lambda: beats.states["running"])
        queue(executor, make_workload("blocked"))
        beats.until(Blocking.entered.is_set)
        assert beats.states["success"] == 0
        beats.until(lambda: beats.states["success"] == 1)
        assert len(ecs.ledger) == 1
        assert sorted(beats.walls)[-3] < 0.05

        began = time.monotonic()
        executor.end()
        assert time.monotonic() - began < executor.tuning.shutdown_timeout + 1
    finally:
        Blocking.release.set()
    time.sleep(0.2)
    assert len(ecs.ledger) == 1, "launched after the end"


def test_workloads_behind_a_hook_that_blocked_are_launched_once_it_returns(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = local_ecs(script=[{"duration": 0.2}])
    Blocking.entered.clear()
    Blocking.release.clear()
    executor = started(Blocking)
    beats = Heartbeats(executor)
    try:
        queue(executor, make_workload("blocked", priority_weight=2), make_workload("behind"))
        beats.until(Blocking.entered.is_set)
        beats.during(1)
        assert len(ecs.ledger) == 0
    finally:
        Blocking.release.set()
    beats.until(lambda: beats.states["success"] == 2)
    assert len(ecs.ledger) == 2


def test_an_ambiguous_run_task_is_resolved_after_its_token_of_airflows_has_expired(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Far less than the minute that a token must have left to be sent again: each send is a new request.
    for section in ("EXECUTION_API__JWT_EXPIRATION_TIME", "SCHEDULER__TASK_QUEUED_TIMEOUT"):
        monkeypatch.setenv(f"AIRFLOW__{section}", "2")
    ecs = local_ecs(script=[{"duration": 8.0}])
    # The first is carried out and its answer lost; then nothing gets through until the token is too old.
    ecs.faults.reset_after("RunTask", count=1)
    ecs.faults.reset_before("RunTask", lasting=5.0)
    executor = started()
    beats = Heartbeats(executor)
    workload = make_workload(external_executor_id=str(uuid.uuid4())) if ASSIGNED else make_workload()
    queue(executor, workload)
    began = time.monotonic()

    beats.until(lambda: beats.states["running"])
    assert time.monotonic() - began > 3.0, "the token had not expired"
    beats.until(lambda: beats.states["success"])

    [entry] = ecs.ledger.entries()
    assert list(beats.last.values()) == ["success"]
    assert entry.token.endswith("-1")


STALLED = 500
STALL_SECONDS = 40.0


@pytest.mark.skipif(not ASSIGNED, reason="before Airflow 3.2.2 a launch's identity is its scheduler's own")
def test_a_main_thread_stalls_40_s_with_500_unlaunched_while_a_peer_adopts_and_each_has_one_container(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(rate: str) -> AsyncEcsExecutor:
        monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE", rate)
        monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE_MAX", rate)
        return started(parallelism=2 * STALLED)

    ecs = local_ecs(script=[{"duration": 20.0}])
    identities = [str(uuid.uuid4()) for _ in range(STALLED)]
    database.orphan_mapped(*identities)
    # The peer repeats what has been launched already before it comes to what has not.
    stalled, peer = start("12"), start("40")
    with database.session() as session:
        tis = database.mapped(session)
        airflow_compat.load_for_adoption(tis)
        queue(stalled, *airflow_compat.rebuild(tis).values())
    first, second = Heartbeats(stalled), Heartbeats(peer)
    first.until(lambda: len(ecs.ledger) >= 20)

    # The main thread does nothing from here on: no heartbeat, no event drained. After 30 s a peer may adopt.
    stalls_at = time.monotonic()
    second.during(31)
    launched_by_stalled = len(ecs.ledger)
    assert launched_by_stalled < STALLED, "the stalled one launched to the end"
    with database.session() as session:
        assert adopt(peer, session) == 0
    second.during(STALL_SECONDS - (time.monotonic() - stalls_at))
    assert launched_by_stalled < len(ecs.ledger) < STALLED, "nothing was left that both could launch"

    # Both go on, and both believe that they own the rest.
    both = threading.Thread(target=second.until, args=(lambda: second.states["success"] >= STALLED, 120))
    both.start()
    first.until(lambda: first.states["success"] >= STALLED, 120)
    both.join()

    entries = ecs.ledger.entries()
    assert Counter(entry.started_by for entry in entries) == dict.fromkeys(identities, 1)
    assert set(first.last.values()) == set(second.last.values()) == {"success"}
    assert len(second.last) == STALLED
    print(  # noqa: T201
        f"stalled after {launched_by_stalled} of {STALLED}; requests answered with a container that was there: "
        f"{sum(entry.replays for entry in entries)}, conflicts are not counted"
    )
