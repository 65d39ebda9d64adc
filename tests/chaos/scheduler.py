"""
One incarnation of the scheduler: a process that can be killed at any instant.

It does the work of Airflow's scheduler and the executor's adapter in the same order: queue and commit, hand over,
take reports, commit those, revoke stuck task instances. At its start it adopts the launches of its predecessor.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import sys
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import (
    Adopt,
    AirflowState,
    Finished,
    HeldUp,
    Launch,
    Launched,
    Notice,
    Report,
    Stop,
)
from ecs_async_executor.engine import listening
from ecs_async_executor.engine.bridge import Bridge
from tests.chaos.airflow_db import Database, Outcome, TaskInstance
from tests.chaos.cloud import CLOUDS, TUNING, Cloud

TICK = 0.02
STALL_TIMEOUT = 20.0
LOOK_AROUND = 4.0
RESUME_AFTER = 8.0
"""Seconds from a deferral or a revoke to the next queueing, more than clocks may differ by. Where Airflow assigns
no identity, only the age of a container tells two queueings apart."""
ROW_LOCKED = 0.03
"""Share of launches whose row Airflow finds locked, so that it drops the event."""
LOOP_DIES = 0.25
LOOP_DEATHS = 2
"""Chance that the loop thread dies when the scheduler looks for stuck task instances, and deaths at most."""
DEATHS = ("anywhere", "queued", "drained", "adopted", "asked")
"""Ends of an incarnation. By SIGKILL: anywhere (from outside), after queueing and before the hand-over, after
draining and before the commit, in mid-adoption. By SIGTERM: asked."""


@dataclass(frozen=True)
class Plan:
    """Time and manner of an incarnation's end, drawn from the seed. The last one lives until all is done."""

    lifetime: float
    death: str

    @classmethod
    def of(cls, seed: int, number: int, incarnations: int) -> Plan:
        draw = random.Random(f"{seed}:scheduler:{number}")
        lifetime, death = draw.uniform(2.0, 14.0), draw.choices(DEATHS, (10, 3, 3, 1, 3))[0]
        return cls(math.inf if number >= incarnations else lifetime, death)


