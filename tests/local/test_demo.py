"""The demo's report of a run that never took place; tests/e2e runs the demo."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console

from ecs_async_executor.local.demo.airflow_home import Entry, Try
from ecs_async_executor.local.demo.cloud import Ran
from ecs_async_executor.local.demo.journeys import journeys, misplaced
from ecs_async_executor.local.demo.report import Report
from ecs_async_executor.local.demo.scenario import (
    HOME,
    LAST_WORDS,
    LASTING,
    PLACEMENT,
    SCENARIO,
    Expected,
    Where,
)

NOW = datetime(2025, 1, 1, tzinfo=timezone.utc)
KEPT = (*SCENARIO, *LASTING)
ANYWHERE = Where(f"{HOME} FARGATE", 0.25, 2048)
LONG = "OutOfMemoryError: Container killed due to memory usage, " + "after [many] words " * 20


def entries(scenario: Sequence[Expected] = SCENARIO) -> list[Entry]:
    """Make the entries that the executor has to add."""
    return [
        Entry(NOW, one.dag_id, one.task_id, one.map_index, number, f"ecs {event}", LONG)
        for one in scenario
        for number, event in enumerate(one.events, 1)
    ]


ENTRIES = entries()
WORDS = {key: f"ECS container exited\n{words}\nthe [end]" for key, words in LAST_WORDS.items()}


def report(
    *entries: Entry, ours: bool = True, scenario: Sequence[Expected] = SCENARIO, why: str = "exited"
) -> Report:
    """Make a report of what the scenario expects, with these entries in the event log."""
    tries, containers = [], []
    for one in scenario:
        places = list(one.places)
        for number, (state, count, end) in enumerate(zip(one.states, one.containers, one.ends, strict=True), 1):
            read = Try(one.dag_id, one.task_id, one.map_index, number, state, NOW, NOW, NOW, None, not one.lasts)
            tries += [read] * (number > one.not_kept)
            stopped = None if one.lasts else NOW + timedelta(seconds=1234)
            status = "RUNNING" if one.lasts else "STOPPED"
            code = 0 if why == "exited" else None
            for _ in range(count):
                where = places.pop(0) if places else ANYWHERE
                containers.append(
                    Ran("demo/0123456789", one.label, number, status, NOW, NOW, stopped, code, end, why, where)
                )
    return Report(scenario, tries, containers, entries, WORDS if ours else {}, "ECS task", ours)


def test_a_run_with_every_entry_in_the_event_log_is_as_expected() -> None:
    assert report(*ENTRIES).surprises() == []


@pytest.mark.parametrize("missing", ENTRIES, ids=lambda entry: f"{entry.label}-{entry.number}")
def test_an_entry_that_is_missing_in_the_event_log_is_a_surprise(missing: Entry) -> None:
    (surprise,) = report(*(entry for entry in ENTRIES if entry is not missing)).surprises()
    assert surprise.startswith(f"{missing.label} try {missing.number}: Airflow's event log has no")


@pytest.mark.parametrize("key", LAST_WORDS, ids=str)
@pytest.mark.parametrize("others", [{}, {"broken.out_of_memory": "Out of words"}], ids=["none", "wrong"])
def test_last_words_that_are_missing_are_a_surprise(key: tuple[str, int], others: dict[str, str]) -> None:
    words = {known: text for known, text in WORDS.items() if known != key}
    words |= {key: others[key[0]]} if key[0] in others else {}
    changed = replace(report(*ENTRIES), last_words=words)
    assert not changed.told()
    (surprise,) = changed.surprises()
    assert surprise == f"{key[0]} try {key[1]}: its log has no last words of its container"


def test_an_entry_of_another_try_does_not_count() -> None:
    first, second, *others = ENTRIES
    assert (first.number, second.number) == (1, 2)
    assert len(report(first, replace(second, number=1), *others).surprises()) == 1


def test_the_providers_executor_need_not_write_any_entry() -> None:
    assert report(ours=False).surprises() == []


def test_what_lasts_is_as_expected_while_it_has_not_ended() -> None:
    kept = report(*entries(KEPT), scenario=KEPT)
    assert kept.settled()
    assert kept.told()
    assert kept.surprises() == []


@pytest.mark.parametrize("state", ["scheduled", "failed"])
def test_what_should_last_and_is_in_another_state_is_waited_for_and_a_surprise(state: str) -> None:
    kept = report(*entries(KEPT), scenario=KEPT)
    *others, last = kept.tries
    changed = replace(kept, tries=[*others, replace(last, state=state)])
    assert not changed.settled()
    assert len(changed.surprises()) == 1


def test_not_all_is_told_before_the_event_log_says_what_waits() -> None:
    told = report(*ENTRIES, scenario=KEPT)
    assert told.settled()
    assert not told.told()


def test_the_report_reads_at_a_hundred_columns() -> None:
    long = report(*ENTRIES, why="CannotPullContainer")
    output = io.StringIO()
    console = Console(file=output, width=100, color_system=None)
    console.print(long.table())
    console.print(long.event_log())
    console.print(long.said_last())
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "failing.second_time_lucky  2    01234567  CannotPullContainer" in text
    assert "1234 s  success" in text
    assert "Container killed due to memory usage, after [many] words" in text
    assert "the [end]" in text


# --- where tries ran -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", PLACEMENT)
def test_a_try_that_ran_elsewhere_or_with_another_size_is_a_surprise(service: str) -> None:
    scenario = PLACEMENT[service]
    expected = report(*entries(scenario), scenario=scenario)
    assert [*expected.surprises(), *misplaced(expected)] == []
    for number, ran in enumerate(expected.containers):
        for other in (replace(ran.where, at=f"{HOME} elsewhere"), replace(ran.where, memory_mb=4096)):
            changed = list(expected.containers)
            changed[number] = replace(ran, where=other)
            (surprise,) = misplaced(replace(expected, containers=changed))
            assert surprise.startswith(f"{ran.label} try {ran.number} ran at {other.at} with ")


@pytest.mark.parametrize("service", PLACEMENT)
def test_the_table_of_places_reads_at_a_hundred_columns(service: str) -> None:
    scenario = PLACEMENT[service]
    output = io.StringIO()
    console = Console(file=output, width=100, color_system=None)
    console.print(journeys(report(*entries(scenario), scenario=scenario, why="OutOfMemory")))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "eu-west-1" in text
    assert "512 MB" in text
    assert ("placed elsewhere" in text) == (service == "ecs")
