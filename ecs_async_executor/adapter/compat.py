"""
The differences between Airflow 3.1, 3.2, 3.3 and 3.4 that the executors meet, and nothing else.

May import Airflow only. A version decides only where the objects themselves cannot.
"""

from __future__ import annotations

import importlib
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from uuid import UUID

import airflow
import msgspec
from airflow.executors import workloads
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import with_row_locks
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import joinedload, object_session
from sqlalchemy.orm.exc import StaleDataError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "AIRFLOW_VERSION",
    "RETRIED_DATABASE_ERRORS",
    "AirflowException",
    "ExecuteCallback",
    "ExecuteTask",
    "Key",
    "VersionedExecutor",
    "callback_model",
    "configured_executors",
    "executor_names",
    "forget_queued",
    "fresh_jwt",
    "has_id",
    "hostname",
    "jwt_expiry",
    "load_for_adoption",
    "log_paths",
    "lost_to_others",
    "our_executors",
    "queued_keys",
    "queued_tasks",
    "rebuild",
    "remote_logs",
    "section_in_file",
    "stats",
    "take",
    "task_key",
    "teams_of",
    "tries_table",
    "unsupported",
    "uuid_of",
    "with_fresh_jwt",
]

Key: TypeAlias = Any
"""Names a workload in ``running`` and in events; its type differs by version."""

AIRFLOW_VERSION: tuple[int, int] = cast(
    "tuple[int, int]", tuple(int(part) for part in airflow.__version__.split(".")[:2])
)

AirflowException: type[Exception] = importlib.import_module("airflow.exceptions").AirflowException
"""Its module moves; all versions have it under this name."""

ExecuteTask: Any = workloads.ExecuteTask
ExecuteCallback: Any = getattr(workloads, "ExecuteCallback", ())
"""An empty tuple where Airflow has none (3.1): ``isinstance(x, ())`` is False."""

_WorkloadType: Any = getattr(workloads, "WorkloadType", None)
"""3.4 has one dictionary of queues by type; earlier versions have an attribute for each queue."""

RETRIED_DATABASE_ERRORS = (DBAPIError, StaleDataError)
"""Errors after which the scheduler repeats an adoption."""

_TIS_PER_QUERY = 1000
_HELD = frozenset({"queued", "running", "restarting"})
"""States in which the scheduler's executor is responsible for a task instance."""
_job: Any = Job
_LONGER_QUEUE = 16
"""A queue this many times longer than what is taken from it: making the keys costs less than reading them all."""
_NEARLY_NEW = 0.05
"""Of a JWT's life: one of no greater age is as good as a new one, which costs a signature."""


def _find_stats() -> Any:
    # 3.3 made the singleton a module. From 3.2 the SDK has a second one, which is not initialised here.
    if AIRFLOW_VERSION >= (3, 2):
        module = importlib.import_module("airflow.observability.stats")
        return module if hasattr(module, "gauge") else module.Stats
    return importlib.import_module("airflow.stats").Stats


stats: Any = _find_stats()
"""Core's metrics: ``gauge``, ``incr``, ``timing`` and ``timer``."""


class VersionedExecutor(BaseExecutor):
    """A ``BaseExecutor`` that declares its abilities, and orders its queue, in the running Airflow's way."""

    if _WorkloadType is not None:
        supported_workload_types = frozenset({_WorkloadType.EXECUTE_TASK, _WorkloadType.EXECUTE_CALLBACK})
        # An event with the id of the try is not ambiguous, as one with dag, task and run can be.
        supports_task_instance_uuid = True
    else:
        supports_callbacks = True

        def order_queued_tasks_by_priority(self) -> list[tuple[Any, Any]]:
            """Put the highest ``priority_weight`` first: 3.2.0 to 3.3.1 put the lowest first."""
            return sorted(
                self.queued_tasks.items(), key=lambda item: cast("int", item[1].ti.priority_weight), reverse=True
            )


def _queues(executor: BaseExecutor) -> Iterator[dict[Any, Any]]:
    if _WorkloadType is not None:
        yield from cast("Any", executor).executor_queues.values()
        return
    for name in ("queued_tasks", "queued_callbacks", "queued_connection_tests"):
        queue = getattr(executor, name, None)
        if queue is not None:
            yield queue


