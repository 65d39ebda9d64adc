"""What the service says of a container, and what that makes of its launch."""

from __future__ import annotations

import dataclasses
from copy import copy

import pytest
from msgspec.structs import replace

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.containers import is_news
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.events import (
    Effect,
    Emit,
    Enqueue,
    Forget,
    Observed,
    Replied,
    Requested,
    SendStop,
    StopTargetMissing,
)
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import Finished, HeldUp
from ecs_async_executor.core.notices import topic
from ecs_async_executor.core.phases import (
    SUPERSEDED,
    WANTED,
    Demand,
    Ended,
    InDoubt,
    Located,
    Running,
    Starting,
    Tracked,
    Waiting,
)
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.core.table import step
from tests.core.lives import (
    FAILED,
    HANDLE,
    LAUNCH,
    LOST,
    MISSING,
    NEVER_STARTED,
    NOW,
    PENDING,
    REVOKED,
    RULES,
    RUNS,
    SPEC,
    kinds,
    notices,
    running,
    seen,
    starting,
    tracked,
    waiting,
)

OVER = [Finished, Forget]


@pytest.mark.parametrize(
    ("observation", "phase", "news"),
    [
        (RUNS, starting(), True),
        (RUNS, running(), False),
        (RUNS, starting(seen=True), True),
        (RUNS, running(confirmed=False), True),
        (RUNS, running(missing=Grace(0.0, NOW)), True),
        (MISSING, running(), True),
        (PENDING, starting(seen=True), False),
        (seen(Seen.PENDING, exit_code=0, started=True), running(), True),
        (seen(Seen.STOPPED, started=True), running(), True),
    ],
)
def test_what_is_no_news_changes_nothing(observation: Observation, phase: Located, news: bool) -> None:
    launch = tracked(phase)
    assert is_news(phase, observation) is news
    if not news:
        before = copy(launch)
        assert step(launch, Observed(observation), NOW, RULES) == []
        assert all(getattr(launch, name) == getattr(before, name) for name in launch.__struct_fields__)


@pytest.mark.parametrize(
    ("observation", "phase", "attempt", "demand", "then", "effects"),
    [
        (PENDING, starting(), 1, WANTED, Starting, []),
        (RUNS, starting(), 1, WANTED, Running, []),
        (seen(Seen.RUNNING, exit_code=0, started=True), starting(), 1, WANTED, Ended, OVER),
        (FAILED, starting(), 1, WANTED, Ended, OVER),
        (LOST, starting(), 1, WANTED, Ended, OVER),
        (NEVER_STARTED, starting(), 1, WANTED, Waiting, [Enqueue]),
        (NEVER_STARTED, starting(), 2, WANTED, Waiting, [Enqueue]),
        (NEVER_STARTED, starting(), 3, WANTED, Ended, OVER),
        (NEVER_STARTED, running(), 1, WANTED, Ended, OVER),
        (NEVER_STARTED, starting(inherited=True), 1, WANTED, InDoubt, [Enqueue]),
        (NEVER_STARTED, running(confirmed=False), 1, WANTED, Ended, OVER),
        (NEVER_STARTED, starting(), 1, SUPERSEDED, Ended, [Forget]),
        (NEVER_STARTED, starting(), 1, REVOKED, Ended, [Forget]),
        (seen(Seen.STOPPED, by_hand=True), starting(), 1, WANTED, Ended, OVER),
        (MISSING, starting(), 1, WANTED, Starting, []),
        (MISSING, starting(missing=Grace(59.0, NOW)), 1, WANTED, Starting, []),
        (MISSING, starting(missing=Grace(60.0, NOW)), 1, WANTED, Ended, [SendStop, *OVER]),
        (MISSING, starting(seen=True, missing=Grace(60.0, NOW)), 1, WANTED, Ended, [SendStop, *OVER]),
        (MISSING, running(missing=Grace(60.0, NOW)), 1, WANTED, Running, []),
        (MISSING, running(missing=Grace(240.0, NOW)), 1, WANTED, Ended, [SendStop, *OVER]),
        # An adopted one runs by Airflow's word; here it counts once the service has told of it.
        (MISSING, running(confirmed=False, missing=Grace(60.0, NOW)), 1, WANTED, Ended, [SendStop, *OVER]),
        # Its stop is owed already.
        (MISSING, starting(missing=Grace(60.0, NOW)), 1, REVOKED, Ended, [Forget]),
        (MISSING, running(missing=Grace(60.0, NOW)), 1, REVOKED, Ended, [Forget]),
        (MISSING, starting(missing=Grace(60.0, NOW)), 1, SUPERSEDED, Ended, [SendStop, Forget]),
    ],
)
def test_every_observation(
    observation: Observation, phase: Located, attempt: int, demand: Demand, then: type, effects: list[type]
) -> None:
    launch = tracked(phase, demand, attempt=attempt)
    assert kinds(step(launch, Observed(observation), NOW, RULES)) == effects
    assert type(launch.phase) is then
    if isinstance(launch.phase, Waiting | InDoubt):
        assert launch.client_token(SPEC) == f"id-{attempt + 1}"
        assert launch.past == ("arn",)
        assert launch.handle is None


