"""What the DAGs in ``dags/`` are expected to do, try by try. The demo succeeds if exactly this happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

EXITED = "exited"
HOST_TAKEN = "its host was taken away"
NOT_STARTED = "never started"
OUT_OF_MEMORY = "out of memory"
INTERRUPTED = "interrupted"

HOME, ABROAD = "us-east-1", "eu-west-1"
"""The Region of the executor's section, and the one of the queue ``eu``."""


@dataclass(frozen=True, slots=True)
class Where:
    """
    Where a try should run, and how large its container should be.

    :param at: Region and capacity provider, or job queue
    """

    at: str
    vcpus: float
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What one task instance should do.

    :param states: Airflow's state at the end of each try
    :param containers: how many containers each try takes; more than one when it gives its container back and
        goes on in another, or when the first does not start
    :param ends: how the first container of each try ends
    :param lasts: the state of its only try is no end: it stays in it
    :param events: what our executor has to add to Airflow's event log about each try, by the end of its name;
        several: one of them
    :param asked: what it asks for that the executor's rules have a say in, for people
    :param places: where each of its containers goes, if it asks for something
    :param waits: how it waits after it has given its first container back
    """

    dag_id: str
    task_id: str
    states: tuple[str, ...] = ("success",)
    containers: tuple[int, ...] = (1,)
    ends: tuple[str, ...] = (EXITED,)
    map_index: int = -1
    lasts: bool = False
    events: tuple[str | tuple[str, ...], ...] = ()
    asked: str = ""
    places: tuple[Where, ...] = ()
    waits: str = ""

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.dag_id, self.task_id, self.map_index)


def label(dag_id: str, task_id: str, map_index: int) -> str:
    """Name a task instance."""
    return f"{dag_id}.{task_id}" + (f"[{map_index}]" if map_index >= 0 else "")


FAILURE, WAITED, ELSEWHERE, RETRY = (
    "container failure",
    "container waits",
    "container placed elsewhere",
    "retry rule",
)
"""What our executor adds to Airflow's event log. A service's name may precede it."""

HOST_LOST = Expected(
    "host_lost",
    "long_haul",
    ("failed", "success"),
    (1, 1),
    (HOST_TAKEN, EXITED),
    events=(FAILURE, WAITED),
)
"""Its first container is taken away as soon as its task runs; for the second there is no capacity at first."""

KILLED = Expected("broken", "out_of_memory", ("failed",), ends=(OUT_OF_MEMORY,), events=(FAILURE,))
UNPULLABLE = Expected("broken", "no_image", ("failed",), (3,), (NOT_STARTED,), events=(FAILURE,))
RUNS_ON = Expected("lasting", "runs_on", ("running",), lasts=True)
NO_CAPACITY = Expected("lasting", "no_capacity", ("queued",), lasts=True, events=(WAITED,))

LAST_WORDS = {
    (HOST_LOST.label, 1): "",
    (KILLED.label, 1): "MB are in memory",
    (UNPULLABLE.label, 1): "CannotPullContainerError",
}
"""What our executor puts beside the log of a failed try; the tab Logs shows it."""

SCENARIO = (
    *(Expected("mapped", "square", map_index=index) for index in range(4)),
    Expected("mapped", "total"),
    Expected("failing", "second_time_lucky", ("failed", "success"), (1, 1), (EXITED, EXITED)),
    Expected("failing", "hopeless", ("failed",)),
    Expected("waiting", "deferred", containers=(2,), waits="deferred"),
    Expected("waiting", "rescheduled", containers=(2,), waits="rescheduled"),
    HOST_LOST,
    KILLED,
    UNPULLABLE,
)

LASTING = (RUNS_ON, NO_CAPACITY)
"""What the scenario has besides if the demo is kept: it lasts as long as that."""
LASTING_DAG = "lasting.py"

PLACEMENT_DAG = "placement.py"
GROWS, MOVES, AVOIDS, FILLS, PROBES = "grows", "moves", "avoids", "fills", "probes"
_DOUBLED, _ON_SPOT, _ABROAD, _FULL, _FILLED, _PROBED = (
    "512 MB, x2 after an out-of-memory",
    "cheap capacity, on-demand after an interruption",
    "another Region",
    "cheap capacity, which is full",
    "cheap capacity: its job waits, which shows that the queue is full",
    "cheap capacity: a probe, which waits too",
)


def _steered(task_id: str, asked: str, where: Where, *events: str) -> Expected:
    return Expected("placement", task_id, events=events, asked=asked, places=(where,))


def _stays(task_id: str, asked: str, where: Where) -> Expected:
    """Return what a task instance does whose container is accepted and finds no room."""
    return Expected("placement", task_id, ("queued",), lasts=True, events=(WAITED,), asked=asked, places=(where,))


def _changed(
    task_id: str, asked: str, end: str, first: Where, second: Where, *events: str | tuple[str, ...]
) -> Expected:
    """Return what a task instance does whose second try succeeds because it goes elsewhere or is larger."""
    return Expected(
        "placement",
        task_id,
        ("failed", "success"),
        (1, 1),
        (end, EXITED),
        events=events or (FAILURE, RETRY),
        asked=asked,
        places=(first, second),
    )


PLACEMENT = {
    "ecs": (
        _changed(
            GROWS,
            _DOUBLED,
            OUT_OF_MEMORY,
            Where(f"{HOME} FARGATE", 0.25, 512),
            Where(f"{HOME} FARGATE", 0.25, 1024),
        ),
        _changed(
            MOVES,
            _ON_SPOT,
            INTERRUPTED,
            Where(f"{HOME} FARGATE_SPOT", 0.25, 2048),
            Where(f"{HOME} FARGATE", 0.25, 2048),
            # Airflow passes SIGTERM on to the task, which goes on until SIGKILL: the second. The first if its
            # process ends of SIGTERM, as it does while it just begins: Airflow's own process then exits 0.
            ("container interrupted", FAILURE),
            RETRY,
        ),
        _steered("abroad", _ABROAD, Where(f"{ABROAD} FARGATE", 0.25, 2048)),
        _steered(AVOIDS, _FULL, Where(f"{HOME} FARGATE", 0.25, 1024), ELSEWHERE),
    ),
    "batch": (
        _changed(
            GROWS, _DOUBLED, OUT_OF_MEMORY, Where(f"{HOME} default", 1, 512), Where(f"{HOME} default", 1, 1024)
        ),
        _changed(
            MOVES, _ON_SPOT, HOST_TAKEN, Where(f"{HOME} demo-spot", 1, 2048), Where(f"{HOME} default", 1, 2048)
        ),
        _steered("abroad", _ABROAD, Where(f"{ABROAD} default", 1, 2048)),
        _steered(AVOIDS, _FULL, Where(f"{HOME} default", 1, 1024), ELSEWHERE),
        _stays(FILLS, _FILLED, Where(f"{HOME} demo-spot", 1, 1024)),
        _stays(PROBES, _PROBED, Where(f"{HOME} demo-spot", 1, 1024)),
    ),
}
"""What the executor's rules steer, by service; the amazon provider's executors have no such rules."""


def as_played(scenario: Sequence[Expected], first_at: Mapping[str, str]) -> list[Expected]:
    """
    Return a scenario in which those that find a queue full have the parts they took: one avoids it, one probes it.

    They are launched at once, and milliseconds decide which is the probe, or if one is due already.

    :param first_at: where the first container of a task instance is
    """
    parts = {one.task_id: one for one in scenario if one.dag_id == "placement" and one.task_id in (AVOIDS, PROBES)}
    if len(parts) < 2:  # noqa: PLR2004
        return list(scenario)
    avoids, probes = parts[AVOIDS], parts[PROBES]
    elsewhere = avoids.places[0].at
    if first_at.get(probes.label) != elsewhere:
        return list(scenario)
    is_probe = first_at.get(avoids.label, elsewhere) != elsewhere
    taken = {
        avoids: replace(probes if is_probe else avoids, task_id=AVOIDS),
        probes: replace(avoids, task_id=PROBES),
    }
    return [taken.get(one, one) for one in scenario]
