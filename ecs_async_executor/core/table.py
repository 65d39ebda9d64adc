"""
The whole life of a launch on one screen: phase, event, and what handles it.

May import the other decisions of ``core``. Pure: no I/O, no clock, no log. What demand and phase make of each
other is a table of its own, in ``settling``; the picture of the phases is in ``phases``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from ecs_async_executor.core.attempts import (
    bar,
    cannot_render,
    cannot_render_in_doubt,
    doubt_in_doubt,
    doubt_waiting,
    interrupt,
    look,
    refused,
    replied,
    request,
    unblock,
)
from ecs_async_executor.core.containers import observed, stop_target_missing
from ecs_async_executor.core.events import (
    Barred,
    Checked,
    Demanded,
    Doubted,
    Effect,
    Event,
    Found,
    Interrupted,
    LookInstead,
    Observed,
    Refused,
    Replied,
    Requested,
    SearchRefused,
    StopTargetMissing,
    Unblocked,
    Unrenderable,
)
from ecs_async_executor.core.phases import (
    Checking,
    Ended,
    InDoubt,
    Phase,
    Running,
    Searching,
    Sending,
    Starting,
    Tracked,
    Waiting,
)
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.core.searches import checked, found, search_refused
from ecs_async_executor.core.settling import demand

P = TypeVar("P", bound=Phase)
E = TypeVar("E", bound=Event)
Handler: TypeAlias = Callable[[Tracked, Any, Any, float, Rules], list[Effect]]
Cell: TypeAlias = tuple[tuple[type, type], Handler]


def cell(phase: type[P], event: type[E], handle: Callable[[Tracked, P, E, float, Rules], list[Effect]]) -> Cell:
    """Make one cell; the types hold a handler to the phase and the event of its cell."""
    return (phase, event), handle


# fmt: off
CELLS: dict[tuple[type, type], Handler] = dict((
    # phase    event              handler                   leads to, if Airflow wants the launch
    cell(Waiting,   Requested,         request),                 # Sending
    cell(Waiting,   Unrenderable,      cannot_render),           # Ended: failed
    cell(Waiting,   Barred,            bar),                     # Waiting; Ended: failed, when it was too long
    cell(Waiting,   Doubted,           doubt_waiting),           # Searching
    cell(Waiting,   Unblocked,         unblock),                 # Waiting
    cell(Waiting,   Demanded,          demand),
    cell(InDoubt,   Requested,         request),                 # Sending
    cell(InDoubt,   Unrenderable,      cannot_render_in_doubt),  # Searching
    cell(InDoubt,   Barred,            bar),                     # InDoubt; Searching, when it was too long
    cell(InDoubt,   LookInstead,       look),                    # Searching
    cell(InDoubt,   Doubted,           doubt_in_doubt),          # Searching; InDoubt, if the request is ours
    cell(InDoubt,   Unblocked,         unblock),                 # InDoubt
    cell(InDoubt,   Demanded,          demand),
    cell(Sending,   Replied,           replied),                 # Starting
    cell(Sending,   Refused,           refused),                 # any: see Verdict
    cell(Sending,   Interrupted,       interrupt),               # InDoubt; Searching, if it cannot be sent again
    cell(Sending,   Demanded,          demand),
    cell(Checking,  Checked,           checked),                 # Starting, Running; Searching, if not its own
    cell(Checking,  SearchRefused,     search_refused),          # Checking; Ended, when it was too long
    cell(Checking,  Demanded,          demand),
    cell(Searching, Found,             found),                   # Starting, Running; Waiting or InDoubt, if none
    cell(Searching, SearchRefused,     search_refused),          # Searching; Ended, when it was too long
    cell(Searching, Demanded,          demand),
    cell(Starting,  Observed,          observed),                # Running; Ended; Waiting, if it never started
    cell(Starting,  StopTargetMissing, stop_target_missing),     # Starting
    cell(Starting,  Demanded,          demand),
    cell(Running,   Observed,          observed),                # Running; Ended
    cell(Running,   StopTargetMissing, stop_target_missing),     # Running
    cell(Running,   Demanded,          demand),
))
# fmt: on

LATE = (Checked, Doubted, Found, Interrupted, Observed, SearchRefused, StopTargetMissing, Unblocked)
"""Answers that can come after the launch has moved on: they change nothing. Any other event is a bug."""


class IllegalEvent(RuntimeError):
    """An event that cannot happen in this phase: a bug of the caller."""

    def __init__(self, tracked: Tracked, event: Event) -> None:
        phase = type(tracked.phase).__name__
        super().__init__(f"{type(event).__name__} while {phase} ({tracked})")


def step(tracked: Tracked, event: Event, now: float, rules: Rules) -> list[Effect]:
    """
    Let an event happen to a launch.

    :param now: seconds of the loop's clock
    :returns: what has to be done, in this order
    :raises IllegalEvent: if the event cannot happen in the present phase; nothing is changed then
    """
    phase = tracked.phase
    handle = CELLS.get((type(phase), type(event)))
    if handle is not None:
        return handle(tracked, phase, event, now, rules)
    if isinstance(phase, Ended) or isinstance(event, LATE):
        return []
    raise IllegalEvent(tracked, event)
