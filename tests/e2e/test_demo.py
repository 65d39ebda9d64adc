from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.demos import ON_BATCH, Demo

pytestmark = pytest.mark.e2e


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()


@pytest.mark.parametrize(
    ("arguments", "executor", "containers", "entry", "ends", "places"),
    [
        pytest.param(
            (),
            "EcsExecutor",
            "ECS tasks",
            "ecs container failure",
            ("SpotInterruption", "exit 0: interrupted"),
            ("us-east-1 FARGATE_SPOT", "eu-west-1 FARGATE", "512 MB", "1 GB", "placed elsewhere"),
            id="ECS",
        ),
        pytest.param(
            ON_BATCH,
            "BatchExecutor",
            "Batch jobs",
            "batch container failure",
            ("Host EC2 terminated",),
            ("us-east-1 demo-spot", "eu-west-1 default", "512 MB", "1 GB", "RUNNABLE", "placed elsewhere"),
            id="Batch",
        ),
    ],
)
def test_every_task_instance_ends_as_expected_and_nothing_is_left_behind(
    demos: list[Demo],
    tmp_path: Path,
    arguments: tuple[str, ...],
    executor: str,
    containers: str,
    entry: str,
    ends: tuple[str, ...],
    places: tuple[str, ...],
) -> None:
    demo = Demo(tmp_path, *arguments)
    demos.append(demo)
    assert demo.finish() == 0, demo.output
    assert f"Airflow with ecs_async_executor.Async{executor}," in demo.output
    assert "when: oom, memory: x2" in demo.output
    assert f"{containers}, all as expected" in demo.output
    burst, found, _ = demo.output.partition("A burst: 200 workloads")[2].partition("Every task instance")
    assert found
    for words in (f"Async{executor}", f"Aws{executor}", "this demo's Airflow", "all after", "scheduler waits"):
        assert words in burst
    for end in (*ends, "CannotPullContainer", "exit 137: OutOfMemory"):
        assert end in demo.output
    table, _, event_log = demo.output.partition("Where the executor's rules have sent")[2].partition("(Audit Log)")
    for place in places:
        assert place in table
    assert "…" not in table
    for event in (entry, "container waits", "retry rule"):
        assert event in event_log
    assert demo.left_processes() == []
    assert demo.left_files() == []


@pytest.mark.parametrize(
    ("arguments", "executor"),
    [pytest.param((), "EcsExecutor", id="ECS"), pytest.param(ON_BATCH, "BatchExecutor", id="Batch")],
)
def test_the_providers_executor_is_compared_and_what_it_does_otherwise_is_no_failure(
    demos: list[Demo], tmp_path: Path, arguments: tuple[str, ...], executor: str
) -> None:
    demo = Demo(tmp_path, *arguments, "--provider", limit=900)
    demos.append(demo)
    assert demo.finish() == 0, demo.output
    ours, _, compared = demo.output.partition("The same with the amazon provider's executor")
    assert "all as expected" in ours
    differences = compared.partition(f"What went differently with Aws{executor}")[2]
    for task in ("broken.out_of_memory", "host_lost.long_haul"):
        assert task in differences
    assert "Known behaviour of the provider:" in differences
    assert "Earlier runs have not shown this" not in differences
    assert ".log ──" not in demo.output
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
    assert re.search(r"lasting\.runs_on .* running", demo.output)
    assert re.search(r"lasting\.no_capacity .* queued", demo.output)
    assert "lasting.no_capacity try 1: container waits" in demo.output
    assert demo.process.poll() is None
    demo.process.send_signal(signal.SIGINT)
    demo.finish()
    assert demo.left_processes() == []
    assert demo.left_files() == []
