"""
The executor for Amazon ECS: its service adapter, and the methods that users override.

May import everything of this package but another service and its adapter. aiobotocore is imported late, with the
first client: ``get_cli_commands()`` needs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, cast

from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import tags_of
from ecs_async_executor.adapter.service import ServiceAdapter, is_overridden
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader, clients_by_region
from ecs_async_executor.settings import ConfReader, Settings, Tuning, load


class AsyncEcsExecutor(AsyncExecutor):
    """
    Run each workload in a container of Amazon ECS.

    Takes the settings of the amazon provider's ``AwsEcsExecutor`` from ``[aws_ecs_executor]`` and its own from
    ``[ecs_async_executor]``. Subclasses of ``AwsEcsExecutor`` find what they use: :meth:`_run_task_kwargs` to
    change a request, :attr:`run_task_kwargs`, :attr:`cluster`, :attr:`container_name`, :meth:`get_container` and
    :meth:`_serialize_workload_to_command`.
    """

    adapter: EcsAdapter

    def _make_adapter(self) -> ServiceAdapter:
        return EcsAdapter(self)

    @cached_property
    def run_task_kwargs(self) -> dict[str, Any]:
        """The RunTask parameters that every launch starts from."""
        return ecs.base_request(self.adapter.settings.ecs)

    @cached_property
    def cluster(self) -> str:
        """The cluster that containers run in by default."""
        return self.adapter.settings.ecs.cluster

    @cached_property
    def container_name(self) -> str:
        """The container that runs Airflow's command."""
        return self.adapter.settings.ecs.container_name

    def get_container(self, container_list: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Return the override of Airflow's container.

        :raises Rejected: if there is none
        """
        request = {"overrides": {"containerOverrides": container_list}}
        return ecs.container_for(request, self.container_name)

    def _run_task_kwargs(
        self,
        task_id: Key,  # noqa: ARG002 - for subclasses
        cmd: list[str],
        queue: str | None,
        exec_config: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """
        Return the RunTask parameters for a workload; subclasses may override this, and may block in it.

        :param task_id: Airflow's key of the workload
        :param cmd: the command of Airflow's container; it holds a secret
        :param queue: Airflow's queue; None for a callback, unless its data name one
        :param exec_config: the task's ``executor_config``
        """
        overrides = self.adapter.tuning.queues.get(queue) if queue is not None else None
        return ecs.workload_request(self.run_task_kwargs, overrides, exec_config, self.container_name, cmd)


class EcsAdapter:
    """
    ECS, as the service-free adapter knows it (:class:`~ecs_async_executor.adapter.service.ServiceAdapter`).

    :param executor: has the methods that a subclass may override
    """

    service = ecs.SERVICE
    launch_failure = "task submit failure"
    never_called: Mapping[str, str] = {
        "_build_task_command": "override _serialize_workload_to_command",
        "_load_run_kwargs": "override the property run_task_kwargs, or _run_task_kwargs",
        "_run_task": "override _run_task_kwargs",
        "attempt_task_runs": "override _run_task_kwargs",
        "attempt_workload_runs": "override _run_task_kwargs",
        "check_health": "set check_health_on_startup",
        "execute_async": "override _run_task_kwargs",
        "load_ecs_connection": "set conn_id and region_name",
        "pending_tasks": "nothing: the engine tracks launches",
        "sync_running_tasks": "nothing: the engine polls, in its own thread",
        "sync_running_workloads": "nothing: the engine polls, in its own thread",
    }

    def __init__(self, executor: AsyncEcsExecutor) -> None:
        self._executor = executor
        self._definitions: dict[str, Mapping[str, Any]] = {}

    @cached_property
    def settings(self) -> Settings:
        """
        Both sections of the configuration.

        :raises ConfigurationError: if anything in them cannot be used; names every problem
        """
        executor = self._executor
        return load(cast("ConfReader", executor.conf), ecs.wrong_parameters, source_of(executor.team_name))

    @property
    def tuning(self) -> Tuning:
        return self.settings.tuning

    @property
    def doubts(self) -> Sequence[str]:
        return self.settings.doubts

    @property
    def max_attempts(self) -> int:
        return self.settings.ecs.max_run_task_attempts

    @property
    def destination(self) -> str:
        return f"cluster {self._executor.cluster!r}, container {self._executor.container_name!r}"

    @property
    def aws_section(self) -> str:
        return self.settings.ecs.section

    @property
    def conn_id(self) -> str | None:
        return self.settings.ecs.conn_id

    @property
    def check_health_on_startup(self) -> bool:
        return self.settings.ecs.check_health_on_startup

    def prepare(self) -> None:
        _ = self._executor.run_task_kwargs

    def make_backend(self) -> Backend:
        settings = self.settings.ecs
        return ecs.EcsBackend(ClientFactory.from_settings(settings, self.settings.tuning), settings)

    def make_console(self) -> Console:
        queues = self.settings.tuning.queues.values()
        clusters = [self._executor.run_task_kwargs["cluster"], *(one.get("cluster") for one in queues)]
        scopes = list(dict.fromkeys(one for one in clusters if one))
        return ecs.EcsConsole(ClientFactory.from_settings(self.settings.ecs, self.settings.tuning), scopes)

    def handle_id(self, external_executor_id: str) -> str | None:
        return external_executor_id if external_executor_id.startswith("arn:") else None

    def has_overridden_hooks(self) -> bool:
        hooks = ("_run_task_kwargs", "get_container", "_serialize_workload_to_command")
        return is_overridden(self._executor, AsyncEcsExecutor, *hooks)

    def command(self, workload: Any) -> list[str]:
        return self._executor._serialize_workload_to_command(workload)  # noqa: SLF001 - the provider's name for it

    def request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        return self._executor._run_task_kwargs(key, command, queue, config)  # noqa: SLF001 - likewise

    def spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        if not isinstance(request, dict):
            raise Rejected(f"_run_task_kwargs returned {type(request).__name__}, not a dict.")
        return ecs.launch_spec(
            request, started_by=launch.started_by, expires_at=expires_at, tags=tags_of(self.tuning, launch)
        )

    def wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        return ecs.wrong_parameters(request)

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        executor = self._executor

        def configured() -> str:
            return str(executor.run_task_kwargs.get("taskDefinition") or "")

        return ecs.inspecting(
            self._clients, executor.cluster, executor.container_name, configured, self._definitions
        )

    def console_url(self, handle_id: str) -> str | None:
        return ecs.console_url(handle_id, self._executor.cluster)

    async def details(self, handle_id: str) -> Details | None:
        async with self.inspector() as inspector:
            return await inspector.details(handle_id)

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        async with self.inspector() as inspector:
            return await inspector.log_streams(handle_id)

    def look_at_definitions(self, reader: LogReader, specs: Sequence[LaunchSpec]) -> AsyncIterator[Finding]:
        return ecs.look_at_definitions(self._clients, reader, self._executor.container_name, specs)

    def log_reader(self) -> LogReader:
        return LogReader(self._log_clients)

    @cached_property
    def _clients(self) -> ClientFactory:
        return ClientFactory.from_settings(self.settings.ecs, self.settings.tuning)

    @cached_property
    def _log_clients(self) -> Callable[[str], ClientFactory]:
        return clients_by_region(self.settings.ecs, self.settings.tuning)
