"""One launch's life as tables: every phase with every event, and what each error, observation and find means."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.lifecycle import (
    Doubted,
    Effect,
    Emit,
    Enqueue,
    Event,
    Forget,
    GaveUp,
    Gone,
    IllegalEvent,
    Interrupted,
    LookUp,
    LookUpRefused,
    Observed,
    Phase,
    Poll,
    Record,
    Refused,
    Released,
    Replied,
    Resolved,
    Sending,
    SendStop,
    StopWanted,
    Superseded,
    Unrenderable,
    WindowOver,
    adopted_record,
    is_news,
    new_record,
    step,
    topic,
)
from ecs_async_executor.core.messages import Finished, Launch, Launched, Notice, Unfollowed, Was
from ecs_async_executor.core.policy import Rules

NOW = 1000.0
QUEUED_AT = 5000.0
RULES = Rules(service="ECS", max_attempts=3)
LAUNCH = Launch("id", "key", None, priority=0, started_by="mark", queued_at=QUEUED_AT, label="a")
SPEC = LaunchSpec({}, "default", "main", "FARGATE", "mark")
HANDLE = Handle("default", "arn")


def seen(what: Seen, **fields: Any) -> Observation:
    return Observation(HANDLE, what, **{"status": what.name, "created_at": QUEUED_AT + 1.0, **fields})


RUNNING = seen(Seen.RUNNING, started=True)
MISSING = seen(Seen.MISSING, created_at=None)
OLD = seen(Seen.RUNNING, started=True, created_at=QUEUED_AT - 60.0)


def record_in(phase: Phase, **fields: Any) -> Record:
    record = Record(LAUNCH, phase, waiting_since=NOW - 1.0, since=NOW - 1.0)
    if phase in (Phase.SENDING, Phase.AMBIGUOUS):
        record.spec = SPEC
    if phase is Phase.AMBIGUOUS:
        record.sent_at = NOW - 1.0
    if phase is Phase.ACTIVE:
        record.handle = HANDLE
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect.report) if isinstance(effect, Emit) else type(effect) for effect in effects]


# --- every phase, every event -------------------------------------------------------------------------------

THROTTLED = Refused(BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded"))
EVENTS: dict[str, Event] = {
    "sending": Sending(SPEC),
    "unrenderable": Unrenderable("no such container"),
    "replied": Replied(seen(Seen.PENDING)),
    "refused": THROTTLED,
    "window over": WindowOver(),
    "interrupted": Interrupted(),
    "gave up": GaveUp("no capacity"),
    "observed": Observed(RUNNING),
    "resolved": Resolved(RUNNING),
    "look-up refused": LookUpRefused("denied"),
    "stop wanted": StopWanted("revoked"),
    "superseded": Superseded(),
    "released": Released(),
    "doubted": Doubted(),
    "gone": Gone(),
}
ILLEGAL = None
W, S, A, U, X, D = Phase.WAITING, Phase.SENDING, Phase.AMBIGUOUS, Phase.UNRESOLVED, Phase.ACTIVE, Phase.DONE
Row = tuple[Phase, list[type]] | None
TABLE: dict[tuple[Phase, str], Row] = {
    (W, "sending"): (S, []),
    (W, "unrenderable"): (D, [Finished, Forget]),
    (W, "replied"): ILLEGAL,
    (W, "refused"): ILLEGAL,
    (W, "window over"): ILLEGAL,
    (W, "interrupted"): (W, []),
    (W, "gave up"): (D, [Finished, Forget]),
    (W, "observed"): (W, []),
    (W, "resolved"): (W, []),
    (W, "look-up refused"): (W, []),
    (W, "stop wanted"): (D, [Forget]),
    (W, "superseded"): (D, [Forget]),
    (W, "released"): (D, [Forget]),
    (W, "doubted"): (U, [LookUp]),
    (W, "gone"): (W, []),
    (S, "sending"): ILLEGAL,
    (S, "unrenderable"): ILLEGAL,
    (S, "replied"): (X, [Poll, Launched]),
    (S, "refused"): (W, [Enqueue]),
    (S, "window over"): ILLEGAL,
    (S, "interrupted"): (A, [Enqueue]),
    (S, "gave up"): ILLEGAL,
    (S, "observed"): (S, []),
    (S, "resolved"): (S, []),
    (S, "look-up refused"): (S, []),
    (S, "stop wanted"): (S, []),
    (S, "superseded"): (S, []),
    (S, "released"): (S, []),
    (S, "doubted"): (S, []),
    (S, "gone"): (S, []),
    (A, "sending"): (S, []),
    (A, "unrenderable"): (U, [LookUp]),
    (A, "replied"): ILLEGAL,
    (A, "refused"): ILLEGAL,
    (A, "window over"): (U, [LookUp]),
    (A, "interrupted"): (A, []),
    (A, "gave up"): (A, []),
    (A, "observed"): (A, []),
    (A, "resolved"): (A, []),
    (A, "look-up refused"): (A, []),
    (A, "stop wanted"): (A, []),
    (A, "superseded"): (D, [Forget]),
    (A, "released"): (D, [Forget]),
    (A, "doubted"): (A, []),
    (A, "gone"): (A, []),
    (U, "sending"): ILLEGAL,
    (U, "unrenderable"): ILLEGAL,
    (U, "replied"): ILLEGAL,
    (U, "refused"): ILLEGAL,
    (U, "window over"): ILLEGAL,
    (U, "interrupted"): (U, []),
    (U, "gave up"): ILLEGAL,
    (U, "observed"): (U, []),
    (U, "resolved"): (X, [Poll, Launched]),
    (U, "look-up refused"): (U, [LookUp]),
    (U, "stop wanted"): (U, []),
    (U, "superseded"): (U, []),
    (U, "released"): (D, [Forget]),
    (U, "doubted"): (U, []),
    (U, "gone"): (U, []),
    (X, "sending"): ILLEGAL,
    (X, "unrenderable"): ILLEGAL,
    (X, "replied"): ILLEGAL,
    (X, "refused"): ILLEGAL,
    (X, "window over"): ILLEGAL,
    (X, "interrupted"): (X, []),
    (X, "gave up"): ILLEGAL,
    (X, "observed"): (X, []),
    (X, "resolved"): (X, []),
    (X, "look-up refused"): (X, []),
    (X, "stop wanted"): (X, [SendStop]),
    (X, "superseded"): (X, []),
    (X, "released"): (D, [Forget]),
    (X, "doubted"): (X, []),
    (X, "gone"): (X, []),
    **{(D, name): (D, []) for name in EVENTS},
}


@pytest.mark.parametrize(
    ("observation", "fields", "news"),
    [
        (RUNNING, {}, True),
        (RUNNING, {"seen_at": NOW, "seen_running": True}, False),
        (RUNNING, {"seen_at": NOW}, True),
        (RUNNING, {"seen_at": NOW, "seen_running": True, "missing": Grace(0.0, NOW)}, True),
        (MISSING, {"seen_at": NOW, "seen_running": True}, True),
        (seen(Seen.PENDING), {"seen_at": NOW}, False),
        (seen(Seen.PENDING, exit_code=0, started=True), {"seen_at": NOW, "seen_running": True}, True),
        (seen(Seen.STOPPED, started=True), {"seen_at": NOW, "seen_running": True}, True),
    ],
)
def test_what_is_no_news_changes_nothing(observation: Observation, fields: dict[str, Any], news: bool) -> None:
    record = record_in(Phase.ACTIVE, **fields)
    assert is_news(record, observation) is news
    if not news:
        before = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        assert step(record, Observed(observation), NOW, RULES) == []
        assert {field.name: getattr(record, field.name) for field in dataclasses.fields(record)} == before


def test_the_table_is_complete() -> None:
    assert {type(event) for event in EVENTS.values()} == set(Event.__args__)
    assert set(TABLE) == set(itertools.product(Phase, EVENTS))


@pytest.mark.parametrize(("phase", "name"), TABLE, ids=lambda value: getattr(value, "value", value))
def test_every_phase_with_every_event(phase: Phase, name: str) -> None:
    record = record_in(phase)
    before = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    row = TABLE[phase, name]
    if row is ILLEGAL:
        with pytest.raises(IllegalEvent, match=f"while {phase.value}"):
            step(record, EVENTS[name], NOW, RULES)
        assert before == {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        return
    effects = step(record, EVENTS[name], NOW, RULES)
    assert (record.phase, kinds(effects)) == row
    if row == (phase, []) and name not in ("stop wanted", "superseded", "released", "observed", "gone"):
        assert before == {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


LEGAL = [case for case, row in TABLE.items() if row is not ILLEGAL]


@pytest.mark.parametrize(("phase", "name"), LEGAL, ids=lambda value: getattr(value, "value", value))
@pytest.mark.parametrize("stop_reason", [None, "revoked"], ids=["superseded", "revoked"])
def test_what_is_muted_tells_nothing_whatever_happens(phase: Phase, name: str, stop_reason: str | None) -> None:
    record = record_in(phase, muted=True, stop_reason=stop_reason)
    effects = step(record, EVENTS[name], NOW, RULES)
    assert not [effect for effect in effects if isinstance(effect, Emit)]
    assert record.outcome is None


# --- refusals -----------------------------------------------------------------------------------------------

REFUSALS: dict[tuple[Kind, bool], tuple[Phase, list[type]]] = {
    (Kind.THROTTLED, False): (W, [Enqueue]),
    (Kind.THROTTLED, True): (A, [Enqueue]),
    (Kind.CONCURRENT, False): (W, [Enqueue]),
    (Kind.CONCURRENT, True): (A, [Enqueue]),
    (Kind.AMBIGUOUS, False): (A, [Enqueue]),
    (Kind.AMBIGUOUS, True): (A, [Enqueue]),
    (Kind.CAPACITY, False): (W, [Enqueue]),
    (Kind.CAPACITY, True): (A, [Enqueue]),
    (Kind.CREDENTIALS, False): (W, [Enqueue]),
    (Kind.CREDENTIALS, True): (A, [Enqueue]),
    (Kind.REFUSED, False): (W, [Enqueue]),
    (Kind.REFUSED, True): (A, [Enqueue]),
    (Kind.INVALID, False): (D, [Finished, Forget]),
    (Kind.INVALID, True): (U, [LookUp]),
    (Kind.CONFLICT, False): (A, [Enqueue]),
    (Kind.CONFLICT, True): (A, [Enqueue]),
    (Kind.NOT_FOUND, False): (D, [Finished, Forget]),
    (Kind.NOT_FOUND, True): (U, [LookUp]),
}


def refusal(kind: Kind, *resource_ids: str) -> Refused:
    return Refused(BackendError(kind, "Code", "words", resource_ids))


def test_the_table_of_refusals_is_complete() -> None:
    assert set(REFUSALS) == set(itertools.product(Kind, (False, True)))


@pytest.mark.parametrize(("kind", "maybe_sent"), REFUSALS, ids=str)
def test_every_refusal(kind: Kind, maybe_sent: bool) -> None:
    record = record_in(Phase.SENDING, sent_at=NOW - 5.0 if maybe_sent else None)
    effects = step(record, refusal(kind), NOW, RULES)
    assert (record.phase, kinds(effects)) == REFUSALS[kind, maybe_sent]
    assert (record.attempt, record.spent) == (1, 0)
    if record.phase is Phase.AMBIGUOUS:
        assert record.spec is SPEC, "the same bytes are sent again"
        assert record.sent_at == (NOW - 5.0 if maybe_sent else NOW)
    if record.phase is Phase.WAITING:
        assert record.spec is None, "a fresh token of Airflow's may be minted"


@pytest.mark.parametrize("kind", Kind, ids=str)
@pytest.mark.parametrize("maybe_sent", [False, True], ids=["first", "resent"])
def test_a_revoked_launch_is_dropped_on_a_definite_refusal_and_learnt_otherwise(
    kind: Kind,
    maybe_sent: bool,
) -> None:
    record = record_in(Phase.SENDING, sent_at=NOW - 5.0 if maybe_sent else None, muted=True, stop_reason="revoked")
    effects = step(record, refusal(kind), NOW, RULES)
    expected = REFUSALS[kind, maybe_sent][0]
    assert record.phase is (Phase.DONE if expected is Phase.WAITING else expected)
    assert not any(isinstance(effect, Emit) for effect in effects)


def test_past_the_resend_window_the_token_is_not_sent_again() -> None:
    record = record_in(Phase.SENDING, sent_at=NOW - RULES.resend_window)
    assert kinds(step(record, refusal(Kind.AMBIGUOUS), NOW, RULES)) == [LookUp]
    assert record.phase is Phase.UNRESOLVED


@pytest.mark.parametrize(
    ("was", "sent_at", "phase", "effects"),
    [
        (None, NOW - 5.0, X, [Poll, Launched]),  # our own request did it
        (None, None, U, [LookUp]),  # somebody else's did
        (Was.QUEUED, NOW - 5.0, U, [LookUp]),
        (Was.QUEUED, None, U, [LookUp]),
    ],
)
def test_a_conflicts_container_is_claimed_once_it_is_known_to_be_of_this_queueing(
    was: Was | None, sent_at: float | None, phase: Phase, effects: list[type]
) -> None:
    record = record_in(Phase.SENDING, was=was, sent_at=sent_at)
    assert kinds(step(record, refusal(Kind.CONFLICT, "arn"), NOW, RULES)) == effects
    assert record.phase is phase
    assert "arn" in (record.lookup, record.handle.id if record.handle else None)


@pytest.mark.parametrize(
    ("observation", "waited", "phase", "effects", "token"),
    [
        (RUNNING, 1.0, X, [Poll, Launched], "id-1"),
        (seen(Seen.STOPPED, exit_code=0, started=True), 1.0, D, [Poll, Launched, Finished, Forget], "id-1"),
        (OLD, 1.0, U, [LookUp], "id-2"),
        (MISSING, 1.0, U, [LookUp], "id-1"),
        (MISSING, 61.0, X, [Poll, Launched], "id-1"),
        (None, 1.0, U, [LookUp], "id-1"),
    ],
)
def test_the_age_of_a_tokens_container_decides_whose_it_is(
    observation: Observation | None, waited: float, phase: Phase, effects: list[type], token: str
) -> None:
    record = record_in(Phase.SENDING, was=Was.QUEUED)
    step(record, refusal(Kind.CONFLICT, "arn"), NOW, RULES)
    record.missing = Grace(waited, NOW + waited)
    assert kinds(step(record, Resolved(observation), NOW + waited, RULES)) == effects
    assert (record.phase, record.token) == (phase, token)
    if token == "id-2":
        assert record.lookup is None, "its mark is looked for next"
        assert not record.by_token


# --- observations -------------------------------------------------------------------------------------------

FAILED = seen(Seen.RUNNING, exit_code=1, started=True, reason="The container exited 1")
LOST = seen(Seen.STOPPED, started=True)
NEVER_STARTED = seen(Seen.STOPPED, reason="CannotPullContainerError")


@pytest.mark.parametrize(
    ("observation", "fields", "phase", "effects"),
    [
        (seen(Seen.PENDING), {}, X, []),
        (RUNNING, {}, X, []),
        (seen(Seen.RUNNING, exit_code=0, started=True), {}, D, [Finished, Forget]),
        (FAILED, {}, D, [Finished, Forget]),
        (LOST, {}, D, [Finished, Forget]),
        (NEVER_STARTED, {}, W, [Enqueue]),
        (NEVER_STARTED, {"attempt": 2}, W, [Enqueue]),
        (NEVER_STARTED, {"attempt": 3}, D, [Finished, Forget]),
        (NEVER_STARTED, {"seen_running": True}, D, [Finished, Forget]),
        (NEVER_STARTED, {"was": Was.QUEUED}, W, [Enqueue]),
        (NEVER_STARTED, {"was": Was.RUNNING}, D, [Finished, Forget]),
        (NEVER_STARTED, {"was": Was.RESTARTING}, D, [Finished, Forget]),
        (NEVER_STARTED, {"muted": True}, D, [Forget]),
        (NEVER_STARTED, {"muted": True, "stop_reason": "revoked"}, D, [Forget]),
        (MISSING, {}, X, []),
        (MISSING, {"missing": Grace(59.0, NOW)}, X, []),
        (MISSING, {"missing": Grace(60.0, NOW)}, D, [SendStop, Finished, Forget]),
        (MISSING, {"missing": Grace(60.0, NOW), "seen_running": True}, X, []),
        (MISSING, {"missing": Grace(300.0, NOW), "seen_running": True}, D, [SendStop, Finished, Forget]),
        # An adopted one ran to Airflow; here it counts once ECS has told of it.
        (
            MISSING,
            {"missing": Grace(60.0, NOW), "seen_running": True, "was": Was.RUNNING},
            D,
            [SendStop, Finished, Forget],
        ),
        (MISSING, {"missing": Grace(60.0, NOW), "seen_running": True, "was": Was.RUNNING, "seen_at": 1.0}, X, []),
        (MISSING, {"missing": Grace(60.0, NOW), "seen_running": True, "was": Was.QUEUED, "seen_at": 1.0}, X, []),
        (
            MISSING,
            {"missing": Grace(300.0, NOW), "seen_running": True, "was": Was.RUNNING, "seen_at": 1.0},
            D,
            [SendStop, Finished, Forget],
        ),
        # Its stop is owed already.
        (MISSING, {"missing": Grace(60.0, NOW), "muted": True, "stop_reason": "x"}, D, [Forget]),
        (MISSING, {"missing": Grace(60.0, NOW), "muted": True}, D, [SendStop, Forget]),
    ],
)
def test_every_observation(
    observation: Observation, fields: dict[str, Any], phase: Phase, effects: list[type]
) -> None:
    record = record_in(Phase.ACTIVE, **fields)
    assert kinds(step(record, Observed(observation), NOW, RULES)) == effects
    assert record.phase is phase
    if phase is Phase.WAITING:
        assert record.token == f"id-{fields.get('attempt', 1) + 1}"
        assert record.handle is None


@pytest.mark.parametrize(
    ("observation", "success", "reason"),
    [
        (seen(Seen.RUNNING, exit_code=0, started=True), True, None),
        (FAILED, False, "The container exited 1"),
        (LOST, False, "The container stopped without an exit code (status STOPPED)"),
    ],
)
def test_the_outcome_says_why(observation: Observation, success: bool, reason: str | None) -> None:
    record = record_in(Phase.ACTIVE)
    step(record, Observed(observation), NOW, RULES)
    outcome = record.outcome
    assert isinstance(outcome, Finished)
    assert (outcome.success, outcome.reason, outcome.notable) == (success, reason, not success)
    assert (outcome.handle_id, outcome.exit_code) == ("arn", observation.exit_code)


def test_what_a_container_waits_for_is_told_once() -> None:
    waiting = seen(Seen.PENDING, reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
    record = record_in(X, seen_at=NOW - 1.0)
    assert is_news(record, waiting)
    effects = step(record, Observed(waiting), NOW, RULES)
    assert [e.report.text for e in effects if isinstance(e, Emit) and isinstance(e.report, Notice)] == [
        "The container waits: ECS: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    ]
    assert is_news(record, waiting)  # it can have waited for too long by now
    assert step(record, Observed(waiting), NOW + 1.0, RULES) == []
    assert is_news(record, seen(Seen.PENDING))
    assert step(record, Observed(seen(Seen.PENDING)), NOW + 2.0, RULES) == []
    assert not is_news(record, seen(Seen.PENDING))
    assert step(record_in(X, muted=True, stop_reason="revoked"), Observed(waiting), NOW, RULES) == []


def notices(record: Record, *reasons: str) -> list[str]:
    """Return what the event log is told while a container waits for these in turn."""
    told: list[str] = []
    for number, reason in enumerate(reasons):
        effects = step(record, Observed(seen(Seen.PENDING, reason=reason)), NOW + number, RULES)
        told += [e.report.text for e in effects if isinstance(e, Emit) and isinstance(e.report, Notice)]
    return [text.removeprefix("The container waits: ECS: ") for text in told]


def test_what_a_container_waits_for_is_told_again_when_it_is_something_else() -> None:
    record = record_in(X, seen_at=NOW - 1.0)
    capacity, misfit = (
        "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - m5",
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - x",
    )
    largest = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - y"
    assert notices(record, capacity, misfit, misfit, largest, capacity) == [capacity, misfit, largest]


def test_what_differs_each_time_in_a_reason_is_no_news() -> None:
    record = record_in(X, seen_at=NOW - 1.0)
    first = "CAPACITY:X - 3 of 7 hosts"
    assert notices(record, first, "CAPACITY:X - 4 of 7 hosts", "CAPACITY:X: 5 hosts") == [first]
    assert notices(record, *(f"{number} jobs before it" for number in range(5))) == ["0 jobs before it"]
    assert len(notices(record, *("no code " + "x" * number for number in range(50)))) < 10


def test_what_a_container_waits_for_is_told_after_its_request_had_to_wait() -> None:
    record = record_in(X, seen_at=NOW - 1.0, told=(topic("refused", "CAPACITY:X - no such queue"),))
    assert notices(record, "CAPACITY:X - no room") == ["CAPACITY:X - no room"]


def test_what_is_known_again_was_not_missing() -> None:
    record = record_in(Phase.ACTIVE, missing=Grace(59.0, NOW))
    step(record, Observed(RUNNING), NOW, RULES)
    assert record.missing == NOT_YET
    assert step(record, Observed(MISSING), NOW + 1.0, RULES) == []


@pytest.mark.parametrize(
    ("fields", "phase", "effects"),
    [
        ({}, X, []),
        ({"muted": True}, X, []),  # launched a second ago: not known everywhere yet
        ({"muted": True, "seen_at": NOW - 1.0}, D, [Forget]),
        ({"muted": True, "since": NOW - 60.0}, D, [Forget]),
    ],
)
def test_a_container_that_cannot_be_stopped_for_there_is_none(
    fields: dict[str, Any], phase: Phase, effects: list[type]
) -> None:
    record = record_in(Phase.ACTIVE, **fields)
    assert kinds(step(record, Gone(), NOW, RULES)) == effects
    assert record.phase is phase


def test_a_revoked_launch_is_stopped_as_soon_as_its_container_is_known() -> None:
    record = record_in(Phase.SENDING)
    assert step(record, StopWanted("revoked"), NOW, RULES) == []
    effects = step(record, Replied(seen(Seen.PENDING)), NOW, RULES)
    assert effects == [Poll(), SendStop("revoked")]


# --- looking up ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "handle_id", "tokened", "phase"),
    [
        (Was.QUEUED, None, True, W),  # the launch request itself says if there is one
        (Was.QUEUED, None, False, U),
        (Was.QUEUED, "arn", True, U),
        (Was.RUNNING, None, True, U),
        (Was.RUNNING, "arn", False, U),
        (Was.RESTARTING, "arn", True, U),
    ],
)
def test_how_an_adopted_launch_begins(
    was: Was,
    handle_id: str | None,
    tokened: bool,
    phase: Phase,
) -> None:
    record, effects = adopted_record(LAUNCH, was, handle_id, tokened=tokened, now=NOW)
    assert (record.phase, record.was) == (phase, was)
    assert kinds(effects) == [Enqueue if phase is Phase.WAITING else LookUp]


def test_how_a_launch_begins() -> None:
    record, effects = new_record(LAUNCH, NOW)
    assert (record.phase, record.was, record.token) == (Phase.WAITING, None, "id-1")
    assert effects == [Enqueue()]


UNKNOWN_FOR_59, UNKNOWN_FOR_60 = {"missing": Grace(59.0, NOW)}, {"missing": Grace(60.0, NOW)}
SENT = {"sent_at": 1.0}
UNWANTED = {"muted": True, "stop_reason": "x"}


@pytest.mark.parametrize(
    ("fields", "observation", "waited", "phase", "effects"),
    [
        # Found.
        ({"was": Was.QUEUED, "lookup": "arn"}, RUNNING, 0, X, [Poll, Launched]),
        ({"was": Was.QUEUED}, RUNNING, 0, X, [Poll, Launched]),
        ({"was": Was.RUNNING}, OLD, 0, X, [Poll, Launched]),
        ({"was": Was.QUEUED}, LOST, 0, D, [Poll, Launched, Finished, Forget]),
        # Found, but there may be another after it.
        ({"was": Was.QUEUED, "lookup": "arn"}, NEVER_STARTED, 9, U, [LookUp]),
        ({"was": Was.RUNNING, "lookup": "arn"}, NEVER_STARTED, 90, U, [LookUp]),
        ({"was": Was.RUNNING, "lookup": "arn"}, OLD, 0, U, [LookUp]),
        ({"was": Was.QUEUED}, NEVER_STARTED, 19, U, [LookUp]),
        ({"was": Was.QUEUED}, NEVER_STARTED, 20, W, [Poll, Launched, Enqueue]),
        ({"was": Was.RUNNING}, NEVER_STARTED, 59, U, [LookUp]),
        ({"was": Was.RUNNING}, NEVER_STARTED, 60, D, [Poll, Launched, Finished, Forget]),
        ({"was": None, "sent_at": 1.0}, RUNNING, 0, X, [Poll, Launched]),
        # Of an earlier queueing.
        ({"was": Was.QUEUED, "lookup": "arn"}, OLD, 0, U, [LookUp]),
        ({"was": Was.QUEUED}, OLD, 0, U, [LookUp]),
        ({"was": Was.QUEUED}, OLD, 20, W, [Enqueue]),
        ({"was": None, "sent_at": 1.0}, OLD, 59, U, [LookUp]),
        ({"was": None, "sent_at": 1.0}, OLD, 60, D, [Finished, Forget]),
        # Not known.
        ({"was": Was.RUNNING, "lookup": "arn", **UNKNOWN_FOR_59}, MISSING, 59, U, [LookUp]),
        ({"was": Was.RUNNING, "lookup": "arn", **UNKNOWN_FOR_60}, MISSING, 60, U, [LookUp]),
        ({"was": Was.RUNNING, "unknown": HANDLE}, None, 59, U, [LookUp]),
        ({"was": Was.RUNNING, "unknown": HANDLE}, None, 60, D, [Poll, Launched, SendStop, Finished, Forget]),
        ({"was": Was.RUNNING, "unknown": HANDLE}, RUNNING, 0, X, [Poll, Launched]),
        ({"was": Was.RUNNING, **UNKNOWN_FOR_59}, MISSING, 90, U, [LookUp]),
        ({"was": Was.RUNNING, **UNKNOWN_FOR_60}, MISSING, 90, D, [Poll, Launched, SendStop, Finished, Forget]),
        ({"was": Was.RUNNING, **UNKNOWN_FOR_60, **UNWANTED}, MISSING, 90, D, [Poll, SendStop, Forget]),
        ({"was": Was.QUEUED, "lookup": "arn"}, MISSING, 0, U, [LookUp]),
        ({"was": Was.QUEUED, "lookup": "arn", **UNKNOWN_FOR_60}, MISSING, 60, U, [LookUp]),
        ({"was": Was.QUEUED, **UNKNOWN_FOR_60}, MISSING, 60, W, [Enqueue]),
        (
            {"was": None, "sent_at": 1.0, **UNKNOWN_FOR_60},
            MISSING,
            60,
            D,
            [Poll, Launched, SendStop, Finished, Forget],
        ),
        ({"was": None, **UNKNOWN_FOR_60}, MISSING, 60, W, [Enqueue]),
        # None there.
        ({"was": Was.QUEUED, "lookup": "arn"}, None, 9, U, [LookUp]),
        ({"was": Was.QUEUED}, None, 19, U, [LookUp]),
        ({"was": Was.QUEUED}, None, 20, W, [Enqueue]),
        ({"was": Was.QUEUED, "sent_at": 1.0}, None, 59, U, [LookUp]),
        ({"was": Was.QUEUED, "sent_at": 1.0}, None, 60, D, [Finished, Forget]),
        ({"was": Was.RUNNING}, None, 59, U, [LookUp]),
        ({"was": Was.RUNNING}, None, 60, D, [Finished, Forget]),
        ({"was": Was.RESTARTING}, None, 60, D, [Finished, Forget]),
        ({"was": None, "sent_at": 1.0}, None, 60, D, [Finished, Forget]),
        ({"was": None, "spent": 1}, None, 20, W, [Enqueue]),
        # Not wanted any more.
        ({"was": Was.QUEUED, "muted": True, "stop_reason": "x"}, RUNNING, 0, X, [Poll, SendStop]),
        ({"was": Was.QUEUED, "muted": True, "stop_reason": "x"}, None, 20, D, [Forget]),
        ({"was": Was.RUNNING, "muted": True}, None, 60, D, [Forget]),
        ({"was": Was.RUNNING, "unknown": HANDLE, **UNWANTED}, None, 60, D, [Poll, SendStop, Forget]),
    ],
)
def test_every_answer_to_a_look_up(
    fields: dict[str, Any], observation: Observation | None, waited: float, phase: Phase, effects: list[type]
) -> None:
    record = record_in(Phase.UNRESOLVED, unfound=Grace(waited, NOW), since=NOW - waited, **fields)
    assert kinds(step(record, Resolved(observation), NOW, RULES)) == effects
    assert record.phase is phase


def asked_for(seconds: float, record: Record, event: LookUpRefused) -> list[Effect]:
    """Let the search be refused for so long, as often as it is made."""
    for nth in range(int(seconds / RULES.relook_after)):
        assert kinds(step(record, event, NOW + nth * RULES.relook_after, RULES)) == [LookUp]
    return step(record, event, NOW + seconds, RULES)


@pytest.mark.parametrize(
    ("fields", "phase", "effects"),
    [
        ({"was": Was.QUEUED}, D, [Finished, Forget]),
        ({"was": None, "sent_at": 1.0}, D, [Finished, Forget]),
        ({"was": Was.RUNNING}, U, [LookUp]),  # Airflow hears from it by itself
        ({"was": Was.RESTARTING}, U, [LookUp]),
        ({"was": Was.RUNNING, "muted": True, "stop_reason": "x"}, D, [Forget]),
        ({"was": Was.QUEUED, "muted": True}, D, [Forget]),
    ],
)
def test_a_look_up_that_is_refused_for_longer_than_the_grace(
    fields: dict[str, Any], phase: Phase, effects: list[type]
) -> None:
    record = record_in(Phase.UNRESOLVED, **fields)
    grace = RULES.permanent_error_grace
    assert kinds(asked_for(grace, record, LookUpRefused("denied"))) == effects
    assert record.phase is phase


@pytest.mark.parametrize(
    ("fields", "grace", "effects"),
    [
        ({"was": Was.QUEUED}, RULES.permanent_error_grace, [Finished, Forget]),
        ({"was": None}, RULES.permanent_error_grace, [Finished, Forget]),
        ({"was": Was.RUNNING}, RULES.seen_missing_grace, [Unfollowed, Forget]),
        ({"was": Was.RESTARTING}, RULES.seen_missing_grace, [Unfollowed, Forget]),
        ({"was": Was.RUNNING, "muted": True, "stop_reason": "x"}, RULES.permanent_error_grace, [Forget]),
    ],
)
def test_what_nobody_can_say_where_to_look_for_ends_with_what_keeps_it_from_being_said(
    fields: dict[str, Any], grace: float, effects: list[type]
) -> None:
    record = record_in(Phase.UNRESOLVED, **fields)
    event = LookUpRefused("KeyError: 'team'", place_unknown=True)
    assert kinds(asked_for(grace, record, event)) == effects
    if not record.muted:
        assert isinstance(record.outcome, Finished | Unfollowed)
        assert record.outcome.reason == (
            f"It is unknown whether there is a container: nothing said where to look for {grace:.0f} s: "
            "KeyError: 'team'"
        )


def test_what_is_unwanted_and_cannot_be_looked_up_is_stopped_all_the_same_if_airflow_names_it() -> None:
    record = record_in(Phase.UNRESOLVED, was=Was.RUNNING, lookup="arn", muted=True, stop_reason="x")
    event = LookUpRefused("denied", named=HANDLE)
    assert asked_for(RULES.permanent_error_grace, record, event) == [SendStop("x"), Forget()]
    assert record.handle == HANDLE


def test_an_answer_ends_the_grace_of_a_refused_look_up() -> None:
    record = record_in(Phase.UNRESOLVED, was=Was.RUNNING)
    step(record, LookUpRefused("denied"), NOW, RULES)
    step(record, Resolved(None), NOW + 1.0, RULES)
    assert record.lookup_refused == NOT_YET


# --- what is kept -------------------------------------------------------------------------------------------


def test_a_workload_is_kept_until_its_container_has_started_and_no_longer() -> None:
    record = record_in(Phase.ACTIVE, launch=dataclasses.replace(LAUNCH, workload="large"))
    step(record, Observed(seen(Seen.PENDING)), NOW, RULES)
    assert record.launch.workload == "large"
    step(record, Observed(RUNNING), NOW, RULES)
    assert record.launch == LAUNCH
    assert record.spec is None


# --- containers that the service has taken and lets wait ----------------------------------------------------

STUCK = seen(Seen.PENDING, reason="MISCONFIGURATION: no host is large enough")


def test_a_container_that_waits_for_longer_than_capacity_timeout_is_stopped_and_has_failed() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=900.0)
    record = record_in(Phase.ACTIVE)
    step(record, Observed(STUCK), NOW, rules)
    step(record, Observed(seen(Seen.PENDING)), NOW + 100.0, rules)  # it waits for nothing in particular
    step(record, Observed(STUCK, pause=1.0), NOW + 200.0, rules)
    assert step(record, Observed(STUCK, pause=900.0), NOW + 1099.0, rules) == []
    effects = step(record, Observed(STUCK, pause=1.0), NOW + 1100.0, rules)
    assert kinds(effects) == [SendStop, Finished, Forget]
    assert isinstance(record.outcome, Finished)
    assert record.outcome.reason == (
        "ECS let the container wait for 900 s: MISCONFIGURATION: no host is large enough"
    )


def test_a_container_whose_user_code_ran_already_is_not_failed_for_waiting() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=900.0)
    record = record_in(Phase.ACTIVE, seen_running=True)
    step(record, Observed(STUCK), NOW, rules)
    assert step(record, Observed(STUCK, pause=9000.0), NOW + 9000.0, rules) == []
    assert record.phase is Phase.ACTIVE


def test_the_next_container_may_wait_for_as_long_as_the_one_before_it() -> None:
    rules = Rules(service="ECS", capacity_timeout=600.0)
    record = record_in(X, seen_at=NOW - 1.0)
    step(record, Observed(seen(Seen.PENDING, reason="CAPACITY")), NOW, rules)
    step(record, Observed(seen(Seen.STOPPED)), NOW + 590.0, rules)
    assert (record.phase, record.held, record.told) == (Phase.WAITING, NOT_YET, ())
