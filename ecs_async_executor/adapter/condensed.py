"""
Workloads as text, as long as they wait for their containers.

May import ``compat`` and msgspec. Thousands of launches can wait, and each of Airflow's workloads is a dozen
objects. Garbage collections, which stop every thread, go through all of them, but not through a
:class:`CondensedWorkload`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import Key

_FIRST: Final = '{"token":'


class CondensedWorkload(msgspec.Struct, frozen=True, gc=False):
    """
    A workload of a task, as its JSON.

    :param subject: id of the task instance
    :param token: its JWT; empty after an adoption
    :param rest: the JSON behind the JWT
    """

    queue: str | None
    executor_config: Any
    subject: str
    token: str
    rest: str

    def __repr__(self) -> str:
        """Return a text without the JWT."""
        return f"CondensedWorkload({self.subject})"

    def with_fresh_jwt(self, generator: Any) -> tuple[str, float | None]:
        """
        Return the workload as JSON, with a JWT that has nearly all of its life left.

        :returns: the JSON, and when its JWT expires: see :func:`~ecs_async_executor.adapter.compat.jwt_expiry`
        """
        token, expires = compat.fresh_jwt(self.token, self.subject, generator, compat.ExecuteTask)
        return f"{_FIRST}{json.dumps(token)}{self.rest}", expires


def condensed(key: Key, workload: Any) -> CondensedWorkload | None:
    """
    Return a workload as text; None for callbacks, and where that would lose something.

    :param key: with some versions of Airflow it does not name the task instance, whose workload is needed then
    """
    if not isinstance(workload, compat.ExecuteTask) or not isinstance(key, TaskInstanceKey):
        return None
    text: str = workload.model_dump_json()
    before = _FIRST + json.dumps(workload.token)
    if not text.startswith(before):
        return None  # Airflow need not keep to that order
    ti = workload.ti
    return CondensedWorkload(ti.queue, ti.executor_config or None, str(ti.id), workload.token, text[len(before) :])
