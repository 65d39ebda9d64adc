"""What AWS refuses, and what it says, seen through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ecs_async_executor.local import LocalEcs

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}
FOREVER = [{"duration": None}]


def refusal(call: Callable[..., Any], **params: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def describe(client: Any, *arns: str, **params: Any) -> dict[str, Any]:
    reply: dict[str, Any] = client.describe_tasks(tasks=list(arns), **params)
    return reply


# --- idempotency ---------------------------------------------------------------------------------------------


def test_the_same_token_and_parameters_give_the_same_task(start: Start, request_for: Run) -> None:
    ecs = start(script=FOREVER)
    client = ecs.client()
    replies = [client.run_task(**request_for("a", clientToken="t-1")) for _ in range(3)]
    assert len({r["tasks"][0]["taskArn"] for r in replies}) == 1
    assert [(e.token, e.replays) for e in ecs.ledger.entries()] == [("t-1", 2)]


def test_the_same_token_with_other_parameters_is_a_conflict_that_names_the_task(
    start: Start, run: Run, request_for: Run
) -> None:
    ecs = start(script=FOREVER)
    client = ecs.client()
    arn = run(client, "a", clientToken="t-1")["taskArn"]
    with pytest.raises(client.exceptions.ConflictException) as caught:
        client.run_task(**request_for("b", clientToken="t-1"))
    assert caught.value.response["resourceIds"] == [arn]
    assert len(ecs.ledger) == 1


def test_one_token_from_many_threads_at_once_gives_one_task(start: Start, request_for: Run) -> None:
    ecs = start(script=FOREVER)
    client = ecs.client(config=Config(max_pool_connections=16))
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda _: client.run_task(**request_for("a", clientToken="t-1")), range(64)))
    assert len({r["tasks"][0]["taskArn"] for r in replies}) == len(ecs.ledger) == 1
    assert ecs.ledger.entries()[0].replays == 63


def test_a_token_is_known_in_its_cluster_only(start: Start, run: Run) -> None:
    ecs = start(clusters=["other"])
    client = ecs.client()
    first = run(client, "a", clientToken="t-1")
    second = run(client, "a", clientToken="t-1", cluster="other")
    assert first["taskArn"] != second["taskArn"]


def test_a_token_outlives_its_task_by_the_retention_and_then_only_the_arn_and_states_are_told(
    start: Start, run: Run, clock: Any
) -> None:
    ecs = start(clock=clock, script=[{"duration": 10}])
    client = ecs.client()
    arn = run(client, "a", clientToken="t-1")["taskArn"]
    clock.advance(3600)
    assert run(client, "a", clientToken="t-1") == {
        "taskArn": arn,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
    }
    clock.advance(11)
    assert run(client, "a", clientToken="t-1")["taskArn"] != arn


def test_a_token_is_forgotten_after_a_day_even_if_its_task_runs(start: Start, run: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=FOREVER)
    client = ecs.client()
    arn = run(client, "a", clientToken="t-1")["taskArn"]
    clock.advance(86399)
    assert run(client, "a", clientToken="t-1")["taskArn"] == arn
    clock.advance(2)
    assert run(client, "a", clientToken="t-1")["taskArn"] != arn


# --- RunTask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"count": 11}, "InvalidParameterException", "count"),
        ({"count": 0}, "InvalidParameterException", "count"),
        ({"cluster": "nowhere"}, "ClusterNotFoundException", "Cluster not found."),
        ({"taskDefinition": "unknown"}, "ClientException", "TaskDefinition not found."),
        ({"taskDefinition": "job:7"}, "ClientException", "TaskDefinition not found."),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            "InvalidParameterException",
            "both a launch type and capacity provider strategy",
        ),
        (
            {"networkConfiguration": None},
            "InvalidParameterException",
            "must be provided when networkMode 'awsvpc'",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "other", "command": ["x"]}]}},
            "InvalidParameterException",
            "Override for container named other is not a container in the TaskDefinition.",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "main", "command": ["x" * 8150]}]}},
            "InvalidParameterException",
            "Container Overrides length must be at most 8192",
        ),
        ({"startedBy": "x" * 129}, "InvalidParameterException", "startedBy"),
        ({"startedBy": "what?"}, "InvalidParameterException", "startedBy"),
        ({"clientToken": "x" * 65}, "InvalidParameterException", "clientToken"),
        ({"clientToken": "a b"}, "InvalidParameterException", "clientToken"),
        ({"tags": [{"key": f"k{n}", "value": "v"} for n in range(51)]}, "InvalidParameterException", "Tags"),
        ({"launchType": "MOON"}, "InvalidParameterException", "launch type"),
    ],
)
def test_run_task_refuses(start: Start, request_for: Run, params: dict[str, Any], code: str, message: str) -> None:
    ecs = start()
    wanted = {k: v for k, v in request_for("a", **params).items() if v is not None}
    got = refusal(ecs.client().run_task, **wanted)
    assert got[0] == code
    assert message in got[1]
    assert len(ecs.ledger) == 0


def test_overrides_of_exactly_8192_characters_pass(start: Start, request_for: Run) -> None:
    overrides = {"containerOverrides": [{"name": "main", "command": [""]}]}
    room = 8192 - len(json.dumps(overrides, separators=(",", ":")))
    overrides["containerOverrides"][0]["command"] = ["ü" * room]
    assert start().client().run_task(**request_for(overrides=overrides))["tasks"]


def test_an_inactive_task_definition_is_refused_and_the_family_falls_back_to_the_newest_active_one(
    start: Start, run: Run, request_for: Run
) -> None:
    ecs = start()
    client = ecs.client()
    second = ecs.register("job", "main")
    client.deregister_task_definition(taskDefinition=second)
    assert refusal(client.run_task, **request_for(taskDefinition=second)) == (
        "ClientException",
        "TaskDefinition is inactive",
    )
    assert run(client)["taskDefinitionArn"].endswith("job:1")


def test_a_network_configuration_is_refused_without_awsvpc(start: Start) -> None:
    ecs = start()
    ecs.register("plain", "main", network_mode="bridge")
    client = ecs.client()
    params = {"taskDefinition": "plain", "launchType": "EC2"}
    code, message = refusal(client.run_task, **params, networkConfiguration=NETWORK)
    assert (code, "Network Configuration is not valid" in message) == ("InvalidParameterException", True)
    assert client.run_task(**params)["tasks"][0]["launchType"] == "EC2"


def test_fargate_needs_a_compatible_task_definition(start: Start) -> None:
    ecs = start()
    ecs.register("plain", "main", network_mode="bridge")
    code, message = refusal(ecs.client().run_task, taskDefinition="plain", launchType="FARGATE")
    assert (code, message) == (
        "InvalidParameterException",
        "Task definition does not support launch_type FARGATE.",
    )


def test_a_deleted_cluster_is_not_found(start: Start, request_for: Run) -> None:
    ecs = start(clusters=["other"])
    client = ecs.client()
    client.delete_cluster(cluster="other")
    assert refusal(client.run_task, **request_for(cluster="other"))[0] == "ClusterNotFoundException"


def test_count_starts_so_many_tasks(start: Start, request_for: Run) -> None:
    ecs = start()
    reply = ecs.client().run_task(**request_for("a", count=10))
    assert len({t["taskArn"] for t in reply["tasks"]}) == len(ecs.ledger) == 10


def test_the_clusters_default_strategy_decides_when_the_request_does_not(start: Start, request_for: Run) -> None:
    ecs = start()
    client = ecs.client()
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    client.create_cluster(
        clusterName="spot", capacityProviders=["FARGATE_SPOT"], defaultCapacityProviderStrategy=strategy
    )
    assert (
        client.describe_clusters(clusters=["spot"])["clusters"][0]["defaultCapacityProviderStrategy"] == strategy
    )
    params = request_for(cluster="spot")
    del params["launchType"]
    task = client.run_task(**params)["tasks"][0]
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")
    params["cluster"] = "default"
    assert client.run_task(**params)["tasks"][0]["launchType"] == "EC2"


def test_a_full_launch_type_answers_with_failures_until_a_task_has_ended(
    start: Start, run: Run, request_for: Run
) -> None:
    ecs = start(script=FOREVER, capacity={"EC2": 2, "FARGATE": 0})
    client = ecs.client()
    reply = client.run_task(**request_for(launchType="EC2", count=3))
    assert len(reply["tasks"]) == 2
    assert [f["reason"] for f in reply["failures"]] == ["RESOURCE:MEMORY"]
    assert "container-instance" in reply["failures"][0]["arn"]
    client.stop_task(task=reply["tasks"][0]["taskArn"])
    assert run(client, launchType="EC2")["launchType"] == "EC2"
    refused = client.run_task(**request_for(clientToken="t"))
    assert refused["tasks"] == []
    assert refused["failures"][0]["reason"].startswith("Capacity is unavailable at this time")
    assert len(ecs.ledger) == 3


def test_a_task_record_has_what_aws_shows_and_its_size(start: Start, run: Run) -> None:
    ecs = start(script=FOREVER)
    client = ecs.client()
    tags = [{"key": "team", "value": "a"}]
    task = run(client, "python", "-m", "x" * 800, startedBy="mark", tags=tags, platformVersion="LATEST")
    shown = describe(client, task["taskArn"], include=["TAGS"])["tasks"][0]
    assert shown["tags"] == tags
    assert describe(client, task["taskArn"])["tasks"][0]["tags"] == []
    assert shown["startedBy"] == "mark"
    assert shown["platformVersion"] == "1.4.0"
    assert shown["overrides"]["containerOverrides"][0]["command"][0] == "python"
    assert {d["name"]: d["value"] for d in shown["attachments"][0]["details"]}["subnetId"] == "subnet-1"
    assert shown["createdAt"] <= shown["startedAt"]
    assert "stopCode" not in shown
    assert 2500 < len(json.dumps(shown, default=str)) < 6000


def test_the_plain_record_leaves_out_what_clients_do_not_decide_by(start: Start, run: Run) -> None:
    task = run(start(realistic=False).client())
    assert "attachments" not in task
    assert task["containers"][0]["name"] == "main"


def test_start_task_runs_on_a_registered_instance_only(start: Start) -> None:
    ecs = start()
    ecs.register("plain", "main", network_mode="bridge")
    client = ecs.client()
    reply = client.start_task(taskDefinition="plain", containerInstances=["unknown"])
    assert reply["failures"] == [{"arn": "unknown", "reason": "MISSING"}]
    assert reply["tasks"] == []


# --- DescribeTasks, ListTasks, StopTask --------------------------------------------------------------------------


def test_unknown_tasks_and_those_of_another_cluster_are_missing(start: Start, run: Run) -> None:
    ecs = start(clusters=["other"])
    client = ecs.client()
    arn = run(client)["taskArn"]
    unknown = arn[:-4] + "0000"
    reply = describe(client, arn, unknown, "deadbeef")
    assert [t["taskArn"] for t in reply["tasks"]] == [arn]
    assert [(f["arn"].rsplit("/", 1)[-1], f["reason"]) for f in reply["failures"]] == [
        (unknown.rsplit("/", 1)[-1], "MISSING"),
        ("deadbeef", "MISSING"),
    ]
    reply = describe(client, arn, cluster="other")
    assert (reply["tasks"], [f["reason"] for f in reply["failures"]]) == ([], ["MISSING"])
    assert describe(client, arn.rsplit("/", 1)[-1])["tasks"][0]["taskArn"] == arn


def test_a_new_task_is_missing_for_a_while_if_so_wanted(start: Start, run: Run, clock: Any) -> None:
    client = start(clock=clock, visible_after=3, script=FOREVER).client()
    arn = run(client)["taskArn"]
    clock.advance(2.5)
    assert describe(client, arn)["failures"][0]["reason"] == "MISSING"
    assert client.list_tasks()["taskArns"] == []
    clock.advance(1)
    assert describe(client, arn)["tasks"][0]["lastStatus"] == "RUNNING"
    assert client.list_tasks()["taskArns"] == [arn]


def test_describe_takes_between_1_and_100_tasks(start: Start) -> None:
    client = start().client()
    assert refusal(client.describe_tasks, tasks=["a"] * 101)[0] == "InvalidParameterException"
    assert refusal(client.describe_tasks, tasks=[])[0] == "InvalidParameterException"
    assert refusal(client.describe_tasks, tasks=["a"], cluster="x")[0] == "ClusterNotFoundException"
    assert len(describe(client, *(f"a{n}" for n in range(100)))["failures"]) == 100


def test_a_stopped_task_is_remembered_for_the_retention(start: Start, run: Run, clock: Any) -> None:
    client = start(clock=clock, retention=60, script=[{"duration": 5}]).client()
    arn = run(client, startedBy="mark")["taskArn"]
    clock.advance(64)
    assert describe(client, arn)["tasks"][0]["lastStatus"] == "STOPPED"
    clock.advance(2)
    assert describe(client, arn)["failures"][0]["reason"] == "MISSING"
    assert client.list_tasks(startedBy="mark", desiredStatus="STOPPED")["taskArns"] == []


def test_list_tasks_comes_in_pages(start: Start, request_for: Run) -> None:
    client = start(script=FOREVER).client()
    arns = [t["taskArn"] for _ in range(23) for t in client.run_task(**request_for(count=10))["tasks"]]
    first = client.list_tasks()
    assert first["taskArns"] == arns[:100]
    second = client.list_tasks(nextToken=first["nextToken"])
    third = client.list_tasks(nextToken=second["nextToken"])
    assert (second["taskArns"], third["taskArns"]) == (arns[100:200], arns[200:])
    assert "nextToken" not in third
    assert client.list_tasks(maxResults=7)["taskArns"] == arns[:7]
    assert refusal(client.list_tasks, nextToken="nonsense") == ("InvalidParameterException", "Invalid token.")
    assert refusal(client.list_tasks, maxResults=101)[0] == "InvalidParameterException"


def test_list_tasks_filters(start: Start, run: Run) -> None:
    ecs = start(script=FOREVER)
    ecs.register("other", "main")
    client = ecs.client()
    one = run(client, startedBy="one")["taskArn"]
    two = run(client, startedBy="two", taskDefinition="other")["taskArn"]
    gone = run(client, startedBy="one")["taskArn"]
    client.stop_task(task=gone)
    assert client.list_tasks()["taskArns"] == [one, two]
    assert client.list_tasks(desiredStatus="STOPPED")["taskArns"] == [gone]
    assert client.list_tasks(startedBy="one")["taskArns"] == [one]
    assert client.list_tasks(startedBy="one", desiredStatus="STOPPED")["taskArns"] == [gone]
    assert client.list_tasks(startedBy="three")["taskArns"] == []
    assert client.list_tasks(family="other")["taskArns"] == [two]
    assert client.list_tasks(launchType="EC2")["taskArns"] == []
    assert refusal(client.list_tasks, startedBy="one", family="job")[0] == "InvalidParameterException"
    assert refusal(client.list_tasks, cluster="nowhere")[0] == "ClusterNotFoundException"


def test_stopping_an_unknown_task_is_refused(start: Start, run: Run) -> None:
    ecs = start(clusters=["other"], script=FOREVER)
    client = ecs.client()
    arn = run(client)["taskArn"]
    wanted = ("InvalidParameterException", "The referenced task was not found.")
    assert refusal(client.stop_task, task="a") == wanted
    assert refusal(client.stop_task, task=arn, cluster="other") == wanted
    assert refusal(client.stop_task, task=arn, cluster="nowhere") == (
        "ClusterNotFoundException",
        "Cluster not found.",
    )


def test_stopping_tells_who_and_why_and_a_second_stop_changes_nothing(start: Start, run: Run, clock: Any) -> None:
    client = start(clock=clock, script=[{"duration": None, "stop_delay": 5, "deprovisioning": 2}]).client()
    arn = run(client)["taskArn"]
    reply = client.stop_task(task=arn, reason="enough")["task"]
    assert (reply["desiredStatus"], reply["lastStatus"]) == ("STOPPED", "STOPPING")
    assert "exitCode" not in reply["containers"][0]
    clock.advance(1)
    client.stop_task(task=arn, reason="again")
    clock.advance(4)
    task = describe(client, arn)["tasks"][0]
    assert (task["lastStatus"], task["containers"][0]["exitCode"]) == ("DEPROVISIONING", 143)
    clock.advance(2)
    task = describe(client, arn)["tasks"][0]
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"]) == ("STOPPED", "UserInitiated", "enough")
    assert task["startedAt"] < task["stoppedAt"]


def test_describe_clusters_counts_tasks(start: Start, run: Run) -> None:
    ecs = start(script=[{"launch": 1, "stuck": "PENDING"}, {"duration": None}])
    client = ecs.client()
    for _ in range(3):
        run(client)
    cluster = client.describe_clusters(clusters=["default"])["clusters"][0]
    assert (cluster["runningTasksCount"], cluster["pendingTasksCount"]) == (2, 1)


def test_a_task_can_be_tagged(start: Start, run: Run) -> None:
    client = start(script=FOREVER).client()
    arn = run(client)["taskArn"]
    describe(client, arn, include=["TAGS"])
    client.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "b"}])
    assert describe(client, arn, include=["TAGS"])["tasks"][0]["tags"] == [{"key": "a", "value": "b"}]
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "a", "value": "b"}]


def test_regions_are_apart(start: Start, run: Run) -> None:
    ecs = start(script=FOREVER)
    arn = run(ecs.client())["taskArn"]
    elsewhere = ecs.client(region_name="eu-west-1")
    assert refusal(elsewhere.describe_tasks, tasks=[arn])[0] == "ClusterNotFoundException"
    elsewhere.create_cluster(clusterName="default")
    assert describe(elsewhere, arn)["failures"][0]["reason"] == "MISSING"
