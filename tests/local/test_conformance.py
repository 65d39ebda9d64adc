"""The checks of beliefs against the local ECS and Batch, and against ones that do the wrong thing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from ecs_async_executor.local import Instance, LocalEcs
from ecs_async_executor.local.conformance import CHECKS, Check, Known, Report, Result, Target, Verdict, run
from ecs_async_executor.local.conformance import __main__ as program
from ecs_async_executor.local.conformance.bench import Bench
from ecs_async_executor.local.conformance.run import chosen, estimate, private
from ecs_async_executor.local.ecs_tokens import Tokens
from ecs_async_executor.local.errors import AwsError

NAMES = [check.name for check in CHECKS]
Lie = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalEcs]:
    with LocalEcs(
        runner="subprocess",
        behaviour="aws",
        start_delay=0.3,
        visible_after=0.1,
        instances={"instances": [Instance(), Instance(refuses="ATTRIBUTE")]},
    ) as ecs:
        yield ecs


def target_of(ecs: LocalEcs) -> Target:
    return Target(
        endpoint=ecs.url,
        region=ecs.region,
        ec2_cluster="instances",
        job_queue="default",
        job_definition="airflow",
        interval=0.05,
        work=0,
        patience=10.0,
    )


def bench_of(ecs: LocalEcs, **target: Any) -> Bench:
    once = Config(retries={"mode": "standard", "total_max_attempts": 1})
    ecs_client, batch_client = (ecs.client(service, config=once) for service in ("ecs", "batch"))
    return Bench(replace(target_of(ecs), **target), ecs_client, batch_client)


def verdicts(report: Report) -> dict[str, str]:
    return {result.name: f"{result.verdict.value}: {result.answer}" for result in report.results}


# --- all of them ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(server: LocalEcs) -> Report:
    return run(bench_of(server))


@pytest.mark.parametrize("name", NAMES)
def test_a_belief_holds_on_the_local_services(report: Report, name: str) -> None:
    (result,) = (r for r in report.results if r.name == name)
    assert result.verdict is Verdict.HOLDS, result.answer


def test_nothing_is_left_and_nothing_runs(server: LocalEcs, report: Report) -> None:
    assert report.left == ()
    server.wait_stopped()
    assert {e.status for e in server.ledger.entries()} == {"STOPPED"}
    arns = server.client().list_clusters()["clusterArns"]
    clusters = server.client().describe_clusters(clusters=arns)["clusters"]
    assert {c["clusterName"] for c in clusters if c["status"] == "ACTIVE"} == {"default", "instances"}
    assert server.client().list_task_definitions(status="ACTIVE")["taskDefinitionArns"] == []
    described = server.client().describe_container_instances(
        cluster="instances",
        containerInstances=server.client().list_container_instances(cluster="instances")["containerInstanceArns"],
    )
    names = {a["name"] for i in described["containerInstances"] for a in i["attributes"]}
    assert not [name for name in names if name.startswith("conformance")]


def test_the_cost_of_a_run_is_no_more_than_was_estimated(report: Report) -> None:
    containers, dollars = estimate(CHECKS)
    assert sum(result.containers for result in report.results) <= containers
    assert 0 < dollars < 0.05


def test_the_results_are_a_table_and_a_document(report: Report) -> None:
    lines = report.table().splitlines()
    assert [line.split()[0] for line in lines[1 : len(NAMES) + 1]] == NAMES
    assert f"{len(NAMES)} holds" in lines
    document = json.loads(report.to_json())
    assert [r["name"] for r in document["results"]] == NAMES
    assert {"version", "botocore", "at", "endpoint", "region", "launch_type"} <= set(document)
    (lag,) = (r for r in document["results"] if r["name"] == "list-lag")
    assert lag["facts"]["seconds"] > 0


# --- a service that does the wrong thing ---------------------------------------------------------------------


@contextmanager
def lying(ecs: LocalEcs, lies: dict[str, Lie]) -> Iterator[None]:
    """Let the replies of operations go through lies: what one returns is the reply, None leaves it as it is."""
    services: tuple[Any, ...] = (ecs._ecs, ecs._batch)
    originals = [service.call for service in services]

    def wrap(original: Callable[..., str]) -> Callable[..., str]:
        def call(operation: str, params: dict[str, Any], *rest: Any) -> str:
            lie = lies.get(operation)
            if lie is None:
                return original(operation, params, *rest)
            refused: AwsError | None = None
            try:
                reply = json.loads(original(operation, params, *rest))
            except AwsError as error:
                refused, reply = error, {}
            told = lie(params, {"refused": refused, **reply} if refused is not None else reply)
            if told is None and refused is not None:
                raise refused
            return json.dumps(reply if told is None else told)

        return call

    for service, original in zip(services, originals, strict=True):
        service.call = wrap(original)
    try:
        yield
    finally:
        for service in services:
            del service.call


def accepts(empty: dict[str, Any]) -> Lie:
    """Accept what is refused, with an empty reply."""
    return lambda params, reply: empty if "refused" in reply else None


def refuses(code: str, message: str = "no") -> Lie:
    """Refuse everything."""

    def lie(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        raise AwsError(code, message)

    return lie


def changed(change: Callable[[dict[str, Any]], object], key: str = "tasks") -> Lie:
    """Change every record of a reply."""

    def lie(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        for record in reply.get(key, ()):
            change(record)
        return reply

    return lie


def conflict_without_names(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any] | None:
    if "refused" in reply:
        raise AwsError("ConflictException", "The clientToken was already used.")
    return None


def exits(code: int | None) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for container in record["containers"]:
            container.pop("exitCode", None)
            if code is not None:
                container["exitCode"] = code

    return change


def missing_once_more(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    described.extend(reply["tasks"])
    # There, gone for one look, there again.
    gone = len(described) == 2
    return {"tasks": [], "failures": [{"arn": "a", "reason": "MISSING"}]} if gone else reply


described: list[Any] = []


def spoilt_by_strangers(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    return reply if len(params["tasks"]) == 1 else {**reply, "tasks": []}


def only_running_is_listed(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    return {"taskArns": []}


def no_status_with_a_mark(params: dict[str, Any], reply: dict[str, Any]) -> None:
    if "desiredStatus" in params:
        raise AwsError("InvalidParameterException", "startedBy must be the only filter")


def finished_is_unlisted(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    return {"jobSummaryList": [s for s in reply["jobSummaryList"] if s["status"] != "FAILED"]}


def prefix_by_itself(params: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any] | None:
    names = [value for f in params["filters"] for value in f["values"]]
    return {"jobSummaryList": [{"jobId": "j", "jobName": "j"}]} if not names[0].endswith("*") else None


NO_TASKS: dict[str, Any] = {"tasks": [], "failures": []}
LIES: dict[str, dict[str, Lie]] = {
    "token-other-request": {"RunTask": conflict_without_names},
    "token-other-cluster": {"RunTask": lambda params, reply: NO_TASKS if params["cluster"] != "default" else None},
    "token-refused": {
        "RunTask": lambda params, reply: (
            None if "cpu" in params["overrides"] else {"tasks": [], "failures": [{"reason": "X"}]}
        )
    },
    "token-failures": {
        "RunTask": lambda params, reply: NO_TASKS if reply.get("failures") and len(tries(params)) > 1 else None
    },
    "token-failures-other-request": {"RunTask": lambda params, reply: NO_TASKS if "refused" in reply else None},
    "size-impossible": {"RunTask": accepts(NO_TASKS)},
    "size-combination": {"RunTask": refuses("InvalidParameterException", "too little memory")},
    "size-disk": {"RunTask": refuses("ClientException", "EphemeralStorage size should be at least 21")},
    "size-container": {"RunTask": accepts(NO_TASKS)},
    "size-shown": {"RunTask": changed(lambda task: task.update(memory="512"))},
    "overrides-limit": {"RunTask": accepts(NO_TASKS)},
    "count-limit": {"RunTask": accepts(NO_TASKS)},
    "type-and-strategy": {"RunTask": accepts(NO_TASKS)},
    "managed-instances": {"RunTask": accepts(NO_TASKS)},
    "provider-unknown": {"RunTask": refuses("InvalidParameterException", "unknown provider")},
    "instances-none": {"RunTask": refuses("ClientException", "No Container Instances were found")},
    "failures-each-instance": {"RunTask": lambda params, reply: {**reply, "failures": reply["failures"][:1]}},
    "missing-after-launch": {"DescribeTasks": missing_once_more},
    "mark-echoed": {"DescribeTasks": changed(lambda task: task.update(startedBy="someone"))},
    "describe-unknown": {"DescribeTasks": spoilt_by_strangers},
    "describe-foreign": {"DescribeTasks": spoilt_by_strangers},
    "describe-foreign-region": {"DescribeTasks": spoilt_by_strangers},
    "describe-limit": {"DescribeTasks": accepts(NO_TASKS)},
    "list-lag": {"ListTasks": lambda params, reply: {"taskArns": []}},
    "list-waiting": {"ListTasks": lambda params, reply: {"taskArns": []}},
    "list-family-stopped": {"ListTasks": lambda params, reply: {"taskArns": []}},
    "list-mark-running": {"ListTasks": no_status_with_a_mark},
    "list-mark-stopped": {"ListTasks": lambda params, reply: {"taskArns": []}},
    "list-mark-family": {"ListTasks": accepts({"taskArns": []})},
    "exit-code": {"DescribeTasks": changed(exits(None))},
    "exit-reasons": {"DescribeTasks": changed(lambda task: task.update(stopCode="ServiceSchedulerInitiated"))},
    "stop": {"DescribeTasks": changed(exits(0))},
    "stop-desired": {"DescribeTasks": changed(lambda task: task.update(desiredStatus="RUNNING"))},
    "stop-again": {"StopTask": refuses("InvalidParameterException", "already stopped")},
    "stop-unknown": {"StopTask": accepts({"task": {}})},
    "start-failed": {"DescribeTasks": changed(exits(127))},
    "job-name-search": {"ListJobs": finished_is_unlisted},
    "job-name-prefix": {"ListJobs": prefix_by_itself},
    "job-name-twice": {"SubmitJob": lambda params, reply: {**reply, "jobId": "always-this"}},
    "job-unknown": {"DescribeJobs": lambda params, reply: {"jobs": reply["jobs"] * len(params["jobs"])}},
    "job-describe-limit": {"DescribeJobs": accepts({"jobs": []})},
    "job-one-filter": {"ListJobs": accepts({"jobSummaryList": []})},
    "job-exit-code": {"DescribeJobs": changed(lambda job: job.update(attempts=[]), "jobs")},
    "job-terminated": {"DescribeJobs": changed(lambda job: job.update(statusReason="other"), "jobs")},
    "job-overrides-limit": {"SubmitJob": refuses("ClientException", "too long")},
}
"""For each check what turns its verdict; those that a switch or a token turns are below."""

_tries: dict[str, list[int]] = {}


def tries(params: dict[str, Any]) -> list[int]:
    """Count the requests under a token."""
    found = _tries.setdefault(params["clientToken"], [])
    found.append(1)
    return found


TOKENS = ("token-repeated", "token-other-request", "token-stopped")
SWITCHES = {
    "describe-foreign": {"foreign_arns": "refused"},
    "describe-foreign-region": {"foreign_arns": "refused"},
    "instances-none": {"empty_clusters": "accepted"},
    "provider-unknown": {"unassociated_providers": "accepted"},
    "job-variables": {"batch_variables": "free"},
}


def one(server: LocalEcs, name: str) -> Result:
    (result,) = run(bench_of(server), [c for c in CHECKS if c.name == name]).results
    return result


def test_every_check_has_something_that_turns_its_verdict() -> None:
    assert set(NAMES) == {*LIES, *TOKENS, *SWITCHES}


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_wrong_answer_turns_the_verdict(server: LocalEcs, name: str) -> None:
    described.clear()
    with lying(server, LIES[name]):
        assert one(server, name).verdict is Verdict.DIFFERS


@pytest.mark.parametrize("name", TOKENS)
def test_a_service_without_tokens_turns_the_verdict(
    server: LocalEcs, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Tokens, "find", lambda *_, **__: None)
    assert one(server, name).verdict is Verdict.DIFFERS


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_a_switch_turns_the_verdict(server: LocalEcs, name: str) -> None:
    before = server.behaviour
    server.behaviour = replace(before, **SWITCHES[name])  # type: ignore[arg-type]
    try:
        assert one(server, name).verdict is Verdict.DIFFERS
    finally:
        server.behaviour = before


@pytest.mark.parametrize(
    ("name", "switch", "answer"),
    [
        ("token-failures", {"failure_memory": "forget"}, "a task"),
        ("token-failures", {"failure_memory": "conflict"}, "the failures again"),
        ("token-failures-other-request", {"failure_memory": "forget"}, "a task"),
        ("token-failures-other-request", {"failure_memory": "replay"}, "a task"),
        (
            "token-failures-other-request",
            {"failure_memory": "conflict"},
            "ConflictException without resourceIds",
        ),
        ("list-mark-stopped", {"started_by_stopped": "listed"}, "listed"),
        (
            "list-mark-stopped",
            {"started_by_stopped": "refused"},
            "InvalidParameterException: When startedBy is specified, it must be the only filter.",
        ),
    ],
)
def test_an_open_question_gets_the_answer_and_clients_stand_it(
    server: LocalEcs, name: str, switch: dict[str, Any], answer: str
) -> None:
    before = server.behaviour
    server.behaviour = replace(before, **switch)
    try:
        result = one(server, name)
    finally:
        server.behaviour = before
    assert (result.verdict, result.answer, result.known) == (Verdict.HOLDS, answer, Known.OPEN)


# --- what cannot be found out, and what is left --------------------------------------------------------------


@pytest.fixture
def stops_all(server: LocalEcs) -> Iterator[None]:
    """Hold that what a test starts has stopped soon after it."""
    before = len(server.ledger)
    yield
    deadline = time.monotonic() + 20
    while running := [e.id for e in server.ledger.entries()[before:] if e.status != "STOPPED"]:
        assert time.monotonic() < deadline, running
        time.sleep(0.05)


@pytest.mark.usefixtures("stops_all")
def test_what_a_target_lacks_is_skipped_and_what_fails_has_no_answer(server: LocalEcs) -> None:
    target = {"ec2_cluster": None, "job_queue": None, "patience": 0.0}
    server.faults.error("RunTask", "AccessDeniedException", "not you", contains='"cpu"', count=1)
    names = ("token-failures", "job-unknown", "exit-code", "size-impossible")
    with lying(server, {"DescribeTasks": lambda params, reply: {"tasks": [], "failures": []}}):
        report = run(bench_of(server, **target), [c for c in CHECKS if c.name in names])
    found = verdicts(report)
    assert found["token-failures"] == "skipped: needs ec2"
    assert found["job-unknown"] == "skipped: needs batch"
    assert found["exit-code"].startswith("no answer: after ")
    assert report.wrong == ()


def test_a_refusal_that_is_no_answer_is_told_from_one_that_is(server: LocalEcs) -> None:
    server.faults.error("RegisterTaskDefinition", "AccessDeniedException", "not you", count=1)
    report = run(bench_of(server), [c for c in CHECKS if c.name == "token-repeated"])
    assert "no answer: " in verdicts(report)["token-repeated"]
    assert "AccessDenied" in verdicts(report)["token-repeated"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("AccessDeniedException", 400), ("ExpiredTokenException", 400), ("ServerException", 500)],
)
@pytest.mark.parametrize("name", ["size-impossible", "managed-instances", "token-refused", "token-other-request"])
def test_an_error_that_says_nothing_of_the_request_is_no_answer(
    server: LocalEcs, name: str, code: str, status: int
) -> None:
    number = server.faults.error("RunTask", code, "no", status)
    try:
        assert one(server, name).verdict is Verdict.UNANSWERED
    finally:
        server.faults.remove(number)


def test_what_cannot_be_removed_is_said(server: LocalEcs) -> None:
    number = server.faults.error("DeregisterTaskDefinition", "ClientException", "it stays")
    report = run(bench_of(server), [c for c in CHECKS if c.name == "count-limit"])
    server.faults.remove(number)
    assert len(report.left) == 1
    assert "it stays" in report.left[0]
    assert "left behind: task definition conformance-" in report.table()
    definitions = server.client().list_task_definitions()["taskDefinitionArns"]
    server.client().deregister_task_definition(taskDefinition=definitions[0])


@pytest.mark.usefixtures("stops_all")
def test_a_check_that_breaks_clears_up_all_the_same(server: LocalEcs) -> None:
    def breaks(bench: Bench) -> Any:
        bench.start(**bench.request("sleep 600"))
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(bench_of(server), [Check("broken", "It works.", Known.OPEN, breaks)])
    assert server.client().list_task_definitions()["taskDefinitionArns"] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("arn:aws:ecs:us-east-1:123456789012:task/a/b", "arn:aws:ecs:us-east-1:000000000000:task/a/b"),
        ("User: arn:aws:sts::123456789012:assumed-role/Ops/jane is not", "User: arn:aws:iam:... is not"),
        ("subnet-0a1b2c3d4e5f60718 of vpc-12345678", "subnet-... of vpc-..."),
        ("task a1234567890123b", "task a1234567890123b"),
    ],
)
def test_what_names_an_account_is_taken_out(text: str, shown: str) -> None:
    assert private(text) == shown


# --- the program ---------------------------------------------------------------------------------------------


def test_the_program_asks_an_endpoint_and_says_by_its_exit_code_whether_all_holds(
    server: LocalEcs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    arguments = ["--endpoint", server.url, "--region", server.region, "--json", str(path), "count", "overrides"]
    assert program.main(arguments) == 0
    assert [r["name"] for r in json.loads(path.read_text())["results"]] == ["overrides-limit", "count-limit"]
    assert "2 holds" in capsys.readouterr().out
    with lying(server, LIES["count-limit"]):
        assert program.main(arguments) == program.DIFFERENT
    assert "belief that does not hold: count-limit" in capsys.readouterr().out


def test_a_run_without_any_answer_is_no_success(server: LocalEcs, capsys: pytest.CaptureFixture[str]) -> None:
    number = server.faults.error("*", "UnrecognizedClientException", "The security token is invalid.")
    try:
        assert program.main(["--endpoint", server.url, "count-limit", "job-one-filter"]) == program.UNANSWERED
    finally:
        server.faults.remove(number)
    shown = capsys.readouterr()
    assert "no answer  count-limit" in shown.out
    assert "nothing was answered" in shown.err


def test_the_defaults_of_the_local_services_differ_where_the_page_says_so(server: LocalEcs) -> None:
    before = server.behaviour
    server.behaviour = "default"
    try:
        report = run(bench_of(server), [c for c in CHECKS if c.looks_at is None])
    finally:
        server.behaviour = before
    assert {result.name for result in report.wrong} == {"instances-none", "provider-unknown", "job-variables"}


def test_the_program_starts_a_local_ecs_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["token-failures", "job-variables"]) == 0
    assert "3 holds" in capsys.readouterr().out


def test_the_program_lists_checks_with_their_cost_and_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in NAMES)
    assert "US dollars" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--real"], "a run on AWS needs --cluster, --subnets"),
        (["--real", "--cluster", "c", "--subnets", "s"], "give --yes"),
        (["no-such-check"], "no check begins with no-such-check"),
        (["--json", "/no/such/folder/results.json"], "there is no folder"),
    ],
)
def test_nothing_is_asked_of_aws_unless_all_is_said_and_agreed_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("a client was made")

    monkeypatch.setattr(program, "_client", asked)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert program.main(arguments) == program.MISUSED
    shown = capsys.readouterr()
    assert said in shown.err + shown.out


def test_a_run_on_aws_says_its_price_first_and_can_still_be_declined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["prod", "subnet-1, subnet-2", "y", "n"])
    asked: list[str] = []

    def say(question: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr("builtins.input", say)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert program.main(["--real"]) == program.MISUSED
    assert "US dollars" in capsys.readouterr().out
    assert [question.split()[0] for question in asked] == ["ECS", "subnets,", "do", "Go"]


def test_without_real_or_an_endpoint_no_client_has_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[Target] = []

    def remembered(service: str, target: Target) -> Any:
        targets.append(target)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_client", remembered)
    for arguments in ([], ["--endpoint", "http://127.0.0.1:1"]):
        with pytest.raises(KeyboardInterrupt):
            program.main([*arguments, "count-limit"])
    assert all((target.endpoint or "").startswith("http://127.0.0.1:") for target in targets)
    assert len(targets) == 2


def test_names_choose_checks_by_their_beginning() -> None:
    assert [c.name for c in chosen(["list-mark"])] == [
        "list-mark-running",
        "list-mark-stopped",
        "list-mark-family",
    ]
    assert chosen([]) == CHECKS
