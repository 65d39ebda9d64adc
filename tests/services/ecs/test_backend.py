from __future__ import annotations

import copy
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError, ReadTimeoutError
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import ecs
from ecs_async_executor.services.requests import stop_reason
from tests.services.ecs.samples import ARN, settings, spec, task, use
from tests.services.fakes import FakeClient, FakeFactory, refusal


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


@pytest.mark.parametrize(
    ("executor_config", "said"),
    [
        (
            {"memory": "8 GB"},
            "given values: the task definition's cpu does not go with memory = 8192; ask for cpu too",
        ),
        (
            {"overrides": {"cpu": "256"}},
            "the task definition's memory does not go with cpu = 256; ask for memory too",
        ),
        ({"overrides": {"cpu": "256", "memory": "9999"}}, "No Fargate configuration exists for given values."),
    ],
)
def test_a_size_that_the_task_definition_makes_impossible_is_refused_with_the_way_out(
    executor_config: Any, said: str
) -> None:
    no = refusal("InvalidParameterException", "No Fargate configuration exists for given values.", "RunTask")
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=no), lambda backend: backend.launch(spec(executor_config), "l-1"))
    assert caught.value.kind is Kind.INVALID
    assert caught.value.message.endswith(said)


def test_a_conflict_names_what_exists() -> None:
    conflict = refusal("ConflictException", "used", "RunTask", resourceIds=[ARN + "7"])
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=conflict), lambda backend: backend.launch(spec(), "l-1"))
    assert (caught.value.kind, caught.value.resource_ids) == (Kind.CONFLICT, (ARN + "7",))


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
        (ReadTimeoutError(endpoint_url="http://x"), Kind.UNSENT),
        ({}, Kind.UNSENT),
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
        ("list_tasks", lambda backend: backend.search("k", "mark")),
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
        (refusal("ServerException", "", "StopTask", 500), Kind.AMBIGUOUS, "because: ServerException. "),
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


def test_a_refused_look_at_the_cluster_says_what_it_was_for() -> None:
    client = FakeClient(describe_clusters=refusal("AccessDeniedException", "not allowed", "DescribeClusters"))
    with pytest.raises(BackendError) as caught:
        use(client, lambda backend: backend.launch(spec(launch_type=None), "l-1"))
    assert str(caught.value) == (
        "AccessDeniedException: not allowed "
        "(DescribeClusters is needed because neither launch_type nor capacity_provider_strategy is set)"
    )


def test_the_untried_operation_is_told_with_the_reason() -> None:
    clients: Any = FakeFactory(FakeClient())
    assert f"Not tried: {ecs.EcsBackend(clients, settings()).untried}." == (
        "Not tried: RunTask, because it would start a task. check --launch starts one, and shows whether ECS "
        "accepts the task definition, and whether the credentials permit RunTask and passing its roles."
    )
