"""
``airflow ecs-async logs``.

May import everything of this package.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.asking import DESCRIBING, TIMEOUT, unknown
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import fleet
from ecs_async_executor.adapter.commands.locating import scopes_of
from ecs_async_executor.adapter.commands.output import say, say_raw
from ecs_async_executor.adapter.commands.targets import NoTarget, Target, resolve_one
from ecs_async_executor.adapter.commands.words import refusal, warn
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.details import ContainerDetails
from ecs_async_executor.services.logs import LogStream, NoLog, nothing_printed
from ecs_async_executor.services.readable import readable

if TYPE_CHECKING:
    import argparse

_LOOK = 5.0
"""Seconds between two looks at whether a followed container has ended."""


@command
@suppress_logs_and_warning
def logs(args: argparse.Namespace) -> None:
    """
    Print the last lines that a container has printed; with ``--follow``, each new line until it ends.

    :raises SystemExit: if there are none to read; says which permission, group or driver is missing
    """
    try:
        target = resolve_one(fleet(args), args)
        stream = _stream_of(target, args.container)
        since = None if args.since is None else time.time() - args.since
        if args.follow:
            asyncio.run(_follow(target, stream, args, since))
        else:
            _show(target, stream, args, since)
    except KeyboardInterrupt:
        return
    except NoTarget as problem:
        sys.exit(str(problem))


def _stream_of(target: Target, name: str | None) -> LogStream:
    """
    Return the log stream of Airflow's container, or of another, and say on stderr which it is.

    :raises NoTarget: if it has none that can be read
    """
    member, handle_id = target.member, target.container
    try:
        containers = run_bounded(partial(member.adapter.log_streams, handle_id), TIMEOUT)
    except Exception as error:  # noqa: BLE001 - it ends this command, in one line
        raise NoTarget(f"{target}: {refusal(error, DESCRIBING[member.service])}") from None
    if not containers:
        raise NoTarget(f"{target}: {unknown(member.service, member.adapter.destination)}")
    one = _chosen(target, containers, name)
    if one.stream is None:
        raise NoTarget(f"{target}: container {one.name or 'of Airflow'}: {one.no_stream.rstrip('.')}.")
    warn(f"{target}, log stream {one.stream}")
    return one.stream


def _chosen(target: Target, containers: Sequence[ContainerDetails], name: str | None) -> ContainerDetails:
    """Return the container with a name, or Airflow's; its latest attempt."""
    if name is None:
        found = [one for one in containers if one.runs_airflow] or list(containers[-1:])
    else:
        found = [one for one in containers if one.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(one.name for one in containers))
        raise NoTarget(f"{target} has no container {name!r}: it has {names}.")
    return found[-1]


def _show(target: Target, stream: LogStream, args: argparse.Namespace, since: float | None) -> None:
    reader = target.member.adapter.log_reader()

    async def read() -> list[str]:
        async with reader.open():
            return await reader.read(stream, args.lines, since=since)

    try:
        lines = run_bounded(read, TIMEOUT)
    except NoLog as problem:
        raise NoTarget(f"{target}: {str(problem).rstrip('.')}.") from None
    except Exception as error:  # noqa: BLE001 - it ends this command, in one line
        raise NoTarget(f"{target}: {refusal(error, 'logs:GetLogEvents')}") from None
    for line in lines:
        _print(line, args)
    if not lines:
        warn(f"{target}: {nothing_printed(stream)}." if since is None else f"{target}: no lines since then.")


def _print(line: str, args: argparse.Namespace) -> None:
    if args.raw:
        say_raw(line)
    else:
        say(readable(line))


async def _follow(target: Target, stream: LogStream, args: argparse.Namespace, since: float | None) -> None:
    reader = target.member.adapter.log_reader()
    over = asyncio.Event()
    watching = asyncio.ensure_future(_watch(target, over))
    try:
        async with reader.open():
            async for line in reader.follow(stream, lines=args.lines, since=since, over=over.is_set):
                _print(line, args)
    except NoLog as problem:
        raise NoTarget(f"{target}: {str(problem).rstrip('.')}.") from None
    except BackendError as error:
        raise NoTarget(f"{target}: {refusal(error, 'logs:GetLogEvents')}") from None
    finally:
        watching.cancel()


async def _watch(target: Target, over: asyncio.Event) -> None:
    """Set the event once the container has ended; while AWS does not say, it goes on."""
    backend = target.member.adapter.make_backend()
    handle_id = target.container
    async with backend.open():
        while not over.is_set():
            try:
                scope = scopes_of(target.member.adapter, backend, handle_id, target.queue)[0]
                for one in await backend.describe(scope, [handle_id]):
                    if one.exit_code is not None or one.seen in {Seen.STOPPED, Seen.MISSING}:
                        over.set()
            except BackendError:
                pass  # following does not need it, Ctrl-C ends it
            await asyncio.sleep(_LOOK)
