"""moto makes a stack of the template: what refers to what is there, and AWS's parameters have these names."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from tests.infrastructure.cloudformation import PATH
from tests.infrastructure.policies import normal, policy
from tests.infrastructure.test_template_and_module import EVERYTHING

# moto has no alarms and no metric filters for stacks, and says so.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Make the stack, with all that it can have; the outputs are its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        ec2 = boto3.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        group = ec2.create_security_group(GroupName="api", Description="API server", VpcId=vpc)["GroupId"]
        given = {**EVERYTHING, "VpcId": vpc, "ApiServerSecurityGroup": group}
        stacks = boto3.client("cloudformation")
        stacks.create_stack(
            StackName="airflow",
            TemplateBody=PATH.read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (stack,) = stacks.describe_stacks(StackName="airflow")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        yield {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}


def test_a_stack_can_be_made(outputs: dict[str, str]) -> None:
    iam = boto3.client("iam")
    for role, file in (("scheduler", "scheduler-ecs"), ("api-server", "api-server-ecs"), ("task", "task")):
        names = iam.list_role_policies(RoleName=f"airflow-{role}")["PolicyNames"]
        texts = (iam.get_role_policy(RoleName=f"airflow-{role}", PolicyName=name) for name in names)
        documents = [ast.literal_eval(str(text["PolicyDocument"])) for text in texts]  # moto keeps its repr()
        assert normal(one for document in documents for one in document["Statement"]) == policy(file)
    assert outputs["SchedulerRoleArn"] == "arn:aws:iam::123456789012:role/airflow-scheduler"
    assert outputs["OperatorPolicyArn"].endswith(":policy/airflow-operator")

    ecs = boto3.client("ecs")
    described = ecs.describe_task_definition(taskDefinition=outputs["TaskDefinitionFamily"])["taskDefinition"]
    (container,) = described["containerDefinitions"]
    assert container["stopTimeout"] == 120
    group = container["logConfiguration"]["options"]["awslogs-group"]
    assert boto3.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    groups = boto3.client("ec2").describe_security_groups(GroupIds=[outputs["TaskSecurityGroupId"]])
    assert groups["SecurityGroups"]
