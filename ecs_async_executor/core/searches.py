"""
Which container is a launch's, where no request can tell: one that Airflow names, or one that carries the mark.

May import the other decisions of ``core``, but not ``table``.
"""

from __future__ import annotations

from msgspec.structs import replace

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.containers import claim, observed
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.events import (
    Checked,
    Effect,
    Found,
    Observed,
    Search,
    SearchRefused,
    SendStop,
)
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.matching import (
    RUNS,
    continued_mark,
    is_of_this_queueing,
    may_have_a_successor,
)
from ecs_async_executor.core.messages import AirflowState, Unfollowed
from ecs_async_executor.core.phases import (
    LOCATED,
    Checking,
    InDoubt,
    Revoked,
    Searching,
    Tracked,
    Unlocated,
    Waiting,
    Why,
)
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.core.settling import end, enter, fail


def checked(tracked: Tracked, phase: Checking, event: Checked, now: float, rules: Rules) -> list[Effect]:
    """Decide by its description whether a container is the launch's."""
    observation = event.observation
    unknown = observation.seen is Seen.MISSING
    missing = phase.missing.answered(now, rules.search_interval + event.took) if unknown else NOT_YET
    if unknown and missing.counted < rules.missing_grace:
        return _again(tracked, replace(phase, missing=missing, refused=NOT_YET), now, rules)
    if phase.why is Why.TOKEN:
        if unknown or is_of_this_queueing(tracked, phase, observation, rules):
            return _follow(tracked, phase, observation, NOT_YET, now, rules)
        # A scheduler that knew this identity was used up gave the launch another with the same mark: search for
        # it.
        tracked.used += 1
        return enter(tracked, Searching(None, phase.adopted, now, patience=phase.patience), now)
    mine = is_of_this_queueing(tracked, phase, observation, rules)
    if mine and not may_have_a_successor(tracked, phase, observation, rules):
        return _follow(tracked, phase, observation, missing, now, rules)
    if mine:
        # The scheduler that launched this one may have launched another after it, under the same mark.
        mark = continued_mark(tracked, observation)
        if mark is not None:
            tracked.launch = tracked.launch.evolve(started_by=mark)
            tracked.continued = True
    fallback = observation.handle if mine and unknown else None
    return enter(tracked, Searching(None, phase.adopted, now, fallback=fallback, patience=phase.patience), now)


def found(tracked: Tracked, phase: Searching, event: Found, now: float, rules: Rules) -> list[Effect]:
    """Follow the container that a search has found, or decide what its absence means."""
    observation = event.observation
    launchable = phase.onward is not None or is_launchable(phase, rules)
    # A launch with no listed container is made after a second search, but failed only after the grace.
    patience = _search_patience(tracked, phase, event, rules) if launchable else rules.missing_grace
    pause = rules.search_interval + event.took
    absent = phase.absent.answered(now, pause)
    unknown = observation is not None and observation.seen is Seen.MISSING
    missing = phase.missing.answered(now, pause) if unknown else NOT_YET
    phase = replace(phase, absent=absent, missing=missing, refused=NOT_YET)
    if unknown and missing.counted < rules.missing_grace:
        return _again(tracked, phase, now, rules)  # a new one is not known at first either
    mine = observation is not None and is_of_this_queueing(tracked, phase, observation, rules)
    if observation is not None and mine:
        doubtful = may_have_a_successor(tracked, phase, observation, rules)
        if not doubtful or absent.counted >= patience:
            return _follow(tracked, phase, observation, missing, now, rules)
    if absent.counted < patience:
        return _again(tracked, phase, now, rules)
    if phase.fallback is not None:
        return _follow(tracked, phase, Observation(phase.fallback, Seen.MISSING), absent, now, rules)
    return _absent(tracked, phase, launchable=launchable, now=now, rules=rules)


