"""
One launch's life: phases, the record, and the transition table. Pure: no I/O, no clock, no logging.

May import ``backend``, ``errors``, ``grace``, ``messages`` and ``policy``. :func:`step` changes a :class:`Record`
and *returns* what has to be done about it. The record is per launch, not per key: a key that is queued again gets
a new record, and the old one falls silent.

::

            ┌────────── definite refusal ─────────┐
            ▼                                     │
    ──▶ WAITING ──── Sending ───▶ SENDING ── no definite answer ──▶ AMBIGUOUS
            ▲                        │  ▲                              │  │
            │                        │  └────────── Sending ───────────┘  │ resend window over
            │                     Replied                                 ▼
            │                        ▼                                    │
            ├── never started ─── ACTIVE ◀──────── Resolved ─────── UNRESOLVED ◀── adopted
            │                        │                                 │
            └──────────────── proven absent (was queued) ──────────────┤
                                     ▼                                 ▼
                                   DONE (one outcome, or none if it was revoked or superseded)
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import msgspec

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import Finished, Launch, Launched, Notice, Report, Unfollowed, Was
from ecs_async_executor.core.policy import Rules, Verdict, delay, relaunch_delay, verdict

NOTICES_PER_CONTAINER = 8
"""A service that gives its reasons no code could word each of them differently."""

_END_OF_CODE = re.compile(r" - |: ")
_DIGITS = re.compile(r"\d+")
_IDENTITY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What marks of ours look like; one of the user's own can be on everything that they run."""


