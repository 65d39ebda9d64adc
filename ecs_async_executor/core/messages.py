"""
What crosses the bridge: commands into the loop thread, reports out of it.

May import ``backend`` only. Nobody changes a record once it is made: nothing here is shared state.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(slots=True)  # frozen, it would cost five times as much to make, on the scheduler's thread
class Launch:
    """
    Command: run one queueing of a workload.

    :param launch_id: the identity of this launch; ``<launch_id>-<n>`` is the token of its n-th attempt
    :param key: Airflow's key of the workload; one key can have several launches over time
    :param workload: Airflow's workload, opaque here
    :param priority: higher first
    :param started_by: the mark on the container that this launch starts
    :param queued_at: wall-clock seconds when Airflow queued it
    :param label: words for people and logs where the key does not do
    :param route: launches with equal values are expected to be placed alike, so that the engine need not
        render one to know which limits it falls under
    :param tokened: on adoption: whoever launched it before did so under this ``launch_id``
    """

    launch_id: str
    key: Hashable
    workload: Any = field(repr=False)
    priority: int
    started_by: str
    queued_at: float
    label: str = ""
    route: Hashable = None
    tokened: bool = False

    def __str__(self) -> str:
        """Name it for people."""
        return self.label or str(self.key)


class AirflowState(enum.Enum):
    """Airflow's state of a workload when its scheduler died."""

    QUEUED = "queued"
    RUNNING = "running"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class Adopt:
    """
    Command: find out about a launch that another scheduler made, and take it over.

    :param launch: what to launch should it turn out never to have been launched
    :param state: Airflow's state of it
    :param handle_id: the container's identifier if Airflow knows one; it can be that of an earlier queueing
    """

    launch: Launch
    state: AirflowState
    handle_id: str | None


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Command: this launch is no longer wanted; stop its container wherever it is on its way, report nothing.

    :param reason: goes to the service with the request
    """

    launch_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """Command: this launch is another scheduler's by now; launch nothing for it, stop nothing, report nothing."""

    launch_id: str


Command: TypeAlias = Launch | Adopt | Stop | Release


@dataclass(frozen=True, slots=True)
class Launched:
    """Report: the launch has a container (it need not run yet)."""

    launch_id: str
    key: Hashable
    handle_id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """
    Report: the one outcome of a launch.

    :param success: the container exited 0
    :param reason: why not, as a sentence for people; None on success
    :param handle_id: the container, if there was one
    :param exit_code: of the Airflow container, if it exited
    :param stop_code: the service's code for the stop, if it gave one
    """

    launch_id: str
    key: Hashable
    success: bool
    reason: str | None = None
    handle_id: str | None = None
    exit_code: int | None = None
    stop_code: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """
    Report: something a person should read in Airflow's event log.

    :param unlaunched: the launch has no container, or none any more, and cannot get one for now
    """

    launch_id: str
    key: Hashable
    event: str
    text: str
    unlaunched: bool = False


@dataclass(frozen=True, slots=True)
class HeldUp:
    """
    Report: the launch has a container that waits for room, so that Airflow has to be patient.

    :param over: it waits no longer
    """

    launch_id: str
    key: Hashable
    over: bool = False


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """
    Report: the launch is running, as far as anybody knows, and how it ends cannot be told.

    :param reason: why not, as a sentence for people
    """

    launch_id: str
    key: Hashable
    reason: str


Report: TypeAlias = Launched | Finished | Notice | HeldUp | Unfollowed
