"""Mapped tasks: five containers at once, then one that needs them all."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import dag, task


@dag(schedule="@once", start_date=datetime.fromisoformat(os.environ["DEMO_DATE"]), catchup=False)
def mapped() -> None:
    """Square some numbers, each in a container of its own, and add them up."""

    @task
    def square(number: int) -> int:
        print(f"{number} squared is {number * number}")
        return number * number

    @task
    def total(squares: list[int]) -> int:
        result = sum(squares)
        if result != 1 + 4 + 9 + 16:
            raise ValueError(f"The squares add up to {result}")
        return result

    total(square.expand(number=[1, 2, 3, 4]))  # type: ignore[arg-type]


mapped()
