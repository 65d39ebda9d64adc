from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError, ReadTimeoutError
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services import ecs, wire
from ecs_async_executor.services.wire import stop_reason
from ecs_async_executor.settings import EcsSettings, Tuning
from tests.unit.clients import FakeClient, FakeFactory, refusal

COMMAND = ["python", "-m", "x"]
MARK = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/c/"
CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def settings(**options: Any) -> EcsSettings:
    return EcsSettings(**{"cluster": "c", "container_name": "airflow", "task_definition": "f", **options})


def request(executor_config: Any = None, queue: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return ecs.workload_request(ecs.base_request(settings(**options)), queue, executor_config, "airflow", COMMAND)


def spec(executor_config: Any = None, **options: Any) -> LaunchSpec:
    return ecs.launch_spec(request(executor_config, **{"launch_type": "FARGATE", **options}), started_by="mark")


# --- merge

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


# Time is no part of these properties, and a busy machine has little of it.
patient = tried(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scribble(value: Any) -> None:
    """Change everything that can be changed."""
    if isinstance(value, dict):
        for inner in value.values():
            scribble(inner)
        value["scribbled"] = True
    elif isinstance(value, list):
        for inner in value:
            scribble(inner)
        value.append("scribbled")


@patient
@given(json_objects, json_objects)
def test_merge_changes_neither_argument_nor_shares_anything_with_them(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    before = copy.deepcopy((a, b))
    result = wire.merge(a, b)
    assert (a, b) == before
    scribble(result)
    assert (a, b) == before


@patient
@given(json_objects, json_objects)
def test_merge_updates_recursively(a: dict[str, Any], b: dict[str, Any]) -> None:
    result = wire.merge(a, b)
    assert result.keys() == a.keys() | b.keys()
    for key, value in result.items():
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            assert value == wire.merge(a[key], b[key])
        else:
            assert value == (b[key] if key in b else a[key])


@patient
@given(json_objects)
def test_a_workload_request_changes_nothing_that_it_was_given(executor_config: dict[str, Any]) -> None:
    base = ecs.base_request(settings())
    queue = {"overrides": {"containerOverrides": [{"name": "airflow", "environment": []}]}}
    before = copy.deepcopy((base, queue, executor_config))
    for _ in range(2):
        scribble(ecs.workload_request(base, queue, executor_config, "airflow", COMMAND))
        assert (base, queue, executor_config) == before


def test_a_base_request_shares_nothing_with_the_settings() -> None:
    options = settings(
        capacity_provider_strategy=({"capacityProvider": "a"},),
        run_task_kwargs={"overrides": {"containerOverrides": [{"environment": []}]}},
    )
    before = options.model_copy(deep=True)
    scribble(ecs.base_request(options))
    assert options == before


# --- one workload's request


def test_precedence_is_options_then_kwargs_then_queue_then_task() -> None:
    made = request(
        {"overrides": {"memory": "task"}},
        {"overrides": {"memory": "queue", "cpu": "queue"}, "group": "queue"},
        run_task_kwargs={
            "overrides": {"memory": "kwargs", "cpu": "kwargs", "taskRoleArn": "kwargs"},
            "task_definition": "kwargs",
        },
    )
    assert made["taskDefinition"] == "kwargs"
    assert made["group"] == "queue"
    overrides = {key: value for key, value in made["overrides"].items() if key != "containerOverrides"}
    assert overrides == {"memory": "task", "cpu": "queue", "taskRoleArn": "kwargs"}


def test_the_airflow_container_gets_command_and_mark() -> None:
    made = request({"overrides": {"containerOverrides": [{"name": "side"}, {"name": "airflow", "cpu": 1}]}})
    assert made["overrides"]["containerOverrides"] == [
        {"name": "side"},
        {"name": "airflow", "cpu": 1, "command": COMMAND, "environment": [MARK]},
    ]
    assert ecs.container_for(made, "airflow") is made["overrides"]["containerOverrides"][1]


class Uncopyable:
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("hunter2")


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ([], "executor_config must be a dictionary of RunTask parameters, not list"),
        ("hunter2", "not str"),
        ({1: 2}, "executor_config must be a dictionary"),
        ({"name": "hunter2"}, 'never override "name" or "command"'),
        ({"command": ["hunter2"]}, 'never override "name" or "command"'),
        ({"clientToken": "hunter2"}, "clientToken"),
        ({"count": 2}, "count must be 1"),
        ({"count": True}, "count must be 1"),
        ({"count": None}, "count must be 1"),
        ({"launchType": "EC2", "capacityProviderStrategy": []}, "mutually exclusive"),
        ({"overrides": "hunter2"}, "overrides must be a dictionary, not str"),
        ({"overrides": None}, "overrides must be a dictionary, not nothing"),
        ({"overrides": {"containerOverrides": {}}}, "containerOverrides must be a list of dictionaries"),
        ({"overrides": {"containerOverrides": ["hunter2"]}}, "containerOverrides must be a list of dictionaries"),
        ({"overrides": {"containerOverrides": [{"cpu": 1}]}}, 'container "name" must be provided'),
        ({"overrides": {"containerOverrides": [{"name": "other"}]}}, "has no container named 'airflow'"),
        ({"overrides": {"containerOverrides": []}}, "has no container named 'airflow'"),
        (
            {"overrides": {"containerOverrides": [{"name": "airflow", "environment": {"P": "hunter2"}}]}},
            "environment of container 'airflow' must be a list of names and values, not dict",
        ),
        ({"group": Uncopyable()}, "executor_config cannot be copied: TypeError"),
    ],
)
def test_a_bad_executor_config_is_rejected_with_a_reason_but_not_its_values(
    executor_config: Any, reason: str
) -> None:
    with pytest.raises(Rejected) as caught:
        request(executor_config)
    assert reason in caught.value.reason
    assert "hunter2" not in caught.value.reason


# --- the finished spec


@pytest.mark.parametrize(
    ("options", "executor_config", "bucket"),
    [
        ({"launch_type": "FARGATE"}, None, "FARGATE"),
        ({"launch_type": "EC2"}, None, "EC2"),
        ({"launch_type": "EXTERNAL"}, None, "EXTERNAL"),
        ({"launch_type": None}, None, "FARGATE"),
        ({"launch_type": "EC2"}, {"launchType": "FARGATE"}, "FARGATE"),
        ({}, {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}, "FARGATE_SPOT"),
        (
            {},
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}, {"capacityProvider": "FARGATE"}]},
            "FARGATE",
        ),
        ({}, {"capacityProviderStrategy": [{"capacityProvider": "mine"}]}, "EC2"),
    ],
)
def test_the_bucket_is_the_rate_that_aws_counts_in(options: Any, executor_config: Any, bucket: str) -> None:
    assert spec(executor_config, **options).bucket == bucket


