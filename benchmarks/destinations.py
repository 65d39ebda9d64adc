"""
What destinations cost: ``python -m benchmarks.destinations`` measures one, five and twenty of them on one loop.

Each number of them is measured in a process of its own, against the local ECS, which answers for all Regions. The
whole executor runs in it, without a scheduler: a heartbeat a second, as an idle scheduler makes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from benchmarks import executors, results
from benchmarks.cells import OURS

NUMBERS = (1, 5, 20)
SECONDS = 20.0
"""Seconds of each idle time."""
LIMIT = 120.0
HOME_REGION = "us-east-1"
REGIONS = (
    *("af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1"),
    *("ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1", "eu-south-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "me-south-1", "sa-east-1", "us-east-2", "us-west-2"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.destinations", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="results file (default: none is written)")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))  # noqa: T201 - what a subprocess says
        return 0
    from ecs_async_executor.local import LocalEcs

    before = os.getloadavg()
    found = []
    for number in NUMBERS:
        with (
            LocalEcs(regions=list(REGIONS), script=[{"duration": None}]) as ecs,
            tempfile.TemporaryDirectory() as home,
        ):
            for region in (HOME_REGION, *REGIONS):
                ecs.register("benchmark", "airflow", place=ecs.place(region))
            found.append(_measured(number, ecs.url, home))
        print(json.dumps(found[-1]))  # noqa: T201 - the figures
    if options.output is not None:
        record = {
            "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
            "command": "python -m benchmarks.destinations",
            "versions": results.versions(),
            "machine": results.machine(),
            "load_average_before_and_after": [before, os.getloadavg()],
            "destinations": found,
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _measured(number: int, url: str, home: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AIRFLOW"))}
    queues = {region: {"region_name": region} for region in REGIONS[: number - 1]}
    environment |= executors.SETTINGS | {
        "AIRFLOW_HOME": home,
        "AIRFLOW__ECS_ASYNC_EXECUTOR__QUEUES": json.dumps(queues),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "benchmarks.destinations", "--measure", str(number)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603 - ours
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(number: int) -> dict[str, Any]:
    """Return what an executor with so many destinations costs that are all in use."""
    executor = executors.start(OURS)
    try:
        without = {"memory_mb": _memory(), "cpu_ms_per_s": _cpu_while(executor, SECONDS)}
        queues = ("default", *REGIONS[: number - 1])
        for queue, workload in zip(queues, executors.workloads(number, executor.jwt_generator), strict=True):
            workload.ti.queue = queue
            executor.queue_workload(workload, None)
        launched = 0
        begun = time.monotonic()
        while launched < number:
            if time.monotonic() > begun + LIMIT:
                msg = f"{launched} of {number} were launched in {LIMIT:g} s"
                raise TimeoutError(msg)
            executor.heartbeat()
            launched += len(executor.get_event_buffer())
            time.sleep(0.1)
        until_launched = time.monotonic() - begun
        _cpu_while(executor, 5.0)
        used = {"memory_mb": _memory(), "cpu_ms_per_s": _cpu_while(executor, SECONDS)}
    finally:
        executor.end()
    return {
        "destinations": number,
        "before_the_first_launch": without,
        "with_a_running_container_in_each": used,
        "seconds_until_all_were_launched": round(until_launched, 2),
    }


def _memory() -> float:
    gc.collect()
    return round(psutil.Process().memory_info().rss / 1e6, 1)


def _cpu_while(executor: Any, seconds: float) -> float:
    """Return the milliseconds of CPU that a second of idling takes."""
    begun, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < begun + seconds:
        executor.heartbeat()
        executor.get_event_buffer()
        time.sleep(1.0)
    return round((time.process_time() - cpu) / (time.monotonic() - begun) * 1000, 1)


if __name__ == "__main__":
    sys.exit(main())
