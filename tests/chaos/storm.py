"""A run: the local service, one scheduler after another, storms, and the audit."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from os import environ
from pathlib import Path
from typing import IO, Any

from tests.chaos.airflow_db import Database
from tests.chaos.audit import Audit, audit
from tests.chaos.cloud import CLOUDS, Cloud
from tests.chaos.regions import Outage
from tests.chaos.scheduler import Plan, ledger
from tests.chaos.weather import Storm, storms

STARTED_WITHIN = 60.0
ENDED_WITHIN = 30.0
POLL = 0.05
INSTANT_WITHIN = 2.0
"""Seconds to wait for the instant at which a scheduler kills itself; then it is killed from outside."""
UNENDING = frozenset({"PROVISIONING"})


@dataclass
class Run:
    """
    The figures of a run.

    :param deaths: ends of schedulers, by kind
    :param struck: how often each kind of fault struck
    :param calls: calls by operation
    :param errors: error replies by code
    :param finished: every task instance ended in time
    """

    seed: int
    workloads: int
    service: str = "ecs"
    audit: Audit = field(default_factory=Audit)
    deaths: Counter[str] = field(default_factory=Counter)
    storms: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    hosts_lost: int = 0
    adopted: int = 0
    loops_replaced: int = 0
    slowest_beat: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    crashes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True if every promise was kept."""
        return self.finished and not self.audit.problems and not self.crashes


