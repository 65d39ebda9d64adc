"""
What containers print, as CloudWatch Logs has it.

May import moto and :mod:`life`. Knows no service: ECS and Batch say which stream the output of a container belongs
to. It is copied into moto's CloudWatch Logs when a client asks for logs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.logs.models import logs_backends

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.place import Place

LOGS_TARGET = "Logs_20140328"
"""What requests to CloudWatch Logs name."""
DRIVER = "awslogs"
NO_GROUP, NO_STREAM = (f"The specified log {what} does not exist.".encode() for what in ("group", "stream"))


@dataclass(frozen=True, slots=True)
class Stream:
    """A log stream of CloudWatch Logs."""

    place: Place
    group: str
    name: str


@dataclass(slots=True)
class _Output:
    stream: Stream
    path: Path
    life: Life
    read: int = 0


def stream_of(container: Mapping[str, Any], task_id: str, place: Place) -> Stream | None:
    """
    Return where ECS sends the output of a container.

    :param container: its definition, as RegisterTaskDefinition takes it
    :param place: the task's
    :returns: None if its log driver is not awslogs, or its stream would be named after the Docker container
    """
    configuration = container.get("logConfiguration") or {}
    options: Mapping[str, str] = configuration.get("options") or {}
    prefix = options.get("awslogs-stream-prefix")
    if configuration.get("logDriver") != DRIVER or not options.get("awslogs-group") or not prefix:
        return None
    name = f"{prefix}/{container['name']}/{task_id}"
    return Stream(elsewhere(place, options), options["awslogs-group"], name)


def elsewhere(place: Place, options: Mapping[str, str]) -> Place:
    """Return where the log driver's options send output, the place of the container if they name no Region."""
    return Place(place.account, options.get("awslogs-region") or place.region)


class Outputs:
    """
    The output of an account's containers. Safe to use from any thread, but for :meth:`deliver`.

    Log groups are made as they are needed; on AWS they have to exist. A job's containers print into one file. All
    of it goes to the stream of the main container.

    :param path_of: returns the file with a job's output
    """

    def __init__(self, path_of: Callable[[str], Path] | None) -> None:
        self._path_of = path_of
        self._outputs: dict[str, _Output] = {}

    def expect(self, job: Job, life: Life, stream: Stream | None) -> None:
        """Deliver what a job prints; nothing if it has no stream, or the runner runs no processes."""
        if stream is not None and self._path_of is not None:
            self._outputs[job.id] = _Output(stream, self._path_of(job.id), life)

    def clear(self) -> None:
        """Forget all containers."""
        self._outputs = {}

    def deliver(self) -> None:
        """Give moto what was printed since the last time; call it in moto's thread, between two requests."""
        for job_id, output in list(self._outputs.items()):
            over = output.life.ended_at is not None  # asked before the file is read: until then it can grow
            lines = _new_lines(output, whole=over)
            if lines:
                self._put(output.stream, lines)
            if over:
                self._outputs.pop(job_id, None)

    def worded(self, place: Place, request: bytes, reply: bytes) -> bytes:
        """Return moto's reply in AWS's words: where only a stream is missing, moto says that the group is."""
        groups = logs_backends[place.account][place.region].groups
        if NO_GROUP in reply and json.loads(request).get("logGroupName") in groups:
            return reply.replace(NO_GROUP, NO_STREAM)
        return reply

    def _put(self, stream: Stream, lines: list[str]) -> None:
        backend = logs_backends[stream.place.account][stream.place.region]
        if stream.group not in backend.groups:
            backend.create_log_group(stream.group, {})
        if stream.name not in backend.groups[stream.group].streams:
            backend.create_log_stream(stream.group, stream.name)
        now = round(time.time() * 1000)
        backend.put_log_events(stream.group, stream.name, [{"timestamp": now, "message": one} for one in lines])


def _new_lines(output: _Output, *, whole: bool) -> list[str]:
    """Return the lines that are new in a file; the last one only once it has ended."""
    if not output.path.exists():
        return []
    with output.path.open("rb") as file:
        file.seek(output.read)
        text = file.read()
    if not whole:
        text = text[: text.rfind(b"\n") + 1]
    output.read += len(text)
    return [line for line in text.decode(errors="replace").splitlines() if line]
