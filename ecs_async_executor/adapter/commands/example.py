"""
The request of an example task, for the commands that show it or send it.

May import Airflow, ``core`` and the service-free adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.configuration import conf
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.retrying import RETRIES
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.steering import Steering
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.destinations import sent_to
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch

KEY = TaskInstanceKey("dag_id", "task_id", "run_id", 1, -1)


def example_workload(key: TaskInstanceKey, queue: str) -> str:
    """Return the end of a workload's command, without a JWT, for hooks that read the workload in it."""
    names = ("dag_id", "task_id", "run_id", "try_number", "map_index")
    of_ti = {name: getattr(key, name) for name in names} | {"queue": queue}
    return json.dumps({"token": "", "ti": of_ti, "type": "ExecuteTask"})


def default_queue() -> str:
    """Return the queue of tasks that name none."""
    return str(conf.get("operators", "default_queue", fallback="default"))


def example_spec(
    adapter: ServiceAdapter, launch: Launch, command: Sequence[str], queue: str | None, config: Any
) -> LaunchSpec:
    """
    Return the request for a task with this queue and ``executor_config``, which the hooks of a subclass may shape.

    :raises SystemExit: if it would be refused; names the reasons and the part of it that has to change
    """
    spec, problems = try_spec(adapter, launch, command, queue, config)
    if spec is None or problems:
        # The first part, from the task's own on, without which the request is good.
        culprit = "these settings"
        if config and not try_spec(adapter, launch, command, queue, None)[1]:
            culprit = "this executor_config"
        elif queue in adapter.rules.queues and not try_spec(adapter, launch, command, None, config)[1]:
            culprit = f"the setting queues for queue {queue!r}"
        raise SystemExit(f"A task with {culprit} would fail: {'; '.join(problems)}")
    return spec


def try_spec(
    adapter: ServiceAdapter,
    launch: Launch,
    command: Sequence[str],
    queue: str | None,
    config: Any,
    choice: str | None = None,
) -> tuple[LaunchSpec | None, list[str]]:
    """
    Return a task's request, and the reasons for which the SDK or this package would refuse it.

    :param choice: the placement; None: the first that the task may choose, if it may choose any
    """
    try:
        steering = Steering(adapter.rules)
        if choice is None:
            choice = next(iter(steering.choices_of(queue, config).names), None)
        if isinstance(config, Mapping) and RETRIES in config:
            adapter.retries_of(config[RETRIES])
        course = steering.course_of(queue, config, choice)
        request = adapter.request(launch.key, list(command), queue, course.config or {})
        spec = sent_to(course.destination, adapter.spec(request, launch, None))
    except Rejected as rejected:
        return None, [rejected.reason]
    except Exception as error:  # noqa: BLE001 - whatever it is, it fails the launch too
        return None, [f"The container request could not be built: {in_words(error)}"]
    return spec, list(adapter.wrong_parameters(spec.request))
