"""What a launch with several placements counts, and what people are told of it."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred, Emit, Observed, Replied, Requested
from ecs_async_executor.core.grace import Grace
from ecs_async_executor.core.messages import Finished, Notice
from ecs_async_executor.core.phases import Doubt, Ended, InDoubt, Released, Revoked, Running, Tracked, Waiting
from ecs_async_executor.core.table import step
from tests.core.lives import (
    FAILED,
    NOW,
    PENDING,
    REVOKED,
    RULES,
    RUNS,
    SPEC,
    notices,
    refusal,
    seen,
    sending,
    tracked,
    waiting,
)

WORDS = "Launched at placement 'on-demand': 'spot' has been full for 75 s: Capacity: none"
SUCCEEDED = seen(Seen.RUNNING, exit_code=0, started=True)
ON_DEMAND = changed(SPEC, choice="on-demand")


def sent(instead: str = WORDS) -> Tracked:
    one = tracked(waiting())
    step(one, Requested(ON_DEMAND, instead), NOW, RULES)
    return one


def end_of(one: Tracked, observation: Observation) -> Finished:
    [report] = [
        effect.report
        for effect in step(one, Observed(observation), NOW, RULES)
        if isinstance(effect, Emit) and isinstance(effect.report, Finished)
    ]
    return report


def test_the_event_log_is_told_where_a_launch_is_once_it_has_its_container() -> None:
    one = sent()
    told = [effect.report for effect in step(one, Replied(PENDING), NOW, RULES) if isinstance(effect, Emit)]
    [notice] = [report for report in told if isinstance(report, Notice)]
    assert (notice.event, notice.text, notice.unlaunched) == ("container placed elsewhere", WORDS, False)
    assert notice.placement == SPEC.placement
    assert not one.instead


def test_nothing_is_told_of_the_best_placement_or_of_a_launch_that_nobody_wants() -> None:
    assert notices(step(sent(""), Replied(PENDING), NOW, RULES)) == []
    for demand in (REVOKED, Released()):
        one = sent()
        assert isinstance(demand, Revoked | Released)
        one.demand = demand
        assert notices(step(one, Replied(PENDING), NOW, RULES)) == []


def test_it_is_told_too_when_the_same_request_had_to_be_sent_again() -> None:
    one = sent()
    step(one, refusal(Kind.AMBIGUOUS), NOW, RULES)
    assert isinstance(one.phase, InDoubt)
    step(one, Requested(ON_DEMAND), NOW, RULES)
    assert notices(step(one, Replied(PENDING), NOW, RULES)) == [WORDS]


@pytest.mark.parametrize("observation", [FAILED, SUCCEEDED], ids=["failed", "succeeded"])
def test_the_outcome_names_the_placement_of_the_container(observation: Observation) -> None:
    one = sent()
    step(one, Replied(PENDING), NOW, RULES)
    step(one, Observed(RUNS), NOW, RULES)
    assert isinstance(one.phase, Running)
    assert end_of(one, observation).choice == "on-demand"


@pytest.mark.parametrize(("elsewhere", "told"), [(True, 0), (False, 1)])
def test_a_probe_that_goes_elsewhere_at_once_is_not_told_that_it_waits(elsewhere: bool, told: int) -> None:
    one = tracked(sending())
    event = refusal(Kind.CAPACITY, token_used=True, probe=True, elsewhere=elsewhere)
    assert len(notices(step(one, event, NOW, RULES))) == told
    assert isinstance(one.phase, Waiting)
    assert one.phase.not_before == NOW
    assert one.used == 1


@pytest.mark.parametrize("kind", [Kind.CAPACITY, Kind.REFUSED])
def test_time_at_a_placement_that_a_launch_will_leave_is_told_and_does_not_count(kind: Kind) -> None:
    rules = changed(RULES, capacity_timeout=40.0, permanent_error_grace=40.0)
    one = tracked(waiting())
    texts = []
    for second in (0.0, 30.0, 60.0, 90.0):
        event = Barred(kind, "Code: words", NOW, NOW + second, 30.0, "spot", elsewhere=True)
        texts += notices(step(one, event, NOW + second, rules))
    assert len(texts) == 1
    assert isinstance(one.phase, Waiting)
    step(one, Barred(kind, "Code: words", NOW + 95.0, NOW + 120.0, 30.0, "spot"), NOW + 120.0, rules)
    assert isinstance(one.phase, Waiting), "for 25 s there was room nowhere"
    step(one, Barred(kind, "Code: words", NOW + 95.0, NOW + 150.0, 30.0, "spot"), NOW + 150.0, rules)
    assert isinstance(one.phase, Ended)


def test_a_wait_that_counted_before_goes_on_from_there() -> None:
    one = tracked(waiting())
    step(one, Barred(Kind.CAPACITY, "no", NOW, NOW + 20.0, 30.0, "spot"), NOW, RULES)
    step(one, Barred(Kind.CAPACITY, "no", NOW, NOW + 90.0, 30.0, "spot", elsewhere=True), NOW, RULES)
    assert isinstance(one.phase, Waiting)
    assert one.phase.patience.short == Grace(20.0, NOW + 90.0)


def test_a_choice_is_that_of_the_request_in_doubt_until_another_may_be_sent() -> None:
    one = tracked(InDoubt(NOW, Doubt(NOW - 1.0, ON_DEMAND)), choice="on-demand", instead=WORDS)
    step(one, Requested(ON_DEMAND), NOW, RULES)
    assert (one.choice, one.instead) == ("on-demand", WORDS)
    other = tracked(InDoubt(NOW, Doubt(NOW - 1.0, inherited=True)), choice="on-demand", instead=WORDS)
    step(other, Requested(changed(SPEC, choice="spot")), NOW, RULES)
    assert (other.choice, other.instead) == ("spot", "")
