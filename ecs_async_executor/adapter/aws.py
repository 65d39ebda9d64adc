"""
What the adapters of ECS and of Batch have in common: settings, clients, and what people look at.

May import ``compat``, ``executor``, ``naming``, ``service``, ``core``, the settings, and what the services have in
common. aiobotocore is imported late, with the first client: ``get_cli_commands()`` needs none.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import setting_for_containers
from ecs_async_executor.core.account import AccountQuotas
from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.core.destinations import HOME, destination_of, within
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.destinations import ConsoleOfAll, Destinations, inspecting
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.events import SqsEvents, look_at_queue
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader, clients_for_logs
from ecs_async_executor.services.places import Places
from ecs_async_executor.services.servicequotas import account_quotas
from ecs_async_executor.settings import AwsSettings, ExecutorRules, Settings, SettingsForBatch, Tuning
from ecs_async_executor.settings.rule_parsing import Service as RuledService
from ecs_async_executor.settings.rule_reading import read_retries
from ecs_async_executor.settings.rules import AT_HOME, Destination, Queue, Retry


class AwsAdapter:
    """
    A service of AWS as a :class:`~ecs_async_executor.adapter.service.ServiceAdapter`.

    A subclass adds what differs between the services.

    :param executor: has the methods that a subclass of a user's may override
    """

    service: ClassVar[Service]
    scope_parameter: ClassVar[str]
    """The request parameter that says where a container goes."""
    definition_parameter: ClassVar[str]
    """The request parameter that names a definition."""

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

    @property
    def home(self) -> str:
        """Where containers go if no rule sends them elsewhere, for people."""
        raise NotImplementedError

    def _backend(self, clients: ClientFactory, aws: AwsSettings, *, launches: bool) -> Backend:
        raise NotImplementedError

    def _console(self, clients: ClientFactory, scopes: Sequence[str]) -> Console:
        raise NotImplementedError

    def _inspecting(
        self, clients: ClientFactory, scope: str | None, definition: str | None
    ) -> AbstractAsyncContextManager[Inspector]:
        """
        Hold a client open that looks at containers.

        :param scope: the default of a destination; None: that of the executor
        :param definition: which containers have whose own is forgotten; None: as the executor's base request says
        """
        raise NotImplementedError

    def _look_at_definitions(
        self, clients: ClientFactory, reader: LogReader, specs: Sequence[LaunchSpec], judge: JudgeExecutors
    ) -> AsyncIterator[Finding]:
        raise NotImplementedError

    # --- settings --------------------------------------------------------------------------------------------

    @property
    def tuning(self) -> Tuning:
        return self.settings.tuning

    @property
    def rules(self) -> ExecutorRules:
        return self.settings.rules

    def retries_of(self, raw: Any) -> Sequence[Retry]:
        service = RuledService(type(self.aws), self.wrong_parameters)
        retries, problems = read_retries(raw, "executor_config: ", service, self.rules.placements)
        if problems:
            raise Rejected("; ".join(problems))
        return retries

    def wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        raise NotImplementedError

    def beside_request(self, workload: str) -> tuple[str, str] | None:  # noqa: ARG002
        return None

    def size_asked(self, queue: str | None, config: Any) -> Size:
        try:
            return self._size_asked(queue, config)
        except Exception:  # noqa: BLE001 - the request says in a moment what is wrong with it
            return Size()

    def _size_asked(self, queue: str | None, config: Any) -> Size:
        raise NotImplementedError

    @property
    def doubts(self) -> Sequence[str]:
        return (*self.settings.doubts, *self.rules.doubts)

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
        _ = self.base_request, self.rules, self.executors

    @cached_property
    def executors(self) -> str | None:
        """What containers get as ``[core] executor``, so that tasks can name one; None: what they have already."""
        if not self.tuning.container_executors:
            return None
        try:
            configured = compat.executor_names()
        except Exception:  # noqa: BLE001 - of several kinds; whoever runs with such a setting hears of it elsewhere
            return None
        return setting_for_containers(configured, self._executor.team_name)

    def command(self, workload: Any) -> list[str]:
        return self._executor._serialize_workload_to_command(workload)  # noqa: SLF001 - the provider's name for it

    # --- destinations ----------------------------------------------------------------------------------------

    @property
    def destination(self) -> str:
        elsewhere = ", ".join(self.rules.destinations)
        return f"{self.home}; other destinations: {elsewhere}" if elsewhere else self.home

    @cached_property
    def destinations(self) -> Mapping[str, Destination]:
        home = Destination(region_name=self.aws.region_name, conn_id=self.aws.conn_id)
        return {HOME: home, **self.rules.destinations}

    def destinations_of(self, handle_id: str) -> Sequence[str]:
        return self._places.of(handle_id)

    def region_of(self, destination: str) -> str | None:
        """Return a destination's Region; None if its connection, or AWS's own configuration, decides."""
        there = self.destinations[destination]
        own_connection = destination != HOME and there.conn_id is not None
        return there.region_name or (None if own_connection else self.aws.region_name)

    def region_for(self, spec: LaunchSpec) -> str | None:
        """Return the Region that a request goes to, as far as that is known without asking anybody."""
        return self.region_of(destination_of(spec.scope)) or os.environ.get("AWS_DEFAULT_REGION")

    @cached_property
    def _places(self) -> Places:
        return Places(
            {name: replace(one, region_name=self.region_of(name)) for name, one in self.destinations.items()}
        )

    @cached_property
    def _is_home_alone(self) -> bool:
        return len(self.destinations) == 1

    def _values_of(self, destination: str, parameter: str) -> Sequence[str]:
        """Return the values that a request parameter has in a destination by the rules, the most general first."""
        rules, base = self.rules, self.base_request.get(parameter)
        found = [base] if destination == HOME else []
        # A task of its own can choose any placement, a queue has its own or those of all launches.
        choices: list[tuple[Queue, Iterable[str]]] = [(Queue(), rules.placements)]
        choices += [
            (queue, rules.order if queue.placements is None else queue.placements)
            for queue in rules.queues.values()
        ]
        for queue, names in choices:
            for placement in (None, *(rules.placements[name] for name in names)):
                goes_to, parameters = queue.destination, queue.parameters
                if placement is not None:
                    goes_to = placement.destination or goes_to
                    parameters = {**parameters, **placement.parameters}
                if (HOME if goes_to is None else goes_to.name) == destination:
                    found.append(parameters.get(parameter, base))
        return list(dict.fromkeys(str(one) for one in found if one))

    def _aws_of(self, destination: str) -> AwsSettings:
        """Return the section as it is for a destination: with the default scope there."""
        scopes = self._values_of(destination, self.scope_parameter)
        if destination == HOME or not scopes:
            return self.aws
        return self.aws.model_copy(update={self.aws.options_of_parameters[self.scope_parameter]: scopes[0]})

    def _there(self, destination: str) -> Destination:
        return AT_HOME if destination == HOME else self.destinations[destination]

    def _new_clients(self, destination: str) -> ClientFactory:
        return ClientFactory.from_settings(self.aws, self.tuning, self._there(destination))

    # --- clients ---------------------------------------------------------------------------------------------

    def make_backend(self, *, launches: bool = False) -> Backend:
        backends = {
            name: self._backend(self._new_clients(name), self._aws_of(name), launches=launches)
            for name in self.destinations
        }
        return backends[HOME] if self._is_home_alone else Destinations(backends, self._places)

    def make_console(self) -> Console:
        consoles = {
            name: self._console(self._new_clients(name), self._values_of(name, self.scope_parameter))
            for name in self.destinations
        }
        return consoles[HOME] if self._is_home_alone else ConsoleOfAll(consoles)

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        if self._is_home_alone:
            return self._inspector_of(HOME)
        return inspecting({name: partial(self._inspector_of, name) for name in self.destinations}, self._places)

    def _inspector_of(self, destination: str) -> AbstractAsyncContextManager[Inspector]:
        if destination == HOME:
            return self._inspecting(self._clients[HOME], None, None)
        scopes = self._values_of(destination, self.scope_parameter)
        definitions = self._values_of(destination, self.definition_parameter)
        return self._inspecting(
            self._clients[destination], *(next(iter(one), None) for one in (scopes, definitions))
        )

    async def details(self, handle_id: str) -> Details | None:
        async with self.inspector() as inspector:
            return await inspector.details(handle_id)

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        async with self.inspector() as inspector:
            return await inspector.log_streams(handle_id)

    def look_at_definitions(
        self, reader: LogReader, specs: Sequence[LaunchSpec], judge: JudgeExecutors, destination: str = HOME
    ) -> AsyncIterator[Finding]:
        there = [
            replace(one, scope=within(one.scope)) for one in specs if destination_of(one.scope) == destination
        ]
        return self._look_at_definitions(self._clients[destination], reader.there(destination), there, judge)

    def make_events(self) -> Mapping[str, SqsEvents]:
        urls = {HOME: self.tuning.events_queue_url}
        urls |= {name: one.events_queue_url for name, one in self.rules.destinations.items()}
        return {
            name: SqsEvents.from_settings(self.aws, self.tuning, self._there(name), url)
            for name, url in urls.items()
            if url is not None
        }

    async def look_at_events(self, destination: str = HOME) -> AsyncIterator[Finding]:
        queue = self.make_events().get(destination)
        if queue is not None:
            async for finding in look_at_queue(queue, "Queue of events"):
                yield finding

    async def account_quotas(self, destination: str) -> AccountQuotas:
        return await account_quotas(self._clients[destination])

    def log_reader(self) -> LogReader:
        return LogReader(self._log_clients)

    @cached_property
    def _clients(self) -> Mapping[str, ClientFactory]:
        return {name: self._new_clients(name) for name in self.destinations}

    @cached_property
    def _log_clients(self) -> Callable[[str, str], ClientFactory]:
        return clients_for_logs(self.aws, self.tuning, {**self.destinations, HOME: AT_HOME})
