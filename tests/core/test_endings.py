"""The kind of every failure that is decided here, and of those that the service explains."""

from __future__ import annotations

import dataclasses

import pytest

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred, Event, Found, Observed, SearchRefused, Unrenderable
from ecs_async_executor.core.grace import Grace
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Finished
from ecs_async_executor.core.phases import Ended, Patience, Phase, Sending, Waiting
from ecs_async_executor.core.table import step
from tests.core.lives import (
    LAUNCH,
    MISSING,
    NOW,
    QUEUED,
    RULES,
    RUNNING,
    SPEC,
    refusal,
    running,
    searching,
    seen,
    starting,
    tracked,
    waiting,
)

AGES = Grace(10_000.0, NOW - 1.0)
IMPATIENT = dataclasses.replace(RULES, capacity_timeout=1.0, max_attempts=1)
TRIED = Patience(refused=AGES, barred=AGES, short=AGES)
STUCK = seen(Seen.PENDING, reason="CAPACITY")
GAVE_UP = seen(Seen.STOPPED, reason="RESOURCE:MEMORY", unplaced=True, ending=Ending.CAPACITY)


def barred(kind: Kind) -> Barred:
    return Barred(kind, "words", NOW - 20_000.0, NOW, 5.0)


def ending_of(phase: Phase, event: Event) -> Ending | None:
    launch = tracked(phase)
    step(launch, event, NOW, IMPATIENT)
    assert isinstance(launch.phase, Ended)
    assert isinstance(launch.phase.report, Finished)
    return launch.phase.report.ending


@pytest.mark.parametrize(
    ("phase", "event", "ending"),
    [
        (waiting(), Unrenderable("too long"), Ending.REFUSED),
        (Sending(SPEC), refusal(Kind.INVALID), Ending.REFUSED),
        (Sending(SPEC, patience=TRIED), refusal(Kind.REFUSED, pause=5.0), Ending.REFUSED),
        (Waiting(NOW, TRIED), barred(Kind.REFUSED), Ending.REFUSED),
        (Waiting(NOW, TRIED), barred(Kind.CAPACITY), Ending.CAPACITY),
        (starting(held=AGES), Observed(STUCK, pause=1.0), Ending.CAPACITY),
        (starting(held=AGES), Observed(GAVE_UP), Ending.CAPACITY),
        (starting(missing=AGES), Observed(MISSING, pause=1.0), Ending.LOST),
        (running(missing=AGES), Observed(MISSING, pause=1.0), Ending.LOST),
        (searching(RUNNING, absent=AGES), Found(None), Ending.LOST),
        (searching(sent=True, absent=AGES), Found(None), Ending.LOST),
        (searching(QUEUED, refused=AGES), SearchRefused("denied"), Ending.LOST),
    ],
)
def test_an_end_without_the_services_word_for_it(phase: Phase, event: Event, ending: Ending) -> None:
    assert ending_of(phase, event) is ending


@pytest.mark.parametrize("ending", [one for one in Ending if one is not Ending.CAPACITY])
@pytest.mark.parametrize("phase", [starting(), running()], ids=["starting", "running"])
def test_the_services_word_for_an_end_is_kept(ending: Ending, phase: Phase) -> None:
    assert ending_of(phase, Observed(seen(Seen.STOPPED, ending=ending))) is ending
    assert ending_of(phase, Observed(seen(Seen.RUNNING, started=True, exit_code=1, ending=ending))) is ending


@pytest.mark.parametrize(
    ("observation", "ending"),
    [
        (seen(Seen.STOPPED, started=True, exit_code=1), Ending.EXIT),
        (seen(Seen.STOPPED, started=True), Ending.LOST),
    ],
)
def test_an_end_that_the_service_does_not_explain(observation: Observation, ending: Ending) -> None:
    assert ending_of(running(), Observed(observation)) is ending


def test_a_success_has_no_kind_of_end() -> None:
    assert ending_of(running(), Observed(seen(Seen.RUNNING, started=True, exit_code=0))) is None


def test_what_a_bug_of_this_package_ends_is_lost() -> None:
    ledger = Ledger(RULES)
    ledger.command(LAUNCH, NOW)
    [launch] = ledger.launches.values()
    ledger.abandon(launch, "Internal error of the executor", NOW)
    [report] = ledger.outbox
    assert isinstance(report, Finished)
    assert report.ending is Ending.LOST
