"""Every phase with every event: one outcome, one place for demand, and nothing that can be forgotten."""

from __future__ import annotations

import itertools
from copy import copy
from typing import get_args

import pytest

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import (
    Barred,
    Because,
    Checked,
    Demanded,
    Doubted,
    Effect,
    Emit,
    Enqueue,
    Event,
    Forget,
    Found,
    Interrupted,
    LookInstead,
    Observed,
    Poll,
    Replied,
    Requested,
    Search,
    SearchRefused,
    SendStop,
    StopTargetMissing,
    Unblocked,
    Unrenderable,
)
from ecs_async_executor.core.messages import Finished, Launched
from ecs_async_executor.core.phases import (
    RELEASED,
    SUPERSEDED,
    WANTED,
    Checking,
    Demand,
    Ended,
    InDoubt,
    Phase,
    Released,
    Revoked,
    Running,
    Searching,
    Sending,
    Starting,
    Superseded,
    Waiting,
)
from ecs_async_executor.core.settling import NEEDS, SETTLED
from ecs_async_executor.core.table import CELLS, LATE, IllegalEvent, step
from tests.core.lives import (
    NOW,
    PENDING,
    REVOKED,
    RULES,
    RUNS,
    SPEC,
    checking,
    in_doubt,
    inherited,
    kinds,
    refusal,
    running,
    searching,
    sending,
    starting,
    tracked,
    waiting,
)

PHASES: dict[str, Phase] = {
    "waiting": waiting(),
    "in doubt": in_doubt(),
    "inherited": inherited(),
    "sending": sending(),
    "checking": checking(),
    "searching": searching(),
    "starting": starting(),
    "running": running(),
    "ended": Ended(),
}
EVENTS: dict[str, Event] = {
    "requested": Requested(SPEC),
    "unrenderable": Unrenderable("no such container"),
    "replied": Replied(PENDING),
    "refused": refusal(Kind.THROTTLED),
    "interrupted": Interrupted(),
    "barred": Barred(Kind.CAPACITY, "no room", since=NOW - 5.0, refused_at=NOW, pause=5.0),
    "look instead": LookInstead(Because.TOO_OLD),
    "doubted": Doubted(),
    "unblocked": Unblocked(),
    "observed": Observed(RUNS),
    "stop target missing": StopTargetMissing(),
    "checked": Checked(RUNS),
    "found": Found(RUNS),
    "search refused": SearchRefused("denied"),
    "revoked": Demanded(REVOKED),
    "superseded": Demanded(SUPERSEDED),
    "released": Demanded(RELEASED),
}
BUG = "bug"
STAYS: list[type] = []

# What each event does where it does anything but stay (an answer that came too late) or end what has ended.
TABLE: dict[tuple[str, str], tuple[type, list[type]] | str] = {
    ("waiting", "requested"): (Sending, []),
    ("waiting", "unrenderable"): (Ended, [Finished, Forget]),
    ("waiting", "barred"): (Waiting, []),
    ("waiting", "doubted"): (Searching, [Search]),
    ("waiting", "revoked"): (Ended, [Forget]),
    ("waiting", "superseded"): (Ended, [Forget]),
    ("waiting", "released"): (Ended, [Forget]),
    ("in doubt", "requested"): (Sending, []),
    ("in doubt", "unrenderable"): (Searching, [Search]),
    ("in doubt", "barred"): (InDoubt, []),
    ("in doubt", "look instead"): (Searching, [Search]),
    ("in doubt", "superseded"): (Ended, [Forget]),
    ("in doubt", "released"): (Ended, [Forget]),
    ("inherited", "requested"): (Sending, []),
    ("inherited", "unrenderable"): (Searching, [Search]),
    ("inherited", "barred"): (InDoubt, []),
    ("inherited", "look instead"): (Searching, [Search]),
    ("inherited", "doubted"): (Searching, [Search]),
    ("inherited", "revoked"): (Searching, [Search]),
    ("inherited", "superseded"): (Ended, [Forget]),
    ("inherited", "released"): (Ended, [Forget]),
    ("sending", "replied"): (Starting, [Poll, Launched]),
    ("sending", "refused"): (Waiting, [Enqueue]),
    ("sending", "interrupted"): (InDoubt, [Enqueue]),
    ("checking", "checked"): (Running, [Poll, Launched]),
    ("checking", "search refused"): (Checking, [Search]),
    ("checking", "released"): (Ended, [Forget]),
    ("searching", "found"): (Running, [Poll, Launched]),
    ("searching", "search refused"): (Searching, [Search]),
    ("searching", "released"): (Ended, [Forget]),
    ("starting", "observed"): (Running, []),
    ("starting", "revoked"): (Starting, [SendStop]),
    ("starting", "released"): (Ended, [Forget]),
    ("running", "revoked"): (Running, [SendStop]),
    ("running", "released"): (Ended, [Forget]),
    **dict.fromkeys(
        itertools.product(
            ["sending", "checking", "searching", "starting", "running"],
            ["requested", "unrenderable", "barred", "look instead"],
        ),
        BUG,
    ),
    **dict.fromkeys(
        itertools.product(
            ["waiting", "in doubt", "inherited", "checking", "searching", "starting", "running"],
            ["replied", "refused"],
        ),
        BUG,
    ),
    ("waiting", "look instead"): BUG,
}


