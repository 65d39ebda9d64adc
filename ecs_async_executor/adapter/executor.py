"""
The Airflow adapter, whatever the service: workloads become launches, reports become events.

May import Airflow and whatever of this package knows no service. Everything here but
:meth:`AsyncExecutor._render` and :meth:`AsyncExecutor.get_task_log` runs on the scheduler's main thread, which is
the only writer of ``running`` and ``event_buffer``, and none of it waits for AWS but, bounded, ``start()`` and
``end()``. SystemExit can surface there at any statement: every step is made so that it can be made again.
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from weakref import WeakSet

import msgspec
import structlog
from airflow.utils.state import TaskInstanceState
from sqlalchemy import event

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.telemetry import LogLines, Metrics
from ecs_async_executor.core.backend import Backend, LaunchSpec, Observation, Seen, Service
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.identity import is_uuid
from ecs_async_executor.core.messages import (
    Adopt,
    Finished,
    Launch,
    Launched,
    Notice,
    Release,
    Report,
    Stop,
    Unfollowed,
    Was,
)
from ecs_async_executor.core.policy import CREATED_MARGIN, RESEND_WINDOW
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.engine import SILENT, Statistics
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.settings import Tuning

if TYPE_CHECKING:
    from airflow.cli.cli_config import GroupCommand
    from sqlalchemy.orm import Session

log = structlog.get_logger(__name__)

T = TypeVar("T")

CALLBACK_PRIORITY = 1 << 31
"""Airflow runs callbacks before any task; a task's ``priority_weight`` is 31 bits."""
SPENT_IDS_KEPT = 20_000
STALL_SHARE = 2 / 3
"""Of ``scheduler_health_check_threshold``: after so long without a ``sync()`` nothing is launched any more."""
FRESH_SHARE = 0.9
"""Of ``scheduler_health_check_threshold``: whose last sign of life is no older nobody takes for dead yet."""
WHOSE_INTERVAL = 1.0
WHOSE_TRIES = 30
WHOSE_SECONDS = 30.0
"""How often the database is asked which launches are still ours, and for how long; then the service is."""
BACKLOG_SHARE = 1 / 3
"""Of ``task_queued_timeout``: how far ahead of its launch a workload may be taken from the scheduler."""
TASK_LOG_TIMEOUT = 5.0
"""Seconds that a person who looks at a log waits for the container's status."""
HEALTH_STOP_TIMEOUT = 1.0
HUNG_SECONDS = 60.0
"""After so long without a sign of the loop thread, what it last said of a launch is not believed any more."""

_DEFINITE_NO = frozenset(Kind) - {Kind.THROTTLED, Kind.CONCURRENT, Kind.AMBIGUOUS, Kind.CAPACITY}
"""What fails the health check; anything else may be over by the time it matters."""
_WAS = {was.value: was for was in Was}
_COMMAND = ("python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string")


class _Tracked(msgspec.Struct, frozen=True, gc=False):
    """What the main thread remembers of a launch that has not ended."""

    launch_id: str
    subject: object
    """The id of the task instance or callback: a key alone can come to mean another attempt."""
    queued_at: float
    """In wall-clock seconds: after a deferral the same task instance is queued again, perhaps by another."""


class Placed(msgspec.Struct, frozen=True, gc=False):
    """What is kept of the workload of a launch that is never launched again: where its container was to be."""

    queue: str | None
    executor_config: Any
    workload: Any = None
    """Without a token, for a hook that reads the command; only where it has to be looked for, if it can be."""


