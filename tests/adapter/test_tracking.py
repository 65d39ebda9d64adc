"""What the main thread keeps of a launch, and what launches share."""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict
from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter.adoption import LAUNCHES_PER_LOOK
from ecs_async_executor.adapter.tracking import SHARED_TEXTS_KEPT, Tracking
from ecs_async_executor.core.messages import Adopt, AirflowState, Launch
from tests.adapter.scripted import launched, make_workload, queue


def own(text: str) -> str:
    """Return an equal text that is another object."""
    return text.encode().decode()


def a_key(number: int = 0, task_id: str = "load", map_index: int = -1) -> TaskInstanceKey:
    """Make a key as the database's driver does: with texts of its own."""
    return TaskInstanceKey(own("warehouse"), task_id, f"scheduled__2026-11-2{number % 9}", 1, map_index)


def track(tracking: Tracking, key: Any, log_path: str | None) -> None:
    launch = Launch(str(uuid.uuid4()), key, make_workload(), 0, "mark", 0.0)
    launch.workload.log_path = log_path
    tracking.add(key, launch, uuid.uuid4())


def test_keys_of_one_run_share_its_names_and_stay_what_they_were() -> None:
    tracking = Tracking()
    keys = [a_key(), a_key()]
    assert keys[0].dag_id is not keys[1].dag_id
    one, other = map(tracking.shared, keys)
    assert (one, other) == tuple(keys)
    assert type(one) is TaskInstanceKey
    assert one.dag_id is other.dag_id
    assert one.run_id is other.run_id


def test_a_key_that_names_no_task_instance_is_left_alone() -> None:
    key = object()
    assert Tracking().shared(key) is key


def test_names_that_nothing_has_any_more_are_not_kept_for_ever() -> None:
    tracking = Tracking()
    for number in range(3 * SHARED_TEXTS_KEPT):
        tracking.shared(TaskInstanceKey("dag", "task", f"run {number}"))
    assert tracking._share.cache_info().currsize == SHARED_TEXTS_KEPT


def test_names_in_use_stay_shared_however_many_others_come_and_go() -> None:
    tracking = Tracking()
    keys = [TaskInstanceKey(f"dag {1:d}", "task", f"run {number}") for number in range(3 * SHARED_TEXTS_KEPT)]
    assert keys[0].dag_id is not keys[-1].dag_id
    shared = [tracking.shared(key) for key in keys]
    assert shared[0].dag_id is shared[-1].dag_id


@pytest.mark.parametrize(
    "path",
    [
        "dag_id=warehouse/run_id=scheduled__2026-11-20/task_id=load/attempt=1.log",
        "dag_id=warehouse/run_id=scheduled__2026-11-20/task_id=load/map_index=7/attempt=1.log",
        "load/warehouse/load.log",
        "a template of a user's own",
        "",
        None,
    ],
)
@pytest.mark.parametrize("task_id", ["load", "warehouse", "a", "1"])
def test_the_path_of_a_log_is_the_same_before_and_after_its_container_is_known(
    path: str | None, task_id: str
) -> None:
    tracking, key = Tracking(), a_key(task_id=task_id)
    track(tracking, key, path)
    assert tracking.launches[key].log_path(key) == path
    for _ in range(2):  # a report can be applied twice
        tracking.has_container(key)
        assert tracking.launches[key].log_path(key) == path


def test_containers_of_one_task_keep_one_text_for_the_paths_of_their_logs() -> None:
    tracking = Tracking()
    keys = [a_key(number) for number in range(5)]
    for key in keys:
        track(tracking, key, f"dag_id={key.dag_id}/run_id={key.run_id}/task_id={key.task_id}/attempt=1.log")
        tracking.has_container(key)
    assert len({id(tracking.launches[key].log) for key in keys}) == 1
    assert len({tracking.launches[key].log_path(key) for key in keys}) == 5


