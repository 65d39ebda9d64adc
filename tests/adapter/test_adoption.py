"""Adoption: the scheduler's own code, a real database, a real DAG; and no call to AWS anywhere."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from structlog.testing import capture_logs

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.workloads import AdoptedWorkload
from ecs_async_executor.core.messages import Adopt, AirflowState, Stop
from tests.adapter.interrupted import interrupted_at
from tests.adapter.metadata import TASKS, Metadata, adopt, process_events
from tests.adapter.scripted import ScriptedExecutor, failed, launched, make_workload, queue, states, succeeded

pytestmark = pytest.mark.slow

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/main/0123456789abcdef"
NEXT = "arn:aws:ecs:eu-west-1:123456789012:task/main/fedcba9876543210"


def adopted(executor: Any, database: Metadata) -> list[Adopt]:
    """Adopt and commit as the scheduler does, then let the next heartbeat come."""
    with database.session() as session:
        adopt(executor, session)
    executor.heartbeat()
    found: list[Adopt] = executor.scripted.adoptions
    return sorted(found, key=lambda one: str(one.launch))  # the database has an order of its own


def in_database(database: Metadata) -> dict[str, tuple[str | None, str | None]]:
    with database.session() as session:
        return {
            ti.task_id: (ti.state, ti.external_executor_id)
            for ti in database.tis(session)
            if ti.queued_by_job_id is not None
        }


def test_what_is_adopted_occupies_slots_and_keeps_its_states(executor: Any, database: Metadata) -> None:
    assigned = str(uuid.uuid4())
    ids = database.orphan("queued", "running", "restarting", "queued", external_ids=[assigned, ARN, ARN, None])

    found = adopted(executor, database)

    assert [(one.state, one.handle_id) for one in found] == [
        (AirflowState.QUEUED, None),
        (AirflowState.RUNNING, ARN),
        (AirflowState.RESTARTING, ARN),
        (AirflowState.QUEUED, None),
    ]
    assert [one.launch.started_by for one in found] == [assigned, *(str(ti_id) for ti_id in ids[1:])]
    assert found[0].launch.launch_id == assigned
    assert executor.running == {one.launch.key for one in found}
    assert executor.slots_occupied == 4
    assert [state for state, _ in in_database(database).values()] == ["queued", "running", "restarting", "queued"]


def test_an_identity_that_is_older_than_the_service_remembers_tokens_is_looked_for(
    executor: Any, database: Metadata
) -> None:
    assigned = str(uuid.uuid4())
    long_ago = datetime.now(tz=timezone.utc) - timedelta(minutes=51)
    database.orphan("queued", external_ids=[assigned], queued_dttm=long_ago)
    (one,) = adopted(executor, database)
    assert (one.launch.launch_id, one.launch.started_by) == (assigned, assigned)
    assert not one.launch.tokened
    assert not executor.tracking.spend(assigned)


def test_only_what_could_be_launched_again_has_a_workload(executor: Any, database: Metadata) -> None:
    database.orphan("queued", "running", external_ids=[None, ARN])
    queued, running = adopted(executor, database)
    assert queued.launch.workload.ti.task_id == "task_0"
    log_path = executor.tracking.launches[running.launch.key].log_path(running.launch.key)
    assert running.launch.workload == AdoptedWorkload("queue", {"group": "1"}, log_path=log_path)
    assert "task_0" in str(queued.launch)


def test_an_adopted_launch_gets_a_token_when_it_is_launched(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    (one,) = adopted(executor, database)
    assert one.launch.workload.token == ""
    command = executor.workloads.render(one.launch).request["overrides"]["containerOverrides"][0]["command"]
    assert '"token":"eyJ' in command[-1]


def test_a_rebuilt_workload_is_the_one_that_airflow_made(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    (one,) = adopted(executor, database)
    with database.session() as session:
        ti = database.tis(session)[0]
        made = compat.ExecuteTask.make(ti)
    assert one.launch.workload == made
    assert made.ti.executor_config == {"group": "0"}
    assert one.launch.priority == 1
    assert one.launch.queued_at == pytest.approx(ti.queued_dttm.timestamp())
    assert executor.workloads.render(one.launch).request["group"] == "0"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_adoption_needs_as_many_statements_for_many_as_for_few(
    make_executor: Callable[..., Any], database: Metadata, state: str
) -> None:
    counts = []
    for number in (2, TASKS):
        database.orphan(*[state] * number, external_ids=[ARN] * number)
        executor = make_executor(parallelism=1000)
        with database.session() as session:
            tis = _as_the_scheduler_loads_them(session, number)
            database.statements.clear()
            assert list(executor.try_adopt_task_instances(tis)) == []
            counts.append(len(database.statements))
    assert counts[0] == counts[1]
    assert counts[1] <= 2, database.statements


def _as_the_scheduler_loads_them(session: Session, number: int) -> list[Any]:
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select
    from sqlalchemy.orm import lazyload, load_only

    columns = [
        TaskInstance.id,
        TaskInstance.dag_id,
        TaskInstance.task_id,
        TaskInstance.run_id,
        TaskInstance.map_index,
        TaskInstance.state,
        TaskInstance.external_executor_id,
    ]
    if compat.AIRFLOW_VERSION >= (3, 4):
        # Its wrapper around try_adopt_task_instances() reads the key of each before we are called.
        columns.append(TaskInstance.try_number)
    query = (
        select(TaskInstance)
        .where(TaskInstance.state.in_(["queued", "running"]))
        .options(lazyload(TaskInstance.dag_run), load_only(*columns))
    )
    found = list(session.scalars(query))
    assert len(found) == number
    return found


def test_a_queued_task_instance_that_cannot_be_rebuilt_is_given_back_alone(
    executor: Any, database: Metadata
) -> None:
    database.orphan("queued", "queued", "running", external_ids=[None, None, ARN])
    with database.session() as session:
        first, _, third = database.tis(session)[:3]
        first.dag_version_id = third.dag_version_id = None

    found = adopted(executor, database)

    assert [getattr(one.launch.workload, "ti", None) is not None for one in found] == [True, False]
    assert found[0].launch.workload.ti.task_id == "task_1"
    assert list(in_database(database)) == ["task_1", "task_2"]
    assert executor.slots_occupied == 2


class Unspeakable:
    """What an author can put into an executor_config."""

    def __repr__(self) -> str:
        raise RuntimeError("there are no words for it")


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_task_instance_whose_executor_config_cannot_be_shown_is_adopted_like_any_other(
    executor: Any, database: Metadata, state: str
) -> None:
    database.orphan(state, state, state)
    with database.session() as session:
        tis = _as_the_scheduler_loads_them(session, 3)
        set_committed_value(tis[1], "executor_config", {"cpu": Unspeakable()})
        assert executor.try_adopt_task_instances(tis) == []
    executor.sync()
    routes = {one.launch.route for one in executor.scripted.adoptions}
    assert len(executor.scripted.adoptions) == len(routes) == 3


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_task_instance_that_adopting_raises_for_is_given_back_alone(
    executor: Any, database: Metadata, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle_id(external_id: str) -> str:
        if external_id == "odd":
            raise ValueError("what is this?")
        return external_id

    monkeypatch.setattr(executor.adapter, "handle_id", handle_id)
    database.orphan(state, state, state, external_ids=[ARN, "odd", ARN])
    with database.session() as session:
        tis = _as_the_scheduler_loads_them(session, 3)
        assert executor.try_adopt_task_instances(tis) == [ti for ti in tis if ti.external_executor_id == "odd"]
    with capture_logs() as logs:
        executor.sync()
    assert len(executor.scripted.adoptions) == 2
    assert executor.slots_occupied == 2
    refused = [entry for entry in logs if entry["event"] == "ecs_executor.adoption.refused"]
    assert [entry["reason"] for entry in refused] == ["ValueError: what is this?"]


def test_without_adoption_everything_is_given_back(
    make_executor: Callable[..., Any], database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__ADOPT_TASK_INSTANCES", "False")
    executor = make_executor()
    database.orphan("queued", "running", external_ids=[None, ARN])
    assert adopted(executor, database) == []
    assert in_database(database) == {}
    assert executor.running == set()


def test_nothing_is_handed_over_before_the_transaction_is_over(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    with database.session() as session:
        adopt(executor, session)
        assert executor.scripted.commands == []
    executor.sync()
    assert len(executor.scripted.adoptions) == 1
    executor.sync()
    assert len(executor.scripted.adoptions) == 1


def test_a_repeated_adoption_stages_each_launch_once(executor: Any, database: Metadata) -> None:
    database.orphan("queued", "running", external_ids=[None, ARN])
    with database.session() as session:
        tis = _as_the_scheduler_loads_them(session, 2)
        executor.try_adopt_task_instances(tis)
        executor.try_adopt_task_instances(tis)
    executor.sync()
    assert len(executor.scripted.adoptions) == 2
    assert executor.slots_occupied == 2


def test_what_a_repeated_adoption_no_longer_names_is_never_launched(executor: Any, database: Metadata) -> None:
    database.orphan("queued", "queued")
    with database.session() as session:
        one, two = _as_the_scheduler_loads_them(session, 2)
        executor.try_adopt_task_instances([one, two])
        executor.try_adopt_task_instances([two])
    executor.sync()
    assert [adopt.launch.workload.ti.task_id for adopt in executor.scripted.adoptions] == [two.task_id]
    assert len(executor.running) == 1
    assert len(executor.tracking.launches) == 1


def test_an_adoption_that_is_rolled_back_and_not_repeated_is_forgotten(executor: Any, database: Metadata) -> None:
    database.orphan("queued", "running", external_ids=[None, ARN])
    with database.sessions() as session:
        adopt(executor, session)
        session.rollback()
    executor.sync()
    assert executor.scripted.commands == []
    assert executor.running == set()
    assert executor.tracking.launches == {}


def test_a_rollback_after_the_commit_takes_nothing_back(executor: Any, database: Metadata) -> None:
    database.orphan("running", external_ids=[ARN])
    with database.sessions() as session:
        adopt(executor, session)
        session.commit()
        database.tis(session)
        session.rollback()
    executor.sync()
    assert len(executor.scripted.adoptions) == 1
    assert len(executor.running) == 1


def test_what_is_in_our_ledger_keeps_its_record(executor: Any, database: Metadata) -> None:
    database.orphan("running", external_ids=[ARN])
    (first,) = adopted(executor, database)
    database.orphan("running", external_ids=[ARN])
    adopted(executor, database)
    assert executor.scripted.adoptions == [first]
    executor.scripted.report(succeeded(first.launch))
    executor.sync()
    assert states(executor) == {"task_0": ("success", None)}


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 2), reason="the workload carries no assigned id")
def test_an_adopted_identity_that_is_left_over_makes_no_second_launch_with_the_same_tokens(
    executor: Any, database: Metadata
) -> None:
    assigned = str(uuid.uuid4())
    database.orphan("queued", external_ids=[assigned])
    (first,) = adopted(executor, database)
    assert first.launch.launch_id == assigned
    queue(executor, make_workload("task_0", external_executor_id=assigned))
    executor.heartbeat()
    (second,) = executor.scripted.launches
    assert second.launch_id != assigned
    assert second.started_by == assigned


def test_what_we_queued_ourselves_keeps_its_record(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    with database.session() as session:
        tis = database.tis(session)[:1]
        compat.load_for_adoption(tis)
        queue(executor, *compat.rebuild(tis).values())
    executor.heartbeat()
    assert len(executor.scripted.launches) == 1
    assert adopted(executor, database) == []
    assert len(executor.running) == 1


def test_another_attempt_under_a_key_of_ours_is_adopted_anew(executor: Any, database: Metadata) -> None:
    database.orphan("running", external_ids=[ARN])
    (first,) = adopted(executor, database)
    key, tracked = next(iter(executor.tracking.launches.items()))
    executor.tracking.launches[key] = type(tracked)(tracked.launch_id, uuid.uuid4().int, tracked.queued_at)
    database.orphan("queued")
    second = next(one for one in adopted(executor, database) if one is not first)
    assert second.launch.launch_id != first.launch.launch_id
    executor.scripted.report(failed(first.launch))
    executor.sync()
    assert states(executor) == {}


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_another_scheduler_queued_again_after_its_deferral_is_not_taken_for_our_own_launch(
    executor: Any, database: Metadata, state: str
) -> None:
    """Its first container's end has not been seen here (AWS did not answer); its next one is not ours."""
    database.orphan("running", external_ids=[ARN])
    (first,) = adopted(executor, database)
    # Deferred, resumed, queued again by another scheduler, under an identity of its own; that one died.
    again = str(uuid.uuid4()) if state == "queued" else NEXT
    later = datetime.now(tz=timezone.utc) + timedelta(seconds=60)
    database.orphan(state, external_ids=[again], queued_dttm=later)
    executor.scripted.commands.clear()
    with database.session() as session:
        adopt(executor, session)
        job_id = database.tis(session)[0].queued_by_job_id
    executor.heartbeat()
    executor.scripted.report(succeeded(first.launch))  # now AWS answers again
    executor.sync()
    with database.session() as session:
        process_events(executor, session, job_id)
        [ti] = database.tis(session)[:1]
        assert ti.state == state
    assert states(executor) == {}
    assert [one.launch.launch_id != first.launch.launch_id for one in executor.scripted.adoptions] == [True]


