"""
CloudWatch Logs: what a container has printed, without JWTs.

Imports the settings, ``core``, ``calls``, ``clients``, ``errors``, ``lazily``, ``pace`` and ``redaction``. No
Airflow. The folder of each service says which stream a container has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

import anyio

from ecs_async_executor.core.destinations import HOME, scoped
from ecs_async_executor.core.errors import NO_ANSWER, BackendError, ExecutorError, Kind
from ecs_async_executor.services import pace
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.errors import is_denied
from ecs_async_executor.services.lazily import Lazily
from ecs_async_executor.services.redaction import storable, without_tokens
from ecs_async_executor.settings import AwsSettings, Tuning
from ecs_async_executor.settings.rules import Destination

DRIVER: Final = "awslogs"
"""The log driver that sends to CloudWatch Logs."""
TAIL_TIMEOUT: Final = 5.0
"""Seconds that the last lines of a container may take to arrive after its end."""
MOST_LINES: Final = 10_000
"""The most that one request returns; its reply holds 1 MB at most."""

_PAUSE: Final = 1.0
_QUIET: Final = 3
"""So many reads without news after a container's end, a pause apart, show that there is no more."""
_EMPTY_PAGES: Final = 3
_CONNECTIONS: Final = 10
_OPERATIONS: Final = {"GetLogEvents": Operation("get_log_events", frozenset({"events"}))}


class NoLog(ExecutorError):
    """
    The output of a container cannot be shown; the text is a clause for people that says why.

    :param passing: it may be there a moment later
    """

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class LogStream:
    """
    A stream of CloudWatch Logs.

    :param destination: whose credentials read it; empty: home's
    """

    group: str
    name: str
    region: str
    destination: str = ""

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.group} {self.name}"


