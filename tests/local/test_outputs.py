"""What containers print, read as CloudWatch Logs, through boto3."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]


def awslogs(**options: str) -> dict[str, Any]:
    named = {f"awslogs-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"logDriver": "awslogs", "options": named}


def messages(logs: Any, group: str, stream: str, **options: Any) -> list[str]:
    reply = logs.get_log_events(logGroupName=group, logStreamName=stream, **options)
    return [event["message"] for event in reply["events"]]


def test_what_a_container_prints_is_in_the_stream_of_its_definition(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    ecs.register("job", "main", logConfiguration=awslogs(group="/ecs/job", region="us-east-1", stream_prefix="a"))
    task = run(ecs.client(), "sh", "-c", "echo one; echo two >&2; printf three")
    ecs.wait_stopped()
    stream = f"a/main/{task['taskArn'].rsplit('/', 1)[-1]}"

    logs = ecs.client("logs")
    assert messages(logs, "/ecs/job", stream) == ["one", "two", "three"]
    assert messages(logs, "/ecs/job", stream, limit=1, startFromHead=False) == ["three"]


def test_whole_lines_can_be_read_while_a_container_runs(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess", stop_timeout=1)
    ecs.register("job", "main", logConfiguration=awslogs(group="g", stream_prefix="a"))
    client, logs = ecs.client(), ecs.client("logs")
    task = run(client, "sh", "-c", "echo begun; printf half; exec sleep 600")
    stream = f"a/main/{task['taskArn'].rsplit('/', 1)[-1]}"
    deadline = time.monotonic() + 60
    while "half" not in ecs.log(task["taskArn"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert messages(logs, "g", stream) == ["begun"]
    client.stop_task(task=task["taskArn"])
    ecs.wait_stopped()
    assert messages(logs, "g", stream) == ["begun", "half"]


def test_without_the_awslogs_driver_there_is_no_stream(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    run(ecs.client(), "sh", "-c", "echo one")
    ecs.wait_stopped()
    assert ecs.client("logs").describe_log_groups()["logGroups"] == []


@pytest.mark.parametrize(("group", "missing"), [("g", "stream"), ("another", "group")])
def test_a_stream_that_is_missing_is_told_from_a_group(start: Start, run: Run, group: str, missing: str) -> None:
    ecs = start(runner="subprocess")
    ecs.register("job", "main", logConfiguration=awslogs(group="g", stream_prefix="a"))
    run(ecs.client(), "echo", "one")
    ecs.wait_stopped()
    logs = ecs.client("logs")
    with pytest.raises(logs.exceptions.ResourceNotFoundException, match=f"The specified log {missing} does not"):
        messages(logs, group, "a/main/0")


def test_each_attempt_of_a_job_has_the_stream_that_batch_names(start: Start) -> None:
    ecs = start(runner="subprocess")
    client = ecs.client("batch")
    job = client.submit_job(
        jobName="hello",
        jobQueue="default",
        jobDefinition="airflow",
        containerOverrides={"command": ["sh", "-c", "echo $AWS_BATCH_JOB_ATTEMPT; exit 3"]},
        retryStrategy={"attempts": 2},
    )["jobId"]
    ecs.wait_stopped(2)

    (record,) = client.describe_jobs(jobs=[job])["jobs"]
    streams = [attempt["container"]["logStreamName"] for attempt in record["attempts"]]
    assert [messages(ecs.client("logs"), "/aws/batch/job", stream) for stream in streams] == [["1"], ["2"]]


@pytest.mark.parametrize("driver", ["awslogs", "splunk"])
def test_a_job_definition_names_its_group_and_driver(start: Start, driver: str) -> None:
    ecs = start(runner="subprocess")
    configuration = {"logDriver": driver, "options": {"awslogs-group": "jobs"}}
    properties = {"image": "local", "command": ["echo", "one"], "logConfiguration": configuration}
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
    ecs.register_job("logged", containerProperties={**properties, "resourceRequirements": needs})
    ecs.client("batch").submit_job(jobName="hello", jobQueue="default", jobDefinition="logged")
    ecs.wait_stopped()

    groups = [one["logGroupName"] for one in ecs.client("logs").describe_log_groups()["logGroups"]]
    assert groups == (["jobs"] if driver == "awslogs" else [])
