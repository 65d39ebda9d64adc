"""What is different for Batch in Airflow's hands: identities, requests, and a whole way on the local Batch."""

from __future__ import annotations

import importlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter import metrics as sending
from ecs_async_executor.adapter.workloads import AdoptedWorkload
from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind, Rejected
from ecs_async_executor.core.messages import Adopt, AirflowState
from ecs_async_executor.services import batch
from ecs_async_executor.settings import BatchTuning
from tests.adapter.metadata import Metadata, adopt
from tests.adapter.scripted import (
    Scripted,
    ScriptedBatchExecutor,
    ScriptedExecutor,
    failed,
    make_callback,
    make_workload,
    queue,
    states,
)

if TYPE_CHECKING:
    from ecs_async_executor.local import LocalEcs

JOB = "876da822-4198-45f2-a252-6cea32512ea8"


@pytest.fixture
def executor(make_executor: Callable[..., Any]) -> Any:
    return make_executor(ScriptedBatchExecutor)


# --- identities ----------------------------------------------------------------------------------------------


def test_the_id_of_an_earlier_job_is_not_taken_for_an_identity(executor: Any) -> None:
    workload = make_workload(external_executor_id=JOB)
    queue(executor, workload)
    executor.heartbeat()
    [launch] = executor.scripted.launches
    assert JOB not in (launch.launch_id, launch.started_by)
    assert launch.started_by == str(workload.ti.id)
    assert not launch.tokened


def test_airflow_assigns_no_identity_that_could_be_taken_for_a_job() -> None:
    assert not AsyncBatchExecutor.pre_assigns_external_executor_id


@pytest.mark.slow
def test_an_adopted_task_instance_is_looked_for_by_its_job_and_its_own_id(
    executor: Any, database: Metadata
) -> None:
    ids = database.orphan("queued", "running", external_ids=[None, JOB])
    with database.session() as session:
        adopt(executor, session)
    executor.heartbeat()
    queued, running = sorted(executor.scripted.adoptions, key=lambda one: str(one.launch))
    assert (queued.state, queued.handle_id, running.state, running.handle_id) == (
        AirflowState.QUEUED,
        None,
        AirflowState.RUNNING,
        JOB,
    )
    assert [one.launch.started_by for one in (queued, running)] == [str(one) for one in ids]
    assert running.launch.launch_id != JOB


@pytest.mark.slow
def test_the_job_of_a_running_task_instance_is_looked_for_in_the_job_queue_of_its_queue(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, database: Metadata
) -> None:
    queues = {"queue": {"jobQueue": "gpu", "jobName": "night"}}
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    executor = make_executor(ScriptedBatchExecutor)
    (ti_id,) = database.orphan("running", executor_config={"jobName": "own"})
    with database.session() as session:
        adopt(executor, session)
    executor.heartbeat()
    (adoption,) = executor.scripted.adoptions
    spec = executor.workloads.render(adoption.launch)
    assert (spec.scope, spec.started_by) == ("gpu", f"own-{ti_id}")