def test_the_scope_is_the_cluster_as_given() -> None:
    assert spec().scope == "c"
    assert spec({"cluster": "arn:aws:ecs:x:1:cluster/gpu"}).scope == "arn:aws:ecs:x:1:cluster/gpu"
    made = request(launch_type="EC2")
    del made["cluster"]
    assert ecs.launch_spec(made, started_by="mark").scope == "default"


def container(**parameters: Any) -> dict[str, Any]:
    return {"overrides": {"containerOverrides": [{"name": "airflow", **parameters}]}}


PLACEMENTS = [
    None,
    {"cluster": "other"},
    {"launchType": "EC2"},
    {"capacityProviderStrategy": [{"capacityProvider": "mine"}]},
    {"taskDefinition": "other"},
    {"overrides": {"cpu": "1024"}},
    {"overrides": {"memory": "1024"}},
    {"placementConstraints": [{"type": "distinctInstance"}]},
    container(cpu=1),
    container(memory=1),
    container(memoryReservation=1),
    container(resourceRequirements=[{"type": "GPU", "value": "1"}]),
]


def test_what_competes_for_other_room_has_another_placement() -> None:
    assert len({spec(config).placement for config in PLACEMENTS}) == len(PLACEMENTS)


def test_what_competes_for_the_same_room_has_the_same_placement() -> None:
    same = [
        {},
        {"tags": {"a": "b"}},
        container(environment=[{"name": "A", "value": "b"}]),
        {"propagateTags": "TASK_DEFINITION"},
    ]
    assert {spec(config).placement for config in same} == {"cluster=c capacity=FARGATE task=f"}


def test_our_mark_is_put_in() -> None:
    made = spec()
    assert made.started_by == made.request["startedBy"] == "mark"


def test_the_users_own_mark_stays_and_is_not_searched_for() -> None:
    made = spec({"startedBy": "theirs"})
    assert made.request["startedBy"] == "theirs"
    assert made.started_by is None


def test_a_spec_is_not_changed_by_what_happens_to_the_request() -> None:
    made = request(launch_type="FARGATE")
    sealed = ecs.launch_spec(made, started_by="mark", expires_at=7.0)
    before = copy.deepcopy(sealed)
    scribble(made)
    assert sealed == before
    assert sealed.expires_at == 7.0


def test_a_spec_does_not_show_its_request() -> None:
    assert "python" not in repr(spec())


def padded(characters: int) -> dict[str, Any]:
    made = request(container(environment=[{"name": "A", "value": ""}]), launch_type="FARGATE")
    size = len(json.dumps(made["overrides"], separators=(",", ":")))
    ecs.container_for(made, "airflow")["environment"][0]["value"] = "ü" * (characters - size)
    return made