def test_the_table_has_a_cell_a_late_answer_or_a_bug_for_every_phase_and_event() -> None:
    phases = [phase for phase in get_args(Phase) if phase is not Ended]
    events = get_args(Event)
    assert {type(event) for event in EVENTS.values()} == set(events)
    assert {type(phase) for phase in PHASES.values()} == {*phases, Ended}
    assert {phase for phase, _ in CELLS} == set(phases), "nothing happens to what has ended"
    assert {event for _, event in CELLS} == set(events)
    bugs = {(type(PHASES[phase]), type(EVENTS[event])) for (phase, event), row in TABLE.items() if row == BUG}
    for pair in itertools.product(phases, events):
        assert (pair in CELLS) + (pair in bugs) + (pair not in CELLS and pair[1] in LATE) == 1, pair


def test_demand_and_phase_meet_in_one_table() -> None:
    phases = {phase for phase in get_args(Phase) if phase is not Ended}
    assert set(NEEDS) == phases
    assert {phase for _, phase in SETTLED} <= phases
    assert {demand for demand, _ in SETTLED} == {Revoked, Superseded, Released}
    assert not [pair for pair in SETTLED if pair[1] is Sending], "its answer is learnt first"


@pytest.mark.parametrize(("phase", "event"), [*itertools.product(PHASES, EVENTS)])
def test_every_phase_with_every_event(phase: str, event: str) -> None:
    launch = tracked(PHASES[phase])
    before = copy(launch)
    expected = TABLE.get((phase, event), (type(PHASES[phase]), STAYS))
    if expected == BUG:
        with pytest.raises(IllegalEvent, match=f"{type(EVENTS[event]).__name__} while"):
            step(launch, EVENTS[event], NOW, RULES)
    else:
        assert (kinds(step(launch, EVENTS[event], NOW, RULES)), type(launch.phase)) == expected[::-1]
    if (type(before.phase), type(EVENTS[event])) not in CELLS:
        assert all(getattr(launch, name) == getattr(before, name) for name in launch.__struct_fields__)


LEGAL = [pair for pair in itertools.product(PHASES, EVENTS) if TABLE.get(pair) != BUG]


@pytest.mark.parametrize(("phase", "event"), LEGAL)
@pytest.mark.parametrize("demand", [REVOKED, SUPERSEDED, RELEASED], ids=lambda d: type(d).__name__)
def test_a_launch_that_airflow_does_not_want_tells_nothing_whatever_happens(
    phase: str, event: str, demand: Demand
) -> None:
    launch = tracked(PHASES[phase], demand)
    effects = step(launch, EVENTS[event], NOW, RULES)
    assert not [effect for effect in effects if isinstance(effect, Emit)]
    assert not isinstance(launch.phase, Ended) or launch.phase.report is None


def settled(demand: Demand, event: Event, phase: Phase) -> tuple[list[Effect], Phase]:
    launch = tracked(phase, demand)
    return step(launch, event, NOW, RULES), launch.phase


def test_a_revoked_launch_is_stopped_as_soon_as_its_container_is_known() -> None:
    launch = tracked(sending())
    assert step(launch, Demanded(REVOKED), NOW, RULES) == []
    effects = step(launch, Replied(PENDING), NOW, RULES)
    assert effects == [Poll(), SendStop(PENDING.handle, "revoked")]


def test_the_answer_of_a_released_launch_is_the_adopters() -> None:
    for event in (Replied(PENDING), refusal(Kind.CONFLICT, "arn"), refusal(Kind.AMBIGUOUS), Interrupted()):
        effects, phase = settled(RELEASED, event, sending())
        assert (effects, type(phase)) == ([Forget()], Ended)


def test_a_superseded_launch_is_not_sent_again() -> None:
    for event in (refusal(Kind.AMBIGUOUS), refusal(Kind.THROTTLED), Interrupted()):
        effects, phase = settled(SUPERSEDED, event, sending())
        assert (effects, type(phase)) == ([Forget()], Ended)


@pytest.mark.parametrize(
    ("first", "then", "result"),
    [
        (WANTED, REVOKED, REVOKED),
        (REVOKED, Revoked("again", NOW), REVOKED),
        (REVOKED, SUPERSEDED, REVOKED),
        (REVOKED, RELEASED, REVOKED),
        (SUPERSEDED, REVOKED, REVOKED),
        (SUPERSEDED, RELEASED, RELEASED),
        (RELEASED, SUPERSEDED, RELEASED),
    ],
)
def test_the_first_revocation_stays(first: Demand, then: Demand, result: Demand) -> None:
    launch = tracked(sending(), first)
    step(launch, Demanded(then), NOW, RULES)
    assert launch.demand == result
