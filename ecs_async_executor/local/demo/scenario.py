"""What the DAGs in ``dags/`` are expected to do, try by try. The demo succeeds if exactly this happened."""

from __future__ import annotations

from dataclasses import dataclass

EXITED = "exited"
HOST_TAKEN = "its host was taken away"
NOT_STARTED = "never started"
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What one task instance should do.

    :param states: Airflow's state at the end of each try
    :param containers: how many containers each try takes; more than one when it gives its container back and
        goes on in another, or when the first does not start
    :param ends: how the first container of each try ends
    :param lasts: the state of its only try is no end: it stays in it
    """

    dag_id: str
    task_id: str
    states: tuple[str, ...] = ("success",)
    containers: tuple[int, ...] = (1,)
    ends: tuple[str, ...] = (EXITED,)
    map_index: int = -1
    lasts: bool = False

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.dag_id, self.task_id, self.map_index)


def label(dag_id: str, task_id: str, map_index: int) -> str:
    """Name a task instance."""
    return f"{dag_id}.{task_id}" + (f"[{map_index}]" if map_index >= 0 else "")


HOST_LOST = Expected("host_lost", "long_haul", ("failed", "success"), (1, 1), (HOST_TAKEN, EXITED))
"""Its first container is taken away as soon as its task runs; for the second there is no capacity at first."""

KILLED = Expected("broken", "out_of_memory", ("failed",), ends=(OUT_OF_MEMORY,))
UNPULLABLE = Expected("broken", "no_image", ("failed",), (3,), (NOT_STARTED,))
RUNS_ON = Expected("lasting", "runs_on", ("running",), lasts=True)
NO_CAPACITY = Expected("lasting", "no_capacity", ("queued",), lasts=True)

EVENTS = {
    (HOST_LOST.label, 1): "container failure",
    (HOST_LOST.label, 2): "container waits",
    (KILLED.label, 1): "container failure",
    (UNPULLABLE.label, 1): "container failure",
    (NO_CAPACITY.label, 1): "container waits",
}
"""What our executor adds to Airflow's event log, by task instance and try. A service's name may precede it."""

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
    Expected("waiting", "deferred", containers=(2,)),
    Expected("waiting", "rescheduled", containers=(2,)),
    HOST_LOST,
    KILLED,
    UNPULLABLE,
)

LASTING = (RUNS_ON, NO_CAPACITY)
"""What the scenario has besides if the demo is kept: it lasts as long as that."""
LASTING_DAG = "lasting.py"