def queued_keys(executor: BaseExecutor) -> list[Any]:
    """Return the keys of the workloads that the executor has not taken yet."""
    return [key for queue in _queues(executor) for key in list(queue)]


def queued_tasks(executor: BaseExecutor) -> dict[Any, UUID]:
    """Return the ids, by key, of the task instances that the executor has not taken yet."""
    queued = [item for queue in _queues(executor) for item in list(queue.items())]
    return {key: workload.ti.id for key, workload in queued if isinstance(workload, ExecuteTask)}


def uuid_of(ti: Any) -> UUID:
    """Return the id of a task instance as a UUID: 3.1's models have it as text, its workloads do not."""
    return ti.id if isinstance(ti.id, UUID) else UUID(ti.id)


def task_key(executor: BaseExecutor, ti: Any) -> Key:
    """Return the key of a task instance (a workload's ``ti`` or a model) in the executor's events."""
    get_task_key = getattr(executor, "get_task_key", None)
    return ti.key if get_task_key is None else get_task_key(ti)


def take(executor: BaseExecutor, workloads: Sequence[Any]) -> Iterator[tuple[Key, Any]]:
    """Yield workloads with their keys; remove each from its queue, or Airflow hands it over again."""
    queues = tuple(_queues(executor))
    known: dict[int, Key] = {}
    if sum(map(len, queues)) <= _LONGER_QUEUE * len(workloads):
        # Making a key costs as much as all else that is done with a workload.
        known = {id(workload): key for queue in queues for key, workload in queue.items()}
    for workload in workloads:
        key = known.get(id(workload))
        if key is None:
            key = _workload_key(executor, workload)
        for queue in queues:
            if queue.pop(key, None) is not None:
                break
        yield key, workload


def _workload_key(executor: BaseExecutor, workload: Any) -> Key:
    if isinstance(workload, ExecuteTask):
        return task_key(executor, workload.ti)
    if isinstance(workload, ExecuteCallback) and AIRFLOW_VERSION < (3, 3):
        return workload.callback.id
    return workload.key


def forget_queued(executor: BaseExecutor, key: Key) -> None:
    """Remove a key from the queues."""
    for queue in _queues(executor):
        queue.pop(key, None)


def unsupported(workload: Any) -> str | None:
    """Return why a container of this Airflow version cannot run a workload, or None if it can."""
    if isinstance(workload, ExecuteTask):
        return None
    if isinstance(workload, ExecuteCallback):
        if AIRFLOW_VERSION >= (3, 3):
            return None
        return (
            f"Airflow {airflow.__version__} cannot run a callback in a container: its "
            "airflow.sdk.execution_time.execute_workload takes tasks only. Airflow 3.3 and later can."
        )
    return f"This executor does not run workloads of type {type(workload).__name__}."


def with_fresh_jwt(workload: Any, generator: Any) -> tuple[Any, float | None]:
    """
    Return a workload with a JWT that has nearly all of its life left: Airflow's own, or a new one.

    :returns: the workload, and when its JWT expires: see :func:`jwt_expiry`
    """
    subject = str(workload.ti.id if isinstance(workload, ExecuteTask) else workload.callback.id)
    token, expires = fresh_jwt(workload.token, subject, generator, workload)
    return (workload if token is workload.token else workload.model_copy(update={"token": token})), expires


def fresh_jwt(token: str, subject: str, generator: Any, workload: Any) -> tuple[str, float | None]:
    """
    Return a JWT with nearly all of its life left: the one given, or a new one.

    :param workload: a workload, or the type of workloads, which knows how Airflow makes one
    :returns: the JWT, and when it expires: see :func:`jwt_expiry`
    """
    claims = _claims(token)
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if issued is not None and expires is not None:
        age = time.time() - issued
        if 0 <= age <= _NEARLY_NEW * (expires - issued):
            return token, expires
    if hasattr(workload, "generate_token"):
        token = workload.generate_token(subject, generator)
    else:
        token = generator.generate({"sub": subject})
    return token, jwt_expiry(token)


def jwt_expiry(token: str) -> float | None:
    """Return when a JWT expires, in wall-clock seconds; its lifetime depends on version and settings."""
    return _moment(_claims(token), "exp")