class Phase(enum.Enum):
    """Where a launch is."""

    WAITING = "waiting"
    """Wants a container; nothing of the current attempt was sent."""
    SENDING = "sending"
    """A request is in flight. Recorded before the call."""
    AMBIGUOUS = "ambiguous"
    """A request may have been carried out; the same one will be sent again."""
    UNRESOLVED = "unresolved"
    """Whether there is a container is being looked up; nothing may be sent."""
    ACTIVE = "active"
    """Has a container, which is polled."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Sought:
    """
    Where to look for what a request may have started.

    :param mark: what it carries; None if that is the user's own
    :param own: the mark is that of this launch alone
    """

    scope: str
    mark: str | None
    own: bool = False

    @classmethod
    def of(cls, spec: LaunchSpec) -> Sought:
        """Say it of a request that was sent."""
        if spec.own_mark is not None:
            return cls(spec.scope, spec.own_mark, own=True)
        return cls(spec.scope, spec.started_by)


@dataclass(slots=True, eq=False)
class Record:
    """
    What the engine knows of one launch. All times are of the loop's clock.

    :param attempt: which container this is for the launch, from 1; part of the token
    :param spent: tokens that turned out to be those of an earlier queueing; part of the token
    :param spec: the request, from its rendering until it has a definite answer
    :param retry_at: not before then
    :param errors: calls in a row that brought no container
    :param sent_at: when the current token was first sent; None if a definite answer came to all sends
    :param handle: the container
    :param past: identifiers of containers before it, which never started
    :param since: when the handle was learnt, or looking it up began
    :param seen_at: when the service told of the container; None if it never did
    :param seen_running: user code can have run
    :param missing: for how long the service has not known the container, or the one that looking it up names
    :param muted: reports nothing any more (revoked, superseded by a later launch of its key, adopted by another)
    :param released: adopted by another scheduler while its request was in flight
    :param stop_reason: the container has to be stopped, with these words
    :param was: how it was adopted; None if it was not, or is known not to have been launched before
    :param lookup: identifier of a container that may be this launch's
    :param by_token: ``lookup`` is what the present token made; only its age is in question
    :param sought: where a request of our own may have started the container that is looked for; None if it was
        another scheduler's. A request that is made anew need not be for the same place, nor have the same mark
    :param continued: the mark is the identity that the tokens are made of: Airflow's own knowledge of it was
        overwritten with the identifier of a container
    :param unfound: for how long the answers to looking it up have named no container
    :param lookup_refused: for how long looking it up has been refused
    :param place_unknown: it was logged that nothing says where its container would be
    :param outcome: the report that it ended with; kept until it is known to be told
    :param waiting_since: when it first wanted a container, for the age of the backlog
    :param told: what Airflow's event log has been told that this container waits for; see :func:`topic`
    :param held: for how long the service has said why its container has to wait
    :param ticket: number of its current place in a queue; older places are void
    :param arrival: number of its command
    :param placement: what it shares limits with, once that is known
    :param id: what the ledger knows it by: its ``launch_id``, until another launch comes under the same one
    :param unwanted_at: since when its container has to be stopped
    :param probed: how often it was what a closed gate was tried with, and refused
    :param refused: for how long each answer to its requests was a refusal that somebody may be mending
    :param barred: for how long its closed gate has been refusing in that way
    :param short: for how long in all its closed gates had no capacity
    :param unknown: the container that Airflow named and the service does not know, while another is looked for
    """

    launch: Launch
    phase: Phase
    waiting_since: float
    attempt: int = 1
    spent: int = 0
    spec: LaunchSpec | None = field(default=None, repr=False)
    retry_at: float = 0.0
    errors: int = 0
    sent_at: float | None = None
    handle: Handle | None = None
    past: tuple[str, ...] = ()
    since: float = 0.0
    seen_at: float | None = None
    seen_running: bool = False
    missing: Grace = NOT_YET
    muted: bool = False
    released: bool = False
    stop_reason: str | None = None
    was: Was | None = None
    lookup: str | None = None
    by_token: bool = False
    sought: Sought | None = None
    continued: bool = False
    unfound: Grace = NOT_YET
    lookup_refused: Grace = NOT_YET
    place_unknown: bool = False
    outcome: Report | None = None
    told: tuple[str, ...] = ()
    held: Grace = NOT_YET
    ticket: int = 0
    arrival: int = 0
    placement: str | None = None
    id: str = ""
    unwanted_at: float = 0.0
    unknown: Handle | None = None
    probed: int = 0
    refused: Grace = NOT_YET
    barred: Grace = NOT_YET
    short: Grace = NOT_YET

    def __post_init__(self) -> None:
        self.id = self.id or self.launch.launch_id

    @property
    def token(self) -> str:
        """The idempotency token of the current attempt."""
        launch, spec = self.launch, self.spec
        # A mark of the user's own is shared by others: it is nobody's identity.
        ours = self.continued and spec is not None and spec.started_by == launch.started_by
        return f"{launch.started_by if ours else launch.launch_id}-{self.attempt + self.spent}"


def is_window_over(record: Record, now: float, rules: Rules) -> bool:
    """Tell if the token is too old to be sent again, or, of who died, can be."""
    since = record.waiting_since if record.sent_at is None and record.was is Was.QUEUED else record.sent_at
    return since is not None and now - since >= rules.resend_window


# --- events -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sending:
    """The request is about to be sent."""

    spec: LaunchSpec


@dataclass(frozen=True, slots=True)
class Unrenderable:
    """The workload cannot be turned into a request."""

    reason: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The service named the container."""

    observation: Observation


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The request brought no container.

    :param pause: seconds for which requests like it were held back before it
    """

    error: BackendError
    jitter: float = 0.5
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class WindowOver:
    """The token is too old to be sent again."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The loop thread died; what was in flight has no answer any more."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Waiting any longer for capacity or for somebody to mend a refusal is pointless."""

    reason: str


class Observed(msgspec.Struct, frozen=True):
    """
    The service described the container.

    :param pause: seconds that the sweep meant to let pass since the one before
    """

    observation: Observation
    jitter: float = 0.5
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """The service was asked which container is this launch's. None: it knows none."""

    observation: Observation | None


@dataclass(frozen=True, slots=True)
class LookUpRefused:
    """
    It cannot be found out which container is this launch's, until somebody mends something.

    :param place_unknown: it is not the service that refuses: what says where the container would be fails, and
        where it would be by default there is none
    :param named: the container that Airflow named, if it was asked for
    """

    reason: str
    place_unknown: bool = False
    named: Handle | None = None


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Airflow no longer wants this launch."""

    reason: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """Airflow queued the key again: whatever this launch ran has ended as far as Airflow is concerned."""


@dataclass(frozen=True, slots=True)
class Released:
    """Another scheduler has adopted this launch, and whatever container it has."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """Another scheduler may have adopted this launch, and launched it, while this one was silent."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The service says that there is no such container to stop."""


