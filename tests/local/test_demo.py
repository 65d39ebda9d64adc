"""The demo's report of a run that never took place; tests/e2e runs the demo."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console, RenderableType

from ecs_async_executor.local.demo.airflow_home import Entry, Try
from ecs_async_executor.local.demo.cloud import Ran
from ecs_async_executor.local.demo.compare import KNOWN, comparison
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
    as_played,
)
from ecs_async_executor.local.demo.show import Show

NOW = datetime(2025, 1, 1, tzinfo=timezone.utc)
KEPT = (*SCENARIO, *LASTING)
ANYWHERE = Where(f"{HOME} FARGATE", 0.25, 2048)
LONG = "OutOfMemoryError: Container killed due to memory usage, " + "after [many] words " * 20


def first_of(event: str | tuple[str, ...]) -> str:
    return event if isinstance(event, str) else event[0]


def entries(scenario: Sequence[Expected] = SCENARIO) -> list[Entry]:
    """Make the entries that the executor has to add."""
    return [
        Entry(NOW, one.dag_id, one.task_id, one.map_index, number, f"ecs {first_of(event)}", LONG)
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
            tries.append(read)
            stopped = None if one.lasts else NOW + timedelta(seconds=1234)
            status = "RUNNING" if one.lasts else "STOPPED"
            code = 0 if why == "exited" else None
            for _ in range(count):
                where = places.pop(0) if places else ANYWHERE
                containers.append(
                    Ran("demo/0123456789", one.label, number, status, NOW, NOW, stopped, code, end, why, where)
                )
    return Report(scenario, tries, containers, entries, WORDS if ours else {}, "ECS task", ours)


def shown(*parts: RenderableType) -> str:
    """Return what the console of a user with a hundred columns shows."""
    output = io.StringIO()
    console = Console(file=output, width=100, color_system=None)
    for part in parts:
        console.print(part)
    return output.getvalue()


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


def test_a_failure_with_exit_0_and_a_container_given_back_explain_themselves() -> None:
    text = shown(report(*ENTRIES).table())
    (first,) = (line for line in text.splitlines() if "waiting.deferred" in line)
    assert first.split()[-1] == "deferred"
    (first,) = (line for line in text.splitlines() if "waiting.rescheduled" in line)
    assert first.split()[-1] == "rescheduled"
    assert "gave way" not in text
    (hopeless,) = (line for line in text.splitlines() if "failing.hopeless" in line)
    assert "exit 0: code failed" in hopeless
    assert "Airflow's process reported the failure of the task's code" in text


def test_a_container_that_the_providers_executor_launches_again_is_called_that() -> None:
    (killed,) = (one for one in SCENARIO if one.task_id == "out_of_memory")
    again = report(ours=False, scenario=[replace(killed, containers=(3,))])
    again = replace(again, containers=[replace(ran, exit_code=1) for ran in again.containers])
    states = [line.split()[-1] for line in shown(again.table()).splitlines() if "01234567" in line]
    assert states == ["relaunched", "relaunched", "failed"]


def test_containers_that_are_relaunched_within_a_try_show_when_each_was_made() -> None:
    (missing,) = (one for one in SCENARIO if one.task_id == "no_image")
    again = report(ours=False, scenario=[replace(missing, containers=(3,))])
    made = [NOW + timedelta(seconds=seconds) for seconds in (1, 3, 9)]
    containers = [replace(ran, created=at, started=None) for ran, at in zip(again.containers, made, strict=True)]
    text = shown(replace(again, containers=containers).table())
    lines = [line for line in text.splitlines() if "01234567" in line]
    assert len(lines) == len(made)
    for line, at in zip(lines, made, strict=True):
        assert f"{at.astimezone():%H:%M:%S}" in line


def test_the_report_reads_at_a_hundred_columns() -> None:
    long = report(*ENTRIES, why="CannotPullContainer")
    text = shown(long.table(), long.event_log(), long.said_last(), replace(long, noun="Batch job").table())
    assert max(map(len, text.splitlines())) <= 100
    assert "failing.second_time_lucky  2    01234567  CannotPullContainer" in text
    assert "1234 s  success" in text
    assert "…" not in text
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


@pytest.mark.parametrize(
    ("avoids_at", "probes_at", "states"),
    [
        (None, None, ("success", "queued")),
        ("default", None, ("success", "queued")),
        ("default", "demo-spot", ("success", "queued")),
        (None, "default", ("success", "success")),
        ("default", "default", ("success", "success")),
        ("demo-spot", "default", ("queued", "success")),
        ("demo-spot", "demo-spot", ("success", "queued")),  # which the first one is not
    ],
)
def test_either_of_two_that_are_launched_at_once_may_be_the_probe(
    avoids_at: str | None, probes_at: str | None, states: tuple[str, str]
) -> None:
    at = {"placement.avoids": avoids_at, "placement.probes": probes_at}
    played = as_played(PLACEMENT["batch"], {label: f"{HOME} {queue}" for label, queue in at.items() if queue})
    assert [one.task_id for one in played] == [one.task_id for one in PLACEMENT["batch"]]
    ends = {one.label: (one.states, one.places[0].at) for one in played}
    where = {"success": f"{HOME} default", "queued": f"{HOME} demo-spot"}
    assert [ends[label] for label in at] == [((state,), where[state]) for state in states]


@pytest.mark.parametrize("service", PLACEMENT)
def test_the_table_of_places_reads_at_a_hundred_columns(service: str) -> None:
    scenario = PLACEMENT[service]
    text = shown(journeys(report(*entries(scenario), scenario=scenario, why="OutOfMemory")))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "eu-west-1" in text
    assert "512 MB" in text
    assert "placed elsewhere" in text


# --- beside the provider's executor --------------------------------------------------------------------------


@pytest.mark.parametrize("service", KNOWN)
def test_what_the_provider_is_known_to_do_is_said_beside_what_became_of_the_task(service: str) -> None:
    ours, theirs = report(*ENTRIES), report(ours=False)
    (host_lost,) = (one for one in SCENARIO if one.task_id == "long_haul")
    stuck = [
        replace(read, state="running", settled=False) if read.label == host_lost.label else read
        for read in theirs.tries
        if (read.label, read.number) != (host_lost.label, 2)
    ]
    theirs = replace(theirs, tries=stuck)
    text = " ".join(shown(comparison(ours, theirs, service, ("AsyncEcsExecutor", "AwsEcsExecutor"))).split())
    assert "host_lost.long_haul AsyncEcsExecutor failed, 1 container; then success, 1 container" in text
    assert "AwsEcsExecutor running, 1 container Known behaviour of the provider:" in text
    assert f"{len(SCENARIO) - 1} of {len(SCENARIO)} task instances went alike" in text
    assert "the Audit Log says why: 3 with AsyncEcsExecutor, 0 with AwsEcsExecutor" in text
    assert "Earlier runs have not shown this" not in text


def test_what_is_not_known_of_the_provider_is_said_to_be_new() -> None:
    ours, theirs = report(*ENTRIES), report(ours=False)
    changed = [replace(read, state="failed") if read.label == "mapped.total" else read for read in theirs.tries]
    text = shown(comparison(ours, replace(theirs, tries=changed), "ecs", ("Ours", "Theirs")))
    assert "Earlier runs have not shown this" in text


# --- progress ------------------------------------------------------------------------------------------------


def test_what_takes_its_time_says_how_long_and_for_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show = Show()
    with show.waiting("Starting Airflow") as tell:
        tell("until the API server answers")
        assert capsys.readouterr().out == ""
        monkeypatch.setattr("ecs_async_executor.local.demo.show.QUIET_SECONDS", 0.0)
        tell("until the API server answers")
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("… Starting Airflow: 0 s, until the API server answers")
    assert "Starting Airflow: 0." in last


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("ecs_async_executor.local.demo.show.time", made)
    return made


def test_an_end_that_lasts_is_told_of_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    tell = Show().patiently("Ending all processes", lambda still: f"still there: {still}")
    for clock.now in (1.0, 9.5, 10.0, 12.0, 20.5):
        tell("scheduler")
    assert [line.partition("…")[2] for line in capsys.readouterr().out.splitlines()] == [
        " Ending all processes: 10 s, still there: scheduler",
        " Ending all processes: 20 s, still there: scheduler",
    ]


def test_an_end_goes_on_when_nobody_reads_any_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    show, written = Show(), []
    tell = show.patiently("Ending all processes", str)

    def print_to_nobody(text: str, **_: object) -> None:
        written.append(text)
        raise SystemExit(1)  # as rich does once the other end of a pipe is closed

    monkeypatch.setattr(show.console, "print", print_to_nobody)
    clock.now = 30.0
    tell("scheduler")
    assert len(written) == 1
