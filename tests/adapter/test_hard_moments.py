"""
The whole executor at the moments that are hardest: over a local ECS on real sockets, without a scheduler.

What needs a whole Airflow (a SIGKILL in a burst, between a deferral's end and its RunTask, after a clear) is in
tests/e2e/test_ha.py.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.engine import rendering
from ecs_async_executor.local import LocalEcs
from tests.adapter.heartbeats import Heartbeats
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
