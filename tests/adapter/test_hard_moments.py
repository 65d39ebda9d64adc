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
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest
from structlog.testing import capture_logs

pytest.importorskip("moto", reason="needs the extra 'local'")

from airflow import settings as airflow_settings

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.engine import rendering
from ecs_async_executor.local import LocalEcs
from tests.adapter.metadata import Job, Metadata, adopt
from tests.adapter.scripted import make_workload, queue

pytestmark = pytest.mark.slow

ASSIGNED = compat.AIRFLOW_VERSION >= (3, 2)
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

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.states: Counter[str] = Counter()
        self.last: dict[Any, str] = {}
        self.info: dict[Any, Any] = {}
        self.walls: list[float] = []

    def until(self, done: Callable[[], object], timeout: float = 180.0) -> None:
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
    ecs = local_ecs(script=[{"duration": 4.0}])
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
        # A busy machine may take the processor away from some; the hook would take a minute.
        assert sorted(beats.walls)[len(beats.walls) * 9 // 10] < 0.05
        assert max(beats.walls) < 20

        began = time.monotonic()
        executor.end()
        assert time.monotonic() - began < executor.adapter.tuning.shutdown_timeout + 20
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


def test_a_hook_that_hangs_is_named_where_people_look_and_nothing_more_is_taken(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "HANGS_SECONDS", 0.5)
    local_ecs(script=[{"duration": 0.2}])
    Blocking.entered.clear()
    Blocking.release.clear()
    executor: Any = started(Blocking)
    beats = Heartbeats(executor)
    workload = make_workload("blocked")
    with capture_logs() as logs:
        try:
            queue(executor, workload)
            beats.until(lambda: "a hook hangs over" in str(executor.statistics().paused))
            beats.during(1)
            assert "blocked" in str(executor.statistics().paused)
            assert executor.slots_available == 0
            with pytest.raises(NotImplementedError):
                executor.revoke_task(ti=workload.ti)
        finally:
            Blocking.release.set()
        beats.until(lambda: beats.states["success"] == 1)
        beats.until(lambda: executor.statistics().paused is None)
    hangs, returned = [line for line in logs if "hook" in line["event"]]
    assert (hangs["event"], returned["event"]) == ("ecs_executor.hook.hangs", "ecs_executor.hook.returned")
    assert "self.release.wait(60)" in hangs["stack"]
    assert workload.token not in str(logs)


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


@dataclass(frozen=True)
class Stall:
    """
    How long the main thread of one scheduler does nothing, and what its launches then are.

    :param threshold: ``scheduler_health_check_threshold``: after so long another scheduler adopts
    :param capacity: the service has capacity for what is not launched yet
    """

    cls: type[AsyncEcsExecutor | AsyncBatchExecutor]
    seconds: float
    threshold: int
    tokens: bool = False
    capacity: bool = True
    launches: int = 200


class WithoutTokens(AsyncEcsExecutor):
    """Airflow assigns no identity, as before 3.2.2."""

    pre_assigns_external_executor_id = False


@pytest.mark.parametrize(
    "stall",
    [
        pytest.param(
            Stall(AsyncEcsExecutor, 40.0, 30, tokens=True, launches=500),
            marks=pytest.mark.skipif(not ASSIGNED, reason="Airflow assigns no identity"),
            id="tokens",
        ),
        pytest.param(Stall(WithoutTokens, 12.0, 9), id="no tokens"),
        pytest.param(Stall(WithoutTokens, 12.0, 9, capacity=False), id="no tokens, no capacity"),
        pytest.param(Stall(AsyncBatchExecutor, 12.0, 9), id="Batch"),
    ],
)
def test_a_main_thread_stalls_with_hundreds_unlaunched_while_a_peer_adopts_and_each_has_one_container(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
    stall: Stall,
) -> None:
    monkeypatch.setattr(airflow_settings, "NonScopedSession", database.sessions)
    monkeypatch.setenv("AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD", str(stall.threshold))

    def start(rate: str) -> Any:
        for service in ("ECS", "BATCH"):
            monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__LAUNCH_RATE", rate)
            monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__LAUNCH_RATE_MAX", rate)
        return started(stall.cls, parallelism=2 * stall.launches)

    def sign_of_life(state: str) -> None:
        with database.session() as session:
            job: Any = session.get(Job, stalled.job_id)
            job.state, job.latest_heartbeat = state, datetime.now(tz=timezone.utc)

    ecs = local_ecs(script=[{"duration": 20.0}])
    identities = [str(uuid.uuid4()) if stall.tokens else None for _ in range(stall.launches)]
    database.orphan_mapped(*identities)
    # The peer repeats what has been launched already before it comes to what has not.
    stalled, peer = start("12"), start("40")
    with database.session() as session:
        tis = database.mapped(session)
        ids = [str(ti.id) for ti in tis]
        stalled.job_id = tis[0].queued_by_job_id
        compat.load_for_adoption(tis)
        queue(stalled, *compat.rebuild(tis).values())
    first, second = Heartbeats(stalled), Heartbeats(peer)
    first.until(lambda: len(ecs.ledger) >= 20)
    if not stall.capacity:
        ecs.faults.no_capacity(lasting=stall.seconds + 10)

    # The main thread does nothing from here on: no heartbeat, no event drained.
    stalls_at = time.monotonic()
    second.during(stall.threshold + 1)
    launched_by_stalled = len(ecs.ledger)
    assert launched_by_stalled < stall.launches, "the stalled one launched to the end"
    sign_of_life("failed")
    with database.session() as session:
        assert adopt(peer, session) == 0
    second.during(stall.seconds - (time.monotonic() - stalls_at))
    assert len(ecs.ledger) < stall.launches, "nothing was left that both could launch"

    # Both go on, and both believed that they own the rest. The scheduler's sign of life comes a little later.
    both = threading.Thread(target=second.until, args=(lambda: second.states["success"] >= stall.launches, 120))
    both.start()
    first.during(0.5)
    assert stalled.statistics().paused
    sign_of_life("running")
    first.until(lambda: not stalled.running, 120)
    both.join()

    entries = ecs.ledger.entries()
    marks = Counter(entry.started_by for entry in entries)
    if stall.tokens:
        assert marks == dict.fromkeys(identities, 1)
    else:
        assert len(entries) == stall.launches
        assert all(sum(ti_id in mark for mark in marks) == 1 for ti_id in ids)
    assert set(first.last.values()) <= {"running", "success"}
    assert set(second.last.values()) == {"success"}
    assert len(second.last) == stall.launches
    print(  # noqa: T201
        f"stalled after {launched_by_stalled} of {stall.launches}; requests answered with a container "
        f"that was there: {sum(entry.replays for entry in entries)}, conflicts are not counted"
    )
