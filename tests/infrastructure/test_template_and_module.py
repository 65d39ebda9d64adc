"""The CloudFormation template is one, the Terraform module can be read, and both make the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_file

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.listening import Hint
from ecs_async_executor.services.events import parsed
from tests.infrastructure.cloudformation import PATH, Template
from tests.infrastructure.policies import Statements, normal, policy
from tests.infrastructure.terraform import PATHS, Module

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
PUSH_PAGE = (DOCS / "push.md").read_text()
PUSH = [json.loads(one) for one in re.findall(r"```json\n(.*?)```", PUSH_PAGE, re.DOTALL)]

DESTINATION = "arn:aws:iam::210987654321:role/airflow-scheduler"
TRUSTED = "arn:aws:iam::210987654321:role/home-scheduler,arn:aws:iam::210987654321:role/home-api-server"
EVERYTHING = {
    "Image": "airflow:1",
    "ExecutionApiUrl": "http://airflow.internal:8080/execution/",
    "RemoteLogBucket": "airflow-logs",
    "WorkloadBucket": "airflow-workloads",
    "CreateCluster": "true",
    "VpcId": "vpc-0a1b2c3d",
    "ApiServerSecurityGroup": "sg-0a1b2c3d",
    "DestinationRoleArns": DESTINATION,
    "SchedulerLogGroup": "/airflow/scheduler",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:pages",
    "CreateEvents": "true",
}
LEAST = {
    "Image": "airflow:1",
    "ExecutionApiUrl": "http://airflow.internal:8080/execution/",
    "ContainerTags": "false",
    "ExecuteCommand": "false",
}
AWAY = {
    **LEAST,
    "TrustedRoleArns": TRUSTED,
    "Name": "far",
    "Cluster": "there",
    "AirflowRunsOn": "ec2.amazonaws.com",
}
CASES = pytest.mark.parametrize("given", [EVERYTHING, LEAST, AWAY], ids=["everything", "least", "away"])

ROLES = {
    "SchedulerRole": ("scheduler", "aws_iam_role.scheduler"),
    "ApiServerRole": ("api_server", "aws_iam_role.api_server"),
    "OperatorPolicy": ("operator", "aws_iam_policy.operator"),
    "ExecutionRole": ("execution", "aws_iam_role.execution"),
    "TaskRole": ("task", "aws_iam_role.task"),
}
FILES = {
    "SchedulerRole": "scheduler-ecs",
    "ApiServerRole": "api-server-ecs",
    "OperatorPolicy": "operator-ecs",
    "ExecutionRole": "execution",
    "TaskRole": "task",
}


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def as_variable(name: str, value: str) -> Any:
    """Return a parameter's value as Terraform has it."""
    if value in {"true", "false"}:
        return value == "true"
    if name.endswith("Arns"):
        return value.split(",") if value else []
    return value


def both(given: dict[str, str]) -> tuple[Template, Module]:
    return Template(**given), Module(**{snake(name): as_variable(name, value) for name, value in given.items()})


def test_cfn_lint_finds_nothing_wrong() -> None:
    assert [str(fault) for fault in lint_file(PATH)] == []


def test_the_parameters_are_the_variables() -> None:
    template, module = both({})
    parameters = template.source["Parameters"]
    assert {snake(name) for name in parameters} == module.variables.keys()
    for name, parameter in parameters.items():
        variable = module.variables[snake(name)]
        assert module.done(variable["description"]) == parameter["Description"], name
        if "Default" in parameter:
            assert module.done(variable["default"]) == as_variable(name, parameter["Default"]), name
        else:
            assert "default" not in variable, name


def test_every_parameter_stands_in_a_group_of_the_form() -> None:
    template, _ = both({})
    groups = template.source["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(
        template.source["Parameters"]
    )


def test_the_outputs_are_the_same() -> None:
    template, module = both({})
    outputs = {snake(name): one["Description"] for name, one in template.source["Outputs"].items()}
    assert outputs == {name: module.done(one["description"]) for name, one in module.outputs.items()}


@pytest.mark.parametrize("role", FILES)
def test_the_policies_are_those_in_the_files(role: str) -> None:
    template, module = both(EVERYTHING)
    assert template.statements(role) == policy(FILES[role])
    assert module.statements(ROLES[role][0]) == policy(FILES[role])


@CASES
def test_both_make_the_same_roles(given: dict[str, str]) -> None:
    template, module = both(given)
    for name, (document, resource) in ROLES.items():
        assert module.has(resource) is (name in template.resources), name
        if name in template.resources:
            assert template.statements(name) == module.statements(document), name
            properties = template.resources[name]
            assert (
                properties.get("RoleName", properties.get("ManagedPolicyName"))
                == module.resource(resource)["name"]
            )


def test_what_is_off_is_not_permitted() -> None:
    template, _ = both(LEAST)
    found: Statements = {sid: one for name in FILES for sid, one in template.statements(name).items()}
    optional = {
        "TagLaunches",
        "OpenShells",
        "AllowShells",
        "GoToDestinations",
        "ReceiveEvents",
        "WriteRemoteLogs",
        "ReadRemoteLogs",
        "HandWorkloadsOver",
        "ReadWorkloads",
        "FindWorkloads",
    }
    assert optional.isdisjoint(found)


