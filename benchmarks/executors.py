"""Airflow's side of a measurement: settings, workloads with real tokens, and the executors themselves."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from benchmarks.cells import ALL_OURS, OURS, OURS_ON_BATCH, PROVIDER, PROVIDER_ON_BATCH, Cell

BUSY = 0.1
"""Seconds between two heartbeats of a busy scheduler, for the queries of its loop."""
IDLE = 1.0
"""Seconds between two heartbeats of an idle scheduler (``scheduler_idle_sleep_time``)."""

SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__PARALLELISM": "100000",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for every algorithm " * 2,
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "default",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "benchmark",
    "AIRFLOW__AWS_ECS_EXECUTOR__LAUNCH_TYPE": "FARGATE",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-0a1b2c3d4e5f60718",
    "AIRFLOW__AWS_ECS_EXECUTOR__SECURITY_GROUPS": "sg-0a1b2c3d4e5f60718",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION": "airflow",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_NAME": "benchmark",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_QUEUE": "default",
    "AIRFLOW__AWS_BATCH_EXECUTOR__CONN_ID": "",
    "AIRFLOW__AWS_BATCH_EXECUTOR__REGION_NAME": "us-east-1",
    "AIRFLOW__AWS_BATCH_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "True",
}


def configure(cell: Cell, endpoint: str, home: str) -> None:
    """Set the environment variables of Airflow and the AWS clients; call it before Airflow is imported."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AIRFLOW"))]:
        del os.environ[name]
    os.environ.update(SETTINGS)
    section = f"AIRFLOW__{cell.service.upper()}_ASYNC_EXECUTOR__"
    os.environ.update({f"{section}{name.upper()}": value for name, value in cell.tuning.items()})
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    )
    if cell.algorithm == "RS256":
        del os.environ["AIRFLOW__API_AUTH__JWT_SECRET"]
        os.environ["AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH"] = _private_key(home)


def _private_key(home: str) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = os.path.join(home, "key.pem")  # noqa: PTH118 - Airflow takes a text
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return path


def start(subject: str) -> Any:
    """Return an executor of a subject's class, started as the scheduler does, with all its models loaded."""
    from airflow.models import import_all_models
    from sqlalchemy.orm import configure_mappers

    cast("Any", import_all_models)()
    configure_mappers()
    if subject == PROVIDER:
        from airflow.providers.amazon.aws.executors.ecs import AwsEcsExecutor

        executor: Any = cast("Any", AwsEcsExecutor)()
    elif subject == OURS:
        from ecs_async_executor import AsyncEcsExecutor

        executor = AsyncEcsExecutor()
    elif subject == PROVIDER_ON_BATCH:
        from airflow.providers.amazon.aws.executors.batch import AwsBatchExecutor

        executor = cast("Any", AwsBatchExecutor)()
    elif subject == OURS_ON_BATCH:
        from ecs_async_executor import AsyncBatchExecutor

        executor = AsyncBatchExecutor()
    else:
        raise ValueError(subject)
    executor.start()
    return executor


def end(subject: str, executor: Any) -> None:
    """End one of our executors; the provider's would wait for all containers."""
    if subject in ALL_OURS:
        executor.end()


def workloads(number: int, generator: Any) -> list[Any]:
    """Return workloads as the scheduler makes them: with a JWT and a pre-assigned identity."""
    from airflow.executors.workloads import ExecuteTask

    made = []
    for index in range(number):
        ti = {
            "id": uuid.uuid4(),
            "dag_version_id": uuid.uuid4(),
            "task_id": f"transform_orders_{index}",
            "dag_id": "warehouse_nightly",
            "run_id": "scheduled__2026-11-20T00:00:00+00:00",
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1 + index % 7,
            "external_executor_id": str(uuid.uuid4()),
        }
        made.append(
            ExecuteTask.model_validate(
                {
                    "ti": ti,
                    "dag_rel_path": "warehouse/nightly.py",
                    "token": generator.generate({"sub": str(ti["id"])}),
                    "log_path": f"dag_id=warehouse_nightly/task_id=transform_orders_{index}/attempt=1.log",
                    "bundle_info": {"name": "dags-folder", "version": None},
                }
            )
        )
    return made


def requests(cell: Cell) -> list[dict[str, Any]]:
    """Return the requests that our executor would send for ``size`` workloads."""
    from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
    from ecs_async_executor.services.batch import job_name

    batch = cell.service == "batch"
    executor = AsyncBatchExecutor() if batch else AsyncEcsExecutor()
    executor.workloads.prepare(executor.jwt_generator)  # what start() does, without the loop thread
    made = []
    for workload in workloads(cell.size, executor.jwt_generator):
        launch, _ = executor.workloads.new_launch(None, workload, time.time())
        request = executor.workloads.render(launch).request
        token = f"{launch.launch_id}-1"
        sent = {"jobName": job_name(request["jobName"], token)} if batch else {"clientToken": token}
        made.append({**request, **sent})
    return made


def orphans(arns: Sequence[str]) -> list[Any]:
    """
    Return running task instances of a dead scheduler, made without a database.

    Each has texts of its own, as the rows have that a database's driver reads.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import inspect
    from sqlalchemy.orm import configure_mappers

    configure_mappers()
    new = inspect(TaskInstance).class_manager.new_instance
    queued_at = datetime.now(tz=timezone.utc) - timedelta(hours=1)  # before their containers start
    made = []
    for index, arn in enumerate(arns):
        ti = new()
        hour = index // 1000 % 24
        columns = {
            "id": uuid.uuid4(),
            "dag_id": b"warehouse_nightly".decode(),
            "task_id": f"load_{index % 1000}",
            "run_id": f"scheduled__2026-11-{20 + index // 24_000:02}T{hour:02}:00:00+00:00",
            "map_index": -1,
            "try_number": 1,
            "state": "running",
            "queue": "default",
            "priority_weight": 1,
            "queued_dttm": queued_at,
            "external_executor_id": arn,
            "executor_config": {},
        }
        for name, value in columns.items():
            setattr(ti, name, value)
        made.append(ti)
    return made


def adopt(subject: str, executor: Any, tis: Sequence[Any]) -> float:
    """
    Have an executor adopt task instances, as the scheduler does while it holds locks on their rows.

    The provider's executor also rebuilds each workload, which needs a database. That is left out, to its
    advantage.

    :returns: seconds that the adoption took
    :raises RuntimeError: if the executor refuses a task instance
    """
    if subject == PROVIDER:
        executor._build_task_command = lambda _: ["airflow"]  # noqa: SLF001 - the part that is left out
    begun = time.perf_counter()
    refused = executor.try_adopt_task_instances(tis)
    seconds = time.perf_counter() - begun
    if refused:
        raise RuntimeError(f"{len(refused)} task instances were not adopted")
    executor.running.update(key_of(executor, ti) for ti in tis)
    return seconds


def key_of(executor: Any, ti: Any) -> Any:
    """Return the key that stands for a task instance in events."""
    return executor.get_task_key(ti) if hasattr(executor, "get_task_key") else ti.key


def events(executor: Any) -> Iterable[tuple[Any, str]]:
    """Take the events as the scheduler does after each heartbeat; return keys and states."""
    buffered: Mapping[Any, Any] = executor.get_event_buffer()
    return [(key, str(getattr(event[0], "value", event[0]))) for key, event in buffered.items()]
