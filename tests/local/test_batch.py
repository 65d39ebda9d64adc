"""Jobs of the local Batch and their lives, through boto3, in a time that the tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs

Start = Callable[..., LocalEcs]
Submit = Callable[..., str]
FOREVER = [{"duration": None}]


def look(aws: LocalEcs, job: str) -> tuple[str, str | None, int | None]:
    record = aws.job(job)
    return record["status"], record.get("statusReason"), record["container"].get("exitCode")


def describe(client: Any, *jobs: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.describe_jobs(jobs=list(jobs))["jobs"]
    return found


def test_queue_definition_and_environment_are_there_from_the_start(start: Start) -> None:
    client = start(job_queues=["other"]).client("batch")
    queues = {q["jobQueueName"]: q for q in client.describe_job_queues()["jobQueues"]}
    assert {(name, q["state"], q["status"]) for name, q in queues.items()} == {
        ("default", "ENABLED", "VALID"),
        ("other", "ENABLED", "VALID"),
    }
    (environment,) = client.describe_compute_environments()["computeEnvironments"]
    assert (environment["computeEnvironmentName"], environment["status"]) == ("default", "VALID")
    (definition,) = client.describe_job_definitions(jobDefinitionName="airflow")["jobDefinitions"]
    assert (definition["revision"], definition["status"]) == (1, "ACTIVE")


def test_a_job_goes_through_its_states_in_time(start: Start, submit: Submit, clock: Any) -> None:
    rule = {"provisioning": 10, "pending": 20, "duration": 60, "exit_code": 0, "deprovisioning": 5}
    aws = start(clock=clock, job_delay=8, script=[rule])
    job = submit(aws.client("batch"), "one")
    seen = []
    for _ in range(106):
        seen.append(look(aws, job))
        clock.advance(1)
    changes = [(n, s) for n, s in enumerate(seen) if n == 0 or s != seen[n - 1]]
    assert changes == [
        (0, ("SUBMITTED", None, None)),
        (4, ("PENDING", None, None)),
        (8, ("RUNNABLE", None, None)),
        (18, ("STARTING", None, None)),
        (38, ("RUNNING", None, None)),
        (103, ("SUCCEEDED", "Essential container in task exited", 0)),
    ]
    record = aws.job(job)
    at = round((clock.now - 106) * 1000)
    assert [record[k] - at for k in ("createdAt", "startedAt", "stoppedAt")] == [0, 38_000, 103_000]
    (attempt,) = record["attempts"]
    assert (attempt["startedAt"] - at, attempt["stoppedAt"] - at) == (38_000, 103_000)


def test_what_aws_tells_of_a_job_is_told(start: Start, submit: Submit) -> None:
    aws = start(script=[{"duration": 0, "exit_code": 7}])
    client = aws.client("batch")
    job = submit(client, "one", "sh", "-c", "x", tags={"team": "a"})
    (shown,) = describe(client, job)
    assert (shown["jobId"], shown["jobName"], shown["status"]) == (job, "one", "FAILED")
    assert shown["jobQueue"].endswith(":job-queue/default")
    assert shown["jobDefinition"].endswith(":job-definition/airflow:1")
    assert shown["tags"] == {"team": "a"}
    container = shown["container"]
    assert (container["command"], container["exitCode"]) == (["sh", "-c", "x"], 7)
    task = container["taskArn"].rsplit("/", 1)[-1]
    assert container["logStreamName"] == f"airflow/default/{task}"
    assert shown["attempts"][0]["container"]["taskArn"] == container["taskArn"]
    assert shown["attempts"][0]["statusReason"] == "Essential container in task exited"
    assert describe(client, shown["jobArn"]) == [shown]


def test_the_plain_record_leaves_out_what_clients_do_not_decide_by(start: Start, submit: Submit) -> None:
    aws = start(realistic=False)
    job = submit(aws.client("batch"), "one", "x")
    assert "platformCapabilities" not in aws.job(job)
    assert aws.job(job)["container"]["command"] == ["x"]


def test_the_same_request_twice_makes_two_jobs(start: Start, submit: Submit) -> None:
    aws = start()
    client = aws.client("batch")
    assert submit(client, "one", "x") != submit(client, "one", "x")
    assert [(e.service, e.started_by, e.attempt) for e in aws.ledger.entries()] == [
        ("batch", "one", 1),
        ("batch", "one", 2),
    ]


def test_unknown_jobs_and_those_of_another_region_are_just_absent(start: Start, submit: Submit) -> None:
    aws = start()
    client = aws.client("batch")
    job = submit(client, "one")
    assert [j["jobId"] for j in describe(client, "a" * 32, job, job)] == [job]
    assert describe(aws.client("batch", region_name="eu-west-1"), job) == []


def test_a_terminated_job_has_failed_with_the_reason_given(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": None, "stop_delay": 5}])
    client = aws.client("batch")
    job = submit(client, "one", retryStrategy={"attempts": 3})
    client.terminate_job(jobId=job, reason="enough")
    clock.advance(1)
    client.terminate_job(jobId=job, reason="again")
    assert look(aws, job) == ("RUNNING", None, None)
    clock.advance(4)
    assert look(aws, job) == ("FAILED", "enough", 143)
    assert (aws.job(job)["isTerminated"], aws.job(job)["isCancelled"]) == (True, False)
    assert len(aws.ledger) == 1


def test_what_changes_between_two_looks_at_one_moment_is_seen(start: Start, submit: Submit, clock: Any) -> None:
    client = start(clock=clock, script=FOREVER).client("batch")
    job = submit(client, "one", retryStrategy={"attempts": 2})
    (before,) = describe(client, job)
    client.terminate_job(jobId=job, reason="enough")
    (after,) = describe(client, job)
    assert [(j["status"], j["isTerminated"]) for j in (before, after)] == [("RUNNING", False), ("FAILED", True)]


@pytest.mark.parametrize("call", ["terminate_job", "cancel_job"])
def test_a_job_that_waits_can_be_ended_and_never_runs(start: Start, submit: Submit, clock: Any, call: str) -> None:
    aws = start(clock=clock, max_running=1, script=FOREVER)
    client = aws.client("batch")
    submit(client, "one")
    job = submit(client, "two")
    assert look(aws, job) == ("RUNNABLE", None, None)
    getattr(client, call)(jobId=job, reason="enough")
    assert look(aws, job) == ("FAILED", "enough", None)
    assert aws.job(job)["attempts"] == []
    assert aws.job(job)["isCancelled"] == (call == "cancel_job")
    assert (aws.running, aws.waiting) == (1, 0)


def test_a_cancellation_spares_what_has_begun(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"pending": 10, "duration": 10}])
    client = aws.client("batch")
    job = submit(client, "one")
    client.cancel_job(jobId=job, reason="enough")
    clock.advance(11)
    client.cancel_job(jobId=job, reason="enough")
    assert look(aws, job)[0] == "RUNNING"
    clock.advance(10)
    assert look(aws, job)[0] == "SUCCEEDED"
    client.terminate_job(jobId=job, reason="late")
    assert look(aws, job) == ("SUCCEEDED", "Essential container in task exited", 0)


def test_tasks_and_jobs_share_host_and_ledger(start: Start, submit: Submit, run: Any) -> None:
    aws = start(max_running=1, script=FOREVER)
    task = run(aws.client(), "a", startedBy="mark")["taskArn"]
    job = submit(aws.client("batch"), "one", "b")
    assert (aws.running, aws.waiting) == (1, 1)
    assert [(e.service, e.id, e.started_by, e.command) for e in aws.ledger.entries()] == [
        ("ecs", task, "mark", ("a",)),
        ("batch", job, "one", ("b",)),
    ]
    assert aws.client().list_tasks()["taskArns"] == [task]
    aws.client().stop_task(task=task)
    assert look(aws, job)[0] == "RUNNING"


def test_the_mark_can_be_a_part_of_the_jobs_name(start: Start, submit: Submit) -> None:
    aws = start(job_mark=r"(.+)-\d+", script=[{"started_by": "^af$", "attempt": 2, "exit_code": 7}])
    client = aws.client("batch")
    for name in ("af-1", "af-2", "other"):
        submit(client, name)
    entries = [(e.started_by, e.attempt, e.exit_code) for e in aws.ledger.entries()]
    assert entries == [("af", 1, 0), ("af", 2, 7), ("other", 1, 0)]


# --- attempts ------------------------------------------------------------------------------------------------


def test_a_failing_job_is_tried_again_as_often_as_its_strategy_says(
    start: Start, submit: Submit, clock: Any
) -> None:
    script = [{"attempt": 3, "exit_code": 0, "duration": 10}, {"exit_code": 9, "duration": 10, "provisioning": 5}]
    aws = start(clock=clock, script=script)
    job = submit(aws.client("batch"), "one", retryStrategy={"attempts": 5})
    seen = []
    for _ in range(41):
        seen.append((aws.job(job)["status"], len(aws.job(job)["attempts"])))
        clock.advance(1)
    assert [(n, s) for n, s in enumerate(seen) if n == 0 or s != seen[n - 1]] == [
        (0, ("RUNNABLE", 0)),
        (5, ("RUNNING", 0)),
        (15, ("RUNNABLE", 1)),
        (20, ("RUNNING", 1)),
        (30, ("RUNNING", 2)),
        (40, ("SUCCEEDED", 3)),
    ]
    record = aws.job(job)
    assert [a["container"]["exitCode"] for a in record["attempts"]] == [9, 9, 0]
    assert len({a["container"]["taskArn"] for a in record["attempts"]}) == 3
    assert [(e.id, e.attempt, e.exit_code) for e in aws.ledger.entries()] == [
        (job, 1, 9),
        (job, 2, 9),
        (job, 3, 0),
    ]


def test_the_requests_retry_strategy_and_timeout_replace_the_definitions(start: Start, submit: Submit) -> None:
    aws = start(script=[{"exit_code": 1}])
    aws.register_job("again", retryStrategy={"attempts": 3}, timeout={"attemptDurationSeconds": 100})
    client = aws.client("batch")
    of_definition = submit(client, "one", jobDefinition="again")
    of_request = submit(
        client,
        "two",
        jobDefinition="again",
        retryStrategy={"attempts": 2},
        timeout={"attemptDurationSeconds": 60},
    )
    one, two = aws.job(of_definition), aws.job(of_request)
    assert [len(j["attempts"]) for j in (one, two)] == [3, 2]
    assert [j["timeout"]["attemptDurationSeconds"] for j in (one, two)] == [100, 60]


@pytest.mark.parametrize(
    ("rule", "conditions", "attempts"),
    [
        ({"exit_code": 1}, [{"onExitCode": "1", "action": "EXIT"}], 1),
        ({"exit_code": 12}, [{"onExitCode": "1*", "action": "exit"}], 1),
        ({"exit_code": 2}, [{"onExitCode": "1*", "action": "EXIT"}], 3),
        ({"exit_code": 2}, [{"onExitCode": "2", "onReason": "Out*", "action": "EXIT"}], 3),
        (
            {"exit_code": 137, "container_reason": "OutOfMemoryError: killed"},
            [{"onReason": "OutOf*", "action": "RETRY"}, {"onExitCode": "*", "action": "EXIT"}],
            3,
        ),
        (
            {"exit_code": 2},
            [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}],
            1,
        ),
        ({"exit_code": 0}, [{"onReason": "*", "action": "RETRY"}], 1),
    ],
)
def test_conditions_decide_about_another_attempt(
    start: Start, submit: Submit, rule: dict[str, Any], conditions: list[dict[str, str]], attempts: int
) -> None:
    aws = start(script=[rule])
    job = submit(aws.client("batch"), "one", retryStrategy={"attempts": 3, "evaluateOnExit": conditions})
    assert len(aws.job(job)["attempts"]) == attempts


def test_another_attempt_waits_for_a_place_like_everybody(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, max_running=1, script=[{"duration": 10, "exit_code": 1}])
    client = aws.client("batch")
    one = submit(client, "one", retryStrategy={"attempts": 2})
    two = submit(client, "two")
    clock.advance(11)
    assert [look(aws, j)[0] for j in (one, two)] == ["RUNNABLE", "RUNNING"]
    clock.advance(10)
    assert [look(aws, j)[0] for j in (one, two)] == ["RUNNING", "FAILED"]
    clock.advance(10)
    assert (look(aws, one)[0], aws.running, aws.waiting) == ("FAILED", 0, 0)


def test_a_job_that_is_terminated_between_two_attempts_stays_so(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": 10, "exit_code": 1, "deprovisioning": 10}])
    client = aws.client("batch")
    job = submit(client, "one", retryStrategy={"attempts": 2})
    clock.advance(15)
    assert look(aws, job)[0] == "RUNNING"
    client.terminate_job(jobId=job, reason="enough")
    clock.advance(100)
    assert look(aws, job) == ("FAILED", "enough", None)
    assert [e.started_at is not None for e in aws.ledger.entries()] == [True, False]


def test_an_attempt_that_takes_too_long_is_ended_and_not_tried_again(
    start: Start, submit: Submit, clock: Any
) -> None:
    aws = start(clock=clock, script=[{"command": "quick", "duration": 59}, {"pending": 30, "duration": None}])
    client = aws.client("batch")
    options = {"timeout": {"attemptDurationSeconds": 60}, "retryStrategy": {"attempts": 3}}
    slow, quick = submit(client, "slow", **options), submit(client, "quick", "quick", **options)
    clock.advance(89)
    assert (look(aws, slow)[0], look(aws, quick)[0]) == ("RUNNING", "SUCCEEDED")
    clock.advance(1)
    assert look(aws, slow) == ("FAILED", "Job attempt duration exceeded timeout", 143)
    assert len(aws.ledger) == 2


# --- what goes wrong with containers ---------------------------------------------------------------------------


def test_a_container_out_of_memory_says_so(start: Start, submit: Submit) -> None:
    reason = "OutOfMemoryError: Container killed due to memory usage"
    aws = start(script=[{"exit_code": 137, "container_reason": reason}])
    job = submit(aws.client("batch"), "one")
    assert look(aws, job) == ("FAILED", "Essential container in task exited", 137)
    assert aws.job(job)["container"]["reason"] == reason
    assert aws.job(job)["attempts"][0]["container"]["reason"] == reason


def test_an_image_that_cannot_be_pulled_never_starts(start: Start, submit: Submit) -> None:
    reason = "CannotPullContainerError: pull image manifest has been retried 1 time(s)"
    aws = start(script=[{"starts": False, "container_reason": reason}])
    job = submit(aws.client("batch"), "one")
    assert look(aws, job) == ("FAILED", "Task failed to start", None)
    record = aws.job(job)
    assert (record["container"]["reason"], "startedAt" in record) == (reason, False)
    assert "startedAt" not in record["attempts"][0]


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("host", "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated."),
        ("spot", "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated."),
        ("fargate_spot", "Your Spot Task was interrupted."),
    ],
)
def test_a_lost_host_leaves_no_exit_code(
    start: Start, submit: Submit, clock: Any, cause: str, reason: str
) -> None:
    aws = start(clock=clock, script=FOREVER)
    job = submit(aws.client("batch"), "one")
    clock.advance(5)
    assert aws.kill(job, cause=cause)
    assert look(aws, job) == ("FAILED", reason, None)
    assert "startedAt" in aws.job(job)
    assert not aws.kill(job)


def test_a_job_whose_host_was_lost_is_tried_again_if_its_strategy_says_so(
    start: Start, submit: Submit, clock: Any
) -> None:
    aws = start(clock=clock, script=[{"attempt": 1, "duration": None}, {"exit_code": 0}])
    conditions = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    job = submit(aws.client("batch"), "one", retryStrategy={"attempts": 2, "evaluateOnExit": conditions})
    clock.advance(5)
    assert aws.kill(job, cause="spot", notice=120)
    clock.advance(119)
    assert look(aws, job) == ("RUNNING", None, None)
    clock.advance(1)
    assert look(aws, job)[0] == "SUCCEEDED"
    assert "exitCode" not in aws.job(job)["attempts"][0]["container"]


def test_a_lost_host_matches_no_exit_code(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=FOREVER)
    conditions = [{"onExitCode": "*", "action": "EXIT"}]
    job = submit(aws.client("batch"), "one", retryStrategy={"attempts": 2, "evaluateOnExit": conditions})
    aws.kill(job)
    assert (look(aws, job)[0], len(aws.job(job)["attempts"])) == ("RUNNING", 1)


def test_a_job_that_is_terminated_under_notice_is_not_tried_again(
    start: Start, submit: Submit, clock: Any
) -> None:
    aws = start(clock=clock, script=FOREVER)
    client = aws.client("batch")
    job = submit(client, "one", retryStrategy={"attempts": 2})
    aws.kill(job, cause="spot", notice=120)
    client.terminate_job(jobId=job, reason="enough")
    clock.advance(121)
    assert (look(aws, job)[0], len(aws.ledger)) == ("FAILED", 1)


@pytest.mark.parametrize("stuck", ["RUNNABLE", "STARTING"])
def test_a_stuck_job_stays_until_it_is_terminated(start: Start, submit: Submit, clock: Any, stuck: str) -> None:
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    aws = start(clock=clock, script=[{"stuck": stuck, "waiting_reason": reason}])
    client = aws.client("batch")
    job = submit(client, "one")
    clock.advance(86400)
    assert look(aws, job) == (stuck, reason if stuck == "RUNNABLE" else None, None)
    client.terminate_job(jobId=job, reason="enough")
    assert look(aws, job) == ("FAILED", "enough", None)


def test_a_full_queue_lets_jobs_wait_and_others_pass(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(
        clock=clock, capacity={"small": 1, "none": 0}, job_queues=["small", "none"], script=[{"duration": 10}]
    )
    client = aws.client("batch")
    jobs = [submit(client, f"j{n}", jobQueue=q) for n, q in enumerate(("small", "small", "none", "default"))]
    assert [look(aws, j)[0] for j in jobs] == ["RUNNING", "RUNNABLE", "RUNNABLE", "RUNNING"]
    clock.advance(11)
    assert [look(aws, j)[0] for j in jobs] == ["SUCCEEDED", "RUNNING", "RUNNABLE", "SUCCEEDED"]
    reason = look(aws, jobs[2])[1] or ""
    assert reason.startswith("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE")
    assert aws.waiting == 1


def test_a_finished_job_is_remembered_for_a_week(start: Start, submit: Submit, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": 10, "exit_code": 1}])
    client = aws.client("batch")
    job = submit(client, "one", retryStrategy={"attempts": 2})
    clock.advance(20 + 7 * 86400 - 1)
    assert [len(j["attempts"]) for j in describe(client, job)] == [2]
    clock.advance(2)
    assert describe(client, job) == []
    listing = client.list_jobs(jobQueue="default", filters=[{"name": "JOB_NAME", "values": ["one"]}])
    assert listing["jobSummaryList"] == []
    assert len(aws.ledger) == 2


def test_ten_thousand_jobs_cost_little(start: Start, clock: Any) -> None:
    aws = start(clock=clock, script=[{"duration": 3600}])
    params = {"jobQueue": "default", "jobDefinition": "airflow", "containerOverrides": {"command": ["x"]}}
    for n in range(10_000):
        aws._batch.call("SubmitJob", {"jobName": f"job-{n}", **params}, aws.place())
    assert aws.running == 10_000
    clock.advance(3601)
    assert aws.running == 0
    listing = {"jobQueue": "default", "filters": [{"name": "JOB_NAME", "values": ["job-77"]}]}
    assert '"SUCCEEDED"' in aws._batch.call("ListJobs", listing, aws.place())
