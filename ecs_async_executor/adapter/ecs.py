"""
The Airflow adapter for Amazon ECS: settings, requests and identifiers, all else is the service-free adapter's.

May import Airflow and everything else of this package but another service and its adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import ConfReader, Settings, Tuning, load


class AsyncEcsExecutor(AsyncExecutor):
    """
    Run each workload in a container of Amazon ECS.

    Takes the settings of the amazon provider's ``AwsEcsExecutor`` from ``[aws_ecs_executor]`` and its own from
    ``[ecs_async_executor]``. What subclasses of ``AwsEcsExecutor`` use is here too: :meth:`_run_task_kwargs` to
    change a request, :attr:`run_task_kwargs`, :attr:`cluster`, :attr:`container_name`, :meth:`get_container` and
    :meth:`_serialize_workload_to_command`.
    """

    service = ecs.SERVICE

    never_called = {  # noqa: RUF012 - typed where it is declared
        "_build_task_command": "override _serialize_workload_to_command",
        "_load_run_kwargs": "override the property run_task_kwargs, or _run_task_kwargs",
        "_run_task": "override _run_task_kwargs",
        "attempt_task_runs": "override _run_task_kwargs",
        "attempt_workload_runs": "override _run_task_kwargs",
        "check_health": "set check_health_on_startup",
        "execute_async": "override _run_task_kwargs",
        "load_ecs_connection": "set conn_id and region_name",
        "pending_tasks": "nothing: the engine keeps account of launches",
        "sync_running_tasks": "nothing: the engine asks, in its own thread",
        "sync_running_workloads": "nothing: the engine asks, in its own thread",
    }

    @cached_property
    def settings(self) -> Settings:
        """
        Both sections of the configuration.

        :raises ConfigurationError: if anything in them is not usable; names everything
        """
        return load(cast("ConfReader", self.conf), ecs.wrong_parameters)

    @cached_property
    def run_task_kwargs(self) -> dict[str, Any]:
        """The RunTask parameters that every launch starts from."""
        return ecs.base_request(self.settings.ecs)

    @cached_property
    def cluster(self) -> str:
        """The cluster that containers run in unless something names another."""
        return self.settings.ecs.cluster

    @cached_property
    def container_name(self) -> str:
        """The container that runs Airflow's command."""
        return self.settings.ecs.container_name

    @property
    def tuning(self) -> Tuning:
        """The settings of the engine."""
        return self.settings.tuning

    @property
    def max_attempts(self) -> int:
        """``max_run_task_attempts``."""
        return self.settings.ecs.max_run_task_attempts

    @property
    def check_health_on_startup(self) -> bool:
        """``start()`` makes a test call and raises if the service refuses it."""
        return self.settings.ecs.check_health_on_startup

    @property
    def destination(self) -> str:
        """Where containers go unless something names another place."""
        return f"cluster {self.cluster!r}, container {self.container_name!r}"

    def start(self) -> None:
        """
        Read the settings, start the loop thread, and ask ECS if it would take our requests.

        :raises ConfigurationError: if the settings cannot be used
        :raises AirflowException: if ECS definitely refuses the health check
        """
        _ = self.run_task_kwargs  # built here, on the main thread, and its problems are start()'s
        super().start()

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
        overrides = self.settings.tuning.queues.get(queue) if queue is not None else None
        return ecs.workload_request(self.run_task_kwargs, overrides, exec_config, self.container_name, cmd)

    def _request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        return self._run_task_kwargs(key, command, queue, config)

    def _request_is_overridden(self) -> bool:
        return any(
            getattr(type(self), name) is not getattr(AsyncEcsExecutor, name) or name in vars(self)
            for name in ("_run_task_kwargs", "get_container", "_serialize_workload_to_command")
        )

    def _spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        if not isinstance(request, dict):
            raise Rejected(f"_run_task_kwargs returned {type(request).__name__}, not a dict.")
        return ecs.launch_spec(request, started_by=launch.started_by, expires_at=expires_at)

    def _wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        return ecs.wrong_parameters(request)

    def _handle_id(self, external_executor_id: str) -> str | None:
        return external_executor_id if external_executor_id.startswith("arn:") else None

    def _make_backend(self) -> Backend:
        settings = self.settings.ecs
        return ecs.EcsBackend(ClientFactory.from_settings(settings, self.settings.tuning), settings)
