"""A container whose host is taken away while user code runs in it."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task


@dag(schedule="@once", start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]), catchup=False)
def host_lost() -> None:
    """Lose the host in the first try; Airflow's retry runs on another one."""

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def long_haul(**context: Any) -> None:
        print("On the long way", flush=True)
        if context["ti"].try_number == 1:
            # Far longer than the demo: whoever waits for this has not noticed that the host is gone.
            time.sleep(600)

    long_haul()


host_lost()
