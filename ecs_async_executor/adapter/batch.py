"""
The Airflow adapter for AWS Batch: settings, requests and identifiers, all else is the service-free adapter's.

May import Airflow and everything else of this package but another service and its adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, cast

from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.errors import ConfigurationError, Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services import batch
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import ConfReader, SettingsForBatch, Tuning, load_for_batch

_JOB_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class AsyncBatchExecutor(AsyncExecutor):
    """
    Run each workload in a job of AWS Batch.

    Takes the settings of the amazon provider's ``AwsBatchExecutor`` from ``[aws_batch_executor]`` and its own from
    ``[batch_async_executor]``. What subclasses of ``AwsBatchExecutor`` use is here too: :meth:`_submit_job_kwargs`
    to change a request, :attr:`submit_job_kwargs`, :attr:`max_submit_job_attempts` and
    :meth:`_serialize_workload_to_command`.
    """

    service = batch.SERVICE

    submit_failure = "job submit failure"
    never_called = {  # noqa: RUF012 - typed where it is declared
        "_build_task_command": "override _serialize_workload_to_command",
        "_describe_jobs": "nothing: the engine asks, in its own thread",
        "_evict_job": "nothing: the engine keeps account of jobs",
        "_handle_failed_job": "set max_submit_job_attempts, and retries of tasks",
        "_load_submit_kwargs": "override the property submit_job_kwargs, or _submit_job_kwargs",
        "_submit_job": "override _submit_job_kwargs",
        "attempt_submit_jobs": "override _submit_job_kwargs",
        "check_health": "set check_health_on_startup",
        "execute_async": "override _submit_job_kwargs",
        "load_batch_connection": "set conn_id and region_name",
        "sync_running_jobs": "nothing: the engine asks, in its own thread",
    }

    pre_assigns_external_executor_id = False
    """
    Both Airflow's identities and Batch's are UUIDs: one could not be told from the other in the database.

    Nothing is lost by it: Batch knows no tokens that an identity would be needed for, and the task instance's id
    is in the job's name.
    """

    @cached_property
    def settings(self) -> SettingsForBatch:
        """
        Both sections of the configuration.

        :raises ConfigurationError: if anything in them is not usable; names everything
        """
        return load_for_batch(cast("ConfReader", self.conf), batch.wrong_parameters)

    @cached_property
    def submit_job_kwargs(self) -> dict[str, Any]:
        """The SubmitJob parameters that every launch starts from."""
        return batch.base_request(self.settings.batch)

    @cached_property
    def max_submit_job_attempts(self) -> int:
        """How many jobs may be tried for one launch as long as none of their containers started."""
        return self.settings.batch.max_submit_job_attempts

    @property
    def tuning(self) -> Tuning:
        """The settings of the engine."""
        return self.settings.tuning

    @property
    def max_attempts(self) -> int:
        """
        ``max_submit_job_attempts``, which a subclass may have set to what it read from the configuration: to text.

        :raises ConfigurationError: if it is no number
        """
        given: object = self.max_submit_job_attempts
        try:
            return int(cast("int | str", given))
        except (TypeError, ValueError):
            raise ConfigurationError(
                [f"{type(self).__name__}.max_submit_job_attempts = {given!r}: must be a whole number"]
            ) from None

    @property
    def check_health_on_startup(self) -> bool:
        """``start()`` makes a test call and raises if the service refuses it."""
        return self.settings.batch.check_health_on_startup

    @property
    def destination(self) -> str:
        """Where containers go unless something names another place."""
        options = self.settings.batch
        return f"job queue {options.job_queue!r}, job definition {options.job_definition!r}"

    def start(self) -> None:
        """
        Read the settings, start the loop thread, and ask Batch if it would answer us.

        :raises ConfigurationError: if the settings cannot be used
        :raises AirflowException: if Batch definitely refuses the health check
        """
        _ = self.submit_job_kwargs  # built here, on the main thread, and its problems are start()'s
        super().start()

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
        overrides = self.settings.tuning.queues.get(queue) if queue is not None else None
        return batch.workload_request(self.submit_job_kwargs, overrides, exec_config, cmd)

    def _request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        return self._submit_job_kwargs(key, command, queue, config)

    def _request_is_overridden(self) -> bool:
        return any(
            getattr(type(self), name) is not getattr(AsyncBatchExecutor, name) or name in vars(self)
            for name in ("_submit_job_kwargs", "_serialize_workload_to_command")
        )

    def _spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        if not isinstance(request, dict):
            raise Rejected(f"_submit_job_kwargs returned {type(request).__name__}, not a dict.")
        return batch.launch_spec(
            request, started_by=launch.started_by, launch_id=launch.launch_id, expires_at=expires_at
        )

    def _wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        return batch.wrong_parameters(request)

    def _handle_id(self, external_executor_id: str) -> str | None:
        return external_executor_id if _JOB_ID.fullmatch(external_executor_id) else None

    def _make_backend(self) -> Backend:
        settings = self.settings.batch
        return batch.BatchBackend(ClientFactory.from_settings(settings, self.settings.tuning), settings)