def _claims(token: str) -> Any:
    with suppress(ValueError, IndexError, msgspec.DecodeError):
        payload = token.split(".")[1]
        return msgspec.json.decode(urlsafe_b64decode(payload + "=="))  # more padding than is needed does no harm
    return None


def _moment(claims: Any, name: str) -> float | None:
    with suppress(KeyError, TypeError, ValueError):
        return float(claims[name])
    return None


def load_for_adoption(tis: Sequence[Any]) -> Session | None:
    """
    Load what adoption needs of task instances, with few queries.

    The scheduler loaded some columns only; each of the others would cost a query per task instance.

    :returns: their session, or None if they have none
    """
    session = object_session(tis[0])
    if session is None:
        return None
    run = joinedload(TaskInstance.dag_run)
    if _WorkloadType is not None:
        run = run.joinedload(_dag_run().created_dag_version)
    ids = [ti.id for ti in tis]
    for start in range(0, len(ids), _TIS_PER_QUERY):
        session.scalars(
            select(TaskInstance)
            .where(TaskInstance.id.in_(ids[start : start + _TIS_PER_QUERY]))
            .options(run, joinedload(TaskInstance.dag_model))
        ).all()
    return session


def has_id(ids: Iterable[UUID], column: Any = TaskInstance.id) -> Any:
    """Return the condition that an id is one of these: 3.1 has them as text."""
    return column.in_([str(one) if column.type.python_type is str else one for one in ids])


def lost_to_others(ids: Sequence[UUID], job_id: int, fresh: float) -> set[UUID] | None:
    """
    Return which task instances a scheduler has lost: another has adopted them, or they are past their launch.

    Others adopt only from a scheduler that looks dead. So the answer is final if the scheduler's own row says that
    it lives, and if no row of the task instances is locked, as an adoption locks them.

    :param fresh: seconds; nobody adopts from a scheduler with a heartbeat younger than this
    :returns: None if there is no final answer yet
    """
    with create_session(scoped=False) as session:
        job = session.execute(select(_job.state, _job.latest_heartbeat).where(_job.id == job_id)).one_or_none()
        oldest = datetime.now(tz=timezone.utc) - timedelta(seconds=fresh)
        if job is None or str(job.state) != "running" or job.latest_heartbeat < oldest:
            return None
        lost = set(ids)
        for start in range(0, len(ids), _TIS_PER_QUERY):
            some = ids[start : start + _TIS_PER_QUERY]
            query: Any = select(TaskInstance.id, TaskInstance.state, TaskInstance.queued_by_job_id)
            query = query.where(has_id(some))
            rows = session.execute(with_row_locks(query, session, of=TaskInstance, skip_locked=True)).all()
            skipped = set(some) - {uuid_of(row) for row in rows}
            if skipped and session.scalars(select(TaskInstance.id).where(has_id(skipped))).first():
                return None
            lost -= {uuid_of(row) for row in rows if row.queued_by_job_id == job_id and str(row.state) in _HELD}
        return lost


def tries_table(*, earlier: bool) -> tuple[Any, Any, Sequence[Any], Mapping[str, Any]]:
    """
    Return where tries of task instances are: the model, its column of ids, conditions, and execution options.

    :param earlier: the tries before the present ones; 3.4 has them in the table of the present ones
    """
    present: Any = TaskInstance
    if not earlier:
        return present, present.id, (), {}
    with suppress(ImportError):
        model = importlib.import_module("airflow.models.taskinstancehistory").TaskInstanceHistory
        return model, model.task_instance_id, (), {}
    return present, present.id, (present.working_set.is_(None),), {"include_all_attempts": True}


def callback_model() -> Any:
    """Return the model of callbacks; None on 3.1, which keeps none of those that executors run."""
    with suppress(ImportError):
        return importlib.import_module("airflow.models.callback").Callback
    return None


def _dag_run() -> Any:
    return importlib.import_module("airflow.models.dagrun").DagRun


def rebuild(tis: Sequence[Any]) -> Mapping[Any, Any]:
    """
    Make the workloads of task instances again, without JWTs, after :func:`load_for_adoption`.

    :returns: by task instance id, the workload, or the exception that prevented it
    """
    built: dict[Any, Any] = {}
    contexts = _log_contexts(tis)
    for ti in tis:
        more = {"log_context": contexts[ti.id]} if ti.id in contexts else {}
        try:
            built[ti.id] = ExecuteTask.make(ti, **more)
        except RETRIED_DATABASE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - it is about this workload alone
            built[ti.id] = error
    return built