def test_a_sweep_counts_no_more_of_a_silence_than_it_meant_to_wait() -> None:
    launch = tracked(starting(missing=Grace(10.0, NOW - 600.0)))
    step(launch, Observed(MISSING, pause=1.0), NOW, RULES)
    assert isinstance(launch.phase, Starting)
    assert launch.phase.missing == Grace(11.0, NOW)


@pytest.mark.parametrize(
    ("observation", "success", "reason"),
    [
        (seen(Seen.RUNNING, exit_code=0, started=True), True, None),
        (FAILED, False, "The container exited 1"),
        (LOST, False, "The container stopped without an exit code (status STOPPED)"),
    ],
)
def test_the_outcome_says_why(observation: Observation, success: bool, reason: str | None) -> None:
    outcome = outcome_of(tracked(starting()), observation)
    assert (outcome.success, outcome.reason) == (success, reason)
    assert (outcome.handle_id, outcome.exit_code) == ("arn", observation.exit_code)


def test_the_outcome_says_what_size_the_container_had_and_how_it_was_chosen() -> None:
    launch = tracked(waiting())
    step(launch, Requested(dataclasses.replace(SPEC, choice="spot")), NOW, RULES)
    step(launch, Replied(PENDING), NOW, RULES)
    failed = seen(Seen.STOPPED, exit_code=137, started=True, ending=Ending.OOM, size=Size(1024, 4096))
    outcome = outcome_of(launch, failed)
    assert (outcome.ending, outcome.size, outcome.choice) == (Ending.OOM, Size(1024, 4096), "spot")


def test_a_success_tells_that_a_process_was_killed_for_want_of_memory() -> None:
    killed = seen(Seen.STOPPED, exit_code=0, started=True, reason="out", ending=Ending.OOM, size=Size(memory=512))
    outcome = outcome_of(tracked(running(), choice="spot"), killed)
    assert (outcome.success, outcome.ending, outcome.reason) == (True, Ending.OOM, "out")
    assert (outcome.size, outcome.choice) == (Size(memory=512), "spot")


def outcome_of(launch: Tracked, observation: Observation, rules: Rules = RULES) -> Finished:
    step(launch, Observed(observation), NOW, rules)
    assert isinstance(launch.phase, Ended)
    assert isinstance(launch.phase.report, Finished)
    return launch.phase.report


def test_the_last_container_says_how_many_there_were() -> None:
    outcome = outcome_of(tracked(starting(), attempt=3), NEVER_STARTED)
    assert outcome.reason == "CannotPullContainerError (container 3 of 3, none of them started)"


def test_a_container_that_the_service_lost_is_named() -> None:
    outcome = outcome_of(tracked(running(missing=Grace(240.0, NOW))), MISSING)
    assert outcome.reason == "ECS no longer knows the container arn (MISSING for 240 s)"
    outcome = outcome_of(tracked(starting(missing=Grace(60.0, NOW))), MISSING)
    assert outcome.reason == "ECS does not know the container arn (MISSING for 60 s)"


def test_what_is_known_again_was_not_missing() -> None:
    launch = tracked(starting(missing=Grace(59.0, NOW)))
    step(launch, Observed(RUNS), NOW, RULES)
    assert isinstance(launch.phase, Running)
    assert launch.phase.missing == NOT_YET
    assert step(launch, Observed(MISSING), NOW + 1.0, RULES) == []


@pytest.mark.parametrize(
    ("phase", "demand", "then", "effects"),
    [
        (starting(), WANTED, Starting, []),
        (starting(missing=Grace(60.0, NOW)), WANTED, Starting, []),  # the next sweep says so
        (starting(), REVOKED, Starting, []),  # launched a second ago: not known everywhere yet
        (starting(since=NOW - 600.0), REVOKED, Starting, []),
        (starting(seen=True), REVOKED, Starting, []),
        (running(), REVOKED, Running, []),
        (running(missing=Grace(60.0, NOW - 600.0)), REVOKED, Ended, [Forget]),
        (running(missing=Grace(50.0, NOW - 600.0)), REVOKED, Ended, [Forget]),
        (running(missing=Grace(49.0, NOW - 600.0)), REVOKED, Running, []),
        (running(missing=Grace(60.0, NOW)), SUPERSEDED, Running, []),
        (running(missing=Grace(240.0, NOW)), SUPERSEDED, Ended, [Forget]),
        (starting(missing=Grace(60.0, NOW)), SUPERSEDED, Ended, [Forget]),
    ],
)
def test_a_container_that_cannot_be_stopped_for_there_is_none(
    phase: Located, demand: Demand, then: type, effects: list[type]
) -> None:
    launch = tracked(phase, demand)
    assert kinds(step(launch, StopTargetMissing(pause=10.0), NOW, RULES)) == effects
    assert type(launch.phase) is then