def test_overrides_of_8192_characters_are_accepted() -> None:
    assert ecs.launch_spec(padded(8192), started_by="m").started_by == "m"


def test_overrides_of_more_are_rejected() -> None:
    with pytest.raises(
        Rejected, match="overrides have 8193 characters with the command in them, and ECS takes 8192"
    ):
        ecs.launch_spec(padded(8193), started_by="m")


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ({"startedBy": "a b"}, "startedBy must have 1 to 128 letters"),
        ({"startedBy": "a" * 129}, "startedBy must have"),
        ({"startedBy": 7}, "startedBy must have"),
        ({"taskDefinition": ""}, "no task definition"),
        (container(cpu=object()), "overrides cannot be sent as JSON: TypeError"),
    ],
)
def test_what_ecs_would_refuse_is_rejected(executor_config: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        spec(executor_config)


@pytest.mark.parametrize("change", [{"count": 3}, {"clientToken": "t"}, {"capacityProviderStrategy": [{}]}])
def test_what_a_hook_returns_is_checked_too(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        ecs.launch_spec(request(launch_type="FARGATE") | change, started_by="m")


# --- what a record means


def task(status: str = "RUNNING", main: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    containers = [{"name": "side", "exitCode": 137}, {"name": "airflow", **(main or {})}]
    return {"taskArn": ARN + "1", "clusterArn": "c", "lastStatus": status, "containers": containers, **more}


STOPPED_USUALLY: dict[str, Any] = {
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
}
SPOT: dict[str, Any] = {"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."}
OOM = "OutOfMemoryError: Container killed due to memory usage"
PULL = "CannotPullContainerError: pull image manifest has been retried 5 time(s): i/o timeout"
HOST: dict[str, Any] = {"stopCode": "InfrastructureHealth", "stoppedReason": "Host EC2 (instance i-0) terminated."}

OBSERVATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("provisioning", task("PROVISIONING"), {"seen": Seen.PENDING, "started": False, "reason": ""}),
    ("pending", task("PENDING"), {"seen": Seen.PENDING, "started": False}),
    ("activating", task("ACTIVATING"), {"seen": Seen.PENDING, "started": False}),
    ("running", task(startedAt=CREATED), {"seen": Seen.RUNNING, "started": True, "exit_code": None, "reason": ""}),
    ("running without a start time", task("RUNNING"), {"seen": Seen.RUNNING, "started": True}),
    (
        "its container runs already",
        task("PENDING", {"lastStatus": "RUNNING"}),
        {"seen": Seen.PENDING, "started": True},
    ),
    (
        "exited while the task still runs",
        task("RUNNING", {"exitCode": 0}, startedAt=CREATED),
        {"seen": Seen.RUNNING, "exit_code": 0, "reason": ""},
    ),
    (
        "deprovisioning after success",
        task("DEPROVISIONING", {"exitCode": 0}),
        {"seen": Seen.RUNNING, "exit_code": 0},
    ),
    (
        "deprovisioning without a start",
        task("DEPROVISIONING", stopCode="TaskFailedToStart", stoppedReason=PULL),
        {"seen": Seen.PENDING, "started": False, "reason": ""},
    ),
    (
        "a sidecar does not decide",
        task("STOPPED", {"exitCode": 0}, startedAt=CREATED, **STOPPED_USUALLY),
        {"seen": Seen.STOPPED, "exit_code": 0, "reason": "", "unusual": False},
    ),
    (
        "failed",
        task("STOPPED", {"exitCode": 1}, **STOPPED_USUALLY),
        {"exit_code": 1, "reason": "ECS container exited 1", "unusual": False},
    ),
    (
        "out of memory",
        task("STOPPED", {"exitCode": 137, "reason": OOM}, **STOPPED_USUALLY),
        {"exit_code": 137, "reason": f"ECS container exited 137 ({OOM})"},
    ),
    (
        "spot",
        task("STOPPED", {"exitCode": 143}, **SPOT),
        {"reason": "ECS container exited 143: Your Spot Task was interrupted.", "unusual": True},
    ),
    (
        "stopped by a person, no words",
        task("STOPPED", {"exitCode": 143}, stopCode="UserInitiated"),
        {"reason": "ECS container exited 143: UserInitiated", "unusual": True},
    ),
    (
        "stopped by a person before it ran",
        task("STOPPED", stopCode="UserInitiated", stoppedReason="not wanted"),
        {
            "started": False,
            "by_hand": True,
            "reason": "ECS task stopped before its container ran: not wanted",
        },
    ),
    *(
        (
            f"stopped by something else before it ran: {reason}",
            task("STOPPED", stopCode=code, stoppedReason=reason),
            {"started": False, "by_hand": False},
        )
        for code, reason in (
            ("UserInitiated", stop_reason("revoked")),
            ("UserInitiated", stop_reason("x" * 300)),
            ("UserInitiated", "Airflow Executor received a SIGTERM"),
            ("UserInitiated", "Host EC2 (instance i-0) terminated."),
            ("TerminationNotice", "Host EC2 (instance i-0) terminated."),
            ("UserInitiated", "Container instance deregistration forced by user"),
            ("TaskFailedToStart", PULL),
            (None, "not wanted"),
        )
    ),
    (
        "host lost while it ran",
        task("STOPPED", startedAt=CREATED, **HOST),
        {
            "seen": Seen.STOPPED,
            "started": True,
            "exit_code": None,
            "unusual": True,
            "reason": (
                "ECS task stopped without an exit code from its container: Host EC2 (instance i-0) terminated."
            ),
        },
    ),
    (
        "image cannot be pulled",
        task("STOPPED", {"reason": PULL}, stopCode="TaskFailedToStart", stoppedReason="Task failed to start"),
        {
            "started": False,
            "unusual": True,
            "reason": f"ECS task stopped before its container ran: {PULL}; Task failed to start",
        },
    ),
    (
        "the same reason twice",
        task("STOPPED", {"reason": PULL}, stopCode="TaskFailedToStart", stoppedReason=f"{PULL} (again)"),
        {"reason": f"ECS task stopped before its container ran: {PULL} (again)"},
    ),
    (
        "no containers at all",
        task("STOPPED", stopCode="TaskFailedToStart") | {"containers": []},
        {"started": False, "reason": "ECS task stopped before its container ran: TaskFailedToStart"},
    ),
    (
        "no words at all",
        {"taskArn": ARN + "1", "lastStatus": "STOPPED"},
        {"started": False, "unusual": False, "reason": "ECS task stopped before its container ran"},
    ),
    ("deleted", task("DELETED", {"exitCode": 3}), {"seen": Seen.STOPPED, "exit_code": 3}),
    ("unknown status before the start", task("PONDERING"), {"seen": Seen.PENDING, "status": "PONDERING"}),
    ("unknown status after the start", task("PONDERING", startedAt=CREATED), {"seen": Seen.RUNNING}),
    (
        "particulars",
        task(createdAt=CREATED, startedBy="mark", **SPOT),
        {
            "created_at": CREATED.timestamp(),
            "started_by": "mark",
            "stop_code": "SpotInterruption",
            "unusual": True,
        },
    ),
    ("a time as a number", task(createdAt=12.5), {"created_at": 12.5}),
]


@pytest.mark.parametrize(
    ("record", "expected"), [case[1:] for case in OBSERVATIONS], ids=[c[0] for c in OBSERVATIONS]
)
def test_an_observation_says_what_the_record_means(record: dict[str, Any], expected: dict[str, Any]) -> None:
    seen = ecs.observation(record, "airflow", "scope")
    assert {name: getattr(seen, name) for name in expected} == expected
    assert seen.handle == Handle("scope", ARN + "1")


def test_without_a_scope_the_records_own_cluster_is_taken() -> None:
    assert ecs.observation(task(), "airflow").handle.scope == "c"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("RESOURCE:MEMORY", Kind.CAPACITY),
        ("RESOURCE:ENI", Kind.CAPACITY),
        ("AGENT", Kind.CAPACITY),
        ("Capacity is unavailable at this time. Please try again later or in a different zone", Kind.CAPACITY),
        ("You\u2019ve reached the limit on the number of vCPUs you can run concurrently", Kind.CAPACITY),
        ("You've reached the limit on the number of tasks you can run concurrently", Kind.CAPACITY),
        ("EMPTY CAPACITY PROVIDER", Kind.CAPACITY),
        ("DistinctInstance placement constraint unsatisfied.", Kind.CAPACITY),
        ("ATTRIBUTE", Kind.INVALID),
        ("LOCATION", Kind.INVALID),
        ("MISSING", Kind.REFUSED),
        ("something new", Kind.REFUSED),
    ],
)
def test_a_run_task_failure_has_a_kind_and_awss_words(reason: str, kind: Kind) -> None:
    error = ecs.failure_error([{"reason": reason, "detail": "more"}])
    assert error.kind is kind
    assert error.message == f"{reason} (more)"


