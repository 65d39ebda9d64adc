"""Tasks that fail: one comes right on its second try, the other never does."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task


@dag(schedule="@once", start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]), catchup=False)
def failing() -> None:
    """Fail, with and without Airflow's retries."""

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def second_time_lucky(**context: Any) -> None:
        if context["ti"].try_number == 1:
            raise RuntimeError("The first try fails on purpose")

    @task(retries=0)
    def hopeless() -> None:
        raise RuntimeError("This always fails, on purpose")

    second_time_lucky()
    hopeless()


failing()
