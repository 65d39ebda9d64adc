"""
The queue of events: Amazon SQS as an :class:`~ecs_async_executor.core.listening.EventQueue`, and a look at it.

Imports ``core``, ``calls``, ``clients``, ``findings`` and the settings. No body of a message is logged here: it
can be anything that somebody has sent.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.listening import MOST_RECEIVES, Hint, Message
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.findings import Finding, good, warning
from ecs_async_executor.settings import AwsSettings, Destination, Tuning

WAIT_SECONDS: Final = 20
"""How long SQS waits for a message: the longest that there is, so that an idle queue costs least."""
BATCH: Final = 10
"""Messages of a request, at most."""
HIDDEN_SECONDS: Final = 30
"""How long a message is hidden from others before it is deleted or left."""
MOST_RETENTION: Final = 3600
_CONNECTIONS: Final = 16
_SENDER: Final = "events.amazonaws.com"
_REGION: Final = re.compile(r"https://(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?/")

OPERATIONS: Final = {
    "ReceiveMessage": Operation("receive_message"),
    "DeleteMessageBatch": Operation("delete_message_batch"),
    "ChangeMessageVisibilityBatch": Operation("change_message_visibility_batch"),
    "GetQueueAttributes": Operation("get_queue_attributes", frozenset({"Attributes"})),
}


class SqsEvents:
    """
    A queue of SQS.

    :param clients: makes the client
    :param url: the queue's
    :param wall: the wall clock, for answers without a time
    """

    def __init__(self, clients: ClientFactory, url: str, wall: Callable[[], float] = time.time) -> None:
        self._call = Calls(clients, "sqs", operations=OPERATIONS, decoders={})
        self._url = url
        self._wall = wall

    @classmethod
    def from_settings(cls, aws: AwsSettings, tuning: Tuning, destination: Destination, url: str) -> SqsEvents:
        """Return a destination's queue. Its client waits for answers as long as SQS waits for messages."""
        there = replace(destination, region_name=region_of(url) or destination.region_name)
        patient = tuning.model_copy(update={"read_timeout": WAIT_SECONDS + tuning.read_timeout})
        return cls(ClientFactory.from_settings(aws, patient, there, connections=_CONNECTIONS), url)

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the running loop."""
        return self._call.open()

    async def receive(self) -> Sequence[Message]:
        """Wait for messages, :data:`WAIT_SECONDS` at most."""
        reply = await self._call(
            "ReceiveMessage",
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=WAIT_SECONDS,
            VisibilityTimeout=HIDDEN_SECONDS,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        now = self._now(reply)
        return [_message(one, now) for one in reply.get("Messages") or ()]

    def _now(self, reply: Mapping[str, Any]) -> float:
        """Return SQS's own time: by a wrong clock of this host, events of others would be old, and deleted."""
        headers = (reply.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
        try:
            return parsedate_to_datetime(headers["date"]).timestamp()
        except (KeyError, ValueError):
            return self._wall()

    async def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages, as many as one reply has."""
        entries = [{"Id": str(number), "ReceiptHandle": one} for number, one in enumerate(receipts)]
        await self._call("DeleteMessageBatch", QueueUrl=self._url, Entries=entries)

    async def leave(self, receipts: Mapping[str, float]) -> None:
        """Have messages received again, each after so many seconds; as many as one reply has."""
        entries = [
            {"Id": str(number), "ReceiptHandle": one, "VisibilityTimeout": int(seconds)}
            for number, (one, seconds) in enumerate(receipts.items())
        ]
        await self._call("ChangeMessageVisibilityBatch", QueueUrl=self._url, Entries=entries)

    async def attributes(self) -> Mapping[str, str]:
        """Return what SQS tells of the queue."""
        reply = await self._call("GetQueueAttributes", QueueUrl=self._url, AttributeNames=["All"])
        attributes: Mapping[str, str] = reply["Attributes"]
        return attributes


def _message(told: Mapping[str, Any], now: float) -> Message:
    attributes = told.get("Attributes") or {}
    receives = int(attributes.get("ApproximateReceiveCount") or 1)
    sent = float(attributes.get("SentTimestamp") or 0.0) / 1000.0
    hint, whole = parsed(told.get("Body") or "")
    return Message(told["ReceiptHandle"], hint, whole, receives, max(0.0, now - sent) if sent else 0.0)


# --- what a message says ----------------------------------------------------------------------------------------

_BEGINNING: Final = ("PROVISIONING", "PENDING", "ACTIVATING", "SUBMITTED", "RUNNABLE", "STARTING")
_OVER: Final = ("STOPPED", "DELETED", "SUCCEEDED", "FAILED")
_SEEN: Final = {
    **dict.fromkeys(_BEGINNING, Seen.PENDING),
    "RUNNING": Seen.RUNNING,
    **dict.fromkeys(_OVER, Seen.STOPPED),
}
_LONGEST_ID: Final = 300


class _Detail(msgspec.Struct):
    taskArn: str = ""  # noqa: N815 - AWS's names
    jobId: str = ""  # noqa: N815
    lastStatus: str = ""  # noqa: N815
    status: str = ""


class _Body(msgspec.Struct):
    """What the rule of docs/push.md passes, or a whole event."""

    container: str = ""
    status: str = ""
    detail: _Detail | None = None


_DECODER: Final = msgspec.json.Decoder(_Body)


def parsed(body: str) -> tuple[Hint | None, bool]:
    """
    Return what a message says, None if it is no event, and whether it is a whole one.

    A state that is not known is none: the container is described, and that decides.
    """
    try:
        said = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, False
    detail = said.detail
    handle_id, status = (
        (said.container, said.status)
        if detail is None
        else (detail.taskArn or detail.jobId, detail.lastStatus or detail.status)
    )
    if not 0 < len(handle_id) <= _LONGEST_ID:
        return None, False
    return Hint(handle_id, _SEEN.get(status)), detail is not None


def region_of(url: str) -> str | None:
    """Return the Region of a queue; None if its address is none of AWS's own."""
    found = _REGION.match(url)
    return None if found is None else found[1] or found[2]


# --- a look at it -----------------------------------------------------------------------------------------------


async def look_at_queue(queue: SqsEvents, name: str) -> AsyncIterator[Finding]:
    """
    Yield what is found of a queue: whether it can be read, and whether EventBridge may send to it.

    No message is received: another scheduler may be waiting for it.

    :param name: what the findings are about
    """
    try:
        async with queue.open():
            attributes = await queue.attributes()
    except BackendError as error:
        hint = "containers are polled as without events meanwhile; see docs/push.md for the permissions"
        yield warning(name, str(error), hint)
        return
    found = False
    for text, hint in _doubts(attributes):
        found = True
        yield warning(name, text, hint)
    if not found:
        yield good(name)


def _doubts(attributes: Mapping[str, str]) -> list[tuple[str, str]]:
    doubts: list[tuple[str, str]] = []
    if not _lets_events_in(attributes.get("Policy") or ""):
        text = f"the queue's policy does not allow {_SENDER} to send messages, so no event arrives"
        doubts.append((text, "add the statement of docs/push.md, with aws:SourceArn = the rule"))
    if attributes.get("FifoQueue") == "true":
        doubts.append(("it is a FIFO queue, in which one message holds up others", "use a standard queue"))
    if int(attributes.get("MessageRetentionPeriod") or 0) > MOST_RETENTION:
        text = "it keeps messages for longer than an hour, and an event is of no use after a minute"
        doubts.append((text, "set MessageRetentionPeriod to 300"))
    most = _receives_allowed(attributes.get("RedrivePolicy") or "")
    if most is not None and most < MOST_RECEIVES:
        text = f"it gives a message up after {most} receives, but schedulers leave events of others more often"
        doubts.append((text, f"set maxReceiveCount to {MOST_RECEIVES}, or leave out the RedrivePolicy"))
    return doubts


def _receives_allowed(redrive: str) -> int | None:
    """Return how often a message is received before it goes to a dead-letter queue; None: without end."""
    try:
        return int(json.loads(redrive)["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        return None


def _lets_events_in(policy: str) -> bool:
    """Return whether a statement allows EventBridge to send."""
    try:
        statements = json.loads(policy)["Statement"]
    except (ValueError, KeyError, TypeError):
        return False
    for one in statements if isinstance(statements, list) else [statements]:
        if not isinstance(one, Mapping) or one.get("Effect") != "Allow":
            continue
        principal = one.get("Principal")
        named = principal.get("Service", principal.get("AWS")) if isinstance(principal, Mapping) else principal
        actions = [str(action).lower() for action in _listed(one.get("Action"))]
        if {_SENDER, "*"} & set(_listed(named)) and {"sqs:sendmessage", "sqs:*", "*"} & set(actions):
            return True
    return False


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
