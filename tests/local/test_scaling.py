"""Capacity providers: tasks that wait in PROVISIONING for hosts that come in minutes, or for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs, ScalingGroup

Start = Callable[..., LocalEcs]
FOREVER = [{"duration": None}]
ON_GROUP = {"taskDefinition": "plain", "capacityProviderStrategy": [{"capacityProvider": "asg"}]}


@pytest.fixture
def grouped(start: Start, clock: Any) -> Callable[..., LocalEcs]:
    """Start a local ECS with an Auto Scaling group behind the capacity provider ``asg``."""

    def grouped(script: Any = FOREVER, **group: Any) -> LocalEcs:
        ecs = start(clock=clock, script=script, groups={"asg": group})
        ecs.register("plain", "main", network_mode="bridge")
        return ecs

    return grouped


def run(client: Any, count: int = 1) -> list[str]:
    reply = client.run_task(**ON_GROUP, count=count)
    assert reply["failures"] == []
    return [task["taskArn"] for task in reply["tasks"]]


def states(ecs: LocalEcs) -> Counter[str]:
    return Counter(entry.status for entry in ecs.ledger.entries())


def test_two_hundred_tasks_wait_twelve_minutes_for_hosts_and_all_run_once(grouped: Any, clock: Any) -> None:
    ecs = grouped([{"duration": 60}], tasks_per_host=20, scale_out=720)
    client = ecs.client()
    for _ in range(20):
        run(client, 10)
    assert (states(ecs), ecs.hosts()) == ({"PROVISIONING": 200}, {"asg": 0})
    clock.advance(719)
    assert states(ecs) == {"PROVISIONING": 200}
    clock.advance(1)
    assert (states(ecs), ecs.hosts()) == ({"RUNNING": 200}, {"asg": 10})
    clock.advance(60)
    entries = ecs.ledger.entries()
    assert {(e.exit_code, e.attempt) for e in entries} == {(0, n) for n in range(1, 201)}
    assert states(ecs) == {"STOPPED": 200}


def test_a_task_is_listed_and_described_while_it_waits(grouped: Any) -> None:
    ecs = grouped()
    client = ecs.client()
    (arn,) = run(client)
    assert client.list_tasks(desiredStatus="RUNNING")["taskArns"] == [arn]
    task = client.describe_tasks(tasks=[arn])["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"], task["capacityProviderName"]) == (
        "PROVISIONING",
        "RUNNING",
        "asg",
    )
    assert [c["lastStatus"] for c in task["containers"]] == ["PENDING"]


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "AGENT", "NO ACTIVE INSTANCES", "EMPTY CAPACITY PROVIDER"])
def test_a_task_that_never_finds_a_place_fails_to_start_without_a_container(
    grouped: Any, clock: Any, reason: str
) -> None:
    ecs = grouped(max_hosts=0, patience=1800, reason=reason)
    (arn,) = run(ecs.client())
    clock.advance(1799)
    assert ecs.task(arn)["lastStatus"] == "PROVISIONING"
    clock.advance(1)
    task = ecs.task(arn)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == (
        "STOPPED",
        "TaskFailedToStart",
        reason,
    )
    assert task["containers"] == []
    assert "startedAt" not in task


def test_tasks_that_are_stopped_withdraw_the_demand(grouped: Any, clock: Any) -> None:
    ecs = grouped(scale_out=600)
    client = ecs.client()
    (first,) = run(client)
    clock.advance(590)
    client.stop_task(task=first)
    (second,) = run(client)
    clock.advance(590)
    assert (ecs.hosts(), ecs.task(second)["lastStatus"]) == ({"asg": 0}, "PROVISIONING")
    clock.advance(10)
    assert (ecs.hosts(), ecs.task(second)["lastStatus"]) == ({"asg": 1}, "RUNNING")
    stopped = ecs.task(first)
    assert (stopped["stopCode"], [c["lastStatus"] for c in stopped["containers"]]) == (
        "UserInitiated",
        ["STOPPED"],
    )


def test_what_hosts_have_room_for_starts_at_once_and_a_place_that_is_left_is_taken(
    grouped: Any, clock: Any
) -> None:
    ecs = grouped(hosts=1, tasks_per_host=2, max_hosts=1)
    client = ecs.client()
    arns = run(client, 3)
    assert [ecs.task(arn)["lastStatus"] for arn in arns] == ["RUNNING", "RUNNING", "PROVISIONING"]
    clock.advance(100)
    client.stop_task(task=arns[0])
    assert ecs.task(arns[2])["lastStatus"] == "RUNNING"
    clock.advance(1800)
    assert ecs.task(arns[2])["lastStatus"] == "RUNNING"


def test_a_group_grows_to_its_maximum_and_by_what_waits_only(grouped: Any, clock: Any) -> None:
    ecs = grouped(tasks_per_host=4, max_hosts=3, scale_out=60)
    client = ecs.client()
    run(client, 5)
    clock.advance(60)
    assert ecs.hosts() == {"asg": 2}
    run(client, 10)
    clock.advance(60)
    assert (ecs.hosts(), states(ecs)) == ({"asg": 3}, {"RUNNING": 12, "PROVISIONING": 3})


def test_a_reset_takes_the_hosts_and_the_demand_away(grouped: Any, clock: Any) -> None:
    ecs = grouped(scale_out=60)
    run(ecs.client())
    ecs.reset()
    ecs.register("plain", "main", network_mode="bridge")
    clock.advance(30)
    (arn,) = run(ecs.client())
    clock.advance(59)
    assert (ecs.hosts(), ecs.task(arn)["lastStatus"]) == ({"asg": 0}, "PROVISIONING")
    clock.advance(1)
    assert ecs.task(arn)["lastStatus"] == "RUNNING"


def test_other_capacity_providers_and_launch_types_know_nothing_of_the_group(grouped: Any) -> None:
    ecs = grouped(max_hosts=0)
    client = ecs.client()
    other = ON_GROUP | {"capacityProviderStrategy": [{"capacityProvider": "other"}]}
    assert client.run_task(**other)["tasks"][0]["lastStatus"] == "RUNNING"
    assert client.run_task(taskDefinition="plain", launchType="EC2")["tasks"][0]["lastStatus"] == "RUNNING"


def test_a_group_is_json_and_its_members_are_checked() -> None:
    assert ScalingGroup.from_json({"hosts": 2, "scale_out": 60}) == ScalingGroup(hosts=2, scale_out=60.0)
    with pytest.raises(ValueError, match="unknown in a scalinggroup: host;"):
        LocalEcs(groups={"asg": {"host": 2}}).start()