@CASES
def test_both_trust_the_same(given: dict[str, str]) -> None:
    template, module = both(given)
    airflow, ecs = module.trust("trust_airflow"), module.trust("trust_ecs")
    home = "TrustedRoleArns" not in given
    kind, who = (
        ("Service", given.get("AirflowRunsOn", "ecs-tasks.amazonaws.com")) if home else ("AWS", TRUSTED.split(","))
    )
    assert template.trust("SchedulerRole")["Principal"] == {kind: who}
    assert airflow["principals"] == [{"type": kind, "identifiers": [who] if home else who}]
    assert template.trust("SchedulerRole")["Action"] == airflow["actions"]
    assert ("sts:TagSession" in airflow["actions"]) is home
    if home:
        assert template.trust("ApiServerRole") == template.trust("SchedulerRole")
    assert template.trust("ExecutionRole") == template.trust("TaskRole")
    assert template.trust("TaskRole")["Condition"] == {
        one["test"]: {one["variable"]: one["values"][0]} for one in ecs["condition"]
    }
    assert template.trust("TaskRole")["Principal"] == {"Service": ecs["principals"][0]["identifiers"][0]}


def pascal(value: Any) -> Any:
    """Return a container definition with CloudFormation's names."""
    if isinstance(value, dict):
        return {key if "-" in key else key[0].upper() + key[1:]: pascal(one) for key, one in value.items()}
    return [pascal(one) for one in value] if isinstance(value, list) else value


@CASES
def test_both_make_the_same_task_definition(given: dict[str, str]) -> None:
    template, module = both(given)
    made, like = template.resources["TaskDefinition"], module.resource("aws_ecs_task_definition.tasks")
    (container,) = made["ContainerDefinitions"]
    other = pascal(module.local("container"))
    variables, text = container.pop("Environment"), str(other.pop("Environment"))
    assert container == other
    assert container["StopTimeout"] == 120
    assert container["LogConfiguration"]["Options"]["awslogs-stream-prefix"]
    assert container["LogConfiguration"]["Options"]["awslogs-group"] == f"/ecs/{given.get('Name', 'airflow')}"
    remote = (
        []
        if module.local("remote_logging") == []
        else re.findall(r"AIRFLOW__\w+", str(module.local("remote_logging")))
    )
    assert [one["Name"] for one in variables] == [*re.findall(r"AIRFLOW__\w+", text), *remote]
    for theirs, ours in (
        ("Family", "family"),
        ("RequiresCompatibilities", "requires_compatibilities"),
        ("NetworkMode", "network_mode"),
        ("Cpu", "cpu"),
        ("Memory", "memory"),
        ("ExecutionRoleArn", "execution_role_arn"),
        ("TaskRoleArn", "task_role_arn"),
    ):
        assert made[theirs] == like[ours], theirs


def test_both_make_the_same_of_the_rest() -> None:
    template, module = both(EVERYTHING)
    group = template.resources["LogGroup"]
    like = module.resource("aws_cloudwatch_log_group.containers")
    assert (group["LogGroupName"], group["RetentionInDays"]) == (like["name"], like["retention_in_days"])
    cluster = template.resources["EcsCluster"]
    assert cluster["ClusterName"] == module.resource("aws_ecs_cluster.this")["name"]
    providers = module.resource("aws_ecs_cluster_capacity_providers.this")["capacity_providers"]
    assert cluster["CapacityProviders"] == providers
    ingress = template.resources["TasksReachApiServer"]
    rule = module.resource("aws_vpc_security_group_ingress_rule.tasks_reach_api_server")
    assert (ingress["GroupId"], ingress["FromPort"], ingress["ToPort"], ingress["Description"]) == (
        rule["security_group_id"],
        rule["from_port"],
        rule["to_port"],
        rule["description"],
    )


def test_both_keep_workloads_alike() -> None:
    template, module = both(EVERYTHING)
    bucket = template.resources["Workloads"]
    assert bucket["BucketName"] == module.resource("aws_s3_bucket.workloads")["bucket"] == "airflow-workloads"
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    (like,) = module.resource("aws_s3_bucket_lifecycle_configuration.workloads")["rule"]
    assert rule == {"Id": like["id"], "Status": like["status"], "ExpirationInDays": like["expiration"][0]["days"]}
    block = module.resource("aws_s3_bucket_public_access_block.workloads")
    public = bucket["PublicAccessBlockConfiguration"]
    assert {snake(name): value for name, value in public.items()} == {
        name: value for name, value in block.items() if name not in {"count", "bucket"}
    }
    assert all(public.values())
    assert "VersioningConfiguration" not in bucket
    statements = normal(template.resources["WorkloadsPolicy"]["PolicyDocument"]["Statement"])
    document = module.statements("workloads")
    assert statements == document
    assert {one["Effect"] for one in statements.values()} == {"Deny"}
    (readers,) = statements["OnlyContainersGetWorkloads"]["Condition"]["ArnNotEquals"].values()
    assert readers == ["arn:aws:iam::123456789012:role/airflow-execution"]


