"""What the demo runs on: a local server and an Airflow, as processes that are started and ended here."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ecs_async_executor.local.demo.airflow_home import AirflowHome, executor_class
from ecs_async_executor.local.demo.burst import LATENCY_SECONDS
from ecs_async_executor.local.demo.cloud import MISSING_IMAGE
from ecs_async_executor.local.demo.local_batch import Batch
from ecs_async_executor.local.demo.local_ecs import Ecs
from ecs_async_executor.local.demo.processes import Processes
from ecs_async_executor.local.demo.scenario import ABROAD, HOME, NO_CAPACITY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ecs_async_executor.local.demo.cloud import Cloud
    from ecs_async_executor.local.demo.interrupts import Interrupts
    from ecs_async_executor.local.demo.show import Show

CLOUDS: dict[str, Callable[[str], Cloud]] = {"ecs": Ecs, "batch": Batch}
"""The services to choose from."""

COMPONENTS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag_processor": "DAG processor"}
"""What Airflow's health report has to call healthy, and what people call it."""

AT_A_TIME = 12
"""Containers that run at once on the local server: those of the burst are small."""
POLL_SECONDS = 0.1
START_SECONDS = 120.0
PATIENCE_SECONDS = 20.0
"""How long processes get to end by themselves: more than the executor's shutdown_timeout."""
API_PATIENCE_SECONDS = 2.0
"""The same for the API server, which takes a quarter of a minute, and has nothing to lose."""


class FailedError(Exception):
    """Something did not happen in time."""


class Stage:
    """
    A local server and an Airflow that uses it.

    :param folder: an empty folder, for everything
    :param service: one of :data:`CLOUDS`
    :param provider: with the amazon provider's executor
    :param lasting: with what lasts as long as the demo is kept
    """

    def __init__(
        self, folder: Path, show: Show, interrupts: Interrupts, *, service: str, provider: bool, lasting: bool
    ) -> None:
        self.service = service
        self.provider = provider
        self.airflow = AirflowHome(folder / "airflow", lasting=lasting, steered=not provider)
        logs = folder / "logs"
        logs.mkdir()
        self.processes = Processes(logs, self.airflow.environment, interrupts)
        self._show = show
        self._lasting = lasting

    @property
    def executor(self) -> str:
        """The class of the executor, as Airflow's configuration names it."""
        return executor_class(self.service, provider=self.provider)

    def start_cloud(self, settings: Mapping[str, str]) -> Cloud:
        """
        Start the local server, and make there what the DAGs need.

        :param settings: the part of Airflow's environment that comes from elsewhere
        """
        port_file = self.processes.logs / "ecs.port"
        with self._show.waiting("Starting the local server") as tell:
            self.processes.start(
                "local-ecs",
                *(sys.executable, "-m", "ecs_async_executor.local", "--host", "127.0.0.1", "--port", "0"),
                *("--port-file", str(port_file), "--runner", "subprocess", "--max-running", str(AT_A_TIME)),
                *("--log-dir", str(self.processes.logs / "containers"), "--latency", str(LATENCY_SECONDS)),
                *("--stop-timeout", "2", "--missing-image", MISSING_IMAGE),
                *("--region", HOME, "--other-region", ABROAD),
            )
            self.until(
                "the local server listens", lambda: port_file.exists() and port_file.read_text().strip(), tell
            )
            cloud = CLOUDS[self.service](f"http://127.0.0.1:{port_file.read_text().strip()}")
            if self._lasting:
                cloud.withhold_capacity(NO_CAPACITY.task_id, for_good=True)
            self.processes.environment = {
                **self.airflow.environment,
                **self.airflow.staged,
                **self.airflow.status,
                **cloud.settings(self.airflow, provider=self.provider),
                **settings,
            }
            if not self.provider:
                self.processes.environment |= self.airflow.steering(cloud.rules())
                cloud.fill_cheap_capacity()
        return cloud

    def start_airflow(self) -> None:
        """Start the scheduler last: the containers that it launches report to the API server at once."""
        with self._show.waiting("Making Airflow's database") as tell:
            self.processes.run(
                "db-migrate", *_airflow("db", "migrate"), meanwhile=lambda: tell("airflow db migrate")
            )
        with self._show.waiting("Starting Airflow") as tell:
            self.processes.start("api-server", *_airflow("api-server"))
            self.processes.start("dag-processor", *_airflow("dag-processor"))
            self.processes.start("triggerer", *_airflow("triggerer", "--skip-serve-logs"))
            self.until("the API server answers", self.airflow.health, tell)
            self.airflow.make_pool()
            self.processes.start("scheduler", *_airflow("scheduler", "--skip-serve-logs"))
            self.until(self._unhealthy, lambda: not self._missing(), tell)

    def _missing(self) -> list[str]:
        health = self.airflow.health()
        return [people for name, people in COMPONENTS.items() if health.get(name) != "healthy"]

    def _unhealthy(self) -> str:
        missing = self._missing()
        return f"these are healthy: {', '.join(missing)}" if missing else "all of it is healthy"

    def stop(self, meanwhile: Callable[[str], object]) -> None:
        """
        End everything: Airflow first, while the containers still have somebody to report to.

        :param meanwhile: called again and again with the names of the processes that are waited for
        """
        airflow = ("scheduler", "dag-processor", "triggerer")
        self.processes.stop(airflow, patience=PATIENCE_SECONDS, meanwhile=meanwhile)
        self.processes.stop(("api-server",), patience=API_PATIENCE_SECONDS, meanwhile=meanwhile)
        self.processes.stop(patience=PATIENCE_SECONDS, meanwhile=meanwhile)

    def until(
        self,
        what: str | Callable[[], str],
        reached: Callable[[], object],
        tell: Callable[[str], None],
        *,
        seconds: float = START_SECONDS,
    ) -> None:
        """
        Wait until something is reached, and tell meanwhile what that is.

        :raises FailedError: if it takes too long
        """
        deadline = time.monotonic() + seconds
        while not reached():
            self.processes.check()
            missing = what if isinstance(what, str) else what()
            if time.monotonic() > deadline:
                raise FailedError(f"Waited {seconds:.0f} s in vain until {missing}")
            tell(f"until {missing}")
            time.sleep(POLL_SECONDS)


def _airflow(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "airflow", *arguments)
