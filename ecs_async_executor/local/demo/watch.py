"""Watches the DAGs run, and interferes where the scenario wants a container to be interrupted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ecs_async_executor.local.demo.journeys import steered
from ecs_async_executor.local.demo.report import Report
from ecs_async_executor.local.demo.scenario import HOST_LOST, MOVES, as_played
from ecs_async_executor.local.demo.stage import FailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ecs_async_executor.local.demo.cloud import Cloud, Ran
    from ecs_async_executor.local.demo.scenario import Expected
    from ecs_async_executor.local.demo.show import Show
    from ecs_async_executor.local.demo.stage import Stage

POLL_SECONDS = 0.5
TIMEOUT_SECONDS = 180.0
TELL_SECONDS = 30.0
"""How long the executor may take to say what it knows of the last ends."""
STUCK_SECONDS = 25.0
"""How long nothing has to change, with the provider's executor, until nothing more is expected of it."""


class Watch:
    """Follows the task instances of a scenario."""

    def __init__(self, stage: Stage, cloud: Cloud, show: Show, scenario: Sequence[Expected]) -> None:
        self._stage = stage
        self._cloud = cloud
        self._show = show
        self._scenario = scenario
        self._interrupted: set[str] = set()

    def until_settled(self, seconds: float, tell: Callable[[str], None], *, patient: bool) -> Report:
        """
        Return what has happened once Airflow is done with all task instances.

        :param patient: wait until then; else give up once nothing has changed for a while, or when the time is up
        :raises FailedError: if that takes too long
        """
        deadline = time.monotonic() + seconds
        settled_at: float | None = None
        changed_at, states = time.monotonic(), None
        while True:
            self._stage.processes.check()
            report = self._look()
            self._show.news(report.tries)
            open_ones = [read.label for read in report.tries if not read.settled]
            tell(f"{len(open_ones)} of {len(self._scenario)} are not done")
            if report.settled():
                settled_at = settled_at or time.monotonic()
                if report.told() or time.monotonic() > settled_at + TELL_SECONDS:
                    return report
            self._take_host_away(report)
            self._take_capacity_back(report)
            if states != (states := report.states()):
                changed_at = time.monotonic()
            if not patient and time.monotonic() > min(deadline, changed_at + STUCK_SECONDS):
                return report
            if time.monotonic() > deadline:
                self._show.console.print(report.table())
                raise FailedError(f"The DAGs were not done after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def _look(self) -> Report:
        airflow = self._stage.airflow
        tries, containers = airflow.tries(), self._cloud.containers()
        first_at = {ran.label: ran.where.at for ran in reversed(containers)}
        return Report(
            as_played(self._scenario, first_at),
            tries=tries,
            containers=containers,
            entries=airflow.executor_entries(),
            last_words={(t.label, t.number): words for t in tries if (words := airflow.last_words(t))},
            noun=self._cloud.noun,
            ours=not self._stage.provider,
        )

    def _take_host_away(self, report: Report) -> None:
        """Take the host of the first container away once user code runs in it; the retry finds no capacity."""
        for ran in self._running_at_first(report, HOST_LOST.label):
            self._cloud.withhold_capacity(HOST_LOST.task_id)
            self._cloud.take_host_away(ran.id)
            lost = f"the host of {self._cloud.noun} {ran.short} is taken away"
            self._show.say(f"{ran.label}: {lost}, and there is no other at first")

    def _take_capacity_back(self, report: Report) -> None:
        """Interrupt the first container on cheap capacity once user code runs in it."""
        for one in steered(report.scenario):
            if one.task_id == MOVES:
                for ran in self._running_at_first(report, one.label):
                    self._cloud.take_capacity_back(ran.id)
                    self._show.say(
                        f"{ran.label}: the cheap capacity of {self._cloud.noun} {ran.short} is taken back"
                    )

    def _running_at_first(self, report: Report, label: str) -> Iterator[Ran]:
        """Yield once the container in which the first try of a task instance runs."""
        for read in report.tries:
            if (read.label, read.number, read.state) != (label, 1, "running"):
                continue
            for ran in report.of(read.label, read.number):
                # The provider's executor may launch the same try again: that one is let live.
                if ran.status == "RUNNING" and label not in self._interrupted:
                    self._interrupted.add(label)
                    yield ran
