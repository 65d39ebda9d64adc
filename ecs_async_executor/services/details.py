"""
What people want to read of one container: more than the engine needs, and asked for one at a time.

Imports ``core`` and ``logs``. The folder of each service fills it in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.services.logs import LogStream

NEVER_RAN: Final = "never ran, so that it has printed nothing"
"""What people are told of a container that has stopped before it started, instead of its output."""


@dataclass(frozen=True, slots=True)
class ContainerDetails:
    """
    One of the containers that run together, or one attempt of a Batch job.

    :param name: the container's name; for people, where the service has none
    :param status: the service's word for its state
    :param image: as the task definition or the job names it
    :param runs_airflow: Airflow's command runs in it; the others are sidecars
    :param attempt: the number of Batch's own attempt, from 1; None where the service has none
    :param stream: where its output is
    :param no_stream: why there is no ``stream``, as a sentence for people
    """

    name: str
    status: str = ""
    exit_code: int | None = None
    reason: str = ""
    image: str = ""
    runs_airflow: bool = False
    attempt: int | None = None
    stream: LogStream | None = None
    no_stream: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """
    One ECS task or Batch job, as the service describes it.

    :param observation: what the engine reads in the same record
    :param region: where it runs
    :param definition: the task definition's or job definition's ARN or name
    :param place: for people: cluster and launch type or capacity provider, or the job queue; and the zone
    :param size: for people: CPU, memory, GPUs
    :param times: what happened when, in wall-clock seconds, in order: ``("created", 1764345600.0), ...``
    :param console_url: the page about it in the AWS console
    :param takes_exec: ``aws ecs execute-command`` can open a shell in it
    :param ecs_task: what that command wants: the ECS task's cluster and its ARN; None if they are not known
    :param destination: the executor's name for Region and account; empty at home
    """

    observation: Observation
    region: str
    definition: str = ""
    place: str = ""
    size: str = ""
    times: tuple[tuple[str, float], ...] = ()
    containers: tuple[ContainerDetails, ...] = ()
    console_url: str = ""
    takes_exec: bool = False
    ecs_task: tuple[str, str] | None = None
    destination: str = ""

    @property
    def never_ran(self) -> bool:
        """Whether it has stopped before Airflow's container started."""
        return self.observation.seen is Seen.STOPPED and not self.observation.started

    @property
    def airflow_container(self) -> ContainerDetails | None:
        """The latest container with Airflow's command, if it is known which that is."""
        found = [one for one in self.containers if one.runs_airflow]
        return found[-1] if found else None


class Inspector(Protocol):
    """Looks at containers of a service, with a client that is open."""

    async def details(self, handle_id: str) -> Details | None:
        """
        Return what people want to read of a container; None if the service does not know it.

        :raises BackendError: if the service does not describe it
        """
        ...

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        """
        Return the containers of a task or job with the places of their output, as far as can be known.

        A container that the service has forgotten may still have a log.

        :raises BackendError: if the service does not answer, or refuses
        """
        ...
