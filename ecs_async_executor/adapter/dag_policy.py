"""
A cluster policy: a DAG with an ``executor_config`` that would end the scheduler is an import error.

May import Airflow only. Airflow loads it by the entry point ``airflow.policy``, in every component, while its own
settings are imported: so the imports here are few, and wait where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.policies import hookimpl


@hookimpl
def task_policy(task: Any) -> None:
    """
    Refuse a task whose ``executor_config`` is no dictionary, when its DAG is parsed.

    Airflow's scheduler (3.1 to 3.4) makes the workload before any executor sees the task, and ends at such a one.

    :raises AirflowClusterPolicyViolation: if it is something else; the text holds none of its values
    """
    config = getattr(task, "executor_config", None)
    if config is None or isinstance(config, Mapping):
        return
    from airflow.exceptions import AirflowClusterPolicyViolation

    raise AirflowClusterPolicyViolation(
        f"Task {task.task_id}: executor_config must be a dictionary, not {type(config).__name__}. "
        "Airflow's scheduler would end at it."
    )
