"""The queries of ``airflow ecs-async``'s commands on PostgreSQL, which has UUIDs, enumerations and time zones."""

from __future__ import annotations

import json
import uuid
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")
pytest.importorskip("asyncpg", reason="needs the dependency group 'ha'")
pytest.importorskip("psycopg2", reason="needs the dependency group 'ha'")

from ecs_async_executor.adapter.commands import orphans
from ecs_async_executor.adapter.commands.fleet import fleet
from ecs_async_executor.adapter.commands.judging import Verdict
from ecs_async_executor.adapter.commands.targets import resolve_one
from ecs_async_executor.core.backend import Handle
from ecs_async_executor.services.console import Marked
from tests.adapter import metadata, steering
from tests.adapter.conftest import SETTINGS
from tests.e2e import postgres

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:::(?!ecs_async_executor|tests)"),
    pytest.mark.skipif(postgres.binaries() is None, reason="needs PostgreSQL"),
]

ARN = "arn:aws:ecs:us-east-1:123456789012:task/main/"
FIRST, SECOND, FOREIGN = (ARN + digit * 32 for digit in "abc")


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[steering.Place]:
    import airflow.settings

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "ecs_async_executor.AsyncEcsExecutor")
    steering.forget_executors()
    with postgres.Postgres() as server:
        metadata.build(tmp_path, server.url())
        database = metadata.Metadata(server.url())
        monkeypatch.setattr(airflow.settings, "NonScopedSession", database.sessions)
        yield steering.Place("ecs", None, database, capsys)  # type: ignore[arg-type]  # no container is asked for
        database.close()
    steering.forget_executors()


def test_the_queries_of_the_commands_say_the_same_on_postgresql(
    place: steering.Place, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier_id = place.set(0, state="running", external_executor_id=FIRST)
    place.next_try(0)
    place.set(1, state="queued", queued_dttm=steering.ago(5))
    place.says(1, "container waits", "The container waits: no capacity")
    waits_id = place.ti_id(1)

    place.call("list", "--offline", "-o", "json")
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["task_id"], row["reason"]) == ("task_1", "The container waits: no capacity")

    given = Namespace(target=[FIRST], map_index=None, try_number=None, service=None, team=None)
    found = resolve_one(fleet(given), given)
    assert found.of is not None
    assert (str(found.of.id), found.of.earlier) == (earlier_id, True)

    old = steering.ago(60).timestamp()
    containers = [
        Marked(Handle("main", FIRST), earlier_id, "RUNNING", old),
        Marked(Handle("main", SECOND), waits_id, "RUNNING", None),
        Marked(Handle("main", FOREIGN), str(uuid.uuid4()), "RUNNING", old),
    ]
    verdicts = {one.container.handle.id: one.verdict for one in orphans._judged(containers, 0.0)}
    assert verdicts == {FIRST: Verdict.ORPHAN, SECOND: Verdict.WAITED_FOR, FOREIGN: Verdict.UNKNOWN}
