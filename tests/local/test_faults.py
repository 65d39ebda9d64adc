"""What goes wrong when it is told to, through boto3 and aiobotocore."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any

import botocore.exceptions
import psutil
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError

from ecs_async_executor.local import KINDS, Fault, Faults, LocalEcs, Place, Rate
from ecs_async_executor.local.faults import EVENT_KINDS
from ecs_async_executor.local.known_faults import KNOWN

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]

ONCE = {"retries": {"mode": "standard", "total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}


def client_of(ecs: LocalEcs, **config: Any) -> Any:
    """Make a client that never tries again."""
    return ecs.client(config=Config(**{**ONCE, **config}))


def with_aiobotocore(ecs: LocalEcs, use: Callable[[Any], Coroutine[Any, Any, Any]], **config: Any) -> Any:
    async def main() -> Any:
        session = get_session()
        async with session.create_client(
            "ecs",
            endpoint_url=ecs.url,
            region_name=ecs.region,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=AioConfig(**{**ONCE, **config}),
        ) as client:
            return await use(client)

    return asyncio.run(main())


def run_with(library: str, ecs: LocalEcs, params: dict[str, Any]) -> None:
    """Run a task with a client of one library or the other."""

    async def use(client: Any) -> None:
        await client.run_task(**params)

    if library == "boto3":
        client_of(ecs).run_task(**params)
    else:
        with_aiobotocore(ecs, use)


def code(call: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    found: str = caught.value.response["Error"]["Code"]
    return found


# --- what the kinds do ---------------------------------------------------------------------------------------


def test_a_throttle_refuses_so_many_calls_and_does_nothing(start: Start, run: Run, request_for: Run) -> None:
    ecs = start()
    client = client_of(ecs)
    number = ecs.faults.throttle("RunTask", count=2)
    for _ in range(2):
        assert code(client.run_task, **request_for()) == "ThrottlingException"
    run(client)
    assert (len(ecs.ledger), ecs.faults.struck(number)) == (1, 2)
    assert ecs.statistics.operation("RunTask").errors == {"ThrottlingException": 2}


def test_any_error_can_be_made(start: Start, request_for: Run) -> None:
    ecs = start()
    ecs.faults.error("RunTask", "AccessDeniedException", "User is not authorized", status=403)
    with pytest.raises(ClientError) as caught:
        client_of(ecs).run_task(**request_for())
    assert caught.value.response["Error"] == {"Code": "AccessDeniedException", "Message": "User is not authorized"}
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_an_expired_token_is_refused(start: Start) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="expired_token"))
    assert code(client_of(ecs).list_tasks) == "ExpiredTokenException"
    assert code(client_of(ecs).describe_clusters) == "ExpiredTokenException"


@pytest.mark.parametrize("status", [500, 503])
def test_a_bare_server_error_carries_no_error_code(start: Start, request_for: Run, status: int) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="status", operation="RunTask", status=status))
    assert code(client_of(ecs).run_task, **request_for()) == str(status)
    assert len(ecs.ledger) == 0
    assert ecs.statistics.operation("RunTask").errors == {f"HTTP {status}": 1}


def test_an_error_can_come_although_the_work_was_done(start: Start, request_for: Run) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="error_after", operation="RunTask", status=500, count=1))
    client = client_of(ecs)
    assert code(client.run_task, **request_for(clientToken="t")) == "ServerException"
    arn = client.run_task(**request_for(clientToken="t"))["tasks"][0]["taskArn"]
    assert [e.id for e in ecs.ledger.entries()] == [arn]


@pytest.mark.parametrize(
    ("kind", "done"),
    [("reset_before", 0), ("reset_after", 1), ("close_before", 0), ("close_after", 1)],
)
@pytest.mark.parametrize("library", ["boto3", "aiobotocore"])
def test_a_broken_connection_says_nothing_about_the_work(
    start: Start, request_for: Run, kind: str, done: int, library: str
) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind=kind, operation="RunTask", count=1))

    with pytest.raises((botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)):
        run_with(library, ecs, request_for())
    assert len(ecs.ledger) == done


@pytest.mark.parametrize(("kind", "done"), [("hang", 0), ("hang_after", 1)])
def test_a_hang_lasts_until_the_client_gives_up(start: Start, request_for: Run, kind: str, done: int) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind=kind, operation="RunTask"))
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        client_of(ecs, read_timeout=0.3).run_task(**request_for())
    assert len(ecs.ledger) == done


def test_the_server_stops_although_a_client_hangs(start: Start) -> None:
    ecs = start()
    ecs.faults.hang("ListTasks")

    async def use(client: Any) -> None:
        call = asyncio.ensure_future(client.list_tasks())
        while not ecs.statistics.operation("ListTasks").in_flight:
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        await asyncio.to_thread(ecs.stop)
        assert time.monotonic() - begun < 40, "the client would wait for a minute"
        with pytest.raises(botocore.exceptions.BotoCoreError):
            await call

    with_aiobotocore(ecs, use)


def test_run_task_can_answer_with_failures(start: Start, request_for: Run) -> None:
    ecs = start()
    failures = [{"arn": "arn:x", "reason": "AGENT"}, {"reason": "RESOURCE:CPU", "detail": "d"}]
    ecs.faults.no_capacity(failures, count=1)
    reply = client_of(ecs).run_task(**request_for())
    assert (reply["tasks"], reply["failures"]) == ([], failures)
    assert len(ecs.ledger) == 0


def test_describe_can_miss_what_exists(start: Start, run: Run) -> None:
    ecs = start()
    client = client_of(ecs)
    arn = run(client)["taskArn"]
    ecs.faults.missing(count=1)
    assert client.describe_tasks(tasks=[arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert client.describe_tasks(tasks=[arn])["failures"] == []


def test_an_answer_can_be_empty(start: Start, request_for: Run) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="empty", operation="RunTask"))
    reply = client_of(ecs).run_task(**request_for())
    assert (reply["tasks"], reply["failures"], len(ecs.ledger)) == ([], [], 0)


def test_an_answer_can_break_off_in_the_middle(start: Start, request_for: Run) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="truncate", operation="RunTask"))
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        run_with("aiobotocore", ecs, request_for())
    assert len(ecs.ledger) == 1
    connection = http.client.HTTPConnection("127.0.0.1", ecs.port, timeout=10)
    headers = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask"}
    connection.request("POST", "/", body=json.dumps(request_for()), headers=headers)
    response = connection.getresponse()
    promised = int(response.headers["Content-Length"])
    with pytest.raises(http.client.IncompleteRead) as incomplete:
        response.read()
    connection.close()
    assert len(incomplete.value.partial) == promised // 2


def test_an_answer_can_be_garbage(start: Start, request_for: Run) -> None:
    ecs = start()
    ecs.faults.add(Fault(kind="garbage", operation="RunTask"))
    # botocore takes a success that is not JSON for one without content.
    assert "tasks" not in client_of(ecs).run_task(**request_for())
    assert len(ecs.ledger) == 1


def test_latency_comes_on_top_of_another_fault(start: Start) -> None:
    ecs = start(latency={"ListTasks": 0.1, "*": 0.0})
    ecs.faults.latency("ListTasks", 0.2)
    ecs.faults.throttle("ListTasks")
    begun = time.monotonic()
    assert code(client_of(ecs).list_tasks) == "ThrottlingException"
    assert time.monotonic() - begun > 0.29


def test_latency_can_be_changed_and_drawn(start: Start) -> None:
    ecs = start(latency=(0.1, 0.12))
    client = client_of(ecs)
    begun = time.monotonic()
    client.list_tasks()
    assert time.monotonic() - begun > 0.09
    ecs.latency = 0.0
    client.list_tasks()
    assert ecs.latency == 0.0


# --- which requests they strike --------------------------------------------------------------------------------


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def kinds(faults: Faults, operation: str = "RunTask", body: bytes = b"") -> list[str]:
    return [f.kind for f in faults.strike(operation, body, Place("123456789012", "us-east-1"))]


def test_a_fault_concerns_the_operations_and_the_text_it_names() -> None:
    faults = Faults()
    faults.throttle("*Task", contains="one")
    assert kinds(faults, "RunTask", b"someone") == ["throttle"]
    assert kinds(faults, "RunTask", b"other") == []
    assert kinds(faults, "DescribeTasks", b"one") == []
    faults.clear()
    faults.add(Fault(kind="hang", operation=("StopTask", "ListTasks")))
    assert [kinds(faults, o) for o in ("StopTask", "ListTasks", "RunTask")] == [["hang"], ["hang"], []]


def test_a_fault_lets_the_first_ones_pass_and_strikes_so_often() -> None:
    faults = Faults()
    faults.throttle(skip=2, count=3)
    assert [bool(kinds(faults)) for _ in range(7)] == [False, False, True, True, True, False, False]


def test_a_fault_has_a_window() -> None:
    clock = Ticks()
    faults = Faults(clock=clock)
    faults.throttle(after=10, lasting=5)
    seen = {}
    for clock.now in (0, 9.9, 10, 14.9, 15):
        seen[clock.now] = bool(kinds(faults))
    assert seen == {0: False, 9.9: False, 10: True, 14.9: True, 15: False}


def test_a_fault_strikes_as_often_as_its_probability_and_the_seed_say() -> None:
    def series(seed: int) -> list[bool]:
        faults = Faults(seed=seed)
        faults.throttle(probability=0.2)
        return [bool(kinds(faults)) for _ in range(1000)]

    assert series(1) == series(1) != series(2)
    assert 150 < sum(series(1)) < 250


def test_the_first_fault_that_applies_strikes_and_the_next_one_when_it_is_used_up() -> None:
    faults = Faults()
    faults.throttle(count=1)
    faults.hang()
    assert [kinds(faults), kinds(faults)] == [["throttle"], ["hang"]]


def test_a_fault_can_be_lifted() -> None:
    faults = Faults()
    number = faults.throttle()
    faults.remove(number)
    assert kinds(faults) == []
    with pytest.raises(KeyError):
        faults.remove(number)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"kind": "flood"}, "unknown kind of fault: 'flood'"),
        ({"operation": "RunTask"}, "incomplete fault"),
        ({"kind": "throttle", "cuont": 1}, "unknown in a fault: cuont"),
        ({"kind": "throttle", "count": "3"}, r"fault.count cannot be '3'"),
        ([], "must be an object"),
    ],
)
def test_a_malformed_fault_is_refused_at_once(data: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault.from_json(data)


def answer_to(ecs: LocalEcs, params: dict[str, Any]) -> dict[str, Any]:
    """Give the task that RunTask answers with, as it is on the wire."""
    headers = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask"}
    request = urllib.request.Request(ecs.url, data=json.dumps(params).encode(), headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        task: dict[str, Any] = json.load(response)["tasks"][0]
    return task


@pytest.mark.parametrize("kind", sorted(set(KINDS) - EVENT_KINDS))
def test_every_kind_can_be_given_as_json_and_does_something(start: Start, request_for: Run, kind: str) -> None:
    ecs = start()
    fault = {"kind": kind, "operation": "*", "status": 500, "seconds": 0.05, "failures": [{"reason": "AGENT"}]}
    ecs.faults.add(Fault.from_json(fault))
    client = client_of(ecs)
    if kind == "missing":
        assert client.describe_tasks(tasks=["a"])["failures"] == [{"arn": "a", "reason": "MISSING"}]
    elif kind in ("unknown_status", "odd_record"):
        assert (
            answer_to(ecs, request_for())["lastStatus"] == {"unknown_status": "UNHEARD_OF", "odd_record": 7}[kind]
        )
    elif kind in ("stuck", "unplaced", "hidden", "unlisted"):
        task = client.run_task(**request_for())["tasks"][0]
        assert (task["lastStatus"] == "PROVISIONING") == (kind in ("stuck", "unplaced"))
    elif kind == "interrupted":
        ecs.script([{"duration": None}])
        arn = client.run_task(**request_for())["tasks"][0]["taskArn"]
        ecs.wait_stopped()
        assert ecs.task(arn)["stopCode"] == "SpotInterruption"
    elif kind in ("empty", "failures", "garbage", "latency"):
        assert bool(client.run_task(**request_for()).get("tasks")) == (kind == "latency")
    else:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is depends on the kind
            run_with("aiobotocore", ecs, request_for())
        assert not isinstance(caught.value, botocore.exceptions.ParamValidationError)


# --- rate limits ---------------------------------------------------------------------------------------------


def test_rate_limits_are_aws_and_off_by_default(start: Start, request_for: Run) -> None:
    def is_accepted(client: Any) -> bool:
        try:
            client.run_task(**request_for())
        except client.exceptions.ClientError as error:
            if error.response["Error"] != {"Code": "ThrottlingException", "Message": "Rate exceeded"}:
                raise
            return False
        return True

    def accepted(client: Any, calls: int) -> int:
        return sum(is_accepted(client) for _ in range(calls))

    assert accepted(client_of(start()), 60) == 60
    limited = start(limits=True)
    begun = time.monotonic()
    done = accepted(client_of(limited), 60)
    assert 20 <= done <= 20 + 20 * (time.monotonic() - begun) + 1
    assert len(limited.ledger) == done


def test_reads_and_writes_have_limits_of_their_own(start: Start, run: Run, request_for: Run) -> None:
    ecs = start(limits={"read": Rate(0.001, 2), "modify": Rate(0.001, 3), "FARGATE": Rate(0.001, 1)})
    client = client_of(ecs)
    arn = run(client)["taskArn"]
    assert code(client.run_task, **request_for()) == "ThrottlingException"
    client.run_task(**request_for(launchType="EC2"))
    client.stop_task(task=arn)
    assert code(client.stop_task, task=arn) == "ThrottlingException"
    client.list_tasks()
    client.describe_tasks(tasks=[arn])
    assert code(client.describe_tasks, tasks=[arn]) == "ThrottlingException"


def test_fargate_on_demand_and_spot_share_one_limit_of_calls(start: Start, request_for: Run) -> None:
    ecs = start(limits={"FARGATE": Rate(0.001, 2)})
    client = client_of(ecs)
    spot = request_for(capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}])
    del spot["launchType"]
    client.run_task(**spot)
    client.run_task(**request_for())
    assert code(client.run_task, **spot) == "ThrottlingException"
    assert code(client.run_task, **request_for()) == "ThrottlingException"
    client.run_task(**request_for(launchType="EC2"))


# --- what finds no place -------------------------------------------------------------------------------------


def test_what_is_unplaced_stays_in_provisioning_and_then_fails_to_start(
    start: Start, run: Run, clock: Any
) -> None:
    ecs = start(clock=clock, script=[{"duration": None}])
    client = client_of(ecs)
    ecs.faults.known("unplaced", count=2, reason="RESOURCE:CPU")
    first, second = (run(client)["taskArn"] for _ in range(2))
    clock.advance(599)
    assert ecs.task(first)["lastStatus"] == "PROVISIONING"
    client.stop_task(task=second, reason="enough")
    assert ecs.task(second)["stoppedReason"] == "enough"
    clock.advance(1)
    task = ecs.task(first)
    assert (task["lastStatus"], task["stopCode"], task["stoppedReason"], task["containers"]) == (
        "STOPPED",
        "TaskFailedToStart",
        "RESOURCE:CPU",
        [],
    )
    assert ecs.task(run(client)["taskArn"])["lastStatus"] == "RUNNING"


# --- faults by name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_known_fault_is_met_by_the_request_that_it_is_about(start: Start, request_for: Run, name: str) -> None:
    ecs = start(script=[{"duration": None}])
    number = ecs.faults.known(name, count=1)
    client = client_of(ecs)
    fault = Fault.from_json({"known": name})
    if fault.operation == "SubmitJob":
        batch = ecs.client("batch")
        job = batch.submit_job(jobName="one", jobQueue="default", jobDefinition="airflow")["jobId"]
        assert ecs.job(job)["status"] == "RUNNABLE"
    elif fault.kind == "error":
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            client.run_task(**request_for())
        error = caught.value.response
        assert (error["Error"]["Code"], error["Error"]["Message"]) == (fault.code, fault.message)
        assert error["ResponseMetadata"]["HTTPStatusCode"] == fault.status
    else:
        wanted = request_for()
        if name.startswith("spot_"):
            del wanted["launchType"]
            wanted["capacityProviderStrategy"] = [{"capacityProvider": "FARGATE_SPOT"}]
        reply = client.run_task(**wanted)
        assert reply["failures"] == [dict(f) for f in fault.failures]
        states = {"unplaced": ["PROVISIONING"], "interrupted": ["RUNNING"]}
        assert [t["lastStatus"] for t in reply["tasks"]] == states.get(fault.kind, [])
    assert ecs.faults.struck(number) == 1
    assert client.run_task(**request_for())["tasks"][0]["lastStatus"] == "RUNNING"


def test_members_of_a_known_fault_can_be_replaced_and_unknown_names_are_refused() -> None:
    fault = Fault.from_json({"known": "assume_role", "lasting": 30, "message": "other"})
    assert (fault.code, fault.message, fault.lasting) == ("ClientException", "other", 30.0)
    with pytest.raises(ValueError, match="unknown fault: 'nothing'"):
        Fault.from_json({"known": "nothing"})


# --- the control path ----------------------------------------------------------------------------------------


def control(ecs: LocalEcs, method: str, path: str, data: Any = None) -> Any:
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(f"{ecs.url}/_local/{path}", data=body, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return json.load(response)


def test_everything_can_be_done_over_http(start: Start, run: Run, request_for: Run) -> None:
    ecs = start()
    client = client_of(ecs)
    assert control(ecs, "GET", "health")["status"] == "ok"
    control(ecs, "PUT", "script", [{"duration": 600}])
    faults = [{"kind": "throttle", "operation": "RunTask", "count": 1}, {"kind": "latency", "seconds": 0}]
    first, second = control(ecs, "POST", "faults", faults)["ids"]
    assert code(client.run_task, **request_for()) == "ThrottlingException"
    assert [f["struck"] for f in control(ecs, "GET", "faults")["faults"]] == [1, 1]
    control(ecs, "DELETE", f"faults/{second}")
    assert [f["id"] for f in control(ecs, "GET", "faults")["faults"]] == [first]
    control(ecs, "DELETE", "faults")
    task = run(client, "x", startedBy="mark")["taskArn"].rsplit("/", 1)[-1]
    run(client, "y")
    assert len(control(ecs, "GET", "ledger")["entries"]) == 2
    (entry,) = control(ecs, "GET", "ledger?started_by=mark")["entries"]
    assert (entry["command"], entry["status"], entry["exit_code"]) == (["x"], "RUNNING", None)
    assert control(ecs, "POST", f"tasks/{task}/kill", {"cause": "spot"}) == {"killed": True}
    assert control(ecs, "GET", f"tasks/{task}")["stopCode"] == "SpotInterruption"
    figures = control(ecs, "GET", "statistics")
    assert (figures["accepted"], figures["running"], figures["operations"]["RunTask"]["calls"]) == (2, 1, 3)
    control(ecs, "PUT", "latency", {"RunTask": [0.01, 0.02]})
    assert ecs.latency == {"RunTask": (0.01, 0.02)}


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "words"),
    [
        ("POST", "faults", {"kind": "flood"}, 400, "unknown kind"),
        ("PUT", "latency", "soon", 400, "not a number of seconds"),
        ("PUT", "script", [{"exit": 1}], 400, "unknown in a rule"),
        ("POST", "tasks/unknown/kill", {}, 404, "unknown"),
        ("POST", "tasks/unknown/kill", {"cause": "flood"}, 400, "unknown cause"),
        ("DELETE", "faults/7", None, 404, "7"),
        ("GET", "nothing", None, 404, "_local/nothing"),
    ],
)
def test_mistakes_on_the_control_path_are_explained(
    start: Start, method: str, path: str, data: Any, status: int, words: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        control(start(), method, path, data)
    with caught.value:
        assert caught.value.code == status
        assert words in json.load(caught.value)["error"]


def test_a_reset_forgets_everything_and_kills_what_runs(start: Start, run: Run, request_for: Run) -> None:
    ecs = start(runner="subprocess", clusters=["other"])
    client = client_of(ecs)
    task = run(client, "sleep", "600", clientToken="t")
    while ecs.task(task["taskArn"])["lastStatus"] != "RUNNING":
        time.sleep(0.01)
    (pid,) = ecs.runner.pids(task["taskArn"].rsplit("/", 1)[-1])  # type: ignore[attr-defined]
    ecs.faults.throttle("ListTasks")
    control(ecs, "POST", "reset")
    assert len(ecs.ledger) == 0
    assert client.list_tasks(cluster="other")["taskArns"] == []
    assert client.describe_tasks(tasks=[task["taskArn"]])["failures"][0]["reason"] == "MISSING"
    assert code(client.run_task, **request_for("true")) == "ClientException"
    ecs.register("job", "main")
    run(client, "true", clientToken="t")
    ecs.wait_stopped()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_motos_own_reset_is_ours(start: Start, run: Run) -> None:
    one, two = start(), start()
    for ecs in (one, two):
        run(ecs.client())
    with urllib.request.urlopen(f"{one.url}/moto-api/reset", data=b"", timeout=10) as response:  # noqa: S310
        assert json.load(response) == {"status": "ok"}
    assert (len(one.ledger), len(two.ledger)) == (0, 1)
    assert one.client().list_task_definitions()["taskDefinitionArns"] == []
    assert len(two.client().list_task_definitions()["taskDefinitionArns"]) == 1
