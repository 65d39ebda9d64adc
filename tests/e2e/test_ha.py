"""Schedulers that come and go on PostgreSQL: each task instance runs in one container, at its first try."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("asyncpg", reason="needs the dependency group 'ha'")
pytest.importorskip("psycopg2", reason="needs the dependency group 'ha'")

from ecs_async_executor.adapter.compat import AIRFLOW_VERSION
from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.demo.interrupts import Interrupts
from tests.e2e.deployment import BOTH_EXECUTORS, OURS, SHUTDOWN_TIMEOUT, Deployment, Scheduler
from tests.e2e.played import Container, Ending, PlayedRunner, label
from tests.e2e.postgres import Postgres, binaries

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server"),
]

SLOWLY = {
    "AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_BURST": "4",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE": "4",
    "AIRFLOW__ECS_ASYNC_EXECUTOR__LAUNCH_RATE_MAX": "4",
}
BURST = tuple(f"burst_{number}" for number in range(4))
EACH = 40
SLOTS = 5
BY_CLASS = OURS.rpartition(".")[2] if AIRFLOW_VERSION >= (3, 2) else OURS
"""The executor as a task can name it. Airflow 3.1 wants to see the module too."""
HEADER = """
from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import dag, task

once = {"schedule": "@once", "start_date": datetime(2025, 1, 1, tzinfo=timezone.utc), "catchup": False}


def many(name: str, number: int, **options: object) -> None:
    @dag(dag_id=name, **once)
    def make() -> None:
        @task(**{"retries": 1, "retry_delay": timedelta(seconds=1), **options})
        def work(number: int) -> None: ...

        work.expand(number=list(range(number)))

    globals()[name] = make()
"""
DAGS = f"""
{HEADER}
for name in {BURST!r}:
    many(name, {EACH})
many("deployed", 60)
many("deferring", 20)
many("deferring_by_class", 20, executor={BY_CLASS!r})
many("cleared", 6)
many("sensing", 16, pool="narrow")
many("sensing_late", {SLOTS}, pool="narrow")
many("hogging", {SLOTS}, pool="narrow", priority_weight=100)
many("waiting", 10, retries=3)
"""
TEAM_DAGS = f"""
{HEADER}
many("deferring_by_team", 20)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Interrupts() as interrupts, Postgres() as postgres:
        deployment = Deployment(tmp_path_factory.mktemp("ha"), postgres, DAGS, interrupts)
        try:
            deployment.start(dags=len(BURST) + 8)
            deployment.processes.run(
                "pool",
                sys.executable,
                "-m",
                "airflow",
                "pools",
                "set",
                "narrow",
                str(SLOTS),
                "fewer than its sensors",
            )
            yield deployment
        finally:
            deployment.close()


@pytest.fixture
def team_airflow(tmp_path: Path) -> Iterator[Deployment]:
    with Interrupts() as interrupts, Postgres() as postgres:
        deployment = Deployment(tmp_path, postgres, TEAM_DAGS, interrupts, team=True)
        try:
            deployment.start(dags=1)
            yield deployment
        finally:
            deployment.close()


async def work(container: Container) -> None:
    await asyncio.sleep(4)
    await container.succeed()


def tell(text: str) -> None:
    """Say how it went, to whoever runs this with ``-s`` or reads a failure's output."""
    print(text)  # noqa: T201


def launched(ecs: LocalEcs) -> set[str]:
    """Name the task instances that containers were made for."""
    return {label(entry.command) for entry in ecs.ledger.entries()}


def each_ran_once(airflow: Deployment, ecs: LocalEcs, *dags: str, containers: int | Mapping[str, int] = 1) -> None:
    """
    Assert that every task instance succeeded at its first try, and that no container was refused.

    :param containers: how many each had; by DAG, if they differ
    """
    assert isinstance(ecs.runner, PlayedRunner)
    instances = airflow.instances(*dags)
    states = Counter((one.state, one.number) for one in instances)
    assert states == {("success", 1): len(instances)}, airflow.logs()
    assert ecs.runner.failed == []
    assert ecs.runner.refused == []
    wanted = containers if isinstance(containers, Mapping) else dict.fromkeys(dags, containers)
    assert Counter(ecs.runner.allowed) == {one.label: wanted[one.label.split(".")[0]] for one in instances}
    assert Counter(label(entry.command) for entry in ecs.ledger.entries()) == Counter(ecs.runner.allowed)