def test_a_failure_without_a_reason_is_survived() -> None:
    assert ecs.failure_error([{}]).kind is Kind.REFUSED


# --- the backend


def use(client: FakeClient, work: Callable[[ecs.EcsBackend], Any], factory: FakeFactory | None = None) -> Any:
    async def run() -> Any:
        session: Any = factory or FakeFactory(client)
        backend = ecs.EcsBackend(session, settings(), Tuning())
        async with backend.open():
            return await work(backend)

    return asyncio.run(run())


def test_launch_sends_the_request_with_the_token_and_leaves_the_spec_alone() -> None:
    client = FakeClient(run_task={"tasks": [task("PROVISIONING", startedBy="mark")], "failures": []})
    made = spec()
    before = copy.deepcopy(made)
    seen = use(client, lambda backend: backend.launch(made, "l-1"))
    assert client.calls == [("run_task", {**made.request, "clientToken": "l-1"})]
    assert made == before
    assert (seen.handle, seen.seen, seen.started_by) == (Handle("c", ARN + "1"), Seen.PENDING, "mark")


def test_a_replayed_launch_of_a_stopped_task_is_left_to_describe() -> None:
    record = {"taskArn": ARN + "1", "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}
    seen = use(FakeClient(run_task={"tasks": [record]}), lambda backend: backend.launch(spec(), "l-1"))
    assert (seen.seen, seen.status, seen.reason) == (Seen.PENDING, "STOPPED", "")


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        ({"tasks": [], "failures": []}, Kind.AMBIGUOUS, "EmptyReply"),
        ({}, Kind.AMBIGUOUS, "EmptyReply"),
        ({"tasks": [{"lastStatus": "RUNNING"}]}, Kind.AMBIGUOUS, "MalformedReply"),
        ({"tasks": [], "failures": [{"reason": "RESOURCE:CPU"}]}, Kind.CAPACITY, "RESOURCE:CPU"),
        (refusal("ClusterNotFoundException", "no", "RunTask"), Kind.REFUSED, "ClusterNotFoundException"),
        (ReadTimeoutError(endpoint_url="http://x"), Kind.AMBIGUOUS, "ReadTimeoutError"),
    ],
)
def test_a_launch_that_does_not_succeed_says_what_that_means(reply: Any, kind: Kind, code: str) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=reply), lambda backend: backend.launch(spec(), "l-1"))
    assert (caught.value.kind, caught.value.code) == (kind, code)


