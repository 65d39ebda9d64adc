"""Two hundred task instances that Airflow queues at once."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import dag, task

NUMBER = int(os.environ["DEMO_BURST"])

DEFINITION = os.environ.get("DEMO_DEFINITION", "taskDefinition")
"""What an ``executor_config`` calls a definition of one's own: that depends on the service."""


# Airflow runs this DAG first and alone, so that its heartbeats can be measured; the others are paused.
@dag(
    schedule="@once",
    start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]),
    catchup=False,
    max_active_tasks=NUMBER,
    is_paused_upon_creation=False,
)
def burst() -> None:
    """Launch many containers at once."""

    # In this image a script runs in place of Airflow's task runner, which would take seconds of a core each time.
    @task(pool="burst", executor_config={DEFINITION: "demo-burst"})
    def order(number: int) -> None:
        print(f"Order {number} is shipped")

    order.expand(number=list(range(NUMBER)))


burst()
