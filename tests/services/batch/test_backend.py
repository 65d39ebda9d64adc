from __future__ import annotations

import copy
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services import batch
from ecs_async_executor.services.requests import stop_reason
from tests.services.batch.samples import JOB, LAUNCH, OTHER, TI, job, settings, spec, use
from tests.services.fakes import FakeClient, FakeFactory, refusal


def test_launch_submits_the_request_under_the_attempts_name_and_leaves_the_spec_alone() -> None:
    client = FakeClient(submit_job={"jobId": JOB, "jobName": "n"})
    made = spec()
    before = copy.deepcopy(made)
    seen = use(client, lambda backend: backend.launch(made, f"{LAUNCH}-2"))
    assert client.calls == [("submit_job", {**made.request, "jobName": f"airflow-{TI}-5b2f7f2e-2"})]
    assert made == before
    assert seen == Observation(Handle("q", JOB), Seen.PENDING, status="SUBMITTED")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("TooManyRequestsException", "Too Many Requests", "SubmitJob", 429), Kind.THROTTLED),
        (refusal("ClientException", "JobQueue q not found.", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "Job queue q does not exist.", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "JobQueue q is not in ENABLED state", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "JobDefinition d:1 is invalid or INACTIVE", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "Job Definition d does not exist", "SubmitJob"), Kind.REFUSED),
        (
            refusal("AccessDeniedException", "not authorized to perform batch:SubmitJob", "SubmitJob", 403),
            Kind.REFUSED,
        ),
        (refusal("ClientException", "Timeout must be at least 60 seconds", "SubmitJob"), Kind.INVALID),
        (refusal("ClientException", "Too many container overrides", "SubmitJob"), Kind.INVALID),
        (refusal("ServerException", "internal", "SubmitJob", 500), Kind.AMBIGUOUS),
        (refusal("ExpiredTokenException", "expired", "SubmitJob", 403), Kind.CREDENTIALS),
        (ReadTimeoutError(endpoint_url="x"), Kind.AMBIGUOUS),
        ({}, Kind.AMBIGUOUS),
        ({"jobId": None}, Kind.AMBIGUOUS),
    ],
)
def test_a_launch_that_does_not_succeed_says_what_that_means(answer: Any, kind: Kind) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(submit_job=answer), lambda backend: backend.launch(spec(), "l-1"))
    assert caught.value.kind is kind
    assert caught.value.__cause__ is None


def test_refused_credentials_are_looked_up_again() -> None:
    client = FakeClient(submit_job=refusal("ExpiredTokenException", "expired", "SubmitJob", 403))
    factory = FakeFactory(client, "batch")
    with pytest.raises(BackendError):
        use(client, lambda backend: backend.launch(spec(), "l-1"), factory)
    assert factory.forgotten == 1
    assert factory.closed


def test_describe_reports_what_is_there_and_what_is_not() -> None:
    client = FakeClient(describe_jobs={"jobs": [job("RUNNING")]})
    found = use(client, lambda backend: backend.describe("q", [OTHER, JOB]))
    assert client.calls == [("describe_jobs", {"jobs": [OTHER, JOB]})]
    assert {one.handle.id: one.seen for one in found} == {JOB: Seen.RUNNING, OTHER: Seen.MISSING}


def test_a_record_that_cannot_be_read_spoils_no_other_is_not_missing_and_is_logged_once() -> None:
    third = OTHER.replace("1", "2")
    client = FakeClient(describe_jobs={"jobs": [{"jobId": OTHER, "status": 7}, job("RUNNING")]})

    async def twice(backend: batch.BatchBackend) -> Any:
        await backend.describe("q", [JOB, OTHER, third])
        return await backend.describe("q", [JOB, OTHER, third])

    with capture_logs() as logs:
        found = use(client, twice)
    assert {one.handle.id: one.seen for one in found} == {JOB: Seen.RUNNING, third: Seen.MISSING}
    assert [(entry["event"], entry["job_id"]) for entry in logs] == [("batch_executor.describe.malformed", OTHER)]


@pytest.mark.parametrize("record", [None, "job", {"status": "RUNNING"}, {"jobId": 7, "status": "RUNNING"}])
def test_nobody_is_missing_because_of_a_record_that_says_not_whose_it_is(record: Any) -> None:
    client = FakeClient(describe_jobs={"jobs": [record, job("RUNNING")]})
    with capture_logs():
        found = use(client, lambda backend: backend.describe("q", [JOB, OTHER]))
    assert [one.handle.id for one in found] == [JOB]