@CASES
def test_both_leave_out_the_same(given: dict[str, str]) -> None:
    template, module = both(given)
    for name, resource in {
        "EcsCluster": "aws_ecs_cluster.this",
        "TaskSecurityGroup": "aws_security_group.tasks",
        "TasksReachApiServer": "aws_vpc_security_group_ingress_rule.tasks_reach_api_server",
        "Workloads": "aws_s3_bucket.workloads",
        "WorkloadsPolicy": "aws_s3_bucket_policy.workloads",
        "EventQueue": "aws_sqs_queue.events",
        "UndeliveredEvents": "aws_sqs_queue.undelivered",
        "EventRule": "aws_cloudwatch_event_rule.tasks",
    }.items():
        assert module.has(resource) is (name in template.resources), name
    alarms = module.resource("aws_cloudwatch_metric_alarm.this")["for_each"]
    assert bool(alarms) is ("PausedAlarm" in template.resources)


def test_both_set_the_same_alarms_on_events_that_there_are() -> None:
    template, module = both(EVERYTHING)
    alarm = module.resource("aws_cloudwatch_metric_alarm.this")
    names = {f"{name}Alarm" for name in ("Paused", "LaunchesFail", "GateClosed", "Engine")}
    assert {name for name in template.resources if name.endswith("Alarm")} == names
    for key, one in module.local("alarms").items():
        made = template.resources[f"{one['metric']}Alarm"]
        watched = template.resources[f"{one['metric']}Filter"]
        assert watched["FilterPattern"] == one["pattern"]
        (counted,) = watched["MetricTransformations"]
        assert (counted["MetricNamespace"], counted["MetricName"]) == (made["Namespace"], made["MetricName"])
        assert made["AlarmName"] == f"airflow-executor-{key}"
        assert made["AlarmDescription"] == one["description"]
        assert (made["Period"], made["Threshold"], made["Statistic"]) == (300, 1, alarm["statistic"])
        assert (alarm["period"], alarm["threshold"]) == (300, 1)
        assert made["TreatMissingData"] == alarm["treat_missing_data"]
        assert made["AlarmActions"] == alarm["alarm_actions"] == [EVERYTHING["AlarmTopicArn"]]
        events = re.findall(r"ecs_executor\.([\w.]+)", one["pattern"])
        assert events
        assert all(f"`{event}`" in OPERATIONS for event in events), events


def test_both_and_the_page_make_the_same_queue_of_events() -> None:
    template, module = both(EVERYTHING)
    rule = template.resources["EventRule"]
    (target,) = rule["Targets"]
    patterns = [one for one in PUSH if isinstance(one, dict) and one.get("source") == ["aws.ecs"]]
    assert [rule["EventPattern"]] == [module.local("event_pattern")] == patterns
    transformers = [one[0]["InputTransformer"] for one in PUSH if isinstance(one, list)]
    made = {"InputPathsMap": module.local("event_paths"), "InputTemplate": module.local("event_template")}
    assert [target["InputTransformer"]] == [made] == transformers
    for name, resource in (("EventQueue", "events"), ("UndeliveredEvents", "undelivered")):
        queue, like = template.resources[name], module.resource(f"aws_sqs_queue.{resource}")
        assert (queue["QueueName"], queue["MessageRetentionPeriod"], queue["SqsManagedSseEnabled"]) == (
            like["name"],
            like["message_retention_seconds"],
            like["sqs_managed_sse_enabled"],
        )
    (kept,) = re.findall(r"MessageRetentionPeriod=(\d+)", PUSH_PAGE)
    assert template.resources["EventQueue"]["MessageRetentionPeriod"] == int(kept)
    target_there = module.resource("aws_cloudwatch_event_target.events")
    (retries,) = target_there["retry_policy"]
    assert target["RetryPolicy"] == {
        "MaximumEventAgeInSeconds": retries["maximum_event_age_in_seconds"],
        "MaximumRetryAttempts": retries["maximum_retry_attempts"],
    }


def test_the_rule_passes_what_the_executor_reads_and_no_command() -> None:
    template, _ = both(EVERYTHING)
    (target,) = template.resources["EventRule"]["Targets"]
    paths, text = target["InputTransformer"]["InputPathsMap"], target["InputTransformer"]["InputTemplate"]
    for name in paths:
        text = text.replace(f"<{name}>", f"the {name}")
    assert parsed(text.replace("the status", "STOPPED")) == (Hint("the container", Seen.STOPPED), False)
    assert not [path for path in paths.values() if "overrides" in path or "command" in path]


def test_the_module_is_read_whole() -> None:
    assert {path.name for path in PATHS} == {
        "alarms.tf",
        "events.tf",
        "main.tf",
        "outputs.tf",
        "roles.tf",
        "variables.tf",
        "versions.tf",
        "workloads.tf",
    }
