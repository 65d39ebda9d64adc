"""Row locks on PostgreSQL: what an adoption's do to those who call the API, and what becomes of skipped events."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="needs the dependency group 'ha'")
pytest.importorskip("psycopg2", reason="needs the dependency group 'ha'")

from airflow.models.taskinstance import TaskInstance
from sqlalchemy import event, select

from ecs_async_executor import AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.demo.interrupts import Interrupts
from tests.adapter.metadata import DAG, Metadata, adopt, process_events
from tests.adapter.scripted import queue
from tests.e2e.deployment import Deployment
from tests.e2e.postgres import Postgres, binaries

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server"),
    # Airflow runs in the test's own process here, and uses what its dependencies deprecate.
    pytest.mark.filterwarnings("ignore:::(?!ecs_async_executor|tests)"),
]

RUNNING = 2000
CALLING = 40
"""So many of them have a container that says that it is alive."""
TYPICALS = 250
"""So many times what a call takes otherwise may the locks be held: a machine's speed matters to both alike."""
QUEUED = 200
"""Half of these ask to run before the adoption, for comparison, and as many as get to it while it goes on."""


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def airflow(tmp_path: Any, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    with Interrupts() as interrupts:
        deployment = Deployment(tmp_path, postgres, DAG, interrupts)
        try:
            deployment.start(dags=1)
            deployment.processes.run("trigger", sys.executable, "-m", "airflow", "dags", "trigger", "adopted")
            yield deployment
        finally:
            deployment.close()


class TimedExecutor(AsyncEcsExecutor):
    """Knows how long Airflow's row locks were held for its sake."""

    adopting = 0.0

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        began = time.monotonic()
        try:
            return super().try_adopt_task_instances(tis)
        finally:
            self.adopting += time.monotonic() - began


class Locks:
    """From the scheduler's first row lock to its commit, by the clock that all processes share."""

    def __init__(self, database: Metadata) -> None:
        self.since: float | None = None
        self.until: float | None = None
        event.listen(database.engine, "after_cursor_execute", self._executed)
        event.listen(database.engine, "commit", self._committed)

    def _executed(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.since is None and "SKIP LOCKED" in statement and "FROM task_instance" in statement:
            self.since = time.monotonic()

    def _committed(self, _: Any) -> None:
        if self.since is not None and self.until is None:
            self.until = time.monotonic()


def configure(monkeypatch: pytest.MonkeyPatch, airflow: Deployment, ecs: LocalEcs) -> None:
    """Let this process be a scheduler of the deployment."""
    settings = {
        **airflow.home.environment,
        **airflow.home.executor(provider=False, ecs_url=ecs.url, subnets="subnet-1", security_groups="sg-1"),
        "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def make_orphans(database: Metadata) -> tuple[list[Any], list[Any]]:
    """Queue and run task instances under a scheduler that is gone; return those that containers speak for."""
    database.orphan_mapped(*(str(uuid.uuid4()) for _ in range(RUNNING + QUEUED)))
    with database.session() as session:
        tis = database.mapped(session)
        for ti in tis[: RUNNING - CALLING]:
            ti.state = "running"
            ti.external_executor_id = f"arn:aws:ecs:us-east-1:123456789012:task/demo/{ti.id.hex}"
        return tis[RUNNING - CALLING : RUNNING], tis[RUNNING:]


def with_tokens(executor: AsyncEcsExecutor, database: Metadata, tis: list[Any]) -> list[dict[str, str]]:
    """Say what the containers of these task instances have to know."""
    ids = {ti.id for ti in tis}
    with database.session() as session:
        loaded = [ti for ti in database.mapped(session) if ti.id in ids]
        compat.load_for_adoption(loaded)
        workloads = compat.rebuild(loaded)
    generator = executor.jwt_generator
    return [
        {"id": str(ti_id), "token": compat.with_fresh_jwt(workload, generator)[0].token}
        for ti_id, workload in workloads.items()
    ]


def figures(calls: list[dict[str, Any]]) -> str:
    took = sorted(1000 * (call["ended"] - call["began"]) for call in calls)
    return f"{len(took)} calls, median {statistics.median(took):.0f} ms, longest {took[-1]:.0f} ms"


def test_no_call_waits_longer_than_the_adoption_of_2000_running_takes_and_that_asks_nothing_of_ecs(
    airflow: Deployment, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Metadata(postgres.url())
    calling, waiting = make_orphans(database)
    with LocalEcs(clusters=["demo"]) as ecs:
        configure(monkeypatch, airflow, ecs)
        executor = TimedExecutor(parallelism=2 * (RUNNING + QUEUED))
        executor.start()
        callers = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.callers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert callers.stdin is not None
            assert callers.stdout is not None
            told = {
                "url": airflow.home.url,
                "running": with_tokens(executor, database, calling),
                "waiting": with_tokens(executor, database, waiting),
            }
            print(json.dumps(told), file=callers.stdin, flush=True)
            assert callers.stdout.readline() == "ready\n"
            locks = Locks(database)
            print("go", file=callers.stdin, flush=True)
            time.sleep(0.2)  # calls are under way when it begins
            with database.session() as session:
                given_back = adopt(executor, session)
            requests = dict(ecs.statistics.operations)
            time.sleep(0.5)
            output, _ = callers.communicate("stop\n", timeout=60)
        finally:
            callers.kill()
            callers.wait()
            executor.end()
            database.close()
    calls: list[dict[str, Any]] = json.loads(output)
    assert locks.since is not None
    assert locks.until is not None
    held = locks.until - locks.since

    assert given_back == 0
    assert executor.slots_occupied >= RUNNING
    assert not requests
    assert {call["status"] for call in calls} <= {200, 204}
    baseline = [call for call in calls if call["phase"] == "baseline"]
    during = [call for call in calls if call["began"] < locks.until and call["ended"] > locks.since]
    for what in ("run", "heartbeat"):
        before, meanwhile = ([c for c in some if c["what"] == what] for some in (baseline, during))
        print(f"{what}: {figures(before)}; while {held:.2f} s of locks: {figures(meanwhile)}")  # noqa: T201
        usual = max(call["ended"] - call["began"] for call in before)
        assert max(call["ended"] - call["began"] for call in meanwhile) <= held + usual + 0.5
    # What a call takes while nothing is locked tells how fast this machine is.
    typical = statistics.median(call["ended"] - call["began"] for call in baseline)
    assert held <= TYPICALS * typical
    assert executor.adopting <= held / 2
    print(f"{executor.adopting:.2f} s of these were spent in the executor, the others in Airflow's own code")  # noqa: T201


def beat_until_over(executor: AsyncEcsExecutor) -> tuple[str, str]:
    """Heartbeat until an end waits for the scheduler; return it, and leave it where it is."""
    deadline = time.monotonic() + 60
    while True:
        executor.heartbeat()
        for state, info in executor.event_buffer.values():
            if str(state) != "running":
                return str(state), str(info)
        assert time.monotonic() < deadline, executor.event_buffer
        time.sleep(0.05)


@pytest.mark.parametrize("identity", [str(uuid.uuid4()), None], ids=["assigned", "not assigned"])
def test_an_end_that_the_scheduler_dropped_for_a_locked_row_is_found_again_by_who_adopts(
    airflow: Deployment, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, identity: str | None
) -> None:
    database = Metadata(postgres.url())
    database.orphan("queued", external_ids=[identity], executor_config={})
    script = [{"duration": 0.5, "exit_code": 3}]
    with LocalEcs(clusters=["demo"], runner="scripted", script=script) as ecs:
        ecs.register("demo", "airflow")
        configure(monkeypatch, airflow, ecs)
        first, second = AsyncEcsExecutor(parallelism=32), AsyncEcsExecutor(parallelism=32)
        try:
            first.start()
            with database.session() as session:
                ti = database.tis(session)[0]
                ti_id, job_id = ti.id, ti.queued_by_job_id
                compat.load_for_adoption([ti])
                queue(first, *compat.rebuild([ti]).values())
            assert beat_until_over(first)[0] == "failed"
            with database.session() as other, database.session() as session:
                other.scalars(select(TaskInstance).where(TaskInstance.id == ti_id).with_for_update()).one()
                process_events(first, session, job_id)
            assert not first.event_buffer
            with database.session() as session:
                ti = database.tis(session)[0]
                assert (str(ti.state), ti.external_executor_id) == ("queued", identity)
            first.end()

            second.start()
            with database.session() as session:
                assert adopt(second, session) == 0
            state, reason = beat_until_over(second)
            with database.session() as session:
                process_events(second, session, database.tis(session)[0].queued_by_job_id)
            with database.session() as session:
                ti = database.tis(session)[0]
                assert (str(ti.state), ti.try_number) == ("failed", 1)
        finally:
            second.end()
            first.end()
            database.close()
        assert (state, "exited 3" in reason) == ("failed", True)
        stopped = ecs.client().list_tasks(cluster="demo", desiredStatus="STOPPED")["taskArns"]
        assert (len(stopped), ecs.running, ecs.waiting) == (1, 0, 0)