def test_a_conflict_names_what_exists() -> None:
    conflict = refusal("ConflictException", "used", "RunTask", resourceIds=[ARN + "7"])
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=conflict), lambda backend: backend.launch(spec(), "l-1"))
    assert (caught.value.kind, caught.value.resource_ids) == (Kind.CONFLICT, (ARN + "7",))


def test_an_error_keeps_no_way_to_the_request() -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=ValueError("python -m x")), lambda backend: backend.launch(spec(), "l-1"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "python" not in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ([], {"launchType": "FARGATE"}),
        ([{"capacityProvider": "FARGATE_SPOT"}], {}),
        ([{"capacityProvider": "mine"}], {"platformVersion": None}),
    ],
)
def test_without_launch_type_the_clusters_default_decides(strategy: Any, changes: dict[str, Any]) -> None:
    client = FakeClient(
        run_task={"tasks": [task()]},
        describe_clusters={"clusters": [{"defaultCapacityProviderStrategy": strategy}]},
    )
    made = spec({"cluster": "k"}, launch_type=None)
    use(client, lambda backend: backend.launch(made, "l-1"))
    expected = {**made.request, "clientToken": "l-1", **changes}
    assert client.asked("describe_clusters") == [{"clusters": ["k"]}]
    assert client.asked("run_task") == [{key: value for key, value in expected.items() if value is not None}]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"clusters": [], "failures": [{"reason": "MISSING"}]}, Kind.REFUSED),
        (refusal("AccessDeniedException", "no", "DescribeClusters"), Kind.REFUSED),
        (refusal("ThrottlingException", "slow", "DescribeClusters"), Kind.CONCURRENT),
        (ReadTimeoutError(endpoint_url="http://x"), Kind.CONCURRENT),
        ({}, Kind.CONCURRENT),
        (NoCredentialsError(), Kind.CREDENTIALS),
    ],
)
def test_a_default_that_cannot_be_learned_launches_nothing_and_is_asked_for_again(answer: Any, kind: Kind) -> None:
    client = FakeClient(describe_clusters=answer)

    async def twice(backend: ecs.EcsBackend) -> None:
        for _ in range(2):
            with pytest.raises(BackendError) as caught:
                await backend.launch(spec(launch_type=None), "l-1")
            assert caught.value.kind is kind

    use(client, twice)
    assert [name for name, _ in client.calls] == ["describe_clusters", "describe_clusters"]


