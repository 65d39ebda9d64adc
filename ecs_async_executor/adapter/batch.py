"""
The executor for AWS Batch: its service adapter, and the methods that users override.

May import everything of this package but another service and its adapter. aiobotocore is imported late, with the
first client: ``get_cli_commands()`` needs none.
"""

from __future__ import annotations

import re
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
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.errors import ConfigurationError, Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services import batch, links
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.console import Console
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.details import Inspector
from ecs_async_executor.services.findings import Finding
from ecs_async_executor.services.logs import LogReader
from ecs_async_executor.settings import AwsSettings, BatchSettings, ConfReader, SettingsForBatch, load_for_batch

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class AsyncBatchExecutor(AsyncExecutor):
    """
    Run each workload in a job of AWS Batch.

    Takes the settings of the amazon provider's ``AwsBatchExecutor`` from ``[aws_batch_executor]`` and its own from
    ``[batch_async_executor]``. Subclasses of ``AwsBatchExecutor`` find what they use: :meth:`_submit_job_kwargs`
    to change a request, :attr:`submit_job_kwargs`, :attr:`max_submit_job_attempts` and
    :meth:`_serialize_workload_to_command`.
    """

    pre_assigns_external_executor_id = False
    """
    Airflow's identities and Batch's are both UUIDs: in the database, neither could be told from the other.

    Nothing is lost: Batch has no client tokens that an identity would be needed for, and the task instance's id is
    in the job's name.
    """

    adapter: BatchAdapter

    def _make_adapter(self) -> ServiceAdapter:
        return BatchAdapter(self)

    @cached_property
    def submit_job_kwargs(self) -> dict[str, Any]:
        """The SubmitJob parameters that every launch starts from."""
        return batch.base_request(self.adapter.settings.batch)

    @cached_property
    def max_submit_job_attempts(self) -> int:
        """How many jobs one launch may try as long as none of their containers started."""
        return self.adapter.settings.batch.max_submit_job_attempts

    def _submit_job_kwargs(
        self,
        key: Key,  # noqa: ARG002 - for subclasses
        cmd: list[str],
        queue: str | None,
        exec_config: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """
        Return the SubmitJob parameters for a workload; subclasses may override this, and may block in it.

        :param key: Airflow's key of the workload
        :param cmd: the command of the container; it holds a secret
        :param queue: Airflow's queue; None for a callback, unless its data name one
        :param exec_config: the task's ``executor_config``
        """
        overrides = self.adapter.rules.parameters_of(queue)
        base, executors = self.submit_job_kwargs, self.adapter.executors
        return batch.workload_request(base, overrides, exec_config, cmd, executors)


class BatchAdapter(AwsAdapter):
    """
    Batch, as the service-free adapter knows it (:class:`~ecs_async_executor.adapter.service.ServiceAdapter`).

    :param executor: has the methods that a subclass may override
    """

    service = batch.SERVICE
    launch_failure = "job submit failure"
    never_called: Mapping[str, str] = {
        "_build_task_command": "override _serialize_workload_to_command",
        "_describe_jobs": "nothing: the engine polls, in its own thread",
        "_evict_job": "nothing: the engine tracks jobs",
        "_handle_failed_job": "set max_submit_job_attempts, and retries of tasks",
        "_load_submit_kwargs": "override the property submit_job_kwargs, or _submit_job_kwargs",
        "_submit_job": "override _submit_job_kwargs",
        "attempt_submit_jobs": "override _submit_job_kwargs",
        "check_health": "set check_health_on_startup",
        "execute_async": "override _submit_job_kwargs",
        "load_batch_connection": "set conn_id and region_name",
        "sync_running_jobs": "nothing: the engine polls, in its own thread",
    }

    scope_parameter = BatchSettings.place_parameter
    definition_parameter = "jobDefinition"

    _executor: AsyncBatchExecutor

    @cached_property
    def settings(self) -> SettingsForBatch:
        executor = self._executor
        return load_for_batch(
            cast("ConfReader", executor.conf), batch.wrong_parameters, source_of(executor.team_name)
        )

    @property
    def aws(self) -> BatchSettings:
        return self.settings.batch

    @property
    def base_request(self) -> Mapping[str, Any]:
        return self._executor.submit_job_kwargs

    @property
    def max_attempts(self) -> int:
        # A subclass may have set it to what it read from the configuration itself: to text.
        given: object = self._executor.max_submit_job_attempts
        try:
            return int(cast("int | str", given))
        except (TypeError, ValueError):
            name = f"{type(self._executor).__name__}.max_submit_job_attempts"
            raise ConfigurationError([f"{name} = {given!r}: must be a whole number"]) from None

    @property
    def home(self) -> str:
        options = self.aws
        return f"job queue {options.job_queue!r}, job definition {options.job_definition!r}"

    def handle_id(self, external_executor_id: str) -> str | None:
        return external_executor_id if _JOB_ID.fullmatch(external_executor_id) else None

    def has_overridden_hooks(self) -> bool:
        hooks = ("_submit_job_kwargs", "_serialize_workload_to_command")
        return is_overridden(self._executor, AsyncBatchExecutor, *hooks)

    def request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        return self._executor._submit_job_kwargs(key, command, queue, config)  # noqa: SLF001 - the provider's name

    def spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        if not isinstance(request, dict):
            raise Rejected(f"_submit_job_kwargs returned {type(request).__name__}, not a dict.")
        return batch.launch_spec(
            request,
            started_by=launch.started_by,
            launch_id=launch.launch_id,
            expires_at=expires_at,
            tags=tags_of(self.tuning, launch),
        )

    def template(
        self, request: Any, launch: Launch, placed: Callable[[LaunchSpec], LaunchSpec]
    ) -> RequestTemplate | None:
        spec = batch.launch_spec(request, started_by=launch.started_by, launch_id=launch.launch_id)
        return batch.BatchTemplate(placed(spec), str(request["jobName"]))  # a number becomes text

    def _size_asked(self, queue: str | None, config: Any) -> Size:
        base = self._executor.submit_job_kwargs
        return batch.size_of(batch.workload_request(base, self.rules.parameters_of(queue), config, ()))

    def wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        return batch.wrong_parameters(request)

    def wrong_sizes(self, config: Mapping[str, Any]) -> Iterable[str]:
        return batch.wrong_sizes(config)

    def about_size(self, spec: LaunchSpec) -> Sequence[str]:
        return batch.about_size(spec.request, self.region_for(spec))

    def console_url(self, handle_id: str) -> str | None:
        # A job's identifier does not name its region, and that of a connection is not known here.
        regions = {self.region_of(name) for name in self.destinations_of(handle_id)}
        region = regions.pop()
        return None if region is None or regions else links.batch_job(region, handle_id)

    def _backend(self, clients: ClientFactory, aws: AwsSettings, *, launches: bool) -> Backend:  # noqa: ARG002
        return batch.BatchBackend(clients, cast("BatchSettings", aws))

    def _console(self, clients: ClientFactory, scopes: Sequence[str]) -> Console:
        return batch.BatchConsole(clients, scopes)

    def _inspecting(
        self,
        clients: ClientFactory,
        scope: str | None,
        definition: str | None,  # noqa: ARG002 - Batch alone knows where a forgotten job logged
    ) -> AbstractAsyncContextManager[Inspector]:
        return batch.inspecting(clients, scope or self.aws.job_queue)

    def _look_at_definitions(
        self, clients: ClientFactory, reader: LogReader, specs: Sequence[LaunchSpec], judge: JudgeExecutors
    ) -> AsyncIterator[Finding]:
        return batch.look_at_definitions(clients, reader, specs, judge)