def test_sweeps_and_stops_that_do_not_find_a_container_count_the_same_time_once() -> None:
    launch = tracked(running(), REVOKED)
    step(launch, StopTargetMissing(), NOW, RULES)
    for second in range(1, 60):
        step(launch, Observed(MISSING, pause=1.0), NOW + second, RULES)
        step(launch, StopTargetMissing(pause=10.0), NOW + second, RULES)
    assert isinstance(launch.phase, Running)
    assert step(launch, StopTargetMissing(pause=10.0), NOW + 60.0, RULES) == [Forget()]


@pytest.mark.parametrize("phase", [starting(), running(confirmed=False)])
def test_what_a_launch_is_made_of_is_kept_until_its_container_has_started_and_no_longer(phase: Located) -> None:
    whole = LAUNCH.evolve(workload="large", route=("queue", "large, too"), started_by="a mark")
    launch = tracked(phase, launch=whole)
    if isinstance(phase, Starting):
        step(launch, Observed(PENDING), NOW, RULES)
    assert launch.launch == whole
    step(launch, Observed(RUNS), NOW, RULES)
    assert launch.launch == LAUNCH.evolve(started_by=LAUNCH.launch_id)
    kept = launch.launch
    step(launch, Observed(RUNS), NOW, RULES)
    assert launch.launch is kept


# --- containers that the service has taken and lets wait ------------------------------------------------------

STUCK = seen(Seen.PENDING, reason="MISCONFIGURATION: no host is large enough")


def told(launch: Tracked, *reasons: str) -> list[str]:
    """Return what the event log is told while a container waits for these in turn."""
    texts: list[str] = []
    for number, reason in enumerate(reasons):
        effects = step(launch, Observed(seen(Seen.PENDING, reason=reason)), NOW + number, RULES)
        texts += notices(effects)
    return [text.removeprefix("The container waits: ECS: ") for text in texts]


def test_what_a_container_waits_for_is_told_once() -> None:
    wait = seen(Seen.PENDING, reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
    launch = tracked(starting(seen=True))

    def news(observation: Observation) -> bool:
        assert isinstance(launch.phase, Starting)
        return is_news(launch.phase, observation)

    assert news(wait)
    effects = step(launch, Observed(wait), NOW, RULES)
    assert notices(effects) == ["The container waits: ECS: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"]
    assert news(wait)  # it can have waited for too long by now
    assert step(launch, Observed(wait), NOW + 1.0, RULES) == []
    assert news(PENDING)
    assert step(launch, Observed(PENDING), NOW + 2.0, RULES) == []
    assert not news(PENDING)
    assert step(tracked(starting(seen=True), REVOKED), Observed(wait), NOW, RULES) == []


def test_what_a_container_waits_for_is_told_again_when_it_is_something_else() -> None:
    capacity, misfit = "CAPACITY:INSUFFICIENT_INSTANCE - m5", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - x"
    largest = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - y"
    launch = tracked(starting(seen=True))
    assert told(launch, capacity, misfit, misfit, largest, capacity) == [capacity, misfit, largest]


def test_what_differs_each_time_in_a_reason_is_no_news() -> None:
    launch = tracked(starting(seen=True))
    first = "CAPACITY:X - 3 of 7 hosts"
    assert told(launch, first, "CAPACITY:X - 4 of 7 hosts", "CAPACITY:X: 5 hosts") == [first]
    assert told(launch, *(f"{number} jobs before it" for number in range(5))) == ["0 jobs before it"]
    assert len(told(launch, *("no code " + "x" * number for number in range(50)))) < 10


def test_what_a_container_waits_for_is_told_after_its_request_had_to_wait() -> None:
    launch = tracked(starting(seen=True), told=(topic("refused", "CAPACITY:X - no such queue"),))
    assert told(launch, "CAPACITY:X - no room") == ["CAPACITY:X - no room"]


def test_a_container_that_waits_for_longer_than_capacity_timeout_is_stopped_and_has_failed() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=900.0)
    launch = tracked(starting())
    step(launch, Observed(STUCK), NOW, rules)
    step(launch, Observed(PENDING), NOW + 100.0, rules)  # it waits for nothing in particular
    step(launch, Observed(STUCK, pause=1.0), NOW + 200.0, rules)
    assert step(launch, Observed(STUCK, pause=899.0), NOW + 1099.0, rules) == []
    assert step(launch, Observed(STUCK, pause=0.5), NOW + 9099.0, rules) == [], "no answers, no time"
    effects = step(launch, Observed(STUCK, pause=0.5), NOW + 9100.0, rules)
    assert kinds(effects) == [SendStop, Finished, Forget]
    assert isinstance(launch.phase, Ended)
    assert isinstance(launch.phase.report, Finished)
    assert launch.phase.report.reason == (
        "ECS let the container wait for 900 s: MISCONFIGURATION: no host is large enough"
    )


