"""The queue of events: what is asked of SQS, how its answers are read, and what a look at it finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.listening import Hint, Message
from ecs_async_executor.services.events import SqsEvents, look_at_queue, parsed, region_of
from ecs_async_executor.services.findings import Finding, Verdict
from tests.services.fakes import FakeClient, FakeFactory, refusal

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events"
NOW = 1_800_000_000.0
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/airflow/0123456789abcdef"
JOB = "0f7f4b3e-31ac-4f33-8a1d-2f0d2d1f3b0a"
RULE = "arn:aws:events:eu-west-1:123456789012:rule/airflow"
ALLOWED = {
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Condition": {"ArnEquals": {"aws:SourceArn": RULE}},
}


def use(client: FakeClient, work: Callable[[SqsEvents], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        queue = SqsEvents(FakeFactory(client, "sqs"), URL, wall=lambda: NOW)  # type: ignore[arg-type]
        async with queue.open():
            return await work(queue)

    return asyncio.run(run())


def test_messages_are_waited_for_as_long_as_sqs_does_and_ten_at_a_time() -> None:
    body = json.dumps({"container": JOB, "status": "RUNNING"})
    attributes = {"ApproximateReceiveCount": "3", "SentTimestamp": str(int((NOW - 2.5) * 1000))}
    client = FakeClient(
        receive_message={
            "Messages": [
                {"MessageId": "1", "ReceiptHandle": "r1", "Body": body, "Attributes": attributes},
                {"MessageId": "2", "ReceiptHandle": "r2"},
            ]
        }
    )
    assert use(client, SqsEvents.receive) == [
        Message("r1", Hint(JOB, Seen.RUNNING), receives=3, age=2.5),
        Message("r2", None),
    ]
    [asked] = client.asked("receive_message")
    assert (asked["QueueUrl"], asked["WaitTimeSeconds"], asked["MaxNumberOfMessages"]) == (URL, 20, 10)
    assert set(asked["MessageSystemAttributeNames"]) == {"ApproximateReceiveCount", "SentTimestamp"}


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({"date": "Fri, 15 Jan 2027 08:00:40 GMT"}, 42.5),
        ({"date": "Fri, 15 Jan 2027 07:59:00 GMT"}, 0.0),
        ({"date": "no date"}, 2.5),
        ({}, 2.5),
    ],
)
def test_how_old_a_message_is_is_told_by_the_clock_of_sqs(headers: dict[str, str], age: float) -> None:
    told = {"ReceiptHandle": "r1", "Attributes": {"SentTimestamp": str(int((NOW - 2.5) * 1000))}}
    client = FakeClient(receive_message={"Messages": [told], "ResponseMetadata": {"HTTPHeaders": headers}})
    [message] = use(client, SqsEvents.receive)
    assert message.age == age


def test_no_message_within_that_time_is_no_error() -> None:
    assert use(FakeClient(receive_message={}), SqsEvents.receive) == []


def test_messages_are_deleted_and_left_in_one_request_each() -> None:
    client = FakeClient(delete_message_batch={}, change_message_visibility_batch={})

    async def work(queue: SqsEvents) -> None:
        await queue.delete(["r1", "r2"])
        await queue.leave({"r3": 0.0, "r4": 4.0})

    use(client, work)
    [deleted], [left] = client.asked("delete_message_batch"), client.asked("change_message_visibility_batch")
    assert [one["ReceiptHandle"] for one in deleted["Entries"]] == ["r1", "r2"]
    assert [(one["ReceiptHandle"], one["VisibilityTimeout"]) for one in left["Entries"]] == [("r3", 0), ("r4", 4)]
    assert len({one["Id"] for one in deleted["Entries"]}) == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", Kind.REFUSED),
        ("QueueDoesNotExist", Kind.REFUSED),
        ("AccessDenied", Kind.REFUSED),
        ("AccessDeniedException", Kind.REFUSED),
        ("RequestThrottled", Kind.THROTTLED),
        ("ExpiredToken", Kind.CREDENTIALS),
    ],
)
def test_a_queue_that_is_gone_or_denied_is_told_from_one_that_is_busy(code: str, kind: Kind) -> None:
    client = FakeClient(receive_message=refusal(code, "no", "ReceiveMessage"))
    with pytest.raises(BackendError) as caught:
        use(client, SqsEvents.receive)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        ({"container": ARN, "cluster": "c", "status": "STOPPED", "at": "10:00"}, (ARN, Seen.STOPPED, False)),
        ({"container": JOB, "status": "SUCCEEDED"}, (JOB, Seen.STOPPED, False)),
        ({"container": JOB, "status": "RUNNABLE"}, (JOB, Seen.PENDING, False)),
        ({"container": ARN, "status": "DEPROVISIONING"}, (ARN, None, False)),
        ({"container": JOB}, (JOB, None, False)),
        ({"id": "x", "detail": {"taskArn": ARN, "lastStatus": "RUNNING", "x": 3}}, (ARN, Seen.RUNNING, True)),
        ({"id": "x", "detail": {"jobId": JOB, "status": "FAILED"}}, (JOB, Seen.STOPPED, True)),
    ],
)
def test_a_rule_passes_an_extract_or_the_whole_event(body: object, meant: tuple[str, Seen | None, bool]) -> None:
    handle_id, seen, whole = meant
    assert parsed(json.dumps(body)) == (Hint(handle_id, seen), whole)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[1]",
        '"a"',
        "{}",
        '{"container": 3}',
        '{"container": ""}',
        '{"container": null, "status": "STOPPED"}',
        '{"detail": "x"}',
        '{"detail": {}}',
        '{"detail": {"taskArn": ["x"]}}',
        json.dumps({"container": "x" * 301}),
        '{"container": ' + "[" * 100_000,
        "\ud800",
    ],
    ids=lambda body: repr(body)[:30],
)
def test_whatever_else_a_message_holds_is_no_event(body: str) -> None:
    assert parsed(body) == (None, False)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (URL, "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", "cn-north-1"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/q", "eu-west-1"),
        ("http://127.0.0.1:4566/123456789012/q", None),
        ("https://sqs.example.org/123456789012/q", None),
    ],
)
def test_a_queue_is_asked_for_in_its_own_region(url: str, region: str | None) -> None:
    assert region_of(url) == region


def found(**attributes: str) -> list[Finding]:
    client = FakeClient(get_queue_attributes={"Attributes": attributes})

    async def look() -> list[Finding]:
        queue = SqsEvents(FakeFactory(client, "sqs"), URL)  # type: ignore[arg-type]
        return [one async for one in look_at_queue(queue, "Queue of events")]

    findings = asyncio.run(look())
    assert not client.asked("receive_message"), "a message was taken from another scheduler"
    return findings


@pytest.mark.parametrize(
    "statement",
    [
        ALLOWED,
        [ALLOWED],
        [{**ALLOWED, "Action": ["SQS:SendMessage", "sqs:ReceiveMessage"]}],
        [{**ALLOWED, "Principal": {"Service": ["sns.amazonaws.com", "events.amazonaws.com"]}}],
        [{**ALLOWED, "Principal": "*", "Action": "sqs:*"}],
        [{"Effect": "Deny"}, {**ALLOWED, "Principal": {"AWS": "*"}}],
    ],
)
def test_a_queue_that_eventbridge_may_send_to_is_good(statement: object) -> None:
    [finding] = found(Policy=json.dumps({"Statement": statement}), MessageRetentionPeriod="300")
    assert finding.verdict is Verdict.GOOD


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "{",
        "[]",
        json.dumps({"Statement": []}),
        json.dumps({"Statement": [3]}),
        json.dumps({"Statement": {**ALLOWED, "Effect": "Deny"}}),
        json.dumps({"Statement": {**ALLOWED, "Action": "sqs:ReceiveMessage"}}),
        json.dumps({"Statement": {**ALLOWED, "Principal": {"Service": "sns.amazonaws.com"}}}),
    ],
)
def test_one_whose_policy_keeps_events_out_is_warned_of(policy: str) -> None:
    [finding] = found(Policy=policy)
    assert finding.verdict is Verdict.WARNING
    assert "events.amazonaws.com" in finding.text


def test_a_fifo_queue_and_a_long_memory_are_warned_of() -> None:
    policy = json.dumps({"Statement": ALLOWED})
    texts = [one.text for one in found(Policy=policy, FifoQueue="true", MessageRetentionPeriod="345600")]
    assert [word in text for word, text in zip(("FIFO", "longer than an hour"), texts, strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize(("redrive", "warned"), [(3, True), ("3", True), (16, False), (None, False)])
def test_a_dead_letter_queue_that_takes_events_from_schedulers_is_warned_of(redrive: object, warned: bool) -> None:
    policy = json.dumps({"Statement": ALLOWED})
    attributes = {"RedrivePolicy": json.dumps({"maxReceiveCount": redrive})} if redrive else {}
    [finding] = found(Policy=policy, **attributes)
    assert finding.verdict is (Verdict.WARNING if warned else Verdict.GOOD)
    assert ("after 3 receives" in finding.text) is warned


def test_a_queue_that_cannot_be_read_is_a_warning_in_awss_words() -> None:
    client = FakeClient(get_queue_attributes=refusal("QueueDoesNotExist", "The queue does not exist.", "Get"))

    async def look() -> list[Finding]:
        queue = SqsEvents(FakeFactory(client, "sqs"), URL)  # type: ignore[arg-type]
        return [one async for one in look_at_queue(queue, "Queue of events")]

    [finding] = asyncio.run(look())
    assert finding.verdict is Verdict.WARNING
    assert "The queue does not exist" in finding.text
