"""
The executor for Amazon ECS: its service adapter, and the methods that users override.

May import everything of this package but another service and its adapter. aiobotocore is imported late, with the
first client: ``get_cli_commands()`` needs none.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any, cast

from ecs_async_executor.adapter.aws import AwsAdapter
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import tags_of
from ecs_async_executor.adapter.service import RequestTemplate, ServiceAdapter, is_overridden
from ecs_async_executor.adapter.workloads import COMMAND
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.details import Inspector
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader
from ecs_async_executor.settings import AwsSettings, ConfReader, EcsSettings, Settings, load
from ecs_async_executor.settings.values import ENVIRONMENT_FILE, Bucket


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
        overrides = self.adapter.rules.parameters_of(queue)
        base, executors = self.run_task_kwargs, self.adapter.executors
        return ecs.workload_request(base, overrides, exec_config, self.container_name, cmd, executors)


class EcsAdapter(AwsAdapter):
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

    scope_parameter = EcsSettings.place_parameter
    definition_parameter = "taskDefinition"

    _executor: AsyncEcsExecutor

    def __init__(self, executor: AsyncEcsExecutor) -> None:
        super().__init__(executor)
        self._definitions: dict[str, Mapping[str, Any]] = {}

    @cached_property
    def settings(self) -> Settings:
        executor = self._executor
        return load(cast("ConfReader", executor.conf), ecs.wrong_parameters, source_of(executor.team_name))

    @property
    def aws(self) -> EcsSettings:
        return self.settings.ecs

    @property
    def base_request(self) -> Mapping[str, Any]:
        return self._executor.run_task_kwargs

    @property
    def max_attempts(self) -> int:
        return self.aws.max_run_task_attempts

    @property
    def home(self) -> str:
        return f"cluster {self._executor.cluster!r}, container {self._executor.container_name!r}"

    def handle_id(self, external_executor_id: str) -> str | None:
        return external_executor_id if external_executor_id.startswith("arn:") else None

    def has_overridden_hooks(self) -> bool:
        hooks = ("_run_task_kwargs", "get_container", "_serialize_workload_to_command")
        return is_overridden(self._executor, AsyncEcsExecutor, *hooks)

    def request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        return self._executor._run_task_kwargs(key, command, queue, config)  # noqa: SLF001 - the provider's name

    def spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        if not isinstance(request, dict):
            raise Rejected(f"_run_task_kwargs returned {type(request).__name__}, not a dict.")
        file = None
        if (bucket := self._bucket) is not None:
            request, file = ecs.set_apart(request, self._executor.container_name, COMMAND)
        # The client token, which is not known yet, becomes part of the file's name.
        entry = ecs.file_entry(f"arn:aws-us-gov:s3:::{bucket.name}/{bucket.key('x' * 64)}") if bucket else None
        return ecs.launch_spec(
            request,
            started_by=launch.started_by,
            expires_at=expires_at,
            tags=tags_of(self.tuning, launch),
            handed_over=file,
            added=json.dumps({"environmentFiles": [entry]}) if file else "",
        )

    def template(
        self, request: Any, launch: Launch, placed: Callable[[LaunchSpec], LaunchSpec]
    ) -> RequestTemplate | None:
        if self._bucket is not None:
            return None  # the request of each has a file of its own
        return ecs.EcsTemplate(placed(ecs.launch_spec(request, started_by=launch.started_by)))

    @property
    def _bucket(self) -> Bucket | None:
        """Where workloads go that are handed over in files; None if they stand in commands."""
        tuning = self.tuning
        return tuning.workload_bucket if tuning.workload_delivery == ENVIRONMENT_FILE else None

    def beside_request(self, workload: str) -> tuple[str, str] | None:
        return None if self._bucket is None else (ecs.file_of(workload), ecs.VARIABLE)

    def _size_asked(self, queue: str | None, config: Any) -> Size:
        executor = self._executor
        base, name = executor.run_task_kwargs, executor.container_name
        request = ecs.workload_request(base, self.rules.parameters_of(queue), config, name, ())
        task, own = ecs.size_of(request, name)
        return Size(task.cpu or own.cpu, task.memory or own.memory)

    def wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        return ecs.wrong_parameters(request)

    def wrong_sizes(self, config: Mapping[str, Any]) -> Iterable[str]:
        return ecs.wrong_sizes(config)

    def about_size(self, spec: LaunchSpec) -> Sequence[str]:
        return ecs.about_size(spec.request, self._executor.container_name, self.region_for(spec))

    def console_url(self, handle_id: str) -> str | None:
        return ecs.console_url(handle_id, self._executor.cluster)

    def _backend(self, clients: ClientFactory, aws: AwsSettings, *, launches: bool) -> Backend:
        bucket, files = self._bucket, None
        if launches and bucket is not None:
            # The bucket is home's, wherever the container runs.
            files = ecs.WorkloadFiles(self._new_clients(HOME), bucket, self.service.event)
        return ecs.EcsBackend(clients, cast("EcsSettings", aws), files)

    def _console(self, clients: ClientFactory, scopes: Sequence[str]) -> Console:
        return ecs.EcsConsole(clients, scopes)

    def _inspecting(
        self, clients: ClientFactory, scope: str | None, definition: str | None
    ) -> AbstractAsyncContextManager[Inspector]:
        executor = self._executor

        def configured() -> str:
            return definition or str(executor.run_task_kwargs.get("taskDefinition") or "")

        cluster = scope or executor.cluster
        return ecs.inspecting(clients, cluster, executor.container_name, configured, self._definitions)

    def _look_at_definitions(
        self, clients: ClientFactory, reader: LogReader, specs: Sequence[LaunchSpec], judge: JudgeExecutors
    ) -> AsyncIterator[Finding]:
        return ecs.look_at_definitions(clients, reader, self._executor.container_name, specs, judge)
