"""
Where demand and phase meet: the one place that decides what becomes of a launch that Airflow no longer wants.

May import ``endings``, ``events``, ``messages``, ``phases`` and ``policy``. Every change from one column of
the table to another goes through :func:`enter`, and every change of demand through :func:`settle`.

=============  =======  ======================  ==============  ===================  =================
demand         Waiting  InDoubt                 Sending         Checking, Searching  Starting, Running
=============  =======  ======================  ==============  ===================  =================
Wanted
Revoked        end      ours: send again, to    learn it first  learn it first       stop it
                        learn the container;
                        inherited: search
Superseded     end      end
Released       end      end                                     end                  end
=============  =======  ======================  ==============  ===================  =================

A released launch in Sending ends with its answer, whatever that is: what it has started is the adopter's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.events import Demanded, Effect, Emit, Enqueue, Forget, Poll, Search, SendStop
from ecs_async_executor.core.messages import AirflowState, Finished, Report
from ecs_async_executor.core.phases import (
    Checking,
    Ended,
    InDoubt,
    Phase,
    Released,
    Revoked,
    Running,
    Searching,
    SearchPlace,
    Sending,
    Starting,
    Superseded,
    Tracked,
    Unlaunched,
    Waiting,
    Wanted,
)
from ecs_async_executor.core.policy import Rules

Settle: TypeAlias = Callable[[Tracked, float], list[Effect]]


def end(tracked: Tracked, report: Report | None = None, stop: SendStop | None = None) -> list[Effect]:
    """
    End a launch; report the outcome only if Airflow waits for it.

    :param stop: for a container that may outlive the launch
    """
    if not tracked.wanted:
        report = None
    tracked.phase = Ended(report, None if stop is None else (stop.handle, stop.reason))
    effects: list[Effect] = [] if stop is None else [stop]
    return [*effects, Forget()] if report is None else [*effects, Emit(report), Forget()]


def fail(
    tracked: Tracked,
    reason: str,
    ending: Ending,
    *,
    handle_id: str | None = None,
    exit_code: int | None = None,
    stop_code: str | None = None,
    stop: SendStop | None = None,
) -> list[Effect]:
    """
    End a launch with a failure, in words for the person who looks at the task instance.

    :param stop: for a container that may outlive the launch
    """
    launch = tracked.launch
    return end(
        tracked,
        Finished(
            launch.launch_id,
            launch.key,
            success=False,
            reason=reason,
            handle_id=handle_id,
            exit_code=exit_code,
            stop_code=stop_code,
            ending=ending,
            choice=tracked.choice if handle_id is not None else None,
        ),
        stop,
    )


def enter(tracked: Tracked, phase: Phase, now: float) -> list[Effect]:
    """Change the phase; return what the new phase needs, and what the demand makes of it."""
    tracked.phase = phase
    settled = settle(tracked, now)
    return [*NEEDS[type(phase)], *settled] if tracked.phase is phase else settled


def settle(tracked: Tracked, now: float) -> list[Effect]:
    """Let the demand have its way in the present phase."""
    decide = SETTLED.get((type(tracked.demand), type(tracked.phase)))
    return [] if decide is None else decide(tracked, now)


def look_instead(
    tracked: Tracked,
    now: float,
    *,
    place: SearchPlace | None = None,
    not_before: float | None = None,
    onward: Unlaunched | None = None,
) -> list[Effect]:
    """
    Search for the container of a request that must not be sent again.

    :param place: where, if it is known; else where the request in doubt went to
    :param onward: see :class:`~ecs_async_executor.core.phases.Searching`
    """
    phase = tracked.phase
    assert isinstance(phase, Waiting | InDoubt | Sending)
    doubt = None if isinstance(phase, Waiting) else phase.doubt
    spec = doubt.spec if doubt is not None else None
    if place is None and spec is not None:
        place = SearchPlace.of(spec)
    adopted = AirflowState.QUEUED if doubt is not None and doubt.inherited else None
    at = now if not_before is None else not_before
    searching = Searching(place, adopted, at, sent=spec is not None, onward=onward, patience=phase.patience)
    return enter(tracked, searching, now)


def demand(tracked: Tracked, _: object, event: Demanded, now: float, __: Rules) -> list[Effect]:
    """Change what Airflow wants; the first revocation stays, and nothing but a revocation undoes a release."""
    present, new = tracked.demand, event.demand
    if (
        isinstance(present, Wanted)
        or (isinstance(new, Revoked) and not isinstance(present, Revoked))
        or (isinstance(present, Superseded) and isinstance(new, Released))
    ):
        tracked.demand = new
    elif type(present) is not type(new):
        return []
    return settle(tracked, now)


def _end(tracked: Tracked, _: float) -> list[Effect]:
    return end(tracked)


def _learn(tracked: Tracked, now: float) -> list[Effect]:
    """Send the request again, which answers with the container, or search where another scheduler sent it."""
    phase = tracked.phase
    assert isinstance(phase, InDoubt)
    return [] if phase.doubt.ours else look_instead(tracked, now)


def _stop(tracked: Tracked, _: float) -> list[Effect]:
    phase, demand = tracked.phase, tracked.demand
    assert isinstance(phase, Starting | Running)
    assert isinstance(demand, Revoked)
    return [SendStop(phase.handle, demand.reason)]


SETTLED: Mapping[tuple[type, type], Settle] = {
    (Revoked, Waiting): _end,
    (Revoked, InDoubt): _learn,
    (Revoked, Starting): _stop,
    (Revoked, Running): _stop,
    (Superseded, Waiting): _end,
    # Airflow queues a key again without revoking it only after its container ran: nothing is left to learn.
    (Superseded, InDoubt): _end,
    (Released, Waiting): _end,
    (Released, InDoubt): _end,
    (Released, Checking): _end,
    (Released, Searching): _end,
    (Released, Starting): _end,
    (Released, Running): _end,
}
"""The table above. What is not in it changes nothing."""

NEEDS: Mapping[type, tuple[Effect, ...]] = {
    Waiting: (Enqueue(),),
    InDoubt: (Enqueue(),),
    Sending: (),
    Checking: (Search(),),
    Searching: (Search(),),
    Starting: (Poll(),),
    Running: (Poll(),),
}
"""What each phase needs of the ledger."""
