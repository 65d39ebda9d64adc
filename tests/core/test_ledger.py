"""The thread may die at any statement of the ledger: nothing is lost, told twice or kept for ever."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.events import Observed, Refused, Replied, Requested
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Adopt, AirflowState, Finished, Launch, Stop
from ecs_async_executor.core.phases import LOCATED, UNLAUNCHED, UNLOCATED, Ended, Revoked, Tracked
from tests.rules import rules

RULES = rules()
SPEC = LaunchSpec({}, "default", "main", "FARGATE", "id")
HANDLE = Handle("default", "arn")


class Death(BaseException):
    """The end of the thread."""


def dies_at(statement: int, what: Callable[[], object]) -> bool:
    """Do something, but die at its n-th statement in ``core``; return whether it has as many."""
    left = statement

    def tracer(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if "/core/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Death
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        what()
    except Death:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


def launch(identity: str = "id", queued_at: float = 0.0) -> Launch:
    return Launch(identity, "key", None, priority=0, started_by=identity, queued_at=queued_at)


def seen(what: Seen, **fields: Any) -> Observation:
    return Observation(HANDLE, what, **fields)


def latest(ledger: Ledger, identity: str = "id") -> Tracked:
    tracked = ledger.latest(identity)
    assert tracked is not None
    return tracked


def waiting(**changes: Any) -> Ledger:
    ledger = Ledger(replace(RULES, **changes))
    ledger.command(launch(), 0.0)
    return ledger


def sending(**changes: Any) -> Ledger:
    ledger = waiting(**changes)
    ledger.dispatch(latest(ledger), Requested(SPEC), 0.0)
    return ledger


def starting(**changes: Any) -> Ledger:
    ledger = sending(**changes)
    ledger.dispatch(latest(ledger), Replied(seen(Seen.PENDING)), 0.0)
    return ledger


Case = tuple[Ledger, Callable[[], object], bool]
"""A ledger, what happens to it, and whether that is a command, which is read again after a death."""


def begins() -> Case:
    ledger = Ledger(RULES)
    return ledger, lambda: ledger.command(launch(), 1.0), True


def begins_after_a_revoked_one() -> Case:
    ledger = starting()
    ledger.command(Stop("id", "revoked"), 0.5)
    return ledger, lambda: ledger.command(launch(queued_at=1.0), 1.0), True


def begins_in_place_of_another() -> Case:
    ledger = waiting()
    return ledger, lambda: ledger.command(launch("other", queued_at=1.0), 1.0), True


def is_adopted() -> Case:
    ledger = Ledger(RULES)
    return ledger, lambda: ledger.command(Adopt(launch(), AirflowState.QUEUED, "arn"), 1.0), True


def is_revoked() -> Case:
    ledger = starting()
    return ledger, lambda: ledger.command(Stop("id", "revoked"), 1.0), True


def succeeds() -> Case:
    ledger = starting()
    event = Observed(seen(Seen.STOPPED, exit_code=0))
    return ledger, lambda: ledger.dispatch(latest(ledger), event, 1.0), False


def is_missing_for_too_long() -> Case:
    ledger = starting()
    ledger.dispatch(latest(ledger), Observed(seen(Seen.MISSING)), 1.0)
    event = Observed(seen(Seen.MISSING), pause=100.0)
    return ledger, lambda: ledger.dispatch(latest(ledger), event, 100.0), False


def waits_for_too_long() -> Case:
    ledger = starting(capacity_timeout=10.0)
    ledger.dispatch(latest(ledger), Observed(seen(Seen.PENDING, reason="no room")), 1.0)
    event = Observed(seen(Seen.PENDING, reason="no room"), pause=100.0)
    return ledger, lambda: ledger.dispatch(latest(ledger), event, 100.0), False


def never_starts() -> Case:
    ledger = starting()
    return ledger, lambda: ledger.dispatch(latest(ledger), Observed(seen(Seen.STOPPED)), 1.0), False


def gets_its_container() -> Case:
    ledger = sending()
    return ledger, lambda: ledger.dispatch(latest(ledger), Replied(seen(Seen.PENDING)), 1.0), False


def is_refused() -> Case:
    ledger = sending()
    event = Refused(BackendError(Kind.INVALID, "x", "y"))
    return ledger, lambda: ledger.dispatch(latest(ledger), event, 1.0), False


def is_abandoned() -> Case:
    ledger = waiting()
    return ledger, lambda: ledger.abandon(latest(ledger), "a bug", 1.0), False


def is_abandoned_with_its_container() -> Case:
    ledger = starting()
    return ledger, lambda: ledger.abandon(latest(ledger), "a bug", 1.0), False


CASES = [
    begins,
    begins_after_a_revoked_one,
    begins_in_place_of_another,
    is_adopted,
    is_revoked,
    succeeds,
    is_missing_for_too_long,
    waits_for_too_long,
    never_starts,
    gets_its_container,
    is_refused,
    is_abandoned,
    is_abandoned_with_its_container,
]


def unreachable(ledger: Ledger) -> Iterator[str]:
    """Say which launches nothing would ever look at again, and what is kept of launches that have ended."""
    for number, tracked in ledger.launches.items():
        phase = tracked.phase
        if isinstance(phase, UNLAUNCHED) and not ledger.queues.is_current(tracked, ledger.queues.ticket(tracked)):
            yield f"{tracked!r} has no place"
        if isinstance(phase, UNLAUNCHED) and ledger.queues.ticket(tracked) is None:
            yield f"{tracked!r} has no ticket"
        if isinstance(phase, UNLOCATED) and ledger.searches.ticket(tracked) is None:
            yield f"{tracked!r} is not searched for"
        if isinstance(phase, LOCATED) and (not ledger.active.has(number) or number in ledger.unsettled):
            yield f"{tracked!r} is not polled"
        if isinstance(phase, LOCATED) and isinstance(tracked.demand, Revoked) and not ledger.stops.owes(tracked):
            yield f"{tracked!r} is not stopped"
        if isinstance(phase, Ended):
            yield f"{tracked!r} is kept"
        if not ledger.active.has(number) and number not in ledger.unsettled:
            yield f"{tracked!r} is in neither"
    if not ledger.launches and (ledger.active or ledger.unsettled or ledger.latest("id") is not None):
        yield "something is kept of a launch that has ended"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_death_at_any_statement_loses_doubles_and_keeps_nothing(case: Callable[[], Case]) -> None:
    whole, happen, _ = case()
    happen()
    told = {(r.launch_id, r.success) for r in whole.outbox if isinstance(r, Finished)}
    statement = 0
    while True:
        statement += 1
        ledger, happen, is_command = case()
        if not dies_at(statement, happen):
            break
        ledger.recover(200.0)
        if is_command:
            happen()
        finished = {(r.launch_id, r.success) for r in ledger.outbox if isinstance(r, Finished)}
        assert list(unreachable(ledger)) == [], f"statement {statement}"
        assert finished <= told, f"statement {statement}"
        assert not (finished and ledger.launches), f"statement {statement}: told, and goes on"
        if finished or (is_command and len(whole.stops)):
            assert len(ledger.stops) >= len(whole.stops), f"statement {statement}: a stop is lost"
        if not ledger.launches:
            ledger.command(Adopt(launch("id", 5.0), AirflowState.RUNNING, "arn"), 300.0)
            assert len(ledger.launches) == 1, f"statement {statement}: what is adopted later is swallowed"
    assert statement > 10


def test_an_identity_that_comes_three_times_never_repeats_a_client_token() -> None:
    ledger = starting()
    first = latest(ledger)
    ledger.command(Stop("id", "revoked"), 1.0)
    ledger.command(launch(queued_at=2.0), 2.0)
    second = latest(ledger)
    ledger.command(Stop("id", "revoked"), 3.0)
    assert isinstance(second.phase, Ended)
    ledger.command(launch(queued_at=4.0), 4.0)
    third = latest(ledger)
    assert len({one.client_token(SPEC) for one in (first, second, third)} | {first.client_token(SPEC)}) >= 2
    assert third.client_token(SPEC) != first.client_token(SPEC)


def test_the_young_are_found_after_the_loop_thread_was_replaced() -> None:
    ledger = Ledger(RULES)
    for number, since in enumerate((90.0, 10.0)):
        identity = f"id{number}"
        ledger.command(launch(identity), 0.0)
        tracked = latest(ledger, identity)
        tracked.launch = tracked.launch.evolve(key=identity)
        ledger.dispatch(tracked, Requested(SPEC), since)
        ledger.dispatch(tracked, Replied(seen(Seen.PENDING)), since)
    ledger.recover(100.0)
    assert [one.launch.launch_id for one in ledger.active.since(HOME, 50.0)] == ["id0"]
