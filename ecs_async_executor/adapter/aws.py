"""
What the adapters of ECS and of Batch have in common: settings, clients, and what people look at.

May import ``executor``, ``service``, ``core``, the settings, and what the services have in common. aiobotocore is
imported late, with the first client: ``get_cli_commands()`` needs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, ClassVar

from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader, clients_by_region
from ecs_async_executor.settings import AwsSettings, Settings, SettingsForBatch, Tuning
from ecs_async_executor.settings.rules import NO_RULES, ExecutorRules


class AwsAdapter:
    """
    A service of AWS as a :class:`~ecs_async_executor.adapter.service.ServiceAdapter`.

    A subclass adds what differs between the services.

    :param executor: has the methods that a subclass of a user's may override
    """

    service: ClassVar[Service]
    scope_parameter: ClassVar[str]
    """The request parameter that says where a container goes."""

    _executor: AsyncExecutor

    def __init__(self, executor: AsyncExecutor) -> None:
        self._executor = executor

    # --- what a subclass adds --------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings | SettingsForBatch:
        """
        Both sections of the configuration.

        :raises ConfigurationError: if anything in them cannot be used; names every problem
        """
        raise NotImplementedError

    @property
    def aws(self) -> AwsSettings:
        """The section that says what to run."""
        raise NotImplementedError

    @property
    def base_request(self) -> Mapping[str, Any]:
        """The parameters that every launch starts from; a subclass of a user's may have replaced them."""
        raise NotImplementedError

    def _backend(self, clients: ClientFactory) -> Backend:
        raise NotImplementedError

    def _console(self, clients: ClientFactory, scopes: Sequence[str]) -> Console:
        raise NotImplementedError

    def _inspecting(self, clients: ClientFactory) -> AbstractAsyncContextManager[Inspector]:
        raise NotImplementedError

    def _look_at_definitions(
        self, clients: ClientFactory, reader: LogReader, specs: Sequence[LaunchSpec]
    ) -> AsyncIterator[Finding]:
        raise NotImplementedError

    # --- settings --------------------------------------------------------------------------------------------

    @property
    def tuning(self) -> Tuning:
        return self.settings.tuning

    @property
    def rules(self) -> ExecutorRules:
        return NO_RULES

    @property
    def doubts(self) -> Sequence[str]:
        return self.settings.doubts

    @property
    def aws_section(self) -> str:
        return self.aws.section

    @property
    def conn_id(self) -> str | None:
        return self.aws.conn_id

    @property
    def check_health_on_startup(self) -> bool:
        return self.aws.check_health_on_startup

    def prepare(self) -> None:
        _ = self.base_request

    def command(self, workload: Any) -> list[str]:
        return self._executor._serialize_workload_to_command(workload)  # noqa: SLF001 - the provider's name for it

    # --- clients ---------------------------------------------------------------------------------------------

    def make_backend(self) -> Backend:
        return self._backend(ClientFactory.from_settings(self.aws, self.tuning))

    def make_console(self) -> Console:
        of_queues = (one.get(self.scope_parameter) for one in self.tuning.queues.values())
        scopes = dict.fromkeys(one for one in (self.base_request[self.scope_parameter], *of_queues) if one)
        return self._console(ClientFactory.from_settings(self.aws, self.tuning), list(scopes))

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        return self._inspecting(self._clients)

    async def details(self, handle_id: str) -> Details | None:
        async with self.inspector() as inspector:
            return await inspector.details(handle_id)

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        async with self.inspector() as inspector:
            return await inspector.log_streams(handle_id)

    def look_at_definitions(self, reader: LogReader, specs: Sequence[LaunchSpec]) -> AsyncIterator[Finding]:
        return self._look_at_definitions(self._clients, reader, specs)

    def log_reader(self) -> LogReader:
        return LogReader(self._log_clients)

    @cached_property
    def _clients(self) -> ClientFactory:
        return ClientFactory.from_settings(self.aws, self.tuning)

    @cached_property
    def _log_clients(self) -> Callable[[str], ClientFactory]:
        return clients_by_region(self.aws, self.tuning)
