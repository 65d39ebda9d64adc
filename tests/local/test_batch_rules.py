"""What AWS Batch refuses and what it lists, seen through boto3."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ecs_async_executor.local import LocalEcs

Start = Callable[..., LocalEcs]
Submit = Callable[..., str]
FOREVER = [{"duration": None}]


def refusal(call: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ClientException", 400)
    message: str = response["Error"]["Message"]
    return message


def names(client: Any, *values: str, queue: str = "default", name: str = "JOB_NAME", **params: Any) -> list[str]:
    filters = [{"name": name, "values": list(values)}]
    listing = client.list_jobs(jobQueue=queue, filters=filters, **params)["jobSummaryList"]
    return [job["jobName"] for job in listing]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"jobName": "x" * 129}, "Job name should match valid pattern"),
        ({"jobName": "-x"}, "Job name should match valid pattern"),
        ({"jobName": "a b"}, "Job name should match valid pattern"),
        ({"jobName": "a.b"}, "Job name should match valid pattern"),
        ({"jobQueue": "nowhere"}, "JobQueue nowhere not found."),
        ({"jobDefinition": "unknown"}, "JobDefinition name unknown does not exist or is not in ACTIVE status"),
        ({"jobDefinition": "airflow:7"}, "JobDefinition name airflow:7 does not exist"),
        ({"parameters": {"big": "x" * 30 * 1024}}, "Job size must be less than 30 KiB, got 31 KiB"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"retryStrategy": {"evaluateOnExit": [{"onReason": "*", "action": "EXIT"}] * 6}}, "5 conditions"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "at least 60 seconds"),
        ({"tags": {f"k{n}": "v" for n in range(51)}}, "Tags"),
        ({"arrayProperties": {"size": 2}}, "does not support arrayProperties"),
        ({"dependsOn": [{"jobId": "a"}]}, "does not support dependsOn"),
    ],
)
def test_submit_job_refuses(start: Start, params: dict[str, Any], message: str) -> None:
    aws = start()
    wanted = {"jobName": "one", "jobQueue": "default", "jobDefinition": "airflow", **params}
    assert message in refusal(aws.client("batch").submit_job, **wanted)
    assert len(aws.ledger) == 0


def test_names_of_128_characters_pass(start: Start, submit: Submit) -> None:
    client = start().client("batch")
    name = "1" + "aB_-" * 31 + "xyz"
    assert client.describe_jobs(jobs=[submit(client, name)])["jobs"][0]["jobName"] == name


def test_overrides_of_8192_characters_pass_and_longer_ones_fail_later(
    start: Start, submit: Submit, clock: Any
) -> None:
    aws = start(clock=clock, job_delay=10)
    client = aws.client("batch")
    room = 8192 - len(
        json.dumps({"containerOverrides": [{"name": "default", "command": [""]}]}, separators=(",", ":"))
    )
    fits, does_not = submit(client, "fits", "x" * room), submit(client, "long", "x" * (room + 1))
    assert [aws.job(j)["status"] for j in (fits, does_not)] == ["SUBMITTED", "SUBMITTED"]
    clock.advance(10)
    assert [aws.job(j)["status"] for j in (fits, does_not)] == ["SUCCEEDED", "FAILED"]
    record = aws.job(does_not)
    assert record["statusReason"] == "Container Overrides length must be at most 8192"
    assert (record["attempts"], "exitCode" in record["container"]) == ([], False)


def test_a_disabled_queue_and_an_inactive_definition_are_refused(start: Start, submit: Submit) -> None:
    aws = start(job_queues=["shut"])
    client = aws.client("batch")
    client.update_job_queue(jobQueue="shut", state="DISABLED")
    wanted = {"jobName": "one", "jobDefinition": "airflow"}
    assert "not in ENABLED state" in refusal(client.submit_job, jobQueue="shut", **wanted)
    second = aws.register_job("airflow")
    client.deregister_job_definition(jobDefinition=second)
    job = submit(client, "two")
    assert aws.job(job)["jobDefinition"].endswith("/airflow:1")
    wanted = {"jobName": "one", "jobQueue": "default"}
    assert "does not exist or is not in ACTIVE" in refusal(client.submit_job, jobDefinition="airflow:2", **wanted)


def test_queues_and_definitions_are_known_by_name_revision_and_arn(start: Start, submit: Submit) -> None:
    aws = start(script=FOREVER)
    second = aws.register_job("airflow", ["second"])
    client = aws.client("batch")
    queue = client.describe_job_queues()["jobQueues"][0]["jobQueueArn"]
    jobs = [
        submit(client, "one", jobDefinition=definition, jobQueue=queue)
        for definition in ("airflow", "airflow:1", "airflow:2", second)
    ]
    assert [aws.job(j)["jobDefinition"].rsplit(":", 1)[-1] for j in jobs] == ["2", "1", "2", "2"]
    assert [aws.job(j)["container"]["command"] for j in jobs] == [["second"], [], ["second"], ["second"]]
    (found,) = client.describe_job_definitions(jobDefinitions=["airflow:1"])["jobDefinitions"]
    assert found["revision"] == 1


def test_parameters_take_the_place_of_their_names_in_the_command(start: Start, submit: Submit) -> None:
    aws = start()
    aws.register_job("copy", ["cp", "Ref::from", "Ref::to"], parameters={"from": "a", "to": "b"})
    job = submit(aws.client("batch"), "one", jobDefinition="copy", parameters={"to": "c"})
    assert aws.job(job)["container"]["command"] == ["cp", "a", "c"]
    assert aws.ledger.entries()[0].command == ("cp", "a", "c")


def test_a_fargate_job_has_no_instance(start: Start, submit: Submit) -> None:
    aws = start(script=FOREVER)
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
    properties = {"image": "local", "resourceRequirements": needs}
    aws.register_job("fargate", platformCapabilities=["FARGATE"], containerProperties=properties)
    client = aws.client("batch")
    on_fargate, on_ec2 = submit(client, "one", jobDefinition="fargate"), submit(client, "two")
    assert ["containerInstanceArn" in aws.job(j)["container"] for j in (on_fargate, on_ec2)] == [False, True]
    assert [e.launch_type for e in aws.ledger.entries()] == ["FARGATE", "EC2"]


def test_environments_and_queues_can_be_created_as_on_aws(start: Start, submit: Submit) -> None:
    aws = start()
    client = aws.client("batch")
    client.create_compute_environment(computeEnvironmentName="mine", type="UNMANAGED", state="ENABLED")
    client.create_compute_environment(computeEnvironmentName="yours", type="UNMANAGED", state="ENABLED")
    order = [{"order": 1, "computeEnvironment": "mine"}]
    client.create_job_queue(jobQueueName="mine", state="ENABLED", priority=1, computeEnvironmentOrder=order)
    job = submit(client, "one", jobQueue="mine")
    assert aws.job(job)["jobQueue"].endswith(":job-queue/mine")
    assert aws.ledger.entries()[0].cluster == "mine"


def test_describe_takes_between_1_and_100_jobs(start: Start) -> None:
    client = start().client("batch")
    assert "Maximum number of jobs supported is  100" in refusal(client.describe_jobs, jobs=["a"] * 101)
    assert "At least one" in refusal(client.describe_jobs, jobs=[])
    assert client.describe_jobs(jobs=[f"a{n}" for n in range(100)])["jobs"] == []


@pytest.mark.parametrize("call", ["terminate_job", "cancel_job"])
def test_ending_an_unknown_job_or_without_a_reason_is_refused(start: Start, submit: Submit, call: str) -> None:
    client = start(script=FOREVER).client("batch")
    job = submit(client, "one")
    assert "not found" in refusal(getattr(client, call), jobId="a", reason="enough")
    assert "reason can not be blank" in refusal(getattr(client, call), jobId=job, reason="")


# --- ListJobs ------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_name_whatever_their_state_and_case(start: Start, submit: Submit, clock: Any) -> None:
    script = [{"command": "fails", "exit_code": 1}, {"command": "quick"}, {"duration": None}]
    client = start(clock=clock, job_queues=["other"], script=script).client("batch")
    for name in ("af-one", "af-one", "AF-two", "af-three", "af-one-more"):
        submit(client, name, "fails" if name == "AF-two" else "quick" if name == "af-three" else "long")
        clock.advance(1)
    submit(client, "af-one", jobQueue="other")
    assert names(client, "af-one") == names(client, "AF-ONE") == ["af-one", "af-one"]
    assert names(client, "af-two", jobStatus="RUNNING") == ["AF-two"]
    assert names(client, "AF-O*") == ["af-one-more", "af-one", "af-one"]
    assert names(client, "nothing") == names(client, "nothing*") == []
    assert names(client, "af-one", queue="other") == ["af-one"]
    (summary,) = client.list_jobs(jobQueue="default", filters=[{"name": "JOB_NAME", "values": ["af-two"]}])[
        "jobSummaryList"
    ]
    assert (summary["status"], summary["container"]["exitCode"]) == ("FAILED", 1)
    assert summary["statusReason"] == "Essential container in task exited"
    assert summary["createdAt"] <= summary["startedAt"] <= summary["stoppedAt"]


def test_without_a_filter_the_status_decides(start: Start, submit: Submit) -> None:
    client = start(script=[{"command": "quick"}, {"duration": None}]).client("batch")
    submit(client, "one", "quick")
    submit(client, "two", "long")

    def listed(**params: Any) -> list[str]:
        return [job["jobName"] for job in client.list_jobs(jobQueue="default", **params)["jobSummaryList"]]

    assert listed() == ["two"]
    assert listed(jobStatus="SUCCEEDED") == ["one"]
    assert listed(jobStatus="FAILED") == []


def test_the_other_filters(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock)
    aws.register_job("other")
    client = aws.client("batch")
    submit(client, "one")
    clock.advance(10)
    middle = str(round(clock.now * 1000))
    clock.advance(10)
    submit(client, "two", jobDefinition="other")
    assert names(client, middle, name="BEFORE_CREATED_AT") == ["one"]
    assert names(client, middle, name="AFTER_CREATED_AT") == ["two"]
    assert names(client, "airflow", name="JOB_DEFINITION") == ["one"]
    assert names(client, "o*", name="JOB_DEFINITION") == ["two"]
    (arn,) = (
        d["jobDefinitionArn"] for d in client.describe_job_definitions(jobDefinitionName="other")["jobDefinitions"]
    )
    assert names(client, arn, name="JOB_DEFINITION") == ["two"]


def test_list_jobs_comes_in_pages_the_newest_first(start: Start, submit: Submit) -> None:
    client = start(script=FOREVER).client("batch")
    for n in range(230):
        submit(client, f"job-{n}")
    filters = [{"name": "JOB_NAME", "values": ["job-*"]}]
    first = client.list_jobs(jobQueue="default", filters=filters)
    second = client.list_jobs(jobQueue="default", filters=filters, nextToken=first["nextToken"])
    third = client.list_jobs(jobQueue="default", filters=filters, nextToken=second["nextToken"])
    found = [j["jobName"] for page in (first, second, third) for j in page["jobSummaryList"]]
    assert found == [f"job-{n}" for n in reversed(range(230))]
    assert [len(page["jobSummaryList"]) for page in (first, second, third)] == [100, 100, 30]
    assert "nextToken" not in third
    pages = client.get_paginator("list_jobs").paginate(jobQueue="default", PaginationConfig={"PageSize": 90})
    assert [len(page["jobSummaryList"]) for page in pages] == [90, 90, 50]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Exactly one of jobQueue"),
        ({"jobQueue": "nowhere"}, "JobQueue nowhere not found."),
        ({"jobQueue": "default", "filters": [{"name": "JOB_NAME", "values": ["a"]}] * 2}, "Only one filter"),
        ({"jobQueue": "default", "filters": [{"name": "NAME", "values": ["a"]}]}, "A filter needs"),
        ({"jobQueue": "default", "filters": [{"name": "JOB_NAME", "values": []}]}, "A filter needs"),
        ({"jobQueue": "default", "filters": [{"name": "AFTER_CREATED_AT", "values": ["now"]}]}, "milliseconds"),
        ({"jobQueue": "default", "jobStatus": "STOPPED"}, "jobStatus must be"),
        ({"jobQueue": "default", "maxResults": 101}, "between 1 and 100"),
        ({"jobQueue": "default", "nextToken": "nonsense"}, "nextToken is invalid"),
    ],
)
def test_list_jobs_refuses(start: Start, params: dict[str, Any], message: str) -> None:
    assert message in refusal(start().client("batch").list_jobs, **params)


def test_a_new_job_is_not_seen_for_a_while_if_so_wanted(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, visible_after=3, listed_after=10, script=FOREVER)
    client = aws.client("batch")
    job = submit(client, "one")
    seen = []
    for _ in range(12):
        seen.append((len(client.describe_jobs(jobs=[job])["jobs"]), len(names(client, "one"))))
        clock.advance(1)
    assert seen == [(0, 0)] * 3 + [(1, 0)] * 7 + [(1, 1)] * 2