Event: TypeAlias = (
    Sending
    | Unrenderable
    | Replied
    | Refused
    | Interrupted
    | WindowOver
    | GaveUp
    | Observed
    | Resolved
    | LookUpRefused
    | StopWanted
    | Superseded
    | Released
    | Doubted
    | Gone
)


# --- effects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Give it a place in the launch queue, from ``retry_at`` on."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Find out which container is its, from ``retry_at`` on."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Have its container described from now on."""


@dataclass(frozen=True, slots=True)
class SendStop:
    """Ask the service to stop its container."""

    reason: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell the executor."""

    report: Report


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the record."""


Effect: TypeAlias = Enqueue | LookUp | Poll | SendStop | Emit | Forget


class IllegalEvent(RuntimeError):
    """An event that cannot happen in this phase: a bug of the caller."""

    def __init__(self, record: Record, event: Event) -> None:
        super().__init__(f"{type(event).__name__} while {record.phase.value} ({record.launch})")


# --- records ------------------------------------------------------------------------------------------------


def new_record(launch: Launch, now: float) -> tuple[Record, list[Effect]]:
    """Begin a launch of this scheduler's own."""
    return Record(launch, Phase.WAITING, waiting_since=now, retry_at=now), [Enqueue()]


def adopted_record(
    launch: Launch, was: Was, handle_id: str | None, *, tokened: bool, now: float
) -> tuple[Record, list[Effect]]:
    """
    Begin to find out about a launch of another scheduler's.

    A queued workload whose ``launch_id`` was assigned by Airflow needs no looking up: its tokens are the ones
    that the other scheduler used, so that the launch request itself says whether there is a container, without
    the delay of a listing.

    :param tokened: the other scheduler launched it, if at all, under this ``launch_id``
    """
    if was is Was.QUEUED and tokened and handle_id is None:
        record, effects = new_record(launch, now)
        record.was = was
        return record, effects
    record = Record(
        launch, Phase.UNRESOLVED, waiting_since=now, retry_at=now, since=now, was=was, lookup=handle_id
    )
    record.seen_running = was is not Was.QUEUED
    return record, [LookUp()]


def topic(how: str, reason: str) -> str:
    """
    Say what a reason for waiting is about, without what differs each time that it is given.

    :param how: who keeps it waiting: the same code can be said of a request and of the container
    """
    return f"{how}: {_DIGITS.sub('', _END_OF_CODE.split(reason, maxsplit=1)[0])}"


def is_to_be_told(record: Record, about: str) -> bool:
    """
    Tell if Airflow's event log is to say what a launch waits for, and remember that it does.

    :param about: see :func:`topic`
    """
    if record.muted or about in record.told or len(record.told) >= NOTICES_PER_CONTAINER:
        return False
    record.told += (about,)
    return True


def is_news(record: Record, observation: Observation) -> bool:
    """Tell if an observation can change anything about a container; of one that simply runs on it cannot."""
    return (
        record.seen_at is None
        or record.missing.last_at is not None
        or observation.exit_code is not None
        or not (observation.seen is Seen.RUNNING or observation.seen is Seen.PENDING)
        or (observation.started and not record.seen_running)
        or (observation.seen is Seen.PENDING and (bool(observation.reason) or record.held.last_at is not None))
    )


# --- the table ----------------------------------------------------------------------------------------------


