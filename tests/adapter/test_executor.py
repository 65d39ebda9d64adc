"""The executor on Airflow's side of the bridge: a real BaseExecutor, real workloads, a bridge with a script."""

from __future__ import annotations

import base64
import copy
import json
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState
from structlog.testing import capture_logs

from ecs_async_executor import AsyncEcsExecutor
from ecs_async_executor.adapter import compat, telemetry
from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind, Rejected
from ecs_async_executor.core.messages import LastWords, Launch, Stop, Unfollowed
from ecs_async_executor.core.retries import without_line
from tests.adapter.interrupted import interrupted_at
from tests.adapter.scripted import (
    ScriptedBridge,
    ScriptedExecutor,
    failed,
    launched,
    make_callback,
    make_workload,
    notice,
    queue,
    states,
    succeeded,
    task_ids,
)

needs_callbacks = pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 2), reason="Airflow 3.1 has no callbacks")


class Ti:
    """What Airflow hands to revoke_task() and get_task_log(): a model, of which these columns are read."""

    def __init__(self, workload: Any, **columns: Any) -> None:
        self.id = workload.ti.id
        self.key = workload.ti.key
        self.try_number = workload.ti.try_number
        self.external_executor_id: str | None = None
        vars(self).update(columns)


def launch_one(executor: Any, **of_ti: Any) -> Launch:
    queue(executor, make_workload(**of_ti))
    executor.heartbeat()
    launch = executor.scripted.launches[-1]
    assert isinstance(launch, Launch)
    return launch


def event_logs(executor: Any) -> list[tuple[str, str]]:
    return [(entry.event, entry.extra) for entry in executor._task_event_logs]


# --- starting --------------------------------------------------------------------------------------------------


