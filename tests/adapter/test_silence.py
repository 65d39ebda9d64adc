"""A scheduler that was silent for too long asks the database which launches are still its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow import settings as airflow_settings
from structlog.testing import capture_logs

from ecs_async_executor.adapter import compat, ownership
from ecs_async_executor.core.messages import Release
from tests.adapter.metadata import Job, Metadata, adopt
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor, launched, queue, states

pytestmark = pytest.mark.slow

SERVICES = pytest.mark.parametrize("cls", [ScriptedExecutor, ScriptedBatchExecutor])


@pytest.fixture(autouse=True)
def of_airflow(database: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is Airflow's own, and it may be asked with every heartbeat."""
    monkeypatch.setattr(airflow_settings, "NonScopedSession", database.sessions)
    monkeypatch.setattr(ownership, "CHECK_INTERVAL", 0.0)


def queued_by_us(executor: Any, database: Metadata, number: int) -> list[Any]:
    """Have our scheduler queue so many task instances, and the executor take them; return their ids."""
    database.orphan(*["queued"] * number)
    with database.session() as session:
        tis = database.tis(session)[:number]
        executor.job_id = tis[0].queued_by_job_id
        compat.load_for_adoption(tis)
        queue(executor, *compat.rebuild(tis).values())
    executor.heartbeat()
    launches = {launch.workload.ti.task_id: launch.workload.ti.id for launch in executor.scripted.launches}
    return [launches[f"task_{task}"] for task in range(number)]


def sign_of_life(executor: Any, database: Metadata, *, state: str = "running", age: float = 0.0) -> None:
    with database.session() as session:
        job: Any = session.get(Job, executor.job_id)
        job.state = state
        job.latest_heartbeat = datetime.now(tz=timezone.utc) - timedelta(seconds=age)


def peer_adopts(make_executor: Callable[..., Any], database: Metadata, *, but: int = 0) -> Any:
    """Have another scheduler adopt, with Airflow's own code, all task instances but so many."""
    peer = make_executor()
    with database.session() as session:
        spared = [ti for ti in database.tis(session) if str(ti.state) == "queued"][:but]
        for ti in spared:
            ti.state = "success"
        session.flush()
        assert adopt(peer, session) == 0
        for ti in spared:
            ti.state = "queued"
    return peer


@SERVICES
def test_what_another_has_adopted_is_let_go_and_the_rest_is_launched(
    make_executor: Callable[..., Any], database: Metadata, cls: type[Any]
) -> None:
    executor = make_executor(cls)
    ids = queued_by_us(executor, database, 5)
    keys = {launch.workload.ti.id: launch.key for launch in executor.scripted.launches}
    executor.scripted.silent = True
    peer_adopts(make_executor, database, but=2)
    sign_of_life(executor, database)

    executor.heartbeat()

    by_id = {launch.launch_id: launch.workload.ti.id for launch in executor.scripted.launches}
    assert {by_id[one.launch_id] for one in executor.scripted.releases} == set(ids[2:])
    assert executor.running == {keys[one] for one in ids[:2]}
    assert executor.slots_occupied == 2
    assert executor.scripted.calls[-1] == "heartbeat"
    assert executor.scripted.stops == []


def test_a_late_report_of_what_was_let_go_is_no_event(
    executor: Any, make_executor: Callable[..., Any], database: Metadata
) -> None:
    queued_by_us(executor, database, 2)
    one, two = executor.scripted.launches
    executor.scripted.report(launched(one))
    executor.scripted.silent = True
    executor.scripted.unstarted = lambda: {one.launch_id, two.launch_id}
    peer_adopts(make_executor, database)
    sign_of_life(executor, database)
    executor.heartbeat()
    assert len(executor.scripted.releases) == 2
    executor.scripted.report(launched(two))
    executor.heartbeat()
    assert states(executor) == {}


@pytest.mark.parametrize(("state", "age"), [("failed", 0.0), ("running", 60.0)])
def test_nothing_is_launched_as_long_as_others_can_take_this_scheduler_for_dead(
    executor: Any, make_executor: Callable[..., Any], database: Metadata, state: str, age: float
) -> None:
    queued_by_us(executor, database, 3)
    executor.scripted.silent = True
    sign_of_life(executor, database, state=state, age=age)
    for _ in range(3):
        executor.heartbeat()
        assert executor.scripted.calls[-1] == "heartbeat, launching nothing"
    peer_adopts(make_executor, database)
    sign_of_life(executor, database)
    executor.heartbeat()
    assert len(executor.scripted.releases) == 3
    assert executor.scripted.calls[-1] == "heartbeat"


