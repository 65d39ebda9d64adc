"""The demo's report of a run that never took place; tests/e2e runs the demo."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ecs_async_executor.local.demo.airflow_home import Entry, Try
from ecs_async_executor.local.demo.cloud import Ran
from ecs_async_executor.local.demo.report import Report
from ecs_async_executor.local.demo.scenario import SCENARIO

NOW = datetime(2025, 1, 1, tzinfo=timezone.utc)
ENTRIES = [
    Entry(NOW, "host_lost", "long_haul", -1, 1, "ecs container failure", "Your Spot Task was interrupted."),
    Entry(NOW, "host_lost", "long_haul", -1, 2, "container waits", "RESOURCE:[CPU]"),
]


def report(*entries: Entry, ours: bool = True) -> Report:
    """Make a report of what the scenario expects, with these entries in the event log."""
    tries, containers = [], []
    for one in SCENARIO:
        for number, (state, count, end) in enumerate(zip(one.states, one.containers, one.ends, strict=True), 1):
            tries.append(
                Try(one.dag_id, one.task_id, one.map_index, number, state, NOW, NOW, NOW, None, settled=True)
            )
            containers += [Ran("id", one.label, number, "STOPPED", NOW, NOW, NOW, 0, end, end)] * count
    return Report(tries, containers, entries, "ECS task", ours)


def test_a_run_with_every_entry_in_the_event_log_is_as_expected() -> None:
    assert report(*ENTRIES).surprises() == []


@pytest.mark.parametrize("missing", ENTRIES, ids=lambda entry: entry.event)
def test_an_entry_that_is_missing_in_the_event_log_is_a_surprise(missing: Entry) -> None:
    (surprise,) = report(*(entry for entry in ENTRIES if entry is not missing)).surprises()
    assert surprise.startswith(f"host_lost.long_haul try {missing.number}: Airflow's event log has no")


def test_an_entry_of_another_try_does_not_count() -> None:
    first, second = ENTRIES
    assert len(report(first, Entry(NOW, "host_lost", "long_haul", -1, 1, second.event, "")).surprises()) == 1


def test_the_providers_executor_need_not_write_any_entry() -> None:
    assert report(ours=False).surprises() == []