def test_an_instance_can_be_made_without_any_settings(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLUSTER", "CONTAINER_NAME", "TASK_DEFINITION", "SUBNETS"):
        monkeypatch.delenv(f"AIRFLOW__AWS_ECS_EXECUTOR__{name}")
    executor = make_executor(AsyncEcsExecutor, start=False)

    assert executor.slots_available == executor.parallelism
    executor.sync()
    executor.debug_dump()
    executor.end()
    executor.terminate()


def test_start_names_every_problem_of_the_settings(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_BURST", "many")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS", "none")
    executor = make_executor(start=False)

    with pytest.raises(ConfigurationError) as caught:
        executor.start()

    assert len(caught.value.problems) == 2
    executor.end()


def test_start_names_what_a_queue_sets_that_run_task_does_not_have(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", '{"gpu": {"clustr": "gpu"}}')
    with pytest.raises(ConfigurationError, match=r"\[ecs_async_executor\] queues\.gpu\.clustr: .*mean cluster\?"):
        make_executor()


def test_start_twice_starts_one_bridge(executor: Any) -> None:
    first = executor.scripted
    executor.start()
    assert executor.scripted is first
    assert first.calls.count("start") == 1


def with_health(error: Exception | None) -> type[ScriptedExecutor]:
    return type("Checked", (ScriptedExecutor,), {"health": error})


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.CREDENTIALS, Kind.INVALID, Kind.NOT_FOUND])
def test_a_definite_refusal_of_the_health_check_stops_the_start(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    executor = make_executor(with_health(BackendError(kind, "AccessDenied", "not you")), start=False)

    with pytest.raises(compat.AirflowException) as caught:
        executor.start()

    assert str(caught.value) == (
        "ECS Executor health check has failed because: AccessDenied: not you. The ECS executor will not be able "
        "to run Airflow tasks until the issue is addressed."
    )
    assert executor.scripted.stopped_with
    executor.end()


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("no answer within 15 s"),
        BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded"),
        BackendError(Kind.AMBIGUOUS, "ServerException", "500"),
        BackendError(Kind.UNSENT, "EndpointConnectionError", "no connection"),
        BackendError(Kind.CREDENTIALS, "CredentialRetrievalError", "STS: 503", unavailable=True),
        None,
    ],
)
def test_the_health_check_only_warns_of_what_may_be_over_soon(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    executor = make_executor(with_health(error))
    assert executor.scripted.calls == ["start", "check 15"]


def test_no_client_at_all_is_a_definite_refusal(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    executor = make_executor(with_health(LookupError("The conn_id `aws` isn't defined")), start=False)
    with pytest.raises(compat.AirflowException, match="LookupError: The conn_id `aws` isn't defined"):
        executor.start()


# --- taking workloads ------------------------------------------------------------------------------------------


def test_a_queued_workload_becomes_one_launch_and_runs(executor: Any, bridge: ScriptedBridge) -> None:
    workload = make_workload(priority_weight=7, map_index=3)
    queue(executor, workload)

    executor.heartbeat()
    executor.heartbeat()

    (launch,) = bridge.launches
    assert launch.workload is workload
    assert launch.priority == 7
    assert launch.key == compat.task_key(executor, workload.ti)
    assert str(launch) == str(launch.key)
    assert executor.running == {launch.key}
    assert compat.queued_keys(executor) == []


def test_taking_workloads_builds_no_request(executor: Any, bridge: ScriptedBridge) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("this is the loop thread's work")

    executor.workloads.jwt_generator = executor._run_task_kwargs = executor._serialize_workload_to_command = refuse
    executor.parallelism = 3000
    queue(executor, *(make_workload(f"task-{n}") for n in range(1000)))

    executor.heartbeat()

    assert len(bridge.launches) == 1000


@pytest.mark.parametrize("queued", [5, 200])
def test_of_a_queue_of_any_length_only_what_is_taken_leaves_it(
    executor: Any, bridge: ScriptedBridge, queued: int
) -> None:
    executor.parallelism = 2
    queue(executor, *(make_workload(f"task-{n}") for n in range(queued)))
    executor.heartbeat()
    taken = {launch.key for launch in bridge.launches}
    assert len(taken) == 2
    assert executor.running == taken
    left = compat.queued_keys(executor)
    assert len(left) == queued - 2
    assert taken.isdisjoint(left)


def test_the_highest_priority_is_taken_first(executor: Any, bridge: ScriptedBridge) -> None:
    executor.parallelism = 2
    queue(executor, *(make_workload(f"weight-{weight}", priority_weight=weight) for weight in (1, 9, 5)))
    executor.heartbeat()
    assert task_ids(bridge.launches) == ["weight-9", "weight-5"]


@needs_callbacks
def test_callbacks_are_taken_before_tasks_and_launched_first(executor: Any, bridge: ScriptedBridge) -> None:
    queue(executor, make_workload(priority_weight=2**31 - 1), make_callback())
    executor.heartbeat()
    if compat.AIRFLOW_VERSION < (3, 3):
        (event,) = states(executor).values()
        assert event[0] == "failed"
        assert "cannot run a callback in a container" in event[1]
        assert len(bridge.launches) == 1
    else:
        assert [launch.priority for launch in bridge.launches] == [2**31, 2**31 - 1]
        assert str(bridge.launches[0]).startswith("callback ")


@needs_callbacks
@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 3), reason="cannot run callbacks")
def test_a_callback_goes_where_its_queue_leads_to_if_its_data_name_one(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", '{"gpu": {"cluster": "gpu"}}')
    executor = make_executor()
    queue(executor, make_callback(queue="gpu"))
    executor.heartbeat()
    queue(executor, make_callback())
    executor.heartbeat()
    named, unnamed = executor.scripted.launches
    assert (executor.workloads.render(named).scope, executor.workloads.render(unnamed).scope) == ("gpu", "main")
    assert (named.route, unnamed.route) == ("gpu", None)


@needs_callbacks
@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 3), reason="cannot run callbacks")
def test_a_callback_ends_like_a_task_without_an_event_log(executor: Any, bridge: ScriptedBridge) -> None:
    queue(executor, make_callback())
    executor.heartbeat()
    (launch,) = bridge.launches
    bridge.report(launched(launch), failed(launch, "ECS container exited 1", handle_id="arn:1"))
    executor.heartbeat()
    (event,) = states(executor).values()
    assert event == ("failed", "ECS container exited 1")
    assert event_logs(executor) == []
    spec_queue_and_config: list[Any] = []

    def note(_key: Any, _command: Any, *queue_and_config: Any) -> None:
        spec_queue_and_config.extend(queue_and_config)

    executor._run_task_kwargs = note
    with pytest.raises(Rejected):
        executor.workloads.render(launch)
    assert spec_queue_and_config == [None, {}]


def test_nothing_is_taken_after_the_end(executor: Any, bridge: ScriptedBridge) -> None:
    executor.end()
    queue(executor, make_workload())
    executor.heartbeat()
    assert bridge.launches == []
    assert len(compat.queued_keys(executor)) == 1


def test_a_workload_that_cannot_be_taken_fails_alone(
    executor: Any, bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(ti: Any) -> str:
        if ti.task_id == "bad":
            raise ValueError("no route for this")
        return "route"

    monkeypatch.setattr(executor.workloads, "route", refuse)
    queue(executor, make_workload("bad"), make_workload("good"))

    executor.heartbeat()

    assert task_ids(bridge.launches) == ["good"]
    assert states(executor) == {
        "bad": ("failed", "The workload could not be taken: ValueError: no route for this")
    }


# --- identity --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 2), reason="the workload carries no assigned id")
def test_the_id_that_airflow_assigned_is_the_launch_and_its_mark(executor: Any) -> None:
    assigned = str(uuid.uuid4())
    launch = launch_one(executor, external_executor_id=assigned)
    assert (launch.launch_id, launch.started_by) == (assigned, assigned)
    assert executor.pre_assigns_external_executor_id


@pytest.mark.parametrize("left_over", [None, "arn:aws:ecs:eu-west-1:1:task/main/abc", "celery-task-id"])
def test_without_an_assigned_id_the_mark_is_the_task_instance(executor: Any, left_over: str | None) -> None:
    launch = launch_one(executor, external_executor_id=left_over)
    assert launch.started_by == str(launch.workload.ti.id)
    assert uuid.UUID(launch.launch_id).version == 4


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 2), reason="the workload carries no assigned id")
def test_an_assigned_id_that_was_left_over_makes_no_second_launch_with_the_same_tokens(executor: Any) -> None:
    assigned = str(uuid.uuid4())
    first = launch_one(executor, external_executor_id=assigned)
    executor.scripted.report(succeeded(first))
    executor.heartbeat()
    second = launch_one(executor, external_executor_id=assigned)
    assert first.launch_id == assigned
    assert second.launch_id != assigned
    assert second.started_by == assigned


