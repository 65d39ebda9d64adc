"""Which containers no task instance waits for: every rule, without a service."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Any

import pytest

from ecs_async_executor.adapter.commands.judging import Verdict, judge
from ecs_async_executor.adapter.tries import Try
from ecs_async_executor.core.backend import Handle
from ecs_async_executor.services.console import Marked

NOW = 1_800_000_000.0
HOUR = 3600.0
ID = uuid.uuid4()
MARK = str(ID)
HERE = "arn:aws:ecs:r:1:task/main/here"
OTHER = "arn:aws:ecs:r:1:task/main/other"


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(NOW + seconds, tz=timezone.utc)


def row(state: str | None, *, queued: float = -2 * HOUR, ended: float | None = None, **changes: Any) -> Try:
    given: dict[str, Any] = {
        "id": ID,
        "dag_id": "dag",
        "run_id": "run",
        "task_id": "task",
        "map_index": -1,
        "number": 1,
        "state": state,
        "executor": None,
        "external_id": HERE,
        "queued_at": at(queued),
        "started_at": at(queued),
        "ended_at": at(ended),
        "changed_at": at(ended if ended is not None else queued),
    }
    return Try(**given | changes)


def verdict(*related: Try, age: float | None = HOUR, callback: str | None = None, known: bool = False) -> Verdict:
    container = Marked(Handle("main", HERE), MARK, "RUNNING", None if age is None else NOW - age)
    return judge(container, related, callback, known=known, now=NOW, older_than=600.0).verdict


@pytest.mark.parametrize(
    ("related", "expected"),
    [
        pytest.param([row("running")], Verdict.WAITED_FOR, id="Airflow says that it runs"),
        pytest.param([row("restarting")], Verdict.WAITED_FOR, id="cleared while it runs"),
        pytest.param([row("queued", external_id=None)], Verdict.WAITED_FOR, id="its identifier is not there yet"),
        pytest.param([row("queued", external_id=MARK)], Verdict.WAITED_FOR, id="nor is it, but the identity"),
        pytest.param(
            [row("running", external_id=OTHER)], Verdict.WAITED_FOR, id="it may be the one whose event was lost"
        ),
        pytest.param(
            [row("queued", external_id=OTHER, queued=-700.0)],
            Verdict.ORPHAN,
            id="of an earlier queueing of this try",
        ),
        pytest.param([row("success", ended=-HOUR)], Verdict.ORPHAN, id="over for an hour"),
        pytest.param([row("success", ended=-30.0)], Verdict.YOUNG, id="over just now: it may upload its log"),
        pytest.param([row("failed", ended=-HOUR)], Verdict.ORPHAN, id="failed an hour ago"),
        pytest.param([row("deferred", changed_at=at(-HOUR))], Verdict.ORPHAN, id="deferred an hour ago"),
        pytest.param([row(None, earlier=True, ended=-HOUR)], Verdict.ORPHAN, id="an earlier try's"),
        pytest.param(
            [row("running", earlier=True, ended=-HOUR)], Verdict.ORPHAN, id="an earlier try's, whatever its state"
        ),
        pytest.param(
            [row("failed", earlier=True, ended=-HOUR), row("running", id=uuid.uuid4(), number=2)],
            Verdict.WAITED_FOR,
            id="the next try has taken it over",
        ),
        pytest.param([], Verdict.UNKNOWN, id="this database has never had it"),
    ],
)
def test_a_container_is_an_orphan_only_if_this_database_knows_it_and_nobody_waits(
    related: list[Try], expected: Verdict
) -> None:
    assert verdict(*related) is expected


@pytest.mark.parametrize("age", [60.0, None])
def test_a_container_that_is_young_or_of_unknown_age_is_left_alone(age: float | None) -> None:
    assert verdict(row("success", ended=-HOUR), age=age) is Verdict.YOUNG
    assert verdict(age=age) is Verdict.YOUNG


@pytest.mark.parametrize(
    ("state", "expected"),
    [("running", Verdict.WAITED_FOR), (None, Verdict.WAITED_FOR), ("failed", Verdict.ORPHAN)],
)
def test_a_callback_is_waited_for_until_it_ends(state: str | None, expected: Verdict) -> None:
    assert verdict(callback=state, known=True) is expected
