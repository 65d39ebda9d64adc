"""
What Airflow's event log is told of a launch that has to wait.

May import ``errors``, ``events``, ``messages``, ``phases`` and ``policy``. The same reason is told once,
however often the service gives it.
"""

from __future__ import annotations

import re

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Effect, Emit
from ecs_async_executor.core.messages import Notice
from ecs_async_executor.core.phases import Sending, Starting, Tracked

ELSEWHERE = "container placed elsewhere"
NOTICES_PER_CONTAINER = 8
"""A service whose reasons have no code could word each of them differently."""

_END_OF_CODE = re.compile(r" - |: ")
_DIGITS = re.compile(r"\d+")
_WAITS_FOR = {
    Kind.REFUSED: ("refused", "refuses it"),
    Kind.CAPACITY: ("no capacity", "has no capacity for it"),
    Kind.AMBIGUOUS: ("no answer", "gives no answer"),
}
"""Why a request has to wait: in a topic, and in a sentence."""


def topic(how: str, reason: str) -> str:
    """
    Return what a reason for waiting is about, without what differs each time that it is given.

    :param how: who keeps the launch waiting: the same code can be said of a request and of the container
    """
    return f"{how}: {_DIGITS.sub('', _END_OF_CODE.split(reason, maxsplit=1)[0])}"


def request_waits(
    tracked: Tracked, service: str, kind: Kind, reason: str, placement: str | None = None
) -> list[Effect]:
    """
    Say once why a launch cannot get a container for now.

    :param placement: whose gate is closed, if the launch waits at one
    """
    how, _ = _WAITS_FOR[kind]
    about = how if kind is Kind.AMBIGUOUS else topic(how, reason)
    return _tell(tracked, about, why_it_waits(service, kind, reason), placement, unlaunched=True)


def why_it_waits(service: str, kind: Kind, reason: str) -> str:
    """Return a sentence about a launch whose request has to wait."""
    return f"The container waits: {service} {_WAITS_FOR[kind][1]}: {reason}"


def container_waits(tracked: Tracked, service: str, reason: str) -> list[Effect]:
    """Say once what a container waits for that the service has taken and does not start."""
    return _tell(tracked, topic("waits", reason), f"The container waits: {service}: {reason}", unlaunched=False)


def placed_elsewhere(tracked: Tracked) -> list[Effect]:
    """Say once why a launch has its container at another placement than its best one."""
    text, tracked.instead = tracked.instead, ""
    if not text or not tracked.wanted:
        return []
    launch, phase = tracked.launch, tracked.phase
    placement = phase.placement if isinstance(phase, Starting) else None
    about = f"at {tracked.choice}"
    return [Emit(Notice(launch.launch_id, launch.key, ELSEWHERE, text, about=about, placement=placement))]


def _tell(
    tracked: Tracked, about: str, text: str, placement: str | None = None, *, unlaunched: bool
) -> list[Effect]:
    if not tracked.wanted or about in tracked.told or len(tracked.told) >= NOTICES_PER_CONTAINER:
        return []
    tracked.told += (about,)
    launch, phase = tracked.launch, tracked.phase
    if isinstance(phase, Sending):
        placement = phase.spec.placement
    elif isinstance(phase, Starting):
        placement = phase.placement
    notice = Notice(
        launch.launch_id,
        launch.key,
        "container waits",
        text,
        unlaunched=unlaunched,
        about=about,
        placement=placement,
    )
    return [Emit(notice)]
