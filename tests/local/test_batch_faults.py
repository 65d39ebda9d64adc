"""What goes wrong with Batch when it is told to, through boto3 and aiobotocore."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError

from ecs_async_executor.local import KINDS, Fault, LocalEcs, Rate
from ecs_async_executor.local.faults import EVENT_KINDS

Start = Callable[..., LocalEcs]
Submit = Callable[..., str]

ONCE = {"retries": {"mode": "standard", "total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}
JOB = {"jobName": "one", "jobQueue": "default", "jobDefinition": "airflow"}
BY_NAME = {"jobQueue": "default", "filters": [{"name": "JOB_NAME", "values": ["one"]}]}


def client_of(aws: LocalEcs, **config: Any) -> Any:
    """Make a client that never tries again."""
    return aws.client("batch", config=Config(**{**ONCE, **config}))


def submit_with(library: str, aws: LocalEcs) -> None:
    """Submit a job with a client of one library or the other."""

    async def main() -> None:
        async with get_session().create_client(
            "batch",
            endpoint_url=aws.url,
            region_name=aws.region,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=AioConfig(**ONCE),
        ) as client:
            await client.submit_job(**JOB)

    if library == "boto3":
        client_of(aws).submit_job(**JOB)
    else:
        asyncio.run(main())


def refusal(call: Callable[..., Any], **params: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def on_the_wire(aws: LocalEcs, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    url = f"{aws.url}/v1/{operation.lower()}"
    request = urllib.request.Request(url, data=json.dumps(params).encode(), method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        content: dict[str, Any] = json.load(response)
    return content


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "throttle"}, ("TooManyRequestsException", 429)),
        ({"kind": "expired_token"}, ("ExpiredTokenException", 403)),
        (
            {"kind": "error", "code": "AccessDeniedException", "message": "not authorized", "status": 403},
            ("AccessDeniedException", 403),
        ),
        ({"kind": "error", "code": "ServerException", "status": 500}, ("ServerException", 500)),
        ({"kind": "status", "status": 503}, ("503", 503)),
    ],
)
def test_a_refusal_does_nothing(start: Start, fault: dict[str, Any], expected: tuple[str, int]) -> None:
    aws = start()
    client = client_of(aws)
    aws.faults.add(Fault.from_json({**fault, "count": 2}))
    assert refusal(client.submit_job, **JOB) == expected
    assert refusal(client.describe_job_queues) == expected
    assert client.submit_job(**JOB)["jobName"] == "one"
    assert len(aws.ledger) == 1
    name = expected[0] if not expected[0].isdecimal() else f"HTTP {expected[0]}"
    assert aws.statistics.operation("SubmitJob").errors == {name: 1}


def test_an_error_after_the_work_leaves_a_job_that_its_name_finds(start: Start) -> None:
    aws = start(script=[{"duration": None}])
    client = client_of(aws)
    aws.faults.add(Fault(kind="error_after", operation="SubmitJob", status=500, count=1))
    assert refusal(client.submit_job, **JOB) == ("ServerException", 500)
    (found,) = client.list_jobs(**BY_NAME)["jobSummaryList"]
    assert [e.id for e in aws.ledger.entries()] == [found["jobId"]]


@pytest.mark.parametrize(
    ("kind", "done"),
    [("reset_before", 0), ("reset_after", 1), ("close_before", 0), ("close_after", 1), ("truncate", 1)],
)
@pytest.mark.parametrize("library", ["boto3", "aiobotocore"])
def test_a_broken_connection_says_nothing_about_the_work(start: Start, kind: str, done: int, library: str) -> None:
    aws = start()
    aws.faults.add(Fault(kind=kind, operation="SubmitJob", count=1))
    with pytest.raises((botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)):
        submit_with(library, aws)
    assert len(aws.ledger) == done


@pytest.mark.parametrize(("kind", "done"), [("hang", 0), ("hang_after", 1)])
def test_a_hang_lasts_until_the_client_gives_up(start: Start, kind: str, done: int) -> None:
    aws = start()
    aws.faults.add(Fault(kind=kind, operation="SubmitJob"))
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        client_of(aws, read_timeout=0.3).submit_job(**JOB)
    assert len(aws.ledger) == done


def test_an_answer_can_be_garbage_or_empty(start: Start) -> None:
    aws = start()
    client = client_of(aws)
    aws.faults.add(Fault(kind="garbage", operation="SubmitJob", count=1))
    aws.faults.add(Fault(kind="empty", operation="SubmitJob", count=1))
    assert "jobId" not in client.submit_job(**JOB)
    assert len(aws.ledger) == 1
    assert "jobId" not in client.submit_job(**JOB)
    assert len(aws.ledger) == 1
    aws.faults.add(Fault(kind="empty", operation=("DescribeJobs", "ListJobs")))
    assert client.list_jobs(**BY_NAME)["jobSummaryList"] == []
    assert client.describe_jobs(jobs=[aws.ledger.entries()[0].id])["jobs"] == []


def test_describe_can_leave_out_what_exists(start: Start, submit: Submit) -> None:
    aws = start()
    client = client_of(aws)
    job = submit(client, "one")
    aws.faults.missing(count=1)
    assert client.describe_jobs(jobs=[job])["jobs"] == []
    assert len(client.describe_jobs(jobs=[job])["jobs"]) == 1


def test_a_hidden_job_runs_but_is_neither_described_nor_listed(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": None}])
    client = client_of(aws)
    aws.faults.hidden(60, contains='"one"')
    hidden, other = submit(client, "one"), submit(client, "two")
    assert [j["jobId"] for j in client.describe_jobs(jobs=[hidden, other])["jobs"]] == [other]
    assert client.list_jobs(**BY_NAME)["jobSummaryList"] == []
    assert aws.job(hidden)["status"] == "RUNNING"
    clock.advance(60)
    assert len(client.describe_jobs(jobs=[hidden, other])["jobs"]) == 2
    assert len(client.list_jobs(**BY_NAME)["jobSummaryList"]) == 1


def test_a_job_can_be_listed_late(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock)
    client = client_of(aws)
    aws.faults.unlisted(30, count=1)
    job = submit(client, "one")
    assert len(client.describe_jobs(jobs=[job])["jobs"]) == 1
    assert client.list_jobs(**BY_NAME)["jobSummaryList"] == []
    clock.advance(30)
    assert len(client.list_jobs(**BY_NAME)["jobSummaryList"]) == 1


def test_a_job_can_wait_for_capacity_and_say_so(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": 10}])
    client = client_of(aws)
    aws.faults.stuck(300, count=1)
    job = submit(client, "one")
    clock.advance(299)
    (shown,) = client.describe_jobs(jobs=[job])["jobs"]
    assert shown["status"] == "RUNNABLE"
    assert shown["statusReason"].startswith("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - ")
    assert client.list_jobs(**BY_NAME)["jobSummaryList"][0]["statusReason"] == shown["statusReason"]
    clock.advance(2)
    (shown,) = client.describe_jobs(jobs=[job])["jobs"]
    assert (shown["status"], "statusReason" in shown) == ("RUNNING", False)


def test_a_task_of_ecs_can_be_hidden_or_wait_likewise(start: Start, run: Any, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": None}])
    client = ecs.client()
    ecs.faults.stuck(300, count=1)
    ecs.faults.hidden(60, count=1)
    waits, hidden = run(client)["taskArn"], run(client)["taskArn"]
    assert (ecs.task(waits)["lastStatus"], ecs.task(hidden)["lastStatus"]) == ("PROVISIONING", "RUNNING")
    reply = client.describe_tasks(tasks=[waits, hidden])
    assert [f["arn"] for f in reply["failures"]] == [hidden]
    assert client.list_tasks()["taskArns"] == [waits]
    clock.advance(300)
    reply = client.describe_tasks(tasks=[waits, hidden])
    assert [t["lastStatus"] for t in reply["tasks"]] == ["RUNNING", "RUNNING"]


def test_a_status_can_be_one_that_nobody_knows(start: Start, submit: Submit) -> None:
    aws = start()
    client = client_of(aws)
    job = submit(client, "one")
    aws.faults.add(Fault(kind="unknown_status", operation=("DescribeJobs", "ListJobs")))
    assert client.describe_jobs(jobs=[job])["jobs"][0]["status"] == "UNHEARD_OF"
    assert client.list_jobs(**BY_NAME)["jobSummaryList"][0]["status"] == "UNHEARD_OF"


def test_one_record_can_be_such_that_it_cannot_be_read(start: Start, submit: Submit) -> None:
    aws = start()
    client = client_of(aws)
    jobs = [submit(client, name) for name in ("one", "two")]
    aws.faults.add(Fault(kind="odd_record", operation="DescribeJobs", count=1))
    odd, right = on_the_wire(aws, "DescribeJobs", {"jobs": jobs})["jobs"]
    assert (odd["jobId"], odd["status"], odd["container"]) == (jobs[0], 7, "none")
    assert (right["jobId"], right["status"]) == (jobs[1], "SUCCEEDED")
    assert on_the_wire(aws, "DescribeJobs", {"jobs": jobs})["jobs"][0]["status"] == "SUCCEEDED"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - EVENT_KINDS - {"failures", "interrupted"}))  # have their own
def test_every_kind_can_be_given_for_batch_and_does_something(start: Start, submit: Submit, kind: str) -> None:
    aws = start(script=[{"duration": None}])
    client = client_of(aws)
    job = submit(client, "before")
    before = client.describe_jobs(jobs=[job])["jobs"]
    number = aws.faults.add(Fault.from_json({"kind": kind, "operation": "*Job*", "status": 500, "seconds": 0.3}))
    begun = time.monotonic()
    try:
        new = client.submit_job(**JOB)["jobId"]
        same = client.describe_jobs(jobs=[job])["jobs"] == before
        same = same and len(client.describe_jobs(jobs=[new])["jobs"]) == 1
        same = same and aws.job(new)["status"] == "RUNNING" and bool(client.list_jobs(**BY_NAME)["jobSummaryList"])
    except (botocore.exceptions.BotoCoreError, ClientError, KeyError, AttributeError, TypeError, ValueError):
        same = False
    assert not same or time.monotonic() - begun >= 0.3
    assert aws.faults.struck(number) > 0


def test_a_request_that_no_client_library_would_send_gets_an_answer(start: Start) -> None:
    aws = start()
    for body in (b"{", b"[]", b'{"jobName": "a", "jobQueue": "default", "jobDefinition": "airflow", "tags": 1}'):
        request = urllib.request.Request(f"{aws.url}/v1/submitjob", data=body)  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310
        with caught.value:
            assert caught.value.code == 400
            assert caught.value.headers["x-amzn-ErrorType"] == "SerializationException"


@pytest.mark.parametrize("cancels", [True, False])
def test_a_time_limit_of_the_queue_cancels_what_stays_runnable(
    start: Start, submit: Submit, clock: Any, cancels: bool
) -> None:
    aws = start(clock=clock, behaviour={"time_limit_cancels": cancels})
    aws.faults.known("time_limit", count=1)
    client = client_of(aws)
    job = submit(client, "one", retryStrategy={"attempts": 3})
    clock.advance(599)
    waiting = client.describe_jobs(jobs=[job])["jobs"][0]
    assert (waiting["status"], waiting["isCancelled"]) == ("RUNNABLE", False)
    assert waiting["statusReason"].startswith("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - ")
    clock.advance(1)
    ended = client.describe_jobs(jobs=[job])["jobs"][0]
    assert (ended["status"], ended["isCancelled"], ended["attempts"]) == ("FAILED", cancels, [])
    assert ended["statusReason"] == (
        "Canceled by JobStateTimeLimit action due to reason: CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
    )


# --- rate limits, the control path ---------------------------------------------------------------------------


def test_submitting_reading_and_the_rest_have_limits_of_their_own_that_are_off_by_default(
    start: Start, submit: Submit
) -> None:
    client = client_of(start())
    for _ in range(60):
        client.list_jobs(**BY_NAME)
    one = Rate(0.001, 1)
    aws = start(limits={"batch": one, "batch_read": Rate(0.001, 2), "batch_modify": one})
    client = client_of(aws)
    job = submit(client, "one")
    assert refusal(client.submit_job, **JOB) == ("TooManyRequestsException", 429)
    client.describe_jobs(jobs=[job])
    client.list_jobs(**BY_NAME)
    assert refusal(client.describe_job_queues) == ("TooManyRequestsException", 429)
    client.terminate_job(jobId=job, reason="enough")
    assert refusal(client.terminate_job, jobId=job, reason="enough") == ("TooManyRequestsException", 429)
    aws.client().list_tasks()


@pytest.mark.parametrize("operation", ["submit_job", "list_jobs"])
def test_a_limit_lets_its_rate_pass(start: Start, operation: str) -> None:
    aws = start(limits={"batch": Rate(50, 50), "batch_read": Rate(50, 50)})
    client = client_of(aws)
    params = JOB if operation == "submit_job" else BY_NAME

    def is_answered() -> bool:
        try:
            getattr(client, operation)(**params)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "TooManyRequestsException":
                raise
            return False
        return True

    begun = time.monotonic()
    done = sum(is_answered() for _ in range(120))
    assert 50 <= done <= 50 + 50 * (time.monotonic() - begun) + 1


def control(aws: LocalEcs, method: str, path: str, data: Any = None) -> Any:
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(f"{aws.url}/_local/{path}", data=body, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return json.load(response)


def test_the_control_path_knows_jobs(start: Start, submit: Submit) -> None:
    aws = start(script=[{"duration": None}])
    client = client_of(aws)
    job = submit(client, "one", "x")
    client.describe_jobs(jobs=[job, "other"])
    assert control(aws, "GET", f"jobs/{job}")["status"] == "RUNNING"
    (entry,) = control(aws, "GET", "ledger?started_by=one")["entries"]
    assert (entry["service"], entry["id"], entry["command"]) == ("batch", job, ["x"])
    assert control(aws, "GET", "statistics")["operations"]["DescribeJobs"]["items"] == 2
    assert control(aws, "POST", f"jobs/{job}/kill", {"cause": "spot"}) == {"killed": True}
    assert control(aws, "GET", f"jobs/{job}")["statusReason"].startswith("Host EC2 (instance i-")


def test_a_reset_leaves_queue_and_definition_and_nothing_else(start: Start, submit: Submit) -> None:
    aws = start(job_queues=["mine"], script=[{"duration": None}])
    client = client_of(aws)
    job = submit(client, "one", retryStrategy={"attempts": 3})
    aws.register_job("another")
    aws.reset()
    assert client.describe_jobs(jobs=[job])["jobs"] == []
    assert client.list_jobs(**BY_NAME)["jobSummaryList"] == []
    assert (len(aws.ledger), aws.running, aws.waiting) == (0, 0, 0)
    assert {q["jobQueueName"] for q in client.describe_job_queues()["jobQueues"]} == {"default", "mine"}
    names = [d["jobDefinitionName"] for d in client.describe_job_definitions()["jobDefinitions"]]
    assert names == ["airflow"]
    assert submit(client, "one", jobQueue="mine") != job


def test_servers_in_one_process_share_no_jobs(start: Start, submit: Submit) -> None:
    one, two = start(), start()
    job = submit(client_of(one), "one")
    assert client_of(two).describe_jobs(jobs=[job])["jobs"] == []
    assert (len(one.ledger), len(two.ledger)) == (1, 0)
    one.create_job_queue("mine")
    assert len(client_of(two).describe_job_queues()["jobQueues"]) == 1