def step(record: Record, event: Event, now: float, rules: Rules) -> list[Effect]:
    """
    Let an event happen to a launch.

    :param now: seconds of the loop's clock
    :returns: what has to be done, in this order
    :raises IllegalEvent: if the event cannot happen in the record's phase; the record is unchanged then
    """
    phase = record.phase
    if phase is Phase.DONE:
        return []  # an answer that came too late changes nothing
    match event:
        case Sending(spec) if phase in (Phase.WAITING, Phase.AMBIGUOUS):
            record.phase = Phase.SENDING
            record.spec = spec
            return []
        case Unrenderable() | GaveUp() | WindowOver() if phase is Phase.WAITING and record.was is Was.QUEUED:
            return _look_up_instead(record, now)  # who died may have launched it
        case Unrenderable(reason) if phase is Phase.WAITING:
            return _fail(record, reason, notable=True)
        case Unrenderable() if phase is Phase.AMBIGUOUS:
            return _look_up_instead(record, now)  # an earlier request may have been carried out
        case Replied(observation) if phase is Phase.SENDING:
            return _replied(record, observation, now)
        case Refused() if phase is Phase.SENDING:
            return _refused(record, event, now, rules)
        case WindowOver() if phase is Phase.AMBIGUOUS:
            return _look_up_instead(record, now)
        case Interrupted():
            return _interrupted(record, now, rules)
        case GaveUp(reason) if phase is Phase.WAITING:
            return _fail(record, reason, notable=True)
        case GaveUp() if phase is Phase.AMBIGUOUS:
            return []  # it may run: only its own deadline ends it
        case Observed() if phase is Phase.ACTIVE:
            return _observed(record, event, now, rules)
        case Resolved(observation) if phase is Phase.UNRESOLVED:
            return _resolved(record, observation, now, rules)
        case LookUpRefused() if phase is Phase.UNRESOLVED:
            return _look_up_refused(record, event, now, rules)
        case StopWanted(reason):
            return _stop_wanted(record, reason, now)
        case Superseded():
            return _superseded(record)
        case Released():
            return _released(record)
        case Doubted() if phase is Phase.WAITING:
            return _doubted(record, now)
        case Gone() if phase is Phase.ACTIVE:
            return _gone(record, now, rules)
        case Observed() | Doubted() | Gone() | Resolved() | LookUpRefused():
            return []  # it moved on while the question was under way
    raise IllegalEvent(record, event)


def _finish(record: Record, report: Report | None) -> list[Effect]:
    if record.muted:
        report = None
    record.outcome = report
    record.phase = Phase.DONE
    record.spec = None
    return [Forget()] if report is None else [Emit(report), Forget()]


def _fail(record: Record, reason: str, *, notable: bool, observation: Observation | None = None) -> list[Effect]:
    launch = record.launch
    return _finish(
        record,
        Finished(
            launch.launch_id,
            launch.key,
            success=False,
            reason=reason,
            notable=notable,
            handle_id=record.handle.id if record.handle else None,
            exit_code=observation.exit_code if observation else None,
            stop_code=observation.stop_code if observation else None,
        ),
    )


def _claim(record: Record, observation: Observation, now: float) -> list[Effect]:
    """The launch has its container."""
    launch = record.launch
    record.phase = Phase.ACTIVE
    record.handle = observation.handle
    record.lookup = None
    record.spec = None
    record.sent_at = None
    record.errors = record.probed = 0
    record.refused = record.barred = record.short = NOT_YET
    record.since = now
    record.seen_at = None
    record.missing = NOT_YET
    effects: list[Effect] = [Poll()]
    if record.stop_reason is not None:
        effects.append(SendStop(record.stop_reason))
    if not record.muted:
        effects.append(Emit(Launched(launch.launch_id, launch.key, observation.handle.id)))
    return effects


def _replied(record: Record, observation: Observation, now: float) -> list[Effect]:
    effects = _claim(record, observation, now)
    if record.released and record.stop_reason is None:
        return _finish(record, None)  # the adopter's: not even a later stop of everything is to reach it
    return effects