def test_describe_reports_found_and_missing() -> None:
    client = FakeClient(
        describe_tasks={
            "tasks": [task()],
            "failures": [
                {"arn": ARN + "2", "reason": "MISSING"},
                {"arn": ARN + "3", "reason": "ODD", "detail": "why"},
            ],
        }
    )
    found = use(client, lambda backend: backend.describe("k", [ARN + "1", ARN + "2", ARN + "3"]))
    assert client.calls == [("describe_tasks", {"cluster": "k", "tasks": [ARN + "1", ARN + "2", ARN + "3"]})]
    assert [(one.handle, one.seen) for one in found] == [
        (Handle("k", ARN + "1"), Seen.RUNNING),
        (Handle("k", ARN + "2"), Seen.MISSING),
        (Handle("k", ARN + "3"), Seen.MISSING),
    ]
    assert (found[2].status, found[2].reason) == ("ODD", "ECS does not know the task: ODD (why)")


@pytest.mark.parametrize(
    ("method", "work"),
    [
        ("describe_tasks", lambda backend: backend.describe("k", [ARN + "1"])),
        ("list_tasks", lambda backend: backend.find("k", "mark")),
    ],
)
def test_a_reply_that_is_no_reply_is_not_taken_for_an_empty_one(method: str, work: Any) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(**{method: {"ResponseMetadata": {}}}), work)
    assert (caught.value.kind, caught.value.code) == (Kind.AMBIGUOUS, "MalformedReply")


MALFORMED: list[Any] = [
    {},
    {"taskArn": ARN + "9"},
    {"taskArn": ARN + "9", "lastStatus": 7},
    {"taskArn": ARN + "9", "lastStatus": "RUNNING", "containers": 7},
    {"taskArn": ARN + "9", "lastStatus": "RUNNING", "containers": ["x"]},
    {"taskArn": ARN + "9", "lastStatus": "RUNNING", "containers": [{"name": "airflow", "exitCode": "x"}]},
    {"taskArn": ARN + "9", "lastStatus": "RUNNING", "createdAt": "yesterday"},
    "nonsense",
    None,
]


@pytest.mark.parametrize("record", MALFORMED, ids=repr)
def test_one_malformed_record_spoils_no_other_and_is_logged_once(record: Any) -> None:
    client = FakeClient(describe_tasks={"tasks": [record, task()], "failures": [record, {"arn": ARN + "2"}]})

    async def twice(backend: ecs.EcsBackend) -> list[Observation]:
        await backend.describe("k", [ARN + "1", ARN + "2"])
        return list(await backend.describe("k", [ARN + "1", ARN + "2"]))

    with capture_logs() as logs:
        found = use(client, twice)
    assert [one.handle.id for one in found] == [ARN + "1", ARN + "2"]
    assert [entry["event"] for entry in logs].count("ecs_executor.describe.malformed") in {1, 2}
    assert len({(entry["record"], entry["arn"]) for entry in logs}) == len(logs)


def test_stop_asks_in_the_tasks_own_cluster_and_keeps_the_reason_short() -> None:
    client = FakeClient(stop_task={"task": {}})
    use(client, lambda backend: backend.stop(Handle("k", ARN + "1"), "r" * 999))
    [(_, parameters)] = client.calls
    assert parameters == {"cluster": "k", "task": ARN + "1", "reason": stop_reason("r" * 300)}
    assert len(parameters["reason"]) == 255


def test_stopping_what_does_not_exist_is_not_found() -> None:
    gone = refusal("InvalidParameterException", "The referenced task was not found.", "StopTask")
    with pytest.raises(BackendError) as caught:
        use(FakeClient(stop_task=gone), lambda backend: backend.stop(Handle("k", ARN + "1"), "r"))
    assert caught.value.kind is Kind.NOT_FOUND


def test_the_check_is_passed_when_only_the_task_does_not_exist() -> None:
    client = FakeClient(
        stop_task=refusal("InvalidParameterException", "The referenced task was not found.", "StopTask")
    )
    use(client, lambda backend: backend.check())
    assert client.calls == [("stop_task", {"cluster": "c", "task": "a" * 32})]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            refusal("ClusterNotFoundException", "Cluster not found.", "StopTask"),
            Kind.REFUSED,
            "because: Cluster not found. ",
        ),
        (refusal("AccessDeniedException", "not allowed", "StopTask"), Kind.REFUSED, "because: not allowed. "),
        (NoCredentialsError(), Kind.CREDENTIALS, "because: Unable to locate credentials. "),
        ({"task": {}}, Kind.REFUSED, "for an unknown reason. "),
    ],
)
def test_a_failed_check_says_so_in_the_providers_words(answer: Any, kind: Kind, words: str) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(stop_task=answer), lambda backend: backend.check())
    assert caught.value.kind is kind
    assert caught.value.message == (
        f"ECS Executor health check has failed {words}"
        "The ECS executor will not be able to run Airflow tasks until the issue is addressed."
    )


