"""
The service's answers about a launch's container: observed, missing, waiting, no target for a stop.

May import the other decisions of ``core``, but not ``table``.
"""

from __future__ import annotations

from msgspec.structs import replace

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Effect, Emit, Observed, SendStop, StopTargetMissing
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import Finished, HeldUp, Launched
from ecs_async_executor.core.notices import container_waits, placed_elsewhere, request_waits
from ecs_async_executor.core.phases import (
    LOCATED,
    Doubt,
    InDoubt,
    Located,
    Patience,
    Phase,
    Revoked,
    Running,
    Sending,
    Starting,
    Tracked,
    Waiting,
)
from ecs_async_executor.core.policy import Rules, relaunch_delay
from ecs_async_executor.core.settling import end, enter, fail

UNPLACED_SECONDS = 30.0
"""Every container waits a moment for its place; only after so long a person should read of it."""


def claim(
    tracked: Tracked,
    handle: Handle,
    now: float,
    *,
    inherited: bool = False,
    runs: bool = False,
    missing: Grace = NOT_YET,
    sent: Sending | None = None,
) -> list[Effect]:
    """
    Give the launch its container.

    :param inherited: the scheduler before us may have launched it
    :param runs: Airflow says that user code runs in it
    :param missing: how long the service has not known it
    :param sent: the request that was answered, if it was one
    """
    placement = None if sent is None else sent.spec.placement
    held = NOT_YET if sent is None else Grace(sent.patience.short.counted)
    phase: Located = (
        Running(handle, now, confirmed=False, missing=missing)
        if runs
        else Starting(handle, now, placement=placement, inherited=inherited, missing=missing, held=held)
    )
    effects = enter(tracked, phase, now)
    if tracked.wanted:
        launch = tracked.launch
        effects.append(Emit(Launched(launch.launch_id, launch.key, handle.id)))
        effects += placed_elsewhere(tracked)
    return effects


def is_news(phase: Located, observation: Observation) -> bool:
    """Return whether an observation can change anything; that of a container that simply runs on cannot."""
    seen = observation.seen
    if isinstance(phase, Running):
        unseen, started = not phase.confirmed, False
    else:
        unseen, started = not phase.seen, observation.started
    return (
        unseen
        or started
        or phase.missing.last_at is not None
        or observation.exit_code is not None
        or not (seen is Seen.RUNNING or seen is Seen.PENDING)
        or (seen is Seen.PENDING and (bool(observation.reason) or phase.held.last_at is not None))
    )


def observed(tracked: Tracked, phase: Located, event: Observed, now: float, rules: Rules) -> list[Effect]:
    """Let a description change a launch that has its container."""
    observation = event.observation
    if observation.seen is Seen.MISSING:
        return _missing(tracked, phase, event.pause, now, rules)
    news = _place(tracked, phase, observation)
    phase = tracked.phase = _known(tracked, phase, observation)
    if observation.exit_code == 0:
        return _succeeded(tracked, observation)
    if observation.exit_code is not None:
        return _failed(tracked, observation)
    if observation.seen is Seen.PENDING:
        return [*news, *_waits(tracked, phase, event, now, rules)]
    if observation.seen is not Seen.STOPPED:
        return news
    if isinstance(phase, Running):
        return _failed(tracked, observation)
    return _never_started(tracked, phase, event, now, rules)


def _known(tracked: Tracked, phase: Located, observation: Observation) -> Located:
    """Return the phase now that the service has told of the container."""
    if isinstance(phase, Running):
        if not phase.confirmed:
            _slim(tracked)
        return replace(phase, confirmed=True, missing=NOT_YET)
    if not observation.started:
        return replace(phase, seen=True, missing=NOT_YET, unplaced=observation.unplaced)
    _slim(tracked)
    return Running(phase.handle, phase.since, held=phase.held)


def _slim(tracked: Tracked) -> None:
    """Drop what only a launch or a search needs: neither comes again, and there can be 100,000 of these."""
    launch = tracked.launch
    tracked.launch = launch.evolve(workload=None, route=None, started_by=launch.launch_id)


def _place(tracked: Tracked, phase: Located, observation: Observation) -> list[Effect]:
    """Tell when a container begins to wait for room, and when it has got its place."""
    if not isinstance(phase, Starting) or phase.unplaced == observation.unplaced or not tracked.wanted:
        return []
    launch = tracked.launch
    return [Emit(HeldUp(launch.launch_id, launch.key, over=not observation.unplaced))]


def _succeeded(tracked: Tracked, observation: Observation) -> list[Effect]:
    launch = tracked.launch
    report = Finished(
        launch.launch_id,
        launch.key,
        success=True,
        handle_id=observation.handle.id,
        exit_code=0,
        stop_code=observation.stop_code,
        reason=observation.reason if observation.ending is not None else None,
        ending=observation.ending,
        size=observation.size,
        choice=tracked.choice,
    )
    return end(tracked, report)


def _failed(tracked: Tracked, observation: Observation, note: str = "") -> list[Effect]:
    status = f"The container stopped without an exit code (status {observation.status})"
    unsaid = Ending.LOST if observation.exit_code is None else Ending.EXIT
    return fail(
        tracked,
        (observation.reason or status) + note,
        observation.ending or unsaid,
        handle_id=_handle_id(tracked),
        exit_code=observation.exit_code,
        stop_code=observation.stop_code,
        size=observation.size,
    )


