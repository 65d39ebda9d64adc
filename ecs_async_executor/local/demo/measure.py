"""Measures bursts: our executor's in the demo's Airflow, the amazon provider's in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING

from ecs_async_executor.local.demo.airflow_home import executor_class
from ecs_async_executor.local.demo.burst import NUMBER, Burst, duration
from ecs_async_executor.local.demo.cloud import BURST, DRIVEN, accepted
from ecs_async_executor.local.demo.heartbeats import Beat
from ecs_async_executor.local.demo.stage import FailedError

if TYPE_CHECKING:
    from ecs_async_executor.local.demo.cloud import Cloud
    from ecs_async_executor.local.demo.heartbeats import Heartbeats
    from ecs_async_executor.local.demo.show import Show
    from ecs_async_executor.local.demo.stage import Stage

IN_AIRFLOW, DRIVEN_ALONE = "this demo's Airflow", "a loop without an Airflow"
LIMIT_SECONDS = 120.0
POLL_SECONDS = 0.5


def provider_version() -> str | None:
    """Return the version of the amazon provider, None if it is not installed."""
    try:
        return metadata.version("apache-airflow-providers-amazon")
    except metadata.PackageNotFoundError:
        return None


def in_airflow(stage: Stage, cloud: Cloud, show: Show, heartbeats: Heartbeats) -> Burst:
    """
    Wait until the DAG of the burst is through, and return how its containers were launched.

    :raises FailedError: if a task instance does not succeed, or has not exactly one container
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    with show.waiting(f"A burst of {NUMBER} task instances") as tell:
        while True:
            stage.processes.check()
            states, began = stage.airflow.burst()
            moments = accepted(cloud.url, BURST)
            done = states.get("success", 0)
            tell(f"{len(moments)} launched, {done} succeeded")
            if done == NUMBER and began is not None:
                break
            if time.monotonic() > deadline or states.get("failed"):
                raise FailedError(f"Of a burst of {NUMBER} these have become: {states or 'none'}")
            time.sleep(POLL_SECONDS)
    if len(moments) != NUMBER:
        raise FailedError(f"A burst of {NUMBER} took {len(moments)} containers")
    beats = heartbeats.between(began, max(moments))
    version = f" {provider_version()}" if stage.provider else ""
    burst = Burst.since(began, f"{_name(stage.executor)}{version}", IN_AIRFLOW, accepted=moments, beats=beats)
    _say(show, burst)
    return burst


def driven(stage: Stage, cloud: Cloud, show: Show, version: str) -> Burst:
    """
    Have the provider's executor launch the same number of containers, and return how it did.

    It has the settings of ours, and a folder of its own as Airflow's home.
    """
    executor = executor_class(stage.service, provider=True)
    home = stage.airflow.folder.parent / "driven"
    home.mkdir()
    path = home / "burst.json"
    settings = {"AIRFLOW__CORE__EXECUTOR": executor, "AIRFLOW_HOME": str(home), **cloud.driven()}
    with show.waiting(f"The same burst with the provider's {_name(executor)}") as tell:
        stage.processes.run(
            "driven",
            *(sys.executable, "-m", "ecs_async_executor.local.demo.drive", str(NUMBER), str(path)),
            settings=settings,
            meanwhile=lambda: tell("in a process of its own"),
        )
    read = json.loads(path.read_text())
    beats = [Beat(ended, seconds) for ended, seconds in read["beats"]]
    moments = accepted(cloud.url, DRIVEN)
    burst = Burst.since(read["began"], f"{_name(executor)} {version}", DRIVEN_ALONE, accepted=moments, beats=beats)
    _say(show, burst)
    return burst


def _say(show: Show, burst: Burst) -> None:
    longest = f"longest heartbeat {duration(burst.longest)}"
    show.say(f"{burst.executor}: {len(burst.launched)} launched in {duration(burst.seconds)}, {longest}")


def _name(executor: str) -> str:
    return executor.rpartition(".")[2]