def _refused(record: Record, event: Refused, now: float, rules: Rules) -> list[Effect]:
    error, jitter = event.error, event.jitter
    maybe_sent = record.sent_at is not None
    decision = verdict(error.kind, maybe_sent=maybe_sent, claimable=bool(error.resource_ids))
    record.errors += 1
    if record.released and record.stop_reason is None:
        return _finish(record, None)  # the adopter's, whatever there is
    if decision is Verdict.CLAIM:
        if record.was is Was.QUEUED or record.sent_at is None:
            return _ask_its_age(record, error.resource_ids[0], now)
        spec = record.spec
        assert spec is not None
        return _claim(record, Observation(Handle(spec.scope, error.resource_ids[0]), Seen.PENDING), now)
    if decision is Verdict.FAIL and not maybe_sent:
        if record.was is Was.QUEUED:
            return _look_up_instead(record, now)  # who died may have launched it
        return _fail(record, f"{rules.service} refused to run the container: {error}", notable=True)
    if decision is Verdict.RESEND or maybe_sent:
        if record.muted and record.stop_reason is None:
            return _finish(record, None)  # superseded: see _superseded
        if record.sent_at is None:
            record.sent_at = now
        record.phase = Phase.AMBIGUOUS
        window_over = now - record.sent_at >= rules.resend_window
        if decision is Verdict.FAIL or window_over or not rules.repeatable:
            return _look_up_instead(record, now)
        record.retry_at = now + delay(error.kind, record.errors, jitter)
        return [Enqueue()]
    record.phase = Phase.WAITING
    record.spec = None  # a definite refusal: the next request may carry a fresh token of Airflow's
    if record.stop_reason is not None and record.was is Was.QUEUED:
        return _look_up_instead(record, now)  # who died may have launched it
    if record.stop_reason is not None or record.muted:
        return _finish(record, None)
    record.refused = record.refused.answered(now, event.pause) if error.kind is Kind.REFUSED else NOT_YET
    if error.kind is Kind.REFUSED and (waited := record.refused.counted) >= rules.permanent_error_grace:
        # Others of its placement may pass, so that the gate does not stay closed for that long.
        if record.was is Was.QUEUED:
            return _look_up_instead(record, now)
        return _fail(record, f"{rules.service} refused the container for {waited:.0f} s: {error}", notable=True)
    record.retry_at = now + delay(error.kind, record.errors, jitter)
    return [Enqueue()]


def _look_up_instead(record: Record, now: float) -> list[Effect]:
    """Its token must not be sent any more; only a listing can tell what became of it."""
    spec = record.spec
    record.phase = Phase.UNRESOLVED
    record.sought = None if spec is None else Sought.of(spec)
    record.spec = None
    record.since = record.retry_at = now
    record.lookup = None
    record.unfound = record.missing = NOT_YET
    return [LookUp()]


def _doubted(record: Record, now: float) -> list[Effect]:
    at = record.retry_at  # what it waits for, a container before it perhaps, is not over because it is in doubt
    effects = _look_up_instead(record, now)
    record.retry_at = max(now, at)
    return effects


def _ask_its_age(record: Record, handle_id: str, now: float) -> list[Effect]:
    """
    The token made a container, but not by a request that this scheduler sent and got no answer to.

    Airflow does not assign an identity anew with every queueing: it can be an earlier one's.
    """
    effects = _look_up_instead(record, now)
    record.sent_at = None
    record.errors = 0
    record.lookup = handle_id
    record.by_token = True
    return effects


def _interrupted(record: Record, now: float, rules: Rules) -> list[Effect]:
    if record.phase is not Phase.SENDING:
        return []
    if record.muted and record.stop_reason is None:
        return _finish(record, None)  # superseded, or adopted by another: see _superseded
    if record.sent_at is None:
        record.sent_at = now
    if not rules.repeatable:
        return _look_up_instead(record, now)
    record.phase = Phase.AMBIGUOUS
    record.retry_at = now
    return [Enqueue()]


def _observed(record: Record, event: Observed, now: float, rules: Rules) -> list[Effect]:
    launch, observation, jitter = record.launch, event.observation, event.jitter
    if observation.seen is Seen.MISSING:
        return _missing(record, event.pause, now, rules)
    record.seen_at = now
    record.missing = NOT_YET
    if observation.started and not record.seen_running:
        record.seen_running = True
        # It is never launched again, and there can be tens of thousands of these.
        record.launch = replace(launch, workload=None)
    if observation.exit_code is not None:
        if observation.exit_code == 0:
            return _finish(
                record,
                Finished(
                    launch.launch_id,
                    launch.key,
                    success=True,
                    handle_id=observation.handle.id,
                    exit_code=0,
                    stop_code=observation.stop_code,
                ),
            )
        return _fail(record, _reason(observation), notable=True, observation=observation)
    if observation.seen is not Seen.STOPPED:
        return _waits(record, event, now, rules) if observation.seen is Seen.PENDING else []
    if record.seen_running or observation.started:
        return _fail(record, _reason(observation), notable=True, observation=observation)
    if record.muted or record.stop_reason is not None:
        return _finish(record, None)
    if observation.by_hand:  # who did not want this one does not want the next one either
        return _fail(record, _reason(observation), notable=True, observation=observation)
    if record.attempt >= rules.max_attempts:
        return _fail(
            record,
            f"{_reason(observation)} (container {record.attempt} of {rules.max_attempts}, none of them started)",
            notable=True,
            observation=observation,
        )
    if record.was in (Was.RUNNING, Was.RESTARTING):
        return _fail(record, _reason(observation), notable=True, observation=observation)
    record.phase = Phase.WAITING
    record.attempt += 1
    record.past += (observation.handle.id,)
    record.handle = None
    record.spec = None
    record.held = NOT_YET
    record.told = ()  # what the next one waits for is news
    record.retry_at = now + relaunch_delay(record.attempt - 1, jitter)
    return [Enqueue()]


