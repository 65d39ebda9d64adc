"""
Requests for a container: sent, answered, refused, interrupted, held back.

May import the other decisions of ``core``, but not ``table``. Every handler takes the launch, its phase, the
event, ``now`` and the rules, and returns what has to be done.
"""

from __future__ import annotations

from msgspec.structs import replace

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.containers import claim
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import (
    Barred,
    Doubted,
    Effect,
    Enqueue,
    Interrupted,
    LookInstead,
    Refused,
    Replied,
    Requested,
    Unblocked,
    Unrenderable,
)
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import AirflowState
from ecs_async_executor.core.notices import request_waits
from ecs_async_executor.core.phases import (
    UNLAUNCHED,
    Checking,
    Doubt,
    InDoubt,
    Patience,
    Released,
    SearchPlace,
    Sending,
    Tracked,
    Unlaunched,
    Waiting,
    Why,
)
from ecs_async_executor.core.policy import Rules, Verdict, delay, verdict
from ecs_async_executor.core.settling import end, enter, fail, look_instead

# --- before the request leaves --------------------------------------------------------------------------------


def request(tracked: Tracked, phase: Unlaunched, event: Requested, now: float, _: Rules) -> list[Effect]:
    """Record that a request leaves."""
    doubt = phase.doubt if isinstance(phase, InDoubt) else None
    if doubt is None or not doubt.ours:  # else it is the same request again
        tracked.choice, tracked.instead = event.spec.choice, event.instead
    return enter(tracked, Sending(event.spec, doubt, phase.patience), now)


def cannot_render(tracked: Tracked, _: Waiting, event: Unrenderable, __: float, ___: Rules) -> list[Effect]:
    """Fail a launch whose workload makes no request."""
    return fail(tracked, event.reason, Ending.REFUSED)


def cannot_render_in_doubt(tracked: Tracked, _: InDoubt, __: Unrenderable, now: float, ___: Rules) -> list[Effect]:
    """Search: an earlier request may have been carried out."""
    return look_instead(tracked, now)


def look(tracked: Tracked, _: InDoubt, __: LookInstead, now: float, ___: Rules) -> list[Effect]:
    """Search instead of sending again."""
    return look_instead(tracked, now)


def doubt_waiting(tracked: Tracked, phase: Waiting, _: Doubted, now: float, __: Rules) -> list[Effect]:
    """Search, but not before the launch might have been sent: what holds it back is not over."""
    return look_instead(tracked, now, not_before=max(now, phase.not_before))


def doubt_in_doubt(tracked: Tracked, phase: InDoubt, _: Doubted, now: float, __: Rules) -> list[Effect]:
    """Search for what another scheduler may have sent; a request of ours is sent again anyway, if not before."""
    if not phase.doubt.ours:
        return look_instead(tracked, now, not_before=max(now, phase.not_before))
    # The other scheduler's number may be another one: its container would not answer under ours.
    return look_instead(tracked, now, onward=phase) if tracked.used else []


def unblock(tracked: Tracked, phase: Unlaunched, _: Unblocked, now: float, __: Rules) -> list[Effect]:
    """Launch at once what was only held back for its predecessor."""
    ours = isinstance(phase, InDoubt) and phase.doubt.ours
    if ours or phase.not_before <= now or phase.patience.errors:
        return []
    tracked.phase = replace(phase, not_before=now)
    return [Enqueue()]


# --- at a closed gate -----------------------------------------------------------------------------------------


def is_news_at_gate(tracked: Tracked, event: Barred, now: float, rules: Rules) -> bool:
    """Return whether a closed gate can change anything about a launch: a probe was refused, or time is up."""
    phase = tracked.phase
    if not isinstance(phase, UNLAUNCHED):
        return False
    grace = phase.patience.barred if event.kind is Kind.REFUSED else phase.patience.short
    if grace.last_at is None or grace.last_at < max(event.refused_at, event.since):
        return True
    return isinstance(phase, InDoubt) and is_too_old(phase.doubt, now, rules)