class Control:
    """The control path of the local ECS."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, data: object) -> Any:
        return self._ask("POST", path, data)

    def _ask(self, method: str, path: str, data: object = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"{self.url}/_local/{path}", body, method=method)  # noqa: S310 - ours
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            return json.load(reply)


def run(
    workloads: int,
    seed: int,
    *,
    directory: Path | None = None,
    timeout: float = 1800.0,
    incarnations: int | None = None,
    parallelism: int = 500,
    queued_timeout: int = 60,
    service: str = "ecs",
    progress: Callable[[float, Run, dict[str, int]], None] = lambda seconds, run, states: None,
) -> Run:
    """
    Send this number of workloads through the storm.

    :param directory: folder in which to keep the database, the ledger and the logs
    :param timeout: seconds after which a launch without an end counts as lost
    :param incarnations: number of schedulers; None: so many that they keep dying until nearly all is done
    :param parallelism: the most task instances that may be queued or running at a time
    :param queued_timeout: seconds after which a queued task instance whose container has not started is revoked
        and queued again
    :param service: one of :data:`~tests.chaos.cloud.CLOUDS`
    :param progress: called now and then with the seconds, the figures so far, and the states of task instances
    """
    if incarnations is None:
        incarnations = 4 + workloads // 250
    limits = (incarnations, parallelism, queued_timeout)
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
            return _run(workloads, seed, service, Path(temporary), timeout, progress, *limits)
    directory.mkdir(parents=True)
    return _run(workloads, seed, service, directory, timeout, progress, *limits)


def _run(
    workloads: int,
    seed: int,
    service: str,
    directory: Path,
    timeout: float,
    progress: Callable[[float, Run, dict[str, int]], None],
    incarnations: int,
    *limits: int,
) -> Run:
    result = Run(seed, workloads, service)
    path = directory / "airflow.db"
    cloud = CLOUDS[service]
    Database.create(
        path, workloads, seed, assigns=cloud.assigns, groups=bool(cloud.groups), regions=bool(cloud.abroad)
    )
    database = Database(path)
    began = time.monotonic()
    try:
        with _service(directory, seed, service) as environment, (directory / "ledger.jsonl").open() as accepted:
            control = Control(environment["AWS_ENDPOINT_URL"])
            weather = _Weather(control, seed, cloud, accepted, result)
            number = 0
            while not result.finished and time.monotonic() < began + timeout:
                number += 1
                plan = Plan.of(seed, number, incarnations)
                with (directory / f"scheduler-{number}.log").open("w") as log:
                    arguments = [str(path), service, *map(str, (number, incarnations, seed, *limits))]
                    scheduler = _start("tests.chaos.scheduler", arguments, log, environment)
                    try:
                        _watch(scheduler, number, plan, weather, database, result, began, timeout, progress)
                    finally:
                        scheduler.kill()
                        scheduler.wait()
                    if time.monotonic() > began + timeout:
                        said = (directory / f"scheduler-{number}.log").read_text().splitlines()
                        result.left += [line for line in said if line.startswith("left behind")]
                if scheduler.returncode not in (0, -signal.SIGKILL):
                    result.crashes.append(f"scheduler {number} ended with {scheduler.returncode}: {log.name}")
            entries = _settled(control)
            result.seconds = time.monotonic() - began
            _read_figures(control, result)
            result.adopted, result.loops_replaced, result.slowest_beat = database.figures()
            result.audit = audit(database.queueings(), database.outcomes(), entries)
            if cloud.abroad:
                result.audit.compare(database.queued_at(), entries, result.outages)
    finally:
        database.close()
    return result


def _start(
    module: str, arguments: list[str], log: IO[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**environ, **environment},
    )


@contextmanager
def _service(directory: Path, seed: int, service: str) -> Iterator[dict[str, str]]:
    ready = directory / "service.json"
    with (directory / "service.log").open("w") as log:
        arguments = [str(ready), str(directory / "ledger.jsonl"), str(seed), service]
        process = _start("tests.chaos.service", arguments, log, {})
        try:
            deadline = time.monotonic() + STARTED_WITHIN
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    msg = f"the local ECS did not start: {Path(log.name).read_text()}"
                    raise RuntimeError(msg)
                time.sleep(POLL)
            environment: dict[str, str] = json.loads(ready.read_text())
            yield environment
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(
    scheduler: subprocess.Popen[bytes],
    number: int,
    plan: Plan,
    weather: _Weather,
    database: Database,
    result: Run,
    began: float,
    timeout: float,
    progress: Callable[[float, Run, dict[str, int]], None],
) -> None:
    """Let one scheduler work until its planned end or until all is done."""
    born = math.inf  # start-up does not count: on a busy machine it takes longer than the planned life
    while scheduler.poll() is None:
        now = time.monotonic()
        weather.turn(now)
        if born > now and database.enrolled(number):
            born = now
        states = database.states()
        progress(now - began, result, states)
        if born <= now and not states.keys() - {"success", "failed"}:
            result.finished = True
            result.deaths["SIGTERM when all was done"] += 1
            _ask_to_end(scheduler)
            return
        if now > began + timeout:
            _ask_to_end(scheduler)  # it names the launches that it could not end
            return
        if now - born > plan.lifetime:
            if plan.death == "anywhere" or now - born > plan.lifetime + INSTANT_WITHIN:
                scheduler.kill()
                scheduler.wait()
                result.deaths["SIGKILL anywhere"] += 1
                return
            if plan.death == "asked":
                _ask_to_end(scheduler)
                result.deaths["SIGTERM"] += 1
                return
        time.sleep(POLL)
    if scheduler.returncode == -signal.SIGKILL:
        result.deaths[f"SIGKILL when {plan.death}"] += 1


def _ask_to_end(scheduler: subprocess.Popen[bytes]) -> None:
    scheduler.terminate()
    scheduler.wait(ENDED_WITHIN)


class _Weather:
    """Begins storms when they are due, whether or not a scheduler lives."""

    def __init__(self, control: Control, seed: int, cloud: Cloud, accepted: IO[str], result: Run) -> None:
        self._control = control
        self._storms = storms(seed, cloud)
        self._draw = random.Random(f"{seed}:hosts")
        self._accepted = accepted
        self._unfinished = ""
        self._latest: list[str] = []
        self._result = result
        self._next: Storm | None = None
        self._due = 0.0

    def turn(self, now: float) -> None:
        if self._next is not None and now >= self._due:
            storm = self._next
            self._result.storms[storm.name] += 1
            for fault in storm.faults:
                self._control.post("faults", asdict(fault))
            if storm.lasting:
                began = time.time()
                self._result.outages.append(Outage(began, began + storm.lasting))
            self._lose(storm.hosts)
            self._next = None
        if self._next is None:
            self._next = next(self._storms)
            self._due = now + self._next.after

    def _lose(self, hosts: int) -> None:
        *lines, self._unfinished = (self._unfinished + self._accepted.read()).split("\n")
        self._latest += [line["id"] for line in map(json.loads, lines) if line["event"] == "accepted"]
        self._latest = self._latest[-50:]
        for arn in self._draw.sample(self._latest, min(hosts, len(self._latest))):
            cause = self._draw.choice(("host", "spot", "fargate_spot", "infrastructure"))
            notice = self._draw.choice((0.0, 0.0, 0.5))
            answer = self._control.post(f"tasks/{arn.rpartition('/')[2]}/kill", {"cause": cause, "notice": notice})
            self._result.hosts_lost += answer["killed"]


def _settled(control: Control) -> list[dict[str, Any]]:
    """Return the ledger once only containers that are stuck for ever are left running."""
    while True:
        entries = ledger(control.url)
        if all(entry["status"] in (*UNENDING, "STOPPED") for entry in entries):
            return entries
        time.sleep(0.5)


def _read_figures(control: Control, result: Run) -> None:
    for fault in control.get("faults")["faults"]:
        name = fault["kind"] if fault["kind"] != "error" else fault["code"]
        result.struck[name] += fault["struck"]
    for operation, figures in control.get("statistics")["operations"].items():
        result.calls[operation] += figures["calls"]
        result.errors.update(figures["errors"])
