"""What each refusal of a request means, and how long a launch is patient."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from ecs_async_executor.core.attempts import is_news_at_gate
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import (
    Barred,
    Because,
    Doubted,
    Effect,
    Emit,
    Enqueue,
    Event,
    Forget,
    Found,
    LookInstead,
    Poll,
    Replied,
    Search,
    Unblocked,
)
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import Finished, Launched
from ecs_async_executor.core.phases import (
    Checking,
    Doubt,
    Ended,
    InDoubt,
    Patience,
    Phase,
    Running,
    Searching,
    SearchPlace,
    Sending,
    Starting,
    Waiting,
    Why,
)
from ecs_async_executor.core.table import step
from tests.core.lives import (
    HANDLE,
    LAUNCH,
    NOW,
    PENDING,
    REVOKED,
    RULES,
    RUNS,
    SPEC,
    in_doubt,
    inherited,
    kinds,
    notices,
    refusal,
    sending,
    tracked,
    waiting,
)

TOKENED = LAUNCH.evolve(tokened=True)
OURS = Doubt(NOW - 5.0, SPEC)
REFUSALS: dict[tuple[Kind, bool], tuple[type, list[type]]] = {
    (Kind.THROTTLED, False): (Waiting, [Enqueue]),
    (Kind.THROTTLED, True): (InDoubt, [Enqueue]),
    (Kind.CONCURRENT, False): (Waiting, [Enqueue]),
    (Kind.CONCURRENT, True): (InDoubt, [Enqueue]),
    (Kind.AMBIGUOUS, False): (InDoubt, [Enqueue]),
    (Kind.AMBIGUOUS, True): (InDoubt, [Enqueue]),
    (Kind.UNSENT, False): (Waiting, [Enqueue]),
    (Kind.UNSENT, True): (InDoubt, [Enqueue]),
    (Kind.CAPACITY, False): (Waiting, [Enqueue]),
    (Kind.CAPACITY, True): (InDoubt, [Enqueue]),
    (Kind.CREDENTIALS, False): (Waiting, [Enqueue]),
    (Kind.CREDENTIALS, True): (InDoubt, [Enqueue]),
    (Kind.REFUSED, False): (Waiting, [Enqueue]),
    (Kind.REFUSED, True): (InDoubt, [Enqueue]),
    (Kind.INVALID, False): (Ended, [Finished, Forget]),
    (Kind.INVALID, True): (Searching, [Search]),
    (Kind.CONFLICT, False): (Waiting, [Enqueue]),
    (Kind.CONFLICT, True): (Searching, [Search]),
    (Kind.NOT_FOUND, False): (Ended, [Finished, Forget]),
    (Kind.NOT_FOUND, True): (Searching, [Search]),
}


def test_the_table_of_refusals_is_complete() -> None:
    assert set(REFUSALS) == set(itertools.product(Kind, (False, True)))


@pytest.mark.parametrize(("kind", "maybe_sent"), REFUSALS, ids=str)
def test_every_refusal(kind: Kind, maybe_sent: bool) -> None:
    launch = tracked(sending(OURS if maybe_sent else None))
    effects = step(launch, refusal(kind), NOW, RULES)
    phase = launch.phase
    assert (type(phase), kinds(effects)) == REFUSALS[kind, maybe_sent]
    assert (launch.attempt, launch.used) == (1, kind is Kind.CONFLICT)
    if isinstance(phase, InDoubt):
        assert phase.doubt.spec is SPEC, "the same bytes are sent again"
        assert phase.doubt.since == (NOW - 5.0 if maybe_sent else NOW)
    if isinstance(phase, Searching):
        assert phase.place == SearchPlace("default", "mark")


FAILURES = (Kind.CAPACITY, Kind.REFUSED)
"""What an answer that the service made after it took the client token can mean."""


@pytest.mark.parametrize("kind", FAILURES, ids=str)
@pytest.mark.parametrize("inherits", [False, True], ids=["own", "adopted"])
def test_a_failure_that_the_client_token_may_remember_uses_its_number_up(kind: Kind, inherits: bool) -> None:
    launch = tracked(sending(Doubt(NOW - 5.0, inherited=True) if inherits else None))
    for number in (2, 3):
        assert kinds(step(launch, refusal(kind, token_used=True), NOW, RULES)) == [Enqueue]
        assert isinstance(launch.phase, InDoubt if inherits else Waiting)
        assert launch.client_token(SPEC) == f"id-{number}"
        launch.phase = sending(launch.phase.doubt if isinstance(launch.phase, InDoubt) else None)
    assert kinds(step(launch, refusal(Kind.CONFLICT), NOW, RULES)) == [Enqueue]
    assert launch.client_token(SPEC) == "id-4"


@pytest.mark.parametrize(("kind", "inherits"), [*itertools.product((*FAILURES, Kind.CONFLICT), (False, True))])
def test_a_number_that_is_used_up_while_an_earlier_request_under_it_is_in_doubt_is_left_after_a_search(
    kind: Kind, inherits: bool
) -> None:
    doubt = Doubt(NOW - 5.0, SPEC, inherits)
    launch = tracked(sending(doubt), launch=TOKENED)
    assert kinds(step(launch, refusal(kind, token_used=True), NOW, RULES)) == [Search]
    assert isinstance(launch.phase, Searching)
    assert (launch.phase.place, launch.phase.sent) == (SearchPlace("default", "mark"), True)
    # A request that is still on its way shows up in the listing by then.
    for at in range(0, int(RULES.absent_grace), int(RULES.search_interval)):
        assert kinds(step(launch, Found(None), NOW + at, RULES)) == [Search]
    assert kinds(step(launch, Found(None), NOW + RULES.absent_grace, RULES)) == [Enqueue]
    after: Phase = launch.phase
    assert isinstance(after, InDoubt if inherits else Waiting)
    assert not isinstance(after, InDoubt) or not after.doubt.ours
    assert launch.client_token(SPEC) == "id-2"


def test_a_container_that_such_a_search_finds_is_the_launchs() -> None:
    launch = tracked(sending(OURS))
    step(launch, refusal(Kind.CAPACITY, token_used=True), NOW, RULES)
    assert kinds(step(launch, Found(RUNS), NOW, RULES)) == [Poll, Launched]
    assert isinstance(launch.phase, Running)


def test_a_refusal_made_before_the_client_token_was_taken_uses_nothing_up() -> None:
    for kind in (Kind.CAPACITY, Kind.REFUSED, Kind.THROTTLED, Kind.CREDENTIALS):
        launch = tracked(sending())
        step(launch, refusal(kind), NOW, RULES)
        assert launch.client_token(SPEC) == "id-1"


@pytest.mark.parametrize("doubt", [None, OURS, Doubt(NOW - 5.0, inherited=True)], ids=["none", "ours", "theirs"])
@pytest.mark.parametrize("event", [Replied(PENDING), refusal(Kind.CONFLICT, HANDLE.id)], ids=["reply", "conflict"])
def test_a_client_token_that_leads_to_a_container_which_never_started_is_used_up(
    doubt: Doubt | None, event: Event
) -> None:
    launch = tracked(sending(doubt), attempt=2, past=(HANDLE.id,))
    assert kinds(step(launch, event, NOW, RULES)) == [Enqueue]
    assert isinstance(launch.phase, InDoubt if doubt is not None and doubt.inherited else Waiting)
    assert (launch.attempt, launch.client_token(SPEC)) == (2, "id-3")


def test_after_a_silence_a_launch_with_numbers_of_its_own_is_searched_for_before_it_is_sent_again() -> None:
    plain, numbered = tracked(in_doubt()), tracked(in_doubt(), used=1)
    assert step(plain, Doubted(), NOW, RULES) == []
    assert kinds(step(numbered, Doubted(), NOW, RULES)) == [Search]
    assert isinstance(numbered.phase, Searching)
    assert numbered.phase.onward == in_doubt()


@pytest.mark.parametrize("kind", Kind, ids=str)
@pytest.mark.parametrize("maybe_sent", [False, True], ids=["first", "resent"])
def test_a_revoked_launch_is_dropped_on_a_definite_refusal_and_learnt_otherwise(
    kind: Kind, maybe_sent: bool
) -> None:
    launch = tracked(sending(OURS if maybe_sent else None), REVOKED)
    effects = step(launch, refusal(kind), NOW, RULES)
    expected = REFUSALS[kind, maybe_sent][0]
    assert type(launch.phase) is (Ended if expected is Waiting else expected)
    assert not any(isinstance(effect, Emit) for effect in effects)


@pytest.mark.parametrize("kind", [Kind.INVALID, Kind.NOT_FOUND], ids=str)
def test_what_the_scheduler_before_us_may_have_launched_is_searched_for_not_failed(kind: Kind) -> None:
    launch = tracked(sending(Doubt(NOW - 1.0, inherited=True)))
    assert kinds(step(launch, refusal(kind), NOW, RULES)) == [Search]
    assert isinstance(launch.phase, Searching)
    assert not launch.phase.sent


def test_past_the_resend_window_the_client_token_is_not_sent_again() -> None:
    launch = tracked(sending(Doubt(NOW - RULES.resend_window, SPEC)))
    assert kinds(step(launch, refusal(Kind.AMBIGUOUS), NOW, RULES)) == [Search]
    assert isinstance(launch.phase, Searching)
    assert launch.phase.sent


def test_a_service_without_tokens_is_searched_and_never_asked_twice() -> None:
    launch = tracked(sending())
    rules = dataclasses.replace(RULES, repeatable=False)
    assert kinds(step(launch, refusal(Kind.AMBIGUOUS), NOW, rules)) == [Search]


@pytest.mark.parametrize(
    ("doubt", "phase", "effects"),
    [
        (OURS, Starting, [Poll, Launched]),  # our own request did it
        (None, Checking, [Search]),  # somebody else's did
        (Doubt(NOW - 5.0, SPEC, inherited=True), Checking, [Search]),
        (Doubt(NOW - 5.0, inherited=True), Checking, [Search]),
    ],
)
def test_a_conflicts_container_is_claimed_once_it_is_known_to_be_of_this_queueing(
    doubt: Doubt | None, phase: type, effects: list[type]
) -> None:
    launch = tracked(sending(doubt))
    assert kinds(step(launch, refusal(Kind.CONFLICT, "arn"), NOW, RULES)) == effects
    assert type(launch.phase) is phase
    if isinstance(launch.phase, Checking):
        assert (launch.phase.container, launch.phase.why) == ("arn", Why.TOKEN)
    else:
        assert launch.handle is not None
        assert launch.handle.id == "arn"


def barred(kind: Kind, at: float, pause: float = 5.0, since: float = NOW) -> Barred:
    return Barred(kind, "words", since, at, pause)


@pytest.mark.parametrize(
    ("kind", "words"), [(Kind.CAPACITY, "had no capacity for"), (Kind.REFUSED, "refused")], ids=str
)
def test_a_launch_at_a_closed_gate_is_failed_when_the_answers_have_lasted_too_long(kind: Kind, words: str) -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=120.0, permanent_error_grace=120.0)
    launch = tracked(waiting())
    told: list[str] = []
    effects: list[Effect] = []
    for at in (5.0, 605.0, 620.0, 640.0, 680.0):  # no answer between the first two
        effects = step(launch, barred(kind, NOW + at, pause=60.0), NOW + at, rules)
        told += notices(effects)
        assert kinds(effects) == ([Finished, Forget] if at == 680.0 else [])
    assert isinstance(launch.phase, Ended)
    assert isinstance(launch.phase.report, Finished)
    assert launch.phase.report.reason == f"ECS {words} the container for 140 s: words"
    assert len(told) == 1


def test_a_gate_that_has_refused_nothing_since_is_no_news() -> None:
    launch, event = tracked(waiting()), barred(Kind.CAPACITY, NOW + 5.0)
    assert is_news_at_gate(launch, event, NOW, RULES)
    step(launch, event, NOW + 5.0, RULES)
    assert not is_news_at_gate(launch, event, NOW + 6.0, RULES)
    assert is_news_at_gate(launch, barred(Kind.CAPACITY, NOW + 10.0), NOW + 10.0, RULES)
    assert is_news_at_gate(launch, barred(Kind.REFUSED, NOW + 5.0), NOW + 6.0, RULES)
    ours = tracked(in_doubt(NOW))
    step(ours, event, NOW + 5.0, RULES)
    assert not is_news_at_gate(ours, event, NOW + 6.0, RULES)
    assert is_news_at_gate(ours, event, NOW + RULES.resend_window, RULES)


def test_what_the_gate_answered_before_the_launch_came_does_not_count() -> None:
    launch = tracked(waiting())
    launch.since = NOW + 100.0
    step(launch, barred(Kind.REFUSED, NOW + 90.0), NOW + 101.0, RULES)
    step(launch, barred(Kind.REFUSED, NOW + 110.0, pause=60.0), NOW + 111.0, RULES)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience.barred == Grace(10.0, NOW + 110.0)


def test_a_gate_that_was_open_in_between_starts_the_grace_again_but_not_the_wait_for_capacity() -> None:
    launch = tracked(waiting())
    for kind in (Kind.REFUSED, Kind.CAPACITY):
        step(launch, barred(kind, NOW + 5.0), NOW + 5.0, RULES)
        step(launch, barred(kind, NOW + 60.0, since=NOW + 55.0), NOW + 60.0, RULES)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience.barred.counted == 5.0
    assert launch.phase.patience.short.counted == 10.0


def test_at_a_closed_gate_what_may_run_ends_by_the_age_of_its_request_alone() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=1.0)
    ours, theirs = tracked(in_doubt()), tracked(inherited())
    for launch in (ours, theirs):
        step(launch, barred(Kind.CAPACITY, NOW + 5.0), NOW + 5.0, rules)
    assert isinstance(ours.phase, InDoubt)
    assert isinstance(theirs.phase, Searching), "the scheduler before us may have launched it"
    old = tracked(in_doubt(NOW - RULES.resend_window))
    step(old, barred(Kind.CAPACITY, NOW), NOW, RULES)
    assert isinstance(old.phase, Searching)


def test_a_launch_refused_alone_is_failed_after_the_grace_though_others_pass() -> None:
    launch = tracked(sending())
    effects: list[Effect] = []
    for at in (0.0, 60.0, 120.0):
        launch.phase = Sending(SPEC, patience=getattr(launch.phase, "patience", Patience()))
        effects = step(launch, refusal(Kind.REFUSED, pause=60.0), NOW + at, RULES)
    assert kinds(effects) == [Finished, Forget]
    assert isinstance(launch.phase, Ended)
    assert isinstance(launch.phase.report, Finished)
    assert launch.phase.report.reason == "ECS refused the container for 120 s: Code: words"


def test_another_answer_ends_the_grace_of_refusals() -> None:
    launch = tracked(Sending(SPEC, patience=Patience(refused=Grace(119.0, NOW - 1.0))))
    step(launch, refusal(Kind.THROTTLED), NOW, RULES)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience.refused == NOT_YET


def test_a_refused_probe_lets_others_try_first() -> None:
    launch = tracked(sending())
    step(launch, refusal(Kind.CAPACITY, probe=True), NOW, RULES)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience == Patience(errors=1, probes=1)
    launch.phase = Sending(SPEC, patience=launch.phase.patience)
    step(launch, refusal(Kind.THROTTLED, probe=True), NOW, RULES)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience == Patience(errors=2, probes=1)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (refusal(Kind.CAPACITY), "The container waits: ECS has no capacity for it: Code: words"),
        (refusal(Kind.REFUSED), "The container waits: ECS refuses it: Code: words"),
        (refusal(Kind.AMBIGUOUS, unanswered=True), "The container waits: ECS gives no answer: Code: words"),
    ],
)
def test_why_a_launch_waits_is_told_once(event: object, text: str) -> None:
    launch = tracked(sending())
    assert notices(step(launch, event, NOW, RULES)) == [text]  # type: ignore[arg-type]
    launch.phase = sending()
    assert notices(step(launch, event, NOW, RULES)) == []  # type: ignore[arg-type]
    assert notices(step(tracked(sending(), REVOKED), event, NOW, RULES)) == []  # type: ignore[arg-type]


def test_a_search_instead_of_another_send_goes_where_the_request_went() -> None:
    launch = tracked(in_doubt())
    step(launch, LookInstead(Because.ELSEWHERE), NOW, RULES)
    assert isinstance(launch.phase, Searching)
    assert (launch.phase.place, launch.phase.sent) == (SearchPlace("default", "mark"), True)


def test_the_age_of_a_client_tokens_container_is_asked_for_under_the_same_number() -> None:
    launch = tracked(sending())
    step(launch, refusal(Kind.CONFLICT, "arn"), NOW, RULES)
    assert launch.client_token(SPEC) == "id-1"


def test_only_a_launch_held_back_for_its_predecessor_is_unblocked() -> None:
    held, retried, ours = (
        tracked(Waiting(NOW + 90.0)),
        tracked(Waiting(NOW + 90.0, Patience(errors=1))),
        tracked(InDoubt(NOW + 90.0, OURS)),
    )
    assert step(held, Unblocked(), NOW, RULES) == [Enqueue()]
    assert held.phase == Waiting(NOW)
    assert step(retried, Unblocked(), NOW, RULES) == step(ours, Unblocked(), NOW, RULES) == []
