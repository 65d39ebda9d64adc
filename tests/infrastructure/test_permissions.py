"""Every call that the code can make is in the policy of the process that makes it, and no other call is."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.infrastructure import calls
from tests.infrastructure.policies import (
    FILES,
    INFRASTRUCTURE,
    actions,
    depends_on,
    normal,
    policy,
    privilege,
    wrong,
)

SERVICES = ("ecs", "batch")
ROLES = ("scheduler", "api-server", "operator")

OF_AIRFLOWS_LOGS = {
    # Airflow's own remote logging, through which the executor adds its file (adapter/log_files.py), and which the
    # API server reads.
    "scheduler": {"s3:GetObject", "s3:ListBucket", "s3:PutObject"},
    "api-server": {"s3:GetObject", "s3:ListBucket"},
    "operator": set(),
}
IF_TAGGED = {"ecs:RunTask": "ecs:TagResource", "batch:SubmitJob": "batch:TagResource"}
ABOUT_FARGATE = {"servicequotas:ListServiceQuotas"}
"""What AWS names as dependent is for the quotas of other services: Auto Scaling, DynamoDB, RDS and so on."""
MADE_BEFOREHAND = {"logs:CreateLogGroup"}
"""Named in a hint about task definitions that make their own log group; ours does not."""


def needed(service: str, role: str) -> set[str]:
    """Return the actions that a process needs for all that it can do."""
    found = calls.actions(service, role)
    found |= {one for action in found - ABOUT_FARGATE for one in depends_on(action)}
    found |= {tagging for action, tagging in IF_TAGGED.items() if action in found}
    if calls.assumes_roles():
        found.add("sts:AssumeRole")
    if role == "operator":
        found |= calls.printed_for_people()
    return found | OF_AIRFLOWS_LOGS[role]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("role", ROLES)
def test_a_policy_has_what_the_code_can_call_and_nothing_else(service: str, role: str) -> None:
    assert actions(policy(f"{role}-{service}")) == needed(service, role)


def test_the_calls_are_found_at_all() -> None:
    assert "ecs:RunTask" in calls.actions("ecs", "scheduler")
    assert "batch:SubmitJob" in calls.actions("batch", "scheduler")
    assert "ecs:RunTask" not in calls.actions("ecs", "operator")
    assert calls.printed_for_people() == {"ecs:ExecuteCommand"}
    assert depends_on("ecs:RunTask") == {"iam:PassRole"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_module_that_calls_a_service_belongs_to_a_method_of_the_adapter(service: str) -> None:
    making = {
        path for path in calls.by_module() if calls.service_of(path) in {service, "logs", "servicequotas", "sqs"}
    }
    assert making <= calls.reached(service)


def test_every_operation_that_is_declared_is_called_somewhere() -> None:
    called = {action.partition(":")[2] for found in calls.by_module().values() for action in found}
    assert called == {calls.OF_BATCHES.get(one, one) for one in calls.declared()}


def test_the_method_of_an_operation_is_that_of_the_client() -> None:
    from botocore import xform_name

    assert {name: xform_name(name) for name in calls.declared()} == dict(calls.declared())


def test_clients_are_made_in_one_place() -> None:
    makers = calls.files_that_use("create_client", "client", "resource", "get_conn", "get_async_conn", "boto3")
    # roles.py asks STS for the credentials of a role.
    assert makers - {"services/roles.py"} == {"services/clients.py", "services/calls.py"}


def test_every_action_that_a_message_names_is_in_a_policy() -> None:
    allowed = {action for path in FILES for action in actions(policy(path.stem))}
    assert calls.named() - MADE_BEFOREHAND <= allowed
    assert all(privilege(action) for action in calls.named())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_aws_knows_the_actions_the_resources_and_the_condition_keys(path: Any) -> None:
    assert [fault for one in policy(path.stem).values() for fault in wrong(one)] == []


GOOD: dict[str, Any] = {
    "Sid": "Launch",
    "Effect": "Allow",
    "Action": ["ecs:RunTask"],
    "Resource": ["arn:aws:ecs:eu-west-1:123456789012:task-definition/airflow:*"],
    "Condition": {"ArnEquals": {"ecs:cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/airflow"}},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"Action": ["ecs:RunTasks"]}, "there is no action ecs:RunTasks"),
        ({"Resource": ["arn:aws:ecs:eu-west-1:123456789012:cluster/airflow"]}, "of the kind task-definition"),
        ({"Resource": ["*"], "Condition": {}}, "ecs:RunTask is allowed on everything"),
        ({"Condition": {"ArnEquals": {"ecs:task": "x"}}}, "does not know the condition key ecs:task"),
        ({"Action": ["ecs:DescribeTaskDefinition"], "Condition": {}}, "takes no resource but *"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_statement_is_noticed(change: dict[str, Any], says: str | None) -> None:
    (statement,) = normal([copy.deepcopy(GOOD) | change]).values()
    faults = " ".join(wrong(statement))
    assert (says in faults) if says else not faults


def test_the_page_names_each_statement_and_no_other() -> None:
    page = (INFRASTRUCTURE.parent / "docs" / "infrastructure.md").read_text()
    table = page[page.index("| Statement |") : page.index("Mistakes that are easily made")]
    rows = [row for row in table.splitlines()[2:] if row]
    named = [name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted({sid for path in FILES for sid in policy(path.stem)})
    files = re.findall(r"`([a-z-]+\.json)`", page)
    assert sorted(files) == sorted(path.name for path in FILES)