def _waits(record: Record, event: Observed, now: float, rules: Rules) -> list[Effect]:
    """Tell what for, as nothing else would; it may wait for ever, unless there is a limit."""
    observation = event.observation
    if not observation.reason or record.muted:
        record.held = NOT_YET
        return []
    record.held = record.held.answered(now, event.pause)
    launch, waited, limit = record.launch, record.held.counted, rules.capacity_timeout
    if limit is not None and waited >= limit and not record.seen_running:
        why = f"{rules.service} let the container wait for {waited:.0f} s: {observation.reason}"
        return [SendStop("It waited for too long"), *_fail(record, why, notable=True)]
    if not is_to_be_told(record, topic("waits", observation.reason)):
        return []
    text = f"The container waits: {rules.service}: {observation.reason}"
    return [Emit(Notice(launch.launch_id, launch.key, "container waits", text))]


def _reason(observation: Observation) -> str:
    return observation.reason or f"The container stopped without an exit code (status {observation.status})"


def _missing(record: Record, pause: float, now: float, rules: Rules) -> list[Effect]:
    # That an adopted one ran is Airflow's word, until the service has told of it.
    ran = record.seen_running and (record.was is None or record.seen_at is not None)
    grace = rules.seen_missing_grace if ran else rules.missing_grace
    if record.stop_reason is not None and record.muted:
        grace = rules.missing_grace
    record.missing = record.missing.answered(now, pause)
    if record.missing.counted < grace:
        return []
    assert record.handle is not None
    known = "no longer knows" if record.seen_at is not None or record.seen_running else "does not know"
    # It cannot be proven that nothing runs: ask for it to be stopped before Airflow may start another.
    told = "Nobody waits for it" if record.muted else "Airflow was told that it failed"
    asked = record.stop_reason is not None
    return [
        *([] if asked else [SendStop(f"Its state could not be found out. {told}")]),
        *_fail(
            record,
            f"{rules.service} {known} the container {record.handle.id} (MISSING for {grace:.0f} s)",
            notable=True,
        ),
    ]


def _resolved(record: Record, observation: Observation | None, now: float, rules: Rules) -> list[Effect]:
    record.lookup_refused = NOT_YET
    if record.by_token:
        return _age_told(record, observation, now, rules)
    launchable = _is_launchable(record, rules)
    # A container that is not listed is launched after a second look, but failed only after the grace.
    patience = _patience(record, rules) if launchable else rules.missing_grace
    record.unfound = record.unfound.answered(now, rules.relook_after)
    unfound_for = record.unfound.counted
    unknown = observation is not None and observation.seen is Seen.MISSING
    missing = record.missing = record.missing.answered(now, rules.relook_after) if unknown else NOT_YET
    if unknown and missing.counted < rules.missing_grace:
        return _look_again(record, now, rules)  # a new one is not known at first either
    if observation is not None and _is_of_this_queueing(record, observation, rules):
        if _may_have_a_successor(record, observation, rules):
            if record.lookup is not None:
                return _look_for_a_later_one(record, observation, now)
            if unfound_for < patience:
                return _look_again(record, now, rules)
        return _follow(record, observation, missing, now, rules)
    if record.lookup is not None and (observation is not None or record.was is Was.QUEUED):
        # The identifier was of an earlier queueing. A container of this one may carry the mark.
        record.lookup = None
        record.unfound = record.missing = NOT_YET
        record.retry_at = now
        return [LookUp()]
    if unfound_for < patience:
        return _look_again(record, now, rules)
    if record.unknown is not None:
        return _follow(record, Observation(record.unknown, Seen.MISSING), record.unfound, now, rules)
    if record.muted:
        return _finish(record, None)
    if launchable:
        record.was = None  # from here on it is nobody's but ours
        record.sent_at = None
        record.phase = Phase.WAITING
        record.retry_at = now
        return [Enqueue()]
    if record.was is None or record.sent_at is not None:
        return _fail(
            record,
            f"It is unknown whether {rules.service} started the container: no request to run it got a definite "
            "answer, and no container was found",
            notable=True,
        )
    return _fail(
        record,
        f"{rules.service} has no container of this task, which was {record.was.value} when its scheduler died",
        notable=True,
    )


