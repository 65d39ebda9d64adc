"""
Airflow's workloads become launches, and launches become requests.

May import ``compat``, ``core`` and the service-free adapter. :meth:`Workloads.new_launch` runs on the main thread,
in microseconds; :meth:`Workloads.render` runs in the loop's thread, or in a worker thread if a user's code takes
part.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, cast

import msgspec

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.condensed import CondensedWorkload, condensed
from ecs_async_executor.adapter.last_ends import LastEnds
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.retrying import RETRIES, Retrying
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.steering import Steering, asked_for
from ecs_async_executor.adapter.templates import Templates
from ecs_async_executor.adapter.tracking import Tracking
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.destinations import sent_to
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.identity import is_uuid
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.settings.rules import NO_RULES

COMMAND = ("python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string")
"""Runs the workload that follows as JSON."""
CALLBACK_PRIORITY = 1 << 31
"""Airflow runs callbacks before any task; a task's ``priority_weight`` is 31 bits."""


class AdoptedWorkload(msgspec.Struct, frozen=True, gc=False):
    """
    What stands in for the workload of an adopted launch that is never launched again.

    Its request only says where the container is.

    :param workload: the rebuilt workload, without a JWT, where an overridden hook may read it from the command
    :param log_path: where Airflow keeps the log of the try, below its log folder; None if that is not known
    """

    queue: str | None
    executor_config: Any
    workload: Any = None
    log_path: str | None = None


