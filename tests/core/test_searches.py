"""Which container is a launch's, where no request can tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ecs_async_executor.core import beginnings
from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.events import (
    Checked,
    Effect,
    Enqueue,
    Forget,
    Found,
    Poll,
    Search,
    SearchRefused,
    SendStop,
)
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import AirflowState, Finished, Launched, Unfollowed
from ecs_async_executor.core.phases import (
    SUPERSEDED,
    WANTED,
    Checking,
    Demand,
    Ended,
    InDoubt,
    Phase,
    Running,
    Searching,
    Starting,
    Tracked,
    Unlocated,
    Waiting,
    Why,
)
from ecs_async_executor.core.table import step
from tests.core.lives import (
    HANDLE,
    LAUNCH,
    LOST,
    MISSING,
    NEVER_STARTED,
    NOW,
    OLD,
    QUEUED,
    QUEUED_AT,
    RESTARTING,
    REVOKED,
    RULES,
    RUNNING,
    RUNS,
    SPEC,
    checking,
    in_doubt,
    kinds,
    searching,
    seen,
    tracked,
)

TOKENED = LAUNCH.evolve(tokened=True)
U59: dict[str, Any] = {"missing": Grace(59.0, NOW)}
U60: dict[str, Any] = {"missing": Grace(60.0, NOW)}
SENT: dict[str, Any] = {"sent": True}
FALLBACK: dict[str, Any] = {"fallback": HANDLE}
CLAIMED, OVER = [Poll, Launched], [Poll, Launched, Finished, Forget]
LOST_SIGHT_OF = [Poll, Launched, SendStop, Finished, Forget]


@pytest.mark.parametrize(
    ("state", "handle_id", "tokened", "phase"),
    [
        (QUEUED, None, True, Searching),
        (QUEUED, None, False, Searching),
        (QUEUED, "arn", True, Checking),
        (RUNNING, None, True, Searching),
        (RUNNING, "arn", False, Checking),
        (RESTARTING, "arn", True, Checking),
    ],
)
def test_how_an_adopted_launch_begins(
    state: AirflowState, handle_id: str | None, tokened: bool, phase: type
) -> None:
    begun = beginnings.adopted(state, handle_id, tokened=tokened, now=NOW, not_before=NOW + 1.0)
    assert type(begun) is phase
    assert begun.not_before == NOW + 1.0
    assert begun.adopted is state
    asks = state is QUEUED and handle_id is None and tokened
    assert (isinstance(begun, Searching) and begun.onward is not None) == asks


def test_an_adopted_launch_whose_client_tokens_are_known_asks_by_them_what_the_search_has_missed() -> None:
    launch = tracked(adopted(), launch=TOKENED)
    assert kinds(step(launch, Found(None), NOW, RULES)) == [Search]
    assert kinds(step(launch, Found(None), NOW + RULES.search_interval, RULES)) == [Enqueue]
    assert isinstance(launch.phase, InDoubt)
    assert launch.phase.doubt.inherited
    assert not launch.phase.doubt.ours
    # Nor does it fail because nobody may list: the request answers as well.
    launch = tracked(adopted(), launch=TOKENED)
    assert kinds(asked_for(RULES.permanent_error_grace, launch, SearchRefused("denied"))) == [Enqueue]
    assert isinstance(launch.phase, InDoubt)
    # One that nobody wants is not sent.
    launch = tracked(with_absent(adopted(), 5), REVOKED, launch=TOKENED)
    assert kinds(step(launch, Found(None), NOW, RULES)) == [Forget]


def adopted() -> Searching:
    phase = beginnings.adopted(QUEUED, None, tokened=True, now=NOW, not_before=NOW)
    assert isinstance(phase, Searching)
    return phase


def test_a_revoked_request_in_doubt_is_sent_again_after_the_search_to_learn_its_container() -> None:
    launch = tracked(searching(onward=in_doubt(), **SENT), REVOKED)
    assert kinds(step(launch, Found(None), NOW, RULES)) == [Search]
    launch.phase = with_absent(searching(onward=in_doubt(), **SENT), 20)
    assert kinds(step(launch, Found(None), NOW, RULES)) == [Enqueue]
    sent_again: Phase = launch.phase
    assert sent_again == in_doubt()


@pytest.mark.parametrize(
    ("phase", "observation", "then", "effects"),
    [
        # The one that Airflow names.
        (checking(QUEUED), RUNS, Running, CLAIMED),
        (checking(QUEUED), NEVER_STARTED, Searching, [Search]),
        (checking(RUNNING), NEVER_STARTED, Searching, [Search]),
        (checking(RUNNING), OLD, Searching, [Search]),
        (checking(QUEUED), OLD, Searching, [Search]),
        (checking(RUNNING, **U59), MISSING, Checking, [Search]),
        (checking(RUNNING, **U60), MISSING, Searching, [Search]),
        (checking(QUEUED), MISSING, Checking, [Search]),
        (checking(QUEUED, **U60), MISSING, Searching, [Search]),
        # The one that the client token made.
        (checking(QUEUED, why=Why.TOKEN), RUNS, Running, CLAIMED),
        (checking(None, why=Why.TOKEN), seen(Seen.STOPPED, exit_code=0, started=True), Ended, OVER),
        (checking(None, why=Why.TOKEN), OLD, Searching, [Search]),
        (checking(None, why=Why.TOKEN), MISSING, Checking, [Search]),
        (checking(None, why=Why.TOKEN, **U60), MISSING, Starting, CLAIMED),
    ],
)
def test_every_answer_about_one_container(
    phase: Checking, observation: Observation, then: type, effects: list[type]
) -> None:
    launch = tracked(phase)
    assert kinds(step(launch, Checked(observation), NOW, RULES)) == effects
    assert type(launch.phase) is then
    used_up = phase.why is Why.TOKEN and then is Searching
    assert launch.client_token(SPEC) == ("id-2" if used_up else "id-1")


@pytest.mark.parametrize(
    ("phase", "absent", "observation", "then", "effects"),
    [
        # Found.
        (searching(QUEUED), 0, RUNS, Running, CLAIMED),
        (searching(QUEUED), 0, LOST, Ended, OVER),
        (searching(None, **SENT), 0, RUNS, Running, CLAIMED),
        (searching(RUNNING), 0, OLD, Running, CLAIMED),
        # Found, but there may be another after it.
        (searching(QUEUED), 19, NEVER_STARTED, Searching, [Search]),
        (searching(QUEUED), 20, NEVER_STARTED, InDoubt, [*CLAIMED, Enqueue]),
        (searching(RUNNING), 59, NEVER_STARTED, Searching, [Search]),
        (searching(RUNNING), 60, NEVER_STARTED, Ended, OVER),
        # Of an earlier queueing.
        (searching(QUEUED), 0, OLD, Searching, [Search]),
        (searching(QUEUED), 20, OLD, Waiting, [Enqueue]),
        (searching(None, **SENT), 59, OLD, Searching, [Search]),
        (searching(None, **SENT), 60, OLD, Ended, [Finished, Forget]),
        # Not known.
        (searching(RUNNING, **FALLBACK), 59, None, Searching, [Search]),
        (searching(RUNNING, **FALLBACK), 60, None, Ended, LOST_SIGHT_OF),
        (searching(RUNNING, **FALLBACK), 0, RUNS, Running, CLAIMED),
        (searching(RUNNING, **U59), 90, MISSING, Searching, [Search]),
        (searching(RUNNING, **U60), 90, MISSING, Ended, LOST_SIGHT_OF),
        (searching(QUEUED, **U60), 60, MISSING, Waiting, [Enqueue]),
        (searching(None, **SENT, **U60), 60, MISSING, Ended, LOST_SIGHT_OF),
        (searching(None, **U60), 60, MISSING, Waiting, [Enqueue]),
        # None there.
        (searching(QUEUED), 19, None, Searching, [Search]),
        (searching(QUEUED), 20, None, Waiting, [Enqueue]),
        (searching(QUEUED, **SENT), 59, None, Searching, [Search]),
        (searching(QUEUED, **SENT), 60, None, Ended, [Finished, Forget]),
        (searching(RUNNING), 59, None, Searching, [Search]),
        (searching(RUNNING), 60, None, Ended, [Finished, Forget]),
        (searching(RESTARTING), 60, None, Ended, [Finished, Forget]),
        (searching(None, **SENT), 60, None, Ended, [Finished, Forget]),
        (searching(None), 20, None, Waiting, [Enqueue]),
    ],
)
def test_every_answer_to_a_search(
    phase: Searching, absent: float, observation: Observation | None, then: type, effects: list[type]
) -> None:
    launch = tracked(with_absent(phase, absent))
    assert kinds(step(launch, Found(observation), NOW, RULES)) == effects
    assert type(launch.phase) is then


def with_absent(phase: Searching, seconds: float) -> Searching:
    from msgspec.structs import replace

    return replace(phase, absent=Grace(float(seconds), NOW))


@pytest.mark.parametrize(
    ("phase", "demand", "absent", "observation", "then", "effects"),
    [
        (searching(QUEUED), REVOKED, 0, RUNS, Running, [Poll, SendStop]),
        (searching(QUEUED), REVOKED, 20, None, Ended, [Forget]),
        (searching(RUNNING), SUPERSEDED, 60, None, Ended, [Forget]),
        (searching(RUNNING, **FALLBACK), REVOKED, 60, None, Ended, [Poll, SendStop, Forget]),
        (searching(RUNNING, **U60), REVOKED, 90, MISSING, Ended, [Poll, SendStop, Forget]),
    ],
)
def test_every_answer_to_a_search_for_a_launch_that_is_not_wanted(
    phase: Searching,
    demand: Demand,
    absent: float,
    observation: Observation | None,
    then: type,
    effects: list[type],
) -> None:
    launch = tracked(with_absent(phase, absent), demand)
    assert kinds(step(launch, Found(observation), NOW, RULES)) == effects
    assert type(launch.phase) is then


def test_a_launch_that_airflow_assigned_an_identity_is_launched_after_a_second_search() -> None:
    launch = tracked(searching(QUEUED), launch=tracked(searching()).launch.evolve(tokened=True))
    assert kinds(step(launch, Found(None), NOW, RULES)) == [Search]
    assert kinds(step(launch, Found(None), NOW + RULES.search_interval, RULES)) == [Enqueue]


def test_what_is_absent_is_counted_by_answers_not_by_time() -> None:
    launch = tracked(searching(RUNNING))
    for at in (0.0, 600.0, 1200.0):
        assert kinds(step(launch, Found(None), NOW + at, RULES)) == [Search]
    assert isinstance(launch.phase, Searching)
    assert launch.phase.absent == Grace(2 * RULES.search_interval, NOW + 1200.0)


def test_a_continued_identity_is_what_the_client_tokens_are_made_of() -> None:
    mark = "12345678-1234-1234-1234-123456789012"
    launch = tracked(checking(RUNNING))
    step(launch, Checked(seen(Seen.RUNNING, created_at=QUEUED_AT - 60.0, started_by=mark)), NOW, RULES)
    assert launch.launch.started_by == mark
    assert launch.client_token(dataclasses.replace(SPEC, started_by=mark)) == f"{mark}-1"
    assert launch.client_token(dataclasses.replace(SPEC, started_by="the user's own")) == "id-1"


def asked_for(seconds: float, launch: Tracked, event: SearchRefused) -> list[Effect]:
    """Let the search be refused for so long, as often as it is made."""
    for nth in range(int(seconds / RULES.search_interval)):
        assert kinds(step(launch, event, NOW + nth * RULES.search_interval, RULES)) == [Search]
    return step(launch, event, NOW + seconds, RULES)


@pytest.mark.parametrize(
    ("phase", "demand", "then", "effects"),
    [
        (checking(QUEUED), WANTED, Ended, [Finished, Forget]),
        (searching(QUEUED), WANTED, Ended, [Finished, Forget]),
        (searching(None, **SENT), WANTED, Ended, [Finished, Forget]),
        (searching(RUNNING), WANTED, Searching, [Search]),  # Airflow hears from it by itself
        (checking(RESTARTING), WANTED, Checking, [Search]),
        (searching(RUNNING), REVOKED, Ended, [Forget]),
        (searching(QUEUED), SUPERSEDED, Ended, [Forget]),
    ],
)
def test_a_search_that_is_refused_for_longer_than_the_grace(
    phase: Unlocated, demand: Demand, then: type, effects: list[type]
) -> None:
    launch = tracked(phase, demand)
    assert kinds(asked_for(RULES.permanent_error_grace, launch, SearchRefused("denied"))) == effects
    assert type(launch.phase) is then


@pytest.mark.parametrize(
    ("phase", "demand", "grace", "effects"),
    [
        (searching(QUEUED), WANTED, RULES.permanent_error_grace, [Finished, Forget]),
        (searching(None), WANTED, RULES.permanent_error_grace, [Finished, Forget]),
        (searching(RUNNING), WANTED, RULES.lost_container_grace, [Unfollowed, Forget]),
        (searching(RESTARTING), WANTED, RULES.lost_container_grace, [Unfollowed, Forget]),
        (searching(RUNNING), REVOKED, RULES.permanent_error_grace, [Forget]),
    ],
)
def test_what_nobody_can_say_where_to_look_for_ends_with_what_keeps_it_from_being_said(
    phase: Searching, demand: Demand, grace: float, effects: list[type]
) -> None:
    launch = tracked(phase, demand)
    event = SearchRefused("KeyError: 'team'", place_unknown=True)
    assert kinds(asked_for(grace, launch, event)) == effects
    assert isinstance(launch.phase, Ended)
    if demand is WANTED:
        assert isinstance(launch.phase.report, Finished | Unfollowed)
        assert launch.phase.report.reason == (
            f"It is unknown whether there is a container: nothing said where to look for {grace:.0f} s: "
            "KeyError: 'team'"
        )


def test_what_is_unwanted_and_cannot_be_searched_for_is_stopped_all_the_same_if_airflow_names_it() -> None:
    launch = tracked(checking(RUNNING), REVOKED)
    effects = asked_for(RULES.permanent_error_grace, launch, SearchRefused("denied", named=HANDLE))
    assert effects == [SendStop(HANDLE, "revoked"), Forget()]


def test_an_answer_ends_the_grace_of_a_refused_search() -> None:
    launch = tracked(searching(RUNNING))
    step(launch, SearchRefused("denied"), NOW, RULES)
    step(launch, Found(None), NOW + 1.0, RULES)
    assert isinstance(launch.phase, Searching)
    assert launch.phase.refused == NOT_YET
