"""
The messages that cross the bridge: commands into the loop thread, reports out of it.

May import ``endings`` and ``sizes`` only. No message changes once it is made, so the two threads share no state.
Launches are many and live long: garbage collections, which stop every thread, do not go through them.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.sizes import Size


class Launch(msgspec.Struct, gc=False):
    """
    Command: run one queueing of a workload.

    :param launch_id: the identity of this launch; ``<launch_id>-<n>`` is the client token of its n-th attempt
    :param key: Airflow's key of the workload; one key can have several launches over time
    :param workload: Airflow's workload, opaque here
    :param priority: higher first
    :param started_by: the mark on the container that this launch starts
    :param queued_at: wall-clock seconds when Airflow queued it
    :param label: a name for people and logs, in place of the key
    :param route: launches with the same route probably share a placement, so that the engine can queue them
        before it renders them
    :param tokened: on adoption: the scheduler before launched it, if at all, under this ``launch_id``
    """

    launch_id: str
    key: Hashable
    workload: Any
    priority: int
    started_by: str
    queued_at: float
    label: str = ""
    route: Hashable = None
    tokened: bool = False

    def __str__(self) -> str:
        """Return the launch's name for people."""
        return self.label or str(self.key)

    def __repr__(self) -> str:
        """Return a text without the workload, which has a JWT."""
        return f"Launch({self.launch_id!r}, {self.key!r})"

    def evolve(self, **changes: Any) -> Launch:
        """Return this launch with other values."""
        return msgspec.structs.replace(self, **changes)


class AirflowState(enum.Enum):
    """Airflow's state of a workload when its scheduler died."""

    QUEUED = "queued"
    RUNNING = "running"
    RESTARTING = "restarting"


class Adopt(msgspec.Struct, gc=False):
    """
    Command: take over a launch of another scheduler, and find out whether it has a container.

    :param launch: the launch to make if there is no container
    :param state: Airflow's state of it
    :param handle_id: the container's identifier if Airflow knows one; it can be that of an earlier queueing
    """

    launch: Launch
    state: AirflowState
    handle_id: str | None


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Command: Airflow revoked this launch; stop its container as soon as it is known, and report nothing.

    :param reason: goes to the service with the request
    """

    launch_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """Command: another scheduler has adopted this launch; launch, stop and report nothing for it."""

    launch_id: str


Command: TypeAlias = Launch | Adopt | Stop | Release


@dataclass(frozen=True, slots=True)
class PostMortem:
    """
    Command: read what the container of a launch that has failed printed last; nothing waits for it.

    :param ending: the kind of its end
    :param reason: why it failed, as a sentence for people
    :param exit_code: of the Airflow container, if it exited
    :param log_path: where Airflow keeps the log of this try, below its log folder; None if that is not known
    """

    launch_id: str
    key: Hashable
    handle_id: str
    ending: Ending | None
    reason: str
    exit_code: int | None = None
    log_path: str | None = None


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
    :param reason: why not, as a sentence for people; on success None, or what the ``ending`` is about
    :param handle_id: the container, if there was one
    :param exit_code: of the Airflow container, if it exited
    :param stop_code: the service's code for the stop, if it gave one
    :param ending: the kind of a failure; on success None, or what has befallen a process that was not its first
    :param size: what the container had, as far as its end tells
    :param choice: the placement that it was launched with, if there was a choice; see :mod:`.choices`
    """

    launch_id: str
    key: Hashable
    success: bool
    reason: str | None = None
    handle_id: str | None = None
    exit_code: int | None = None
    stop_code: str | None = None
    ending: Ending | None = None
    size: Size | None = None
    choice: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """
    Report: an entry for Airflow's event log.

    :param about: what the reason is about, without what differs each time that it is given
    :param placement: what the launch shares capacity and rights with, if that is known
    :param unlaunched: the launch has no container and cannot get one for now
    """

    launch_id: str
    key: Hashable
    event: str
    text: str
    unlaunched: bool = False
    about: str = ""
    placement: str | None = None


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
    Report: the launch runs, as far as anybody knows, and its end cannot be learnt.

    :param reason: why not, as a sentence for people
    """

    launch_id: str
    key: Hashable
    reason: str


@dataclass(frozen=True, slots=True)
class LastWords:
    """
    Report: what the container of a launch printed last, some time after the launch has failed.

    :param text: an entry for Airflow's event log
    """

    launch_id: str
    key: Hashable
    text: str


Report: TypeAlias = Launched | Finished | Notice | HeldUp | Unfollowed | LastWords