class Workloads:
    """
    Makes launches of workloads and requests of launches.

    :param assigned: Airflow assigns an identity with each queueing (``pre_assigns_external_executor_id``)
    :ivar jwt_generator: Airflow's; set by :meth:`prepare`
    """

    def __init__(
        self, adapter: ServiceAdapter, tracking: Tracking, last_ends: LastEnds, *, assigned: bool
    ) -> None:
        self._adapter = adapter
        self._tracking = tracking
        self._last_ends = last_ends
        self._assigned = assigned
        self.jwt_generator: Any = None
        self.overridden = False
        self._steering = Steering(NO_RULES)
        self._templates: Templates | None = None

    def prepare(self, jwt_generator: Any) -> None:
        """Take what ``start()`` knows; needed before anything is launched or rendered."""
        self.jwt_generator = jwt_generator
        self.overridden = self._adapter.has_overridden_hooks()
        adapter = self._adapter
        retrying = Retrying(adapter, self._last_ends)
        self._steering = Steering(adapter.rules, retrying, adapter.size_asked)
        self._templates = None if self.overridden else Templates(adapter, self._steering)

    # --- on the main thread ----------------------------------------------------------------------------------

    def new_launch(self, key: Key, workload: Any, queued_at: float) -> tuple[Launch, object]:
        """
        Make the launch of a workload that Airflow hands over.

        :param queued_at: wall-clock seconds
        :returns: the launch and its subject (see :class:`~ecs_async_executor.adapter.tracking.KnownLaunch`)
        """
        ti = getattr(workload, "ti", None)
        if ti is None:
            return _launch_of_callback(key, workload, queued_at)
        subject = ti.id
        identity = self.assigned_identity(getattr(ti, "external_executor_id", None))
        if identity is None:
            launch_id, started_by = str(uuid.uuid4()), str(subject)
        elif self._tracking.spend(identity):
            # Launch and mark are both the identity: another scheduler can repeat the launch under the same client
            # token, and gets no second container.
            launch_id = started_by = identity
        else:
            # Left over from an earlier queueing, whose container has its client tokens.
            launch_id, started_by = str(uuid.uuid4()), identity
        route = self.route(ti)
        # By position: names cost as much again.
        launch = Launch(
            launch_id, key, workload, ti.priority_weight, started_by, queued_at, "", route, launch_id == started_by
        )
        return launch, subject

    def assigned_identity(self, external_executor_id: str | None) -> str | None:
        """Return the identity that Airflow assigned, if that is what the database holds in this place."""
        if external_executor_id is None or not self._assigned or not is_uuid(external_executor_id):
            return None
        return external_executor_id

    def route(self, ti: Any) -> Hashable:
        """Return what decides where a workload's container goes, as far as that is known before rendering."""
        config = ti.executor_config
        # A later try goes where the ends before it send it, and no other has the same.
        ruled = self._last_ends.wanted or (isinstance(config, dict) and RETRIES in config)
        again = ti.id if ruled and ti.try_number > 1 else None
        try:
            if not config and not self.overridden and again is None:
                return cast("str", ti.queue)
            words = repr(config) if config else None
        except Exception:  # noqa: BLE001 - the author's own objects: this one shares its route with no other
            words = str(ti.id)
        # An overridden hook may look at anything of the task.
        task = (ti.dag_id, ti.task_id) if self.overridden else None
        return ti.queue, words, task, again

    # --- not on the main thread ------------------------------------------------------------------------------

    def condense(self, launch: Launch) -> Launch:
        """Return a launch whose workload is text, if no overridden hook may want to see it whole."""
        text = None if self.overridden else condensed(launch.key, launch.workload)
        return launch if text is None else launch.evolve(workload=text)

    def choices(self, launch: Launch) -> Choices:
        """
        Return the placements that a launch may choose from.

        :raises Rejected: if it asks for what no rule defines
        """
        return self._steering.choices(launch)

    def blocks(self, _: Launch) -> bool:
        """Return whether :meth:`render` may block for a launch: a user's code takes part."""
        return self.overridden

    def lacks(self, launch: Launch) -> bool:
        """Return whether :meth:`look_up` has to ask the database before a launch's request can be made."""
        return self._steering.lacks(launch)

    def look_up(self, launch: Launch) -> None:
        """Ask the database, within a few seconds, how the tries before a launch's have ended."""
        self._last_ends.before(launch)

    def render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        """
        Make the request of a launch.

        :param choice: one of :meth:`choices`; None if there are none
        :raises Rejected: if there can be none; the reason shows neither command nor JWT
        """
        try:
            workload = launch.workload
            if isinstance(workload, AdoptedWorkload):
                command, expires_at = self._command_for_hook(launch, workload) if self.overridden else [], None
            else:
                if isinstance(workload, CondensedWorkload):
                    text, expires_at = workload.with_fresh_jwt(self.jwt_generator)
                    command = [*COMMAND, text]
                else:
                    workload, expires_at = compat.with_fresh_jwt(workload, self.jwt_generator)
                    command = self._adapter.command(workload)
                if self._templates is not None:
                    like_others = self._templates.spec(launch, choice, command, expires_at)
                    if like_others is not None:
                        return like_others
            course = self._steering.course(launch, choice)
            queue, _ = asked_for(workload)
            request = self._adapter.request(launch.key, command, queue, self._config_for_hook(course.config))
            spec = self._adapter.spec(request, launch, expires_at)
            return sent_to(course.destination, spec if choice is None else replace(spec, choice=choice))
        except Rejected:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is about this workload alone
            # Without the cause: a traceback could show the command, and with it the JWT.
            reason = f"The container request could not be built: {in_words(error)}"
            raise Rejected(reason) from None

    def _config_for_hook(self, config: Any) -> Any:
        """
        Return an ``executor_config`` that an overridden hook may change.

        Each search and each attempt renders the launch again, and must come to the same place.

        :raises Rejected: if it cannot be copied; the reason shows none of its values
        """
        if not config or not self.overridden:
            return config or {}
        try:
            return copy.deepcopy(config)
        except Exception as error:  # noqa: BLE001 - it comes from the author's own objects
            raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None

    def _command_for_hook(self, launch: Launch, adopted: AdoptedWorkload) -> list[str]:
        """Return the command of an adopted workload, or one of the same form with what is known of it."""
        if adopted.workload is not None:
            return self._adapter.command(adopted.workload)
        names = ("dag_id", "task_id", "run_id", "try_number", "map_index")
        of_ti = {name: getattr(launch.key, name) for name in names if hasattr(launch.key, name)}
        of_ti |= {"queue": adopted.queue, "priority_weight": launch.priority}
        return [*COMMAND, json.dumps({"token": "", "ti": of_ti, "type": "ExecuteTask"})]


def _launch_of_callback(key: Key, workload: Any, queued_at: float) -> tuple[Launch, object]:
    subject = str(workload.callback.id)
    launch = Launch(
        launch_id=str(uuid.uuid4()),
        key=key,
        workload=workload,
        priority=CALLBACK_PRIORITY,
        started_by=subject,
        queued_at=queued_at,
        label=f"callback {subject}",
        route=asked_for(workload)[0],
    )
    return launch, subject
