"""The whole executor, from Airflow's heartbeat to requests on a socket, without a scheduler."""

from __future__ import annotations

import os
import time
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.ecs import EcsAdapter
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.local import LocalEcs
from tests.adapter.scripted import make_workload, queue

pytestmark = pytest.mark.slow

WALL_LIMIT = 0.05
CPU_LIMIT = 0.005


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE", "400")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE_MAX", "400")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_BURST", "50")


def beat_until(executor: AsyncEcsExecutor, done: Callable[[dict[str, list[Any]]], bool]) -> dict[str, list[Any]]:
    """Heartbeat as a scheduler does, and return the events by task id."""
    events: dict[str, list[Any]] = {}
    names: dict[Any, str] = {}
    deadline = time.monotonic() + 60
    while not done(events):
        assert time.monotonic() < deadline, events
        names.update(
            {
                key: getattr(key, "task_id", None) or coordinates.task_id
                for key, coordinates in _coordinates(executor)
            }
        )
        executor.heartbeat()
        for key, event in executor.get_event_buffer().items():
            events.setdefault(names.get(key) or str(getattr(key, "task_id", key)), []).append(event)
        time.sleep(0.01)
    return events


def _coordinates(executor: Any) -> Any:
    return getattr(executor, "_task_coordinates", {}).items()


def over(number: int) -> Callable[[Mapping[str, list[Any]]], bool]:
    def done(events: Mapping[str, list[Any]]) -> bool:
        return sum(1 for of_one in events.values() for state, _ in of_one if str(state) != "running") >= number

    return done


def test_a_workload_runs_and_a_failing_one_says_why(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    local_ecs(script=[{"command": '"task_id":"bad"', "exit_code": 3, "duration": 0.5}, {"duration": 0.5}])
    executor = started()
    queue(executor, make_workload("good"), make_workload("bad"))

    events = beat_until(executor, over(2))

    assert [str(state) for state, _ in events["good"]] == ["running", "success"]
    assert events["good"][0][1].startswith("arn:aws:ecs:")
    assert [str(state) for state, _ in events["bad"]] == ["running", "failed"]
    assert "exited 3" in events["bad"][1][1]
    assert executor.running == set()


class SaysItsName(AsyncEcsExecutor):
    """Runs a shell that exits as the task's name says."""

    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        return ["sh", "-c", f"exit {workload.ti.task_id.removeprefix('exits-')}"]


def test_a_sidecars_exit_code_decides_nothing_over_a_socket_either(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = local_ecs(runner="subprocess")
    failing = {"name": "side", "command": ["sh", "-c", "exit 9"], "essential": False}
    ecs.register("family", "airflow", sidecars=[failing])
    # The settings name family:1; this is its second revision.
    executor = started(SaysItsName)
    workloads = [
        make_workload(name, executor_config={"taskDefinition": "family:2"}) for name in ("exits-0", "exits-3")
    ]
    queue(executor, *workloads)

    events = beat_until(executor, over(2))

    assert str(events["exits-0"][-1][0]) == "success"
    assert str(events["exits-3"][-1][0]) == "failed"
    assert "exited 3" in events["exits-3"][-1][1]
    arns = {name: of_one[0][1] for name, of_one in events.items()}
    codes = {name: {c["name"]: c["exitCode"] for c in ecs.task(arn)["containers"]} for name, arn in arns.items()}
    assert {name: of_one["airflow"] for name, of_one in codes.items()} == {"exits-0": 0, "exits-3": 3}
    # By itself, or by the signal that the end of the essential container sends: one of the two is first.
    assert {of_one["side"] for of_one in codes.values()} <= {9, 143}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["end", "terminate"])
def test_the_end_of_an_executor_in_a_forks_child_is_no_end_of_the_parents(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], method: str
) -> None:
    ecs = local_ecs(script=[{"command": '"task_id":"long"', "duration": None}, {"duration": 0.2}])
    executor = started()
    queue(executor, make_workload("long"))
    arn = beat_until(executor, bool)["long"][0][1]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            executor.sync()
            getattr(executor, method)()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

    queue(executor, make_workload("short"))
    events = beat_until(executor, over(1))

    assert [str(state) for state, _ in events["short"]] == ["running", "success"]
    assert ecs.task(arn)["lastStatus"] == "RUNNING"
    assert ecs.statistics.operations.get("StopTask") is None


