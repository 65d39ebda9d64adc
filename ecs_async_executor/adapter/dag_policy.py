"""
A cluster policy: a DAG with an ``executor_config`` that cannot work is an import error.

May import Airflow, and the rest of this package late. Airflow loads it by the entry point ``airflow.policy``, in
every component, while its own settings are imported: so the imports here are few, and wait where they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.policies import hookimpl


@hookimpl
def task_policy(task: Any) -> None:
    """
    Refuse a task whose ``executor_config`` is no dictionary, or asks an executor of ours for no size, at parsing.

    Airflow's scheduler (3.1 to 3.4) makes the workload before any executor sees the task, and ends at one that is
    no dictionary.

    :raises AirflowClusterPolicyViolation: if it is refused; of its values the text holds sizes only
    """
    config = getattr(task, "executor_config", None)
    if not config and isinstance(config, Mapping | None):
        return
    if not isinstance(config, Mapping):
        kind = type(config).__name__
        problems = [f"executor_config must be a dictionary, not {kind}. Airflow's scheduler would end at it"]
    else:
        problems = _wrong_sizes(config, getattr(task, "executor", None))
    if problems:
        from airflow.exceptions import AirflowClusterPolicyViolation

        raise AirflowClusterPolicyViolation(f"Task {task.task_id}: {'; '.join(problems)}.")


def _wrong_sizes(config: Mapping[Any, Any], executor: str | None) -> list[str]:
    """
    Name what is wrong with the sizes in a task's ``executor_config``.

    A task that another executor may run is left alone, and so is one whose config a user's hook reads first.

    :param executor: the one that the task names
    """
    from ecs_async_executor.services.sizes import SIZE_KEYS

    if SIZE_KEYS.isdisjoint(config):
        return []
    from ecs_async_executor.adapter import compat
    from ecs_async_executor.adapter.executor import AsyncExecutor

    try:
        found = [cls() for cls in compat.executors_for(executor)]
    except Exception:  # noqa: BLE001 - a DAG can be parsed where no executor can be imported
        return []
    ours = [one.adapter for one in found if isinstance(one, AsyncExecutor)]
    if len(ours) < len(found) or any(one.has_overridden_hooks() for one in ours):
        return []
    wrong = [list(one.wrong_sizes(config)) for one in ours]
    return wrong[0] if wrong and all(wrong) else []