class AsyncExecutor(compat.VersionedExecutor):
    """
    Run workloads through a :class:`~ecs_async_executor.engine.bridge.Bridge`, at a service that subclasses name.

    A subclass gives :attr:`service`, :attr:`tuning`, :attr:`max_attempts`, :attr:`destination`,
    :meth:`_make_backend`, :meth:`_request`, :meth:`_spec` and :meth:`_handle_id`.
    """

    service: Service
    """What is known of it without asking."""
    bridge_type: ClassVar[type[Bridge]] = Bridge

    submit_failure = "task submit failure"
    """What the provider's executor calls the event of a launch that came to nothing, after the service's name."""
    never_called: ClassVar[Mapping[str, str]] = {}
    """Methods of the provider's executor that are overridden to no effect here, and what to do instead."""

    supports_multi_team = True
    supports_ad_hoc_ti_run = True
    pre_assigns_external_executor_id = True
    is_local = False
    is_production = True
    serve_logs = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The api-server makes an instance too, for get_task_log(): no I/O, and no settings are needed yet.
        super().__init__(*args, **kwargs)
        self._bridge: Bridge | None = None
        self._ended = False
        self._launches: dict[Key, _Tracked] = {}
        self._unlaunched: set[str] = set()
        self._held_up: dict[str, float] = {}
        self._stage: dict[Key, Adopt] = {}
        self._uncommitted: set[Key] = set()
        self._watched: WeakSet[Session] = WeakSet()
        self._spent: set[str] = set()
        self._spent_order: deque[str] = deque()
        self._applying: Key | None = None
        self._told: frozenset[Key] = frozenset()
        self._jwt: Any = None
        self._queued_timeout = 600.0
        self._overridden = False
        self._stall_timeout = self._fresh = math.inf
        self._whose_asked = 0
        self._whose_asked_at = self._whose_first_asked_at = -math.inf
        self._lines = LogLines(self.service.executor)
        self._metrics = Metrics(self.service.executor, self.team_name)

    # --- what a service has to say ---------------------------------------------------------------------------

    @property
    def tuning(self) -> Tuning:
        """The settings of the engine."""
        raise NotImplementedError

    @property
    def max_attempts(self) -> int:
        """How many containers may be tried for one launch as long as none of them started."""
        raise NotImplementedError

    @property
    def destination(self) -> str:
        """Where containers go unless something names another place, for people."""
        raise NotImplementedError

    @property
    def check_health_on_startup(self) -> bool:
        """``start()`` makes a test call and raises if the service refuses it."""
        return False

    def _make_backend(self) -> Backend:
        raise NotImplementedError

    def _handle_id(self, external_executor_id: str) -> str | None:
        """Return the container's identifier if it is one."""
        raise NotImplementedError

    def _request(self, key: Key, command: list[str], queue: str | None, config: Any) -> Any:
        """Make the request for a workload; user code can be involved."""
        raise NotImplementedError

    def _request_is_overridden(self) -> bool:
        return False

    def _spec(self, request: Any, launch: Launch, expires_at: float | None) -> LaunchSpec:
        raise NotImplementedError

    def _wrong_parameters(self, request: Mapping[str, Any]) -> Iterable[str]:
        """Say what of a request the SDK would refuse."""
        raise NotImplementedError

    # --- lifecycle -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Read the settings, start the loop thread, and ask the service if it would take our requests.

        :raises ConfigurationError: if the settings cannot be used
        :raises AirflowException: if the service definitely refuses the health check
        """
        if self._bridge is not None:
            return
        from airflow.configuration import conf

        tuning = self.tuning
        # Both can read files and the configuration: here, where that hurts nobody.
        self._jwt = self.jwt_generator
        self._queued_timeout = conf.getfloat("scheduler", "task_queued_timeout", fallback=600.0)
        threshold = conf.getfloat("scheduler", "scheduler_health_check_threshold", fallback=30.0)
        self._overridden = self._request_is_overridden()
        self._warn_of_what_is_never_called()
        self._stall_timeout = threshold * STALL_SHARE
        self._fresh = threshold * FRESH_SHARE
        bridge = self._make_bridge(tuning, self._stall_timeout)
        bridge.start()
        self._bridge = bridge
        if self.check_health_on_startup:
            self._check_health(bridge, tuning.connect_timeout + tuning.read_timeout)

    def _warn_of_what_is_never_called(self) -> None:
        for name, instead in self.never_called.items():
            if any(name in vars(one) for one in type(self).__mro__ if not _is_airflows_or_ours(one)):
                log.warning(
                    self.service.event("method.ignored"),
                    executor=type(self).__name__,
                    method=name,
                    instead=instead,
                )

    def _make_bridge(self, tuning: Tuning, stall_timeout: float) -> Bridge:
        return self.bridge_type(
            service=self.service,
            backend=self._make_backend,
            render=self._render,
            tuning=tuning,
            max_attempts=self.max_attempts,
            stall_timeout=stall_timeout,
            render_in_thread=self._overridden,
        )

    def _check_health(self, bridge: Bridge, timeout: float) -> None:
        log.info(self.service.event("health_check.started"), service=self.service.name, timeout=timeout)
        try:
            bridge.check(timeout)
        except Exception as error:
            transient = isinstance(error, TimeoutError) or (
                isinstance(error, BackendError) and error.kind not in _DEFINITE_NO
            )
            reason = in_words(error)
            if transient:
                log.warning(
                    self.service.event("health_check.inconclusive"), service=self.service.name, reason=reason
                )
                return
            bridge.stop(HEALTH_STOP_TIMEOUT, stop_containers=False, reason="")
            self._bridge = None
            log.error(self.service.event("health_check.failed"), service=self.service.name, reason=reason)  # noqa: TRY400
            name = self.service.name
            whole = (
                f"{name} Executor health check has failed because: {reason.rstrip('.')}. "
                f"The {name} executor will not be able to run Airflow tasks until the issue is addressed."
            )
            if isinstance(error, BackendError) and "health check has failed" in error.message:
                whole = error.message  # the backend words it as the provider does
            raise compat.AirflowException(whole) from error
        log.info(self.service.event("health_check.succeeded"), service=self.service.name)

    def end(self) -> None:
        """Launch nothing more, let requests in flight finish, and leave the containers to the next scheduler."""
        self._stop(stop_containers=None, reason="The Airflow scheduler that started it has ended")

    def terminate(self) -> None:
        """Stop all containers, in no more time than ``end()`` takes."""
        self._stop(stop_containers=True, reason="The Airflow scheduler that started it was terminated")

    def _stop(self, *, stop_containers: bool | None, reason: str) -> None:
        self._ended = True
        bridge = self._bridge
        if bridge is None:
            return
        try:
            tuning = self.tuning
            self._stage.clear()
            done = bridge.stop(
                tuning.shutdown_timeout,
                stop_containers=not tuning.adopt_task_instances if stop_containers is None else stop_containers,
                reason=reason,
            )
            bridge.drain(self._apply, budget=1.0)
            log.info(self.service.event("ended"), in_time=done, containers_left=len(self._launches))
            self._lines.write(budget=0.5)
        except Exception:
            log.exception(self.service.event("end.failed"))

    # --- Airflow's heartbeat ---------------------------------------------------------------------------------

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        bridge = self._bridge
        if bridge is None or self._ended:
            return
        queued_at = time.time()
        for key, workload in compat.take(self, workload_items):
            self.running.add(key)
            try:
                refusal = compat.unsupported(workload)
                if refusal is not None:
                    self.fail(key, refusal)
                    continue
                launch, subject = self._new_launch(key, workload, queued_at)
                if key in self._launches:
                    self._forget(key)
                self._launches[key] = _Tracked(launch.launch_id, subject, queued_at)
                self._unlaunched.add(launch.launch_id)
                bridge.submit(launch)
            except Exception as error:  # noqa: BLE001 - it is about this workload alone
                self.fail(key, f"The workload could not be taken: {in_words(error)}")

    def sync(self) -> None:
        """Apply what the loop thread reported; never wait, never raise."""
        bridge = self._bridge
        if bridge is None:
            return
        try:
            bridge.drain(self._apply)
            self._hand_over_stage(bridge)
            self._lines.write()
            self._metrics.emit(bridge.statistics)
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("sync.failed"), error)
        try:
            bridge.beat(may_launch=not bridge.is_silent() or self._knows_whose(bridge))
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("beat.failed"), error)

    def _knows_whose(self, bridge: Bridge) -> bool:
        """
        After a silence, give up what another scheduler has adopted; tell if it is time to launch the rest.

        That others take this one for dead ends with the scheduler's own next sign of life, which comes after this.
        """
        now = time.monotonic()
        if now < self._whose_asked_at + WHOSE_INTERVAL:
            return False
        if not self._whose_asked:
            self._whose_first_asked_at = now
        self._whose_asked_at = now
        self._whose_asked += 1
        try:
            known = self._give_up_what_is_lost(bridge)
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("ownership.unknown"), error)
            known = False
        given_up = self._whose_asked >= WHOSE_TRIES or now - self._whose_first_asked_at >= WHOSE_SECONDS
        if not known and not given_up:
            return False
        self._whose_asked = 0
        return True

    def _give_up_what_is_lost(self, bridge: Bridge) -> bool:
        if self.job_id is None:
            return True  # nobody adopts from whom the database does not know
        unstarted = bridge.unstarted() | self._unlaunched
        asked = {
            tracked.subject: key
            for key, tracked in self._launches.items()
            if tracked.launch_id in unstarted and isinstance(tracked.subject, uuid.UUID)
        }
        queued = compat.queued_tasks(self)
        ids = [*asked, *queued.values()]
        lost = compat.lost_to_others(ids, int(self.job_id), self._fresh) if ids else set()
        if lost is None:
            return False
        for key in [key for key, ti_id in queued.items() if ti_id in lost]:
            compat.forget_queued(self, key)
        given_up = [key for ti_id, key in asked.items() if ti_id in lost]
        for key in given_up:
            bridge.submit(Release(self._launches[key].launch_id))
            self.running.discard(key)
            self.event_buffer.pop(key, None)
            self._forget(key)
        self._lines.add("warning", "silence.over", asked=len(ids), lost=len(lost))
        return True

    def _apply(self, report: Report) -> None:
        try:
            self._apply_now(report)
        except Exception as error:  # noqa: BLE001 - would come up again with every sync(), and hold up the others
            self._lines.add("error", "report.failed", key=str(report.key), exc_info=error)
            if isinstance(report, Finished | Unfollowed):
                self.running.discard(cast("Key", report.key))
                self._forget(report.key)

    def _apply_now(self, report: Report) -> None:
        key: Key = report.key
        tracked = self._launches.get(key)
        if tracked is None or tracked.launch_id != report.launch_id:
            return
        if isinstance(report, Finished):
            try:
                self._tell_of_end(report)
            except Exception as error:  # noqa: BLE001 - the outcome counts for more than what is said of it
                self._lines.add("error", "report.failed", key=str(key), exc_info=error)
            self._applying = key
            try:
                if report.success:
                    self.success(key)
                else:
                    self.fail(key, report.reason)
            finally:
                self._applying = None
            # Only now: a SystemExit before this has the report applied again, to the same effect.
            self._unlaunched.discard(report.launch_id)
            self._held_up.pop(report.launch_id, None)
            del self._launches[key]
        elif isinstance(report, Launched):
            self._unlaunched.discard(report.launch_id)
            if report.launch_id in self._held_up:
                # Airflow's patience has run out long ago; its container has as much of it as any other.
                self._held_up[report.launch_id] = time.monotonic() + self._queued_timeout
            self.running_state(key, report.handle_id)
        elif isinstance(report, Notice):
            if report.unlaunched:
                self._held_up[report.launch_id] = math.inf
            self._lines.add("warning", "notice", key=str(key), about=report.event, text=report.text)
            self.log_task_event(event=report.event, extra=report.text, ti_key=key)
        elif isinstance(report, Unfollowed):
            self._lines.add("warning", "container.unfollowed", key=str(key), reason=report.reason)
            self.log_task_event(event="container not followed", extra=report.reason, ti_key=key)
            self.running.discard(key)
            self._forget(key)

    def get_event_buffer(self, dag_ids: list[str] | None = None) -> dict[Any, Any]:
        """Hand the events over to the scheduler."""
        events: dict[Any, Any] = super().get_event_buffer(dag_ids)
        self._told = frozenset(events)
        return events

    def has_task(self, task_instance: Any) -> bool:
        """
        Tell if a task instance is here, or has gone on since the events that were handed over last.

        The scheduler fails a task instance whose end it is told of, unless it has announced that itself or is
        here again. One that is scheduled under the same try has announced it: its container gave it back (a
        sensor in reschedule mode, a deferral), and it was due again before the container was seen to end.
        """
        if super().has_task(task_instance):
            return True
        return (
            str(task_instance.state) == TaskInstanceState.SCHEDULED.value
            and compat.task_key(self, task_instance) in self._told
        )

    def _tell_of_end(self, report: Finished) -> None:
        if report.success:
            return
        self._lines.add(
            "warning",
            "container.failed" if report.handle_id else "launch.failed",
            key=str(report.key),
            launch_id=report.launch_id,
            reason=report.reason,
            handle_id=report.handle_id,
            exit_code=report.exit_code,
            stop_code=report.stop_code,
        )
        if report.notable:
            what = "container failure" if report.handle_id else self.submit_failure
            self.log_task_event(
                event=f"{self.service.name.lower()} {what}", extra=report.reason or "", ti_key=report.key
            )

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """Add an entry to the event log of a task instance; callbacks have none."""
        if isinstance(ti_key, str):
            return  # 3.2's key of a callback
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)

    def change_state(
        self,
        key: Key,
        state: Any,
        info: Any = None,
        remove_running: bool = True,  # noqa: FBT001, FBT002 - Airflow's signature
    ) -> None:
        """
        Set an event; if it is not ours, nobody waits for the container any more and it is stopped.

        The scheduler calls this for task instances that lost their heartbeat.
        """
        super().change_state(key, state, info, remove_running)
        if remove_running and key != self._applying:
            self._abandon(key, f"Airflow set the task instance to {state} while its container was not done")

    def revoke_task(self, *, ti: Any) -> None:
        """
        Forget a task instance and stop its container, wherever that is on its way; emit no event.

        :raises NotImplementedError: if it waits for capacity, or did and its container has not had the time yet
            that any other has. The scheduler leaves it queued then, and asks again later, where it would fail
            it, its retries unused, after the third time; it also leaves what else it took for stuck until then
        """
        if self._is_held_up(ti):
            raise NotImplementedError("It waits for capacity, or did until a moment ago")
        try:
            key = compat.task_key(self, ti)
            compat.forget_queued(self, key)
            self.running.discard(key)
            self.event_buffer.pop(key, None)
            self._abandon(key, "Airflow revoked the task instance: it was queued for too long")
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("revoke.failed"), error)

    def _is_held_up(self, ti: Any) -> bool:
        try:
            tracked = self._launches.get(compat.task_key(self, ti))
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("revoke.failed"), error)
            return False
        bridge = self._bridge
        if tracked is None or bridge is None:
            return False
        statistics = bridge.statistics()
        pauses = statistics.paused not in {None, SILENT} and tracked.launch_id in self._unlaunched
        waits = self._held_up.get(tracked.launch_id, 0.0) > time.monotonic()
        return (pauses or waits) and statistics.loop_lag < HUNG_SECONDS

    def _abandon(self, key: Key, reason: str) -> None:
        tracked = self._launches.get(key)
        bridge = self._bridge
        if tracked is None or bridge is None:
            return
        adopted = self._stage.pop(key, None)
        if adopted is not None:
            # The engine has to know the launch to find its container. The adoption is committed: the scheduler
            # speaks of its task instances only after that.
            bridge.submit(adopted)
        bridge.submit(Stop(tracked.launch_id, reason))
        self._lines.add("info", "launch.abandoned", key=str(key), reason=reason)
        self._forget(key)

    def _forget(self, key: Key) -> None:
        tracked = self._launches.pop(key, None)
        if tracked is not None:
            self._unlaunched.discard(tracked.launch_id)
            self._held_up.pop(tracked.launch_id, None)
        self._stage.pop(key, None)
        self._uncommitted.discard(key)

    @property
    def slots_available(self) -> int:
        """How many more workloads can be taken, so that the last of them is launched well before it times out."""
        free = cast("int", super().slots_available)
        bridge = self._bridge
        if bridge is None:
            return free
        statistics = bridge.statistics()
        if statistics.paused not in {None, SILENT}:
            return min(free, 0)
        room = max(1, int(statistics.launch_rate * self._queued_timeout * BACKLOG_SHARE))
        room -= len(self._unlaunched) + len(compat.queued_keys(self))
        return min(free, max(0, room))

    # --- launching -------------------------------------------------------------------------------------------

    def _new_launch(self, key: Key, workload: Any, queued_at: float) -> tuple[Launch, object]:
        ti = getattr(workload, "ti", None)
        if ti is None:
            name = str(workload.callback.id)
            launch = Launch(
                launch_id=str(uuid.uuid4()),
                key=key,
                workload=workload,
                priority=CALLBACK_PRIORITY,
                started_by=name,
                queued_at=queued_at,
                label=f"callback {name}",
                route=_queue_of_callback(workload),
            )
            return launch, name
        subject = ti.id
        launch_id, started_by = self._identity(getattr(ti, "external_executor_id", None), subject)
        # By position: names cost as much again.
        launch = Launch(
            launch_id,
            key,
            workload,
            ti.priority_weight,
            started_by,
            queued_at,
            "",
            self._route(ti),
            launch_id == started_by,
        )
        return launch, subject

    def _identity(self, external_id: str | None, subject: object) -> tuple[str, str]:
        """
        Return launch id and mark of a task instance's launch.

        Where Airflow assigned an id with the queueing, both are that: another scheduler can then repeat the
        launch without a second container.
        """
        if external_id is None or not self.pre_assigns_external_executor_id or not is_uuid(external_id):
            return str(uuid.uuid4()), str(subject)
        spent = self._spent
        if external_id in spent:
            # Not assigned anew with this queueing: its tokens belong to the container of an earlier one.
            return str(uuid.uuid4()), external_id
        self._spend(external_id)
        return external_id, external_id

    def _spend(self, external_id: str) -> None:
        self._spent.add(external_id)
        order = self._spent_order
        order.append(external_id)
        if len(order) > SPENT_IDS_KEPT:
            self._spent.discard(order.popleft())

    def _route(self, ti: Any) -> Hashable:
        """Return what decides where a workload's container is placed, as far as that is known beforehand."""
        config = ti.executor_config
        try:
            if not config and not self._overridden:
                return cast("str", ti.queue)
            words = repr(config) if config else None
        except Exception:  # noqa: BLE001 - the author's own objects: whatever they are like, it is like no other
            words = str(ti.id)
        # An overridden hook may look at anything of the task.
        task = (ti.dag_id, ti.task_id) if self._overridden else None
        return ti.queue, words, task

    def _render(self, launch: Launch) -> LaunchSpec:
        """
        Make the request of a launch. Not on the main thread.

        That of one that is never launched again only says where its container is to be found: its command has no
        token, and is there only if a hook may look at it.

        :raises Rejected: if there can be none
        """
        try:
            placed = launch.workload
            if isinstance(placed, Placed):
                config = self._for_a_hook(placed.executor_config)
                command = self._command_for_a_hook(launch, placed) if self._overridden else []
                request = self._request(launch.key, command, placed.queue, config)
                return self._spec(request, launch, None)
            workload = compat.with_fresh_token(launch.workload, self._jwt)
            ti = getattr(workload, "ti", None)
            request = self._request(
                launch.key,
                self._serialize_workload_to_command(workload),
                _queue_of_callback(workload) if ti is None else ti.queue,
                {} if ti is None else self._for_a_hook(ti.executor_config),
            )
            return self._spec(request, launch, compat.token_expiry(workload.token))
        except Rejected:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is about this workload alone
            # Without the cause: a traceback could show the command, and with it the token.
            reason = f"The container request could not be built: {in_words(error)}"
            raise Rejected(reason) from None

    def _for_a_hook(self, config: Any) -> Any:
        """
        Return an ``executor_config`` that an overridden hook may change.

        A launch is rendered again for a search or another attempt, which must not lead to another place.

        :raises Rejected: if it cannot be copied; nothing of its values is in the reason
        """
        if not config or not self._overridden:
            return config or {}
        try:
            return copy.deepcopy(config)
        except Exception as error:  # noqa: BLE001 - it comes from the author's own objects
            raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None

    def _command_for_a_hook(self, launch: Launch, placed: Placed) -> list[str]:
        """Return the command of what is never launched again; at least one in the usual form, of what is known."""
        if placed.workload is not None:
            return self._serialize_workload_to_command(placed.workload)
        names = ("dag_id", "task_id", "run_id", "try_number", "map_index")
        of_ti = {name: getattr(launch.key, name) for name in names if hasattr(launch.key, name)}
        of_ti |= {"queue": placed.queue, "priority_weight": launch.priority}
        return [*_COMMAND, json.dumps({"token": "", "ti": of_ti, "type": "ExecuteTask"})]

    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        """Return the command that runs a workload in a container; it holds the token."""
        return [*_COMMAND, workload.model_dump_json()]

    # --- adoption --------------------------------------------------------------------------------------------

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """
        Take over the launches of a scheduler that is gone; return the task instances that cannot be.

        The scheduler holds locks on the rows meanwhile, so nothing is looked up at the service: the launches
        are staged, and handed to the loop thread by the next ``sync()``, which comes after the commit.
        """
        if not tis or self._bridge is None or self._ended or not self.tuning.adopt_task_instances:
            return tis
        with self._metrics.timer("adopt_task_instances.duration"):
            session = compat.load_for_adoption(tis)
            # A launch that runs, or is past its launching, is never launched again: it needs no whole workload,
            # unless a hook, which may read that in the command, has to say where it runs.
            rebuilt = compat.rebuild([ti for ti in tis if self._is_whole(ti)])
            stage: dict[Key, Adopt] = {}
            given_back: list[Any] = []
            ours: list[Key] = []
            for ti in tis:
                key = compat.task_key(self, ti)
                tracked = self._launches.get(key)
                if tracked is not None and key not in self._stage and self._is_the_same(tracked, ti):
                    ours.append(key)
                    continue
                workload = rebuilt.get(ti.id)
                if str(ti.state) not in _WAS:
                    reason = f"state {ti.state}"
                elif isinstance(workload, Exception) and str(ti.state) == Was.QUEUED.value:
                    reason = in_words(workload)
                else:
                    try:
                        stage[key] = self._adoption(ti, key, workload)
                        continue
                    except compat.RETRIED_DATABASE_ERRORS:
                        raise
                    except Exception as error:  # noqa: BLE001 - would end the scheduler
                        reason = in_words(error)
                self._lines.add("warning", "adoption.refused", key=str(key), reason=reason)
                given_back.append(ti)
            self._replace_stage(stage, session, {ti.id: ti for ti in tis})
            self.running.update(ours, stage)
        self._lines.add("info", "adopted", staged=len(stage), known=len(ours), given_back=len(given_back))
        return given_back

    @staticmethod
    def _is_the_same(tracked: _Tracked, ti: Any) -> bool:
        """Tell if a task instance is the one of a launch of ours, and was not queued again since."""
        queued = ti.queued_dttm
        again = queued is not None and queued.timestamp() > tracked.queued_at + CREATED_MARGIN
        return tracked.subject == compat.uuid_of(ti) and not again

    def _is_whole(self, ti: Any) -> bool:
        if str(ti.state) == Was.QUEUED.value:
            return True
        external_id = ti.external_executor_id
        return self._overridden and not (external_id and self._handle_id(external_id))

    def _adoption(self, ti: Any, key: Key, workload: Any) -> Adopt:
        if str(ti.state) != Was.QUEUED.value:
            known = None if isinstance(workload, Exception) else workload
            workload = Placed(ti.queue, ti.executor_config, known)
        external_id = ti.external_executor_id
        assigns = self.pre_assigns_external_executor_id
        assigned = external_id if external_id is not None and assigns and is_uuid(external_id) else None
        queued_at = ti.queued_dttm.timestamp() if ti.queued_dttm else time.time()
        return Adopt(
            launch=Launch(
                launch_id=assigned or str(uuid.uuid4()),
                key=key,
                workload=workload,
                priority=ti.priority_weight or 0,
                started_by=assigned or str(ti.id),
                queued_at=queued_at,
                route=self._route(ti),
                # The service need not remember older tokens: the container is looked for then.
                tokened=assigned is not None and time.time() - queued_at < RESEND_WINDOW,
            ),
            was=_WAS[str(ti.state)],
            handle_id=self._handle_id(external_id) if external_id else None,
        )

    def _replace_stage(self, stage: dict[Key, Adopt], session: Session | None, tis: Mapping[object, Any]) -> None:
        # What an earlier call staged and this one does not name was rolled back, and is somebody else's now.
        for key in [key for key in self._stage if key not in stage]:
            self._unstage(key)
        subjects = {compat.task_key(self, ti): compat.uuid_of(ti) for ti in tis.values()}
        if session is not None:
            self._watch(session)
        for key, adopt in stage.items():
            self._forget(key)
            if session is not None:
                self._uncommitted.add(key)
            self._stage[key] = adopt  # before it is tracked: what is tracked and not staged is taken for ours
            self._launches[key] = _Tracked(adopt.launch.launch_id, subjects[key], adopt.launch.queued_at)
            launch_id = adopt.launch.launch_id
            if adopt.launch.started_by == launch_id and launch_id not in self._spent:
                self._spend(launch_id)
            if adopt.was is Was.QUEUED:
                self._unlaunched.add(adopt.launch.launch_id)

    def _unstage(self, key: Key) -> None:
        self._forget(key)
        self.running.discard(key)

    def _watch(self, session: Session) -> None:
        """Take the stage back when the adoption's transaction is: the scheduler may find nothing to repeat."""
        if session in self._watched:
            return
        self._watched.add(session)
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)

    def _committed(self, _: Session) -> None:
        self._uncommitted.clear()

    def _rolled_back(self, _: Session) -> None:
        for key in list(self._uncommitted):
            if key in self._stage:
                self._unstage(key)
        self._uncommitted.clear()

    def _hand_over_stage(self, bridge: Bridge) -> None:
        while self._stage:
            key = next(iter(self._stage))
            bridge.submit(self._stage[key])
            del self._stage[key]

    # --- what people look at ---------------------------------------------------------------------------------

    def debug_dump(self) -> None:
        """Log what the executor is doing; never raise, take no lock, show no workload (3.1's show their token)."""
        try:
            bridge = self._bridge
            log.info(
                self.service.event("debug_dump"),
                executor=repr(self),
                queued=len(compat.queued_keys(self)),
                running=len(self.running),
                events=len(self.event_buffer),
                launches=len(self._launches),
                unlaunched=len(self._unlaunched),
                staged=len(self._stage),
                slots_available=self.slots_available,
                statistics=repr(bridge.statistics()) if bridge else None,
            )
            known = bridge.records() if bridge else []
            for record in known:
                log.info(self.service.event("launch"), **record)
            strangers = {tracked.launch_id for tracked in list(self._launches.values())}
            for launch_id in strangers - {record["launch_id"] for record in known}:
                log.info(
                    self.service.event("launch"), launch_id=launch_id, phase="on its way to or from the engine"
                )
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            _log_exception(self.service.event("debug_dump.failed"), error)

    def statistics(self) -> Statistics | None:
        """Return the engine's latest statistics; None before ``start()``."""
        return self._bridge.statistics() if self._bridge is not None else None

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """
        Say how the container of a running task instance is doing.

        Called in the api-server, on an instance that is never started.
        """
        try:
            external_id = ti.external_executor_id
            handle_id = self._handle_id(external_id) if external_id else None
            if handle_id is None or ti.try_number != try_number:
                return [], []
            return [f"{self.service.name} container {handle_id}: {_status(self._look_at(handle_id))}"], []
        except Exception as error:  # noqa: BLE001 - it is a line of a log
            return [f"The status of the {self.service.name} container could not be read: {in_words(error)}"], []

    def _look_at(self, handle_id: str) -> Observation:
        async def look() -> Observation:
            backend = self._make_backend()
            async with backend.open():
                return (await backend.describe(backend.scope_of(handle_id), [handle_id]))[0]

        return run_bounded(look, TASK_LOG_TIMEOUT)

    @staticmethod
    def get_cli_commands() -> list[GroupCommand]:
        """Return the commands of ``airflow ecs-async``; Airflow 3.2 and later take them from the provider info."""
        from airflow.cli.cli_config import lazy_load_command

        return cast("list[GroupCommand]", lazy_load_command("ecs_async_executor.cli.get_cli_commands")())


