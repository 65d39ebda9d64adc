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
from ecs_async_executor.adapter.commands.told import Told, command_about, never_ran
from ecs_async_executor.adapter.commands.words import refusal, warn
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.hints import hint
from ecs_async_executor.services.details import NEVER_RAN, ContainerDetails
from ecs_async_executor.services.logs import LogStream, NoLog, nothing_printed
from ecs_async_executor.services.readable import readable
from ecs_async_executor.services.redaction import redacted

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
        _print_all(target, stream, args, since)
    except KeyboardInterrupt:
        return
    except NoTarget as problem:
        sys.exit(str(problem))


def _print_all(target: Target, stream: LogStream, args: argparse.Namespace, since: float | None) -> None:
    """
    Print lines, or say why there are none.

    :raises NoTarget: if there is no log to read, or the container has not run
    """
    try:
        if args.follow:
            printed = asyncio.run(_follow(target, stream, args, since))
        else:
            printed = _show(target, stream, args, since)
    except NoLog as problem:
        nowhere = f"{target}: {str(problem).rstrip('.')}."
        raise NoTarget(_not_started(target, args.container) or nowhere) from None
    if printed:
        return
    if (why := _not_started(target, args.container)) is not None:
        raise NoTarget(why)
    warn(f"{target}: {nothing_printed(stream)}." if since is None else f"{target}: no lines since then.")


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
        nowhere = f"{target}: {unknown(member.service, member.adapter.destination)}"
        raise NoTarget(_not_started(target, name) or nowhere)
    one = _chosen(target, containers, name)
    if one.stream is None:
        nowhere = f"{target}: container {one.name or 'of Airflow'}: {one.no_stream.rstrip('.')}."
        raise NoTarget(_not_started(target, name) or nowhere)
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


def _not_started(target: Target, name: str | None) -> str | None:
    """
    Return that a container never ran, or has not started yet, and why, as far as AWS or the event log says.

    :param name: of the container, None for Airflow's: nothing tells whether another has started
    :returns: None if it can have printed something, as far as is known
    """
    if name is not None:
        return None
    service, told = target.member.service, target.failure
    try:
        details = run_bounded(partial(target.member.adapter.details, target.container), TIMEOUT)
    except Exception:  # noqa: BLE001 - the event log can know
        details = None
    how = NEVER_RAN
    if details is not None:
        seen = details.observation
        if seen.started:
            return None
        if seen.seen is not Seen.STOPPED:
            how = f"has not started yet: it is {seen.status}"
        means = hint(seen.ending, seen.exit_code, seen.reason) or ""
        told = told or Told(redacted(seen.reason), means)
    elif not never_ran(service, target.entries):
        return None
    of = target.of
    command = f"airflow ecs-async describe {target.container}" if of is None else command_about(of, "describe")
    why = f" {told.text}" if told is not None and told.reason else ""
    return f"{target}: the container {how}.{why} `{command}` shows what is known of it."


def _show(target: Target, stream: LogStream, args: argparse.Namespace, since: float | None) -> bool:
    """Print the lines that there are; return whether there are any."""
    reader = target.member.adapter.log_reader()

    async def read() -> list[str]:
        async with reader.open():
            return await reader.read(stream, args.lines, since=since)

    try:
        lines = run_bounded(read, TIMEOUT)
    except NoLog:
        raise
    except Exception as error:  # noqa: BLE001 - it ends this command, in one line
        raise NoTarget(f"{target}: {refusal(error, 'logs:GetLogEvents')}") from None
    for line in lines:
        _print(line, args)
    return bool(lines)


def _print(line: str, args: argparse.Namespace) -> None:
    if args.raw:
        say_raw(line)
    else:
        say(readable(line))


async def _follow(target: Target, stream: LogStream, args: argparse.Namespace, since: float | None) -> bool:
    """Print lines until the container has ended; return whether there were any."""
    printed = False
    reader = target.member.adapter.log_reader()
    over = asyncio.Event()
    watching = asyncio.ensure_future(_watch(target, over))
    try:
        async with reader.open():
            async for line in reader.follow(stream, lines=args.lines, since=since, over=over.is_set):
                _print(line, args)
                printed = True
    except BackendError as error:
        raise NoTarget(f"{target}: {refusal(error, 'logs:GetLogEvents')}") from None
    finally:
        watching.cancel()
    return printed


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