def test_the_health_check_passes_and_a_missing_cluster_fails_it(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local_ecs()
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    assert started().statistics() is not None
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER", "nowhere")
    with pytest.raises(compat.AirflowException, match="health check has failed because") as caught:
        started()
    assert isinstance(caught.value.__cause__, BackendError)
    assert str(caught.value).count("health check has failed") == 1


TRIED = {
    "ecs": {
        "StopTask": "StopTask, cluster 'main'",
        "DescribeTasks": "DescribeTasks, cluster 'main'",
        "ListTasks": "ListTasks, cluster 'main'",
        "DescribeClusters": "DescribeClusters, cluster 'main'",
    },
    "batch": {"DescribeJobs": "DescribeJobs", "ListJobs": "ListJobs, job queue 'default'"},
}
LOOKED_AT = {
    "ecs": ["DescribeTaskDefinition, task definition 'family:1'"],
    "batch": ["DescribeJobQueues, job queue 'default'", "DescribeJobDefinitions, job definition 'airflow:1'"],
}


def check(service: str) -> None:
    arguments = {"launch": False, "queue": None, "executor_config": None, "strict": False, "output": "text"}
    cli.check(Namespace(team=None, service=service, timeout=15.0, **arguments))


@pytest.mark.parametrize("service", TRIED)
def test_the_check_names_each_request_that_it_has_tried(
    local_ecs: Callable[..., LocalEcs], capsys: pytest.CaptureFixture[str], service: str
) -> None:
    local_ecs()
    check(service)
    lines = capsys.readouterr().out.splitlines()
    tried = [line for line in lines if line.endswith(": good.") and not line.startswith("Request")]
    assert tried[: len(TRIED[service])] == [f"{name}: good." for name in TRIED[service].values()]
    assert tried[len(TRIED[service]) :][: len(LOOKED_AT[service])] == [f"{x}: good." for x in LOOKED_AT[service]]
    assert lines[-1].startswith("Not tried: " + {"ecs": "RunTask", "batch": "SubmitJob"}[service])


@pytest.mark.parametrize(("service", "operation"), [(one, name) for one, names in TRIED.items() for name in names])
def test_the_check_fails_for_a_single_permission_that_is_missing(
    local_ecs: Callable[..., LocalEcs], capsys: pytest.CaptureFixture[str], service: str, operation: str
) -> None:
    server = local_ecs()
    server.faults.error(operation, "AccessDeniedException", f"not authorized to perform: {operation}", 403)
    with pytest.raises(SystemExit) as caught:
        check(service)
    assert f": {TRIED[service][operation]}: AccessDeniedException: not authorized to perform: {operation}" in str(
        caught.value
    )
    shown = capsys.readouterr().out
    others = [name for one, name in TRIED[service].items() if one != operation]
    assert all(f"{name}: good." in shown for name in [*others, *LOOKED_AT[service]])


def test_the_check_fails_for_a_job_queue_that_there_is_not(
    local_ecs: Callable[..., LocalEcs], monkeypatch: pytest.MonkeyPatch
) -> None:
    local_ecs()
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_QUEUE", "nowhere")
    with pytest.raises(SystemExit, match=r"Batch: ListJobs, job queue 'nowhere': ClientException: .*nowhere"):
        check("batch")


def test_the_check_says_in_a_line_why_no_client_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: EcsAdapter, **_options: object) -> None:
        raise ImportError("no module named aiobotocore")

    monkeypatch.setattr(EcsAdapter, "make_backend", broken)
    with pytest.raises(SystemExit, match=r"^ECS: Client: ImportError: no module named aiobotocore$"):
        check("ecs")


def test_revoking_a_running_workload_stops_its_container(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    local_ecs(script=[{"duration": None}])
    executor = started()
    workload = make_workload()
    queue(executor, workload)
    events = beat_until(executor, bool)
    arn = events["task"][0][1]

    executor.revoke_task(ti=workload.ti)

    deadline = time.monotonic() + 20
    ti = type("Ti", (), {"external_executor_id": arn, "try_number": 1})()
    while True:
        executor.heartbeat()
        message = executor.get_task_log(ti, 1)[0][0]
        if "STOPPED" in message:
            break
        assert time.monotonic() < deadline, message
        time.sleep(0.1)
    assert "Airflow revoked the task instance" in message
    assert executor.get_event_buffer() == {}


def test_500_workloads_never_hold_up_a_heartbeat(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    number = 500
    local_ecs(latency=0.05, script=[{"duration": 1.0}])
    executor = started(parallelism=number)
    queue(executor, *(make_workload(f"task-{n}", external_executor_id=str(uuid.uuid4())) for n in range(number)))
    left = number
    walls: list[float] = []
    cpus: list[float] = []
    deadline = time.monotonic() + 120
    while left:
        assert time.monotonic() < deadline
        wall, cpu = time.perf_counter(), time.thread_time()
        executor.heartbeat()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
        left -= sum(str(state) == "success" for state, _ in executor.get_event_buffer().values())
        time.sleep(0.01)
    # The first one takes all 500 over; a busy machine may take the processor away from some others.
    assert sorted(walls)[len(walls) * 9 // 10] < WALL_LIMIT
    assert sorted(cpus)[-3] < CPU_LIMIT
    print(f"heartbeats {len(walls)}: wall max {max(walls):.4f} s, CPU max {max(cpus):.4f} s")  # noqa: T201
