"""The demo from beginning to end. Whatever happens, it leaves neither a process nor a file behind."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from ecs_async_executor.local.demo.burst import table
from ecs_async_executor.local.demo.compare import comparison
from ecs_async_executor.local.demo.heartbeats import Heartbeats
from ecs_async_executor.local.demo.interrupts import Interrupts, StoppedError
from ecs_async_executor.local.demo.journeys import journeys, misplaced, steered
from ecs_async_executor.local.demo.measure import driven, in_airflow, provider_version
from ecs_async_executor.local.demo.processes import DiedError
from ecs_async_executor.local.demo.scenario import LASTING, PLACEMENT, SCENARIO
from ecs_async_executor.local.demo.show import Show
from ecs_async_executor.local.demo.stage import POLL_SECONDS, FailedError, Stage
from ecs_async_executor.local.demo.watch import TIMEOUT_SECONDS, Watch

if TYPE_CHECKING:
    from ecs_async_executor.local.demo.burst import Burst
    from ecs_async_executor.local.demo.cloud import Cloud
    from ecs_async_executor.local.demo.report import Report
    from ecs_async_executor.local.demo.scenario import Expected

MISSING = escape(
    "The amazon provider is not installed, so nothing is compared with its executor: "
    "pip install 'ecs-async-executor[amazon]'"
)


@dataclass(frozen=True, slots=True)
class Options:
    """
    How the demo is run.

    :param service: one of :data:`~ecs_async_executor.local.demo.stage.CLOUDS`
    :param provider: after that the same with the amazon provider's own executor, for comparison
    :param keep: go on after the report until it is interrupted, with tasks that run and wait all the time
    :param timeout: seconds that the DAGs may take
    """

    service: str = "ecs"
    provider: bool = False
    keep: bool = False
    timeout: float = TIMEOUT_SECONDS


def demo(options: Options) -> int:
    """Run the demo and return its exit status: 0 only if everything went as expected with our executor."""
    show = Show()
    if options.provider and provider_version() is None:
        show.say(f"[red]{MISSING}[/]")
        return 2
    with Interrupts() as interrupts:
        folder = Path(tempfile.mkdtemp(prefix="ecs-async-executor-demo-"))
        try:
            return _demo(options, show, folder, interrupts)
        except StoppedError as stopped:
            show.say(f"Ended by {stopped}; nothing is left behind")
            return 128 + stopped.number
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _demo(options: Options, show: Show, folder: Path, interrupts: Interrupts) -> int:
    ours = Run(options, show, folder / "ours", interrupts, provider=False)
    status = ours.guarded()
    if status or not options.provider:
        return status
    show.console.rule("The same with the amazon provider's executor, to compare")
    theirs = Run(options, show, folder / "provider", interrupts, provider=True)
    theirs.guarded()
    bursts = [*ours.bursts, *theirs.bursts]
    if len(bursts) > 1:
        show.console.print(table(bursts, options.service))
    if ours.report is not None and theirs.report is not None:
        show.console.print(comparison(ours.report, theirs.report, options.service, (ours.name, theirs.name)))
    show.say("[green]With our executor all went as expected; that is what counts here[/]")
    return 0


class Run:
    """One run of the DAGs, with one executor."""

    def __init__(
        self, options: Options, show: Show, folder: Path, interrupts: Interrupts, *, provider: bool
    ) -> None:
        folder.mkdir()
        self.stage = Stage(
            *(folder, show, interrupts),
            service=options.service,
            provider=provider,
            lasting=options.keep and not provider,
        )
        self.bursts: list[Burst] = []
        self.report: Report | None = None
        self._options = options
        self._show = show
        self._provider = provider
        self._scenario: tuple[Expected, ...] = (
            *SCENARIO,
            *(() if provider else PLACEMENT[options.service]),
            *(LASTING if options.keep and not provider else ()),
        )

    @property
    def name(self) -> str:
        """The name of the executor's class."""
        return self.stage.executor.rpartition(".")[2]

    def guarded(self) -> int:
        """Run, explain what went wrong, and end everything in any case. Return the exit status."""
        try:
            with Heartbeats() as heartbeats:
                return self._run(heartbeats)
        except (DiedError, FailedError) as error:
            self._show.say(f"[red]{error}[/]")
            self._show_logs()
            return 1
        finally:
            # No word comes before the end of a process: there may be nobody left to write to.
            began = time.monotonic()
            self.stage.stop(self._show.patiently("Ending all processes", self._why_it_lasts))
            self._show.say(f"All processes have ended, within {time.monotonic() - began:.1f} s")

    def _why_it_lasts(self, still: str) -> str:
        """Say of the processes that still run why that takes so long."""
        waits = f"; the executor {self.name} waits for its containers" if self._provider else ""
        return f"still there: {still}{waits}"

    def _run(self, heartbeats: Heartbeats) -> int:
        show, stage = self._show, self.stage
        show.say(f"Airflow with {stage.executor}, in {stage.airflow.folder.parent}")
        cloud = stage.start_cloud(heartbeats.settings)
        show.say(f"The local {cloud.name} listens on {cloud.url}")
        if not self._provider:
            show.file("The executor's rules", stage.airflow.rules)
            self._measure_provider(cloud)
        stage.start_airflow()
        show.say(f"Airflow's API server listens on {stage.airflow.url}")
        self.bursts.insert(0, in_airflow(stage, cloud, show, heartbeats))
        with show.waiting("Letting the other DAGs run") as tell:
            stage.until("Airflow has read all DAGs", stage.airflow.unpause, tell)
        watch = Watch(stage, cloud, show, self._scenario)
        at_a_time = f"at most {stage.airflow.concurrency} task instances at a time"
        with show.waiting(f"Running the DAGs, {at_a_time}") as tell:
            self.report = report = watch.until_settled(self._options.timeout, tell, patient=not self._provider)
        if self._provider:
            return 0
        return self._tell(report, cloud)

    def _measure_provider(self, cloud: Cloud) -> None:
        """Launch the same burst with the provider's executor, before an Airflow disturbs it."""
        if self._options.provider:
            return  # it gets an Airflow of its own
        version = provider_version()
        if version is None:
            self._show.say(MISSING)
            return
        self.bursts.append(driven(self.stage, cloud, self._show, version))

    def _tell(self, report: Report, cloud: Cloud) -> int:
        """Show the report, and return the exit status."""
        show = self._show
        show.console.print(table(self.bursts, self._options.service))
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
            self._show_logs()
        else:
            launched = sum(len(burst.launched) for burst in self.bursts[:1])
            ran = f"{len(report.tries)} tries in {len(report.containers)} {cloud.noun}s"
            show.say(f"[green]A burst of {launched}, and {ran}, all as expected[/]")
            if not self._options.keep:
                show.say("Airflow's UI with all this: --keep. An Airflow and a DAG of your own: docs/try-it.md")
        if self._options.keep:
            self._keep()
        return 1 if surprises else 0

    def _show_logs(self) -> None:
        """Write the ends of the logs that can tell what went wrong."""
        logs = self.stage.processes.logs
        for path in sorted(logs.glob("*.log")):
            self._show.tail_file(path)
        for read in self.report.tries if self.report else ():
            if read.state == "failed":
                self._show.tail(f"{read.label} try {read.number}", self.stage.airflow.task_log(read))
        for path in sorted((logs / "containers").rglob("*.log")):
            self._show.tail_file(path)

    def _keep(self) -> None:
        airflow = self.stage.airflow
        self._show.say(f"Airflow's UI is at {airflow.url} (nobody needs to log in); Ctrl-C ends it all")
        while True:
            self.stage.processes.check()
            time.sleep(POLL_SECONDS)