def _follow(record: Record, observation: Observation, missing: Grace, now: float, rules: Rules) -> list[Effect]:
    effects = _claim(record, observation, now)
    record.missing = missing
    return [*effects, *_observed(record, Observed(observation), now, rules)]


def _look_again(record: Record, now: float, rules: Rules) -> list[Effect]:
    record.retry_at = now + rules.relook_after
    return [LookUp()]


def _may_have_a_successor(record: Record, observation: Observation, rules: Rules) -> bool:
    """
    Tell if another container can be the one that matters: this one never started, or is an earlier queueing's.

    The report that told Airflow of the later one died with its scheduler. One that lives is taken for what it
    is, as long as nothing else is known. One that the service does not know can be of any age.
    """
    if observation.seen is Seen.MISSING:
        return record.lookup is not None
    if observation.seen is Seen.STOPPED and not observation.started and observation.exit_code is None:
        return True
    lives = observation.seen is not Seen.STOPPED and observation.exit_code is None
    return _is_older(record, observation, rules) and (record.lookup is not None or not lives)


def _look_for_a_later_one(record: Record, observation: Observation, now: float) -> list[Effect]:
    """
    Whoever launched the container that Airflow knows may have launched another after it.

    That one has the same mark. Where Airflow assigned the identity, the mark is what the tokens were made of.
    """
    if observation.seen is Seen.MISSING:
        record.unknown = observation.handle
    mark = observation.started_by
    if mark is not None and mark != record.launch.started_by and _IDENTITY.fullmatch(mark):
        record.launch = replace(record.launch, started_by=mark)
        record.continued = True
    record.lookup = record.sought = None
    record.unfound = record.missing = NOT_YET
    record.since = record.retry_at = now
    return [LookUp()]


def _is_launchable(record: Record, rules: Rules) -> bool:
    """
    Tell if it is to be launched should it have no container.

    Where a request can be repeated it was, for as long as that is safe: whoever comes here after that has no
    answer to hope for. Where it cannot be, only the search tells if it may be made once more.
    """
    if record.was not in (None, Was.QUEUED):
        return False
    return record.sent_at is None or not rules.repeatable


def _patience(record: Record, rules: Rules) -> float:
    """
    Return for how long a search has to find nothing before a launch is made.

    A listing lags. Where the token is the one that was sent, if any was, the request itself tells what it missed.
    """
    return rules.relook_after if rules.repeatable and record.launch.tokened else rules.absent_grace


def _age_told(record: Record, observation: Observation | None, now: float, rules: Rules) -> list[Effect]:
    if observation is None:
        return _look_again(record, now, rules)
    if observation.seen is Seen.MISSING:
        record.missing = record.missing.answered(now, rules.relook_after)
        if record.missing.counted < rules.missing_grace:
            return _look_again(record, now, rules)
    record.by_token = False
    if observation.seen is Seen.MISSING or _is_of_this_queueing(record, observation, rules):
        return [*_claim(record, observation, now), *_observed(record, Observed(observation), now, rules)]
    # Who knew that this identity was used up gave the launch another, but left the same mark: look for that.
    record.spent += 1
    return _look_up_instead(record, now)


