"""``airflow ecs-async check`` as a gate before a deployment, against the local ECS and Batch."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import LocalEcs

SERVICES = ("ecs", "batch")
Local = Callable[..., LocalEcs]
OPTIONS = {"awslogs-group": "/airflow", "awslogs-stream-prefix": "a", "awslogs-create-group": "true"}
LOGGED = {"logDriver": "awslogs", "options": OPTIONS}
DEFINITION = {"ecs": "DescribeTaskDefinition", "batch": "DescribeJobDefinitions"}


@pytest.fixture(autouse=True)
def configured(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure both executors."""
    monkeypatch.setattr(compat, "configured_executors", lambda: [AsyncEcsExecutor, AsyncBatchExecutor])
    monkeypatch.setattr(compat, "our_executors", lambda _: [])
    # The tests of the UI set [core] executor for their whole process; here containers need none.
    one = SimpleNamespace(alias=None, module_path="ecs_async_executor.AsyncEcsExecutor", team_name=None)
    monkeypatch.setattr(compat, "executor_names", lambda: [one])


def register_job(local: LocalEcs, **container: Any) -> None:
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
    properties = {"image": "local", "command": [], "resourceRequirements": needs, **container}
    local.register_job_definition(
        {"jobDefinitionName": "airflow", "type": "container", "containerProperties": properties}
    )


