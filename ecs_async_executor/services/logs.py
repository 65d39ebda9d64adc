"""
CloudWatch Logs: the last lines that a container has printed.

Imports the settings, ``core``, ``calls``, ``clients`` and ``redaction``. No Airflow. The folder of each service
finds the stream of a container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from ecs_async_executor.core.errors import BackendError, ExecutorError, Kind
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.settings import AwsSettings, Tuning

DRIVER: Final = "awslogs"
"""The log driver that sends to CloudWatch Logs."""
TAIL_TIMEOUT: Final = 5.0
"""Seconds that reading may take; the last lines of a container arrive seconds after its end."""

_PAUSE: Final = 1.0
_NOT_YET: Final = "ResourceNotFoundException"
_OPERATIONS: Final = {"GetLogEvents": Operation("get_log_events", frozenset({"events"}))}


class NoLogStream(ExecutorError):
    """The output of a container is nowhere that this package can read it; the text says why."""


@dataclass(frozen=True, slots=True)
class LogStream:
    """
    A stream of CloudWatch Logs.

    :param region: None: the region of the container's own service
    """

    group: str
    name: str
    region: str | None = None

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.group} {self.name}"


def options_of(configuration: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    """
    Return the options of a container's log configuration.

    :param container: for people
    :raises NoLogStream: if its log driver is not awslogs
    """
    driver = configuration.get("logDriver")
    if driver != DRIVER:
        says = f"has the log driver {driver}" if driver else "has no log configuration"
        raise NoLogStream(f"{container} {says}, and only the output of {DRIVER} can be read")
    options: Mapping[str, Any] = configuration.get("options") or {}
    return options


def clients_for(stream: LogStream, aws: AwsSettings, tuning: Tuning) -> ClientFactory:
    """Return a factory of clients for the region of a stream."""
    return ClientFactory(
        conn_id=aws.conn_id,
        region_name=stream.region or aws.region_name,
        section=aws.section,
        connect_timeout=tuning.connect_timeout,
        read_timeout=tuning.read_timeout,
    )


async def tail(clients: ClientFactory, stream: LogStream, lines: int) -> list[str]:
    """
    Return the last lines of a stream, each safe to show, once two reads in a row find the same.

    After :data:`TAIL_TIMEOUT` the result is what was read last.

    :param lines: the most lines of the result
    :raises BackendError: if CloudWatch Logs refuses the call, or does not answer in time
    :raises NoLogStream: if there is no such stream within the time
    """
    calls = Calls(clients, "logs", operations=_OPERATIONS, decoders={})
    found: list[str] | None = None
    missing = False
    with anyio.move_on_after(TAIL_TIMEOUT):
        async with calls.open():
            while True:
                try:
                    now = await _read(calls, stream, lines)
                except BackendError as error:
                    if error.code != _NOT_YET:
                        raise
                    missing = True
                else:
                    if now and now == found:
                        return now
                    found = now
                await anyio.sleep(_PAUSE)
    if found is not None:
        return found
    if missing:
        raise NoLogStream(f"there is no log stream {stream}")
    raise BackendError(Kind.AMBIGUOUS, "Timeout", f"no answer from CloudWatch Logs within {TAIL_TIMEOUT:g} s")


async def _read(calls: Calls, stream: LogStream, lines: int) -> list[str]:
    reply = await calls(
        "GetLogEvents", logGroupName=stream.group, logStreamName=stream.name, limit=lines, startFromHead=False
    )
    return [redacted(str(event.get("message") or "")) for event in reply["events"]]
