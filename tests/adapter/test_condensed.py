"""Workloads wait as text: the container gets the same, and garbage collections have nothing to go through."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.condensed import CondensedWorkload, condensed
from ecs_async_executor.core.messages import Adopt, AirflowState, Launch
from tests.adapter.scripted import ScriptedExecutor, make_callback, make_workload, queue

KEY = TaskInstanceKey("dag", "task", "run", 1, -1)


def launch_of(executor: Any, workload: Any) -> Launch:
    queue(executor, workload)
    executor.heartbeat()
    launch: Launch = executor.scripted.launches[-1]
    return launch


def workload_in(executor: Any, launch: Launch) -> Any:
    return json.loads(
        executor.workloads.render(launch).request["overrides"]["containerOverrides"][0]["command"][-1]
    )


@pytest.mark.parametrize(
    "of_ti",
    [
        {},
        {"queue": "a", "executor_config": {"cpu": 1}},
        {"context_carrier": {"token": "eyJstale.eyJstale.stale", '"token":""': '"token":""'}},
    ],
)
def test_a_container_gets_the_same_from_a_workload_that_has_waited_as_text(
    executor: Any, of_ti: dict[str, Any]
) -> None:
    minted = executor.jwt_generator.generate({"sub": "the task instance"})
    workload = make_workload(**of_ti).model_copy(update={"token": minted})
    launch = launch_of(executor, workload)
    text = condensed(KEY, workload)
    assert text is not None
    whole = executor.workloads.render(launch)
    again = executor.workloads.render(launch.evolve(workload=text))
    assert (again.request, again.expires_at, again.scope) == (whole.request, whole.expires_at, whole.scope)


@pytest.mark.parametrize("token", ["eyJstale.eyJstale.stale", ""])
def test_a_workload_that_has_waited_as_text_gets_a_new_jwt_in_place_of_an_old_one(
    executor: Any, token: str
) -> None:
    workload = make_workload().model_copy(update={"token": token})
    launch = launch_of(executor, workload)
    sent = workload_in(executor, launch.evolve(workload=condensed(KEY, workload)))
    assert compat.jwt_expiry(sent["token"]) is not None
    assert {**sent, "token": token} == json.loads(workload.model_dump_json())


def test_a_workload_as_text_shows_no_jwt() -> None:
    workload = make_workload()
    text = condensed(KEY, workload)
    assert workload.token not in repr(text)
    assert str(workload.ti.id) in repr(text)


def test_a_workload_stays_whole_where_text_would_lose_something() -> None:
    assert (
        condensed(str(make_workload().ti.id), make_workload()) is None
    )  # the key does not name the task instance
    if compat.AIRFLOW_VERSION >= (3, 3):
        assert condensed("callback", make_callback()) is None
        assert condensed(KEY, make_callback()) is None


def test_an_overridden_hook_sees_a_workload_whole(make_executor: Callable[..., Any]) -> None:
    class Own(ScriptedExecutor):
        @staticmethod
        def _serialize_workload_to_command(workload: Any) -> list[str]:
            return ["run", workload.ti.task_id]

    executor = make_executor(Own)
    launch = launch_of(executor, make_workload())
    assert executor.workloads.condense(launch) is launch


@pytest.mark.skipif(compat.AIRFLOW_VERSION >= (3, 4), reason="keys there do not name the task instance")
def test_no_garbage_collection_goes_through_launches_or_what_they_wait_with(executor: Any) -> None:
    launch = executor.workloads.condense(launch_of(executor, make_workload()))
    assert isinstance(launch.workload, CondensedWorkload)
    adopt = Adopt(launch, AirflowState.QUEUED, None)
    assert not any(gc.is_tracked(one) for one in (adopt, launch, launch.workload))
    assert not any(gc.is_tracked(getattr(launch.workload, name)) for name in CondensedWorkload.__struct_fields__)
