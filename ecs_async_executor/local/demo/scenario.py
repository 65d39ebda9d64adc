"""What the DAGs in ``dags/`` are expected to do, try by try. The demo succeeds if exactly this happened."""

from __future__ import annotations

from dataclasses import dataclass

EXITED = "exited"
HOST_TAKEN = "its host was taken away"


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What one task instance should do.

    :param states: Airflow's state at the end of each try
    :param containers: how many containers each try takes; more than one when it gives its container back and
        goes on in another
    :param ends: how the first container of each try ends
    """

    dag_id: str
    task_id: str
    states: tuple[str, ...] = ("success",)
    containers: tuple[int, ...] = (1,)
    ends: tuple[str, ...] = (EXITED,)
    map_index: int = -1

    @property
    def label(self) -> str:
        """The task instance, as people write it."""
        return label(self.dag_id, self.task_id, self.map_index)


def label(dag_id: str, task_id: str, map_index: int) -> str:
    """Name a task instance."""
    return f"{dag_id}.{task_id}" + (f"[{map_index}]" if map_index >= 0 else "")


HOST_LOST = Expected("host_lost", "long_haul", ("failed", "success"), (1, 1), (HOST_TAKEN, EXITED))
"""Its first container is taken away as soon as its task runs; for the second there is no capacity at first."""

EVENTS = {(HOST_LOST.label, 1): "container failure", (HOST_LOST.label, 2): "container waits"}
"""What our executor adds to Airflow's event log, by task instance and try. A service's name may precede it."""

SCENARIO = (
    *(Expected("mapped", "square", map_index=index) for index in range(4)),
    Expected("mapped", "total"),
    Expected("failing", "second_time_lucky", ("failed", "success"), (1, 1), (EXITED, EXITED)),
    Expected("failing", "hopeless", ("failed",)),
    Expected("waiting", "deferred", containers=(2,)),
    Expected("waiting", "rescheduled", containers=(2,)),
    HOST_LOST,
)