def bar(tracked: Tracked, phase: Unlaunched, event: Barred, now: float, rules: Rules) -> list[Effect]:
    """Count the time at a closed gate, say why once, and give up when it has been too long."""
    notices = request_waits(tracked, rules.service, event.kind, event.reason, event.placement)
    if event.elsewhere:
        tracked.phase = replace(phase, patience=_heard_at_closed_gate(phase.patience, event))
        return notices
    patience = _at_closed_gate(phase.patience, event, max(event.since, tracked.since))
    tracked.phase = phase = replace(phase, patience=patience)
    if isinstance(phase, InDoubt):
        if is_too_old(phase.doubt, now, rules):
            return [*notices, *look_instead(tracked, now)]  # launches before it may be so for hours
        if phase.doubt.ours:
            return notices  # it may run: only the age of its request ends the wait
    refused = event.kind is Kind.REFUSED
    limit = rules.permanent_error_grace if refused else rules.capacity_timeout
    waited = (patience.barred if refused else patience.short).counted
    if limit is None or waited < limit:
        return notices
    if isinstance(phase, InDoubt):
        return [*notices, *look_instead(tracked, now)]  # the scheduler before us may have launched it
    what = "refused" if refused else "had no capacity for"
    why = f"{rules.service} {what} the container for {waited:.0f} s: {event.reason}"
    return [*notices, *fail(tracked, why, Ending.REFUSED if refused else Ending.CAPACITY)]


def _at_closed_gate(patience: Patience, event: Barred, begun: float) -> Patience:
    """
    Count what the answers to a closed gate's probes add to the wait of one launch.

    :param begun: since when it waits and the gate is closed
    """
    if event.kind is Kind.REFUSED:
        barred = patience.barred
        if barred.last_at is None or barred.last_at < begun:
            barred = Grace(0.0, begun)  # the gate was open in between, or closed for another reason
        return replace(patience, barred=barred.answered(event.refused_at, event.pause))
    # Occasional capacity goes to other launches: the wait is counted per launch, not per gate.
    short = patience.short
    begun = begun if short.last_at is None else max(begun, short.last_at)
    return replace(patience, short=Grace(short.counted, begun).answered(event.refused_at, event.pause))


def _heard_at_closed_gate(patience: Patience, event: Barred) -> Patience:
    """Take note of the answers to a closed gate's probes, and count no time: there is room elsewhere."""
    heard_at = max(event.refused_at, event.since)
    if event.kind is Kind.REFUSED:
        return replace(patience, barred=Grace(0.0, heard_at))
    return replace(patience, short=Grace(patience.short.counted, heard_at))


def is_too_old(doubt: Doubt, now: float, rules: Rules) -> bool:
    """
    Return whether the client token may be too old to send again.

    For an adopted launch, the scheduler before us may have sent it at any time up to the adoption.
    """
    return now - doubt.since >= rules.resend_window


# --- its answer -----------------------------------------------------------------------------------------------


def replied(tracked: Tracked, phase: Sending, event: Replied, now: float, _: Rules) -> list[Effect]:
    """Take the container that the request has started, or that the client token had already."""
    if event.observation.handle.id in tracked.past:
        return _next_number(tracked, phase, now)
    return claim(tracked, event.observation.handle, now, inherited=_inherited(phase.doubt), sent=phase)


def refused(tracked: Tracked, phase: Sending, event: Refused, now: float, rules: Rules) -> list[Effect]:
    """Decide what a request without a container means."""
    error, doubt = event.error, phase.doubt
    notices: list[Effect] = []
    if error.kind in (Kind.CAPACITY, Kind.REFUSED) and not event.elsewhere:
        notices = request_waits(tracked, rules.service, error.kind, str(error))
    elif event.unanswered:
        notices = request_waits(tracked, rules.service, Kind.AMBIGUOUS, str(error))
    if isinstance(tracked.demand, Released):
        return [*notices, *end(tracked)]  # the adopter's, whatever there is
    maybe_sent = doubt is not None and doubt.ours
    decision = verdict(
        error.kind, maybe_sent=maybe_sent, claimable=bool(error.resource_ids), token_used=error.token_used
    )
    tracked.phase = phase = replace(phase, patience=_tried(phase.patience, event))
    if decision is Verdict.CLAIM:
        return [*notices, *_claim_named(tracked, phase, event, now)]
    if decision is Verdict.SEARCH:
        tracked.used += 1
        return [*notices, *look_instead(tracked, now, onward=_without_ours(phase, now))]
    if decision is Verdict.FAIL and not maybe_sent:
        if _inherited(doubt):
            return [*notices, *look_instead(tracked, now, place=SearchPlace.of(phase.spec))]
        why = f"{rules.service} refused to run the container: {error}"
        return [*notices, *fail(tracked, why, Ending.REFUSED)]
    if decision is Verdict.RESEND or maybe_sent:
        again_at = now + delay(error.kind, phase.patience.errors, event.jitter)
        return [*notices, *_unclear(tracked, phase, again_at, now, rules, final=decision is Verdict.FAIL)]
    return [*notices, *_definitely_not(tracked, phase, event, now, rules)]