def test_one_of_two_schedulers_is_killed_in_a_burst_and_each_runs_once_at_try_1(airflow: Deployment) -> None:
    # RunTask takes its time: some requests are under way, without an answer, when the scheduler dies.
    with airflow.ecs(work, latency={"RunTask": 0.3}) as ecs:
        # Neither may take everything, and there is always something that it has not launched yet.
        settings = {**SLOWLY, "AIRFLOW__CORE__PARALLELISM": "80"}
        first = airflow.start_scheduler(ecs, settings)
        second = airflow.start_scheduler(ecs, settings)
        airflow.unpause(*BURST)

        def of(scheduler: Scheduler) -> Counter[str]:
            known = launched(ecs)
            return Counter(
                one.state if one.state != "queued" or one.label in known else "not launched"
                for one in airflow.instances(*BURST)
                if one.job == scheduler.job and one.state is not None
            )

        def is_amid() -> bool:
            return (
                len(ecs.ledger) >= 40
                and of(first)["running"] > 0
                and of(first)["not launched"] >= 10
                and of(second)["running"] > 0
            )

        airflow.until(is_amid, pause=0.02)
        airflow.kill(first, signal.SIGKILL)
        left, had = of(first), len(ecs.ledger)
        assert left["not launched"] >= 5
        assert left["running"] >= 1

        airflow.until(lambda: airflow.succeeded(*BURST) == len(BURST) * EACH)
        each_ran_once(airflow, ecs, *BURST)
        tell(f"killed with {had} containers made and, of its own, {dict(left)}; then {len(ecs.ledger)} in all")


def test_a_scheduler_is_ended_in_a_burst_and_the_next_one_runs_each_once_at_try_1(airflow: Deployment) -> None:
    with airflow.ecs(work, latency={"RunTask": 0.3}) as ecs:
        first = airflow.start_scheduler(ecs, SLOWLY)
        airflow.unpause("deployed")
        airflow.until(lambda: len(ecs.ledger) >= 15, pause=0.02)
        took = airflow.kill(first, signal.SIGTERM)
        had = len(ecs.ledger)
        assert took < SHUTDOWN_TIMEOUT + 5
        assert had < 60, "it was too late to interrupt anything"

        airflow.start_scheduler(ecs)
        airflow.until(lambda: airflow.succeeded("deployed") == 60)
        each_ran_once(airflow, ecs, "deployed")
        tell(f"ended in {took:.1f} s with {had} containers made")


def kill_between_resume_and_run_task(
    airflow: Deployment, dags: tuple[str, ...], left_over: str, settings: Mapping[str, str]
) -> None:
    """
    Kill a scheduler that has queued resumed deferrals again and launched none of them, and start another.

    :param left_over: the DAG whose task instances get no new identity, and still carry the ARN of their container
    """
    seen: Counter[str] = Counter()
    deferred: set[str] = set()
    may_defer = threading.Event()

    async def defer_once(container: Container) -> None:
        seen[container.label] += 1
        if seen[container.label] == 1:
            while not may_defer.is_set():
                await asyncio.sleep(0.1)
            await container.defer(8)
            deferred.add(container.label)
        else:
            await container.succeed()

    def carry_an_arn() -> int:
        return sum((one.external_executor_id or "").startswith("arn") for one in airflow.instances(left_over))

    number = 20 * len(dags)
    with airflow.ecs(defer_once) as ecs:
        first = airflow.start_scheduler(ecs, settings)
        airflow.unpause(*dags)
        # Not always all 20: an event whose row somebody else has locked just then is dropped by Airflow.
        airflow.until(lambda: len(seen) == number and carry_an_arn() >= 10)
        ecs.faults.throttle("RunTask")
        may_defer.set()
        airflow.until(lambda: len(deferred) == number and airflow.states(*dags) == {("queued", 1): number})
        assert len(ecs.ledger) == number
        assert carry_an_arn() >= 10
        airflow.kill(first, signal.SIGKILL)
        ecs.faults.clear()

        airflow.start_scheduler(ecs, settings)
        airflow.until(lambda: airflow.succeeded(*dags) == number)
        each_ran_once(airflow, ecs, *dags, containers=2)


def test_a_scheduler_is_killed_between_a_deferrals_end_and_run_task_and_each_resumes_once(
    airflow: Deployment,
) -> None:
    # With a second executor beside it, Airflow assigns no new id to a task that names its executor by class
    # name only. Before Airflow 3.2.2 it never assigns one.
    settings = {"AIRFLOW__CORE__EXECUTOR": BOTH_EXECUTORS}
    kill_between_resume_and_run_task(airflow, ("deferring", "deferring_by_class"), "deferring_by_class", settings)


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="Airflow 3.1 has no teams")
def test_a_teams_scheduler_is_killed_between_a_deferrals_end_and_run_task_and_each_resumes_once(
    team_airflow: Deployment,
) -> None:
    # Nor to a task that names no executor and gets its team's, as long as everybody's is another.
    kill_between_resume_and_run_task(team_airflow, ("deferring_by_team",), "deferring_by_team", {})


