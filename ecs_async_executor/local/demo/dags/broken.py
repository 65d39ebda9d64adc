"""Containers that end without a word from Airflow: one needs too much memory, one has an image that nobody has."""

from __future__ import annotations

import os
import time
from datetime import datetime

from airflow.sdk import dag, task

PART_MB = 50
PARTS = 20

DEFINITION = os.environ.get("DEMO_DEFINITION", "taskDefinition")
"""What an ``executor_config`` calls a definition of one's own: that depends on the service."""


@dag(schedule="@once", start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]), catchup=False)
def broken() -> None:
    """Fail where Airflow has no say: the executor has to find out why."""

    @task(retries=0, executor_config={DEFINITION: "demo-small"})
    def out_of_memory() -> None:
        parts = []
        for number in range(1, PARTS + 1):
            parts.append(b"x" * (PART_MB << 20))
            print(f"Part {number} of {PARTS} is read, {number * PART_MB} MB are in memory", flush=True)
            time.sleep(0.2)
        raise RuntimeError("All parts fitted into the memory of the container")

    @task(retries=0, executor_config={DEFINITION: "demo-no-image"})
    def no_image() -> None:
        raise RuntimeError("There is no image in which this could run")

    out_of_memory()
    no_image()


broken()