def _tried(patience: Patience, event: Refused) -> Patience:
    held_back = event.error.kind in (Kind.CAPACITY, Kind.REFUSED)
    return replace(patience, errors=patience.errors + 1, probes=patience.probes + (event.probe and held_back))


def _claim_named(tracked: Tracked, phase: Sending, event: Refused, now: float) -> list[Effect]:
    """The client token has a container already."""
    container, doubt = event.error.resource_ids[0], phase.doubt
    if container in tracked.past:
        return _next_number(tracked, phase, now)
    if doubt is None or doubt.inherited:
        # By no request that this scheduler sent without an answer: it can be an earlier queueing's.
        adopted = AirflowState.QUEUED if _inherited(doubt) else None
        patience = replace(phase.patience, errors=0)
        return enter(tracked, Checking(container, Why.TOKEN, adopted, now, patience=patience), now)
    return claim(tracked, Handle(event.named_in or phase.spec.scope, container), now, sent=phase)


def _next_number(tracked: Tracked, phase: Sending, now: float) -> list[Effect]:
    """Go on from a client token that has made a container of this launch's which never started."""
    tracked.used += 1
    return enter(tracked, _without_ours(phase, now), now)


def _without_ours(phase: Sending, at: float) -> Unlaunched:
    """Return as what a launch goes on of which no request of ours is in doubt any more."""
    doubt = phase.doubt
    if doubt is None or not doubt.inherited:
        return Waiting(at, phase.patience)
    return InDoubt(at, Doubt(doubt.since, inherited=True), phase.patience)


def _unclear(
    tracked: Tracked, phase: Sending, again_at: float, now: float, rules: Rules, *, final: bool
) -> list[Effect]:
    """
    Send the same request again, or search where that cannot help.

    :param final: the service will never take the request
    """
    doubt = phase.doubt
    since = doubt.since if doubt is not None and doubt.ours else now
    doubt = Doubt(since, phase.spec, inherited=_inherited(doubt))
    effects = enter(tracked, InDoubt(again_at, doubt, phase.patience), now)
    hopeless = final or is_too_old(doubt, now, rules) or not rules.repeatable
    return look_instead(tracked, now) if hopeless and isinstance(tracked.phase, InDoubt) else effects


def _definitely_not(tracked: Tracked, phase: Sending, event: Refused, now: float, rules: Rules) -> list[Effect]:
    """
    Wait for another try. The next request may carry a fresh JWT.

    It has another number if the service may remember this answer under the client token.
    """
    error, patience, doubt = event.error, phase.patience, phase.doubt
    tracked.used += error.token_used
    if error.kind is Kind.REFUSED:
        patience = replace(patience, refused=patience.refused.answered(now, event.pause))
        waited = patience.refused.counted
        # Others of its placement may pass, so that the gate does not stay closed for that long.
        if waited >= rules.permanent_error_grace and doubt is None:
            why = f"{rules.service} refused the container for {waited:.0f} s: {error}"
            return fail(tracked, why, Ending.REFUSED)
    else:
        patience = replace(patience, refused=NOT_YET)
        waited = 0.0
    not_before = now + delay(error.kind, patience.errors, event.jitter)
    if doubt is None:
        return enter(tracked, Waiting(not_before, patience), now)
    effects = enter(tracked, InDoubt(not_before, doubt, patience), now)
    if waited >= rules.permanent_error_grace and isinstance(tracked.phase, InDoubt):
        return look_instead(tracked, now)  # the scheduler before us may have launched it
    return effects


def interrupt(tracked: Tracked, phase: Sending, _: Interrupted, now: float, rules: Rules) -> list[Effect]:
    """Send again what was in flight when the loop thread died: its answer is lost."""
    return _unclear(tracked, phase, now, now, rules, final=False)


def _inherited(doubt: Doubt | None) -> bool:
    return doubt is not None and doubt.inherited
