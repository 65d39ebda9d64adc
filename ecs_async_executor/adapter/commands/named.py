"""
Do containers know the executors that tasks name? For ``airflow ecs-async check``.

May import everything of this package. Airflow in a container takes no DAG of which any task names an executor that
is not configured there: such a task instance is rescheduled or fails before user code runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import or_, select

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands.changing_over import names_after
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name, setting_for_containers
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.findings import Finding, problem, warning
from ecs_async_executor.services.requests import EXECUTOR_SETTING

_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
_ti: Any = TaskInstance


def judge_of(executor: AsyncExecutor) -> JudgeExecutors:
    """
    Return what judges the executors that containers know, by those that are configured here and those in use.

    If the provider's executor is configured, what is checked replaces it: then the names after the change count.

    :param executor: what is checked
    """
    cls, adapter, team = type(executor), executor.adapter, executor.team_name
    try:
        configured_already = cls in compat.configured_executors()
        now = [one for one in compat.executor_names() if getattr(one, "team_name", None) in {None, team}]
    except Exception:  # noqa: BLE001 - Airflow raises several; the check of the executor says so
        return lambda _definition, _setting: None
    configured = now if configured_already else names_after(now, {class_name(cls)}, team)
    names = {one.alias or one.module_path.rpartition(".")[2]: names_of(one) for one in configured}
    used = [name for name in names_in_use() if any(name in one for one in names.values())]
    needed, sent = setting_for_containers(configured, team), adapter.tuning.container_executors
    judge = Judge(names, used, needed, sent=sent)
    if configured == now or not sent:
        return judge
    return lambda definition, setting: judge(definition, needed if setting is None else setting)


class Judge:
    """
    Judges what containers have as ``[core] executor``.

    :param names: of each configured executor, by the one that people use
    :param used: those that task instances name which are not over
    :param setting: what containers need; None if one executor without an alias is configured
    :param sent: containers get it from the executor
    """

    def __init__(
        self, names: Mapping[str, set[str]], used: Iterable[str], setting: str | None, *, sent: bool
    ) -> None:
        self._names = names
        self._used = sorted(used)
        self._setting = setting
        self._sent = sent

    def __call__(self, definition: str, setting: str | None) -> Finding | None:
        """Judge a setting; None: the image of a container has it, or Airflow's default applies."""
        name = f"Executors in containers, {definition}"
        if setting is None:
            return self._judge_image(name)
        known = {known for one in _entries(setting) for known in _names_in(one)}
        if lost := [one for one in self._used if one not in known]:
            return problem(
                name,
                f"{EXECUTOR_SETTING} = {setting!r} lacks {_listed(lost)}, which tasks name: Airflow in containers "
                "refuses their DAGs, and none of their tasks runs",
                self._way_out,
            )
        if lost := [one for one, names in self._names.items() if not names & known]:
            return warning(
                name,
                f"{EXECUTOR_SETTING} = {setting!r} lacks {_listed(lost)}: DAGs with tasks that name it do not run",
                self._way_out,
            )
        return None

    def _judge_image(self, name: str) -> Finding | None:
        if not self._used and self._setting is None:
            return None
        said = f"tasks name {_listed(self._used)}" if self._used else "tasks can name an executor"
        return warning(
            name,
            f"{said}, and only an image that has it in [core] executor runs their DAGs",
            self._way_out,
        )

    @property
    def _way_out(self) -> str:
        if self._setting is not None:
            own = "remove it" if self._sent else "set container_executors = True"
            return f"{own}, or set it to {self._setting!r}"
        return f"set {EXECUTOR_SETTING} in the definition to the scheduler's [core] executor"


def names_in_use() -> list[str]:
    """Return the executors that task instances name which are not over; none if there is no database."""
    query: Any = select(_ti.executor).where(
        or_(_ti.state.is_(None), _ti.state.not_in(_ENDED)), _ti.executor.is_not(None)
    )
    try:
        with create_session(scoped=False) as session:
            return [str(one) for one in session.scalars(query.distinct())]
    except Exception:  # noqa: BLE001 - what else is looked at needs none
        return []


def names_of(name: Any) -> set[str]:
    """Return what a task can call a configured executor."""
    return {one for one in (name.alias, name.module_path, name.module_path.rpartition(".")[2]) if one}


def _entries(setting: str) -> list[str]:
    """Return the executors in ``[core] executor``, those of teams too."""
    return [one.strip() for part in setting.split(";") for one in part.rpartition("=")[2].split(",")]


def _names_in(entry: str) -> set[str]:
    alias, _, path = entry.rpartition(":")
    return {one for one in (alias, path, path.rpartition(".")[2]) if one}


def _listed(names: Iterable[str]) -> str:
    return " and ".join(map(repr, names))
