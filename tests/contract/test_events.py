"""Events from end to end: the local ECS and Batch, moto's EventBridge and SQS, and our client of SQS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.local import Fault
from ecs_async_executor.services.events import SqsEvents
from ecs_async_executor.settings.rules import AT_HOME
from tests.contract.scheduler import Scheduler
from tests.contract.services import LOCAL, SETTINGS, TUNING, Local, local
from tests.local.rules import told_of

RARE = TUNING.model_copy(update={"poll_interval": 60.0})
"""Sweeps are too rare to see anything in time."""


@pytest.fixture(params=LOCAL)
def service(request: pytest.FixtureRequest) -> Iterator[Local]:
    with local(request.param) as service:
        yield service


Begin = Callable[..., Scheduler]


@pytest.fixture
def begin(service: Local) -> Iterator[Begin]:
    begun: list[Scheduler] = []
    url = told_of(service.server, service.name).url

    def begin(life: str = "quick", tuning: object = RARE) -> Scheduler:
        def events() -> dict[str, SqsEvents]:
            return {HOME: SqsEvents.from_settings(SETTINGS, TUNING, AT_HOME, url)}

        begun.append(scheduler := Scheduler(service, life, tuning=tuning, events=events))
        return scheduler

    yield begin
    for scheduler in begun:
        scheduler.stop()


def ready(scheduler: Scheduler) -> None:
    """Wait until the queue has answered; the first sweep is over by then."""
    wait_for_trouble(scheduler, "")


def wait_for_trouble(scheduler: Scheduler, words: str) -> None:
    """Wait until these words are said about the queue; no words: until it is well."""
    deadline = time.monotonic() + 30.0
    while (
        not (events := scheduler.bridge.statistics().events)
        or bool(told := events[0].trouble or "") != bool(words)
        or words not in told
    ):
        assert time.monotonic() < deadline, events
        scheduler.heartbeat()
        time.sleep(0.05)


def test_ends_are_seen_by_their_events(begin: Begin, service: Local) -> None:
    scheduler = begin()
    service.server.client("sqs").send_message(QueueUrl=queue_of(service), MessageBody="not an event")
    ready(scheduler)
    asked = calls(service)
    scheduler.heartbeat(*scheduler.launches(30))
    scheduler.run_until_finished(30, timeout=40.0)
    assert all(end.success for end in scheduler.outcomes())
    assert calls(service) - asked <= 60
    counts = scheduler.bridge.meters.counts()
    assert counts["events.received"] >= 30
    assert counts["events.ignored"] >= 1


@pytest.mark.parametrize("kind", ["event_doubled", "event_late", "event_forged"])
def test_doubled_late_and_forged_events_change_no_outcome(begin: Begin, service: Local, kind: str) -> None:
    service.server.faults.add(Fault(kind=kind, probability=0.7, seconds=2.0))
    scheduler = begin("fails")
    ready(scheduler)
    scheduler.heartbeat(*scheduler.launches(20))
    scheduler.run_until_finished(20, timeout=50.0)
    assert [end.exit_code for end in scheduler.outcomes()] == [3] * 20
    assert service.containers() == 20


def test_lost_events_are_made_up_for_by_sweeps(begin: Begin, service: Local) -> None:
    service.server.faults.add(Fault(kind="event_lost"))
    scheduler = begin(tuning=TUNING)
    scheduler.heartbeat(*scheduler.launches(20))
    scheduler.run_until_finished(20, timeout=30.0)
    assert all(end.success for end in scheduler.outcomes())


def test_without_its_queue_a_scheduler_polls(begin: Begin, service: Local) -> None:
    service.server.client("sqs").delete_queue(QueueUrl=queue_of(service))
    scheduler = begin(tuning=TUNING)
    scheduler.heartbeat(*scheduler.launches(5))
    scheduler.run_until_finished(5, timeout=30.0)
    wait_for_trouble(scheduler, "exist")


def queue_of(service: Local) -> str:
    url: str = service.server.client("sqs").get_queue_url(QueueName=f"{service.name}-events")["QueueUrl"]
    return url


def calls(service: Local) -> int:
    return service.server.statistics.operation(service.operations["describe"]).calls