def test_the_same_key_queued_again_replaces_the_launch(executor: Any, bridge: ScriptedBridge) -> None:
    first = launch_one(executor)
    second = launch_one(executor, id=first.workload.ti.id)
    assert first.key == second.key
    assert first.launch_id != second.launch_id

    bridge.report(failed(first), launched(first))
    executor.heartbeat()
    assert states(executor) == {}
    assert executor.running == {second.key}

    bridge.report(launched(second, "arn:2"))
    executor.heartbeat()
    assert states(executor) == {"task": ("running", "arn:2")}


def test_a_resumed_task_is_not_mixed_up_with_its_container_that_still_stops(
    executor: Any, bridge: ScriptedBridge
) -> None:
    deferred = launch_one(executor)
    bridge.report(launched(deferred, "arn:deferred"))
    executor.heartbeat()
    resumed = launch_one(executor, id=deferred.workload.ti.id)
    bridge.report(launched(resumed, "arn:resumed"), succeeded(deferred))
    executor.heartbeat()
    assert states(executor) == {"task": ("running", "arn:resumed")}

    bridge.report(succeeded(resumed))
    executor.heartbeat()
    assert states(executor) == {"task": ("success", None)}
    assert executor.running == set()
    assert executor.tracking.launches == {}


# --- events ----------------------------------------------------------------------------------------------------