class Reading(ScriptedBatchExecutor):
    """Chooses the job queue by what the command says of the task instance."""

    def _submit_job_kwargs(self, key: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
        workload = json.loads(cmd[-1])
        assert workload["token"] == ""
        ti = workload["ti"]
        request = super()._submit_job_kwargs(key, cmd, queue, exec_config)
        return {**request, "jobQueue": f"{ti['dag_id']}-{ti['task_id']}-{ti['try_number']}-{ti['queue']}"}


@pytest.mark.slow
@pytest.mark.parametrize("state", ["running", "restarting"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_hook_that_reads_the_command_says_where_a_running_job_is(
    make_executor: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    database: Metadata,
    state: str,
    gone: bool,
) -> None:
    if gone:
        monkeypatch.setattr(compat, "rebuild", lambda tis: {ti.id: ValueError("no version") for ti in tis})
    executor = make_executor(Reading)
    database.orphan(state, executor_config={"containerOverrides": {"vcpus": 2}})
    with database.session() as session:
        assert adopt(executor, session) == 0
    executor.heartbeat()
    (adoption,) = executor.scripted.adoptions
    assert executor.workloads.render(adoption.launch).scope == "adopted-task_0-1-queue"


@pytest.mark.slow
def test_the_whole_command_of_a_running_task_instance_is_there_where_its_job_has_to_be_looked_for(
    make_executor: Callable[..., Any], database: Metadata
) -> None:
    database.orphan("running", "running", external_ids=[None, JOB], executor_config={})
    executor = make_executor(Reading)
    with database.session() as session:
        made = compat.ExecuteTask.make(database.tis(session)[0])
        adopt(executor, session)
    executor.heartbeat()
    sought, known = sorted(executor.scripted.adoptions, key=lambda one: str(one.launch))
    assert sought.launch.workload == AdoptedWorkload("queue", {}, made, sought.launch.workload.log_path)
    assert known.launch.workload == AdoptedWorkload("queue", {}, None, known.launch.workload.log_path)


# --- requests ------------------------------------------------------------------------------------------------


def rendered(executor: Any, workload: Any) -> Any:
    queue(executor, workload)
    executor.heartbeat()
    return executor.workloads.render(executor.scripted.launches[-1])


def test_a_launch_becomes_a_job_whose_name_leads_back_to_the_task_instance(executor: Any) -> None:
    workload = make_workload()
    spec = rendered(executor, workload)
    assert spec.scope == "default"
    assert spec.request["jobName"] == f"airflow-{workload.ti.id}"
    command = spec.request["containerOverrides"]["command"]
    assert command[:4] == ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]
    assert json.loads(command[4])["ti"]["id"] == str(workload.ti.id)
    assert spec.expires_at > time.time()


def test_an_airflow_queue_leads_to_its_job_queue_and_definition(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = {"gpu": {"jobQueue": "gpu", "jobDefinition": "airflow-gpu"}}
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", json.dumps(queues))
    executor = make_executor(ScriptedBatchExecutor)
    spec = rendered(executor, make_workload(queue="gpu"))
    assert (spec.scope, spec.request["jobDefinition"]) == ("gpu", "airflow-gpu")
    assert rendered(executor, make_workload("other")).scope == "default"
    assert executor.scripted.launches[0].route != executor.scripted.launches[1].route


def test_start_names_what_a_queue_sets_that_submit_job_does_not_have(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", '{"gpu": {"job_queu": "gpu"}}')
    with pytest.raises(
        ConfigurationError, match=r"\[batch_async_executor\] queues\.gpu\.job_queu: .*mean jobQueue\?"
    ):
        make_executor(ScriptedBatchExecutor)


def test_a_subclass_changes_requests_where_the_providers_could(make_executor: Callable[..., Any]) -> None:
    class Tagging(ScriptedBatchExecutor):
        def _submit_job_kwargs(self, key: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
            request = super()._submit_job_kwargs(key, cmd, queue, exec_config)
            return {**request, "tags": {"queue": queue, "base": self.submit_job_kwargs["jobName"]}}

    executor = make_executor(Tagging)
    assert rendered(executor, make_workload(queue="night")).request["tags"] == {
        "queue": "night",
        "base": "airflow",
    }
    assert executor.scripted.arguments["blocks"](executor.scripted.launches[-1])


class Popping(AsyncBatchExecutor):
    """Takes a parameter of its own out of executor_config, and something from below."""

    def _submit_job_kwargs(self, key: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
        job_queue = exec_config.pop("tier", "default")
        team = exec_config.get("tags", {}).pop("team", "nobody")
        request = super()._submit_job_kwargs(key, cmd, queue, exec_config)
        return {**request, "jobQueue": job_queue, "jobDefinition": team}


class ScriptedPopping(Scripted, Popping):
    """The same over a scripted bridge."""


def test_a_hook_that_takes_something_out_of_executor_config_finds_it_there_again(
    make_executor: Callable[..., Any],
) -> None:
    executor = make_executor(ScriptedPopping)
    config = {"tier": "gpu", "tags": {"team": "data"}}
    workload = make_workload(executor_config=config)
    queue(executor, workload)
    executor.heartbeat()
    (launch,) = executor.scripted.launches
    for one in (launch, launch, launch.evolve(workload=AdoptedWorkload("default", config))):
        spec = executor.workloads.render(one)
        assert (spec.scope, spec.request["jobDefinition"]) == ("gpu", "data")
    assert config == workload.ti.executor_config == {"tier": "gpu", "tags": {"team": "data"}}


def test_an_executor_config_that_cannot_be_copied_for_a_hook_fails_its_workload_without_its_values(
    make_executor: Callable[..., Any],
) -> None:
    class Secretive:
        def __deepcopy__(self, _: object) -> Any:
            raise ValueError("hunter2")

    executor = make_executor(ScriptedPopping)
    workload = make_workload()
    queue(executor, workload)
    executor.heartbeat()
    (launch,) = executor.scripted.launches
    with pytest.raises(Rejected, match=r"^executor_config cannot be copied: ValueError$"):
        executor.workloads.render(launch.evolve(workload=AdoptedWorkload("default", {"tags": Secretive()})))


@pytest.mark.slow
def test_the_search_for_a_job_goes_where_a_hook_that_changes_executor_config_has_sent_it(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., Any]
) -> None:
    server = local_ecs(script=[{"duration": None}], job_queues=["gpu"], listed_after=2.0)
    workload = make_workload(executor_config={"tier": "gpu", "tags": {"team": "airflow:1"}})
    by_the_one_before = server.client("batch").submit_job(
        jobName=f"airflow-{workload.ti.id}-0badcafe-1", jobQueue="gpu", jobDefinition="airflow:1"
    )
    executor = started(Popping)
    launch, subject = executor.workloads.new_launch(workload.ti.key, workload, time.time())
    executor.tracking.add(launch.key, launch, subject)
    executor._bridge.submit(Adopt(launch, AirflowState.QUEUED, None))
    events = beat_until(executor, bool)
    assert events["task"][0] == ("running", by_the_one_before["jobId"])
    assert len(server.ledger.entries()) == 1


@pytest.mark.parametrize(
    ("cls", "name", "instead"),
    [
        (ScriptedBatchExecutor, "_load_submit_kwargs", "submit_job_kwargs"),
        (ScriptedBatchExecutor, "_submit_job", "_submit_job_kwargs"),
        (ScriptedBatchExecutor, "execute_async", "_submit_job_kwargs"),
        (ScriptedExecutor, "_load_run_kwargs", "run_task_kwargs"),
        (ScriptedExecutor, "_run_task", "_run_task_kwargs"),
        (ScriptedExecutor, "execute_async", "_run_task_kwargs"),
    ],
)
def test_start_warns_of_an_overridden_method_that_is_never_called_here(
    make_executor: Callable[..., Any], cls: type[Any], name: str, instead: str
) -> None:
    mixin = type("Mixin", (), {name: lambda *_: None})
    for custom in (type("Own", (cls,), {name: lambda *_: None}), type("Mixed", (mixin, cls), {})):
        with capture_logs() as logs:
            make_executor(custom)
        (warning,) = [line for line in logs if line["event"].endswith("_executor.method.ignored")]
        assert (warning["log_level"], warning["executor"]) == ("warning", custom.__name__)
        assert warning["method"] == name
        assert instead in warning["instead"]


@pytest.mark.parametrize("cls", [ScriptedBatchExecutor, ScriptedExecutor])
def test_start_warns_of_no_method_that_is_called(make_executor: Callable[..., Any], cls: type[Any]) -> None:
    hooks = ("_submit_job_kwargs", "_run_task_kwargs", "_serialize_workload_to_command", "get_container")
    with capture_logs() as logs:
        make_executor(type("Own", (cls,), dict.fromkeys(hooks, lambda *_: None)))
    assert [line for line in logs if line["event"].endswith("method.ignored")] == []


@pytest.mark.parametrize(
    ("ours", "module", "name"),
    [
        (AsyncBatchExecutor, "batch.batch_executor", "AwsBatchExecutor"),
        (AsyncEcsExecutor, "ecs.ecs_executor", "AwsEcsExecutor"),
    ],
)
def test_each_method_of_the_providers_is_here_or_known_as_never_called(ours: Any, module: str, name: str) -> None:
    amazon = "airflow.providers.amazon.aws.executors"
    pytest.importorskip(amazon, reason="needs the extra 'amazon'")
    theirs = getattr(importlib.import_module(f"{amazon}.{module}"), name)
    methods = {
        one
        for one, value in vars(theirs).items()
        if (callable(value) or isinstance(value, property)) and not one.startswith(("__", f"_{name}__"))
    }
    never_called = ours().adapter.never_called
    assert {one for one in methods if not hasattr(ours, one)} <= never_called.keys()
    assert not any(one in vars(base) for base in ours.__mro__[:2] for one in never_called)


def test_a_launch_that_came_to_nothing_is_called_in_the_event_log_as_by_the_provider(executor: Any) -> None:
    events = []
    executor.log_task_event = lambda **event: events.append(event["event"])
    queue(executor, make_workload())
    executor.heartbeat()
    (launch,) = executor.scripted.launches
    executor.scripted.report(failed(launch, "executor_config is bad"))
    executor.heartbeat()
    assert events == ["batch job submit failure"]


def test_what_a_hook_returns_must_be_a_request(make_executor: Callable[..., Any]) -> None:
    executor = make_executor(
        type("Broken", (ScriptedBatchExecutor,), {"_submit_job_kwargs": lambda *_: ["no request"]})
    )
    with pytest.raises(Rejected, match="_submit_job_kwargs returned list, not a dict"):
        rendered(executor, make_workload())


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 3), reason="cannot run callbacks")
def test_a_callback_is_a_job_too(executor: Any) -> None:
    workload = make_callback()
    spec = rendered(executor, workload)
    assert spec.request["jobName"] == f"airflow-{workload.callback.id}"


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 3), reason="cannot run callbacks")
def test_a_callback_goes_where_its_queue_leads_to_if_its_data_name_one(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__QUEUES", '{"gpu": {"jobQueue": "gpu"}}')
    executor = make_executor(ScriptedBatchExecutor)
    named, unnamed, odd = (
        rendered(executor, make_callback(**data)) for data in ({"queue": "gpu"}, {}, {"queue": 1})
    )
    assert [spec.scope for spec in (named, unnamed, odd)] == ["gpu", "default", "default"]
    assert [launch.route for launch in executor.scripted.launches] == ["gpu", None, None]


# --- starting ------------------------------------------------------------------------------------------------


def test_the_engine_works_within_batchs_limits(executor: Any) -> None:
    arguments = executor.scripted.arguments
    assert arguments["service"] is batch.SERVICE
    assert arguments["tuning"] == BatchTuning(gc_freeze=False, container_executors=False)
    assert arguments["max_attempts"] == 3


class OfText(ScriptedBatchExecutor):
    """Reads the option itself, as the provider's executor does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        vars(self)["max_submit_job_attempts"] = self.conf.get("aws_batch_executor", "max_submit_job_attempts")


def test_a_subclass_may_give_the_number_of_attempts_as_the_text_that_the_configuration_has(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__MAX_SUBMIT_JOB_ATTEMPTS", "5")
    assert make_executor(OfText).scripted.arguments["max_attempts"] == 5


@pytest.mark.parametrize("given", ["many", None])
def test_start_says_that_a_subclass_gave_no_number_of_attempts(
    make_executor: Callable[..., Any], given: object
) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"Odd\.max_submit_job_attempts = {given!r}: must be a whole number"
    ):
        make_executor(type("Odd", (ScriptedBatchExecutor,), {"max_submit_job_attempts": given}))


def test_start_names_every_problem_of_both_sections(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BATCH_ASYNC_EXECUTOR__LAUNCH_BURST", "many")
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_QUEUE", "")
    with pytest.raises(ConfigurationError) as caught:
        make_executor(ScriptedBatchExecutor)
    assert [problem.partition(" =")[0] for problem in caught.value.problems] == [
        "[batch_async_executor] launch_burst",
        "[aws_batch_executor] job_queue is not set: set it to the name or ARN of a job queue",
    ]


def test_log_events_and_metrics_are_called_after_the_service(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    metrics: list[str] = []

    class Stats:
        def __getattr__(self, _: str) -> Callable[..., None]:
            return lambda name, *_, **__: metrics.append(name)

    monkeypatch.setattr(sending, "stats", Stats())
    with capture_logs() as logs:
        executor = make_executor(type("Checked", (ScriptedBatchExecutor,), {"health": None}))
        queue(executor, make_workload())
        executor.heartbeat()
        (launch,) = executor.scripted.launches
        executor.scripted.report(failed(launch, "Batch container exited 1", handle_id=JOB))
        executor.heartbeat()
        executor.debug_dump()
        executor.end()
    events = {line["event"] for line in logs}
    assert {one.partition(".")[0] for one in events} == {"batch_executor"}
    assert events >= {
        "batch_executor.health_check.succeeded",
        "batch_executor.container.failed",
        "batch_executor.ended",
    }
    assert "batch_executor.pending" in metrics
    assert {one.partition(".")[0] for one in metrics if "executor" in one} == {"batch_executor"}


def test_a_definite_refusal_of_the_health_check_stops_the_start_in_the_providers_words(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    error = BackendError(Kind.REFUSED, "AccessDeniedException", "not you")
    with pytest.raises(compat.AirflowException) as caught:
        make_executor(type("Checked", (ScriptedBatchExecutor,), {"health": error}))
    assert str(caught.value) == (
        "Batch Executor health check has failed because: AccessDeniedException: not you. "
        "The Batch executor will not be able to run Airflow tasks until the issue is addressed."
    )


# --- airflow ecs-async -----------------------------------------------------------------------------------------


def test_show_request_shows_the_job_of_the_service_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    arguments: Any = type("Arguments", (), {})()
    arguments.team, arguments.service, arguments.queue = None, "batch", "default"
    arguments.executor_config = {"containerOverrides": {"environment": [{"name": "P", "value": "hunter2"}]}}
    cli.show_request(arguments)
    request = json.loads(capsys.readouterr().out)
    assert (request["jobQueue"], request["retryStrategy"]) == ("default", {"attempts": 1})
    assert request["containerOverrides"]["environment"][0] == {"name": "P", "value": "***"}
    assert request["containerOverrides"]["command"][-1] == "***"


def test_show_request_says_in_a_line_what_is_to_blame_for_a_request_that_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    arguments: Any = type("Arguments", (), {})()
    arguments.team, arguments.service, arguments.queue = None, "batch", "default"
    containers = [{"name": "airflow"}, "log-router"]
    arguments.executor_config = {"ecsPropertiesOverride": {"taskProperties": [{"containers": containers}]}}
    reason = "The container request could not be built: AttributeError"
    with pytest.raises(SystemExit, match=f"^A task with this executor_config would fail: {reason}"):
        cli.show_request(arguments)


def test_show_request_refuses_retry_rules_of_a_task_that_would_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "configured_executors", list)
    arguments: Any = type("Arguments", (), {})()
    arguments.team, arguments.service, arguments.queue = None, "batch", "default"
    arguments.executor_config = {"retries": [{"when": "oom", "memroy": "x2"}]}
    reason = r"A task with this executor_config would fail: executor_config: retries\[0\].memroy is no key"
    with pytest.raises(SystemExit, match=f"^{reason}"):
        cli.show_request(arguments)


def test_the_check_finds_settings_wrong_that_the_start_finds_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Texty(AsyncBatchExecutor):
        max_submit_job_attempts = "many"  # type: ignore[assignment]

    monkeypatch.setattr(compat, "configured_executors", lambda: [Texty])
    arguments: Any = type("Arguments", (), {})()
    arguments.team = arguments.service = arguments.queue = arguments.executor_config = None
    arguments.timeout, arguments.launch, arguments.strict, arguments.output = 1.0, False, False, "text"
    with pytest.raises(SystemExit, match=r"Texty\.max_submit_job_attempts = 'many'"):
        cli.check(arguments)


def test_the_command_is_about_the_executor_that_is_configured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "configured_executors", lambda: [object, AsyncBatchExecutor])
    arguments: Any = type("Arguments", (), {})()
    arguments.team = arguments.service = arguments.queue = arguments.executor_config = None
    cli.show_request(arguments)
    assert json.loads(capsys.readouterr().out)["jobDefinition"] == "airflow:1"


# --- on the local Batch ------------------------------------------------------------------------------------------


def beat_until(executor: Any, done: Callable[[dict[str, list[Any]]], bool]) -> dict[str, list[Any]]:
    """Heartbeat as a scheduler does, and return the events by task id."""
    events: dict[str, list[Any]] = {}
    deadline = time.monotonic() + 60
    while not done(events):
        assert time.monotonic() < deadline, events
        executor.heartbeat()
        for task_id, event in states(executor).items():
            events.setdefault(task_id, []).append(event)
        time.sleep(0.01)
    return events


def over(events: Mapping[str, list[Any]]) -> list[str]:
    return [task_id for task_id, of_one in events.items() if of_one[-1][0] != "running"]


@pytest.mark.slow
def test_a_workload_runs_a_failing_one_says_why_and_the_log_shows_the_job(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., Any]
) -> None:
    server = local_ecs(script=[{"command": '"task_id":"bad"', "exit_code": 3, "duration": 0.5}, {"duration": 0.5}])
    executor = started(AsyncBatchExecutor)
    queue(executor, make_workload("good"), make_workload("bad"))
    events = beat_until(executor, lambda events: len(over(events)) == 2)

    assert [state for state, _ in events["good"]] == ["running", "success"]
    assert str(uuid.UUID(events["good"][0][1])) == events["good"][0][1]
    assert [state for state, _ in events["bad"]] == ["running", "failed"]
    assert "Batch container exited 3" in events["bad"][1][1]
    assert executor.running == set()
    assert len(server.ledger.entries()) == 2

    job = events["bad"][0][1]
    ti = type("Ti", (), {"external_executor_id": job, "try_number": 1})()
    messages, _ = executor.get_task_log(ti, 1)
    assert messages[0].startswith(
        f"Batch container {job}: FAILED, exit code 3, Batch container exited 3. Its log: "
    )


@pytest.mark.slow
def test_revoking_a_running_workload_ends_its_job(
    local_ecs: Callable[..., LocalEcs], started: Callable[..., Any]
) -> None:
    server = local_ecs(script=[{"duration": None}])
    executor = started(AsyncBatchExecutor)
    workload = make_workload()
    queue(executor, workload)
    job = beat_until(executor, bool)["task"][0][1]

    executor.revoke_task(ti=workload.ti)

    deadline = time.monotonic() + 20
    while server.job(job)["status"] != "FAILED":
        assert time.monotonic() < deadline
        executor.heartbeat()
        time.sleep(0.05)
    assert "Airflow revoked the task instance" in server.job(job)["statusReason"]
    assert executor.get_event_buffer() == {}
