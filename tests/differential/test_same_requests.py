"""Whatever the provider handles, we send the same RunTask request, but for clientToken and startedBy."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import pytest

pytest.importorskip("airflow.providers.amazon")

BASE = {"cluster": "c", "container_name": "airflow", "task_definition": "family:3", "region_name": "eu-west-1"}
FARGATE = {**BASE, "launch_type": "FARGATE", "subnets": "subnet-a"}
EC2 = {**BASE, "launch_type": "EC2"}


class Case(NamedTuple):
    options: dict[str, str]
    executor_config: dict[str, Any] | None = None
    default_strategy: tuple[dict[str, Any], ...] = ()


def kwargs(options: dict[str, str], **parameters: Any) -> dict[str, str]:
    return {**options, "run_task_kwargs": json.dumps(parameters)}


def container(**parameters: Any) -> dict[str, Any]:
    return {"containerOverrides": [parameters]}


SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
ENVIRONMENT = [{"name": "UPPER_CASE", "value": "ü"}, {"name": "snake_case", "value": "a b"}]
VPC = {"awsvpcConfiguration": {"subnets": ["subnet-k"], "assignPublicIp": "ENABLED"}}

CASES = {
    "Fargate": Case(FARGATE),
    "Fargate without a network": Case({**BASE, "launch_type": "FARGATE"}),
    "Fargate, platform version": Case({**FARGATE, "platform_version": "1.4.0"}),
    "Fargate, public address": Case({**FARGATE, "assign_public_ip": "True"}),
    "Fargate, no public address": Case({**FARGATE, "assign_public_ip": "False"}),
    "several subnets": Case({**FARGATE, "subnets": "subnet-a,subnet-b,subnet-c"}),
    "security groups": Case({**FARGATE, "security_groups": "sg-a,sg-b"}),
    "everything in options": Case(
        {**FARGATE, "security_groups": "sg-a", "assign_public_ip": "True", "platform_version": "1.3.0"}
    ),
    "ARNs": Case(
        {
            **FARGATE,
            "cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/c",
            "task_definition": "arn:aws:ecs:eu-west-1:123456789012:task-definition/family:3",
        }
    ),
    "EC2 in bridge mode": Case(EC2),
    "EC2 with a VPC": Case({**EC2, "subnets": "subnet-a", "security_groups": "sg-a"}),
    "EC2 with a VPC and an address that it does not take": Case(
        {**EC2, "subnets": "subnet-a", "assign_public_ip": "True"}
    ),
    "EC2 drops the platform version": Case({**EC2, "platform_version": "1.4.0"}),
    "no launch type, cluster without a default strategy": Case({**BASE, "subnets": "subnet-a"}),
    "no launch type, cluster with a default strategy": Case(
        {**BASE, "subnets": "subnet-a"}, default_strategy=({"capacityProvider": "FARGATE_SPOT"},)
    ),
    "no launch type, cluster with both Fargates": Case(
        BASE, default_strategy=({"capacityProvider": "FARGATE"}, {"capacityProvider": "FARGATE_SPOT"})
    ),
    "connection": Case({**FARGATE, "conn_id": "aws_default"}),
    "no connection": Case({**FARGATE, "conn_id": ""}),
    "kwargs: empty": Case(kwargs(FARGATE)),
    "kwargs: capacity providers, snake case": Case(
        kwargs({**BASE, "subnets": "s"}, capacity_provider_strategy=SPOT)
    ),
    "kwargs: two capacity providers": Case(
        kwargs(BASE, capacity_provider_strategy=[*SPOT, {"capacityProvider": "FARGATE", "base": 1, "weight": 2}])
    ),
    "kwargs: launch type, snake case": Case(kwargs(BASE, launch_type="EC2")),
    "kwargs: launch type wins over the option": Case(kwargs(FARGATE, launch_type="EC2")),
    "kwargs: cluster": Case(kwargs(FARGATE, cluster="other")),
    "kwargs: task definition, snake case": Case(kwargs(FARGATE, task_definition="other:1")),
    "kwargs: task definition, camel case": Case(kwargs(FARGATE, taskDefinition="other:1")),
    "kwargs: platform version, snake case": Case(kwargs(FARGATE, platform_version="1.4.0")),
    "kwargs: platform version, camel case": Case(kwargs(FARGATE, platformVersion="1.4.0")),
    "kwargs: subnets": Case(kwargs(FARGATE, subnets="subnet-k,subnet-l")),
    "kwargs: public address": Case(kwargs(FARGATE, assign_public_ip="True")),
    "kwargs: container name": Case(kwargs(FARGATE, container_name="airflow")),
    "kwargs: network": Case(kwargs({**BASE, "launch_type": "FARGATE"}, networkConfiguration=VPC)),
    "kwargs: network, snake case": Case(
        kwargs(
            {**BASE, "launch_type": "FARGATE"},
            network_configuration={"awsvpc_configuration": {"subnets": ["subnet-k"], "security_groups": ["sg-k"]}},
        )
    ),
    "kwargs: tags as the API wants them": Case(kwargs(FARGATE, tags=[{"key": "some_team", "value": "my_data"}])),
    "kwargs: tags and their propagation": Case(
        kwargs(FARGATE, tags=[{"key": "a", "value": "b"}], propagate_tags="TASK_DEFINITION")
    ),
    "kwargs: managed tags and exec": Case(kwargs(FARGATE, enableECSManagedTags=True, enable_execute_command=True)),
    "kwargs: group and reference": Case(kwargs(FARGATE, group="family:airflow", referenceId="r")),
    "kwargs: startedBy": Case(kwargs(FARGATE, startedBy="somebody")),
    "kwargs: count": Case(kwargs(FARGATE, count=7)),
    "kwargs: placement": Case(
        kwargs(
            EC2,
            placementConstraints=[{"type": "memberOf", "expression": "attribute:ecs.os-type == linux"}],
            placement_strategy=[{"type": "binpack", "field": "memory"}],
        )
    ),
    "kwargs: overrides of the task": Case(
        kwargs(
            FARGATE,
            overrides={"cpu": "512", "memory": "1024", "taskRoleArn": "r", "ephemeralStorage": {"sizeInGiB": 30}},
        )
    ),
    "kwargs: overrides of the task, snake case": Case(
        kwargs(FARGATE, overrides={"task_role_arn": "r", "execution_role_arn": "e"})
    ),
    "kwargs: environment": Case(kwargs(FARGATE, overrides=container(environment=ENVIRONMENT))),
    "kwargs: named container": Case(kwargs(FARGATE, overrides=container(name="airflow", cpu=128, memory=256))),
    "kwargs: container by another name": Case(kwargs(FARGATE, overrides=container(name="whatever", cpu=128))),
    "kwargs: command": Case(kwargs(FARGATE, overrides=container(command=["ignored"]))),
    "kwargs: sidecar": Case(
        kwargs(
            FARGATE, overrides={"containerOverrides": [{"cpu": 64}, {"name": "side", "environment": ENVIRONMENT}]}
        )
    ),
    "kwargs: volume": Case(
        kwargs(
            FARGATE,
            volumeConfigurations=[{"name": "v", "managedEBSVolume": {"roleArn": "r", "sizeInGiB": 10}}],
        )
    ),
    "task: nothing": Case(FARGATE, {}),
    "task: overrides of the task": Case(FARGATE, {"overrides": {"cpu": "2048", "memory": "4096"}}),
    "task: overrides over overrides": Case(
        kwargs(FARGATE, overrides={"cpu": "512", "memory": "1024", **container(environment=ENVIRONMENT)}),
        {"overrides": {"cpu": "1024"}},
    ),
    "task: container": Case(
        FARGATE, {"overrides": container(name="airflow", memoryReservation=512, environment=ENVIRONMENT)}
    ),
    "task: list of containers replaces": Case(
        kwargs(FARGATE, overrides=container(environment=ENVIRONMENT)),
        {"overrides": container(name="airflow", environment=[{"name": "B", "value": "2"}])},
    ),
    "task: sidecar first": Case(
        FARGATE, {"overrides": {"containerOverrides": [{"name": "side", "cpu": 1}, {"name": "airflow", "cpu": 2}]}}
    ),
    "task: command is overwritten": Case(FARGATE, {"overrides": container(name="airflow", command=["x"])}),
    "task: GPU": Case(
        EC2, {"overrides": container(name="airflow", resourceRequirements=[{"type": "GPU", "value": "1"}])}
    ),
    "task: task definition": Case(FARGATE, {"taskDefinition": "big:9"}),
    "task: cluster": Case(FARGATE, {"cluster": "gpu"}),
    "task: tags": Case(
        kwargs(FARGATE, tags=[{"key": "a", "value": "b"}]), {"tags": [{"key": "some_key", "value": "v"}]}
    ),
    "task: part of the network": Case(
        {**FARGATE, "security_groups": "sg-a"},
        {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-z"]}}},
    ),
    "task: launch type": Case(EC2, {"launchType": "FARGATE"}),
    "task: platform version": Case(FARGATE, {"platformVersion": "1.3.0"}),
    "task: startedBy": Case(FARGATE, {"startedBy": "me"}),
    "task: capacity providers over capacity providers": Case(
        kwargs(BASE, capacity_provider_strategy=SPOT),
        {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_request_is_the_providers(duel: Any, name: str) -> None:
    case = CASES[name]
    duel.configure(case.options)
    duel.recorder.default_strategy = list(case.default_strategy)

    theirs = duel.of_provider(copy.deepcopy(case.executor_config))
    ours = duel.of_ours(copy.deepcopy(case.executor_config))

    assert ours.pop("clientToken") == "token-1"
    assert theirs.pop("clientToken")
    if "startedBy" not in theirs:
        assert ours.pop("startedBy") == "ours"
    assert ours == theirs


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
