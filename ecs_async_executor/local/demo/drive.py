"""
A program that drives the executor of Airflow's settings as a scheduler does, through one burst.

It has no database, no API server and nothing else to do: its heartbeats are no longer than in a scheduler. It
imports Airflow, and no executor by name. ``python -m ecs_async_executor.local.demo.drive NUMBER FILE`` writes into
the file when the burst was queued and how long each heartbeat took.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

BUSY_SECONDS, IDLE_SECONDS = 0.1, 1.0
"""Pauses between the heartbeats of a scheduler with something to do, and without (scheduler_idle_sleep_time)."""
LIMIT_SECONDS = 120.0


def main(arguments: list[str]) -> int:
    """Drive a burst of so many workloads, and write its moments into a file."""
    number, path = int(arguments[0]), Path(arguments[1])
    executor = _started()
    # The first heartbeat imports parts of Airflow; a scheduler has made many before there is work.
    executor.heartbeat()
    workloads = _workloads(number, executor)
    for workload in workloads:
        executor.queue_workload(workload, session=None)
    began = time.time()
    beats: list[tuple[float, float]] = []
    launched: set[Any] = set()
    while len(launched) < number:
        since = time.perf_counter()
        executor.heartbeat()
        beats.append((time.time(), time.perf_counter() - since))
        news = executor.get_event_buffer()
        # A container that ends before the first look at it has only the one event.
        launched |= {key for key, (state, _) in news.items() if str(state) in ("running", "success")}
        if time.time() > began + LIMIT_SECONDS:
            raise TimeoutError(f"{len(launched)} of {number} are launched after {LIMIT_SECONDS:.0f} s")
        time.sleep(BUSY_SECONDS if news else IDLE_SECONDS)
    path.write_text(json.dumps({"began": began, "beats": beats}))
    return 0


def _started() -> Any:
    from airflow.executors.executor_loader import ExecutorLoader
    from airflow.models import import_all_models
    from sqlalchemy.orm import configure_mappers

    models: Any = import_all_models
    models()
    configure_mappers()
    executor: Any = ExecutorLoader.import_default_executor_cls()[0]()
    executor.start()
    return executor


def _workloads(number: int, executor: Any) -> list[Any]:
    from airflow.executors.workloads import ExecuteTask

    generator = executor.jwt_generator
    made = []
    for index in range(number):
        ti = {
            "id": uuid.uuid4(),
            "dag_version_id": uuid.uuid4(),
            "task_id": "order",
            "dag_id": "burst",
            "run_id": "driven",
            "try_number": 1,
            "map_index": index,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "external_executor_id": str(uuid.uuid4()),
        }
        workload = {
            "ti": ti,
            "dag_rel_path": "burst.py",
            "token": generator.generate({"sub": str(ti["id"])}),
            "log_path": f"dag_id=burst/task_id=order/map_index={index}/attempt=1.log",
            "bundle_info": {"name": "dags-folder", "version": None},
        }
        made.append(ExecuteTask.model_validate(workload))
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
