"""The last lines of a log stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import logs
from ecs_async_executor.services.batch.logs import log_stream as stream_of_job
from ecs_async_executor.services.ecs.logs import log_stream as stream_of_task
from ecs_async_executor.services.logs import LogStream, NoLogStream
from tests.services.fakes import FakeClient, FakeFactory, refusal

STREAM = LogStream("/airflow", "a/airflow/1")
TASK = "arn:aws:ecs:eu-west-1:123456789012:task/main/0123"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAUSE", 0.001)
    monkeypatch.setattr(logs, "TAIL_TIMEOUT", 0.2)


def events(*messages: str) -> dict[str, Any]:
    return {"events": [{"timestamp": 1, "message": one} for one in messages]}


def tail(*answers: Any) -> tuple[list[str], FakeClient]:
    """Read a stream that answers in turn, and then always as at last."""
    left = list(answers)
    client = FakeClient(get_log_events=lambda **_: left.pop(0) if len(left) > 1 else left[0])
    factory: Any = FakeFactory(client, "logs")
    return asyncio.run(logs.tail(factory, STREAM, 3)), client


def test_the_last_lines_are_asked_for() -> None:
    lines, client = tail(events("one", "two"))
    assert lines == ["one", "two"]
    asked = client.asked("get_log_events")[0]
    assert asked == {
        "logGroupName": "/airflow",
        "logStreamName": "a/airflow/1",
        "limit": 3,
        "startFromHead": False,
    }


def test_a_stream_is_read_until_it_no_longer_grows() -> None:
    not_yet = refusal("ResourceNotFoundException", "The specified log stream does not exist.")
    lines, client = tail(not_yet, events(), events("one"), events("one", "two"))
    assert lines == ["one", "two"]
    assert len(client.calls) == 5


def test_tokens_are_hidden() -> None:
    lines, _ = tail(events("token=eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2ln end"))
    assert lines == ["token=*** end"]


def test_a_stream_that_stays_empty_is_empty() -> None:
    assert tail(events())[0] == []


def test_a_stream_that_never_comes_is_named() -> None:
    with pytest.raises(NoLogStream, match="no log stream /airflow a/airflow/1"):
        tail(refusal("ResourceNotFoundException"))


def test_a_refusal_is_final() -> None:
    with pytest.raises(BackendError) as caught:
        tail(refusal("AccessDeniedException", "not you", "GetLogEvents"))
    assert caught.value.kind is Kind.REFUSED


def test_a_call_without_an_answer_ends_in_time() -> None:
    async def never(**_: Any) -> None:
        await asyncio.sleep(60)

    factory: Any = FakeFactory(FakeClient(get_log_events=never), "logs")
    with pytest.raises(BackendError, match="no answer from CloudWatch Logs"):
        asyncio.run(logs.tail(factory, STREAM, 3))


# --- which stream ----------------------------------------------------------------------------------------------


def of_task(**container: Any) -> LogStream:
    definition = {"containerDefinitions": [{"name": "side"}, {"name": "airflow", **container}]}
    client = FakeClient(describe_task_definition={"taskDefinition": definition})
    factory: Any = FakeFactory(client)
    return asyncio.run(stream_of_task(factory, "family:1", "airflow", TASK))


def test_the_stream_of_a_task_is_named_after_prefix_container_and_task() -> None:
    options = {"awslogs-group": "g", "awslogs-stream-prefix": "p", "awslogs-region": "eu-north-1"}
    found = of_task(logConfiguration={"logDriver": "awslogs", "options": options})
    assert found == LogStream("g", "p/airflow/0123", "eu-north-1")


@pytest.mark.parametrize(
    ("container", "why"),
    [
        ({}, "container 'airflow' has no log configuration"),
        ({"logConfiguration": {"logDriver": "awsfirelens"}}, "has the log driver awsfirelens"),
        (
            {"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "g"}}},
            "has no awslogs-stream-prefix",
        ),
    ],
)
def test_a_task_without_a_stream_says_why(container: dict[str, Any], why: str) -> None:
    with pytest.raises(NoLogStream, match=why):
        of_task(**container)


def of_job(**job: Any) -> LogStream:
    factory: Any = FakeFactory(FakeClient(describe_jobs={"jobs": [job] if job else []}), "batch")
    return asyncio.run(stream_of_job(factory, "job-1"))


def test_the_stream_of_a_job_is_the_one_that_batch_names() -> None:
    assert of_job(container={"logStreamName": "d/default/1"}) == LogStream("/aws/batch/job", "d/default/1")
    configuration = {"logDriver": "awslogs", "options": {"awslogs-group": "g", "awslogs-region": "r"}}
    found = of_job(container={"logStreamName": "d/default/1", "logConfiguration": configuration})
    assert found == LogStream("g", "d/default/1", "r")


def test_the_stream_of_a_job_of_several_containers_is_that_of_airflows() -> None:
    mark = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
    containers = [{"logStreamName": "side"}, {"logStreamName": "main", "environment": [mark]}]
    found = of_job(ecsProperties={"taskProperties": [{"containers": containers}]})
    assert found.name == "main"


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({}, "names no log stream"),
        ({"container": {}}, "names no log stream"),
        ({"container": {"logConfiguration": {"logDriver": "splunk"}}}, "the job's container has the log driver"),
    ],
)
def test_a_job_without_a_stream_says_why(job: dict[str, Any], why: str) -> None:
    with pytest.raises(NoLogStream, match=why):
        of_job(**job)