def test_a_launch_is_running_then_over(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(launched(launch, "arn:1"))
    executor.heartbeat()
    assert states(executor) == {"task": ("running", "arn:1")}
    assert executor.running == {launch.key}

    bridge.report(succeeded(launch))
    executor.heartbeat()
    assert states(executor) == {"task": ("success", None)}
    assert executor.running == set()
    assert bridge.stops == []


def test_running_never_follows_the_end(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(failed(launch), launched(launch))
    executor.heartbeat()
    assert states(executor)["task"][0] == "failed"


def test_a_report_that_comes_twice_makes_one_event(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(succeeded(launch), succeeded(launch), failed(launch))
    executor.heartbeat()
    assert states(executor) == {"task": ("success", None)}
    executor.heartbeat()
    assert states(executor) == {}


def test_a_failure_says_why_in_the_event_and_in_the_event_log(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    reason = "ECS container exited 137: OutOfMemoryError: Container killed due to memory usage"
    bridge.report(failed(launch, reason, handle_id="arn:1", exit_code=137))
    executor.heartbeat()
    assert states(executor) == {"task": ("failed", reason)}
    assert event_logs(executor) == [("ecs container failure", f"{reason}\nending=exit_code exit_code=137")]


def test_a_launch_that_failed_is_called_a_submit_failure(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(failed(launch, "executor_config is bad"))
    executor.heartbeat()
    assert event_logs(executor) == [("ecs task submit failure", "executor_config is bad\nending=lost")]


def test_an_outcome_is_told_although_the_event_log_cannot_be_written(executor: Any) -> None:
    bridge = executor.scripted
    queue(executor, make_workload("a"))
    executor.heartbeat()

    def broken(**_: Any) -> None:
        raise RuntimeError("a bug")

    executor.log_task_event = broken
    bridge.report(failed(bridge.launches[0]))
    executor.heartbeat()
    assert states(executor) == {"a": ("failed", "ECS container exited 1")}


def test_what_a_launch_waits_for_is_told(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(notice(launch, "Capacity is unavailable at this time."))
    executor.heartbeat()
    assert states(executor) == {}
    assert event_logs(executor) == [("waiting for capacity", "Capacity is unavailable at this time.")]


def test_what_is_not_followed_any_more_occupies_no_slot_and_is_told(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(launched(launch), Unfollowed(launch.launch_id, launch.key, "nothing said where to look"))
    executor.heartbeat()
    assert [state for state, _ in states(executor).values()] == ["running"]
    assert event_logs(executor) == [("container not followed", "nothing said where to look")]
    assert executor.running == set()
    assert executor.slots_occupied == 0
    assert not bridge.stops


def test_a_report_that_cannot_be_applied_holds_up_no_other(executor: Any, bridge: ScriptedBridge) -> None:
    bad, good = launch_one(executor, task_id="bad"), launch_one(executor, task_id="good")
    apply = executor.fail

    def fail(key: Any, info: Any = None) -> None:
        if key == bad.key:
            raise RuntimeError("a subclass's bug")
        apply(key, info)

    executor.fail = fail
    bridge.report(failed(bad), failed(good))
    executor.heartbeat()

    assert states(executor) == {"good": ("failed", "ECS container exited 1")}
    assert not bridge.ledger.outbox
    assert executor.running == set()


# --- sync() ----------------------------------------------------------------------------------------------------


def test_the_beat_is_the_last_thing_of_a_sync(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(failed(launch))
    bridge.calls.clear()
    executor.sync()
    assert bridge.calls == ["heartbeat"]
    assert states(executor)


@pytest.mark.parametrize("part", ["drain", "statistics", "heartbeat"])
def test_sync_never_raises(executor: Any, bridge: ScriptedBridge, part: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("no credentials")

    setattr(bridge, part, fail)
    executor.heartbeat()
    assert part == "heartbeat" or "heartbeat" in bridge.calls


def test_sync_never_raises_when_the_log_cannot_be_written(
    executor: Any, bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __getattr__(self, _: str) -> Any:
            raise OSError("No space left on device")

    monkeypatch.setattr(telemetry, "log", Broken())
    monkeypatch.setattr("ecs_async_executor.adapter.executor.log", Broken())
    launch = launch_one(executor)
    bridge.report(failed(launch))
    executor.sync()
    assert states(executor)["task"][0] == "failed"
    assert bridge.calls[-1] == "heartbeat"


def test_draining_writes_no_log_line(
    executor: Any, bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, bool]] = []

    class Recorder:
        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda event, **_: written.append((event, bridge.draining))

    monkeypatch.setattr(telemetry, "log", Recorder())
    monkeypatch.setattr("ecs_async_executor.adapter.executor.log", Recorder())
    launch = launch_one(executor)
    bridge.report(notice(launch, "waiting"), launched(launch), failed(launch, handle_id="arn:1"))
    for _ in range(3):
        executor.sync()
    executor.end()
    events = [
        ("ecs_executor.container.failed", False),
        ("ecs_executor.ended", False),
        ("ecs_executor.notice", False),
    ]
    assert written == events


_watching: list[str] | None = None


def _audit(event: str, _: object) -> None:
    if _watching is not None and event.startswith(("open", "socket.", "os.", "subprocess.", "time.sleep")):
        _watching.append(event)


def test_sync_does_no_io_however_much_there_is(executor: Any, bridge: ScriptedBridge) -> None:
    global _watching  # noqa: PLW0603 - an audit hook cannot be taken out again
    sys.addaudithook(_audit)
    executor.parallelism = 500
    queue(executor, *(make_workload(f"task-{n}") for n in range(500)))
    executor.heartbeat()
    for launch in bridge.launches:
        bridge.report(launched(launch), succeeded(launch))
    _watching = []
    try:
        while bridge.ledger.outbox:
            executor.sync()
        seen = _watching
    finally:
        _watching = None
    assert seen == []
    assert len(states(executor)) == 500


def test_a_system_exit_at_any_statement_of_sync_loses_no_event(make_executor: Callable[..., Any]) -> None:
    line = 0
    while True:
        line += 1
        executor = make_executor()
        one, two = launch_one(executor, task_id="one"), launch_one(executor, task_id="two")
        executor.scripted.report(
            launched(one),
            failed(one, "why", handle_id="arn:1"),
            launched(two),
            notice(two, "text"),
            succeeded(two),
        )
        executor.scripted.report(LastWords(one.launch_id, one.key, "printed"))
        if not interrupted_at(line, executor.sync):
            break
        executor.end()
        told = {without_line(entry.extra) for entry in executor._task_event_logs}
        assert told == {"why", "text", "printed"}, f"line {line}"
        assert {dead.launch_id for dead in executor.scripted.dead} == {one.launch_id}
        assert states(executor) == {"one": ("failed", "why"), "two": ("success", None)}, f"line {line}"
        assert executor.running == set()
        assert executor.tracking.launches == {}
        assert executor.scripted.stops == []
    assert line > 50


def test_a_system_exit_while_workloads_are_taken_leaves_none_launched_that_is_not_known(
    make_executor: Callable[..., Any],
) -> None:
    line = 0
    while True:
        line += 1
        executor = make_executor()
        queue(executor, make_workload("one"), make_workload("two"))
        if not interrupted_at(line, executor.heartbeat):
            break
        # Whatever was handed over is known, so that its end is told and a revocation finds it.
        known = {tracked.launch_id for tracked in executor.tracking.launches.values()}
        assert {launch.launch_id for launch in executor.scripted.launches} <= known, f"line {line}"
        assert set(executor.tracking.launches) <= executor.running, f"line {line}"
        executor.scripted.report(*(succeeded(launch) for launch in executor.scripted.launches))
        executor.end()
        told = states(executor)
        assert told == dict.fromkeys(task_ids(executor.scripted.launches), ("success", None)), f"line {line}"
        assert len(executor.scripted.stopped_with) == 1
    assert line > 50


def test_a_system_exit_while_one_is_revoked_is_mended_by_revoking_it_again(
    make_executor: Callable[..., Any],
) -> None:
    line = 0
    while True:
        line += 1
        executor = make_executor()
        workload = make_workload("one")
        queue(executor, workload)
        executor.heartbeat()
        launch = executor.scripted.launches[-1]
        ti = Ti(workload)
        if not interrupted_at(line, lambda: executor.revoke_task(ti=ti)):  # noqa: B023 - called at once
            break
        executor.revoke_task(ti=ti)
        executor.scripted.report(failed(launch))
        executor.sync()
        assert [stop.launch_id for stop in executor.scripted.stops][:1] == [launch.launch_id], f"line {line}"
        assert states(executor) == {}, f"line {line}"
        assert executor.running == set()
        assert executor.tracking.launches == {}
    assert line > 5


@pytest.mark.parametrize("method", ["end", "terminate"])
def test_a_system_exit_at_any_statement_of_the_end_loses_no_event_once_it_is_repeated(
    make_executor: Callable[..., Any], method: str
) -> None:
    line = 0
    while True:
        line += 1
        executor = make_executor()
        launch = launch_one(executor, task_id="one")
        executor.scripted.report(launched(launch), succeeded(launch))
        queue(executor, make_workload("late"))
        if not interrupted_at(line, getattr(executor, method)):
            break
        getattr(executor, method)()
        executor.heartbeat()
        assert executor.scripted.launches == [launch], f"line {line}"
        assert states(executor) == {"one": ("success", None)}, f"line {line}"
        assert executor.tracking.launches == {}
        assert executor.scripted.stopped_with
    assert line > 20


# --- what is no longer wanted ----------------------------------------------------------------------------------


def test_a_state_that_the_scheduler_sets_stops_the_container(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(launched(launch))
    executor.heartbeat()
    states(executor)

    executor.change_state(launch.key, TaskInstanceState.FAILED, remove_running=True)

    (stop,) = bridge.stops
    assert stop.launch_id == launch.launch_id
    assert "failed" in stop.reason
    assert states(executor) == {"task": ("failed", None)}
    bridge.report(succeeded(launch))
    executor.heartbeat()
    assert states(executor) == {}


def test_our_own_events_stop_nothing(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(launched(launch), failed(launch))
    executor.heartbeat()
    assert bridge.stops == []


def test_a_state_for_an_unknown_key_is_only_an_event(executor: Any, bridge: ScriptedBridge) -> None:
    executor.change_state(make_workload().ti.key, TaskInstanceState.FAILED)
    assert bridge.commands == []


def test_revoking_forgets_the_launch_stops_it_and_tells_nothing(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    bridge.report(launched(launch))
    executor.heartbeat()

    executor.revoke_task(ti=Ti(launch.workload))

    assert [stop.launch_id for stop in bridge.stops] == [launch.launch_id]
    assert states(executor) == {}
    assert executor.running == set()
    assert executor.slots_occupied == 0
    bridge.report(failed(launch))
    executor.heartbeat()
    assert states(executor) == {}


def test_revoking_what_is_still_queued_never_launches_it(executor: Any, bridge: ScriptedBridge) -> None:
    workload = make_workload()
    queue(executor, workload)
    executor.revoke_task(ti=Ti(workload))
    executor.heartbeat()
    assert bridge.commands == []
    assert executor.slots_occupied == 0


def test_revoking_never_raises(executor: Any) -> None:
    executor.revoke_task(ti=object())
    executor.revoke_task(ti=Ti(make_workload()))


def test_revoked_and_queued_again_is_another_launch(executor: Any, bridge: ScriptedBridge) -> None:
    first = launch_one(executor)
    executor.revoke_task(ti=Ti(first.workload))
    second = launch_one(executor, id=first.workload.ti.id)
    assert [type(command) for command in bridge.commands] == [Launch, Stop, Launch]
    bridge.report(failed(first), succeeded(second))
    executor.heartbeat()
    assert states(executor) == {"task": ("success", None)}


# --- slots -----------------------------------------------------------------------------------------------------


def test_slots_are_what_can_be_launched_in_a_third_of_the_queued_timeout(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "30")
    executor = make_executor(parallelism=1000)
    executor.scripted.say(launch_rate=2.0)
    assert executor.slots_available == 20

    queue(executor, *(make_workload(f"task-{n}") for n in range(15)))
    assert executor.slots_available == 5
    executor.heartbeat()
    assert executor.slots_available == 5

    for launch in executor.scripted.launches[:10]:
        executor.scripted.report(launched(launch))
    executor.sync()
    assert executor.slots_available == 15

    executor.scripted.say(launch_rate=0.1)
    assert executor.slots_available == 0


def test_slots_are_never_more_than_parallelism_leaves(make_executor: Callable[..., Any]) -> None:
    executor = make_executor(parallelism=3)
    assert executor.slots_available == 3
    queue(executor, make_workload())
    executor.heartbeat()
    assert executor.slots_available == 2


def test_launches_that_wait_for_a_destination_in_trouble_take_no_slots_and_are_not_revoked(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "30")
    executor = make_executor(parallelism=1000)
    executor.scripted.say(launch_rate=2.0)
    workloads = [make_workload(f"task-{n}") for n in range(20)]
    queue(executor, *workloads)
    executor.heartbeat()
    assert executor.slots_available == 0

    far, home = executor.scripted.launches[0], executor.scripted.launches[1]
    stranded = {launch.launch_id for launch in executor.scripted.launches} - {home.launch_id}
    executor.scripted.say(stranded=stranded)
    assert executor.slots_available == 19
    executor.revoke_task(ti=home.workload.ti)
    with pytest.raises(NotImplementedError):
        executor.revoke_task(ti=far.workload.ti)

    executor.scripted.say(stranded=frozenset())
    executor.revoke_task(ti=far.workload.ti)


def test_there_is_no_slot_while_nothing_can_be_launched(executor: Any, bridge: ScriptedBridge) -> None:
    assert executor.slots_available > 0
    bridge.say(paused="ExpiredTokenException")
    assert executor.slots_available == 0


# --- building requests -----------------------------------------------------------------------------------------


def command_of(spec: Any) -> list[str]:
    command: list[str] = spec.request["overrides"]["containerOverrides"][0]["command"]
    return command


def test_a_request_carries_a_fresh_token(executor: Any) -> None:
    launch = launch_one(executor)
    spec = executor.workloads.render(launch)
    command = command_of(spec)
    sent = json.loads(command[-1])
    assert command[:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
    assert sent["ti"]["id"] == str(launch.workload.ti.id)
    assert sent["token"] not in {"", launch.workload.token}
    assert spec.expires_at == compat.jwt_expiry(sent["token"])
    assert spec.started_by == launch.started_by
    assert sent["token"] not in repr(spec)


def test_a_request_carries_airflows_token_if_that_is_nearly_new(executor: Any) -> None:
    minted = executor.jwt_generator.generate({"sub": "the task instance"})
    queue(executor, make_workload().model_copy(update={"token": minted}))
    executor.heartbeat()
    spec = executor.workloads.render(executor.scripted.launches[-1])
    assert json.loads(command_of(spec)[-1])["token"] == minted
    assert spec.expires_at == compat.jwt_expiry(minted)


@pytest.mark.parametrize(
    ("age", "lifetime", "kept"),
    [
        (1, 600, True),
        (25, 600, True),
        (35, 600, False),
        (5, 60, False),
        pytest.param(-60, 600, False, id="the clock was set back"),
        pytest.param(1, -600, False, id="it was never valid"),
        pytest.param(1, None, False, id="nobody knows for how long"),
        pytest.param(None, 600, False, id="nobody knows since when"),
    ],
)
def test_a_token_is_minted_anew_unless_nearly_all_of_its_life_is_left(
    executor: Any, age: float | None, lifetime: float | None, kept: bool
) -> None:
    now = time.time()
    times = {"iat": None if age is None else now - age, "exp": None if lifetime is None else now + lifetime}
    claims = json.dumps({name: moment for name, moment in times.items() if moment is not None})
    token = f"eyJ.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.signature"
    workload = make_workload().model_copy(update={"token": token})
    fresh, expires = compat.with_fresh_jwt(workload, executor.jwt_generator)
    assert expires == compat.jwt_expiry(fresh.token)
    assert (fresh.token == token) is kept
    assert workload.token == token, "the workload itself is never changed"
    remaining = compat.jwt_expiry(fresh.token)
    assert remaining is not None
    assert remaining > now


def test_a_bad_executor_config_fails_that_workload_alone(executor: Any, bridge: ScriptedBridge) -> None:
    queue(executor, make_workload("bad", executor_config={"command": ["rm"]}), make_workload("good"))
    executor.heartbeat()
    rendered = {launch.workload.ti.task_id: launch for launch in bridge.launches}
    with pytest.raises(Rejected, match='must never override "name" or "command"'):
        executor.workloads.render(rendered["bad"])
    assert executor.workloads.render(rendered["good"]).scope == "main"


def test_a_size_that_cannot_be_had_fails_that_workload_alone(executor: Any, bridge: ScriptedBridge) -> None:
    queue(
        executor,
        make_workload("large", executor_config={"memory": "300 GB"}),
        make_workload("good", executor_config={"cpu": 1, "memory": "3 GB", "environment": {"STAGE": "prod"}}),
    )
    executor.heartbeat()
    rendered = {launch.workload.ti.task_id: launch for launch in bridge.launches}
    with pytest.raises(Rejected, match="memory = 300 GB: Fargate has at most 32 vCPU and 244 GB"):
        executor.workloads.render(rendered["large"])
    overrides = executor.workloads.render(rendered["good"]).request["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == ("1024", "3072")
    assert overrides["containerOverrides"][0]["environment"][0] == {"name": "STAGE", "value": "prod"}


def test_an_executor_config_that_cannot_be_shown_is_launched_like_any_other(executor: Any) -> None:
    class Unspeakable(dict[str, Any]):
        def __repr__(self) -> str:
            raise RuntimeError("there are no words for it")

    launch = launch_one(executor, executor_config=Unspeakable(overrides={"cpu": "512"}))
    assert executor.workloads.render(launch).request["overrides"]["cpu"] == "512"


def test_an_executor_config_is_never_changed(executor: Any) -> None:
    config = {
        "overrides": {"containerOverrides": [{"name": "airflow", "environment": [{"name": "A", "value": "b"}]}]}
    }
    given = copy.deepcopy(config)
    base = copy.deepcopy(executor.run_task_kwargs)
    launch = launch_one(executor, executor_config=config)
    executor.workloads.render(launch)
    again = executor.workloads.render(launch)
    assert launch.workload.ti.executor_config == given
    assert executor.run_task_kwargs == base
    environment = again.request["overrides"]["containerOverrides"][0]["environment"]
    assert [variable["name"] for variable in environment] == ["A", "AIRFLOW_IS_EXECUTOR_CONTAINER"]


def test_a_queue_brings_its_overrides(make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps({"gpu": {"cluster": "gpus"}}))
    executor = make_executor()
    assert executor.workloads.render(launch_one(executor, queue="gpu")).scope == "gpus"
    assert executor.workloads.render(launch_one(executor, queue="default", task_id="b")).scope == "main"


def test_a_subclass_can_change_the_request_and_call_super(make_executor: Callable[..., Any]) -> None:
    class Tagging(ScriptedExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            request = super()._run_task_kwargs(task_id, cmd, queue, exec_config)
            container = self.get_container(request["overrides"]["containerOverrides"])
            container["memory"] = 512
            request["tags"] = [{"key": "task", "value": task_id_of(task_id)}]
            return request

    def task_id_of(key: Any) -> str:
        return str(key)

    executor = make_executor(Tagging)
    launch = launch_one(executor)
    assert executor.scripted.arguments["blocks"](launch)
    spec = executor.workloads.render(launch)
    assert spec.request["tags"] == [{"key": "task", "value": str(launch.key)}]
    assert spec.request["overrides"]["containerOverrides"][0]["memory"] == 512
    assert "tags" not in executor.run_task_kwargs


def test_workloads_that_a_hook_may_place_differently_are_not_taken_to_share_limits(
    make_executor: Callable[..., Any],
) -> None:
    class Placing(ScriptedExecutor):
        def _run_task_kwargs(self, *arguments: Any) -> dict[str, Any]:
            return super()._run_task_kwargs(*arguments)

    for kind, number in ((ScriptedExecutor, 1), (Placing, 2)):
        executor = make_executor(kind, parallelism=10)
        queue(executor, make_workload("one"), make_workload("other"), make_workload("one", map_index=1))
        executor.heartbeat()
        launches = [command for command in executor.scripted.commands if isinstance(command, Launch)]
        assert len(launches) == 3
        assert len({launch.route for launch in launches}) == number


def test_without_overrides_requests_are_built_on_the_loop(executor: Any, bridge: ScriptedBridge) -> None:
    assert not bridge.arguments["blocks"](launch_one(executor))


def test_what_subclasses_of_the_provider_use_can_be_read_and_set(make_executor: Callable[..., Any]) -> None:
    class Custom(ScriptedExecutor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.run_task_kwargs["enableECSManagedTags"] = True
            self.cluster += "-2"

    executor = make_executor(Custom)
    assert (executor.cluster, executor.container_name) == ("main-2", "airflow")
    assert executor.workloads.render(launch_one(executor)).request["enableECSManagedTags"] is True


def test_a_hook_may_change_the_executor_config_that_it_is_given(make_executor: Callable[..., Any]) -> None:
    class Popping(ScriptedExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            cluster = exec_config.pop("place", "main")
            return {**super()._run_task_kwargs(task_id, cmd, queue, exec_config), "cluster": cluster}

    executor = make_executor(Popping)
    launch = launch_one(executor, executor_config={"place": "gpu"})
    assert [executor.workloads.render(launch).scope for _ in range(2)] == ["gpu", "gpu"]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ValueError("no such team"), "ValueError: no such team"),
        (SystemExit("bye"), "SystemExit: bye"),
        (Rejected("ours"), "ours"),
    ],
)
def test_an_error_of_a_hook_fails_its_workload_with_its_words(
    make_executor: Callable[..., Any], raised: BaseException, reason: str
) -> None:
    class Raising(ScriptedExecutor):
        def _run_task_kwargs(self, *_: Any) -> dict[str, Any]:
            raise raised

    executor = make_executor(Raising)
    with pytest.raises(Rejected) as caught:
        executor.workloads.render(launch_one(executor))
    assert caught.value.reason.endswith(reason)


def test_a_reason_never_shows_the_token_or_the_whole_command(make_executor: Callable[..., Any]) -> None:
    class Leaking(ScriptedExecutor):
        def _run_task_kwargs(self, _key: Any, cmd: Any, *_: Any) -> dict[str, Any]:
            raise ValueError(f"cannot use {cmd}")

    executor = make_executor(Leaking)
    with pytest.raises(Rejected) as caught:
        executor.workloads.render(launch_one(executor))
    assert "eyJ" not in caught.value.reason
    assert len(caught.value.reason) < 600
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_hook_that_returns_no_request_fails_its_workload(make_executor: Callable[..., Any]) -> None:
    class Forgetful(ScriptedExecutor):
        def _run_task_kwargs(self, *_: Any) -> Any:
            return None

    executor = make_executor(Forgetful)
    with pytest.raises(Rejected, match="returned NoneType, not a dict"):
        executor.workloads.render(launch_one(executor))


# --- ending ----------------------------------------------------------------------------------------------------


def test_end_leaves_the_containers_and_waits_no_longer_than_it_may(executor: Any, bridge: ScriptedBridge) -> None:
    launch = launch_one(executor)
    waiting = launch_one(executor, task_id="waiting")
    bridge.report(launched(launch))
    with capture_logs() as lines:
        executor.end()
    (stop,) = bridge.stopped_with
    assert stop["stop_containers"] is False
    assert stop["timeout"] == 20.0
    assert list(executor.tracking.launches) == [launch.key, waiting.key]
    (ended,) = (line for line in lines if line["event"] == "ecs_executor.ended")
    assert (ended["containers_left"], ended["unlaunched"]) == (1, 1)
    executor.end()


def test_without_adoption_end_stops_the_containers(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__ADOPT_TASK_INSTANCES", "False")
    executor = make_executor()
    executor.end()
    assert executor.scripted.stopped_with[0]["stop_containers"] is True


def test_terminate_stops_the_containers(executor: Any, bridge: ScriptedBridge) -> None:
    executor.terminate()
    assert bridge.stopped_with[0]["stop_containers"] is True


def test_end_never_raises(executor: Any, bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise RuntimeError("broken")

    monkeypatch.setattr(bridge, "stop", fail)
    executor.end()
    executor.terminate()


# --- what people see -------------------------------------------------------------------------------------------


def test_the_debug_dump_shows_no_workload(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    class Recorder:
        def __getattr__(self, level: str) -> Callable[..., None]:
            return lambda event, **values: lines.append(f"{level} {event} {values}")

    monkeypatch.setattr("ecs_async_executor.adapter.executor.log", Recorder())
    launch_one(executor)
    queue(executor, make_workload("waiting"))
    executor.debug_dump()
    text = "\n".join(lines)
    assert "'queued': 1" in text
    assert "'phase': 'on its way to or from the engine'" in text
    assert "eyJ" not in text


def test_the_debug_dump_never_raises(
    executor: Any, bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "statistics", lambda: 1 / 0)
    executor.debug_dump()


def test_what_airflow_asks_of_the_class() -> None:
    assert AsyncEcsExecutor.supports_multi_team
    assert not AsyncEcsExecutor.is_local
    assert not AsyncEcsExecutor.serve_logs
    assert AsyncEcsExecutor.pre_assigns_external_executor_id
    assert issubclass(AsyncEcsExecutor, BaseExecutor)
    if hasattr(BaseExecutor, "supported_workload_types"):
        assert {kind.value for kind in AsyncEcsExecutor.supported_workload_types} == {
            "ExecuteTask",
            "ExecuteCallback",
        }
        assert AsyncEcsExecutor.supports_task_instance_uuid
    else:
        assert AsyncEcsExecutor.supports_callbacks
    (group,) = AsyncEcsExecutor.get_cli_commands()
    assert group.name == "ecs-async"


def test_a_team_has_its_own_settings(make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("CLUSTER", "theirs"),
        ("CONTAINER_NAME", "airflow"),
        ("TASK_DEFINITION", "td"),
        ("SUBNETS", "s"),
    ):
        monkeypatch.setenv(f"AIRFLOW__BLUE___AWS_ECS_EXECUTOR__{name}", value)
    monkeypatch.setenv("AIRFLOW__BLUE___AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "False")
    executor = make_executor(team_name="blue")
    assert executor.cluster == "theirs"


def test_too_many_log_lines_lose_the_oldest_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, dict[str, Any]]] = []

    class Recorder:
        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda event, **values: written.append((event, values))

    monkeypatch.setattr(telemetry, "log", Recorder())
    monkeypatch.setattr(telemetry, "LINES_KEPT", 2)
    lines = telemetry.LogLines("ecs_executor")
    for number in range(5):
        lines.add("info", "line", number=number)
    lines.write(budget=60.0)
    assert written == [
        ("ecs_executor.log_lines.dropped", {"count": 3}),
        ("ecs_executor.line", {"number": 3}),
        ("ecs_executor.line", {"number": 4}),
    ]


def test_a_slow_launch_rate_launches(make_executor: Callable[..., Any]) -> None:
    executor = make_executor(parallelism=10)
    executor.scripted.say(launch_rate=0.004)
    assert executor.slots_available > 0


def test_slots_of_a_scheduler_whose_loops_take_25_s(executor: Any) -> None:
    """Airflow asks for slots at the end of its scheduling, before it calls the executor."""
    executor.scripted.say(paused="the scheduler does not call the executor")
    executor.scripted.silent = True
    assert executor.slots_available > 0
