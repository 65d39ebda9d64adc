"""Tasks that the executor's rules steer: more memory after an end, another placement, another Region."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task

ON_BATCH = os.environ.get("DEMO_DEFINITION") == "jobDefinition"
PART_MB = 50
PARTS = 10


# Tasks with two tries begin before those with one.
@dag(
    schedule="@once",
    start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]),
    catchup=False,
    default_args={"priority_weight": 5},
)
def placement() -> None:
    """Ask for sizes and queues; which placement and which Region that is, the rules say."""

    @task(retries=1, retry_delay=timedelta(seconds=1), executor_config={"memory": "512 MB"})
    def grows() -> None:
        parts = []
        for number in range(1, PARTS + 1):
            parts.append(b"x" * (PART_MB << 20))
            print(f"Part {number} of {PARTS} is read, {number * PART_MB} MB are in memory", flush=True)
            time.sleep(0.2)

    @task(retries=1, retry_delay=timedelta(seconds=1), queue="cheap")
    def moves(**context: Any) -> None:
        print("On cheap capacity, as long as it lasts", flush=True)
        if context["ti"].try_number == 1:
            # Far longer than the demo: its capacity is taken back before that.
            time.sleep(600)

    @task(retries=0, queue="eu")
    def abroad() -> None:
        print(f"In {os.environ['DEMO_REGION']}", flush=True)

    # A size of its own: what is full for it is not full for the others.
    @task(retries=0, queue="cheap", executor_config={"memory": "1 GB"})
    def avoids() -> None:
        print("Where there is room", flush=True)

    # Batch takes jobs for a full queue, and they stay there.
    @task(retries=0, queue="cheap", executor_config={"memory": "1 GB"}, pool="burst", priority_weight=100)
    def fills() -> None:
        raise RuntimeError("There was never to be room for this")

    first, moved = abroad(), moves()
    grows()
    if ON_BATCH:
        # The first shows by staying that there is no room. One of the others may be the probe, and stay too.
        fills()
        probes = avoids.override(task_id="probes", pool="burst", priority_weight=100)()
        first >> moved >> [avoids.override(pool="burst", priority_weight=100)(), probes]
    else:
        first >> moved >> avoids()


placement()
