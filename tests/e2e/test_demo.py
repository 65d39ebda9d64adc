from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.e2e

LIMIT_SECONDS = 300.0
ON_BATCH = ("--executor", "batch")


class Demo:
    """A demo that runs in a folder of its own, so that what it leaves behind can be seen."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecs_async_executor.local.demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "DEMO_TEST": self.mark},
        )
        self._watchdog = threading.Timer(LIMIT_SECONDS, self.process.send_signal, [signal.SIGTERM])
        self._watchdog.start()

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        pytest.fail(f"{words!r} never came:\n{self.output}")

    def finish(self) -> int:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)
        status = self.process.wait()
        self.close()
        return status

    def close(self) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def left_processes(self) -> list[str]:
        """Everything that the demo started inherits its environment or is given the folder's path."""
        left = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
            except psutil.Error:
                continue
            if environment.get("DEMO_TEST") == self.mark or str(self.folder) in environment.get(
                "AIRFLOW_HOME", ""
            ):
                left.append(" ".join(process.cmdline()))
        return left

    def left_files(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()


@pytest.mark.parametrize(
    ("arguments", "executor", "containers", "host_lost", "entry"),
    [
        pytest.param((), "AsyncEcsExecutor", "ECS tasks", "SpotInterruption", "ecs container failure", id="ECS"),
        pytest.param(
            ON_BATCH, "AsyncBatchExecutor", "Batch jobs", "Host EC2", "batch container failure", id="Batch"
        ),
    ],
)
def test_every_task_instance_ends_as_expected_and_nothing_is_left_behind(
    demos: list[Demo],
    tmp_path: Path,
    arguments: tuple[str, ...],
    executor: str,
    containers: str,
    host_lost: str,
    entry: str,
) -> None:
    demo = Demo(tmp_path, *arguments)
    demos.append(demo)
    assert demo.finish() == 0, demo.output
    assert f"Airflow with ecs_async_executor.{executor}," in demo.output
    assert f"{containers}, all as expected" in demo.output
    assert host_lost in demo.output
    event_log = demo.output.partition("event log (Audit Log)")[2]
    assert entry in event_log
    assert "container waits" in event_log
    assert demo.left_processes() == []
    assert demo.left_files() == []


@pytest.mark.parametrize(
    ("arguments", "words", "number"),
    [
        pytest.param((), "The local ECS listens", signal.SIGINT, id="Ctrl-C while the database is made"),
        pytest.param((), "Making Airflow's database", signal.SIGTERM, id="SIGTERM while Airflow starts"),
        pytest.param((), ": running", signal.SIGINT, id="Ctrl-C while containers run"),
        pytest.param(ON_BATCH, ": running", signal.SIGTERM, id="SIGTERM while jobs of Batch run"),
    ],
)
def test_a_signal_ends_everything_and_leaves_nothing_behind(
    demos: list[Demo], tmp_path: Path, arguments: tuple[str, ...], words: str, number: signal.Signals
) -> None:
    demo = Demo(tmp_path, *arguments)
    demos.append(demo)
    demo.read_until(words)
    assert demo.left_processes() != []
    demo.process.send_signal(number)
    assert demo.finish() == 128 + number, demo.output
    assert demo.left_processes() == []
    assert demo.left_files() == []


def test_a_component_that_dies_is_named_and_ends_the_demo(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    demos.append(demo)
    demo.read_until("The local ECS listens")
    (local_ecs,) = (
        child
        for child in psutil.Process(demo.process.pid).children()
        if "ecs_async_executor.local" in child.cmdline()
    )
    local_ecs.kill()
    assert demo.finish() == 1
    assert "The local-ecs ended unexpectedly with status -9" in demo.output
    assert demo.left_processes() == []
    assert demo.left_files() == []


def test_it_goes_on_after_the_report_for_as_long_as_it_is_wanted(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--keep")
    demos.append(demo)
    demo.read_until("Airflow's UI is at http://127.0.0.1:")
    assert "all as expected" in demo.output
    assert demo.process.poll() is None
    demo.process.send_signal(signal.SIGINT)
    demo.finish()
    assert demo.left_processes() == []
    assert demo.left_files() == []
