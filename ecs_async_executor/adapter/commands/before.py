"""
The other containers that a launch had, none of which started.

May import ``core``, ``asking``, ``locating`` and the service-free adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.asking import TIMEOUT
from ecs_async_executor.adapter.commands.targets import Target
from ecs_async_executor.adapter.commands.words import refusal
from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.policy import CREATED_MARGIN

LISTING: Final = {"ECS": "ecs:ListTasks", "Batch": "batch:ListJobs"}
"""The permission that listing containers takes, by service."""
_MOST_REQUESTS: Final = 20
"""ECS lists stopped tasks by cluster only, and the scheduler draws on the same quota."""


class _TooMany(Exception):
    """The list takes more requests than one command may make."""


@dataclass(frozen=True, slots=True)
class Before:
    """
    The other containers of a launch.

    :param containers: the oldest first
    :param problem: why they are not known, as a sentence; empty if they are
    """

    containers: Sequence[Observation] = ()
    problem: str = ""


def containers_before(target: Target, present: Observation) -> Before:
    """
    Ask AWS for the other containers with the same mark; none if the present one has started.

    A launch gets another container only as long as no user code has run. There can be a later one: what Airflow
    keeps of a launch that fails at once is the container before its last.
    """
    if present.started or present.started_by is None or present.created_at is None or target.of is None:
        return Before()
    try:
        found = run_bounded(partial(_with_mark, target, present, present.started_by), TIMEOUT)
    except _TooMany:
        return Before(problem="not looked for: too many tasks have stopped in the cluster during the last hour.")
    except Exception as error:  # noqa: BLE001 - everything else is known
        service = target.member.service
        return Before(problem=f"not known: {refusal(error, LISTING[service])}")
    queued_at = target.of.queued_at
    since = 0.0 if queued_at is None else queued_at.timestamp() - CREATED_MARGIN
    own = [one for one in found if one.created_at is not None and one.created_at >= since]
    return Before(sorted(own, key=lambda one: one.created_at or 0.0))


async def _with_mark(target: Target, present: Observation, mark: str) -> Sequence[Observation]:
    left = _MOST_REQUESTS

    async def paced() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMany

    backend, scope = target.member.adapter.make_backend(), present.handle.scope
    async with backend.open():
        handles = await backend.search(scope, mark, paced)
        ids = [one.id for one in handles if one.id != present.handle.id][-backend.describe_batch :]
        described = await backend.describe(scope, ids) if ids else ()
    return [one for one in described if one.seen is not Seen.MISSING]
