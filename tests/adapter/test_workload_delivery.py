"""``workload_delivery = environment_file``: how a workload reaches its container, and who else can read it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.core.errors import BackendError, Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.faults import Fault
from ecs_async_executor.services.ecs.delivery import workload_in
from tests.adapter.scripted import ScriptedExecutor, make_workload, queue
from tests.adapter.test_on_local_ecs import beat_until, over

pytestmark = pytest.mark.slow

BUCKET = "workloads"


@pytest.fixture(autouse=True)
def by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__WORKLOAD_DELIVERY", "environment_file")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__WORKLOAD_BUCKET", f"s3://{BUCKET}/prod")


@pytest.fixture
def cloud(local_ecs: Callable[..., LocalEcs], monkeypatch: pytest.MonkeyPatch) -> Callable[..., LocalEcs]:
    """Open a local ECS with a bucket for workloads."""

    def opened(**options: Any) -> LocalEcs:
        ecs = local_ecs(**options)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ecs.url)
        ecs.client("s3").create_bucket(Bucket=BUCKET)
        return ecs

    return opened


def keys(ecs: LocalEcs) -> list[str]:
    return [one["Key"] for one in ecs.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def rendered(executor: Any, workload: Any) -> Any:
    queue(executor, workload)
    executor.heartbeat()
    (launch,) = [command for command in executor.scripted.commands if isinstance(command, Launch)]
    return executor.workloads.render(launch)


def everything(ecs: LocalEcs) -> str:
    """Return all that ECS shows of its tasks."""
    client = ecs.client()
    arns = [
        arn
        for status in ("RUNNING", "STOPPED")
        for arn in client.list_tasks(cluster="main", desiredStatus=status)["taskArns"]
    ]
    return json.dumps(client.describe_tasks(cluster="main", tasks=arns, include=["TAGS"])["tasks"], default=str)


# --- requests -----------------------------------------------------------------------------------------------


def test_a_request_has_no_workload_and_the_file_has_it(make_executor: Callable[..., Any]) -> None:
    spec = rendered(make_executor(ScriptedExecutor), make_workload("mine"))
    (container,) = spec.request["overrides"]["containerOverrides"]
    assert "eyJ" not in json.dumps(spec.request)
    assert container["command"][:2] == ["python", "-c"]
    workload = json.loads(workload_in(spec.handed_over))
    assert workload["ti"]["task_id"] == "mine"
    assert workload["token"].startswith("eyJ")
    assert "eyJ" not in repr(spec)


def test_what_the_overrides_have_no_room_for_fits_beside_a_file(make_executor: Callable[..., Any]) -> None:
    # Without the workload, there is that much more room for the user's own.
    own = {"name": "airflow", "environment": [{"name": "MINE", "value": "x" * 6500}]}
    workload = make_workload("x" * 250, executor_config={"overrides": {"containerOverrides": [own]}})
    assert "x" * 250 in workload_in(rendered(make_executor(ScriptedExecutor), workload).handed_over)


class Wraps(ScriptedExecutor):
    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        return ["nice", *ScriptedExecutor._serialize_workload_to_command(workload)]

    def _run_task_kwargs(self, task_id: Any, cmd: list[str], queue: Any, exec_config: Any) -> Any:
        self.seen = json.loads(cmd[-1])["ti"]["task_id"]
        return super()._run_task_kwargs(task_id, cmd, queue, exec_config)


def test_hooks_see_the_command_as_ever_and_may_put_something_before_it(make_executor: Callable[..., Any]) -> None:
    executor = make_executor(Wraps)
    spec = rendered(executor, make_workload("mine"))
    assert executor.seen == "mine"
    assert spec.request["overrides"]["containerOverrides"][0]["command"][:3] == ["nice", "python", "-c"]


class InOneWord(ScriptedExecutor):
    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        return ["sh", "-c", f"exec python -m airflow --json-string '{workload.model_dump_json()}'"]


class InAVariable(ScriptedExecutor):
    def _run_task_kwargs(self, task_id: Any, cmd: list[str], queue: Any, exec_config: Any) -> Any:
        request = super()._run_task_kwargs(task_id, cmd, queue, exec_config)
        container = request["overrides"]["containerOverrides"][0]
        container["environment"].append({"name": "COPY", "value": cmd[-1]})
        return request


@pytest.mark.parametrize("cls", [InOneWord, InAVariable])
def test_a_hook_that_keeps_the_jwt_in_the_request_fails_the_launch(
    make_executor: Callable[..., Any], cls: type[Any]
) -> None:
    with pytest.raises(Rejected) as caught:
        rendered(make_executor(cls), make_workload())
    assert "workload_delivery = environment_file, but the request has a JWT" in caught.value.reason
    assert "eyJ" not in caught.value.reason


def test_a_jwt_of_the_users_own_is_no_reason_to_refuse(make_executor: Callable[..., Any]) -> None:
    own = {"name": "airflow", "environment": [{"name": "MINE", "value": "eyJhbGciOiJ.eyJzdWIiOiJ.c2ln"}]}
    config = {"overrides": {"containerOverrides": [own]}}
    spec = rendered(make_executor(ScriptedExecutor), make_workload(executor_config=config))
    assert spec.handed_over is not None


# --- over the local ECS -------------------------------------------------------------------------------------


def wait_until_empty(ecs: LocalEcs) -> None:
    deadline = time.monotonic() + 20
    while left := keys(ecs):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_ecs_shows_no_jwt_and_the_object_is_deleted_after_the_start(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ecs = cloud(script=[{"pending": 0.3, "duration": None}])
    executor = started()
    queue(executor, make_workload("one"), make_workload("two"))
    beat_until(executor, lambda events: len(events) == 2)
    shown = everything(ecs)
    assert shown.count("arn:aws:s3:::workloads/prod/") == 2
    assert "eyJ" not in shown
    wait_until_empty(ecs)
    assert "eyJ" not in caplog.text
    assert ecs.statistics.operation("DeleteObject").calls == 2


def test_the_object_of_a_container_that_never_starts_is_deleted_too(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__MAX_RUN_TASK_ATTEMPTS", "2")
    ecs = cloud()
    ecs.faults.add(Fault(kind="error", operation="GetEnvironmentFile", code="Forbidden", status=403))
    executor = started()
    queue(executor, make_workload("one"))
    event = beat_until(executor, over(1))["one"][-1]
    assert "failed to download env files" in event[1]
    wait_until_empty(ecs)
    assert len(ecs.ledger) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "throttle"},
        {"kind": "status", "status": 503},
        {"kind": "reset_before"},
        {"kind": "reset_after"},
        {"kind": "latency", "seconds": 4.0},
        {"kind": "error", "code": "AccessDenied", "message": "Access Denied", "status": 403},
    ],
    ids=lambda fault: fault["kind"],
)
def test_while_s3_refuses_nothing_is_launched_and_then_it_is(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], fault: dict[str, Any]
) -> None:
    ecs = cloud(script=[{"duration": 0.2}])
    number = ecs.faults.add(Fault(operation="PutObject", count=2, **fault))
    executor = started()
    queue(executor, make_workload("one"))
    events = beat_until(executor, over(1))
    assert [str(state) for state, _ in events["one"]] == ["running", "success"]
    assert ecs.faults.struck(number) >= 1
    assert ecs.statistics.operation("RunTask").calls == 1


def test_a_request_without_an_answer_is_repeated_with_the_same_object(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = cloud(script=[{"duration": None}])
    ecs.faults.add(Fault(kind="reset_after", operation="RunTask", count=2))
    executor = started()
    queue(executor, make_workload("one"))
    beat_until(executor, lambda events: len(events) == 1)
    assert len(ecs.ledger) == 1
    assert ecs.statistics.operation("RunTask").calls == 3


def test_airflow_in_a_real_container_process_gets_the_workload(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    ecs = cloud(runner="subprocess", inherit_environment=True)
    executor = started()
    queue(executor, make_workload("really_mine"))
    events = beat_until(executor, over(1))
    arn = events["really_mine"][0][1]
    log = ecs.log(arn)
    # It has no API server to talk to, which is as far as it gets.
    assert "Executing workload" in log
    assert "really_mine" in log
    assert "eyJ" not in everything(ecs)


def test_the_next_scheduler_deletes_what_the_last_one_has_left(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = cloud(script=[{"pending": 3600.0, "duration": None}])
    first = started()
    queue(first, make_workload("one"))
    beat_until(first, lambda events: len(events) == 1)
    first.end()
    (left,) = keys(ecs)
    (arn,) = ecs.client().list_tasks(cluster="main")["taskArns"]
    ecs.client().stop_task(cluster="main", task=arn)

    async def describes() -> None:
        backend = started().adapter.make_backend(launches=True)
        async with backend.open():
            await backend.describe("main", [arn])
            with anyio.fail_after(20):
                while ecs.statistics.operation("DeleteObject").calls == 0:
                    await anyio.sleep(0.05)

    asyncio.run(describes())
    wait_until_empty(ecs)
    assert left.startswith("prod/")


def test_check_tries_the_bucket(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    ecs = cloud()
    found = asyncio.run(trials(started()))
    assert found["PutObject, bucket 'workloads'"] == found["DeleteObject, bucket 'workloads'"] == ""
    assert keys(ecs) == []
    ecs.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert "keeps earlier versions" in asyncio.run(trials(started()))["PutObject, bucket 'workloads'"]
    ecs.faults.add(Fault(kind="error", operation="PutObject", code="AccessDenied", message="no", status=403))
    assert "AccessDenied" in asyncio.run(trials(started()))["PutObject, bucket 'workloads'"]


async def trials(executor: AsyncEcsExecutor) -> dict[str, str]:
    """Try what check tries, and return what is wrong by the name of the trial."""
    backend = executor.adapter.make_backend(launches=True)
    found: dict[str, str] = {}
    async with backend.open():
        for trial in backend.trials():
            try:
                await trial.make()
            except BackendError as error:  # noqa: PERF203
                found[trial.name] = str(error)
            else:
                found[trial.name] = ""
    return found


def test_what_only_looks_opens_no_bucket(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    cloud()

    async def names() -> list[str]:
        backend = started().adapter.make_backend()
        async with backend.open():
            return [trial.name for trial in backend.trials()]

    assert not [name for name in asyncio.run(names()) if "bucket" in name]


def arguments(**more: Any) -> Namespace:
    given = {"team": None, "service": "ecs", "queue": None, "executor_config": None}
    return Namespace(**{**given, **more})


def test_show_request_says_where_the_workload_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    cli.show_request(arguments())
    shown = capsys.readouterr()
    assert json.loads(shown.out)["overrides"]["containerOverrides"][0]["command"][:2] == ["python", "-c"]
    assert "goes to s3://workloads/prod" in shown.err


def test_check_launch_shows_that_ecs_reads_a_file(
    cloud: Callable[..., LocalEcs],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    ecs = cloud(runner="subprocess", stop_timeout=1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", ecs.url)
    options = {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a", "awslogs-create-group": "true"}
    container = {
        "name": "airflow",
        "image": "local",
        "environment": [
            {"name": "AIRFLOW_HOME", "value": str(tmp_path)},
            {"name": "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "value": ecs.url},
        ],
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    }
    definition = {
        "family": "files",
        "containerDefinitions": [container],
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
    }
    ecs.register_task_definition(definition)
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "files")
    cli.check(arguments(timeout=60.0, launch=True, strict=False, output="text"))
    shown = capsys.readouterr().out
    assert "PutObject, bucket 'workloads'" in shown
    assert "  | The environment file has arrived" in shown


def test_another_scheduler_writes_the_same_object_for_the_same_launch(
    cloud: Callable[..., LocalEcs], started: Callable[..., AsyncEcsExecutor]
) -> None:
    ecs = cloud(script=[{"duration": None}])
    ecs.faults.add(Fault(kind="hang", operation="RunTask", seconds=5, count=1))
    identity = str(uuid.uuid4())
    first, second = started(), started()
    queue(first, make_workload("one", external_executor_id=identity))
    first.heartbeat()
    deadline = time.monotonic() + 20
    while not (ecs.statistics.operation("RunTask").in_flight and keys(ecs)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (left,) = keys(ecs)
    queue(second, make_workload("one", external_executor_id=identity))
    beat_until(second, lambda events: len(events) == 1)
    (task,) = ecs.client().describe_tasks(
        cluster="main", tasks=ecs.client().list_tasks(cluster="main")["taskArns"]
    )["tasks"]
    (file,) = task["overrides"]["containerOverrides"][0]["environmentFiles"]
    assert file["value"].endswith(f"/{left}")
    wait_until_empty(ecs)