class Scheduler:
    """
    A scheduler.

    :param parallelism: the most task instances that may be queued or running
    :param queued_timeout: seconds after which a queued task instance whose container has not started is revoked
        and queued again
    :param endpoint: address of the local service
    :param cloud: the service
    """

    def __init__(
        self,
        database: Database,
        number: int,
        *,
        parallelism: int,
        queued_timeout: float,
        endpoint: str,
        plan: Plan,
        draw: random.Random,
        cloud: Cloud,
    ) -> None:
        self.cloud = cloud
        self.database = database
        self.number = number
        self.parallelism = parallelism
        self.queued_timeout = queued_timeout
        self.endpoint = endpoint
        self.plan = plan
        self.draw = draw
        self.began = time.monotonic()
        self.tracked: dict[str, tuple[str, int]] = {}
        self.held_up: dict[str, float] = {}
        self.events: list[Report] = []
        self.adopted = 0
        self.loop_deaths = 0
        self.slowest_beat = 0.0
        self.noted = 0.0
        self.asked_to_end = False
        self.bridge = Bridge(
            service=cloud.service,
            backend=cloud.backend,
            render=self._render,
            choices=lambda launch: cloud.choices(str(launch.route)),
            destinations=(cloud.abroad,) if cloud.abroad else (),
            events=lambda: cloud.queues(endpoint),
            tuning=TUNING,
            max_attempts=3,
            stall_timeout=STALL_TIMEOUT,
        )

    def run(self) -> None:
        """Work until asked to end."""
        self.database.enroll(self.number)
        self.bridge.start()
        self._adopt()
        while not self.asked_to_end:
            started = time.monotonic()
            queued = self.database.queue(self.number, self.parallelism, time.time())
            self._die_if("queued", queued)
            beat_began = time.monotonic()
            for ti in queued:
                self._launch(ti)
            self.bridge.drain(self.events.append)
            self.bridge.heartbeat()
            self.slowest_beat = max(self.slowest_beat, time.monotonic() - beat_began)
            self._die_if("drained", self.events)
            self._process_events()
            if started - self.noted > LOOK_AROUND:
                self.noted = started
                self._revoke_stuck()
                if not self.cloud.calm and self.loop_deaths < LOOP_DEATHS and self.draw.random() < LOOP_DIES:
                    self.loop_deaths += 1
                    self.bridge.loop_thread.tell(die)
                self._note()
            time.sleep(max(0.0, TICK - (time.monotonic() - started)))
        # Reports from here on no longer reach the database.
        self.bridge.stop(TUNING.shutdown_timeout, stop_containers=False, reason="the scheduler ends")
        self._note()
        for record in self.bridge.shown_launches():
            sys.stderr.write(f"left behind: {json.dumps(record)}\n")

    def _die_if(self, death: str, in_hand: object) -> None:
        if in_hand and self.plan.death == death and time.monotonic() - self.began > self.plan.lifetime:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self) -> None:
        self.database.note(
            self.number,
            adopted=self.adopted,
            restarts=self.bridge.statistics().restarts,
            slowest_beat=self.slowest_beat,
        )

    def _render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        """Return a request that differs each time, as the JWT makes real ones differ."""
        ti: TaskInstance = launch.workload
        command = [ti.life, ti.key, str(ti.queueing), uuid.uuid4().hex]
        return self.cloud.spec(launch, command, ti.placement, choice)

    # --- launching -------------------------------------------------------------------------------------------

    def _launch(self, ti: TaskInstance) -> None:
        assigned = self.cloud.identity(ti.external_id)
        launch = Launch(
            launch_id=assigned or str(uuid.uuid4()),
            key=ti.key,
            workload=ti,
            priority=ti.priority,
            started_by=assigned or ti.id,
            queued_at=time.time(),
            label=f"{ti.key} {ti.queueing}",
            route=ti.placement,
            tokened=assigned is not None,
        )
        self.tracked[ti.key] = (launch.launch_id, ti.queueing)
        self.held_up.pop(ti.key, None)
        self.bridge.submit(launch)

    def _adopt(self) -> None:
        """Adopt the launches of earlier incarnations; Airflow knows whose user code has begun."""
        orphans = self.database.adopt(self.number)
        begun = started(self.endpoint)
        for ti in orphans:
            if self.plan.death == "adopted" and math.isfinite(self.plan.lifetime) and self.draw.random() < 1 / 200:
                os.kill(os.getpid(), signal.SIGKILL)
            was = AirflowState.QUEUED
            if (ti.key, ti.queueing) in begun:
                was = AirflowState.RESTARTING if self.draw.random() < 0.05 else AirflowState.RUNNING
            assigned = self.cloud.identity(ti.external_id)
            launch = Launch(
                launch_id=assigned or str(uuid.uuid4()),
                key=ti.key,
                workload=ti,
                priority=ti.priority,
                started_by=assigned or ti.id,
                queued_at=ti.queued_at or 0.0,
                label=f"{ti.key} {ti.queueing}",
                route=ti.placement,
                tokened=assigned is not None,
            )
            self.tracked[ti.key] = (launch.launch_id, ti.queueing)
            self.bridge.submit(Adopt(launch, was, self.cloud.handle_id(ti.external_id)))
            self.adopted += 1

    # --- reports ---------------------------------------------------------------------------------------------

    def _process_events(self) -> None:
        # A launch stays tracked after its end, so the audit sees a second report of the engine.
        launched: list[tuple[str, str]] = []
        outcomes: list[Outcome] = []
        for report in self.events:
            key = str(report.key)
            launch_id, queueing = self.tracked.get(key, ("", 0))
            if launch_id != report.launch_id:
                continue
            self._note_hold_up(key, report)
            if isinstance(report, Launched) and self.draw.random() >= ROW_LOCKED:
                launched.append((key, report.handle_id))
            if isinstance(report, Finished):
                outcomes.append(
                    Outcome(key, queueing, self.number, report.success, report.reason, report.handle_id)
                )
        self.events.clear()
        if launched or outcomes:
            self.database.commit_events(launched, outcomes, time.time() + RESUME_AFTER)

    def _note_hold_up(self, key: str, report: Report) -> None:
        """Note as the adapter does until when the revoke of a launch is refused."""
        held = isinstance(report, HeldUp) and not report.over
        if held or (isinstance(report, Notice) and report.unlaunched):
            self.held_up[key] = math.inf
        elif isinstance(report, HeldUp | Launched) and key in self.held_up:
            self.held_up[key] = time.time() + self.queued_timeout

    def _revoke_stuck(self) -> None:
        stuck = self.database.queued_before(time.time() - self.queued_timeout)
        if not stuck:
            return
        begun = started(self.endpoint)
        for ti in stuck:
            if (ti.key, ti.queueing) in begun or self.held_up.get(ti.key, 0.0) > time.time():
                continue
            self.database.revoke(ti, time.time() + RESUME_AFTER)
            launch_id, _ = self.tracked.pop(ti.key)
            self.bridge.submit(Stop(launch_id, "queued for too long"))


def die(_: object) -> None:
    """End the loop thread in mid-work; the bridge has to replace it over the same ledger."""
    raise SystemExit


def started(endpoint: str) -> set[tuple[str, int]]:
    """Return the launches whose user code has begun, by the service's ledger: those are RUNNING to Airflow."""
    found = set()
    for entry in ledger(endpoint):
        if entry["started_at"] is not None:
            found.add(launch_of(entry))
    return found


def ledger(endpoint: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{endpoint}/_local/ledger", timeout=60) as reply:  # noqa: S310 - ours
        entries: list[dict[str, Any]] = json.load(reply)["entries"]
        return entries


def launch_of(entry: dict[str, Any]) -> tuple[str, int]:
    """Return the launch that a container belongs to."""
    _, key, queueing, _ = entry["command"]
    return key, int(queueing)


def main(
    path: Path, cloud: Cloud, number: int, incarnations: int, seed: int, parallelism: int, queued_timeout: int
) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso"),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    # Importing Airflow for its AWS connections would take longer than many incarnations live.
    sys.modules["airflow"] = None  # type: ignore[assignment]
    listening.RETRY_SECONDS = 3.0  # in a minute, most incarnations have ended
    scheduler = Scheduler(
        Database(path),
        number,
        parallelism=parallelism,
        queued_timeout=queued_timeout,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        plan=Plan.of(seed, number, incarnations),
        draw=random.Random(f"{seed}:scheduler:{number}:draws"),
        cloud=cloud,
    )

    def end(*_: object) -> None:
        scheduler.asked_to_end = True

    signal.signal(signal.SIGTERM, end)
    scheduler.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), CLOUDS[sys.argv[2]], *map(int, sys.argv[3:]))