def test_what_an_executor_follows_shares_its_names(executor: Any, bridge: Any) -> None:
    queue(executor, *(make_workload(own("load"), run_id=f"run {number}") for number in range(3)))
    executor.heartbeat()
    bridge.report(*map(launched, bridge.launches))
    executor.heartbeat()
    assert len({id(key.task_id) for key in executor.running}) == 1
    for key in executor.running:
        assert any(key is launch.key for launch in bridge.launches)
        assert any(key is known for known in executor.tracking.launches)


@pytest.mark.parametrize("handed_over", [False, True])
def test_launches_that_were_staged_leave_no_room_behind(executor: Any, bridge: Any, handed_over: bool) -> None:
    staged = executor.tracking.staged
    empty = staged.__sizeof__()
    keys = [a_key(task_id=f"task_{number}") for number in range(100)]
    for key in keys:
        launch = Launch(str(uuid.uuid4()), key, None, 0, "mark", 0.0)
        executor.tracking.stage(key, Adopt(launch, AirflowState.RUNNING, "arn"), uuid.uuid4(), committed=True)
    assert staged.__sizeof__() > empty
    if handed_over:
        while staged:  # as many heartbeats as it takes
            executor.sync()
        assert [adoption.launch.key for adoption in bridge.adoptions] == keys
    else:
        for key in keys:
            executor.tracking.forget(key)
    assert staged.__sizeof__() == empty


def test_an_adoption_is_handed_over_in_portions_and_outlives_the_next_one(executor: Any, bridge: Any) -> None:
    tracking = executor.tracking
    keys = [a_key(task_id=f"task_{number}") for number in range(3 * LAUNCHES_PER_LOOK)]
    for key in keys:
        launch = Launch(str(uuid.uuid4()), key, None, 0, "mark", 0.0)
        tracking.stage(key, Adopt(launch, AirflowState.RUNNING, "arn"), uuid.uuid4(), committed=True)
    executor._adoption.hand_over(bridge, budget=0.0)
    assert [adoption.launch.key for adoption in bridge.adoptions] == keys[:LAUNCHES_PER_LOOK]
    executor._adoption._replace_stage({}, None)
    while tracking.staged:
        executor._adoption.hand_over(bridge, budget=0.0)
    assert [adoption.launch.key for adoption in bridge.adoptions] == keys


class Counted(OrderedDict[Any, Any]):
    """Counts the entries that are looked at."""

    seen = 0

    def items(self) -> Any:
        for item in super().items():
            self.seen += 1
            yield item


def test_handing_an_adoption_over_looks_at_each_launch_once(executor: Any, bridge: Any) -> None:
    tracking = executor.tracking
    # Of a plain dictionary the first entry is looked for among all that were taken out before.
    assert type(tracking.staged) is OrderedDict
    tracking.staged = Counted()
    for number in range(1000):
        key = a_key(task_id=f"task_{number}")
        launch = Launch(str(uuid.uuid4()), key, None, 0, "mark", 0.0)
        tracking.stage(key, Adopt(launch, AirflowState.RUNNING, "arn"), uuid.uuid4(), committed=True)
    tracking.staged.seen = 0
    executor._adoption.hand_over(bridge, budget=math.inf)
    assert len(bridge.adoptions) == 1000
    assert tracking.staged.seen == 1000


def test_a_key_that_is_queued_again_before_its_adoption_was_handed_over_is_handed_over_first(
    executor: Any, bridge: Any
) -> None:
    workload = make_workload("load")
    adopted = Launch(str(uuid.uuid4()), workload.ti.key, None, 0, "mark", 0.0)
    adopt = Adopt(adopted, AirflowState.RUNNING, "arn")
    executor.tracking.stage(workload.ti.key, adopt, uuid.uuid4(), committed=True)
    queue(executor, workload)
    executor.heartbeat()
    assert [type(command) for command in bridge.commands] == [Adopt, Launch]
    assert not executor.tracking.staged