def _absent(tracked: Tracked, phase: Searching, *, launchable: bool, now: float, rules: Rules) -> list[Effect]:
    if goes_on := _onward(tracked, phase, now):
        return goes_on
    if not tracked.wanted:
        return end(tracked)
    if launchable:
        return enter(tracked, Waiting(now, phase.patience), now)  # from here on it is this scheduler's alone
    if phase.adopted is None or phase.sent:
        return fail(
            tracked,
            f"It is unknown whether {rules.service} started the container: no request to run it got a definite "
            "answer, and no container was found",
            Ending.LOST,
        )
    was = phase.adopted.value
    why = f"{rules.service} has no container of this task, which was {was} when its scheduler died"
    return fail(tracked, why, Ending.LOST)


def _onward(tracked: Tracked, phase: Searching, now: float) -> list[Effect]:
    """Leave a search that has found nothing, if its answer is not the last one; else return nothing."""
    onward = phase.onward
    if onward is None or not (tracked.wanted or (isinstance(onward, InDoubt) and onward.doubt.ours)):
        return []
    return enter(tracked, replace(onward, not_before=max(now, onward.not_before), patience=phase.patience), now)


def is_launchable(phase: Searching, rules: Rules) -> bool:
    """
    Return whether a launch without a container is to be made.

    Where a request can be repeated it was, for as long as that is safe: a launch that comes here after that has no
    answer to hope for. Where it cannot be, only the search tells whether it may be made once more.
    """
    return phase.adopted not in RUNS and (not phase.sent or not rules.repeatable)


def _search_patience(tracked: Tracked, phase: Searching, event: Found, rules: Rules) -> float:
    """
    Return for how many seconds a search has to find nothing before a launch is made.

    A listing lags. Where the client token is the one that was sent, if any was, the request tells what it missed;
    but a client token holds at one place, and the launch could have been sent to any of several.
    """
    asks = rules.repeatable and tracked.launch.tokened and not phase.sent and event.places == 1
    return rules.search_interval if asks else rules.absent_grace


def _follow(
    tracked: Tracked, phase: Unlocated, observation: Observation, missing: Grace, now: float, rules: Rules
) -> list[Effect]:
    effects = claim(
        tracked,
        observation.handle,
        now,
        inherited=phase.adopted is AirflowState.QUEUED,
        runs=phase.adopted in RUNS,
        missing=missing,
    )
    located = tracked.phase
    if not isinstance(located, LOCATED):
        return effects
    return [*effects, *observed(tracked, located, Observed(observation), now, rules)]


def _again(tracked: Tracked, phase: Unlocated, now: float, rules: Rules) -> list[Effect]:
    tracked.phase = replace(phase, not_before=now + rules.search_interval)
    return [Search()]


def search_refused(
    tracked: Tracked, phase: Unlocated, event: SearchRefused, now: float, rules: Rules
) -> list[Effect]:
    """Ask again until the refusal has lasted for too long."""
    refused = phase.refused.answered(now, rules.search_interval + event.took)
    waited = refused.counted
    phase = replace(phase, refused=refused)
    runs = phase.adopted in RUNS and tracked.wanted
    grace = rules.permanent_error_grace
    if runs and event.place_unknown:
        grace = max(grace, rules.lost_container_grace)
    if waited < grace:
        return _again(tracked, phase, now, rules)
    if isinstance(phase, Searching) and not event.place_unknown and (goes_on := _onward(tracked, phase, now)):
        return goes_on  # somebody may not permit listing: the request tells as much
    if not tracked.wanted:
        demand, named = tracked.demand, event.named
        if named is None or not isinstance(demand, Revoked):
            return end(tracked)
        return end(tracked, stop=SendStop(named, demand.reason))
    what = "nothing said where to look" if event.place_unknown else f"{rules.service} refused to say so"
    why = f"It is unknown whether there is a container: {what} for {waited:.0f} s: {event.reason}"
    if not runs:
        return fail(tracked, why, Ending.LOST)
    # Airflow hears from a running one by itself, and fails it if it does not.
    if event.place_unknown:
        # User code of this process rarely mends itself, and the search would go on for ever.
        launch = tracked.launch
        return end(tracked, Unfollowed(launch.launch_id, launch.key, why))
    return _again(tracked, phase, now, rules)