@pytest.mark.parametrize("goes_on", ["ends", "repeats"])
def test_a_system_exit_at_any_statement_of_an_adoption_launches_nothing_and_can_be_repeated(
    make_executor: Callable[..., Any], database: Metadata, goes_on: str
) -> None:
    database.orphan("queued", "running", external_ids=[str(uuid.uuid4()), ARN])
    line = 0
    while True:
        line += 1
        executor = make_executor()
        with database.sessions() as session:
            tis = _as_the_scheduler_loads_them(session, 2)
            interrupted = interrupted_at(line, lambda: executor.try_adopt_task_instances(tis))  # noqa: B023
            session.rollback()
        if not interrupted:
            break
        if goes_on == "repeats":
            with database.session() as session:
                assert list(executor.try_adopt_task_instances(_as_the_scheduler_loads_them(session, 2))) == []
            executor.heartbeat()
        executor.end()
        assert gc.isenabled(), f"line {line}"
        handed_over = [str(one.launch) for one in executor.scripted.adoptions]
        assert len(handed_over) == len(set(handed_over)) == (2 if goes_on == "repeats" else 0), f"line {line}"
        assert not executor.scripted.launches
    assert line > 50


def test_a_database_error_is_the_scheduler_s_to_repeat(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.orphan("queued")
    with database.session() as session:
        tis = _as_the_scheduler_loads_them(session, 1)

        def fail(*_: object, **__: object) -> None:
            raise OperationalError("select", {}, Exception("database is locked"))

        with monkeypatch.context() as patched:
            patched.setattr(session, "scalars", fail)
            with pytest.raises(OperationalError):
                executor.try_adopt_task_instances(tis)
        executor.try_adopt_task_instances(tis)
    executor.sync()
    assert len(executor.scripted.adoptions) == 1


def test_what_waits_to_be_handed_over_outlives_an_adoption_that_names_it_again_and_is_rolled_back(
    executor: Any, database: Metadata
) -> None:
    database.orphan("running", "running", external_ids=[ARN, ARN])
    with database.session() as session:
        adopt(executor, session)
    with database.session() as session:
        assert list(executor.try_adopt_task_instances(database.tis(session)[:2])) == []
        session.rollback()
    executor.heartbeat()
    assert len(executor.scripted.adoptions) == len(executor.running) == 2


def test_revoking_what_was_just_adopted_finds_and_stops_its_container(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    with database.session() as session:
        adopt(executor, session)
    with database.session() as session:
        executor.revoke_task(ti=database.tis(session)[0])
    executor.sync()
    assert [type(command) for command in executor.scripted.commands] == [Adopt, Stop]
    assert executor.slots_occupied == 0


def test_a_system_exit_while_a_staged_launch_is_revoked_loses_neither_it_nor_its_stop(
    make_executor: Callable[..., Any], database: Metadata
) -> None:
    line = 0
    while True:
        line += 1
        database.orphan("queued")
        executor = make_executor()
        with database.session() as session:
            adopt(executor, session)
        with database.session() as session:
            ti = database.tis(session)[0]
            if not interrupted_at(line, lambda: executor.revoke_task(ti=ti)):  # noqa: B023 - called at once
                break
            executor.sync()
            executor.revoke_task(ti=ti)
        kinds = [type(command) for command in executor.scripted.commands]
        assert Adopt in kinds, f"line {line}"
        assert Stop in kinds[kinds.index(Adopt) :], f"line {line}"
    assert line > 5


def test_adopted_then_launched_then_over_is_told_like_any_other(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    (one,) = adopted(executor, database)
    executor.scripted.report(launched(one.launch, "arn:new"))
    executor.heartbeat()
    assert states(executor) == {"task_0": ("running", "arn:new")}
    executor.scripted.report(failed(one.launch, "why"))
    executor.heartbeat()
    assert states(executor) == {"task_0": ("failed", "why")}


def test_the_end_drops_what_was_not_handed_over(executor: Any, database: Metadata) -> None:
    database.orphan("queued")
    with database.session() as session:
        adopt(executor, session)
    executor.end()
    executor.sync()
    assert executor.scripted.commands == []


def test_adopting_nothing_or_before_the_start_gives_everything_back(make_executor: Callable[..., Any]) -> None:
    executor = make_executor(ScriptedExecutor, start=False)
    tis = [make_workload().ti]
    if compat.AIRFLOW_VERSION < (3, 4):
        assert executor.try_adopt_task_instances(tis) == tis
    executor.start()
    assert executor.try_adopt_task_instances([]) == []
    queue(executor, make_workload())


def test_no_garbage_is_collected_while_the_rows_are_locked_for_an_adoption(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.orphan("queued", "running", external_ids=[None, ARN])
    on: list[bool] = []
    rebuild = compat.rebuild

    def noting(tis: Any) -> Any:
        on.append(gc.isenabled())
        return rebuild(tis)

    monkeypatch.setattr(compat, "rebuild", noting)
    assert len(adopted(executor, database)) == 2
    assert (on, gc.isenabled()) == ([False], True)


def test_garbage_is_collected_again_after_an_adoption_that_failed(
    executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.orphan("running", external_ids=[ARN])

    def interrupted(_: object) -> None:
        assert not gc.isenabled()
        raise SystemExit

    monkeypatch.setattr(compat, "load_for_adoption", interrupted)
    with pytest.raises(SystemExit), database.session() as session:
        adopt(executor, session)
    assert gc.isenabled()


def test_an_adoption_leaves_the_garbage_collection_off_that_was_off(executor: Any, database: Metadata) -> None:
    database.orphan("running", external_ids=[ARN])
    gc.disable()
    try:
        assert len(adopted(executor, database)) == 1
        assert not gc.isenabled()
    finally:
        gc.enable()
