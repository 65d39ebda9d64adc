"""The burst of the demo: how it is measured, drawn and run; tests/e2e runs it in a whole Airflow."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from statsd import StatsClient

from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.demo import light_task
from ecs_async_executor.local.demo.airflow_home import AirflowHome
from ecs_async_executor.local.demo.burst import BEATS, QUOTAS, WAITS, Burst, duration, plot, table
from ecs_async_executor.local.demo.heartbeats import METRIC, Beat, Heartbeats, durations

WORKLOAD = {"ti": {"id": "0199"}, "token": "first"}


def burst(executor: str, seconds: float, beat: float, number: int = 200) -> Burst:
    """Make a burst with containers accepted at equal intervals, equal heartbeats, and pauses of 0.1 s."""
    ends = [beat + (beat + 0.1) * index for index in range(max(1, round(seconds / (beat + 0.1))))]
    return Burst.since(
        1000.0,
        executor,
        "a loop without an Airflow",
        accepted=[1000.0 + seconds * (index + 1) / number for index in range(number)],
        beats=[Beat(1000.0 + end, beat) for end in ends],
    )


OURS, THEIRS = burst("AsyncEcsExecutor", 1.6, 0.003), burst("AwsEcsExecutor 9.39.0", 10.6, 10.6)


def test_a_burst_has_a_rate_and_a_longest_heartbeat() -> None:
    assert THEIRS.seconds == pytest.approx(10.6)
    assert THEIRS.longest == pytest.approx(10.6)
    assert THEIRS.rate == pytest.approx(200 / 10.6)
    assert OURS.longest == pytest.approx(0.003)


def test_heartbeats_after_the_last_launch_do_not_count() -> None:
    beats = [Beat(1001.0, 0.5), Beat(1004.0, 1.5)]
    counted = Burst.since(1000.0, "E", "there", accepted=[1001.0, 1002.0], beats=beats)
    assert counted.longest == 0.5
    assert [beat.ended for beat in counted.beats] == [1.0]


def test_the_plot_shows_who_waits_and_when_all_were_launched() -> None:
    lines = plot([OURS, THEIRS])
    ours, theirs = lines[2], lines[5]
    assert WAITS not in ours
    assert BEATS in ours
    assert theirs.count(WAITS) >= 40
    assert "all after 1.6 s" in lines[1]
    assert "all after 10.6 s" in lines[4]
    assert lines[-1].split() == ["0", "s", "2.5", "s", "5", "s", "7.5", "s", "10", "s"]


@pytest.mark.parametrize("service", QUOTAS)
def test_the_burst_reads_at_a_hundred_columns(service: str) -> None:
    output = io.StringIO()
    theirs = burst("AwsBatchExecutor 9.39.0", 10.6, 10.6)
    Console(file=output, width=100, color_system=None).print(table([OURS, theirs], service))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "AwsBatchExecutor 9.39.0" in text
    assert "3.0 ms" in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0031, "3.1 ms"), (0.25, "250 ms"), (10.64, "10.6 s"), (float("nan"), "–")]
)
def test_durations_are_told_as_people_write_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


# --- heartbeats ----------------------------------------------------------------------------------------------


def test_airflows_own_client_for_metrics_is_understood() -> None:
    with Heartbeats() as heartbeats:
        port = int(heartbeats.settings["AIRFLOW__METRICS__STATSD_PORT"])
        client = StatsClient("127.0.0.1", port, prefix="airflow")
        client.timing("scheduler.scheduler_loop_duration", 7.0)
        client.timing(METRIC, 12.5)
        client.close()
        since = time.time() - 60
        deadline = time.monotonic() + 10
        while not (beats := heartbeats.between(since, time.time())) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [beat.seconds for beat in beats] == [0.0125]
        assert heartbeats.between(since, since) == []


def test_other_metrics_in_a_datagram_are_left_out() -> None:
    assert durations(f"airflow.other:1|c\nairflow.{METRIC}:3.25|ms\n") == [0.00325]


# --- the script in the containers ----------------------------------------------------------------------------


class Api:
    """An execution API that answers from a script: a status for each request."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []


@contextmanager
def serving(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(api.statuses.pop(0))
            self.send_header("Refreshed-API-Token", "second")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_light(home: AirflowHome, address: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command that Airflow sends, in the environment of a container of the burst."""
    environment = home.light_environment(reports=False) | ({"DEMO_API": address} if address else {})
    command = [
        "python",
        "-m",
        "airflow.sdk.execution_time.execute_workload",
        "--json-string",
        json.dumps(WORKLOAD),
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_light_runner_reports_a_start_and_a_success(tmp_path: Path) -> None:
    api = Api(200, 204)
    with serving(api) as address:
        ended = run_light(AirflowHome(tmp_path / "home"), address)
    assert (ended.returncode, ended.stderr) == (0, "")
    (runs, first, running), (state, second, success) = api.asked
    assert (runs, first, running["state"]) == ("/execution/task-instances/0199/run", "Bearer first", "running")
    assert (state, second, success["state"]) == (
        "/execution/task-instances/0199/state",
        "Bearer second",
        "success",
    )


def test_the_light_runner_tries_again_while_the_database_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light_task, "PAUSE_SECONDS", 0.0)
    api = Api(500, 503, 200)
    with serving(api) as address:
        host, _, port = address.partition(":")
        assert light_task.report((host, int(port)), "/run", "first", {}) == "second"
    assert len(api.asked) == 3


def test_a_refusal_fails_the_container(tmp_path: Path) -> None:
    with serving(Api(409)) as address:
        ended = run_light(AirflowHome(tmp_path / "home"), address)
    assert ended.returncode == 1
    assert "409" in ended.stderr


def test_the_light_runner_without_an_api_only_ends(tmp_path: Path) -> None:
    assert run_light(AirflowHome(tmp_path / "home")).returncode == 0


# --- a loop without an Airflow -------------------------------------------------------------------------------


def test_the_driver_launches_a_burst_and_writes_down_its_heartbeats(
    start: Callable[..., LocalEcs], tmp_path: Path
) -> None:
    ecs = start()
    path = tmp_path / "burst.json"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
    options = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for every algorithm " * 2,
        "AIRFLOW__CORE__EXECUTOR": "ecs_async_executor.AsyncEcsExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "default",
        "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "main",
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "job",
        "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": ecs.region,
        "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
        "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
    }
    subprocess.run(
        [sys.executable, "-m", "ecs_async_executor.local.demo.drive", "30", str(path)],
        env={**kept, **options, **ecs.environment},
        check=True,
        capture_output=True,
        timeout=120,
    )
    read = json.loads(path.read_text())
    assert len(ecs.ledger) == 30
    assert all(entry.created_at >= read["began"] for entry in ecs.ledger.entries())
    assert all(ended >= read["began"] and seconds >= 0 for ended, seconds in read["beats"])
    assert read["beats"]