def test_sensors_that_poke_faster_than_containers_stop_have_one_container_for_each_poke_on_a_full_pool(
    airflow: Deployment,
) -> None:
    pokes = 4
    seen: Counter[str] = Counter()

    async def poke(container: Container) -> None:
        seen[container.label] += 1
        await asyncio.sleep(0.5)
        if seen[container.label] < pokes:
            await container.reschedule(1)
        else:
            await container.succeed()

    # Of every two containers, one shows its exit code at once and one when the next poke is over as well.
    with airflow.ecs(poke, lambda job: Ending(exit_shows=job.number % 2 * 7, stops=10)) as ecs:
        airflow.start_scheduler(ecs)
        airflow.unpause("sensing")
        airflow.until(lambda: airflow.succeeded("sensing") == 16 or airflow.states("sensing")["failed", 1])
        each_ran_once(airflow, ecs, "sensing", containers=pokes)


def test_an_end_that_shows_while_the_sensor_waits_for_a_full_pool_again_fails_nothing(airflow: Deployment) -> None:
    give_back, make_room = threading.Event(), threading.Event()
    seen: Counter[str] = Counter()

    async def wait_for(event: threading.Event) -> None:
        while not event.is_set():
            await asyncio.sleep(0.1)

    async def play(container: Container) -> None:
        seen[container.label] += 1
        if container.ti["dag_id"] == "hogging":
            await wait_for(make_room)
            await container.succeed()
        elif seen[container.label] == 1:
            await wait_for(give_back)
            await container.reschedule(1)
        else:
            await container.succeed()

    dags = ("sensing_late", "hogging")
    with airflow.ecs(play, lambda job: Ending(exit_shows=7)) as ecs:
        scheduler = airflow.start_scheduler(ecs)
        airflow.unpause("sensing_late")
        airflow.until(lambda: airflow.states("sensing_late") == {("running", 1): SLOTS})
        airflow.unpause("hogging")
        airflow.until(lambda: airflow.states("hogging") == {("scheduled", 1): SLOTS})
        give_back.set()
        airflow.until(lambda: airflow.states(*dags) == {("scheduled", 1): SLOTS, ("running", 1): SLOTS})
        # The scheduler hears of the ends only now, of task instances that are scheduled again.
        log = airflow.processes.log(scheduler.name)
        airflow.until(lambda: log.read_text().count(" state=scheduled, executor=") == SLOTS)
        assert airflow.states("sensing_late") == {("scheduled", 1): SLOTS}
        make_room.set()
        airflow.until(lambda: airflow.succeeded(*dags) == 2 * SLOTS)
        each_ran_once(airflow, ecs, *dags, containers={"sensing_late": 2, "hogging": 1})


def test_an_outage_of_capacity_that_outlasts_airflows_patience_with_the_queued_costs_no_try(
    airflow: Deployment,
) -> None:
    patience = 10
    settings = {
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(patience),
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
    }
    with airflow.ecs(work) as ecs:
        ecs.faults.no_capacity()
        airflow.start_scheduler(ecs, settings)
        airflow.unpause("waiting")
        airflow.until(lambda: airflow.states("waiting") == {("queued", 1): 10})
        # Airflow gives what is queued for too long two more chances, and then fails it without its retries.
        time.sleep(4 * patience)
        assert airflow.states("waiting") == {("queued", 1): 10}
        assert len(ecs.ledger) == 0
        ecs.faults.clear()
        airflow.until(lambda: airflow.succeeded("waiting") == 10)
        each_ran_once(airflow, ecs, "waiting")


def test_a_running_task_is_cleared_and_its_scheduler_killed_and_what_restarts_is_adopted_not_launched(
    airflow: Deployment,
) -> None:
    release = threading.Event()

    async def notice_late(container: Container) -> None:
        while not release.is_set():
            await asyncio.sleep(0.2)
        await container.heartbeat()
        await container.succeed()

    with airflow.ecs(notice_late) as ecs:
        assert isinstance(ecs.runner, PlayedRunner)
        runner = ecs.runner
        first = airflow.start_scheduler(ecs)
        airflow.unpause("cleared")
        airflow.until(lambda: airflow.states("cleared") == {("running", 1): 6})
        airflow.processes.run("clear", sys.executable, "-m", "airflow", "tasks", "clear", "--yes", "cleared")

        def restarting(job: int) -> int:
            return sum(one.state == "restarting" and one.job == job for one in airflow.instances("cleared"))

        assert restarting(first.job) == 6
        airflow.kill(first, signal.SIGKILL)
        second = airflow.start_scheduler(ecs)
        airflow.until(lambda: restarting(second.job) == 6)
        time.sleep(8)  # longer than a look-up takes that finds nothing
        assert restarting(second.job) == 6
        assert len(ecs.ledger) == 6

        # The old containers learn that their try is over and end with an error; Airflow then starts the next one.
        release.set()
        airflow.until(lambda: airflow.succeeded("cleared") == 6)
        assert len(runner.refused) == 6
        assert Counter(runner.allowed) == {f"cleared.work[{number}]": 2 for number in range(6)}
        assert len(ecs.ledger) == 12
