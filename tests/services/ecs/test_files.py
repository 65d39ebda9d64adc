"""Workloads as objects in S3: written before a launch, deleted after it, and in nobody's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.ecs import files
from ecs_async_executor.services.ecs.backend import SERVICE, EcsBackend
from ecs_async_executor.services.ecs.files import WorkloadFiles
from ecs_async_executor.settings.values import Bucket
from tests.services.ecs.samples import ARN, settings, spec, task
from tests.services.fakes import FakeClient, FakeFactory, refusal, until

BUCKET = Bucket("workloads", "prod/")


class Store(FakeClient):
    """S3, as far as an object is there or not."""

    meta = SimpleNamespace(region_name="eu-west-1", partition="aws")

    def __init__(self, **answers: Any) -> None:
        super().__init__(**{"put_object": {}, "delete_object": {}, **answers})

    @property
    def left(self) -> set[str]:
        there: set[str] = set()
        for name, parameters in self.calls:
            there = there | {parameters["Key"]} if name == "put_object" else there - {parameters["Key"]}
        return there


def use(store: Store, work: Callable[[WorkloadFiles], Any], wall: Callable[[], float] = time.time) -> Any:
    async def run() -> Any:
        factory: Any = FakeFactory(store, "s3")
        made = WorkloadFiles(factory, BUCKET, SERVICE.event, wall)
        async with made.open():
            return await work(made)

    return asyncio.run(run())


def seen(state: Seen = Seen.RUNNING, number: int = 1, **more: Any) -> Observation:
    return Observation(Handle("c", f"{ARN}{number}"), state, started=state is Seen.RUNNING, **more)


def reply(*arns: str, number: int = 1) -> dict[str, Any]:
    override = {"name": "airflow", "environmentFiles": [{"type": "s3", "value": one} for one in arns]}
    return {"tasks": [{"taskArn": f"{ARN}{number}", "overrides": {"containerOverrides": [override]}}]}


def launching(store: Store, ecs_client: FakeClient, work: Callable[[EcsBackend], Any]) -> Any:
    async def run() -> Any:
        factories: Any = FakeFactory(ecs_client), FakeFactory(store, "s3")
        backend = EcsBackend(factories[0], settings(), WorkloadFiles(factories[1], BUCKET, SERVICE.event))
        async with backend.open():
            return await work(backend)

    return asyncio.run(run())


def test_a_launch_writes_the_object_and_then_names_it() -> None:
    store, ecs_client = Store(), FakeClient(run_task={"tasks": [task()]})
    made = replace(spec(), handed_over="A=b\n")
    launching(store, ecs_client, lambda backend: backend.launch(made, "id-1"))
    (asked,) = ecs_client.asked("run_task")
    (override,) = asked["overrides"]["containerOverrides"]
    assert override["environmentFiles"] == [{"type": "s3", "value": "arn:aws:s3:::workloads/prod/id-1.env"}]
    assert store.left == {"prod/id-1.env"}


def test_a_repeated_request_is_the_same_whatever_the_object_has_by_then() -> None:
    store, ecs_client = Store(), FakeClient(run_task={"tasks": [task()]})

    async def twice(backend: EcsBackend) -> None:
        for text in ("A=b\n", "A=c\n"):
            await backend.launch(replace(spec(), handed_over=text), "id-1")

    launching(store, ecs_client, twice)
    first, second = ecs_client.asked("run_task")
    assert first == second
    assert [one["Body"] for one in store.asked("put_object")] == [b"A=b\n", b"A=c\n"]


def test_without_the_object_nothing_is_launched() -> None:
    store = Store(put_object=refusal("AccessDenied", "Access Denied", "PutObject", 403))
    ecs_client = FakeClient()
    with pytest.raises(BackendError, match="workload_delivery"):
        launching(store, ecs_client, lambda backend: backend.launch(replace(spec(), handed_over="A=b\n"), "id-1"))
    assert ecs_client.calls == []


def test_a_launch_with_its_workload_in_the_command_writes_nothing() -> None:
    store = Store()
    launching(store, FakeClient(run_task={"tasks": [task()]}), lambda backend: backend.launch(spec(), "id-1"))
    assert store.calls == []


def test_what_describe_says_has_objects_deleted() -> None:
    store = Store()
    override = {"name": "airflow", "environmentFiles": [{"value": "arn:aws:s3:::workloads/prod/id-1.env"}]}
    record = task("RUNNING", startedAt=1.0, overrides={"containerOverrides": [override]})

    async def work(backend: EcsBackend) -> None:
        await backend.describe("c", [f"{ARN}1"])
        await until(lambda: store.asked("delete_object"))

    launching(store, FakeClient(describe_tasks={"tasks": [record], "failures": []}), work)


def test_the_object_is_named_after_the_client_token() -> None:
    store = Store()
    arn = use(store, lambda made: made.put("id-1", "A=b\n", None))
    assert arn == "arn:aws:s3:::workloads/prod/id-1.env"
    (put,) = store.asked("put_object")
    assert (put["Bucket"], put["Key"], put["Body"]) == ("workloads", "prod/id-1.env", b"A=b\n")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("SlowDown", "slow", "PutObject", 503), Kind.CONCURRENT),
        (refusal("InternalError", "oops", "PutObject", 500), Kind.UNSENT),
        (ReadTimeoutError(endpoint_url="https://s3"), Kind.UNSENT),
        (EndpointConnectionError(endpoint_url="https://s3"), Kind.UNSENT),
        (refusal("AccessDenied", "Access Denied", "PutObject", 403), Kind.REFUSED),
        (refusal("NoSuchBucket", "no such bucket", "PutObject", 404), Kind.REFUSED),
        (refusal("PermanentRedirect", "elsewhere", "PutObject", 301), Kind.REFUSED),
        (refusal("InvalidAccessKeyId", "who?", "PutObject", 403), Kind.CREDENTIALS),
        (NoCredentialsError(), Kind.CREDENTIALS),
    ],
    ids=str,
)
def test_a_write_that_fails_has_launched_nothing(answer: Exception, kind: Kind) -> None:
    with pytest.raises(BackendError) as caught:
        use(Store(put_object=answer), lambda made: made.put("id-1", "A=b\n", None))
    assert caught.value.kind is kind
    assert not caught.value.token_used
    assert ("workload_delivery" in caught.value.message) is (kind is Kind.REFUSED)


def test_a_write_without_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WRITING_TIMEOUT", 0.01)
    store = Store(put_object=lambda **_: asyncio.sleep(60))
    with pytest.raises(BackendError) as caught:
        use(store, lambda made: made.put("id-1", "A=b\n", None))
    assert (caught.value.kind, caught.value.code) == (Kind.UNSENT, "Timeout")


@pytest.mark.parametrize("observed", [seen(), seen(Seen.STOPPED), seen(exit_code=0)])
def test_an_object_goes_once_its_container_has_started_or_ended(observed: Observation) -> None:
    store = Store()

    async def work(made: WorkloadFiles) -> None:
        await made.put("id-1", "A=b\n", None)
        await made.put("id-2", "A=b\n", None)
        made.launched("id-1", f"{ARN}1")
        made.described([seen(Seen.PENDING), seen(Seen.PENDING, 2)], {}, "airflow")
        made.described([observed], {}, "airflow")
        await until(lambda: store.left == {"prod/id-2.env"})

    use(store, work)


def test_the_object_of_another_schedulers_container_goes_by_what_ecs_says_of_it() -> None:
    store = Store()

    async def work(made: WorkloadFiles) -> None:
        theirs = reply("arn:aws:s3:::users/own.env", "arn:aws:s3:::workloads/prod/id-7.env")
        made.described([seen()], theirs, "airflow")
        await until(lambda: store.asked("delete_object"))
        made.described([seen()], theirs, "airflow")
        await asyncio.sleep(0)

    use(store, work)
    assert [one["Key"] for one in store.asked("delete_object")] == ["prod/id-7.env"]


def test_an_object_goes_when_its_jwt_is_no_longer_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_LOOK", 0.005)
    store, now = Store(), [1000.0]

    async def work(made: WorkloadFiles) -> None:
        await made.put("id-1", "A=b\n", 1600.0)
        now[0] = 1601.0  # clocks differ
        await made.put("id-2", "A=b\n", 2600.0)
        await asyncio.sleep(0.01)
        assert store.left == {"prod/id-1.env", "prod/id-2.env"}
        now[0] = 1700.0
        await until(lambda: store.left == {"prod/id-2.env"})

    use(store, work, lambda: now[0])


def test_a_repeated_request_has_its_object_again_while_the_old_one_is_being_deleted() -> None:
    going = asyncio.Event()
    order: list[str] = []

    async def deletes(**_: Any) -> dict[str, Any]:
        order.append("begins")
        await going.wait()
        order.append("gone")
        return {}

    def puts(**_: Any) -> dict[str, Any]:
        order.append("put")
        return {}

    async def work(made: WorkloadFiles) -> None:
        await made.put("id-1", "A=b\n", None)
        made.launched("id-1", f"{ARN}1")
        made.described([seen()], {}, "airflow")
        await until(lambda: "begins" in order)
        again = asyncio.create_task(made.put("id-1", "A=c\n", None))
        await asyncio.sleep(0.01)
        going.set()
        await again

    use(Store(put_object=puts, delete_object=deletes), work)
    assert order == ["put", "begins", "gone", "put"]


def test_deletions_that_fail_are_tried_again_some_times_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_AGAIN", (0.0, 0.0))
    store = Store(delete_object=refusal("AccessDenied", "Access Denied", "DeleteObject", 403))

    async def work(made: WorkloadFiles) -> None:
        await made.put("id-1", "A=b\n", None)
        made.launched("id-1", f"{ARN}1")
        made.described([seen()], {}, "airflow")
        await until(lambda: len(store.asked("delete_object")) == 3)
        await asyncio.sleep(0.01)

    with capture_logs() as logs:
        use(store, work)
    assert len(store.asked("delete_object")) == 3
    (said,) = [line for line in logs if line["event"].endswith("workload.not_deleted")]
    assert (said["bucket"], said["code"]) == ("workloads", "AccessDenied")


def test_an_object_that_a_repeated_request_writes_again_goes_again() -> None:
    store = Store()

    async def work(made: WorkloadFiles) -> None:
        for _ in range(2):
            await made.put("id-1", "A=b\n", None)
            made.launched("id-1", f"{ARN}1")
            assert store.left
            made.described([seen()], {}, "airflow")
            await until(lambda: not store.left)

    use(store, work)


def test_closing_waits_for_no_deletion() -> None:
    async def work(made: WorkloadFiles) -> None:
        await made.put("id-1", "A=b\n", None)
        made.launched("id-1", f"{ARN}1")
        made.described([seen()], {}, "airflow")
        await asyncio.sleep(0.01)

    begun = time.monotonic()
    use(Store(delete_object=lambda **_: asyncio.sleep(60)), work)
    assert time.monotonic() - begun < 5


def test_what_is_kept_of_containers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST", 10)

    async def work(made: WorkloadFiles) -> None:
        for number in range(50):
            made.launched(f"id-{number}", f"{ARN}{number}")
            made.described([seen(number=number + 100)], {}, "airflow")
        assert len(made._key_of) <= 10
        assert len(made._started) <= 10

    use(Store(), work)
