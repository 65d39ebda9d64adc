"""
What the executor has to know of one cloud service: the :class:`ServiceAdapter` protocol.

May import ``compat``, ``core``, ``settings``, and ``definitions``, ``details``, ``findings`` and ``logs`` of the
services for what people read. A third service needs one class that meets the protocol, and an executor class that
makes it and carries the methods which users override.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.core.account import AccountQuotas
from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.listening import EventQueue
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader
from ecs_async_executor.settings import Destination, ExecutorRules, Retry, Tuning


class RequestTemplate(Protocol):
    """A request that becomes those of many launches, by their commands and marks."""

    def spec_for(
        self, command: Sequence[str], launch: Launch, expires_at: float | None, tags: Mapping[str, str]
    ) -> LaunchSpec | None:
        """Return what :meth:`ServiceAdapter.spec` does for a launch; None if it would refuse it."""
        ...


class ServiceAdapter(Protocol):
    """
    One service, as configured for one executor, and the methods of that executor which users override.

    Making one reads no settings: Airflow's api-server makes executors for :meth:`get_task_log` alone. Properties
    that read them raise :class:`~ecs_async_executor.core.errors.ConfigurationError`, which names every problem.
    """

    @property
    def service(self) -> Service:
        """What is known of the service without asking it."""
        ...

    @property
    def launch_failure(self) -> str:
        """The provider's event name, after the service's name, for a launch without a container."""
        ...

    @property
    def never_called(self) -> Mapping[str, str]:
        """Methods of the provider's executor that this package never calls, each with what to do instead."""
        ...

    @property
    def tuning(self) -> Tuning:
        """The settings of the engine."""
        ...

    @property
    def base_request(self) -> Mapping[str, Any]:
        """The parameters that every launch starts from."""
        ...

    @property
    def rules(self) -> ExecutorRules:
        """Which queue goes where, which placements there are, and what the next try gets."""
        ...

    @property
    def doubts(self) -> Sequence[str]:
        """Sentences about settings that can be used, though hardly as they are meant."""
        ...

    @property
    def max_attempts(self) -> int:
        """How many containers one launch may try as long as none of them started."""
        ...

    @property
    def destination(self) -> str:
        """Where containers go, for people: by default, and where else."""
        ...

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """Every destination by its name, home first; see :mod:`ecs_async_executor.core.destinations`."""
        ...

    def destinations_of(self, handle_id: str) -> Sequence[str]:
        """Return the destinations that a container can be in, the likeliest first, and never none."""
        ...

    def region_of(self, destination: str) -> str | None:
        """Return a destination's Region; None if its connection, or AWS's own configuration, decides."""
        ...

    @property
    def aws_section(self) -> str:
        """The section of the configuration that says what to run."""
        ...

    @property
    def conn_id(self) -> str | None:
        """The Airflow connection for AWS, if one is configured."""
        ...

    @property
    def check_health_on_startup(self) -> bool:
        """Whether ``start()`` makes a test call and raises if the service refuses it."""
        ...

    def prepare(self) -> None:
        """
        Build what every request starts from, on the main thread.

        :raises ConfigurationError: if the settings cannot be used
        """
        ...

    def make_backend(self, *, launches: bool = False) -> Backend:
        """
        Make the client of the service, unopened.

        :param launches: it is to launch, with all that launching takes, and to clear away what launches leave
        """
        ...

    def make_console(self) -> Console:
        """Make what commands use to list and to stop containers, unopened."""
        ...

    def handle_id(self, external_executor_id: str) -> str | None:
        """Return Airflow's ``external_executor_id`` if it is a container's identifier, else None."""
        ...

    def has_overridden_hooks(self) -> bool:
        """Return whether a subclass or the instance overrides a method that shapes requests."""
        ...

    def command(self, workload: Any) -> list[str]:
        """Return the command that runs a workload in a container; it holds the workload's JWT."""
        ...

    def request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        """Return the request for a workload; this can run a user's code, which may block or raise anything."""
        ...

    def spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        """
        Make a request ready to be sent.

        :param expires_at: wall-clock seconds after which the request's JWT is of no use
        :raises Rejected: if it is no request of the service
        """
        ...

    def template(
        self, request: Any, launch: Launch, placed: Callable[[LaunchSpec], LaunchSpec]
    ) -> RequestTemplate | None:
        """
        Return a template of a request, for all launches that ask for the same; None if there can be none.

        :param request: made with a stand-in for the command
        :param placed: says of a spec where it goes
        :raises Rejected: if it is no request of the service
        :raises LookupError: if it does not have the command
        """
        ...

    def beside_request(self, workload: str) -> tuple[str, str] | None:
        """
        Return what hands a workload over apart from the request, and the variable in which the container gets it.

        None: the command does that.
        """
        ...

    def size_asked(self, queue: str | None, config: Any) -> Size:
        """Return what size the request of a workload asks for, as far as that is known before a hook is called."""
        ...

    def retries_of(self, raw: Any) -> Sequence[Retry]:
        """
        Read a task's own retry rules.

        :raises Rejected: if they cannot be used; names every problem
        """
        ...

    def wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        """Name what the SDK would refuse in a request."""
        ...

    def wrong_sizes(self, config: Mapping[str, Any]) -> Iterable[str]:
        """Name what no request can make of an ``executor_config``'s ``cpu``, ``memory`` and so on."""
        ...

    def about_size(self, spec: LaunchSpec) -> Sequence[str]:
        """Return lines for people about the size that a request asks for, and what it costs an hour."""
        ...

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        """Hold a client open that looks at containers, for people: in the api-server, in commands, after ends."""
        ...

    def console_url(self, handle_id: str) -> str | None:
        """Return the page about a container in the AWS console, without asking AWS; None if that cannot tell."""
        ...

    async def details(self, handle_id: str) -> Details | None:
        """Return :meth:`Inspector.details`, with a client for this question."""
        ...

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        """Return :meth:`Inspector.log_streams`, with a client for this question."""
        ...

    def look_at_definitions(
        self, reader: LogReader, specs: Sequence[LaunchSpec], judge: JudgeExecutors, destination: str = HOME
    ) -> AsyncIterator[Finding]:
        """
        Yield what is found of the definitions that launches to a destination name.

        Are they fit for Airflow, can logs be read.

        :param reader: opened
        :param judge: is told what containers have as ``[core] executor``
        """
        ...

    async def account_quotas(self, destination: str) -> AccountQuotas:
        """
        Ask AWS's Service Quotas what the account of a destination may use.

        :raises BackendError: if AWS refuses, or does not answer
        """
        ...

    def make_events(self) -> Mapping[str, EventQueue]:
        """Return the queues of events, by the names of their destinations; they are opened on the loop."""
        ...

    def look_at_events(self, destination: str = HOME) -> AsyncIterator[Finding]:
        """Yield what is found of the queue of events of a destination; nothing if it has none."""
        ...

    def log_reader(self) -> LogReader:
        """Return a reader of log streams, to be opened on the loop that uses it."""
        ...


def is_overridden(executor: object, base: type, *names: str) -> bool:
    """Return whether a subclass of ``base``, or the instance itself, replaces one of these methods."""
    cls = type(executor)
    return any(getattr(cls, name) is not getattr(base, name) or name in vars(executor) for name in names)


def ignored_methods(executor: object, never_called: Mapping[str, str]) -> dict[str, str]:
    """Return those of ``never_called`` which a user's class defines."""
    users = [vars(cls) for cls in type(executor).__mro__ if not _is_airflows_or_ours(cls)]
    return {name: instead for name, instead in never_called.items() if any(name in one for one in users)}


def _is_airflows_or_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in {"airflow", "ecs_async_executor"}
