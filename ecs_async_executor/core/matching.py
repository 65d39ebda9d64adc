"""
Whose container is it? Every rule that tells a launch's own container from others with the same mark.

May import ``backend``, ``identity``, ``messages``, ``phases`` and ``policy``. A mark that is a launch's alone
settles it. Where the launches of a workload share one (the provider's executor, a deferral that kept the
identity), ages do: a container that is older than the queueing is an earlier queueing's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.identity import is_uuid
from ecs_async_executor.core.messages import AirflowState
from ecs_async_executor.core.phases import Checking, InDoubt, Searching, Tracked, Unlocated, Waiting
from ecs_async_executor.core.policy import Rules

RUNS = (AirflowState.RUNNING, AirflowState.RESTARTING)
"""States in which Airflow says that a container has run: it is never launched again."""


def is_older(tracked: Tracked, phase: Unlocated, observation: Observation, rules: Rules) -> bool:
    """Return whether a container is older than the queueing, as far as its age says anything."""
    if isinstance(phase, Searching) and phase.place is not None and phase.place.own:
        return False  # nothing of another queueing is found by that mark
    created_at = observation.created_at
    return created_at is not None and created_at < tracked.launch.queued_at - rules.created_margin


def is_of_an_earlier_queueing(tracked: Tracked, phase: Unlocated, observation: Observation, rules: Rules) -> bool:
    """Return whether a container is too old to be a launch's; what Airflow says runs is its own at any age."""
    return phase.adopted not in RUNS and is_older(tracked, phase, observation, rules)


def is_of_this_queueing(tracked: Tracked, phase: Unlocated, observation: Observation, rules: Rules) -> bool:
    """Return whether a container can be this launch's; one that the service does not know, if it must exist."""
    if observation.seen is Seen.MISSING:
        return phase.adopted in RUNS or (phase.adopted is None and isinstance(phase, Searching) and phase.sent)
    return not is_of_an_earlier_queueing(tracked, phase, observation, rules)


def may_have_a_successor(tracked: Tracked, phase: Unlocated, observation: Observation, rules: Rules) -> bool:
    """
    Return whether another container can be the one that matters: this one never started, or is an earlier one.

    The report that told Airflow of the later one died with its scheduler. A container that lives is taken as it
    is, as long as nothing else is known. One that the service does not know can be of any age.
    """
    named = isinstance(phase, Checking)
    if observation.seen is Seen.MISSING:
        return named
    if never_started(observation):
        return True
    lives = observation.seen is not Seen.STOPPED and observation.exit_code is None
    return is_older(tracked, phase, observation, rules) and (named or not lives)


def is_surely_of(tracked: Tracked, phase: Unlocated, observation: Observation, rules: Rules) -> bool:
    """Return whether a container is the launch's whatever else there is: nothing more has to be found out."""
    return (
        observation.seen is not Seen.MISSING
        and is_of_this_queueing(tracked, phase, observation, rules)
        and not may_have_a_successor(tracked, phase, observation, rules)
    )


def never_started(observation: Observation) -> bool:
    """Return whether a container has stopped before user code could run in it."""
    return observation.seen is Seen.STOPPED and not observation.started and observation.exit_code is None


def continued_mark(tracked: Tracked, observation: Observation) -> str | None:
    """
    Return the mark of an older container's launch if it was an identity that Airflow assigned.

    Airflow's own knowledge of that identity was overwritten with the container's identifier.
    """
    mark = observation.started_by
    if mark is None or mark == tracked.launch.started_by or not is_uuid(mark):
        return None
    return mark


def choose(tracked: Tracked, found: Sequence[Observation], rules: Rules) -> Observation | None:
    """
    Pick a launch's container among those with its mark: the best candidate, the newest on a tie, or None.

    One that is listed but not described (MISSING: not yet, or not at this moment) may be the one that does the
    work, unless another is known to have done it or to be at it.
    """
    phase = tracked.phase
    assert isinstance(phase, Searching)
    runs = phase.adopted in RUNS

    def weight(observation: Observation) -> tuple[int, float]:
        over = observation.seen is Seen.STOPPED or observation.exit_code is not None
        older = is_older(tracked, phase, observation, rules)
        if observation.seen is Seen.MISSING:
            weight = 1
        elif older and (over or not observation.started):
            weight = 0  # what Airflow says runs is not that one
        elif not over:
            weight = 3
        elif observation.started or observation.exit_code is not None or (observation.by_hand and not runs):
            weight = 2
        else:
            weight = 0
        return weight, observation.created_at or 0.0

    candidates = (o for o in found if not is_of_an_earlier_queueing(tracked, phase, o, rules))
    return max(candidates, key=weight, default=None)


def is_of_a_later_launch(
    tracked: Tracked, observation: Observation, later: Iterable[Tracked], rules: Rules
) -> bool:
    """
    Return whether a container that carries a launch's mark is that of a later launch of its key.

    A launch that Airflow no longer wants sends nothing from then on, and must not stop another's container.
    The container's age tells them apart, unless it was found by a mark that the launches of a workload do not
    share. One that is listed but not described has no age.

    :param later: the launches of the key that came after this one
    """
    if tracked.wanted:
        return False
    phase = tracked.phase
    at, margin = observation.created_at, rules.created_margin
    own = isinstance(phase, Searching) and phase.place is not None and phase.place.own
    return any(
        sibling.handle == observation.handle
        or observation.handle.id in sibling.past
        or (at is None and not own and not _has_sent_nothing(sibling))
        or (
            at is not None
            and at >= sibling.launch.queued_at + margin
            and not (own and sibling.launch.launch_id != tracked.launch.launch_id)
        )
        for sibling in later
    )


def _has_sent_nothing(sibling: Tracked) -> bool:
    phase = sibling.phase
    return isinstance(phase, Waiting) or (isinstance(phase, InDoubt) and not phase.doubt.ours)