@pytest.fixture
def local(local_ecs: Local, monkeypatch: pytest.MonkeyPatch) -> LocalEcs:
    """Open a local ECS and Batch in which everything is as it should be."""
    server = local_ecs()
    server.register("family", "airflow", logConfiguration=LOGGED)
    register_job(server, logConfiguration=LOGGED)
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:2")
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION", "airflow:2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", server.url)
    return server


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Run the command with JSON; return the exit code and the findings by name."""

    def run(service: str, *, strict: bool = False, **more: Any) -> tuple[int, Any]:
        code: Any = 0
        try:
            cli.check(arguments(service, strict=strict, output="json", **more))
        except SystemExit as ended:
            code = ended.code
        shown, errors = capsys.readouterr()
        assert errors == ""
        findings = json.loads(shown)  # nothing but JSON
        assert all(list(one) == ["name", "verdict", "text", "hint"] for one in findings)
        return code, {one["name"]: one for one in findings}

    return run


def arguments(service: str, **more: Any) -> Namespace:
    given = {"team": None, "service": service, "timeout": 15.0, "launch": False, "queue": None}
    given |= {"executor_config": None, "strict": False, "output": "text"}
    return Namespace(**{**given, **more})


def bad(findings: Any) -> list[str]:
    return [name for name, one in findings.items() if one["verdict"] in {"warning", "problem"}]


@pytest.mark.parametrize("service", SERVICES)
def test_where_all_is_well_the_gate_opens(local: LocalEcs, check: Callable[..., Any], service: str) -> None:
    code, findings = check(service, strict=True)
    assert bad(findings) == []
    assert code == 0
    assert findings["GetLogEvents, log group '/airflow'"]["verdict"] == "good"
    assert findings["Requests"]["verdict"] == "not tried"
    assert findings["Executor"]["text"].startswith(
        {"ecs": "ecs_async_executor.AsyncEcsExecutor, sections [aws_ecs_executor] and [ecs_async_executor]"}.get(
            service,
            "ecs_async_executor.AsyncBatchExecutor, sections [aws_batch_executor] and [batch_async_executor]",
        )
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_missing_permission_for_logs_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], service: str
) -> None:
    local.faults.error(
        "GetLogEvents", "AccessDeniedException", "not authorized to perform: logs:GetLogEvents", 400
    )
    code, findings = check(service)
    assert bad(findings) == ["GetLogEvents, log group '/airflow'"]
    assert "lack the permission logs:GetLogEvents" in findings["GetLogEvents, log group '/airflow'"]["text"]
    assert code == 0
    assert check(service, strict=True)[0] == 1


@pytest.mark.parametrize("service", SERVICES)
def test_a_missing_permission_for_definitions_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], service: str
) -> None:
    operation = DEFINITION[service]
    local.faults.error(operation, "AccessDeniedException", f"not authorized to perform: {operation}", 403)
    code, findings = check(service)
    (name,) = bad(findings)
    assert name.startswith(operation)
    assert findings[name]["hint"].startswith(f"allow {service}:{operation}")
    assert code == 0


def queue_of_events(local: LocalEcs, monkeypatch: pytest.MonkeyPatch, service: str, *, policy: object) -> None:
    """Make a queue of events, and have the settings name it."""
    attributes = {"MessageRetentionPeriod": "300", **({"Policy": json.dumps(policy)} if policy else {})}
    url = local.client("sqs").create_queue(QueueName="airflow-events", Attributes=attributes)["QueueUrl"]
    monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__EVENTS_QUEUE_URL", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", local.url)


@pytest.mark.parametrize("service", SERVICES)
def test_a_queue_of_events_is_looked_at(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    queue_of_events(local, monkeypatch, service, policy={"Version": "2012-10-17", "Statement": [statement]})
    code, findings = check(service, strict=True)
    assert (code, findings["Queue of events"]["verdict"]) == (0, "good")


def test_a_queue_that_lets_no_events_in_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_of_events(local, monkeypatch, "ecs", policy=None)
    code, findings = check("ecs")
    assert (code, bad(findings)) == (0, ["Queue of events"])
    assert "events.amazonaws.com" in findings["Queue of events"]["text"]


def test_a_queue_of_events_that_is_gone_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EVENTS_QUEUE_URL", f"{local.url}/123456789012/gone")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", local.url)
    code, findings = check("ecs")
    assert (code, bad(findings)) == (0, ["Queue of events"])
    assert "does not exist" in findings["Queue of events"]["text"]


def test_a_missing_permission_for_job_queues_is_a_warning(local: LocalEcs, check: Callable[..., Any]) -> None:
    local.faults.error("DescribeJobQueues", "AccessDeniedException", "not authorized", 403)
    code, findings = check("batch")
    assert bad(findings) == ["DescribeJobQueues, job queue 'default'"]
    assert code == 0


@pytest.mark.parametrize(
    ("service", "option", "said"),
    [
        ("ecs", "TASK_DEFINITION", "family:9"),
        ("batch", "JOB_DEFINITION", "airflow:9"),
        ("batch", "JOB_QUEUE", "nowhere"),
    ],
)
def test_a_definition_or_queue_that_there_is_not_is_a_problem(
    local: LocalEcs,
    check: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    option: str,
    said: str,
) -> None:
    monkeypatch.setenv(f"AIRFLOW__AWS_{service.upper()}_EXECUTOR__{option}", said)
    code, findings = check(service)
    assert code == 1
    assert any(repr(said) in name and findings[name]["verdict"] == "problem" for name in bad(findings))


def test_a_container_that_the_definition_lacks_is_a_problem_with_the_names_that_it_has(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME", "worker")
    code, findings = check("ecs")
    finding = findings["DescribeTaskDefinition, task definition 'family:2'"]
    assert code == 1
    assert finding["text"] == "it has no container named 'worker'"
    assert finding["hint"] == "set [aws_ecs_executor] container_name to one of its containers: 'airflow'"


def test_a_limit_in_the_definition_that_keeps_a_container_below_its_task_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    local.register("limited", "airflow", memory=512)
    big = {"taskDefinition": "limited", "cpu": 1, "memory": "4 GB"}
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps({"big": big}))
    finding = check("ecs")[1]["Memory, task definition 'limited'"]
    assert finding["verdict"] == "warning"
    assert finding["text"] == "it limits the container to 512 MB, and a task of 4 GB uses no more"
    raised = {"overrides": {"containerOverrides": [{"name": "airflow", "memory": 4096}]}}
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps({"big": big | raised}))
    assert "Memory, task definition 'limited'" not in check("ecs")[1]


def test_a_job_definition_without_a_revision_is_the_newest_active_one(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_job(local, logConfiguration={"logDriver": "splunk"})
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION", "airflow")
    assert bad(check("batch")[1]) == ["Log configuration, job definition 'airflow'"]
    import boto3

    batch: Any = boto3.client("batch", endpoint_url=local.url, region_name=local.region)
    batch.deregister_job_definition(jobDefinition="airflow:3")
    assert bad(check("batch")[1]) == []


def test_a_job_definition_of_several_containers_needs_overrides_of_its_form(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {"ecsPropertiesOverride": {"taskProperties": [{"containers": [{"name": "airflow"}]}]}}
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", json.dumps({"several": several}))
    code, findings = check("batch")
    assert code == 1
    assert "it has a single container" in findings["DescribeJobDefinitions, job definition 'airflow:2'"]["text"]


def test_an_inactive_definition_is_a_problem(local: LocalEcs, check: Callable[..., Any]) -> None:
    import boto3

    ecs: Any = boto3.client("ecs", endpoint_url=local.url, region_name=local.region)
    ecs.deregister_task_definition(taskDefinition="family:2")
    code, findings = check("ecs")
    assert code == 1
    assert findings["DescribeTaskDefinition, task definition 'family:2'"]["text"] == "it is INACTIVE"


@pytest.mark.parametrize("service", SERVICES)
def test_a_definition_with_another_log_driver_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    local.register("family", "airflow", logConfiguration={"logDriver": "splunk"})
    register_job(local, logConfiguration={"logDriver": "splunk"})
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:3")
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION", "airflow:3")
    code, findings = check(service)
    (name,) = bad(findings)
    assert name.startswith("Log configuration")
    assert "splunk" in findings[name]["text"]
    assert code == 0


def test_a_log_group_that_nobody_makes_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"awslogs-group": "/forgotten", "awslogs-stream-prefix": "a"}
    local.register("family", "airflow", logConfiguration={"logDriver": "awslogs", "options": options})
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:3")
    _, findings = check("ecs")
    assert bad(findings) == ["GetLogEvents, log group '/forgotten'"]
    assert "does not exist" in findings["GetLogEvents, log group '/forgotten'"]["text"]


@pytest.mark.parametrize(
    ("service", "queues", "names"),
    [
        (
            "ecs",
            {"gpu": {"cluster": "elsewhere", "taskDefinition": "nothing:1"}},
            ["ListTasks, cluster 'elsewhere'", "DescribeTaskDefinition, task definition 'nothing:1'"],
        ),
        (
            "batch",
            {"gpu": {"jobQueue": "elsewhere", "jobDefinition": "nothing:1"}},
            ["ListJobs, job queue 'elsewhere'", "DescribeJobDefinitions, job definition 'nothing:1'"],
        ),
    ],
)
def test_what_only_a_queue_names_is_looked_at_too(
    local: LocalEcs,
    check: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    queues: Any,
    names: list[str],
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    code, findings = check(service)
    assert code == 1
    assert findings["Request, queue 'gpu'"]["verdict"] == "good"
    said = " / ".join(bad(findings))
    assert all(name in said for name in names)


def test_a_queue_whose_request_would_be_refused_is_a_problem(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = {"odd": {"overrides": {"containerOverrides": [{"cpu": 1}]}}}
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    code, findings = check("ecs")
    assert code == 1
    assert bad(findings) == ["Request, queue 'odd'"]
    assert 'container "name" must be provided' in findings["Request, queue 'odd'"]["text"]


def test_a_retry_rule_whose_request_would_be_refused_is_a_problem(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    big = {"when": "oom", "memory": "300 GB", "capacity": ["on-demand", "ec2"]}
    rules = [big, {"when": "host", "memory": "x2", "up to": "30 GB"}]
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__RETRIES", json.dumps(rules))
    own = {"when": "exit 75", "cpu": "64 vCPU", "launchType": "FARGATE"}
    wrong = {"overrides": {"containerOverrides": [{"cpu": 1}]}, "retries": [{"when": "oom", "memory": "x2"}]}
    queues = {"own": {"retries": [own]}, "none": {"retries": []}, "wrong": wrong}
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    code, findings = check("ecs")
    assert code == 1
    assert bad(findings) == [
        "Request, placement on-demand, after oom",
        "Request, queue 'own', after exit 75",
        "Request, queue 'wrong'",
    ]
    assert "Fargate has at most" in findings["Request, queue 'own', after exit 75"]["text"]


RULES = """\
queues:
  small: {}
  gpu:
    cluster: default
    environment: {STAGE: prod, TOKEN: hunter2}
    placements: [big, ec2]
    placement_patience: 5
    retries: []