def _handle_id(tracked: Tracked) -> str:
    assert isinstance(tracked.phase, LOCATED)
    return tracked.phase.handle.id


def _never_started(tracked: Tracked, phase: Starting, event: Observed, now: float, rules: Rules) -> list[Effect]:
    """Launch again: user code did not run, so that nothing runs twice."""
    observation, attempt = event.observation, tracked.attempt
    if not tracked.wanted:
        return end(tracked)
    if observation.by_hand:
        return _failed(tracked, observation)  # a person who stops this container does not want the next one
    if observation.unplaced:
        return _had_no_place(tracked, phase, event, now, rules)
    if attempt >= rules.max_attempts:
        return _failed(
            tracked, observation, f" (container {attempt} of {rules.max_attempts}, none of them started)"
        )
    tracked.attempt += 1
    tracked.past += (observation.handle.id,)
    tracked.told = ()  # what the next one waits for is news
    not_before = now + relaunch_delay(attempt, event.jitter)
    if phase.inherited:
        # The scheduler before us may have gone on to this attempt, too.
        return enter(tracked, InDoubt(not_before, Doubt(tracked.since, inherited=True)), now)
    return enter(tracked, Waiting(not_before), now)


def _had_no_place(tracked: Tracked, phase: Starting, event: Observed, now: float, rules: Rules) -> list[Effect]:
    """Wait for capacity: the service has looked for room for a while and given up. That is no attempt."""
    observation, waited = event.observation, phase.held.counted
    notices = request_waits(tracked, rules.service, Kind.CAPACITY, observation.reason)
    limit = rules.capacity_timeout
    if limit is not None and waited >= limit:
        why = f"{rules.service} had no capacity for the container for {waited:.0f} s: {observation.reason}"
        handle_id = phase.handle.id
        ended = fail(tracked, why, Ending.CAPACITY, handle_id=handle_id, stop_code=observation.stop_code)
        return [*notices, *ended]
    tracked.past += (observation.handle.id,)
    tracked.used += 1  # the number of its client token; the attempt stays the same
    not_before, patience = now + relaunch_delay(1, event.jitter), Patience(short=Grace(waited))
    if phase.inherited:
        return [*notices, *enter(tracked, InDoubt(not_before, Doubt(now, inherited=True), patience), now)]
    return [*notices, *enter(tracked, Waiting(not_before, patience), now)]


def _waits(tracked: Tracked, phase: Located, event: Observed, now: float, rules: Rules) -> list[Effect]:
    """Tell the event log what a container waits for, and end the wait at the limit, if there is one."""
    reason = event.observation.reason
    if not reason or not tracked.wanted:
        tracked.phase = replace(phase, held=NOT_YET)
        return []
    unplaced = event.observation.unplaced
    held = phase.held.answered(now, event.pause)
    tracked.phase = phase = replace(phase, held=held)
    limit = rules.capacity_timeout
    if limit is not None and held.counted >= limit and isinstance(phase, Starting):
        why = f"{rules.service} let the container wait for {held.counted:.0f} s: {reason}"
        stop = SendStop(phase.handle, "It waited for too long")
        return fail(tracked, why, Ending.CAPACITY, handle_id=phase.handle.id, stop=stop)
    if unplaced and held.counted < UNPLACED_SECONDS:
        return []
    return container_waits(tracked, rules.service, reason)


def _missing(tracked: Tracked, phase: Located, pause: float, now: float, rules: Rules) -> list[Effect]:
    """Fail a launch whose container the service has not known for too long."""
    revoked, grace = isinstance(tracked.demand, Revoked), grace_for_missing(tracked, phase, rules)
    missing = phase.missing.answered(now, pause)
    tracked.phase = replace(phase, missing=missing)
    if missing.counted < grace:
        return []
    handle = phase.handle
    known = "no longer knows" if isinstance(phase, Running) or phase.seen else "does not know"
    # It cannot be proven that nothing runs: ask for it to be stopped before Airflow may start another.
    told = "Airflow was told that it failed" if tracked.wanted else "Airflow no longer waits for it"
    stop = None if revoked else SendStop(handle, f"Its state could not be found out. {told}")
    why = f"{rules.service} {known} the container {handle.id} (MISSING for {grace:.0f} s)"
    return fail(tracked, why, Ending.LOST, handle_id=handle.id, stop=stop)


def grace_for_missing(tracked: Tracked, phase: Located, rules: Rules) -> float:
    """Return the seconds for which the service may not know a container."""
    # That an adopted one runs is Airflow's word, until the service has told of it.
    ran = isinstance(phase, Running) and phase.confirmed
    return rules.lost_container_grace if ran and not isinstance(tracked.demand, Revoked) else rules.missing_grace


def stop_target_missing(
    tracked: Tracked, phase: Located, event: StopTargetMissing, now: float, rules: Rules
) -> list[Effect]:
    """
    The service knows no such container to stop: no longer, not yet, or not for a moment.

    It is the same bad answer as MISSING is to a sweep, so both count in one grace.
    """
    missing = phase.missing.answered(now, event.pause)
    tracked.phase = replace(phase, missing=missing)
    if not tracked.wanted and missing.counted >= grace_for_missing(tracked, phase, rules):
        return end(tracked)
    return []


def has_been_seen(phase: Phase) -> bool:
    """Return whether the service has told of the launch's container."""
    return phase.confirmed if isinstance(phase, Running) else isinstance(phase, Starting) and phase.seen
