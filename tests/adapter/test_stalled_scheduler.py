"""
A scheduler's main thread that stalls with hundreds of launches unlaunched, over a local service on real sockets.

Another scheduler adopts them meanwhile; then both go on.
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

pytest.importorskip("moto", reason="needs the extra 'local'")

from airflow import settings as airflow_settings

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import LocalEcs
from tests.adapter.heartbeats import Heartbeats
from tests.adapter.metadata import Job, Metadata, adopt
from tests.adapter.scripted import queue

pytestmark = pytest.mark.slow

ASSIGNED = compat.AIRFLOW_VERSION >= (3, 2)
"""Whether workloads carry an identity that Airflow assigned (3.2.2 and later)."""


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
