"""What the demo wants of a service that runs containers, whichever it is, and what it says about each of them."""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ecs_async_executor.local.demo.scenario import Where

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ecs_async_executor.local.demo.airflow_home import AirflowHome


SMALL, NO_IMAGE, HUGE, BURST = "demo-small", "demo-no-image", "demo-huge", "demo-burst"
"""Task definitions and job definitions besides ``demo``; tasks of the DAGs in ``dags/`` name them."""
DRIVEN = "demo-driven"
"""The definition of what :mod:`drive` launches, which belongs to no Airflow."""
SMALL_MB = 512
HUGE_CPU, HUGE_MB = 16, 122880
"""The largest size of Fargate: no container instance of anybody's has room for it."""
IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}"
MISSING_IMAGE = "registry.example/nightly-etl:7"
LOG_GROUP = "/demo"
OUT_OF_MEMORY_ERROR = "OutOfMemoryError"


@dataclass(frozen=True, slots=True)
class Ran:
    """
    One container of the demo: an ECS task, a Batch job.

    :param label: the task instance that runs in it
    :param number: the try of the task instance
    :param end: how it ended, in the words of the scenario or else the service's own; empty before that
    :param why: the same, for people, in a few words
    :param where: its Region and its capacity provider or job queue, and its size
    """

    id: str
    label: str
    number: int
    status: str
    created: datetime
    started: datetime | None
    stopped: datetime | None
    exit_code: int | None
    end: str
    why: str
    where: Where

    @property
    def short(self) -> str:
        """Enough of the id to tell it from the others."""
        return self.id.rpartition("/")[2][:8]


class Cloud(Protocol):
    """
    A local service as the demo uses it.

    :param name: what people call it
    :param noun: and what it calls a container
    """

    name: str
    noun: str
    url: str

    def settings(self, airflow: AirflowHome, *, provider: bool) -> dict[str, str]:
        """Make what has to exist, and return the part of the environment that the executor needs."""

    def driven(self) -> dict[str, str]:
        """Return what :mod:`drive` needs besides: another definition."""

    def rules(self) -> str:
        """Return the executor's rules, a YAML file, once what they name exists."""

    def containers(self) -> Sequence[Ran]:
        """Return every container but those of bursts, in the order in which they were made."""

    def take_host_away(self, container: str) -> None:
        """Let the host under a container be reclaimed, as Spot does."""

    def take_capacity_back(self, container: str) -> None:
        """Let the cheap capacity under a container be reclaimed, with the warning that there is."""

    def fill_cheap_capacity(self) -> None:
        """Have no cheap capacity for some tasks, which have other."""

    def withhold_capacity(self, task_id: str, *, for_good: bool = False) -> None:
        """Have no capacity at first for the next container of a task, or never for any."""


def accepted(url: str, definition: str) -> list[float]:
    """Return when the local server has accepted the containers of a definition, in seconds since the epoch."""
    with urllib.request.urlopen(f"{url}/_local/ledger", timeout=30) as answer:  # noqa: S310 - our own server
        entries = json.load(answer)["entries"]
    return [entry["created_at"] for entry in entries if of_definition(entry["definition"], definition)]


def of_definition(revision: str, *names: str) -> bool:
    """Return whether a definition, by its ARN or as ``name:revision``, has one of these names."""
    return revision.rpartition("/")[2].rpartition(":")[0] in names


def kill(url: str, kind: str, container: str) -> None:
    """Ask the local server for the loss of a host."""
    _post(url, f"{kind}/{container.rpartition('/')[2]}/kill", {"cause": "spot"})


def interrupt(url: str, kind: str, container: str) -> None:
    """Ask the local server for an interruption, as Spot does it."""
    _post(url, f"{kind}/{container.rpartition('/')[2]}/interrupt", {})


def add_fault(url: str, *texts: str, **fault: Any) -> None:
    """Ask the local server for a fault of the next request with these texts, such as the name of a task."""
    _post(url, "faults", {"contains": texts, "count": 1, **fault})


def _post(url: str, path: str, data: dict[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{url}/_local/{path}", data=json.dumps(data).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=5):  # noqa: S310
        pass


def brief(reason: str) -> str:
    """Shorten a reason to its code, if it has one: the event log has all of it."""
    return reason.partition(": ")[0].removesuffix("Error")


def workload(command: Sequence[str]) -> dict[str, Any]:
    """Find the workload in the command that Airflow sends: it follows ``--json-string``."""
    found: dict[str, Any] = json.loads(command[list(command).index("--json-string") + 1])
    return found