def awslogs_options(configuration: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    """
    Return the options of a container's log configuration.

    :param container: for people
    :raises NoLog: if its log driver is not awslogs
    """
    driver = configuration.get("logDriver")
    if driver != DRIVER:
        says = f"has the log driver {driver}" if driver else "has no log configuration"
        raise NoLog(f"{container} {says}, and only the output of {DRIVER} can be read")
    options: Mapping[str, Any] = configuration.get("options") or {}
    return options


def nothing_printed(stream: LogStream) -> str:
    """Return what to say of a stream that has no lines."""
    return f"the container has printed nothing so far: log stream {stream.name} in {stream.group} is empty"


def clients_for_logs(
    aws: AwsSettings, tuning: Tuning, destinations: Mapping[str, Destination]
) -> Callable[[str, str], ClientFactory]:
    """
    Return a function that returns the factory of the clients for a region and a destination.

    :param destinations: by their names, home among them
    """

    @cache
    def clients(region: str, destination: str) -> ClientFactory:
        there = replace(destinations[destination], region_name=region)
        return ClientFactory.from_settings(aws, tuning, there, connections=_CONNECTIONS)

    return clients


class LogReader:
    """
    Reads streams, with a client for each region and destination that is kept open while it is used.

    :param clients: returns the factory of the clients for a region and a destination
    """

    def __init__(self, clients: Callable[[str, str], ClientFactory]) -> None:
        self._clients = clients
        self._destination = HOME
        self._calls: dict[tuple[str, str], Lazily[Calls]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LogReader]:
        """Hold the clients open that are needed; they belong to the running loop."""
        async with AsyncExitStack() as stack:
            self._stack = stack
            try:
                yield self
            finally:
                self._calls = {}

    def there(self, destination: str) -> LogReader:
        """Return this reader for streams that name no destination, and are in this one."""
        reader = copy(self)
        reader._destination = destination  # noqa: SLF001 - its own class
        return reader

    # --- reading

    async def read(self, stream: LogStream, lines: int, *, since: float | None = None) -> list[str]:
        """
        Return the newest lines of a stream, the oldest of them first. One request, or a few if pages are empty.

        :param lines: the most lines of the result
        :param since: wall-clock seconds; older lines are left out
        :raises NoLog: if they cannot be read
        """
        asked: dict[str, Any] = {"limit": min(lines, MOST_LINES), "startFromHead": False, **_from(since)}
        reply = await self._get(stream, **asked)
        for _ in range(_EMPTY_PAGES):  # an empty page is not the end of a stream, its own token again is
            older = reply.get("nextBackwardToken")
            if reply["events"] or not older or older == asked.get("nextToken"):
                break
            asked["nextToken"] = older
            reply = await self._get(stream, **asked)
        return _lines(reply)[-lines:]

    async def tail(self, stream: LogStream, lines: int) -> list[str]:
        """
        Return the last lines of a container that has ended, once two reads in a row find the same.

        After :data:`TAIL_TIMEOUT` the result is what was read last.

        :param lines: the most lines of the result
        :raises NoLog: if they cannot be read, or there is no such stream within the time
        """
        found: list[str] | None = None
        problem = NoLog(f"no answer from CloudWatch Logs within {TAIL_TIMEOUT:g} s", passing=True)
        with anyio.move_on_after(TAIL_TIMEOUT):
            while True:
                try:
                    now = await self.read(stream, lines)
                except NoLog as error:
                    if not error.passing:
                        raise
                    problem = error
                else:
                    if now and now == found:
                        return now
                    found = now
                await anyio.sleep(_PAUSE)
        if found is None:
            raise problem
        return found

    async def follow(
        self,
        stream: LogStream,
        *,
        lines: int = MOST_LINES,
        since: float | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[str]:
        """
        Yield the newest lines of a stream, then each new line as it comes. Problems that may pass are waited out.

        :param lines: the most lines of the past
        :param since: wall-clock seconds; older lines are left out
        :param over: the container has ended: once it says so, the iteration ends when nothing more comes
        :raises NoLog: if the lines cannot be read
        """
        asked: dict[str, Any] = {"limit": min(lines, MOST_LINES), "startFromHead": False, **_from(since)}
        quiet = 0
        while True:
            ended = over()  # asked before the read: what comes between them is not missed
            fresh: list[str] = []
            problem = None
            try:
                reply = await self._get(stream, **asked)
            except NoLog as error:
                if not error.passing:
                    raise
                problem = error
                at_end = True
            else:
                fresh = _lines(reply)
                forward = reply.get("nextForwardToken")
                at_end = not fresh and forward == asked.get("nextToken")
                asked = {"startFromHead": True} | ({"nextToken": forward} if forward else _from(since))
            for line in fresh:
                yield line
            quiet = quiet + 1 if at_end else 0
            if ended and quiet >= _QUIET:
                if problem is not None:
                    raise problem
                return
            if at_end:
                await anyio.sleep(_PAUSE)

    async def _get(self, stream: LogStream, **asked: Any) -> Any:
        try:
            destination = stream.destination or self._destination
            calls = await self._opened(stream.region, destination)
            await pace.of_log_reads(scoped(destination, stream.region)).turn()
            return await calls("GetLogEvents", logGroupName=stream.group, logStreamName=stream.name, **asked)
        except BackendError as error:
            raise _problem(error, stream) from None

    async def _opened(self, region: str, destination: str) -> Calls:
        where = region, destination
        if where not in self._calls:
            self._calls[where] = Lazily(partial(_open, self._clients(*where)))
            self._stack.push_async_callback(self._calls[where].close)
        return await self._calls[where].opened()


@asynccontextmanager
async def _open(clients: ClientFactory) -> AsyncIterator[Calls]:
    calls = Calls(clients, "logs", operations=_OPERATIONS, decoders={})
    async with calls.open():
        yield calls


def _from(since: float | None) -> dict[str, int]:
    return {} if since is None else {"startTime": round(since * 1000)}


def _lines(reply: Mapping[str, Any]) -> list[str]:
    """Return the lines of a reply; an event can have several."""
    texts = (storable(without_tokens(str(event.get("message") or ""))) for event in reply["events"])
    return [line.rstrip("\r") for text in texts for line in text.rstrip("\n").split("\n")]


def _problem(error: BackendError, stream: LogStream) -> NoLog:
    group, region = stream.group, stream.region
    if error.code == "ResourceNotFoundException":
        if "group" in error.message.lower():
            why = f"log group {group} does not exist in {region}"
        else:
            why = f"the container has printed nothing so far: log group {group} has no stream {stream.name}"
        return NoLog(why, passing=True)
    if is_denied(error):
        allow = f"allow it on log-group:{group}:log-stream:*"
        return NoLog(
            f"the credentials lack the permission logs:GetLogEvents for log group {group}: {allow} ({error})"
        )
    if error.kind is Kind.THROTTLED:
        return NoLog(
            f"CloudWatch Logs in {region} throttles GetLogEvents: the account reads too often", passing=True
        )
    passing = error.kind in NO_ANSWER or (error.kind is Kind.CREDENTIALS and error.unavailable)
    return NoLog(f"CloudWatch Logs in {region} shows no lines of {stream}: {error}", passing=passing)
