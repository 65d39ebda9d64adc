"""Spot: capacity that one provider lacks, and interruptions with their warning."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs
from tests.local.conftest import Clock

FOREVER = [{"duration": None}]
FULL = [
    {"reason": "Capacity is unavailable at this time. Please try again later or in a different availability zone"}
]
INTERRUPTED = ("SpotInterruption", "Your Spot Task was interrupted.")
OBEDIENT = ("sh", "-c", 'trap "exit 17" TERM; echo ready; while :; do sleep 0.05; done')
STUBBORN = ("sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 0.05; done')

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
Submit = Callable[..., str]


def through(provider: str, *command: str, **override: Any) -> dict[str, Any]:
    container = {"name": "main", **({"command": list(command)} if command else {}), **override}
    return {
        "taskDefinition": "job",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "capacityProviderStrategy": [{"capacityProvider": provider}],
        "overrides": {"containerOverrides": [container]},
    }


def ready(ecs: LocalEcs, arn: str) -> None:
    deadline = time.monotonic() + 30
    while "ready" not in ecs.log(arn):
        assert time.monotonic() < deadline, ecs.task(arn)
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["limit", "fault"])
def test_spot_can_be_full_while_on_demand_is_not(start: Start, how: str) -> None:
    ecs = start(script=FOREVER)
    if how == "limit":
        ecs.limit(FARGATE_SPOT=0)
    else:
        ecs.faults.known("spot_full")
    client = ecs.client()
    assert client.run_task(**through("FARGATE_SPOT"))["failures"] == FULL
    (task,) = client.run_task(**through("FARGATE"))["tasks"]
    assert task["capacityProviderName"] == "FARGATE"


@pytest.mark.parametrize(("command", "code"), [(OBEDIENT, 17), (STUBBORN, 137)])
def test_an_interrupted_task_is_asked_to_end_before_it_is_killed(
    start: Start, command: tuple[str, ...], code: int
) -> None:
    ecs = start(runner="subprocess", stop_timeout=0.3)
    arn = ecs.client().run_task(**through("FARGATE_SPOT", *command))["tasks"][0]["taskArn"]
    ready(ecs, arn)
    ecs.interrupt(arn)
    ecs.wait_stopped()
    task = ecs.task(arn)
    assert (task["stopCode"], task["stoppedReason"]) == INTERRUPTED
    assert [container["exitCode"] for container in task["containers"]] == [code]


def test_only_what_runs_on_spot_is_interrupted_so_long_after_its_start(start: Start, clock: Clock) -> None:
    ecs = start(clock=clock, script=[{"pending": 100, "duration": None}])
    ecs.faults.known("spot_interruption", seconds=5)
    arns = [
        ecs.client().run_task(**through(provider))["tasks"][0]["taskArn"]
        for provider in ("FARGATE_SPOT", "FARGATE")
    ]
    clock.advance(104)
    assert [ecs.task(arn)["lastStatus"] for arn in arns] == ["RUNNING", "RUNNING"]
    clock.advance(2)
    spot, on_demand = map(ecs.task, arns)
    assert (spot["lastStatus"], spot["stopCode"], spot["stoppedReason"]) == ("STOPPED", *INTERRUPTED)
    assert spot["stoppedAt"] - spot["startedAt"] == 5
    assert spot["containers"][0]["exitCode"] == 143
    assert on_demand["lastStatus"] == "RUNNING"


def test_what_ends_before_its_interruption_is_not_interrupted(start: Start, clock: Clock) -> None:
    ecs = start(clock=clock, script=[{"duration": 3}])
    ecs.faults.interrupted(5)
    arn = ecs.client().run_task(**through("FARGATE_SPOT"))["tasks"][0]["taskArn"]
    clock.advance(10)
    assert ecs.task(arn)["stopCode"] == "EssentialContainerExited"


def test_what_never_finds_a_place_is_not_interrupted(start: Start, clock: Clock, submit: Submit) -> None:
    aws = start(clock=clock, script=FOREVER, capacity={"default": 0})
    aws.faults.interrupted(1)
    job = submit(aws.client("batch"), "one")
    clock.advance(86_400)
    assert aws.job(job)["status"] == "RUNNABLE"


@pytest.mark.parametrize(
    ("platform", "reason", "code"),
    [("FARGATE", "Your Spot Task was interrupted.", 143), ("EC2", "Host EC2 (instance i-0a1b", None)],
)
def test_an_interrupted_job_is_tried_again_as_its_strategy_says(
    start: Start, clock: Clock, submit: Submit, platform: str, reason: str, code: int | None
) -> None:
    aws = start(clock=clock, script=FOREVER)
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
    properties = {"image": "local", "resourceRequirements": needs}
    aws.register_job("own", containerProperties=properties, platformCapabilities=[platform])
    aws.faults.interrupted(7, contains=("own", "one"))
    jobs = [
        submit(aws.client("batch"), name, jobDefinition="own", retryStrategy={"attempts": 2})
        for name in ("one", "two")
    ]
    clock.advance(8)
    interrupted, other = map(aws.job, jobs)
    (attempt,) = interrupted["attempts"]
    assert attempt["statusReason"].startswith(reason)
    assert attempt["container"].get("exitCode") == code
    assert (interrupted["status"], other["status"], other["attempts"]) == ("RUNNING", "RUNNING", [])


def test_the_control_path_interrupts(start: Start) -> None:
    ecs = start(script=FOREVER)
    arn = ecs.client().run_task(**through("FARGATE_SPOT"))["tasks"][0]["taskArn"]
    path = f"{ecs.url}/_local/tasks/{arn.rpartition('/')[2]}/interrupt"
    with urllib.request.urlopen(urllib.request.Request(path, method="POST"), timeout=5) as reply:  # noqa: S310
        assert json.load(reply) == {}
    assert ecs.task(arn)["stopCode"] == "SpotInterruption"