def test_a_container_whose_user_code_ran_already_is_not_failed_for_waiting() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=900.0)
    launch = tracked(running())
    step(launch, Observed(STUCK), NOW, rules)
    assert step(launch, Observed(STUCK, pause=9000.0), NOW + 9000.0, rules) == []
    assert isinstance(launch.phase, Running)


def test_the_next_container_may_wait_for_as_long_as_the_one_before_it() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=600.0)
    launch = tracked(starting(seen=True))
    step(launch, Observed(seen(Seen.PENDING, reason="CAPACITY")), NOW, rules)
    step(launch, Observed(seen(Seen.STOPPED)), NOW + 590.0, rules)
    assert isinstance(launch.phase, Waiting)
    assert launch.told == ()


UNPLACED = seen(Seen.PENDING, reason="PROVISIONING", unplaced=True)
GAVE_UP = seen(Seen.STOPPED, reason="RESOURCE:MEMORY", unplaced=True)


def test_a_container_without_a_place_holds_airflow_up_until_it_has_one() -> None:
    launch = tracked(starting())
    assert step(launch, Observed(UNPLACED), NOW, RULES) == [Emit(HeldUp("id", "key"))]
    told = []
    for second in range(1, 40):
        told += step(launch, Observed(UNPLACED, pause=1.0), NOW + second, RULES)
    assert notices(told) == ["The container waits: ECS: PROVISIONING"], "after half a minute, and once"
    assert kinds(told) == []
    over = [Emit(HeldUp("id", "key", over=True))]
    placed = copy(launch)
    assert step(placed, Observed(PENDING), NOW + 41.0, RULES) == over
    assert step(launch, Observed(RUNS), NOW + 41.0, RULES) == over
    assert isinstance(launch.phase, Running)


def test_of_a_container_without_a_place_nothing_is_told_if_nobody_wants_it() -> None:
    launch = tracked(starting(), REVOKED)
    for observation in (UNPLACED, PENDING):
        assert step(launch, Observed(observation), NOW, RULES) == []


@pytest.mark.parametrize("attempt", [1, RULES.max_attempts])
@pytest.mark.parametrize("inherited", [False, True], ids=["own", "adopted"])
def test_a_container_that_never_had_a_place_costs_no_attempt(attempt: int, inherited: bool) -> None:
    launch = tracked(starting(inherited=inherited), attempt=attempt)
    effects = step(launch, Observed(GAVE_UP), NOW, RULES)
    assert kinds(effects) == [Enqueue]
    assert notices(effects) == ["The container waits: ECS has no capacity for it: RESOURCE:MEMORY"]
    assert isinstance(launch.phase, InDoubt if inherited else Waiting)
    assert (launch.attempt, launch.past) == (attempt, (HANDLE.id,))
    assert launch.client_token(SPEC) == f"id-{attempt + 1}"


def test_who_stops_a_container_without_a_place_does_not_want_the_next_one() -> None:
    launch = tracked(starting())
    assert kinds(step(launch, Observed(seen(Seen.STOPPED, by_hand=True)), NOW, RULES)) == OVER


def test_capacity_timeout_limits_the_wait_for_a_place_over_all_containers() -> None:
    rules = dataclasses.replace(RULES, capacity_timeout=100.0)
    launch = tracked(starting(held=Grace(60.0, NOW)))
    step(launch, Observed(GAVE_UP), NOW, rules)
    assert isinstance(launch.phase, Waiting)
    assert launch.phase.patience.short.counted == 60.0
    step(launch, Requested(SPEC), NOW, rules)
    step(launch, Replied(replace(PENDING, handle=Handle("default", "next"))), NOW, rules)
    effects: list[Effect] = []
    for second in range(41):
        effects = step(launch, Observed(UNPLACED, pause=1.0), NOW + second, rules)
        assert isinstance(launch.phase, Starting) or second == 40
    assert kinds(effects) == [SendStop, *OVER]
    launch = tracked(starting(held=Grace(100.0, NOW)))
    assert kinds(step(launch, Observed(GAVE_UP), NOW, rules)) == OVER
