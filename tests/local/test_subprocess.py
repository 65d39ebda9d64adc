"""The subprocess runner: real processes, through boto3."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from ecs_async_executor.local import LocalEcs, SubprocessRunner

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
Submit = Callable[..., str]

STUBBORN = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n"
)
# A supervisor as Airflow's is: its child leads a process group of its own.
SUPERVISOR = (
    "import os, time\n"
    "pid = os.fork()\n"
    "if pid == 0:\n"
    "    os.setpgid(0, 0)\n"
    "    print('child', os.getpid(), flush=True)\n"
    "    time.sleep(600)\n"
    "{then}\n"
)


def eventually(check: Callable[[], Any], timeout: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := check()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s")
        time.sleep(0.01)
    return found


def pids(ecs: LocalEcs, task: dict[str, Any]) -> list[int]:
    assert isinstance(ecs.runner, SubprocessRunner)
    return ecs.runner.pids(task["taskArn"].rsplit("/", 1)[-1])


def said(ecs: LocalEcs, task: dict[str, Any], words: str) -> str:
    log: str = eventually(lambda: words in ecs.log(task["taskArn"]) and ecs.log(task["taskArn"]))
    return log


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def stopped(ecs: LocalEcs, task: dict[str, Any]) -> dict[str, Any]:
    ecs.wait_stopped()
    return ecs.task(task["taskArn"])


def code(record: dict[str, Any]) -> int | None:
    found: int | None = record["containers"][0].get("exitCode")
    return found


@pytest.mark.parametrize(("command", "expected"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(start: Start, run: Run, command: str, expected: int) -> None:
    ecs = start(runner="subprocess")
    record = stopped(ecs, run(ecs.client(), "sh", "-c", command))
    assert code(record) == expected
    assert (record["lastStatus"], record["stopCode"]) == ("STOPPED", "EssentialContainerExited")
    assert record["createdAt"] <= record["startedAt"] <= record["stoppedAt"]


def test_there_is_no_exit_code_while_it_runs(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    task = run(ecs.client(), "sleep", "600")
    record = eventually(lambda: (r := ecs.task(task["taskArn"])) and r["lastStatus"] == "RUNNING" and r)
    assert code(record) is None
    assert "stopCode" not in record


def test_entry_point_environment_and_overrides_are_honoured(
    start: Start, request_for: Run, tmp_path: Path
) -> None:
    ecs = start(runner="subprocess", environment={"FROM": "runner", "BASE": "1"})
    ecs.register(
        "env",
        "main",
        command=["never"],
        environment={"FROM": "definition", "KEPT": "yes"},
        entryPoint=["sh", "-c"],
        workingDirectory=str(tmp_path),
    )
    override = {
        "name": "main",
        "command": ['echo "$FROM $KEPT $BASE $(pwd)"'],
        "environment": [{"name": "FROM", "value": "override"}],
    }
    task = ecs.client().run_task(
        **request_for(taskDefinition="env", overrides={"containerOverrides": [override]})
    )["tasks"][0]
    ecs.wait_stopped()
    assert ecs.log(task["taskArn"]) == f"override yes 1 {tmp_path}\n"


def test_a_process_gets_the_servers_path_but_not_its_other_variables(
    start: Start, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "42")
    closed, opened = start(runner="subprocess"), start(runner="subprocess", inherit_environment=True)
    for ecs, expected in ((closed, "none"), (opened, "42")):
        task = run(ecs.client(), "sh", "-c", "echo ${SECRET_OF_THE_SERVER:-none} ${PATH:-none}")
        ecs.wait_stopped()
        secret, path = ecs.log(task["taskArn"]).split()
        assert (secret, path != "none") == (expected, True)


def test_a_missing_program_never_starts(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    record = stopped(ecs, run(ecs.client(), "no-such-program", "x"))
    assert (record["stopCode"], code(record), "startedAt" in record) == ("TaskFailedToStart", None, False)
    assert 'exec: "no-such-program": executable file not found' in record["containers"][0]["reason"]


def test_a_container_without_a_command_never_starts(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    record = stopped(ecs, run(ecs.client()))
    assert (record["stopCode"], code(record)) == ("TaskFailedToStart", None)
    assert "no command specified" in record["containers"][0]["reason"]


def test_a_stop_is_a_sigterm_to_the_first_process(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    client = ecs.client()
    task = run(client, "sh", "-c", "trap 'echo got term; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    said(ecs, task, "ready")
    client.stop_task(task=task["taskArn"], reason="enough")
    record = stopped(ecs, task)
    assert (code(record), record["stopCode"], record["stoppedReason"]) == (5, "UserInitiated", "enough")
    assert "got term" in ecs.log(task["taskArn"])


def test_who_does_not_mind_a_sigterm_exits_143(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    client = ecs.client()
    task = run(client, "sleep", "600")
    eventually(lambda: pids(ecs, task))
    client.stop_task(task=task["taskArn"])
    assert code(stopped(ecs, task)) == 128 + signal.SIGTERM


def test_who_ignores_a_sigterm_is_killed_after_the_stop_timeout_with_all_it_started(
    start: Start, run: Run
) -> None:
    ecs = start(runner="subprocess")
    ecs.register("stubborn", "main", stopTimeout=2)
    client = ecs.client()
    script = SUPERVISOR.format(then=STUBBORN)
    task = run(client, sys.executable, "-c", script, taskDefinition="stubborn")
    log = said(ecs, task, "ready")
    child = int(log.split("child ")[1].split()[0])
    client.stop_task(task=task["taskArn"])
    asked = time.monotonic()
    assert ecs.task(task["taskArn"])["lastStatus"] == "STOPPING"
    record = stopped(ecs, task)
    assert time.monotonic() - asked > 1.9
    assert code(record) == 128 + signal.SIGKILL
    assert not alive(child)


def test_nothing_survives_the_first_process(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    task = run(ecs.client(), sys.executable, "-c", SUPERVISOR.format(then="time.sleep(0.3)"))
    ecs.wait_stopped()
    child = int(ecs.log(task["taskArn"]).split("child ")[1].split()[0])
    assert code(ecs.task(task["taskArn"])) == 0
    assert not alive(child)


@pytest.mark.parametrize(("cause", "stop_code"), [("host", "TerminationNotice"), ("spot", "SpotInterruption")])
def test_a_lost_host_takes_every_process_with_it(start: Start, run: Run, cause: str, stop_code: str) -> None:
    ecs = start(runner="subprocess")
    task = run(ecs.client(), sys.executable, "-c", SUPERVISOR.format(then=STUBBORN))
    log = said(ecs, task, "ready")
    leader, child = pids(ecs, task)[0], int(log.split("child ")[1].split()[0])
    assert ecs.kill(task["taskArn"], cause=cause)
    record = stopped(ecs, task)
    assert (code(record), record["stopCode"]) == (None, stop_code)
    assert not alive(leader)
    assert not alive(child)


def test_a_notice_comes_before_the_host_is_lost(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    task = run(ecs.client(), "sleep", "600")
    leader = eventually(lambda: pids(ecs, task))[0]
    ecs.kill(task["taskArn"], cause="spot", notice=0.5)
    record = ecs.task(task["taskArn"])
    assert (record["lastStatus"], record["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert alive(leader)
    record = stopped(ecs, task)
    assert (code(record), record["stopCode"]) == (None, "SpotInterruption")
    assert not alive(leader)


def test_an_essential_sidecar_stops_the_task_and_another_one_does_not(start: Start, request_for: Run) -> None:
    ecs = start(runner="subprocess")
    for family, essential in (("vital", True), ("spare", False)):
        ecs.register(
            family,
            "main",
            sidecars=[{"name": "side", "command": ["sh", "-c", "exit 9"], "essential": essential}],
        )
    client = ecs.client()
    vital = client.run_task(**request_for("sleep", "600", taskDefinition="vital"))["tasks"][0]
    spare = client.run_task(**request_for("sh", "-c", "sleep 0.5; exit 0", taskDefinition="spare"))["tasks"][0]
    ecs.wait_stopped()
    assert [[c["exitCode"] for c in ecs.task(t["taskArn"])["containers"]] for t in (vital, spare)] == [
        [143, 9],
        [0, 9],
    ]


def test_a_sidecar_without_a_command_idles_until_the_task_ends(start: Start, request_for: Run) -> None:
    ecs = start(runner="subprocess")
    ecs.register("pair", "main", sidecars=[{"name": "proxy"}])
    task = ecs.client().run_task(**request_for("true", taskDefinition="pair"))["tasks"][0]
    record = stopped(ecs, task)
    assert {c["name"]: c["exitCode"] for c in record["containers"]} == {"main": 0, "proxy": 143}


def test_a_place_that_becomes_free_is_taken_although_nobody_asks(start: Start, run: Run, tmp_path: Path) -> None:
    ecs = start(runner="subprocess", max_running=1)
    client = ecs.client()
    for n in range(4):
        run(client, "sh", "-c", f"sleep 0.1; touch {tmp_path}/{n}")
    eventually(lambda: len(list(tmp_path.iterdir())) == 4)
    entries = ecs.ledger.entries()
    assert all(a.stopped_at <= b.started_at for a, b in pairwise(entries))  # type: ignore[operator]


def test_a_task_that_is_stopped_before_it_starts_never_does(start: Start, run: Run, tmp_path: Path) -> None:
    ecs = start(runner="subprocess", start_delay=600)
    client = ecs.client()
    task = run(client, "touch", str(tmp_path / "ran"))
    assert ecs.task(task["taskArn"])["lastStatus"] == "PENDING"
    client.stop_task(task=task["taskArn"])
    record = stopped(ecs, task)
    assert (code(record), "startedAt" in record, record["stopCode"]) == (None, False, "UserInitiated")
    assert not (tmp_path / "ran").exists()


def test_logs_are_kept_in_the_given_directory(start: Start, run: Run, tmp_path: Path) -> None:
    ecs = start(runner="subprocess", log_dir=tmp_path / "logs")
    task = run(ecs.client(), "sh", "-c", "echo out; echo err >&2")
    ecs.wait_stopped()
    path = tmp_path / "logs" / f"{task['taskArn'].rsplit('/', 1)[-1]}.log"
    assert path.read_text() == "out\nerr\n"


def test_on_exit_every_process_is_ended_and_reaped(run: Run) -> None:
    with LocalEcs(runner="subprocess", max_running=3, shutdown_timeout=0.5) as ecs:
        ecs.register("job", "main")
        client = ecs.client()
        polite = run(client, "sleep", "600")
        rude = run(client, sys.executable, "-c", SUPERVISOR.format(then=STUBBORN))
        late = run(client, "sh", "-c", "sleep 600 & sleep 600 & wait")
        waiting = run(client, "sleep", "600")
        said(ecs, rude, "ready")
        family = psutil.Process().children(recursive=True)
        leaders = [p for t in (polite, rude, late) for p in eventually(partial(pids, ecs, t))]
        logs = ecs.runner.log_dir  # type: ignore[attr-defined]
    assert not [p for p in family if alive(p.pid)]
    assert not any(psutil.pid_exists(pid) for pid in leaders)
    codes = {e.id: e.exit_code for e in ecs.ledger.entries()}
    assert [codes[t["taskArn"]] for t in (polite, rude, late, waiting)] == [143, 137, 143, None]
    assert not logs.exists()


# --- jobs of Batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "expected"), [("exit 0", "SUCCEEDED"), ("exit 3", "FAILED")])
def test_a_job_ends_as_its_command_does(start: Start, submit: Submit, command: str, expected: str) -> None:
    aws = start(runner="subprocess")
    job = submit(aws.client("batch"), "one", "sh", "-c", command)
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["container"]["exitCode"]) == (expected, int(command[-1]))
    assert record["createdAt"] <= record["startedAt"] <= record["stoppedAt"]


def test_a_job_gets_its_environment_and_every_attempt_its_number(start: Start, submit: Submit) -> None:
    aws = start(runner="subprocess")
    aws.register_job("env", environment={"FROM": "definition", "KEPT": "yes"})
    overrides = {
        "command": ["sh", "-c", "echo $AWS_BATCH_JOB_ID $AWS_BATCH_JOB_ATTEMPT $FROM $KEPT; exit 1"],
        "environment": [{"name": "FROM", "value": "override"}],
    }
    options = {"jobDefinition": "env", "retryStrategy": {"attempts": 3}, "containerOverrides": overrides}
    job = submit(aws.client("batch"), "one", **options)
    aws.wait_stopped()
    assert aws.log(job).splitlines() == [f"{job} {n} override yes" for n in (1, 2, 3)]
    attempts = aws.job(job)["attempts"]
    assert [a["container"]["exitCode"] for a in attempts] == [1, 1, 1]
    assert all(a["stoppedAt"] <= b["startedAt"] for a, b in pairwise(attempts))
    assert aws.log(attempts[1]["container"]["taskArn"]) == f"{job} 2 override yes\n"


def test_a_terminated_jobs_process_gets_a_sigterm(start: Start, submit: Submit) -> None:
    aws = start(runner="subprocess")
    client = aws.client("batch")
    script = "trap 'echo got term; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    job = submit(client, "one", "sh", "-c", script, retryStrategy={"attempts": 2})
    eventually(lambda: "ready" in aws.log(job))
    assert aws.job(job)["status"] == "RUNNING"
    client.terminate_job(jobId=job, reason="enough")
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["statusReason"], record["container"]["exitCode"]) == ("FAILED", "enough", 0)
    assert "got term" in aws.log(job)
    assert len(aws.ledger) == 1


def test_a_job_on_a_lost_host_is_run_again(start: Start, submit: Submit) -> None:
    aws = start(runner="subprocess")
    script = "[ $AWS_BATCH_JOB_ATTEMPT = 2 ] || { echo ready; exec sleep 600; }"
    job = submit(aws.client("batch"), "one", "sh", "-c", script, retryStrategy={"attempts": 2})
    eventually(lambda: "ready" in aws.log(job))
    assert aws.kill(job, cause="host")
    eventually(lambda: aws.job(job)["status"] == "SUCCEEDED")
    attempts = aws.job(job)["attempts"]
    assert attempts[0]["statusReason"].startswith("Host EC2 (instance i-")
    assert [a["container"].get("exitCode") for a in attempts] == [None, 0]


def test_a_job_that_takes_too_long_is_stopped_although_nobody_asks(
    start: Start, submit: Submit, tmp_path: Path
) -> None:
    aws = start(runner="subprocess")
    # Only SubmitJob holds to the 60 s that AWS wants at least.
    aws.register_job("short", timeout={"attemptDurationSeconds": 1}, retryStrategy={"attempts": 2})
    script = f"trap 'touch {tmp_path}/ended; exit 5' TERM; while :; do sleep 0.05; done"
    job = submit(aws.client("batch"), "one", "sh", "-c", script, jobDefinition="short")
    eventually((tmp_path / "ended").exists)
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert (record["container"]["exitCode"], len(aws.ledger)) == (5, 1)


def test_a_job_that_is_terminated_before_it_starts_never_does(
    start: Start, submit: Submit, tmp_path: Path
) -> None:
    aws = start(runner="subprocess", job_delay=600)
    client = aws.client("batch")
    job = submit(client, "one", "touch", str(tmp_path / "ran"))
    assert aws.job(job)["status"] == "SUBMITTED"
    client.terminate_job(jobId=job, reason="enough")
    aws.wait_stopped()
    record = aws.job(job)
    assert (record["status"], record["statusReason"], "startedAt" in record) == ("FAILED", "enough", False)
    assert (record["attempts"], (tmp_path / "ran").exists()) == ([], False)


def test_jobs_that_would_be_tried_again_end_with_the_server(submit: Submit) -> None:
    with LocalEcs(runner="subprocess", shutdown_timeout=0.5) as aws:
        client = aws.client("batch")
        script = "trap 'exit 1' TERM; while :; do sleep 0.05; done"
        for n in range(3):
            submit(client, f"job-{n}", "sh", "-c", script, retryStrategy={"attempts": 10})
        processes = eventually(lambda: len(f := psutil.Process().children(recursive=True)) >= 3 and f)
    assert not [p for p in processes if alive(p.pid)]
    assert len(aws.ledger) == 3


def test_many_processes_end_with_their_own_exit_codes(start: Start, run: Run) -> None:
    ecs = start(runner="subprocess")
    client = ecs.client()
    for n in range(30):
        run(client, "sh", "-c", f"exit {n}")
    ecs.wait_stopped()
    assert [e.exit_code for e in ecs.ledger.entries()] == list(range(30))
