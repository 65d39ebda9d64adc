"""Whose task instance is whose, with several executors and teams, by the scheduler's rule."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter.commands.fleet import Fleet, Member
from ecs_async_executor.adapter.tries import Try

LOCAL = Member(("LocalExecutor", "airflow.executors.local_executor.LocalExecutor"), None, None)
ECS = Member(("ecs", "ecs_async_executor.AsyncEcsExecutor", "AsyncEcsExecutor"), None, AsyncEcsExecutor())
BATCH = Member(("AsyncBatchExecutor", "ecs_async_executor.AsyncBatchExecutor"), "red", AsyncBatchExecutor())
TEAMS: Mapping[str, str | None] = {"of_red": "red", "of_blue": "blue"}


def whose(dag_id: str, executor: str | None, *members: Member) -> Member | None:
    of = Try(uuid.uuid4(), dag_id, "run", "task", -1, 1, "queued", executor, None, None, None, None, None)
    return Fleet(members, [one for one in members if one.executor is not None]).of(of, TEAMS)


@pytest.mark.parametrize(
    ("dag_id", "executor", "expected"),
    [
        pytest.param("a_dag", None, LOCAL, id="the default"),
        pytest.param("a_dag", "ecs", ECS, id="by its alias"),
        pytest.param("a_dag", "AsyncEcsExecutor", ECS, id="by its class"),
        pytest.param("a_dag", "ecs_async_executor.AsyncEcsExecutor", ECS, id="by its path"),
        pytest.param("of_red", None, BATCH, id="the default of its team"),
        pytest.param("of_red", "ecs", ECS, id="a global one, which every team can name"),
        pytest.param("of_blue", None, LOCAL, id="the default of a team without executors"),
        pytest.param("of_blue", "AsyncBatchExecutor", None, id="not that of another team"),
        pytest.param("a_dag", "AsyncBatchExecutor", None, id="nor without a team"),
    ],
)
def test_the_executor_of_a_task_instance_is_the_one_that_the_scheduler_takes(
    dag_id: str, executor: str | None, expected: Member | None
) -> None:
    assert whose(dag_id, executor, LOCAL, ECS, BATCH) is expected


def test_of_two_executors_with_the_same_name_the_first_that_the_team_may_use_is_taken() -> None:
    own = Member(ECS.names, "red", AsyncEcsExecutor())
    assert whose("of_red", "ecs", LOCAL, ECS, own) is ECS
    assert whose("of_red", "ecs", LOCAL, own, ECS) is own
    assert whose("a_dag", "ecs", LOCAL, own, ECS) is ECS
