"""
``python -m benchmarks.eventful``: the stub of ECS with EventBridge and SQS, as far as the executor meets them.

Containers that run for ever end at a rate, on request. Each start and each end puts a message into one queue, as
the rule of docs/push.md would, after a second at most: AWS publishes no figure for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.stub import Stub, until_stopped

DELAY = (0.2, 1.0)
"""Seconds that an event takes to its queue: at least, at most."""
MOST = 10
QUEUE = "/123456789012/events"


@dataclass(slots=True)
class _Message:
    body: str
    sent_at: float
    visible_at: float
    receives: int = 0


class Eventful(Stub):
    """Tasks that end, and a queue that is told of them."""

    def __init__(self, latency: float, duration: float | None) -> None:
        super().__init__(latency, duration)
        self._random = random.Random(7)  # noqa: S311 - delays
        self._numbers = itertools.count()
        self._messages: dict[str, _Message] = {}
        self._arrived = asyncio.Event()
        self._rule = True
        self._ends: list[tuple[str, str, float]] = []
        self._lasting: list[str] = []
        self._ending: asyncio.Task[None] | None = None

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        service, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
        if service != "AmazonSQS":
            return await super().serve(request)
        self._calls[operation] = self._calls.get(operation, 0) + 1
        parameters = json.loads(await request.read())
        await asyncio.sleep(self.latency)
        reply: dict[str, Any] = {}
        if operation == "ReceiveMessage":
            reply = await self._receive(
                float(parameters["WaitTimeSeconds"]), float(parameters["VisibilityTimeout"])
            )
        elif operation == "DeleteMessageBatch":
            for entry in parameters["Entries"]:
                self._messages.pop(entry["ReceiptHandle"], None)
            reply = {"Successful": [{"Id": entry["Id"]} for entry in parameters["Entries"]], "Failed": []}
        elif operation == "ChangeMessageVisibilityBatch":
            for entry in parameters["Entries"]:
                if (message := self._messages.get(entry["ReceiptHandle"])) is not None:
                    message.visible_at = time.time() + entry["VisibilityTimeout"]
            reply = {"Successful": [{"Id": entry["Id"]} for entry in parameters["Entries"]], "Failed": []}
        return web.Response(
            body=json.dumps(reply).encode(), headers={"Content-Type": "application/x-amz-json-1.0"}
        )

    async def _receive(self, wait: float, hidden: float) -> dict[str, Any]:
        until = time.time() + wait
        while not (ready := self._ready()) and (left := until - time.time()) > 0:
            self._arrived.clear()
            next_at = min((one.visible_at for one in self._messages.values()), default=until)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), min(left, max(0.001, next_at - time.time())))
        messages = []
        for receipt, message in ready:
            message.receives += 1
            message.visible_at = time.time() + hidden
            attributes = {
                "ApproximateReceiveCount": str(message.receives),
                "SentTimestamp": str(int(message.sent_at * 1000)),
            }
            messages.append(
                {
                    "MessageId": receipt,
                    "ReceiptHandle": receipt,
                    "Body": message.body,
                    "MD5OfBody": hashlib.md5(message.body.encode()).hexdigest(),  # noqa: S324 - SQS's
                    "Attributes": attributes,
                }
            )
        return {"Messages": messages} if messages else {}

    def _ready(self) -> list[tuple[str, _Message]]:
        now = time.time()
        return list(itertools.islice((item for item in self._messages.items() if item[1].visible_at <= now), MOST))

    def _run(self, overrides: Any, mark: str, duration: float | None) -> str:
        record = super()._run(overrides, mark, duration)
        arn = next(reversed(self._tasks))
        if duration is None:
            self._lasting.append(arn)
        else:
            self._tell(arn, "RUNNING")
            asyncio.get_running_loop().call_later(duration, self._over, arn, mark)
        return record

    def _over(self, arn: str, mark: str) -> None:
        self._ends.append((arn, mark, self._tasks[arn][1]))
        self._tell(arn, "STOPPED")

    async def _end_some(self, per_second: float) -> None:
        while self._lasting:
            await asyncio.sleep(1.0 / per_second)
            arn = self._lasting.pop(0)
            base, _, cache = self._tasks[arn]
            self._tasks[arn] = base, time.time(), cache
            self._over(arn, "")

    def _tell(self, arn: str, status: str) -> None:
        if self._rule:
            body = json.dumps({"container": arn, "cluster": "default", "status": status, "at": ""})
            delay = self._random.uniform(*DELAY)
            asyncio.get_running_loop().call_later(delay, self._deliver, body)

    def _deliver(self, body: str) -> None:
        now = time.time()
        self._messages[str(next(self._numbers))] = _Message(body, now, now)
        self._arrived.set()

    def _controlled(self, path: str, data: dict[str, Any]) -> Any:
        match path.removeprefix("/_local/"):
            case "end":
                self._ending = asyncio.get_running_loop().create_task(self._end_some(data["per_second"]))
            case "rule":
                self._rule = data["there"]
            case "ends":
                return {"ends": self._ends}
            case _:
                return super()._controlled(path, data)
        return {}


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--duration", type=float)
    options = parser.parse_args()

    async def serve() -> None:
        await until_stopped(options.port_file, Eventful(options.latency, options.duration))

    asyncio.run(serve())


if __name__ == "__main__":
    main()
