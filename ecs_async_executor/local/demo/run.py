"""The demo from beginning to end. Whatever happens, it leaves neither a process nor a file behind."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ecs_async_executor.local.demo.airflow_home import AirflowHome, executor_class
from ecs_async_executor.local.demo.cloud import MISSING_IMAGE
from ecs_async_executor.local.demo.interrupts import Interrupts, StoppedError
from ecs_async_executor.local.demo.journeys import journeys, misplaced, steered
from ecs_async_executor.local.demo.local_batch import Batch
from ecs_async_executor.local.demo.local_ecs import Ecs
from ecs_async_executor.local.demo.processes import DiedError, Processes
from ecs_async_executor.local.demo.report import Report
from ecs_async_executor.local.demo.scenario import (
    ABROAD,
    HOME,
    HOST_LOST,
    LASTING,
    MOVES,
    NO_CAPACITY,
    PLACEMENT,
    SCENARIO,
)
from ecs_async_executor.local.demo.show import Show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecs_async_executor.local.demo.cloud import Cloud, Ran

CLOUDS: dict[str, Callable[[str], Cloud]] = {"ecs": Ecs, "batch": Batch}
"""The services to choose from."""

COMPONENTS = ("scheduler", "triggerer", "dag_processor")
"""What Airflow's health report has to call healthy."""

POLL_SECONDS = 0.5
START_SECONDS = 90.0
TIMEOUT_SECONDS = 180.0
TELL_SECONDS = 30.0
"""How long the executor may take to say what it knows of the last ends."""
PATIENCE_SECONDS = 20.0
"""How long processes get to end by themselves: more than the executor's shutdown_timeout."""


class FailedError(Exception):
    """Something did not happen in time."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    How the demo is run.

    :param service: one of :data:`CLOUDS`
    :param provider: with the amazon provider's own executor, for comparison
    :param keep: go on after the report until it is interrupted, with tasks that run and wait all the time
    :param timeout: seconds that the DAGs may take
    """

    service: str = "ecs"
    provider: bool = False
    keep: bool = False
    timeout: float = TIMEOUT_SECONDS