@pytest.mark.parametrize(
    ("method", "work"),
    [
        ("describe_jobs", lambda backend: backend.describe("q", [JOB])),
        ("list_jobs", lambda backend: backend.search("q", TI)),
        ("describe_jobs", lambda backend: backend.check()),
    ],
)
def test_a_reply_that_is_no_reply_is_not_taken_for_an_empty_one(method: str, work: Any) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(**{method: {"ResponseMetadata": {}}}), work)
    assert caught.value.kind is Kind.AMBIGUOUS


@pytest.mark.parametrize(
    ("asked", "filtered"),
    [(f"nightly-{TI}", f"nightly-{TI}-*"), (TI, f"airflow-{TI}-*")],
)
def test_find_lists_by_the_beginning_of_the_name_through_all_pages(asked: str, filtered: str) -> None:
    def answer(**parameters: Any) -> Any:
        if "nextToken" in parameters:
            return {"jobSummaryList": [{"jobId": OTHER}]}
        return {"jobSummaryList": [{"jobId": JOB}], "nextToken": "more"}

    client = FakeClient(list_jobs=answer)
    found = use(client, lambda backend: backend.search("gpu", asked))
    assert found == [Handle("gpu", JOB), Handle("gpu", OTHER)]
    first, second = client.asked("list_jobs")
    assert first == {"jobQueue": "gpu", "filters": [{"name": "JOB_NAME", "values": [filtered]}]}
    assert second == {**first, "nextToken": "more"}


@pytest.mark.parametrize("record", [None, "job", {"jobName": "x"}, {"jobId": 7}])
def test_a_search_whose_answer_has_a_job_without_its_identifier_says_so(record: Any) -> None:
    client = FakeClient(list_jobs={"jobSummaryList": [{"jobId": JOB}, record]})
    with pytest.raises(BackendError, match="cannot be read") as caught:
        use(client, lambda backend: backend.search("q", TI))
    assert caught.value.kind is Kind.REFUSED


def test_stop_terminates_and_keeps_the_reason_short() -> None:
    client = FakeClient(terminate_job={})
    use(client, lambda backend: backend.stop(Handle("q", JOB), "why" * 200))
    [(_, parameters)] = client.calls
    assert parameters == {"jobId": JOB, "reason": stop_reason("why" * 200)}
    assert len(parameters["reason"]) == 255


@pytest.mark.parametrize("words", [f"Job {JOB} not found", "The job doesn't exist", "Job does not exist: x"])
def test_stopping_what_does_not_exist_is_not_found(words: str) -> None:
    client = FakeClient(terminate_job=refusal("ClientException", words, "TerminateJob"))
    with pytest.raises(BackendError) as caught:
        use(client, lambda backend: backend.stop(Handle("q", JOB), "why"))
    assert caught.value.kind is Kind.NOT_FOUND


def test_the_check_describes_a_job_that_cannot_exist() -> None:
    client = FakeClient(describe_jobs={"jobs": []})
    use(client, lambda backend: backend.check())
    assert client.calls == [("describe_jobs", {"jobs": ["a" * 32]})]


def test_a_failed_check_says_why() -> None:
    client = FakeClient(describe_jobs=refusal("AccessDeniedException", "no", "DescribeJobs", 403))
    with pytest.raises(BackendError, match="AccessDeniedException: no"):
        use(client, lambda backend: backend.check())


def test_jobs_are_looked_for_in_the_configured_queue() -> None:
    session: Any = FakeFactory(FakeClient(), "batch")
    backend = batch.BatchBackend(session, settings())
    assert backend.scope_of(None) == backend.scope_of(JOB) == "q"


def test_one_scheduler_submits_no_more_than_batch_takes_and_leaves_some_to_others() -> None:
    from ecs_async_executor.settings import BatchTuning

    assert batch.SERVICE.rate_of(spec().bucket) <= BatchTuning().launch_rate_max < 50
    assert not batch.SERVICE.shares_changes
    assert not batch.SERVICE.repeatable


def test_the_untried_operations_are_told_with_the_reason() -> None:
    clients: Any = FakeFactory(FakeClient(), "batch")
    assert f"Not tried: {batch.BatchBackend(clients, settings()).untried}." == (
        "Not tried: SubmitJob, because it would start a job, and TerminateJob, because it needs one. check "
        "--launch starts one, and shows whether Batch accepts the job definition, and whether the credentials "
        "permit SubmitJob."
    )
