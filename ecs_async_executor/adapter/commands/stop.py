"""
``airflow ecs-async stop``.

May import everything of this package.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from airflow.utils.cli import suppress_logs_and_warning

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.asking import is_of_an_earlier_queueing, look_at
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.fleet import Member, fleet
from ecs_async_executor.adapter.commands.locating import scopes_of
from ecs_async_executor.adapter.commands.output import say
from ecs_async_executor.adapter.commands.targets import NoTarget, Target, resolve
from ecs_async_executor.adapter.commands.words import confirmed, refusal, warn
from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind

if TYPE_CHECKING:
    import argparse

TIMEOUT = 60.0
"""Seconds that AWS has to take the stops of one executor."""


@command
@suppress_logs_and_warning
def stop(args: argparse.Namespace) -> None:
    """
    Stop containers in a person's name: their task instances fail with that reason, and Airflow's retries apply.

    :raises SystemExit: if any of them was not stopped; each has its own line
    """
    found = resolve(fleet(args), args)
    targets = [one for one in found if isinstance(one, Target)]
    problems = [str(one) for one in found if isinstance(one, NoTarget)]
    problems += [one.no_container for one in targets if one.handle_id is None]
    targets = [one for one in targets if one.handle_id is not None]
    for problem in problems:
        warn(problem)
    places = _alive(targets)
    if not places:
        if problems:
            sys.exit(1)
        return
    many = "this container" if len(places) == 1 else f"these {len(places)} containers"
    if not confirmed(f"Stop {many}?", yes=args.yes):
        sys.exit("Nothing was stopped.")
    reason = _reason(args.reason)
    failed = bool(problems)
    for member in dict.fromkeys(target.member for target in places):
        theirs = {target: scope for target, scope in places.items() if target.member is member}
        failed = not stop_all(member, theirs, reason) or failed
    if failed:
        sys.exit(1)


def _alive(targets: Sequence[Target]) -> dict[Target, str | None]:
    """Print a line about each container; return those that can be stopped, with their scopes if AWS tells."""
    alive: dict[Target, str | None] = {}
    for member in dict.fromkeys(target.member for target in targets):
        theirs = [target for target in targets if target.member is member]
        try:
            seen = look_at(member, {target.container: target.queue for target in theirs})
        except Exception:  # noqa: BLE001 - the stop may be permitted where describing is not, and says why not if not
            seen = {}
        for target in theirs:
            observation = seen.get(target.container)
            words, over = _words(target, observation)
            say(f"{target}: {words}")
            if not over:
                alive[target] = observation.handle.scope if observation is not None else None
    return alive


def _words(target: Target, seen: Observation | None) -> tuple[str, bool]:
    """Return what is said of a container before it is stopped, and whether it has ended already."""
    of = target.of
    ti = "unknown to this Airflow" if of is None else of.state or "not scheduled"
    if of is not None and of.earlier:
        ti += ", an earlier try"
    if seen is None:
        return ti, False
    if of is not None and is_of_an_earlier_queueing(of, seen):
        return f"{ti}; this is the container of an earlier queueing, and the next has none yet", True
    if seen.seen is Seen.STOPPED:
        return f"has ended already: {seen.reason or seen.status}", True
    return f"{ti}; the container is {seen.status}", False


def _reason(given: str | None) -> str:
    """Return the reason that AWS and the event log get: who stopped it, and why."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have them
        person = "somebody"
    said = f"Stopped by {person} (airflow ecs-async stop)"
    return f"{said}: {given}" if given else said


def stop_all(member: Member, targets: Mapping[Target, str | None], reason: str) -> bool:
    """
    Stop containers of one executor, with a line about each.

    :param targets: with their scopes, None for what is not known
    :returns: whether all were stopped
    """
    left = list(targets)
    try:
        return run_bounded(partial(_stop, member, left, targets, reason), TIMEOUT)
    except Exception as error:  # noqa: BLE001 - credentials, a region that does not exist, no answer at all
        for target in left:
            warn(f"{target}: not stopped: {refusal(error, member.adapter.service.stop_permission)}")
        return False


async def _stop(member: Member, left: list[Target], scopes: Mapping[Target, str | None], reason: str) -> bool:
    console, backend = member.adapter.make_console(), member.adapter.make_backend()
    good = True
    async with console.open():
        while left:
            target = left[0]
            scope = scopes[target] or scopes_of(member.adapter, backend, target.container, target.queue)[0]
            try:
                await console.stop(Handle(scope, target.container), reason)
                say(f"{target}: told to stop.")
            except BackendError as error:
                good = False
                warn(f"{target}: not stopped: {_why(error, member)}")
            left.pop(0)
    return good


def _why(error: BackendError, member: Member) -> str:
    if error.kind is Kind.NOT_FOUND:
        return f"{member.service} does not know it (any more)."
    return refusal(error, member.adapter.service.stop_permission)
