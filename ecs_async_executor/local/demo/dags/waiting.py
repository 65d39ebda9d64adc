"""Sensors that give their container back while they wait: one to the triggerer, one to the scheduler."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import BaseSensorOperator, dag

if TYPE_CHECKING:
    from airflow.sdk import Context


class SecondLook(BaseSensorOperator):
    """Be satisfied at the second poke, which in reschedule mode happens in a second container."""

    def poke(self, context: Context) -> bool:
        """Say whether this is not the first look."""
        return context["ti"].get_first_reschedule_date(context) is not None


# What waits begins first: the others run meanwhile.
@dag(
    schedule="@once",
    start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]),
    catchup=False,
    default_args={"priority_weight": 10},
)
def waiting() -> None:
    """Wait without holding a container."""
    DateTimeSensorAsync(
        task_id="deferred",
        # Rendered in the container: the moment is always ahead when the sensor looks, so it always defers.
        target_time="{{ macros.datetime.now().astimezone() + macros.timedelta(seconds=4) }}",
    )
    # Longer than a container takes to end: Airflow fails a task instance that is scheduled for its next poke
    # before the end of its last one was reported.
    SecondLook(task_id="rescheduled", mode="reschedule", poke_interval=8, timeout=120)


waiting()
