"""What AWS may do in more than one way: the switches, and what a client sees under each."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_async_executor.local import Behaviour, Instance, LocalEcs
from ecs_async_executor.local.behaviour import AWS, CHOICES, DEFAULT

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
FOREVER = [{"duration": None}]
FULL = {"FARGATE": 0}


def refusal(call: Callable[..., Any], **params: Any) -> tuple[str, str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response
    return error["Error"]["Code"], error["Error"]["Message"], error.get("resourceIds")


# --- client tokens after failures[] --------------------------------------------------------------------------


def no_capacity_then_capacity(ecs: LocalEcs, how: str) -> Callable[[], None]:
    """Let RunTask on Fargate find no room, by a fault or by a limit; give what makes room."""
    if how == "fault":
        number = ecs.faults.no_capacity()
        return lambda: ecs.faults.remove(number)
    ecs.limit(FARGATE=0)
    return lambda: ecs.limit(FARGATE=None)


@pytest.mark.parametrize("how", ["fault", "limit"])
@pytest.mark.parametrize("memory", CHOICES["failure_memory"])
def test_what_a_token_remembers_of_failures(start: Start, request_for: Run, memory: str, how: str) -> None:
    ecs = start(script=FOREVER, behaviour={"failure_memory": memory})
    client = ecs.client()
    restore = no_capacity_then_capacity(ecs, how)
    first = client.run_task(**request_for("a", clientToken="t-1"))
    assert (first["tasks"], len(first["failures"])) == ([], 1)
    restore()
    again = client.run_task(**request_for("a", clientToken="t-1"))
    assert again["failures"] == ([] if memory == "forget" else first["failures"])
    assert len(again["tasks"]) == len(ecs.ledger) == (memory == "forget")
    assert client.run_task(**request_for("a", clientToken="t-2"))["tasks"]


def test_another_request_under_a_token_that_failed_starts_unless_it_is_a_conflict(
    start: Start, request_for: Run
) -> None:
    for memory, starts in (("replay", True), ("conflict", False)):
        ecs = start(script=FOREVER, behaviour={"failure_memory": memory})
        client = ecs.client()
        ecs.faults.no_capacity(count=1)
        client.run_task(**request_for("a", clientToken="t-1"))
        if starts:
            assert client.run_task(**request_for("b", clientToken="t-1"))["tasks"]
        else:
            code, _, ids = refusal(client.run_task, **request_for("b", clientToken="t-1"))
            assert (code, ids) == ("ConflictException", None)
            assert len(ecs.ledger) == 0


def test_a_token_that_started_a_task_gives_it_back_though_there_is_no_room_any_more(
    start: Start, request_for: Run
) -> None:
    ecs = start(script=FOREVER, behaviour="aws")
    client = ecs.client()
    arn = client.run_task(**request_for("a", clientToken="t-1"))["tasks"][0]["taskArn"]
    ecs.faults.no_capacity()
    assert client.run_task(**request_for("a", clientToken="t-1"))["tasks"][0]["taskArn"] == arn
    assert refusal(client.run_task, **request_for("b", clientToken="t-1"))[2] == [arn]


def test_of_old_failures_only_the_number_is_told_and_after_a_day_nothing(
    start: Start, request_for: Run, clock: Any
) -> None:
    ecs = start(script=FOREVER, clock=clock, capacity=FULL, behaviour="aws")
    client = ecs.client()

    def failures() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.run_task(**request_for("a", clientToken="t-1", count=2))["failures"]
        return found

    assert [set(f) for f in failures()] == [{"reason"}, {"reason"}]
    clock.advance(3600)
    assert failures() == [{}, {}]
    clock.advance(23 * 3600)
    assert [set(f) for f in failures()] == [{"reason"}, {"reason"}]


def test_what_started_and_what_failed_of_one_request_are_repeated_together(start: Start, request_for: Run) -> None:
    ecs = start(script=FOREVER, capacity={"FARGATE": 1}, behaviour="aws")
    client = ecs.client()
    first, second = (client.run_task(**request_for("a", clientToken="t-1", count=3)) for _ in range(2))
    assert second["failures"] == first["failures"]
    assert [len(first["failures"]), len(second["tasks"]), len(ecs.ledger)] == [2, 1, 1]


# --- failures[] with one entry for each container instance ---------------------------------------------------


def plain(ecs: LocalEcs) -> dict[str, Any]:
    ecs.register("plain", "main", network_mode="bridge")
    return {"taskDefinition": "plain", "launchType": "EC2", "cluster": "mixed"}


def test_a_task_that_fits_nowhere_gets_the_reason_of_every_instance(start: Start) -> None:
    ecs = start(
        script=FOREVER, instances={"mixed": [Instance(refuses="ATTRIBUTE"), Instance(memory=512, cpu=256)]}
    )
    client, params = ecs.client(), plain(ecs)
    assert client.run_task(**params)["failures"] == []
    for override, reason in (({"memory": "513"}, "RESOURCE:MEMORY"), ({"cpu": "257"}, "RESOURCE:CPU")):
        reply = client.run_task(**params, overrides=override)
        assert [f["reason"] for f in reply["failures"]] == ["ATTRIBUTE", reason]
        assert len({f["arn"] for f in reply["failures"]}) == 2
        assert reply["tasks"] == []


def test_a_full_cluster_gives_a_failure_for_every_instance(start: Start) -> None:
    ecs = start(script=FOREVER, capacity={"EC2": 1}, instances={"mixed": [Instance(refuses="AGENT"), Instance()]})
    client, params = ecs.client(), plain(ecs)
    task = client.run_task(**params)["tasks"][0]
    reply = client.run_task(**params)
    assert [f["reason"] for f in reply["failures"]] == ["AGENT", "RESOURCE:MEMORY"]
    assert task["containerInstanceArn"] == reply["failures"][1]["arn"]
    shown = client.describe_container_instances(
        cluster="mixed", containerInstances=[f["arn"] for f in reply["failures"]]
    )
    assert len(shown["containerInstances"]) == 2


def test_a_cluster_without_instances_is_refused_by_the_switch(start: Start) -> None:
    ecs = start(script=FOREVER, clusters=["mixed"])
    client, params = ecs.client(), plain(ecs)
    assert client.run_task(**params)["tasks"]
    ecs.behaviour = "aws"
    assert refusal(client.run_task, **params)[:2] == (
        "InvalidParameterException",
        "No Container Instances were found in your cluster.",
    )
    ecs.register_instance("mixed")
    assert client.run_task(**params)["tasks"]


# --- other refusals ------------------------------------------------------------------------------------------


def test_a_foreign_arn_is_missing_or_spoils_the_whole_call(start: Start, run: Run) -> None:
    ecs = start(script=FOREVER, clusters=["other"])
    client = ecs.client()
    own, foreign = run(client)["taskArn"], run(client, cluster="other")["taskArn"]
    reply = client.describe_tasks(tasks=[own, foreign])
    assert ([t["taskArn"] for t in reply["tasks"]], reply["failures"][0]["reason"]) == ([own], "MISSING")
    ecs.behaviour = {"foreign_arns": "refused"}
    for call, params in (
        (client.describe_tasks, {"tasks": [own, foreign]}),
        (client.stop_task, {"task": foreign}),
    ):
        code, message, _ = refusal(call, **params)
        assert (code, message) == (
            "InvalidParameterException",
            "Invalid identifier: Identifier is for cluster other. Your cluster is default",
        )
    assert client.describe_tasks(tasks=[own, foreign.rpartition("/")[2]])["failures"][0]["reason"] == "MISSING"


def test_a_mark_with_the_desired_status_stopped_is_one_filter_too_many_by_the_switch(
    start: Start, run: Run
) -> None:
    ecs = start()
    client = ecs.client()
    arn = run(client, startedBy="mark")["taskArn"]
    assert client.list_tasks(startedBy="mark", desiredStatus="STOPPED")["taskArns"] == [arn]
    ecs.behaviour = {"started_by_stopped": "refused"}
    assert refusal(client.list_tasks, startedBy="mark", desiredStatus="STOPPED")[0] == "InvalidParameterException"
    assert client.list_tasks(startedBy="mark", desiredStatus="RUNNING")["taskArns"] == []


def test_a_capacity_provider_that_the_cluster_lacks_is_refused_by_the_switch(
    start: Start, request_for: Run
) -> None:
    ecs = start(script=FOREVER)
    client = ecs.client()
    client.create_cluster(clusterName="spot", capacityProviders=["FARGATE_SPOT"])
    params = request_for(capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}])
    del params["launchType"]
    assert client.run_task(**params)["tasks"]
    ecs.behaviour = "aws"
    code, message, _ = refusal(client.run_task, **params)
    assert code == "InvalidParameterException"
    assert "not associated with the cluster" in message
    assert client.run_task(**params, cluster="spot")["tasks"]


def test_the_launch_type_of_managed_instances_is_refused(start: Start, request_for: Run) -> None:
    code, message, _ = refusal(start().client().run_task, **request_for(launchType="MANAGED_INSTANCES"))
    assert code == "InvalidParameterException"
    assert "capacity provider strategy" in message


@pytest.mark.parametrize("override", [{"cpu": "99999999"}, {"memory": "99999999"}])
def test_a_size_that_fargate_does_not_have_is_refused(
    start: Start, request_for: Run, override: dict[str, str]
) -> None:
    ecs = start()
    params = request_for()
    params["overrides"] |= override
    code, message, _ = refusal(ecs.client().run_task, **params)
    assert code == "InvalidParameterException"
    assert message.startswith("No Fargate configuration exists for given values: ")
    assert "99999999" in message
    assert len(ecs.ledger) == 0


def test_no_instance_of_ec2_has_99999999_cpu_units(start: Start) -> None:
    ecs = start(clusters=["mixed"])
    params = plain(ecs) | {"overrides": {"cpu": "99999999"}}
    assert refusal(ecs.client().run_task, **params)[:2] == ("ClientException", "Invalid 'cpu' setting for task.")


def test_the_variables_of_batch_count_in_the_size_of_overrides_by_the_switch(
    start: Start, submit: Callable[..., str]
) -> None:
    ecs = start()
    client = ecs.client("batch")
    room = 8192 - len('{"containerOverrides":[{"name":"default","command":[""]}]}')
    free = submit(client, "free", "x" * room)
    assert ecs.job(free)["status"] == "SUCCEEDED"
    ecs.behaviour = "aws"
    counted = submit(client, "counted", "x" * room)
    assert (ecs.job(counted)["status"], ecs.job(counted)["attempts"]) == ("FAILED", [])
    assert ecs.job(counted)["statusReason"] == "Container Overrides length must be at most 8192"
    assert ecs.job(submit(client, "small", "x" * (room - 300)))["status"] == "SUCCEEDED"


# --- the switches themselves ---------------------------------------------------------------------------------


def test_switches_are_set_at_the_start_at_any_time_and_over_http(start: Start) -> None:
    ecs = start(behaviour={"foreign_arns": "refused"})
    assert ecs.behaviour == Behaviour(foreign_arns="refused")
    ecs.behaviour = "aws"
    assert ecs.behaviour == AWS
    request = urllib.request.Request(f"{ecs.url}/_local/behaviour", data=b'"default"', method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        assert ecs.behaviour == DEFAULT
    with urllib.request.urlopen(f"{ecs.url}/_local/behaviour", timeout=10) as response:  # noqa: S310
        assert Behaviour.of(json.load(response)) == DEFAULT


@pytest.mark.parametrize("wanted", ["azure", {"failure_memory": "sometimes"}, {"no_switch": "x"}])
def test_unknown_switches_values_and_presets_are_refused(start: Start, wanted: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown|must be one of"):
        LocalEcs(behaviour=wanted)
    ecs = start()
    request = urllib.request.Request(  # noqa: S310
        f"{ecs.url}/_local/behaviour", data=json.dumps(wanted).encode(), method="PUT"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310
    with caught.value:
        assert caught.value.code == 400
    assert ecs.behaviour == DEFAULT
