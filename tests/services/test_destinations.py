"""Several destinations as one: what goes where, and what one that is down means for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.destinations import HOME, sent_to
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.destinations import ConsoleOfAll, Destinations, inspecting
from ecs_async_executor.services.details import Details
from ecs_async_executor.services.logs import LogReader, LogStream
from ecs_async_executor.services.places import Places
from ecs_async_executor.settings.rules import Destination
from tests.services.ecs.samples import settings, spec, task
from tests.services.fakes import FakeClient, FakeFactory, refusal, until

RULES = {HOME: Destination(region_name="eu-west-1"), "us": Destination(region_name="us-east-1")}
US_ARN = "arn:aws:ecs:us-east-1:123456789012:task/c/1"


class Factory(FakeFactory):
    """A factory whose clients open when the test lets them, or fail."""

    def __init__(self, client: FakeClient, service: str = "ecs") -> None:
        super().__init__(client, service)
        self.opened = 0
        self.errors: list[Exception] = []
        self.go = asyncio.Event()
        self.go.set()

    @asynccontextmanager
    async def client(self, service: str, decoders: Any = None, **_: Any) -> AsyncIterator[Any]:
        self.opened += 1
        await self.go.wait()
        if self.errors:
            raise self.errors.pop()
        async with super().client(service, decoders) as client:
            yield client


def answering(**answers: Any) -> FakeClient:
    usual = {
        "run_task": {"tasks": [task("PENDING", taskArn=US_ARN)]},
        "describe_tasks": {"tasks": [task(taskArn=US_ARN)]},
        "list_tasks": {"taskArns": [US_ARN]},
        "describe_clusters": {"clusters": [{}]},
        "stop_task": refusal("InvalidParameterException", "The referenced task was not found.", "StopTask"),
    }
    return FakeClient(**(usual | answers))


class Two:
    """Home, and a destination in the United States."""

    def __init__(self, rules: Mapping[str, Destination] = RULES, **answers: Any) -> None:
        self.clients = {name: answering(**answers) for name in rules}
        self.factories = {name: Factory(client) for name, client in self.clients.items()}
        backends: dict[str, Any] = {
            name: ecs.EcsBackend(factory, settings(cluster=f"cluster-{name or 'home'}"))  # type: ignore[arg-type]
            for name, factory in self.factories.items()
        }
        self.backend = Destinations(backends, Places(rules))


def use(work: Callable[[Two], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        two = Two(**options)
        async with two.backend.open():
            result = await work(two)
        assert all(one.closed for name, one in two.factories.items() if two.clients[name].calls)
        return result

    return asyncio.run(run())


# --- the backend -------------------------------------------------------------------------------------------------


def test_each_call_goes_to_the_destination_that_its_scope_names() -> None:
    async def work(two: Two) -> None:
        launched = await two.backend.launch(sent_to("us", spec()), "token")
        assert launched.handle == Handle("us|c", US_ARN)
        [seen] = await two.backend.describe("us|c", [US_ARN])
        assert seen.handle == launched.handle
        assert await two.backend.search("us|c", "mark") == [launched.handle]
        with pytest.raises(BackendError, match=r"not found.*destination us"):
            await two.backend.stop(launched.handle, "why")
        us = two.clients["us"]
        assert [us.asked(name)[0]["cluster"] for name in ("run_task", "describe_tasks", "stop_task")] == ["c"] * 3
        assert two.factories[HOME].opened == 0
        home = await two.backend.launch(spec(), "token")
        assert home.handle == Handle("c", US_ARN)

    use(work)


def test_a_destination_whose_client_cannot_be_made_fails_its_own_calls_until_it_can() -> None:
    async def work(two: Two) -> None:
        two.factories["us"].errors = [ValueError("Invalid endpoint: nowhere"), RuntimeError("bad CA")]
        for words in ("bad CA", "nowhere"):
            with pytest.raises(BackendError, match=f"{words}.*destination us") as caught:
                await two.backend.describe("us|c", [US_ARN])
            assert caught.value.kind is Kind.REFUSED
            await two.backend.describe("c", [US_ARN])
        [seen] = await two.backend.describe("us|c", [US_ARN])
        assert seen.handle.scope == "us|c"
        assert two.factories[HOME].opened == 1

    use(work)


def test_a_destination_that_hangs_while_it_opens_holds_up_its_own_calls_only() -> None:
    async def work(two: Two) -> None:
        two.factories["us"].go.clear()
        waiting = [asyncio.create_task(two.backend.describe("us|c", [US_ARN])) for _ in range(3)]
        await until(lambda: two.factories["us"].opened)
        await two.backend.describe("c", [US_ARN])
        assert not any(one.done() for one in waiting)
        two.factories["us"].go.set()
        await asyncio.gather(*waiting)
        assert two.factories["us"].opened == 1

    use(work)


def test_home_that_is_down_is_no_error_of_opening() -> None:
    async def work(two: Two) -> None:
        two.factories[HOME].errors = [RuntimeError("no CA")] * 2
        with pytest.raises(BackendError, match="no CA") as caught:
            await two.backend.check()
        assert "destination" not in str(caught.value)
        await two.backend.describe("us|c", [US_ARN])

    use(work)


def test_refused_credentials_are_forgotten_in_their_own_destination_only() -> None:
    async def work(two: Two) -> None:
        two.clients["us"].answers["describe_tasks"] = refusal("ExpiredTokenException", "", "DescribeTasks")
        with pytest.raises(BackendError) as caught:
            await two.backend.describe("us|c", [US_ARN])
        assert caught.value.kind is Kind.CREDENTIALS
        assert [two.factories[name].forgotten for name in (HOME, "us")] == [0, 1]

    use(work)


def test_an_arn_tells_its_scope_where_it_tells_the_destination() -> None:
    in_one_region = {
        HOME: Destination(region_name="us-east-1"),
        "conn": Destination(region_name="us-east-1", conn_id="aws_conn"),
    }

    async def work(two: Two) -> None:
        assert two.backend.scope_of(None) == "cluster-home"
        assert two.backend.scope_of(US_ARN) is None
        assert two.backend.scopes_of(US_ARN) == ["c", "conn|c"]
        other = US_ARN.replace("123456789012", "222222222222")
        two.clients["conn"].answers["run_task"] = {"tasks": [task("PENDING", taskArn=other)]}
        await two.backend.launch(sent_to("conn", spec()), "token")
        await two.backend.launch(spec(), "token")
        assert two.backend.scope_of(US_ARN) == "c"
        assert two.backend.scope_of(other) == "conn|c"

    use(work, rules=in_one_region)
    assert Two().backend.scope_of(US_ARN) == "us|c"


def test_each_destination_is_tried_where_its_own_launches_go() -> None:
    async def work(two: Two) -> list[tuple[str, str]]:
        there = sent_to("us", replace(spec(), scope="gpu"))
        trials = two.backend.trials([spec(), there])
        for one in trials:
            await one.make()
        return [(one.destination, one.name) for one in trials]

    tried = use(work, list_tasks={"taskArns": []})
    assert ("", "StopTask, cluster 'c'") in tried
    assert ("us", "StopTask, cluster 'gpu', destination us") in tried
    assert ("us", "Client, destination us") in tried
    assert not [name for destination, name in tried if destination == "us" and "'c'" in name]
    assert not [name for destination, name in tried if not destination and "'gpu'" in name]


# --- what people look at, and do ---------------------------------------------------------------------------------


JOB = "3f8a1c52-1b2c-4f0e-9a51-0a8f5e6f7a10"
JOBS = {HOME: Destination(region_name="eu-west-1"), "eu": Destination(conn_id="a"), "us": Destination(conn_id="b")}


def job(region: str) -> dict[str, Any]:
    arn = f"arn:aws:batch:{region}:123456789012:job/{JOB}"
    container = {"logStreamName": "stream", "image": "i", "command": []}
    return {
        "jobId": JOB,
        "jobArn": arn,
        "jobName": "n",
        "jobQueue": "q",
        "status": "RUNNING",
        "container": container,
    }


def look(clients: Mapping[str, FakeClient], work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        factories: dict[str, Any] = {name: Factory(client, "batch") for name, client in clients.items()}

        def opens(name: str) -> Any:
            return lambda: batch.inspecting(factories[name], "q")

        async with inspecting({name: opens(name) for name in clients}, Places(JOBS)) as inspector:
            return await work(inspector)

    return asyncio.run(run())


def knowing(**known: Any) -> dict[str, FakeClient]:
    """Return a client for each destination, none of which knows a job unless it is said here."""
    unknown: dict[str, Any] = {"jobs": []}
    return {name: FakeClient(describe_jobs=known.get(name or "home", unknown)) for name in JOBS}


def test_a_job_is_found_in_the_destination_that_knows_it_and_asked_for_there_from_then_on() -> None:
    clients = knowing(us={"jobs": [job("us-east-1")]}, eu=refusal("AccessDeniedException", "no", "DescribeJobs"))

    async def work(inspector: Any) -> Details:
        details: Details = await inspector.details(JOB)
        for _ in range(2):
            assert await inspector.details(JOB) == details
        [container] = await inspector.log_streams(JOB)
        assert container.stream == LogStream("/aws/batch/job", "stream", "us-east-1", "us")
        return details

    details = look(clients, work)
    assert details.destination == "us"
    assert details.observation.handle == Handle("us|q", JOB)
    assert len(clients["us"].calls) == 4
    assert len(clients[HOME].calls) == 1


def test_a_destination_that_does_not_answer_keeps_no_job_of_another_from_being_shown() -> None:
    async def never(**_: Any) -> None:
        await asyncio.Event().wait()

    clients = knowing(us={"jobs": [job("us-east-1")]}, eu=never)
    details = look(clients, lambda inspector: inspector.details(JOB))
    assert details.destination == "us"


def test_a_job_that_nobody_knows_is_unknown_only_if_everybody_says_so() -> None:
    assert look(knowing(), lambda inspector: inspector.details(JOB)) is None
    [container] = look(knowing(), lambda inspector: inspector.log_streams(JOB))
    assert "does not know" in container.no_stream
    clients = knowing(eu=refusal("AccessDeniedException", "no", "DescribeJobs"))
    with pytest.raises(BackendError, match=r"AccessDenied.*destination eu"):
        look(clients, lambda inspector: inspector.details(JOB))


def test_lines_are_read_with_the_credentials_of_their_destination() -> None:
    made: list[tuple[str, str]] = []
    client = FakeClient(get_log_events={"events": [{"message": "hello"}]})

    def clients(region: str, destination: str) -> Any:
        made.append((region, destination))
        return FakeFactory(client, "logs")

    async def run() -> list[list[str]]:
        async with LogReader(clients).open() as reader:
            streams = [LogStream("g", "s", "us-east-1", name) for name in ("us", "", "us")]
            return [await reader.read(one, 1) for one in streams]

    assert asyncio.run(run()) == [["hello"]] * 3
    assert made == [("us-east-1", "us"), ("us-east-1", "")]


def test_a_console_lists_and_stops_in_every_destination() -> None:
    clients = {name: answering(stop_task={}) for name in RULES}
    for client in clients.values():
        variables = {"environment": [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}]}
        ours = task(taskArn=US_ARN, overrides={"containerOverrides": [variables]})
        client.answers["describe_tasks"] = {"tasks": [ours]}

    async def run() -> None:
        factories: dict[str, Any] = {name: Factory(client) for name, client in clients.items()}
        scopes = {HOME: ["c"], "us": ["c", "gpu"]}
        console = ConsoleOfAll({name: ecs.EcsConsole(one, scopes[name]) for name, one in factories.items()})
        assert console.scopes == ["c", "us|c", "us|gpu"]
        async with console.open():
            factories[HOME].errors = [RuntimeError("no CA")]
            with pytest.raises(BackendError, match="no CA"):
                await console.marked("c")
            [found] = await console.marked("us|gpu")
            assert found.handle == Handle("us|gpu", US_ARN)
            await console.stop(found.handle, "why")

    asyncio.run(run())
    [asked] = clients["us"].asked("stop_task")
    assert asked["cluster"] == "gpu"
    assert clients[HOME].calls == []
