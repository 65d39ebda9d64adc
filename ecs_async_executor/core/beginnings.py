"""
How a launch begins: queued by this scheduler, or adopted from another.

May import ``messages`` and ``phases``.
"""

from __future__ import annotations

from ecs_async_executor.core.messages import AirflowState
from ecs_async_executor.core.phases import Checking, Doubt, InDoubt, Searching, Waiting, Why


def queued(not_before: float) -> Waiting:
    """Return the first phase of a launch of this scheduler's own."""
    return Waiting(not_before)


def adopted(
    state: AirflowState, handle_id: str | None, *, tokened: bool, now: float, not_before: float
) -> Checking | Searching:
    """
    Return the first phase of a launch of another scheduler.

    A queued workload whose ``launch_id`` was assigned by Airflow has the client tokens that the other scheduler
    used: once a search has found nothing, the launch request itself says whether it has missed a container. The
    search comes first because the numbers in the client tokens may not agree: a service that forgets under which
    of them it had no room would take the first one for a new request.

    :param handle_id: the container's identifier if Airflow knows one
    :param tokened: the other scheduler launched it, if at all, under this ``launch_id``
    """
    if handle_id is not None:
        return Checking(handle_id, Why.NAMED, state, not_before)
    asked = state is AirflowState.QUEUED and tokened
    onward = InDoubt(not_before, Doubt(since=now, inherited=True)) if asked else None
    return Searching(None, state, not_before, onward=onward)