def run_bounded(work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """
    Run a coroutine function on a loop of its own, in a thread that is left behind if it takes too long.

    :param timeout: seconds
    :raises TimeoutError: if it did
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(asyncio.run(asyncio.wait_for(work(), timeout)))
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name="ecs-async-look", daemon=True).start()
    try:
        # The connection can be looked up synchronously, which no timeout of the loop's ends.
        return outcome.result(timeout + 1.0)
    except (FutureTimeoutError, asyncio.TimeoutError):
        raise TimeoutError(f"no answer within {timeout:g} s") from None


def in_words(error: BaseException) -> str:
    """Return an exception's words, safe to show."""
    text = redacted(str(error))
    if isinstance(error, BackendError | TimeoutError | Rejected):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_airflows_or_ours(one: type) -> bool:
    return one.__module__.partition(".")[0] in {"airflow", "ecs_async_executor"}


def _queue_of_callback(workload: Any) -> str | None:
    """Return what the provider's executor for Batch takes for a callback's queue; Airflow itself sets none."""
    queue = workload.callback.data.get("queue")
    return queue if isinstance(queue, str) else None


def _status(seen: Observation) -> str:
    if seen.seen is Seen.MISSING:
        return "not known to the service (any more)"
    parts = [seen.status or seen.seen.value]
    if seen.exit_code is not None:
        parts.append(f"exit code {seen.exit_code}")
    if seen.stop_code:
        parts.append(seen.stop_code)
    if seen.reason:
        parts.append(seen.reason)
    return ", ".join(parts)


def _log_exception(event_name: str, error: Exception) -> None:
    # A log that cannot be written (disk, pipe) must not end the scheduler either.
    with suppress(Exception):
        log.error(event_name, exc_info=error)
