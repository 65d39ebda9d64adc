"""What containers print, read from CloudWatch Logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import logs, pace
from ecs_async_executor.services.batch.logs import stream_of as stream_of_job
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.ecs.logs import stream_of as stream_of_task
from ecs_async_executor.services.logs import LogReader, LogStream, NoLog
from tests.services.fakes import FakeClient, FakeFactory
from tests.services.fakes import refusal as refusal_of

STREAM = LogStream("/airflow", "a/airflow/1", "eu-west-1")


def refusal(code: str, message: str = "", **more: Any) -> Exception:
    return refusal_of(code, message, "GetLogEvents", **more)


MISSING = refusal("ResourceNotFoundException", "The specified log stream does not exist.")
THROTTLE = refusal("ThrottlingException", "Rate exceeded")
JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2ln"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAUSE", 0.001)
    monkeypatch.setattr(logs, "TAIL_TIMEOUT", 0.2)
    monkeypatch.setattr(pace, "of_log_reads", lambda _: pace.Pace(1e6, 1))


def events(*messages: str, forward: str = "f", backward: str = "b") -> dict[str, Any]:
    found = [{"timestamp": 1, "message": one} for one in messages]
    return {"events": found, "nextForwardToken": forward, "nextBackwardToken": backward}


def use(client: FakeClient, work: Callable[[LogReader], Any]) -> Any:
    async def run() -> Any:
        regions: list[str] = []

        def factory(region: str, _: str) -> Any:
            regions.append(region)
            return made

        made = FakeFactory(client, "logs")
        async with LogReader(factory).open() as reader:
            result = await work(reader)
        assert made.closed or not client.calls
        assert regions in ([], [STREAM.region])
        return result

    return asyncio.run(run())


def answering(*answers: Any) -> FakeClient:
    """Answer in turn, and then always as at last."""
    left = list(answers)
    return FakeClient(get_log_events=lambda **_: left.pop(0) if len(left) > 1 else left[0])


# --- the newest lines ------------------------------------------------------------------------------------------


def read(*answers: Any, lines: int = 3, since: float | None = None) -> tuple[list[str], FakeClient]:
    client = answering(*answers)
    return use(client, lambda reader: reader.read(STREAM, lines, since=since)), client


def test_the_newest_lines_are_one_request() -> None:
    found, client = read(events("one", "two"))
    assert found == ["one", "two"]
    assert client.asked("get_log_events") == [
        {"logGroupName": "/airflow", "logStreamName": "a/airflow/1", "limit": 3, "startFromHead": False}
    ]


def test_lines_before_a_moment_are_left_out() -> None:
    _, client = read(events("one"), since=1764345600.5)
    assert client.asked("get_log_events")[0]["startTime"] == 1764345600500


def test_an_event_can_have_several_lines_and_keeps_what_they_begin_with() -> None:
    found, _ = read(events("one", "Traceback\n  File x\r\n    y\n"))
    assert found == ["Traceback", "  File x", "    y"]


def test_line_separators_within_json_do_not_cut_it() -> None:
    line = '{"event": "a\u2028b\x85c"}'
    assert read(events(line))[0] == [line]


def test_tokens_are_hidden_and_the_rest_of_the_line_is_kept() -> None:
    found, _ = read(events(f"a  long line {'x' * 600} token={JWT} end"))
    assert found == [f"a  long line {'x' * 600} token=*** end"]


def test_what_no_database_takes_is_replaced() -> None:
    assert read(events("a\0b", "a\ud800b"))[0] == ["a\ufffdb", "a\ufffdb"]


def test_an_empty_page_is_not_taken_for_an_empty_stream() -> None:
    found, client = read(events(backward="b1"), events("one", backward="b2"))
    assert found == ["one"]
    assert [one.get("nextToken") for one in client.asked("get_log_events")] == [None, "b1"]


def test_a_stream_is_empty_when_its_token_comes_back() -> None:
    found, client = read(events(backward="b1"))
    assert found == []
    assert len(client.calls) == 2


@pytest.mark.parametrize(
    ("answer", "said", "passing"),
    [
        (
            refusal("AccessDeniedException", "User: u is not authorized to perform: logs:GetLogEvents"),
            r"lack the permission logs:GetLogEvents for log group /airflow: allow it on .* \(.*: User: u is not",
            False,
        ),
        (
            refusal("ResourceNotFoundException", "The specified log group does not exist."),
            "log group /airflow does not exist in eu-west-1",
            True,
        ),
        (MISSING, "printed nothing so far: log group /airflow has no stream a/airflow/1", True),
        (THROTTLE, "eu-west-1 throttles GetLogEvents", True),
        (refusal("InternalFailure", "oops", status=500), "shows no lines of /airflow a/airflow/1: .*oops", True),
        (refusal("InvalidParameterException", "no such limit"), "shows no lines of .*no such limit", False),
        (refusal("ExpiredTokenException", "expired"), "shows no lines of .*expired", False),
    ],
)
def test_lines_that_cannot_be_read_are_explained(answer: Exception, said: str, passing: bool) -> None:
    with pytest.raises(NoLog, match=said) as caught:
        read(answer)
    assert caught.value.passing is passing


def test_a_reader_that_cannot_have_a_client_says_why() -> None:
    class Broken:
        def client(self, *_: Any, **__: Any) -> Any:
            raise BackendError(Kind.REFUSED, "ConfigurationError", "conn_id needs the amazon provider")

    async def run() -> None:
        factory: Any = lambda *_: Broken()  # noqa: E731
        async with LogReader(factory).open() as reader:
            await reader.read(STREAM, 1)

    with pytest.raises(NoLog, match="conn_id needs the amazon provider"):
        asyncio.run(run())


# --- the last lines of a container that has ended --------------------------------------------------------------


def tail(*answers: Any) -> tuple[list[str], FakeClient]:
    client = answering(*answers)
    return use(client, lambda reader: reader.tail(STREAM, 3)), client


def test_a_stream_is_read_until_it_no_longer_grows() -> None:
    found, client = tail(MISSING, events(), events(), events("one"), THROTTLE, events("one", "two"))
    assert found == ["one", "two"]
    assert len(client.calls) == 7


def test_a_stream_that_stays_empty_is_empty() -> None:
    assert tail(events())[0] == []


def test_a_stream_that_never_comes_is_named() -> None:
    with pytest.raises(NoLog, match="log group /airflow has no stream a/airflow/1"):
        tail(MISSING)


def test_a_refusal_is_final() -> None:
    with pytest.raises(NoLog, match="logs:GetLogEvents"):
        tail(refusal("AccessDeniedException", "not you"), events("one"))


def test_a_call_without_an_answer_ends_in_time() -> None:
    async def never(**_: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(NoLog, match="no answer from CloudWatch Logs"):
        use(FakeClient(get_log_events=never), lambda reader: reader.tail(STREAM, 3))


# --- following ---------------------------------------------------------------------------------------------------


def follow(*answers: Any, over_after: int = 0, **options: Any) -> tuple[list[str], FakeClient]:
    """Follow a stream whose container is over after so many requests."""
    client = answering(*answers)

    async def collect(reader: LogReader) -> list[str]:
        over = lambda: len(client.calls) >= over_after  # noqa: E731
        lines: AsyncIterator[str] = reader.follow(STREAM, over=over, **options)
        return [line async for line in lines]

    return use(client, collect), client


def test_new_lines_come_after_the_newest_of_the_past() -> None:
    found, client = follow(events("one", forward="f1"), events("two", forward="f2"), events(forward="f2"), lines=1)
    assert found == ["one", "two"]
    asked = client.asked("get_log_events")
    assert asked[0] == {
        "logGroupName": "/airflow",
        "logStreamName": "a/airflow/1",
        "limit": 1,
        "startFromHead": False,
    }
    assert [one.get("nextToken") for one in asked[1:3]] == ["f1", "f2"]
    assert all(one["startFromHead"] is True and "limit" not in one for one in asked[1:])


def test_an_empty_page_with_a_new_token_is_not_the_end() -> None:
    found, _ = follow(
        events("one", forward="f1"), events(forward="f2"), events("two", forward="f3"), events(forward="f3")
    )
    assert found == ["one", "two"]


def test_what_a_running_container_has_not_printed_yet_is_waited_for() -> None:
    quiet = [events(forward="f1")] * 20
    found, _ = follow(MISSING, THROTTLE, *quiet, events("late", forward="f2"), events(forward="f2"), over_after=22)
    assert found == ["late"]


def test_a_stream_that_does_not_exist_after_the_end_is_named() -> None:
    with pytest.raises(NoLog, match="has no stream"):
        follow(MISSING)


def test_following_without_the_permission_ends_at_once() -> None:
    with pytest.raises(NoLog, match="logs:GetLogEvents"):
        follow(refusal("AccessDeniedException", "no"), over_after=100)


# --- which stream ----------------------------------------------------------------------------------------------


def awslogs(**options: str) -> dict[str, Any]:
    named = {f"awslogs-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"logDriver": "awslogs", "options": named}


def of_task(runtime_id: str | None = None, **container: Any) -> LogStream:
    return stream_of_task({"name": "airflow", **container}, "0123", "eu-west-1", runtime_id)


def test_the_stream_of_a_task_is_named_after_prefix_container_and_task() -> None:
    found = of_task(logConfiguration=awslogs(group="g", stream_prefix="p", region="eu-north-1"))
    assert found == LogStream("g", "p/airflow/0123", "eu-north-1")
    assert of_task(logConfiguration=awslogs(group="g", stream_prefix="p")).region == "eu-west-1"


def test_without_a_prefix_the_stream_is_named_after_the_docker_container() -> None:
    assert of_task("d0c4e2", logConfiguration=awslogs(group="g")) == LogStream("g", "d0c4e2", "eu-west-1")


@pytest.mark.parametrize(
    ("container", "why"),
    [
        ({}, "container 'airflow' has no log configuration"),
        ({"logConfiguration": {"logDriver": "awsfirelens"}}, "has the log driver awsfirelens, and only"),
        ({"logConfiguration": {"logDriver": "none"}}, "has the log driver none"),
        ({"logConfiguration": awslogs(stream_prefix="p")}, "has no awslogs-group"),
        ({"logConfiguration": awslogs(group="g")}, "set awslogs-stream-prefix"),
    ],
)
def test_a_task_without_a_stream_says_why(container: dict[str, Any], why: str) -> None:
    with pytest.raises(NoLog, match=why):
        of_task(**container)


def test_the_stream_of_a_job_is_the_one_that_batch_names() -> None:
    here = "eu-west-1"
    assert stream_of_job("d/default/1", None, here, "c") == LogStream("/aws/batch/job", "d/default/1", here)
    found = stream_of_job("d/default/1", awslogs(group="g", region="r"), here, "c")
    assert found == LogStream("g", "d/default/1", "r")


@pytest.mark.parametrize(
    ("configuration", "why"),
    [(None, "Batch names no log stream of c"), ({"logDriver": "splunk"}, "c has the log driver splunk")],
)
def test_a_job_without_a_stream_says_why(configuration: Any, why: str) -> None:
    with pytest.raises(NoLog, match=why):
        stream_of_job(None, configuration, "eu-west-1", "c")


# --- a local ECS -----------------------------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, keys: None) -> Iterator[Any]:
    pytest.importorskip("moto", reason="needs the extra 'local'")
    from ecs_async_executor.local import LocalEcs

    with LocalEcs(runner="subprocess", stop_timeout=1.0) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.register("family", "airflow", logConfiguration=awslogs(group="g", stream_prefix="p"))
        yield server


def test_what_a_container_prints_is_followed_to_its_end(local: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo one; echo two; until [ -e {go} ]; do sleep 0.05; done; echo token={JWT}; printf last"
    started = local.client("ecs").run_task(
        taskDefinition="family",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        overrides={"containerOverrides": [{"name": "airflow", "command": ["sh", "-c", script]}]},
    )
    arn = started["tasks"][0]["taskArn"]
    stream = LogStream("g", f"p/airflow/{arn.rpartition('/')[2]}", local.region)

    async def run() -> tuple[list[str], list[str]]:
        clients = ClientFactory(region_name=local.region)
        async with LogReader(lambda *_: clients).open() as reader:
            lines = []
            over = lambda: local.task(arn)["lastStatus"] == "STOPPED"  # noqa: E731
            async for line in reader.follow(stream, lines=1, over=over):
                lines.append(line)
                go.touch()  # the end comes only after what is there has been shown
            return lines, await reader.tail(stream, 3)

    followed, last = asyncio.run(run())
    assert followed[-3:] == ["two", "token=***", "last"]
    assert last == followed[-3:]
