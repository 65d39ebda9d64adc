"""What the commands can be pointed at, and what is said of what they cannot."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.adapter.commands.fleet import fleet
from ecs_async_executor.adapter.commands.targets import NoTarget, Target, resolve, resolve_one
from tests.adapter.steering import DAG, Place, forget_executors

Open = Callable[..., Place]
pytestmark = pytest.mark.slow

ARN = "arn:aws:ecs:us-east-1:123456789012:task/main/" + "a" * 32
JOB = "11111111-2222-3333-4444-555555555555"


def arguments(*target: str, **changes: Any) -> Namespace:
    given = {"map_index": None, "try_number": None, "service": None, "team": None} | changes
    return Namespace(target=list(target), **given)


def one(*target: str, **changes: Any) -> Target:
    given = arguments(*target, **changes)
    return resolve_one(fleet(given), given)


def refused(*target: str, **changes: Any) -> str:
    with pytest.raises(NoTarget) as error:
        one(*target, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_container_is_found_by_arn_by_id_and_by_its_task_instance(place: Open) -> None:
    at = place("ecs", runner="scripted")
    at.set(0, state="running", external_executor_id=ARN)
    for words in ([ARN], ["a" * 32], at.target(0)):
        found = one(*words)
        assert found.handle_id == ARN
        assert found.of is not None
        assert (found.of.task_id, found.of.number) == ("task_0", 1)


def test_a_job_is_found_by_id_and_by_its_task_instance(place: Open) -> None:
    at = place("batch", runner="scripted")
    at.set(0, state="running", external_executor_id=JOB)
    for words in ([JOB], at.target(0)):
        assert one(*words).handle_id == JOB


def test_an_identity_that_airflow_has_assigned_is_no_container(place: Open) -> None:
    at = place("ecs", runner="scripted")
    at.set(0, state="queued", external_executor_id=JOB)
    found = one(*at.target(0))
    assert found.handle_id is None
    with pytest.raises(NoTarget, match="is queued, and Airflow knows no container of it"):
        _ = found.container


def test_an_earlier_try_is_found_by_its_number_and_by_its_container(place: Open) -> None:
    at = place("ecs", runner="scripted")
    at.set(0, state="running", external_executor_id=ARN)
    at.next_try(0)
    for found in (one(*at.target(0), try_number=1), one(ARN)):
        assert found.handle_id == ARN
        assert found.of is not None
        assert (found.of.number, found.of.earlier) == (1, True)
    assert one(*at.target(0)).handle_id is None
    assert "does not know try 7" in (said := refused(*at.target(0), try_number=7))
    assert said.endswith("it knows 1, 2.")


def test_a_mapped_task_needs_the_index(place: Open) -> None:
    at = place("ecs", runner="scripted")
    at.database.orphan_mapped(ARN, None, None)
    with at.database.session() as session:  # the unmapped one is no more than its template here
        session.delete(next(ti for ti in at.database.tis(session) if ti.task_id == "task_0" and ti.map_index < 0))
    said = refused(*at.target(0))
    assert "has 3 task instances in this run: choose one with --map-index (0, 1, 2)" in said
    assert one(*at.target(0), map_index=0).handle_id == ARN
    assert "has no map index 9 in this run: it has 0, 1, 2." in refused(*at.target(0), map_index=9)


def test_what_airflow_does_not_know_is_told_apart(place: Open) -> None:
    at = place("ecs", runner="scripted")
    assert refused("adoptd", at.run_id, "task_0") == (
        "Airflow knows no task instance of a DAG 'adoptd'; did you mean 'adopted'?"
    )
    assert refused(DAG, "never", "task_0") == f"DAG 'adopted' has no run 'never': its latest are {at.run_id}."
    assert "has no task 'nothing': it has task_0, task_1, " in refused(DAG, at.run_id, "nothing")


def test_what_has_no_form_of_a_target_is_refused_with_the_forms(place: Open) -> None:
    place("ecs", runner="scripted")
    assert "'one' is no target: name an ECS task's ARN or id, a Batch job's id, or DAG_ID" in refused("one", "two")
    assert "is not the ARN of an ECS task" in refused("arn:aws:lambda:us-east-1:1:function:x")
    assert "no executor for Batch is configured" in refused(JOB)
    assert "takes one target" in refused(ARN, ARN)
    assert "belong to DAG_ID RUN_ID TASK_ID" in refused(ARN, map_index=1)


def test_another_executors_task_instance_names_that_executor(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    at = place("ecs", runner="scripted")
    monkeypatch.setenv(
        "AIRFLOW__CORE__EXECUTOR",
        "LocalExecutor,ecs_async_executor.AsyncEcsExecutor,ecs_async_executor.AsyncBatchExecutor",
    )
    forget_executors()
    assert "belongs to LocalExecutor, which is none of this package" in refused(*at.target(0))
    at.set(0, executor="AsyncBatchExecutor", external_executor_id=JOB)
    assert one(*at.target(0)).member.service == "Batch"
    assert "leave out --service" in refused(*at.target(0), service="ecs")
    at.set(0, executor="Nobody")
    assert "names the executor 'Nobody', which is not configured here" in refused(*at.target(0))


def test_each_of_several_containers_is_found_or_refused_alone(place: Open) -> None:
    at = place("ecs", runner="scripted")
    at.set(0, state="running", external_executor_id=ARN)
    given = arguments(ARN, "arn:aws:ecs:nowhere", ARN[:-1] + "b")
    found = resolve(fleet(given), given)
    assert [type(each) for each in found] == [Target, NoTarget, Target]
    assert isinstance(found[2], Target)
    assert found[2].of is None