def demo(options: Options) -> int:
    """Run the demo and return its exit status: 0 only if everything went as expected."""
    show = Show()
    with Interrupts() as interrupts:
        folder = Path(tempfile.mkdtemp(prefix="ecs-async-executor-demo-"))
        try:
            airflow = AirflowHome(folder / "airflow", lasting=options.keep, steered=not options.provider)
            logs = folder / "logs"
            logs.mkdir()
            return Run(options, show, airflow, Processes(logs, airflow.environment, interrupts)).guarded()
        except StoppedError as stopped:
            show.say(f"Ended by {stopped}; nothing is left behind")
            return 128 + stopped.number
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Run:
    """One run of the demo."""

    def __init__(self, options: Options, show: Show, airflow: AirflowHome, processes: Processes) -> None:
        self._options = options
        self._show = show
        self._airflow = airflow
        self._processes = processes
        self._scenario = (
            *SCENARIO,
            *(() if options.provider else PLACEMENT[options.service]),
            *(LASTING if options.keep else ()),
        )
        self._interrupted: set[str] = set()

    def guarded(self) -> int:
        """Run, explain what went wrong, and end everything in any case. Return the exit status."""
        try:
            return self._run()
        except (DiedError, FailedError) as error:
            self._show.say(f"[red]{error}[/]")
            self._show_logs()
            return 1
        finally:
            # Before a word is written: there may be nobody left to write to.
            began = time.monotonic()
            self._stop()
            self._show.say(f"All processes have ended, within {time.monotonic() - began:.1f} s")

    def _run(self) -> int:
        show, airflow = self._show, self._airflow
        executor = executor_class(self._options.service, provider=self._options.provider)
        show.say(f"Airflow with {executor}, in {airflow.folder.parent}")
        with show.waiting("Starting the local server"):
            cloud = self._start_cloud()
        show.say(f"The local {cloud.name} listens on {cloud.url}")
        if not self._options.provider:
            show.file("The executor's rules", airflow.rules)
        with show.waiting("Making Airflow's database"):
            self._airflow_process("db-migrate", "db", "migrate", wait=True)
        with show.waiting("Starting Airflow"):
            self._start_airflow()
        show.say(f"Airflow's API server listens on {airflow.url}")
        with show.waiting(f"Running the DAGs, at most {airflow.concurrency} task instances at a time"):
            report = self._watch(cloud)
        show.console.print(report.table())
        if steered(report.scenario):
            show.console.print(journeys(report))
        show.console.print(report.event_log())
        if report.last_words:
            show.console.print(report.said_last())
        surprises = [*report.surprises(), *misplaced(report)]
        for surprise in surprises:
            show.say(f"[red]{surprise}[/]")
        if surprises:
            self._show_logs(report)
        else:
            ran = f"{len(report.containers)} {cloud.noun}s"
            show.say(f"[green]{len(report.tries)} tries in {ran}, all as expected[/]")
        if self._options.keep:
            self._keep()
        return 1 if surprises else 0

    def _stop(self) -> None:
        """End everything: Airflow first, while the containers still have somebody to report to."""
        self._processes.stop(("scheduler", "dag-processor", "triggerer", "api-server"), patience=PATIENCE_SECONDS)
        self._processes.stop(patience=PATIENCE_SECONDS)

    def _show_logs(self, report: Report | None = None) -> None:
        """Write the ends of the logs that can tell what went wrong."""
        for path in sorted(self._processes.logs.glob("*.log")):
            self._show.tail_file(path)
        for read in report.tries if report else ():
            if read.state == "failed":
                self._show.tail(f"{read.label} try {read.number}", self._airflow.task_log(read))
        for path in sorted((self._processes.logs / "containers").rglob("*.log")):
            self._show.tail_file(path)

    def _start_cloud(self) -> Cloud:
        port_file = self._processes.logs / "ecs.port"
        self._processes.start(
            "local-ecs",
            *(sys.executable, "-m", "ecs_async_executor.local", "--host", "127.0.0.1", "--port", "0"),
            *("--port-file", str(port_file), "--runner", "subprocess"),
            *(
                "--max-running",
                str(self._airflow.concurrency + 1),
                "--log-dir",
                str(self._processes.logs / "containers"),
            ),
            *("--stop-timeout", "2", "--missing-image", MISSING_IMAGE, "--region", HOME, "--other-region", ABROAD),
        )
        self._until("the local server listens", lambda: port_file.exists() and port_file.read_text().strip())
        cloud = CLOUDS[self._options.service](f"http://127.0.0.1:{port_file.read_text().strip()}")
        if self._options.keep:
            cloud.withhold_capacity(NO_CAPACITY.task_id, for_good=True)
        self._processes.environment = {
            **self._airflow.environment,
            **self._airflow.status,
            **cloud.settings(self._airflow, provider=self._options.provider),
        }
        if not self._options.provider:
            self._processes.environment |= self._airflow.steering(cloud.rules())
            cloud.fill_cheap_capacity()
        return cloud

    def _start_airflow(self) -> None:
        """Start the scheduler last: the containers that it launches report to the API server at once."""
        self._airflow_process("api-server", "api-server")
        self._airflow_process("dag-processor", "dag-processor")
        self._airflow_process("triggerer", "triggerer", "--skip-serve-logs")
        self._until("the API server answers", self._airflow.health)
        self._airflow_process("scheduler", "scheduler", "--skip-serve-logs")
        self._until(
            "all of Airflow is healthy",
            lambda: all(self._airflow.health().get(name) == "healthy" for name in COMPONENTS),
        )

    def _airflow_process(self, name: str, *arguments: str, wait: bool = False) -> None:
        command = (sys.executable, "-m", "airflow", *arguments)
        if wait:
            self._processes.run(name, *command)
        else:
            self._processes.start(name, *command)

    def _watch(self, cloud: Cloud) -> Report:
        """Follow the task instances until Airflow is done with them."""
        deadline = time.monotonic() + self._options.timeout
        settled_at: float | None = None
        while True:
            self._processes.check()
            tries = self._airflow.tries()
            report = Report(
                self._scenario,
                tries=tries,
                containers=cloud.containers(),
                entries=self._airflow.executor_entries(),
                last_words={(t.label, t.number): words for t in tries if (words := self._airflow.last_words(t))},
                noun=cloud.noun,
                ours=not self._options.provider,
            )
            self._show.news(report.tries)
            if report.settled():
                settled_at = settled_at or time.monotonic()
                if report.told() or time.monotonic() > settled_at + TELL_SECONDS:
                    return report
            self._take_host_away(report, cloud)
            self._take_capacity_back(report, cloud)
            if time.monotonic() > deadline:
                self._show.console.print(report.table())
                raise FailedError(f"The DAGs were not done after {self._options.timeout:.0f} s")
            time.sleep(POLL_SECONDS)

    def _take_host_away(self, report: Report, cloud: Cloud) -> None:
        """Take the host of the first container away once user code runs in it; the retry finds no capacity."""
        for ran in self._running_at_first(report, HOST_LOST.label):
            cloud.withhold_capacity(HOST_LOST.task_id)
            cloud.take_host_away(ran.id)
            lost = f"the host of {cloud.noun} {ran.short} is taken away"
            self._show.say(f"{ran.label}: {lost}, and there is no other at first")

    def _take_capacity_back(self, report: Report, cloud: Cloud) -> None:
        """Interrupt the first container on cheap capacity once user code runs in it."""
        for one in steered(report.scenario):
            if one.task_id == MOVES:
                for ran in self._running_at_first(report, one.label):
                    cloud.take_capacity_back(ran.id)
                    self._show.say(f"{ran.label}: the cheap capacity of {cloud.noun} {ran.short} is taken back")

    def _running_at_first(self, report: Report, label: str) -> Iterator[Ran]:
        """Yield once each container in which the first try of a task instance runs."""
        for read in report.tries:
            if (read.label, read.number, read.state) != (label, 1, "running"):
                continue
            for ran in report.of(read.label, read.number):
                if ran.status == "RUNNING" and ran.id not in self._interrupted:
                    self._interrupted.add(ran.id)
                    yield ran

    def _keep(self) -> None:
        self._show.say(f"Airflow's UI is at {self._airflow.url} (nobody needs to log in); Ctrl-C ends it all")
        while True:
            self._processes.check()
            time.sleep(POLL_SECONDS)

    def _until(self, what: str, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not reached():
            self._processes.check()
            if time.monotonic() > deadline:
                raise FailedError(f"Waited {START_SECONDS:.0f} s in vain until {what}")
            time.sleep(POLL_SECONDS / 5)
