"""The short names of placements, for people."""

from __future__ import annotations

from ecs_async_executor.adapter.naming import placement_names
from ecs_async_executor.services.requests import placement_name


def whole(*subnets: str, task: str = "airflow", **more: object) -> str:
    network = {"awsvpcConfiguration": {"subnets": list(subnets), "assignPublicIp": "DISABLED"}}
    cluster = "arn:aws:ecs:eu-west-1:123456789012:cluster/prod"
    return placement_name({"cluster": cluster, "capacity": "FARGATE", "task": task, **more, "network": network})


def test_a_name_has_neither_json_nor_arns() -> None:
    one = whole("subnet-1", task="arn:aws:ecs:eu-west-1:123456789012:task-definition/airflow:3", cpu="1024")
    assert placement_names([one]) == {one: "cluster=prod capacity=FARGATE task=airflow:3 cpu=1024"}


def test_placements_that_differ_by_their_network_only_show_it() -> None:
    first, second, other = whole("subnet-1"), whole("subnet-2"), whole("subnet-1", task="big")
    names = placement_names([first, second, other])
    assert names[other] == "cluster=prod capacity=FARGATE task=big"
    assert [names[one].partition(" network=")[0] for one in (first, second)] == [
        names[other].replace("big", "airflow")
    ] * 2
    assert ("subnet-1" in names[first], "subnet-2" in names[second]) == (True, True)
    assert len(set(names.values())) == len(names)


def test_a_structured_value_in_the_middle_hides_nothing_behind_it() -> None:
    one = placement_name({"queue": "jobs", "needs": [{"type": "GPU", "value": "a b"}], "memory": 512})
    assert placement_names([one]) == {one: "queue=jobs memory=512"}


def test_a_destination_stays_in_the_name() -> None:
    one = f"destination=ireland {whole('subnet-1')}"
    assert placement_names([one]) == {one: "destination=ireland cluster=prod capacity=FARGATE task=airflow"}
