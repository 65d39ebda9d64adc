"""A DAG to see that tasks run in containers: each says where it is."""

from __future__ import annotations

import socket
import time

from airflow.sdk import dag, task


@dag(schedule=None, tags=["ecs-async-executor"])
def hello() -> None:
    """Run three tasks side by side, and one after them."""

    @task
    def say(number: int) -> str:
        time.sleep(5)
        return f"{number} ran on {socket.gethostname()}"

    @task
    def gather(said: list[str]) -> None:
        print(*said, sep="\n")

    gather(say.expand(number=[1, 2, 3]))


hello()
