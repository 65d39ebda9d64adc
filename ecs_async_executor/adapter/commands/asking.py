"""
What AWS says of the containers that a command names.

May import everything of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.fleet import Member
from ecs_async_executor.adapter.commands.locating import locate
from ecs_async_executor.adapter.commands.targets import NoTarget, Target
from ecs_async_executor.adapter.commands.words import refusal
from ecs_async_executor.adapter.tries import Try
from ecs_async_executor.core.backend import Observation
from ecs_async_executor.core.policy import CREATED_MARGIN
from ecs_async_executor.services.details import Details

TIMEOUT = 20.0
"""Seconds that AWS has to describe one container."""
DESCRIBING = {"ECS": "ecs:DescribeTasks", "Batch": "batch:DescribeJobs"}
"""The permission that describing containers takes, by service."""


def details_of(target: Target) -> Details:
    """
    Ask AWS for a target's container.

    :raises NoTarget: if there is none, AWS does not know it, or AWS does not answer
    """
    member, handle_id = target.member, target.container
    try:
        details = run_bounded(partial(member.adapter.details, handle_id), TIMEOUT)
    except Exception as error:  # noqa: BLE001 - it ends this command, in one line
        raise NoTarget(f"{target}: {refusal(error, DESCRIBING[member.service])}") from None
    if details is None:
        raise NoTarget(f"{target}: {unknown(member.service, member.adapter.destination)}")
    return details


def look_at(member: Member, queues: Mapping[str, str | None]) -> dict[str, Observation]:
    """
    Ask AWS for the states of containers of one executor; those of which it does not say anything are left out.

    :param queues: the queue of each container's task instance, None if there is none
    :raises Exception: if AWS cannot be asked
    """
    return run_bounded(partial(_look_at, member, queues), TIMEOUT)


async def _look_at(member: Member, queues: Mapping[str, str | None]) -> dict[str, Observation]:
    backend = member.adapter.make_backend()
    async with backend.open():
        return (await locate(member.adapter, backend, queues)).seen


def is_of_an_earlier_queueing(of: Try, observation: Observation) -> bool:
    """Return whether a container is older than the queueing of a task instance: Airflow keeps its identifier."""
    return of.state == "queued" and is_older_than_queueing(of, observation)


def is_older_than_queueing(of: Try, observation: Observation) -> bool:
    """Return whether a container is older than the latest queueing of a task instance, as far as that is known."""
    created_at, queued_at = observation.created_at, of.queued_at
    if created_at is None or queued_at is None:
        return False
    return created_at < queued_at.timestamp() - CREATED_MARGIN


def unknown(service: str, destination: str) -> str:
    """Return what it means that the service does not know a container."""
    remembered = "an hour after it has stopped" if service == "ECS" else "a day after it has ended, at least"
    return (
        f"{service} does not know it (any more): it remembers a container for {remembered}, and each region and "
        f"account knows its own only. These settings lead to {destination}."
    )
