"""Airflow with settings of the tests' own: no user's ``airflow.cfg``, no examples, one JWT secret."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ecs_async_executor import AsyncEcsExecutor
    from ecs_async_executor.local import LocalEcs
    from tests.adapter.metadata import Metadata

SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "32",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for every algorithm " * 2,
    "AIRFLOW__ECS_ASYNC_EXECUTOR__GC_FREEZE": "False",  # these processes start many executors
    "AIRFLOW__BATCH_ASYNC_EXECUTOR__GC_FREEZE": "False",
    # What containers get depends on [core] executor, which the tests of the UI set for their whole process.
    "AIRFLOW__ECS_ASYNC_EXECUTOR__CONTAINER_EXECUTORS": "False",
    "AIRFLOW__BATCH_ASYNC_EXECUTOR__CONTAINER_EXECUTORS": "False",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:1",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "eu-west-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_NAME": "airflow",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_QUEUE": "default",
    "AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION": "airflow:1",
    "AIRFLOW__AWS_BATCH_EXECUTOR__CONN_ID": "",
    "AIRFLOW__AWS_BATCH_EXECUTOR__REGION_NAME": "eu-west-1",
    "AIRFLOW__AWS_BATCH_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
}

# Airflow reads its home when it is imported, which is before any fixture; the other tests do not need another.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = _home = tempfile.mkdtemp(prefix="ecs-async-airflow-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", SETTINGS["AIRFLOW__API_AUTH__JWT_SECRET"])

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            # Airflow's own use of what its dependencies deprecate is not ours to mend; our use of Airflow is.
            item.add_marker(pytest.mark.filterwarnings("ignore:::(?!ecs_async_executor|tests)"))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the executor, by environment, for each test."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep late answers about credentials, which the process remembers for a minute, from the next test."""
    from ecs_async_executor.services import blocking

    monkeypatch.setattr(blocking, "_asked", {})


@pytest.fixture
def make_executor() -> Callable[..., Any]:
    """Make executors over a scripted bridge, started unless told otherwise."""
    from tests.adapter.scripted import ScriptedExecutor

    def make(cls: type[Any] = ScriptedExecutor, *, start: bool = True, **arguments: Any) -> Any:
        executor = cls(**arguments)
        if start:
            executor.start()
        return executor

    return make


@pytest.fixture
def executor(make_executor: Callable[..., Any]) -> Any:
    """A started executor over a scripted bridge."""
    return make_executor()


@pytest.fixture
def bridge(executor: Any) -> Any:
    return executor.scripted


@pytest.fixture
def local_ecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LocalEcs]]:
    """Open local ECSs, on sockets of their own, that the executors' settings lead to; options are theirs."""
    pytest.importorskip("moto", reason="needs the extra 'local'")
    from ecs_async_executor import local

    with ExitStack() as opened:

        def start(**options: Any) -> LocalEcs:
            ecs: LocalEcs = opened.enter_context(local.LocalEcs(clusters=["main"], **options))
            ecs.register("family", "airflow")
            for name in [name for name in os.environ if name.startswith(("AWS_", "MOTO_"))]:
                monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", ecs.url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_BATCH", ecs.url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", ecs.url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
            for service in ("ECS", "BATCH"):
                monkeypatch.setenv(f"AIRFLOW__AWS_{service}_EXECUTOR__REGION_NAME", ecs.region)
                monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__POLL_INTERVAL", "0.2")
            return ecs

        yield start


@pytest.fixture
def started() -> Iterator[Callable[..., AsyncEcsExecutor]]:
    """Start executors that are ended with the test."""
    from ecs_async_executor import AsyncEcsExecutor

    with ExitStack() as opened:

        def start(cls: type[AsyncEcsExecutor] = AsyncEcsExecutor, **arguments: Any) -> AsyncEcsExecutor:
            executor = cls(**arguments)
            opened.callback(executor.end)
            executor.start()
            return executor

        yield start


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Airflow's with one run of a DAG; to be copied."""
    from tests.adapter import metadata

    return metadata.build(tmp_path_factory.mktemp("airflow"))


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Iterator[Metadata]:
    """A database of the test's own, with one run of a DAG."""
    from tests.adapter import metadata

    database = metadata.copy_of(template, tmp_path / "airflow.db")
    yield database
    database.close()


@pytest.fixture
def place(
    local_ecs: Callable[..., LocalEcs],
    database: Metadata,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., Any]]:
    """Open a local service whose containers task instances of the test's own database wait for."""
    import airflow.settings

    from tests.adapter import steering

    monkeypatch.setattr(airflow.settings, "NonScopedSession", database.sessions)

    def open_(service: str, **options: Any) -> Any:
        local = local_ecs(**{"runner": "subprocess", "stop_timeout": 1.0, "inherit_environment": True} | options)
        local.register("family", "airflow", logConfiguration=steering.LOGGED)
        monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family:2")
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", local.url)
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", f"ecs_async_executor.{steering.EXECUTORS[service].__name__}")
        steering.forget_executors()
        return steering.Place(service, local, database, capsys)

    yield open_
    steering.forget_executors()