def choose(record: Record, found: Sequence[Observation], rules: Rules) -> Observation | None:
    """
    Choose which of the containers that carry a launch's mark is its own, None if none is; of equals the newest.

    One that is listed but not described (MISSING: not yet, or not at this moment) may be the one that does the
    work, unless another is known to have done it or to be at it.
    """
    stays = record.was in (Was.RUNNING, Was.RESTARTING)

    def weight(observation: Observation) -> tuple[int, float]:
        over = observation.seen is Seen.STOPPED or observation.exit_code is not None
        older = _is_older(record, observation, rules)
        if observation.seen is Seen.MISSING:
            weight = 1
        elif older and (over or not observation.started):
            weight = 0  # what Airflow says runs is not that one
        elif not over:
            weight = 3
        elif observation.started or observation.exit_code is not None or (observation.by_hand and not stays):
            weight = 2
        else:
            weight = 0
        return weight, observation.created_at or 0.0

    return max((o for o in found if not is_of_an_earlier_queueing(record, o, rules)), key=weight, default=None)


def _is_of_this_queueing(record: Record, observation: Observation, rules: Rules) -> bool:
    if observation.seen is Seen.MISSING:
        return record.was is not Was.QUEUED and (record.was is not None or record.sent_at is not None)
    return not is_of_an_earlier_queueing(record, observation, rules)


def is_of_an_earlier_queueing(record: Record, observation: Observation, rules: Rules) -> bool:
    """Tell if a container is too old to be that of a launch; one that is running to Airflow is its own."""
    return record.was not in (Was.RUNNING, Was.RESTARTING) and _is_older(record, observation, rules)


def _is_older(record: Record, observation: Observation, rules: Rules) -> bool:
    if record.sought is not None and record.sought.own:
        return False  # nothing of another queueing is found by that
    created_at = observation.created_at
    return created_at is not None and created_at < record.launch.queued_at - rules.created_margin


def _look_up_refused(record: Record, event: LookUpRefused, now: float, rules: Rules) -> list[Effect]:
    record.lookup_refused = record.lookup_refused.answered(now, rules.relook_after)
    waited = record.lookup_refused.counted
    runs = record.was in (Was.RUNNING, Was.RESTARTING) and not record.muted
    grace = rules.permanent_error_grace
    if runs and event.place_unknown:
        grace = max(grace, rules.seen_missing_grace)
    if waited >= grace:
        launch = record.launch
        what = "nothing said where to look" if event.place_unknown else f"{rules.service} refused to say so"
        why = f"It is unknown whether there is a container: {what} for {waited:.0f} s: {event.reason}"
        if record.muted:
            record.handle, unwanted = event.named, record.stop_reason
            stops = [SendStop(unwanted)] if event.named is not None and unwanted is not None else []
            return [*stops, *_finish(record, None)]
        if not runs:
            return _fail(record, why, notable=True)
        # Airflow hears from a running one by itself, and fails it if it does not.
        if event.place_unknown:
            # User code of our own process rarely mends itself, and this would be looked for for ever.
            return _finish(record, Unfollowed(launch.launch_id, launch.key, why))
    record.retry_at = now + rules.relook_after
    return [LookUp()]


def _stop_wanted(record: Record, reason: str, now: float) -> list[Effect]:
    record.muted = True
    if record.stop_reason is None:
        record.stop_reason = reason
        record.unwanted_at = now
    if record.phase is Phase.WAITING:
        # Who died may have launched it.
        return _look_up_instead(record, now) if record.was is Was.QUEUED else _finish(record, None)
    if record.phase is Phase.ACTIVE:
        return [SendStop(record.stop_reason)]
    return []  # its container is learnt first, by the reply, the same request again or the look-up; then stopped


def _superseded(record: Record) -> list[Effect]:
    record.muted = True
    if record.phase is Phase.WAITING or (
        # Airflow queues a key again without revoking it only after its container ran: nothing is left to learn.
        record.phase is Phase.AMBIGUOUS and record.stop_reason is None
    ):
        return _finish(record, None)
    return []


def _released(record: Record) -> list[Effect]:
    if record.stop_reason is not None:
        return []  # its container was unwanted before that
    record.muted = record.released = True
    # A request in flight is not sent again after its answer; what it has started is the adopter's.
    return [] if record.phase is Phase.SENDING else _finish(record, None)


def _gone(record: Record, now: float, rules: Rules) -> list[Effect]:
    """The service knows no such container to stop: no longer, or, right after its launch, not yet."""
    if record.muted and (record.seen_at is not None or now - record.since >= rules.missing_grace):
        return _finish(record, None)
    if record.missing.last_at is None:
        record.missing = record.missing.answered(now, 0.0)
    return []