def test_refused_credentials_are_looked_up_again() -> None:
    client = FakeClient(describe_tasks=refusal("ExpiredTokenException", "old", "DescribeTasks"))
    factory = FakeFactory(client)
    with pytest.raises(BackendError) as caught:
        use(client, lambda backend: backend.describe("k", [ARN + "1"]), factory)
    assert caught.value.kind is Kind.CREDENTIALS
    assert factory.forgotten == 1
    assert factory.closed


def test_a_client_that_cannot_be_made_is_an_error_of_ours() -> None:
    class Broken(FakeFactory):
        @asynccontextmanager
        async def client(self, service: str, decoders: Any = None) -> Any:
            if service:
                raise NoCredentialsError
            yield

    client = FakeClient()
    with pytest.raises(BackendError) as caught:
        use(client, lambda _: None, Broken(client))
    assert caught.value.kind is Kind.CREDENTIALS


# --- finding


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run, without any time passing, until they have come to a point."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class Cluster:
    """Lists and describes tasks as ECS does, two to a page."""

    def __init__(self, running: dict[str, str], stopped: dict[str, str]) -> None:
        self.running = running
        self.stopped = stopped
        self.client = FakeClient(list_tasks=self.list_tasks, describe_tasks=self.describe_tasks)
        self.hold: asyncio.Event | None = None

    async def list_tasks(self, *, cluster: str, **filters: str) -> dict[str, Any]:
        marked, state = filters.get("startedBy"), filters.get("desiredStatus", "RUNNING")
        first = int(filters.get("nextToken", 0))
        assert cluster == "k"
        assert not ("startedBy" in filters and "desiredStatus" in filters), "startedBy must be the only filter"
        tasks = self.running if state == "RUNNING" else self.stopped
        arns = [arn for arn, mark in tasks.items() if marked in {None, mark}]
        page = {"taskArns": arns[first : first + 2]}
        if self.hold is not None and state == "STOPPED":
            await self.hold.wait()
        return page | ({"nextToken": str(first + 2)} if len(arns) > first + 2 else {})

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        assert cluster == "k"
        assert 0 < len(tasks) <= 100
        return {"tasks": [{"taskArn": arn, "startedBy": self.stopped[arn]} for arn in tasks]}

    def sweeps(self) -> int:
        return sum(
            1
            for call in self.client.asked("list_tasks")
            if call.get("desiredStatus") == "STOPPED" and "nextToken" not in call
        )


def test_find_lists_running_and_stopped_tasks_through_all_pages() -> None:
    cluster = Cluster(
        running={ARN + f"r{n}": "mark" if n % 2 else "other" for n in range(10)},
        stopped={ARN + f"s{n}": "mark" if n == 4 else "other" for n in range(5)},
    )
    found = use(cluster.client, lambda backend: backend.find("k", "mark"))
    assert found == [Handle("k", ARN + name) for name in ("r1", "r3", "r5", "r7", "r9", "s4")]


@pytest.mark.parametrize("record", [None, "task", {"startedBy": "mark"}, {"taskArn": ["x"], "startedBy": "mark"}])
def test_a_stopped_task_whose_record_cannot_be_read_spoils_no_search(record: Any) -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark", ARN + "2": "mark"})

    def describe_tasks(**parameters: Any) -> Any:
        reply = cluster.describe_tasks(**parameters)
        return {"tasks": [record if task["taskArn"] == ARN + "2" else task for task in reply["tasks"]]}

    cluster.client.answers["describe_tasks"] = describe_tasks
    with capture_logs() as logs:
        assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "1")]
    assert [entry["event"] for entry in logs] == ["ecs_executor.describe.malformed"]


def test_a_task_that_is_in_both_lists_is_found_once() -> None:
    cluster = Cluster(running={ARN + "1": "mark"}, stopped={ARN + "1": "mark"})
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "1")]


def test_those_who_search_during_a_sweep_share_the_next_one() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "old"})

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        cluster.hold = asyncio.Event()
        first = asyncio.create_task(backend.find("k", "new"))
        await until(lambda: cluster.sweeps() == 1)
        others = [asyncio.create_task(backend.find("k", "new")) for _ in range(20)]
        await until(lambda: len(cluster.client.asked("list_tasks")) == 22)
        # Stopped after the first sweep had read its page: only a later sweep can see it.
        cluster.stopped[ARN + "2"] = "new"
        cluster.hold.set()
        return [await first, *await asyncio.gather(*others)]

    first, *others = use(cluster.client, search)
    assert first == []
    assert others == [[Handle("k", ARN + "2")]] * 20
    assert cluster.sweeps() == 2
    assert [call["tasks"] for call in cluster.client.asked("describe_tasks")] == [[ARN + "1"], [ARN + "2"]]


