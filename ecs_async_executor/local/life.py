"""
The life of a container group as a list of moments: a change whose moment is in the past has happened.

Knows no service: a task of ECS and a job of Batch are both a :class:`Job` here. A status is derived from the
moments on request, so thousands of running jobs need neither timers nor threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    Variables that were read for a container before its start.

    :param seconds: how long that took
    """

    variables: Mapping[str, str]
    seconds: float = 0.0


class NotFetched(Exception):
    """
    Variables could not be read: the container does not start.

    :param reason: in the service's words
    :param seconds: how long it took to find out
    """

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Container:
    """
    One container of a job, overrides already applied.

    :param name: its name in the definition
    :param command: entry point and command; empty if the image brings its own
    :param environment: its variables
    :param essential: the job ends when this container does
    :param directory: its working directory, None for the runner's choice
    :param stop_timeout: seconds between SIGTERM and SIGKILL, None for the runner's choice
    :param image: as its definition names it
    :param memory: its limit in MiB, None for no limit
    :param fetch: reads more variables just before the start, None if there are none; may raise :class:`NotFetched`
    """

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    essential: bool = True
    directory: str | None = None
    stop_timeout: float | None = None
    image: str = ""
    memory: int | None = None
    fetch: Callable[[], Fetched] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Job:
    """
    A container group for a runner to run.

    :param id: unique, usable in a file name
    :param definition: ``family:revision`` of its definition
    :param started_by: the client's mark, or empty
    :param containers: at least one
    :param main: the name of the container that does the work
    :param number: 1 for the first job of this server, and so on
    :param attempt: 1 for the first job with this mark (without a mark: this command), and so on
    :param time_limit: seconds after its start at which it is stopped, None for no limit
    """

    id: str
    definition: str
    started_by: str
    containers: tuple[Container, ...]
    main: str
    number: int = 1
    attempt: int = 1
    time_limit: float | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """The command of the main container."""
        return next(c.command for c in self.containers if c.name == self.main)


@dataclass(frozen=True, slots=True)
class Exit:
    """
    The end of one container.

    :param at: the time, in wall-clock seconds
    :param code: the exit code, None if the container never ran or its host was lost
    :param reason: the container's own reason, if there is one
    """

    at: float
    code: int | None
    reason: str | None = None


@dataclass(slots=True)
class Life:
    """
    The moments of a job, in wall-clock seconds; None: not known to come.

    Code that changes a moment calls :meth:`touch` afterwards.

    :param provisioned_at: PROVISIONING becomes PENDING
    :param started_at: PENDING becomes RUNNING
    :param doomed_at: its end is decided and visible, but it may still run (spot notice, stop requested)
    :param stopping_at: RUNNING becomes STOPPING
    :param ended_at: its last container has ended; its place is free
    :param stopped_at: STOPPED
    :param waiting_reason: why it waits, shown while it is not provisioned
    """

    created_at: float
    provisioned_at: float | None = None
    started_at: float | None = None
    doomed_at: float | None = None
    stopping_at: float | None = None
    ended_at: float | None = None
    stopped_at: float | None = None
    exits: dict[str, Exit] = field(default_factory=dict)
    stop_code: str | None = None
    stopped_reason: str | None = None
    waiting_reason: str | None = None
    changes: int = 0

    def touch(self) -> None:
        """Note that a moment was changed."""
        self.changes += 1

    def status(self, now: float) -> str:
        """Return the status at a time, in ECS's words."""
        for moment, name in (
            (self.stopped_at, "STOPPED"),
            (self.ended_at, "DEPROVISIONING"),
            (self.stopping_at, "STOPPING"),
            (self.started_at, "RUNNING"),
            (self.provisioned_at, "PENDING"),
        ):
            if moment is not None and moment <= now:
                return name
        return "PROVISIONING"

    def doomed(self, now: float) -> bool:
        """Return whether its end is decided."""
        return any(
            moment is not None and moment <= now
            for moment in (self.doomed_at, self.stopping_at, self.ended_at, self.stopped_at)
        )

    def started(self, now: float) -> bool:
        """Return whether its containers have started."""
        return self.started_at is not None and self.started_at <= now

    def ended(self, now: float) -> bool:
        """Return whether its last container has ended."""
        return self.ended_at is not None and self.ended_at <= now

    def next_change(self, now: float) -> float:
        """Return the next moment after ``now`` at which its appearance changes, infinity if none is known."""
        moments = (
            self.provisioned_at,
            self.started_at,
            self.doomed_at,
            self.stopping_at,
            self.ended_at,
            self.stopped_at,
            *(e.at for e in self.exits.values()),
        )
        return min((m for m in moments if m is not None and m > now), default=math.inf)

    def end(self, at: float, stop_code: str, reason: str, lag: float = 0.0) -> None:
        """End it at this time with the exits that it has by then; a start after that never happens."""
        self.provisioned_at = _past(self.provisioned_at, at)
        self.started_at = _past(self.started_at, at)
        self.doomed_at = min(at, self.doomed_at) if self.doomed_at is not None else at
        self.stopping_at = self.ended_at = at
        self.stopped_at = at + lag
        self.exits = {name: e for name, e in self.exits.items() if e.at <= at}
        self.stop_code = stop_code
        self.stopped_reason = reason
        self.touch()


def _past(moment: float | None, now: float) -> float | None:
    return moment if moment is not None and moment <= now else None
