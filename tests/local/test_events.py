"""What EventBridge and SQS tell a client of tasks and jobs, and what can become of that on its way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest
from jsonpath_ng.ext.parser import ExtendedJsonPathParser

from ecs_async_executor.local import Fault, LocalEcs
from tests.local.conftest import request
from tests.local.rules import PATHS, Told, told_of

Start = Callable[..., LocalEcs]
JOB = {"jobName": "job", "jobQueue": "default", "jobDefinition": "airflow"}


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def extract_of(body: str) -> dict[str, str] | None:
    """Return what a rule has passed; None: it is nothing of a rule's."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("container"), str) else None


def so_far(told: Told) -> list[str]:
    """Return all bodies that have come."""
    told.receive()
    return told.all


def states(told: Told, handle_id: str, last: str) -> list[str]:
    """Return the states that a container was told to be in, up to the last."""
    found: list[str] = []

    def has_come() -> bool:
        for body in told.receive():
            told_now = extract_of(body)
            if told_now is not None and told_now["container"] == handle_id:
                found.append(told_now["status"])
        return last in found

    until(has_come)
    return found


@pytest.fixture
def ecs(start: Start) -> LocalEcs:
    return start(runner="scripted", script=[{"pending": 1.0, "duration": 1.5, "exit_code": 1}])


def test_the_rule_passes_container_and_state_of_a_task_and_no_command(ecs: LocalEcs) -> None:
    told = told_of(ecs, "ecs")
    [task] = ecs.client().run_task(**request("secret"))["tasks"]
    until(lambda: any("STOPPED" in one for one in so_far(told)))
    bodies = told.all
    assert "secret" not in str(bodies)
    assert {*json.loads(bodies[0])} == {"container", "cluster", "status", "at"}
    assert json.loads(bodies[0])["cluster"].endswith(":cluster/default")
    found = [one for one in map(extract_of, bodies) if one is not None]
    assert {one["container"] for one in found} == {task["taskArn"]}
    assert {"RUNNING", "STOPPED"} <= {one["status"] for one in found}


def test_the_rule_passes_identifier_and_state_of_a_job(ecs: LocalEcs) -> None:
    told = told_of(ecs, "batch")
    job = ecs.client("batch").submit_job(**JOB)["jobId"]
    assert {"RUNNING", "FAILED"} <= set(states(told, job, "FAILED"))


def test_without_a_transformer_the_whole_event_comes(ecs: LocalEcs) -> None:
    told = told_of(ecs, "ecs", transformed=False)
    [task] = ecs.client().run_task(**request("secret"))["tasks"]
    body = until(lambda: next((one for one in told.receive() if "RUNNING" in one), None))
    event = json.loads(body)
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
    assert event["resources"] == [task["taskArn"]] == [event["detail"]["taskArn"]]
    assert event["detail"]["version"] > 1
    assert "secret" in body


def test_a_rule_hears_of_nothing_that_was_before_it(start: Start) -> None:
    ecs = start(runner="scripted", script=[{"duration": 0.0}])
    ecs.client().run_task(**request())
    ecs.wait_stopped()
    told = told_of(ecs, "ecs")
    [task] = ecs.client().run_task(**request())["tasks"]
    assert states(told, task["taskArn"], "STOPPED")
    assert not [one for one in told.all if task["taskArn"] not in one]


@pytest.mark.parametrize("kind", ["event_lost", "event_doubled", "event_late", "event_forged"])
def test_events_are_lost_doubled_late_and_forged(ecs: LocalEcs, kind: str) -> None:
    told = told_of(ecs, "ecs")
    number = ecs.faults.add(Fault(kind=kind, operation="TaskStateChange", contains='"STOPPED"', seconds=1.5))
    [task] = ecs.client().run_task(**request())["tasks"]
    arn = task["taskArn"]
    ecs.wait_stopped()
    began = time.monotonic()
    if kind == "event_lost":
        until(lambda: ecs.faults.struck(number))
        ecs.faults.clear()
        [other] = ecs.client().run_task(**request())["tasks"]
        states(told, other["taskArn"], "STOPPED")
        assert not [one for one in told.all if arn in one and "STOPPED" in one]
        return
    states(told, arn, "STOPPED")
    if kind == "event_late":
        assert time.monotonic() - began > 1.0
    elif kind == "event_doubled":
        until(lambda: len([one for one in so_far(told) if "STOPPED" in one and arn in one]) > 1)
    else:
        until(lambda: [one for one in so_far(told) if extract_of(one) is None])
        until(lambda: [one for one in so_far(told) if extract_of(one) is not None and arn not in one])


def test_a_receiver_waits_without_holding_up_others(ecs: LocalEcs) -> None:
    told = told_of(ecs, "ecs")
    began = time.monotonic()
    assert told.receive(wait=1) == []
    assert time.monotonic() - began >= 1.0
    told.send_later("hello")
    assert told.receive(wait=20) == ["hello"]
    assert time.monotonic() - began < 10.0


def test_a_queue_can_be_gone_or_denied(ecs: LocalEcs) -> None:
    told = told_of(ecs, "ecs")
    number = ecs.faults.error("ReceiveMessage", "AccessDeniedException", "not authorized", 403)
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        told.receive()
    ecs.faults.remove(number)
    told.delete_queue()
    with pytest.raises(botocore.exceptions.ClientError, match=r"NonExistentQueue|QueueDoesNotExist"):
        told.receive()


def test_the_paths_of_a_rule_are_read_once_and_not_again_for_each_event(
    ecs: LocalEcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading one takes moto's only thread for 20 ms and more, and every request waits for it."""
    readers: list[object] = []
    make = ExtendedJsonPathParser.__init__

    def count(self: object, *args: Any, **kwargs: Any) -> None:
        readers.append(self)
        make(self, *args, **kwargs)

    monkeypatch.setattr(ExtendedJsonPathParser, "__init__", count)
    told = told_of(ecs, "ecs")
    for _ in range(10):
        ecs.client().run_task(**request("main"))
    until(lambda: len(so_far(told)) >= 10)
    assert len(readers) <= len(PATHS["ecs"])