def log_paths() -> Callable[[Any], str | None]:
    """Return a function that tells where Airflow keeps the log of a task instance's try; None if that fails."""
    try:
        from airflow.utils.helpers import log_filename_template_renderer

        render = log_filename_template_renderer()
    except Exception:  # noqa: BLE001 - the template is a user's
        return lambda _: None

    def log_path(ti: Any) -> str | None:
        try:
            return render(ti=ti)
        except RETRIED_DATABASE_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - only its file is missed
            return None

    return log_path


def remote_logs() -> Any:
    """Return what writes and reads task logs elsewhere (``RemoteLogIO``); None if logs stay where they are."""
    module = importlib.import_module("airflow.logging_config")
    find = getattr(module, "get_remote_task_log", None)
    return getattr(module, "REMOTE_TASK_LOG", None) if find is None else find()


def _log_contexts(tis: Sequence[Any]) -> Mapping[Any, Any]:
    if _WorkloadType is None or not tis:
        return {}
    # Unless these are given, 3.4 queries the database for each task instance.
    from airflow.configuration import conf

    address = importlib.import_module("airflow.utils.log.task_log_address")
    try:
        return cast(
            "Mapping[Any, Any]",
            address.prepare_task_log_contexts(
                tis,
                session=object_session(tis[0]),
                filename_template=conf.get("logging", "log_filename_template"),
            ),
        )
    except RETRIED_DATABASE_ERRORS:
        raise
    except Exception:  # noqa: BLE001 - it only saves queries
        return {}


def section_in_file(team_name: str | None, section: str) -> str | None:
    """Return the section of ``airflow.cfg`` with a team's options; None on 3.1, which reads only variables."""
    if not team_name:
        return section
    return f"{team_name}={section}" if AIRFLOW_VERSION >= (3, 2) else None


def hostname() -> str:
    """Return this machine's name, as Airflow's table of jobs has it."""
    get_hostname: Any = importlib.import_module("airflow.utils.net").get_hostname
    return str(get_hostname())


_Executor = TypeVar("_Executor", bound=BaseExecutor)


def our_executors(base: type[_Executor]) -> list[tuple[Any, _Executor]]:
    """Make, unstarted, the configured executors of all teams that are of this class, each with its name."""
    return [
        (name, cls(team_name=getattr(name, "team_name", None)))
        for name, cls in _configured()
        if issubclass(cls, base)
    ]


def configured_executors() -> list[type[BaseExecutor]]:
    """Import the configured executors of all teams."""
    return [cls for _, cls in _configured()]


def executors_for(named: str | None) -> list[type[BaseExecutor]]:
    """
    Import the executors that may run a task: one for each team.

    :param named: what the task names: an alias, a module path or a class; None: the default of its team
    """
    found: dict[str | None, type[BaseExecutor]] = {}
    for name, cls in _configured():
        if named is None or named in {name.alias, name.module_path, cls.__name__}:
            found.setdefault(getattr(name, "team_name", None), cls)
    return list(found.values())


def executor_names() -> list[Any]:
    """Return the names of the configured executors of all teams: module path, alias and team name."""
    from airflow.executors.executor_loader import ExecutorLoader

    loader: Any = ExecutorLoader
    if AIRFLOW_VERSION >= (3, 2):
        return list(loader.get_executor_names(validate_teams=False))
    return list(loader.get_executor_names())


def _configured() -> list[tuple[Any, type[BaseExecutor]]]:
    from airflow.executors.executor_loader import ExecutorLoader

    loader: Any = ExecutorLoader
    return [(name, loader.import_executor_cls(name)[0]) for name in executor_names()]


def teams_of(dag_ids: Iterable[str], session: Session) -> Mapping[str, str | None]:
    """Return the team of each DAG that has one."""
    from airflow.configuration import conf
    from airflow.models.dag import DagModel

    mapping: Any = getattr(DagModel, "get_dag_id_to_team_name_mapping", None)
    if mapping is None or not conf.getboolean("core", "multi_team", fallback=False):
        return {}
    return cast("Mapping[str, str | None]", mapping(sorted(dag_ids), session=session))
