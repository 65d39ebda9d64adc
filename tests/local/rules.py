"""A queue and a rule of EventBridge as docs/push.md has them, at a local service."""

from __future__ import annotations

import json
import threading
from typing import Any, Final

from ecs_async_executor.local import LocalEcs

PATTERNS: Final = {
    "ecs": {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]},
    "batch": {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]},
}
PATHS: Final = {
    "ecs": {
        "container": "$.detail.taskArn",
        "cluster": "$.detail.clusterArn",
        "status": "$.detail.lastStatus",
        "at": "$.time",
    },
    "batch": {
        "container": "$.detail.jobId",
        "cluster": "$.detail.jobQueue",
        "status": "$.detail.status",
        "at": "$.time",
    },
}
TEMPLATE: Final = '{"container": "<container>", "cluster": "<cluster>", "status": "<status>", "at": "<at>"}'


class Told:
    """What a queue is told."""

    def __init__(self, sqs: Any, url: str) -> None:
        self.sqs, self.url = sqs, url
        self.all: list[str] = []

    def receive(self, wait: int = 0) -> list[str]:
        """Return the bodies of some messages, and delete them."""
        reply = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        messages = reply.get("Messages", [])
        for one in messages:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=one["ReceiptHandle"])
        bodies = [one["Body"] for one in messages]
        self.all += bodies
        return bodies

    def send_later(self, body: str) -> None:
        """Send a message in half a second."""
        threading.Timer(0.5, self.sqs.send_message, kwargs={"QueueUrl": self.url, "MessageBody": body}).start()

    def delete_queue(self) -> None:
        """Delete the queue."""
        self.sqs.delete_queue(QueueUrl=self.url)


def told_of(ecs: LocalEcs, service: str, *, transformed: bool = True, **client: Any) -> Told:
    """
    Make a queue that is told of the tasks of ECS, or of the jobs of Batch.

    :param transformed: the rule passes what is needed, and not the whole event
    :param client: options of the clients, such as the Region
    """
    sqs, events = ecs.client("sqs", **client), ecs.client("events", **client)
    url = sqs.create_queue(QueueName=f"{service}-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=service, EventPattern=json.dumps(PATTERNS[service]))
    target: dict[str, Any] = {"Id": "queue", "Arn": arn}
    if transformed:
        target["InputTransformer"] = {"InputPathsMap": PATHS[service], "InputTemplate": TEMPLATE}
    events.put_targets(Rule=service, Targets=[target])
    return Told(sqs, url)
