"""What only Batch does, with the whole engine over the local one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.messages import Finished, Launch, Launched, Notice
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.services.batch.names import mark_in
from tests.contract.scheduler import Scheduler
from tests.contract.services import TUNING, Local, local

pytestmark = pytest.mark.slow


@pytest.fixture
def service() -> Iterator[Local]:
    with local("batch") as service:
        yield service


def run_one(scheduler: Scheduler) -> Finished:
    scheduler.heartbeat(*scheduler.launches(1))
    scheduler.run_until_finished(1)
    assert scheduler.stop()
    [finished] = scheduler.outcomes()
    return finished


def names(service: Local) -> list[str]:
    return [entry.started_by for entry in service.server.ledger.entries()]


def test_a_job_whose_submission_got_no_answer_and_that_is_not_listed_at_first_is_not_submitted_again() -> None:
    with local("batch", listed_after=1.5) as service:
        service.fault("launch", "reset_after", count=1)
        assert run_one(Scheduler(service)).success
        asked = service.server.statistics.operations
        assert asked["SubmitJob"].calls == 1
        assert asked["ListJobs"].calls > 1
        assert service.containers() == 1


def test_a_job_that_does_not_start_is_submitted_under_another_name(service: Local) -> None:
    finished = run_one(Scheduler(service, life="never-starts"))
    assert finished.reason == (
        "Batch job failed before its container ran: CannotPullContainerError: image not found "
        "(container 3 of 3, none of them started)"
    )
    assert [name.rpartition("-")[2] for name in names(service)] == ["1", "2", "3"]
    assert len({mark_in(name) for name in names(service)}) == 1


def test_the_job_definitions_retries_do_not_start_the_container_again(service: Local) -> None:
    service.server.register_job("airflow", retryStrategy={"attempts": 3})
    finished = run_one(Scheduler(service, life="fails"))
    assert (finished.exit_code, finished.reason) == (3, "Batch container exited 3")
    assert service.containers() == 1


def test_with_a_retry_strategy_of_the_users_own_only_the_last_attempt_decides(service: Local) -> None:
    class Retrying(Scheduler):
        def render(self, launch: Launch) -> LaunchSpec:
            spec = super().render(launch)
            return replace(spec, request={**spec.request, "retryStrategy": {"attempts": 2}})

    finished = run_one(Retrying(service, life="fails"))
    assert finished.reason == "Batch container exited 3 after 2 attempts by Batch"
    assert service.containers() == 2


def test_a_resumed_task_gets_its_own_jobs_outcome_and_not_that_of_the_job_before(service: Local) -> None:
    scheduler = Scheduler(service)
    [before] = scheduler.launches(1)
    resumed = before.evolve(launch_id=str(uuid.uuid4()))
    deadline = time.monotonic() + 20
    jobs: list[str] = []
    for scheduler.life, launch in (("long", before), ("quick", resumed)):
        scheduler.heartbeat(launch)
        while launch.launch_id not in {one.launch_id for one in scheduler.reports if isinstance(one, Launched)}:
            assert time.monotonic() < deadline
            scheduler.heartbeat()
            time.sleep(0.005)
        jobs += [one.handle_id for one in scheduler.reports if isinstance(one, Launched)][len(jobs) :]
    service.server.client("batch").terminate_job(jobId=jobs[0], reason="it was deferred")
    while service.server.job(jobs[0])["status"] != "FAILED":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    scheduler.run_until_finished(1)
    time.sleep(4 * TUNING.poll_interval)  # for whatever else might be said of the first one
    scheduler.heartbeat()
    assert scheduler.stop()
    assert [(one.launch_id, one.success) for one in scheduler.outcomes()] == [(resumed.launch_id, True)]
    assert len(set(names(service))) == service.containers() == 2


def test_a_job_that_stays_runnable_says_why_and_fails_if_it_may_not_wait_for_so_long(service: Local) -> None:
    class Impatient(Scheduler):
        def __init__(self, service: Local, **options: Any) -> None:
            super().__init__(service, **options)
            self.bridge.stop(10, stop_containers=False, reason="")
            tuning = TUNING.model_copy(update={"capacity_timeout": 1.0})
            self.bridge = Bridge(
                service=service.facts, backend=service.backend, render=self.render, tuning=tuning, max_attempts=3
            )
            self.bridge.start()

    service.fault("launch", "stuck", seconds=600)
    scheduler = Impatient(service)
    finished = run_one(scheduler)
    assert "Batch let the container wait for 1 s: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY" in (
        finished.reason or ""
    )
    [notice] = [report for report in scheduler.reports if isinstance(report, Notice)]
    assert notice.text.startswith("The container waits: Batch: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    assert service.server.job(finished.handle_id or "")["status"] == "FAILED"


def test_a_job_queue_in_which_jobs_stay_runnable_is_left_for_the_next_one() -> None:
    class Choosing(Scheduler):
        def __init__(self, service: Local) -> None:
            super().__init__(service, life="long")
            self.bridge.stop(10, stop_containers=False, reason="")
            self.bridge = Bridge(
                service=service.facts,
                backend=service.backend,
                render=self.rendered,
                choices=lambda _: Choices(("spot", "on-demand"), 1.5),
                tuning=TUNING,
                max_attempts=3,
            )
            self.bridge.start()

        def rendered(self, launch: Launch, choice: str) -> LaunchSpec:
            spec = self.render(launch)
            request = {**spec.request, "jobQueue": choice}
            return replace(spec, request=request, scope=choice, placement=choice, choice=choice)

    def launched(scheduler: Scheduler, count: int) -> list[str]:
        deadline = time.monotonic() + 30
        scheduler.heartbeat(*scheduler.launches(1))
        while len(found := [one.handle_id for one in scheduler.reports if isinstance(one, Launched)]) < count:
            assert time.monotonic() < deadline, scheduler.bridge.statistics()
            scheduler.heartbeat()
            time.sleep(0.005)
        return found

    with local("batch", capacity={"spot": 1}) as service:
        for name in ("spot", "on-demand"):
            service.server.create_job_queue(name)
        scheduler = Choosing(service)
        count, queue = 0, ""
        deadline = time.monotonic() + 30
        while "on-demand" not in queue:
            assert time.monotonic() < deadline
            count += 1
            queue = service.server.job(launched(scheduler, count)[-1])["jobQueue"]
            time.sleep(0.25)
        waiting = service.server.job(launched(scheduler, count + 1)[1])
        assert scheduler.stop(containers=True)
    assert count > 3, "not before its patience is spent"
    assert waiting["status"] == "RUNNABLE"
    texts = [one.text for one in scheduler.reports if isinstance(one, Notice)]
    assert any("Launched at placement 'on-demand': 'spot' has been full for" in text for text in texts), texts


@pytest.mark.parametrize("cancels", [True, False])
def test_a_job_that_a_time_limit_of_its_queue_ends_is_not_submitted_again(cancels: bool) -> None:
    with local("batch", behaviour={"time_limit_cancels": cancels}) as service:
        service.fault("launch", "unplaced", seconds=0.5)
        finished = run_one(Scheduler(service))
        assert not finished.success
        assert "Canceled by JobStateTimeLimit action due to reason: CAPACITY" in (finished.reason or "")
        assert service.containers() == 1


def test_why_a_job_waits_is_told_although_its_request_was_refused_before(service: Local) -> None:
    refusal = "Error executing request, Exception : JobQueue default not found"
    service.fault("launch", "error", code="ClientException", message=refusal, count=1)
    service.fault("launch", "stuck", seconds=600, reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too big")
    scheduler = Scheduler(service)
    scheduler.heartbeat(*scheduler.launches(1))
    deadline = time.monotonic() + 30
    while len(notices := [one.text for one in scheduler.reports if isinstance(one, Notice)]) < 2:
        assert time.monotonic() < deadline, scheduler.reports
        scheduler.heartbeat()
        time.sleep(0.005)
    assert scheduler.stop(containers=True)
    assert refusal in notices[0]
    assert notices[1:] == ["The container waits: Batch: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - too big"]
