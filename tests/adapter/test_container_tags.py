"""``container_tags``: what containers are tagged with, from the setting to the local ECS and Batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.local import LocalEcs
from ecs_async_executor.services.requests import container_tags, tag_refusal
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor, make_workload, queue

TAGS = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": "-1", "try_number": "1"}
EXECUTORS = [("ECS", ScriptedExecutor), ("BATCH", ScriptedBatchExecutor)]


def tags_in(request: Any) -> dict[str, str] | None:
    tags = request.get("tags")
    return {tag["key"]: tag["value"] for tag in tags} if isinstance(tags, list) else tags


@pytest.fixture(params=EXECUTORS, ids=["ecs", "batch"])
def render(
    request: pytest.FixtureRequest, make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return the tags of a workload's request."""
    service, cls = request.param

    def tags_of(workload: Any, *, on: bool = True) -> dict[str, str] | None:
        monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__CONTAINER_TAGS", str(on))
        executor = make_executor(cls)
        queue(executor, workload)
        executor.heartbeat()
        (launch,) = [command for command in executor.scripted.commands if isinstance(command, Launch)]
        return tags_in(executor.workloads.render(launch).request)

    return tags_of


def test_a_container_is_tagged_with_its_task_instance(render: Callable[..., Any]) -> None:
    assert render(make_workload()) == TAGS


def test_without_the_setting_a_request_has_no_tags(render: Callable[..., Any]) -> None:
    assert render(make_workload(), on=False) is None


def test_the_users_own_tags_win_and_stay(render: Callable[..., Any]) -> None:
    workload = make_workload(executor_config={"tags": {"dag_id": "mine", "team": "data"}})
    assert render(workload) == {**TAGS, "dag_id": "mine", "team": "data"}


def test_the_users_own_tags_leave_no_more_room_than_aws_gives(render: Callable[..., Any]) -> None:
    own = {f"tag{n}": "x" for n in range(48)}
    assert render(make_workload(executor_config={"tags": own})) == {**own, "dag_id": "dag", "run_id": "run"}


def test_a_callback_is_not_tagged(make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__CONTAINER_TAGS", "True")
    executor = make_executor(ScriptedExecutor)
    request = {"taskDefinition": "family:1", "overrides": {"containerOverrides": []}}
    callback = Launch("id", "callback-key", None, 0, "id", 0.0, label="callback")
    assert "tags" not in executor.adapter.spec(request, callback, None).request


@pytest.mark.parametrize(
    ("run_id", "tag"),
    [
        ("manual__2026-11-28T10:00:00+00:00", "manual__2026-11-28T10:00:00+00:00"),
        ("größe/x=y@z .-_", "größe/x=y@z .-_"),
        ("a\tb\nc*d[e]", "a_b_c_d_e_"),
        ("r" * 300, "r" * 256),
        ("aWs:my-run", "_aWs:my-run"),
        ("", ""),
    ],
)
def test_a_value_has_only_what_aws_takes(run_id: str, tag: str) -> None:
    assert container_tags({"run_id": run_id, "dag_id": None}) == {"run_id": tag}


def test_only_a_refusal_of_our_own_tags_gets_the_hint() -> None:
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:TagResource.")
    ours = [{"key": "dag_id", "value": "d"}]
    hinted = str(tag_refusal(denied, ours, "ecs:TagResource"))
    assert hinted.endswith("ecs:TagResource: allow ecs:TagResource, or set container_tags = False")
    for tags in (None, [], [{"key": "team", "value": "t"}]):
        assert tag_refusal(denied, tags, "ecs:TagResource") is denied
    other = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:RunTask")
    assert tag_refusal(other, ours, "ecs:TagResource") is other


# --- on the local ECS and Batch ---------------------------------------------------------------------------------


def beat_until(executor: Any, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        executor.heartbeat()
        time.sleep(0.02)
    return found


LOCAL = pytest.mark.parametrize(
    ("service", "cls", "operation"),
    [("ecs", AsyncEcsExecutor, "RunTask"), ("batch", AsyncBatchExecutor, "SubmitJob")],
)


@LOCAL
def test_the_service_has_the_tags(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    cls: type[Any],
    operation: str,
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__CONTAINER_TAGS", "True")
    local = local_ecs(script=[{"duration": 60.0}])
    executor = started(cls)
    queue(executor, make_workload())
    events = beat_until(executor, executor.get_event_buffer)
    ((_, handle_id),) = events.values()
    import boto3

    client: Any = boto3.client(service, endpoint_url=local.url, region_name=local.region)  # type: ignore[call-overload]
    if service == "ecs":
        (described,) = client.describe_tasks(cluster="main", tasks=[handle_id], include=["TAGS"])["tasks"]
    else:
        (described,) = client.describe_jobs(jobs=[handle_id])["jobs"]
    assert tags_in(described) == TAGS


@LOCAL
def test_a_missing_permission_is_named_with_the_setting(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    cls: type[Any],
    operation: str,
) -> None:
    section = f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR"
    monkeypatch.setenv(f"{section}__CONTAINER_TAGS", "True")
    monkeypatch.setenv(f"{section}__PERMANENT_ERROR_GRACE", "0")
    local = local_ecs()
    permission = f"{service}:TagResource"
    local.faults.error(
        operation, "AccessDeniedException", f"not authorized to perform: {permission} on resource x", 403
    )
    executor = started(cls)
    queue(executor, make_workload())
    events = beat_until(executor, executor.get_event_buffer)
    ((state, info),) = events.values()
    assert str(state) == "failed"
    assert f"allow {permission}, or set container_tags = False" in info
