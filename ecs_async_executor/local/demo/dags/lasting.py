"""What there is to see while the demo is kept: one task that runs, and one that gets no capacity."""

from __future__ import annotations

import os
import time
from datetime import datetime

from airflow.sdk import dag, task

BEATS = 8640
BEAT_SECONDS = 10

DEFINITION = os.environ.get("DEMO_DEFINITION", "taskDefinition")
"""What an ``executor_config`` calls a definition of one's own: that depends on the service."""


@dag(schedule="@once", start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]), catchup=False)
def lasting() -> None:
    """Run and wait for longer than anybody looks."""

    @task(retries=0)
    def runs_on() -> None:
        for beat in range(1, BEATS + 1):
            print(f"Still running, line {beat} of {BEATS}", flush=True)
            time.sleep(BEAT_SECONDS)

    # A size of its own: whatever else wants capacity is not held up by it.
    @task(retries=0, executor_config={DEFINITION: "demo-huge"})
    def no_capacity() -> None:
        raise RuntimeError("There was never to be capacity for this")

    runs_on()
    no_capacity()


lasting()
