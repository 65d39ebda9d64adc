"""Replies that are decoded straight from their bytes."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.services import parsing
from ecs_async_executor.services.ecs.replies import DECODERS, observation

TASK = {
    "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/default/0",
    "lastStatus": "STOPPED",
    "createdAt": 1_800_000_000.25,
    "startedAt": 1_800_000_001,
    "startedBy": "me",
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
    "attachments": [{"id": "1", "details": [{"name": "subnetId", "value": "subnet-1"}]}],
    "containers": [{"name": "main", "exitCode": 3, "reason": "why", "networkInterfaces": []}],
}


decode = DECODERS["DescribeTasksResponse"]


def meaning(task: Any) -> Observation:
    return observation(task, "main", "default")


def encoded(*tasks: Any, **more: Any) -> bytes:
    return json.dumps({"tasks": tasks, "failures": [], **more}).encode()


def test_only_what_is_used_is_read_and_it_means_the_same() -> None:
    [decoded] = decode(encoded(TASK))["tasks"]
    assert "attachments" not in decoded
    assert meaning(decoded) == meaning(TASK)
    assert meaning(decoded).created_at == 1_800_000_000.25


@pytest.mark.parametrize(
    "bad",
    [
        {**TASK, "containers": "none"},
        {**TASK, "lastStatus": 7},
        {**TASK, "containers": [{"name": "main", "exitCode": "three"}]},
        "a task",
        None,
    ],
    ids=str,
)
def test_one_bad_record_among_a_hundred_spoils_no_other(bad: Any) -> None:
    tasks = decode(encoded(*[TASK] * 50, bad, *[TASK] * 49))["tasks"]
    assert len(tasks) == 100
    assert all(meaning(task).exit_code == 3 for task in tasks[:50] + tasks[51:])
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        meaning(tasks[50])


def test_null_is_like_nothing() -> None:
    record = {**TASK, "stopCode": None, "startedAt": None, "lastStatus": "PENDING", "containers": []}
    seen = meaning(decode(encoded(record))["tasks"][0])
    assert (seen.seen, seen.started, seen.stop_code) == (Seen.PENDING, False, None)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"tasks": [', b"[]", b"7"])
def test_what_is_no_json_object_is_left_to_botocore(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(body)


class Shape:
    def __init__(self, name: str) -> None:
        self.name = name


class Inner:
    async def parse(self, response: Any, shape: Any) -> str:
        return "botocore's"


@pytest.mark.parametrize(
    ("status", "shape", "body", "by_us"),
    [
        (200, "DescribeTasksResponse", encoded(TASK), True),
        (200, "DescribeTasksResponse", b"<html>", False),
        (200, "ListTasksResponse", encoded(TASK), False),
        (400, "DescribeTasksResponse", encoded(TASK), False),
        (200, None, encoded(TASK), False),
    ],
)
def test_errors_and_everything_else_stay_botocores(
    status: int, shape: str | None, body: bytes, by_us: bool
) -> None:
    parser = parsing._Parser(Inner, DECODERS)
    response = {"status_code": status, "headers": {"X-Amzn-RequestId": "1"}, "body": body}

    async def parse() -> Any:
        return await parser.parse(response, shape and Shape(shape))

    reply = anyio.run(parse)
    assert (reply != "botocore's") is by_us
    if by_us:
        assert reply["ResponseMetadata"] == {"HTTPStatusCode": 200}