def test_a_failed_sweep_is_not_shared() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    to_come = [refusal("ThrottlingException", "slow", "ListTasks")]

    def list_tasks(**parameters: Any) -> Any:
        if parameters.get("desiredStatus") == "STOPPED" and to_come:
            return to_come.pop()
        return cluster.list_tasks(**parameters)

    cluster.client.answers["list_tasks"] = list_tasks

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        return await asyncio.gather(*(backend.find("k", "mark") for _ in range(3)), return_exceptions=True)

    results = use(cluster.client, search)
    assert isinstance(results[0], BackendError)
    assert results[1:] == [[Handle("k", ARN + "1")]] * 2


def test_a_sweep_goes_on_where_an_answer_was_lost_or_came_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_GO_ON_AFTER", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    troubles: dict[str, list[Exception]] = {
        "4": [refusal("ThrottlingException", "slow", "ListTasks"), ConnectionResetError()],
        "describe": [ConnectionResetError()],
    }

    def list_tasks(**parameters: Any) -> Any:
        to_come = troubles.get(parameters.get("nextToken", ""))
        return to_come.pop() if to_come else cluster.list_tasks(**parameters)

    def describe_tasks(**parameters: Any) -> Any:
        to_come = troubles["describe"]
        return to_come.pop() if to_come else cluster.describe_tasks(**parameters)

    cluster.client.answers.update(list_tasks=list_tasks, describe_tasks=describe_tasks)
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "s8")]
    assert cluster.sweeps() == 1
    assert not any(troubles.values())


@pytest.mark.parametrize("page", ["", "4", "8"])
def test_half_a_list_is_not_taken_for_the_whole(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_EMPTY_PAGE_AGAIN", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    nothing: list[Any] = [{"taskArns": []}]

    def list_tasks(**parameters: Any) -> Any:
        stopped = parameters.get("desiredStatus") == "STOPPED"
        if stopped and parameters.get("nextToken", "") == page and nothing:
            return nothing.pop()
        return cluster.list_tasks(**parameters)

    cluster.client.answers["list_tasks"] = list_tasks
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "s8")]
    assert not nothing


def test_a_list_that_ends_with_an_empty_page_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_EMPTY_PAGE_AGAIN", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + "1": "mark", ARN + "2": "other"})

    async def list_tasks(**parameters: Any) -> Any:
        page = await cluster.list_tasks(**parameters)
        return page | ({"nextToken": "2"} if page["taskArns"] else {})

    cluster.client.answers["list_tasks"] = list_tasks
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "1")]


def test_what_a_failed_sweep_has_learnt_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs.EcsBackend, "describe_batch", 3)
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    refused = [refusal("AccessDeniedException", "no", "DescribeTasks")]

    def describe_tasks(**parameters: Any) -> Any:
        last = ARN + "s8" in parameters["tasks"]
        return refused.pop() if last and refused else cluster.describe_tasks(**parameters)

    cluster.client.answers["describe_tasks"] = describe_tasks

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        with pytest.raises(BackendError):
            await backend.find("k", "mark")
        return list(await backend.find("k", "mark"))

    assert use(cluster.client, search) == [Handle("k", ARN + "s8")]
    asked = [call["tasks"] for call in cluster.client.asked("describe_tasks")]
    assert [len(tasks) for tasks in asked] == [3, 3, 3, 3]
    assert asked[2] == asked[3]


def test_a_listed_task_that_is_not_shown_for_a_moment_is_found_all_the_same() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    replies: list[Any] = [{"tasks": [], "failures": []}, {"failures": [{"arn": ARN + "1", "reason": "MISSING"}]}]

    def describe_tasks(**parameters: Any) -> Any:
        return replies.pop() if replies else cluster.describe_tasks(**parameters)

    cluster.client.answers["describe_tasks"] = describe_tasks
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == [Handle("k", ARN + "1")]


def test_a_listed_task_that_was_forgotten_since_is_not_asked_for_without_end() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    cluster.client.answers["describe_tasks"] = {"failures": [{"arn": ARN + "1", "reason": "MISSING"}]}
    assert use(cluster.client, lambda backend: backend.find("k", "mark")) == []
    assert len(cluster.client.asked("describe_tasks")) == 3


BASE: dict[str, Any] = {"cluster": "c", "taskDefinition": "airflow", "launchType": "FARGATE", "overrides": {}}


@pytest.mark.parametrize(
    "own",
    [
        {"overrides": {"taskRoleArn": "arn:aws:iam::1:role/secret"}},
        {"overrides": {"executionRoleArn": "arn:aws:iam::1:role/secret"}},
        {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-of-a-full-zone"]}}},
    ],
)
def test_what_ecs_can_refuse_for_one_task_alone_has_a_gate_of_its_own(own: dict[str, Any]) -> None:
    of_all = ecs.launch_spec(BASE, started_by="one").placement
    of_one = ecs.launch_spec({**BASE, **own}, started_by="other").placement
    assert of_all != of_one