def test_what_was_waiting_for_a_slot_is_forgotten_if_another_has_adopted_it(
    make_executor: Callable[..., Any], database: Metadata
) -> None:
    executor = make_executor(parallelism=1)
    database.orphan("queued", "queued", "queued")
    with database.session() as session:
        tis = database.tis(session)[:3]
        executor.job_id = tis[0].queued_by_job_id
        compat.load_for_adoption(tis)
        queue(executor, *compat.rebuild(tis).values())
    executor.heartbeat()
    assert len(compat.queued_keys(executor)) == 2
    executor.scripted.silent = True
    peer_adopts(make_executor, database, but=1)
    sign_of_life(executor, database)
    executor.heartbeat()
    executor.heartbeat()
    assert [launch.workload.ti.task_id for launch in executor.scripted.launches] == ["task_2", "task_0"]


@pytest.mark.parametrize("state", ["success", "failed", "scheduled", None])
def test_what_is_past_its_launch_is_let_go(executor: Any, database: Metadata, state: str | None) -> None:
    queued_by_us(executor, database, 1)
    with database.session() as session:
        database.tis(session)[0].state = state
    executor.scripted.silent = True
    sign_of_life(executor, database)
    executor.heartbeat()
    assert [type(one) for one in executor.scripted.releases] == [Release]
    assert executor.running == set()


def test_what_runs_is_not_asked_for(executor: Any, make_executor: Callable[..., Any], database: Metadata) -> None:
    queued_by_us(executor, database, 1)
    executor.scripted.report(launched(executor.scripted.launches[0]))
    executor.heartbeat()
    executor.scripted.silent = True
    peer_adopts(make_executor, database)
    database.statements.clear()
    executor.heartbeat()
    assert database.statements == []
    assert executor.scripted.calls[-1] == "heartbeat"
    assert len(executor.running) == 1


def test_a_database_without_an_answer_is_asked_for_a_while_and_then_what_is_held_is_looked_for(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued_by_us(executor, database, 1)

    def refuse() -> None:
        raise OSError("no route to the database")

    monkeypatch.setattr(airflow_settings, "NonScopedSession", refuse)
    executor.scripted.silent = True
    executor.scripted.calls.clear()
    with capture_logs() as lines:
        for _ in range(ownership.CHECK_TRIES):
            executor.heartbeat()
    assert executor.scripted.calls == [
        *["heartbeat, launching nothing"] * (ownership.CHECK_TRIES - 1),
        "heartbeat",
    ]
    assert executor.scripted.releases == []
    assert {line["event"] for line in lines} == {"ecs_executor.ownership.unknown"}


def test_the_database_is_asked_once_a_second_at_most(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "CHECK_INTERVAL", 3600.0)
    queued_by_us(executor, database, 1)
    executor.scripted.silent = True
    sign_of_life(executor, database, age=60.0)
    database.statements.clear()
    for _ in range(5):
        executor.heartbeat()
    assert len(database.statements) == 1
    assert executor.scripted.calls[-1] == "heartbeat, launching nothing"


def test_a_heartbeat_after_no_silence_asks_the_database_nothing(executor: Any, database: Metadata) -> None:
    queued_by_us(executor, database, 3)
    sign_of_life(executor, database)
    database.statements.clear()
    executor.heartbeat()
    assert database.statements == []


def test_a_silence_costs_as_many_statements_for_many_launches_as_for_few(
    make_executor: Callable[..., Any], database: Metadata
) -> None:
    counts = []
    for number in (2, 40):
        executor = make_executor(parallelism=1000)
        queued_by_us(executor, database, number)
        sign_of_life(executor, database)
        executor.scripted.silent = True
        database.statements.clear()
        executor.heartbeat()
        assert executor.scripted.releases == []
        counts.append(len(database.statements))
    assert counts == [2, 2]


def test_a_scheduler_whose_loops_take_25_s_launches(executor: Any, database: Metadata) -> None:
    """Between 20 and 30 s nobody takes it for dead; its sign of life comes after the executor's heartbeat."""
    queued_by_us(executor, database, 3)
    executor.scripted.calls.clear()
    for _ in range(5):
        executor.scripted.silent = True
        sign_of_life(executor, database, age=25.0)
        executor.heartbeat()
    assert executor.scripted.calls == ["heartbeat"] * 5


def test_a_scheduler_whose_loops_take_40_s_launches_half_a_minute_after_it_asked(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only scheduler, whom nobody can take for dead."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    queued_by_us(executor, database, 3)
    executor.scripted.calls.clear()
    executor.scripted.silent = True
    for _ in range(3):
        now += 40.0
        sign_of_life(executor, database, age=40.0)
        executor.heartbeat()
    assert "heartbeat" in executor.scripted.calls