placements:
  big: {launchType: EC2, memory: 4 GB, tags: {team: data}}
  other: {launchType: EC2}
retries:
  - {when: oom, memory: x2, up to: 30 GB}
  - {when: spot, capacity: ec2}
"""


def test_the_rules_are_shown_as_they_apply(
    local: LocalEcs,
    check: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EXECUTOR_RULES", str(path))
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__PLACEMENTS", "ec2")
    _, found = check("ecs")
    shown = {name: one["text"] for name, one in found.items() if one["verdict"] == "info"}
    assert shown == {
        "Rules": f"from {path}, [ecs_async_executor] placements; for all launches: placements ec2; "
        "after oom: memory=x2, up to 30 GB; after spot: placements ec2",
        "Rules, queue 'small'": "as all launches",
        "Rules, queue 'gpu'": "environment STAGE, TOKEN; cluster=default; placements big, ec2; the next placement "
        "after 5 s; no retry rules",
        "Rules, placement 'ec2'": "launchType=EC2",
        "Rules, placement 'big'": "memory=4 GB; launchType=EC2; tags",
    }
    with pytest.raises(SystemExit):
        cli.check(arguments("ecs", strict=True))
    lines = capsys.readouterr().out.splitlines()
    assert "Rules, placement 'ec2': launchType=EC2." in lines
    other = f"{path} line 11, placements.other is in no list of placements: only tasks that name it use it"
    assert f"Warning: Settings: {other}" in lines


def test_without_rules_none_are_shown(local: LocalEcs, check: Callable[..., Any]) -> None:
    assert not [name for name in check("ecs")[1] if name.startswith("Rules")]


def test_rules_that_cannot_be_used_are_problems(
    check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("queues:\n  gpu: {memory: big}\n  eu: {placements: [spto]}\n")
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EXECUTOR_RULES", str(path))
    code, found = check("ecs")
    assert code == 1
    assert f"{path} line 2, queues.gpu.memory = 'big' cannot be read" in found["Settings"]["text"]
    assert f"{path} line 3, queues.eu.placements: there is no placement 'spto'" in found["Settings"]["text"]


@pytest.mark.parametrize(("service", "first"), [("ecs", "StopTask"), ("batch", "DescribeJobs")])
def test_credentials_that_do_not_work_are_one_line(
    local: LocalEcs, capsys: pytest.CaptureFixture[str], service: str, first: str
) -> None:
    local.faults.error(
        first, "ExpiredTokenException", "The security token included in the request is expired", 400
    )
    with pytest.raises(SystemExit) as ended:
        cli.check(arguments(service))
    said = str(ended.value)
    assert said.count("expired") == 1
    assert "\n" not in said
    assert f"{first}" in said
    assert "List" in said
    assert first not in capsys.readouterr().out


def test_requests_that_fail_for_one_reason_are_one_line(local: LocalEcs, check: Callable[..., Any]) -> None:
    for operation in ("DescribeTasks", "ListTasks"):
        local.faults.error(operation, "AccessDeniedException", "a service control policy denies it", 403)
    code, findings = check("ecs")
    assert code == 1
    assert bad(findings) == ["DescribeTasks, cluster 'main', ListTasks, cluster 'main'"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("uri", "text", "hint"),
    [
        (None, "isn't defined", "airflow connections add"),
        ("http://example.com", "its type is 'http'", "name one of type aws"),
    ],
)
def test_a_connection_is_looked_at_before_any_request(
    local: LocalEcs,
    check: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    uri: str | None,
    text: str,
    hint: str,
) -> None:
    pytest.importorskip("airflow.providers.amazon")
    monkeypatch.setenv(f"AIRFLOW__AWS_{service.upper()}_EXECUTOR__CONN_ID", "the_aws")
    if uri is not None:
        monkeypatch.setenv("AIRFLOW_CONN_THE_AWS", uri)
    code, findings = check(service)
    assert code == 1
    assert bad(findings) == ["Connection 'the_aws'"]
    assert text in findings["Connection 'the_aws'"]["text"]
    assert hint in findings["Connection 'the_aws'"]["hint"]
    assert findings["Requests"]["text"] == "because of the problems with the settings"


@pytest.mark.parametrize("service", SERVICES)
def test_the_providers_default_connection_need_not_exist(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    pytest.importorskip("airflow.providers.amazon")
    from airflow.configuration import conf

    monkeypatch.delenv(f"AIRFLOW__AWS_{service.upper()}_EXECUTOR__CONN_ID", raising=False)
    code, findings = check(service, strict=True)
    assert code == 0
    if conf.has_option(
        f"aws_{service}_executor", "conn_id"
    ):  # the provider that comes with Airflow 3.1.0 has no default
        assert findings["Connection 'aws_default'"]["verdict"] == "info"
        assert "AWS's default credential chain is used" in findings["Connection 'aws_default'"]["text"]
    assert findings["Requests"]["text"] != "because of the problems with the settings"


def test_a_parallelism_that_outgrows_the_status_requests_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "[core] parallelism = 32" in check("ecs")[1]["Parallelism"]["text"]
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "20000")
    _, findings = check("ecs")
    assert bad(findings) == ["Parallelism"]
    assert "takes 40 s" in findings["Parallelism"]["text"]


def test_an_executor_that_airflow_does_not_use_is_a_warning(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "configured_executors", lambda: [AsyncBatchExecutor])
    _, findings = check("ecs")
    assert bad(findings) == ["Executor"]
    assert findings["Executor"]["hint"] == "set it to ecs_async_executor.AsyncEcsExecutor"


def test_two_executors_with_one_status_port_are_a_problem(
    local: LocalEcs, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("ECS", "BATCH"):
        monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__STATUS_PORT", "8796")
    ours = [(None, AsyncEcsExecutor()), (None, AsyncBatchExecutor())]
    monkeypatch.setattr(compat, "our_executors", lambda _: ours)
    code, findings = check("ecs")
    assert code == 1
    assert findings["Status port"]["text"] == (
        "[ecs_async_executor] status_port and [batch_async_executor] status_port are both 8796"
    )


def test_settings_that_cannot_be_used_are_json_too(
    check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__POLL_INTERVAL", "often")
    code, findings = check("ecs")
    assert code == 1
    assert "poll_interval = 'often'" in findings["Settings"]["text"]


def test_no_log_line_of_a_library_is_printed(local: LocalEcs, capsys: pytest.CaptureFixture[str]) -> None:
    cli.check(arguments("ecs"))
    shown, errors = capsys.readouterr()
    assert "[info" not in shown
    assert "botocore" not in shown
    assert errors == ""


def test_a_launch_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.check(arguments("ecs", launch=True, output="json"))
    assert "has no JSON" in capsys.readouterr().err


def test_warnings_fail_the_strict_check_and_no_other(
    local: LocalEcs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    cli.check(arguments("batch"))
    assert "Warning: Executor: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--strict"):
        cli.check(arguments("batch", strict=True))
