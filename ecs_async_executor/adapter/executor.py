"""
The executor as Airflow calls it, whatever the service.

May import Airflow and whatever of this package knows no service. Everything here but :meth:`get_task_log` runs on
the scheduler's main thread, which is the only writer of ``running`` and ``event_buffer``. Nothing here waits for
AWS but, bounded, ``start()`` and ``end()``. SystemExit can surface at any statement: every step can be repeated.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import structlog
from airflow.utils.state import TaskInstanceState

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.adoption import Adoption
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.adapter.endpoint import endpoint_of
from ecs_async_executor.adapter.event_log import EventLog
from ecs_async_executor.adapter.health import check_health
from ecs_async_executor.adapter.last_ends import LastEnds
from ecs_async_executor.adapter.last_words import LastWordsReader
from ecs_async_executor.adapter.log_files import LogFiles
from ecs_async_executor.adapter.metrics import Metrics
from ecs_async_executor.adapter.ownership import OwnershipCheck
from ecs_async_executor.adapter.reports import Reports, in_words
from ecs_async_executor.adapter.service import ServiceAdapter, ignored_methods
from ecs_async_executor.adapter.task_log import task_log
from ecs_async_executor.adapter.telemetry import LogLines, WaitLines, log_exception
from ecs_async_executor.adapter.tracking import Tracking
from ecs_async_executor.adapter.workloads import COMMAND, Workloads
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import Stop
from ecs_async_executor.core.metrics import ADOPTION_DURATION
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.statistics import SILENT, Statistics
from ecs_async_executor.services.redaction import storable
from ecs_async_executor.settings import Tuning

if TYPE_CHECKING:
    from airflow.cli.cli_config import GroupCommand

log = structlog.get_logger(__name__)

STALL_SHARE = 2 / 3
"""Of ``scheduler_health_check_threshold``: after so long without a ``sync()`` the engine launches nothing more."""
FRESH_SHARE = 0.9
"""Of ``scheduler_health_check_threshold``: nobody adopts from a scheduler with a heartbeat younger than this."""
HEALTH_STOP_TIMEOUT = 1.0
HUNG_SECONDS = 60.0
"""After so long without a sign of the loop's thread, what it last reported of a launch is out of date."""


class AsyncExecutor(compat.VersionedExecutor):
    """
    Run workloads at a service, through a :class:`~ecs_async_executor.engine.bridge.Bridge`.

    A subclass names the service in :meth:`_make_adapter`, and has the methods that its users override.

    :ivar adapter: the service
    :ivar tracking: the launches that have not ended
    :ivar workloads: makes launches and requests
    """

    bridge_type: ClassVar[type[Bridge]] = Bridge

    supports_multi_team = True
    supports_ad_hoc_ti_run = True
    pre_assigns_external_executor_id = True
    is_local = False
    is_production = True
    serve_logs = False

    _task_event_logs: EventLog

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The api-server makes an instance too, for get_task_log(): no I/O, and no settings are needed yet.
        super().__init__(*args, **kwargs)
        self._task_event_logs = EventLog()  # in place of Airflow's, of which the scheduler loses the entries
        adapter = self.adapter = self._make_adapter()
        tracking = self.tracking = Tracking()
        ends = LastEnds(adapter)
        self.workloads = Workloads(adapter, tracking, ends, assigned=self.pre_assigns_external_executor_id)
        lines = self._lines = LogLines(adapter.service.executor)
        self._metrics = Metrics(adapter.service.executor, self.team_name)
        waits = self._waits = WaitLines(lines)
        self._reports = Reports(
            self, adapter, tracking, lines=lines, waits=waits, metrics=self._metrics, last_ends=ends
        )
        self._adoption = Adoption(self, adapter, self.workloads, tracking, lines)
        self._ownership = OwnershipCheck(self, adapter, tracking, lines)
        self._bridge: Bridge | None = None
        self._ended = False
        self._told: frozenset[Key] = frozenset()

    def _make_adapter(self) -> ServiceAdapter:
        raise NotImplementedError

    @staticmethod
    def _serialize_workload_to_command(workload: Any) -> list[str]:
        """Return the command that runs a workload in a container; it holds the workload's JWT."""
        return [*COMMAND, workload.model_dump_json()]

    # --- lifecycle -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Read the settings, start the loop's thread, and make the health check if it is configured.

        :raises ConfigurationError: if the settings cannot be used
        :raises AirflowException: if the service definitely refuses the health check
        """
        adapter = self.adapter
        adapter.prepare()
        if self._bridge is not None:
            return
        from airflow.configuration import conf

        tuning = adapter.tuning
        # The generator can read files, and the configuration too: here, where that delays nobody.
        self.workloads.prepare(self.jwt_generator)
        self.tracking.queued_timeout = conf.getfloat("scheduler", "task_queued_timeout", fallback=600.0)
        threshold = conf.getfloat("scheduler", "scheduler_health_check_threshold", fallback=30.0)
        self._ownership.fresh = threshold * FRESH_SHARE
        for doubt in adapter.doubts:
            log.warning(adapter.service.event("settings.doubtful"), doubt=doubt)
        for method, instead in ignored_methods(self, adapter.never_called).items():
            log.warning(
                adapter.service.event("method.ignored"),
                executor=type(self).__name__,
                method=method,
                instead=instead,
            )
        bridge = self._make_bridge(tuning, threshold * STALL_SHARE)
        bridge.start()
        self._bridge = bridge
        self._reports.examine = bridge.examine if tuning.container_log_lines else None
        if adapter.check_health_on_startup:
            try:
                check_health(bridge, adapter.service, tuning.connect_timeout + tuning.read_timeout)
            except compat.AirflowException:
                bridge.stop(HEALTH_STOP_TIMEOUT, stop_containers=False, reason="")
                self._bridge = None
                raise
        if tuning.gc_freeze:
            gc.collect()  # what is garbage by now would stay for ever
            gc.freeze()

    def _make_bridge(self, tuning: Tuning, stall_timeout: float) -> Bridge:
        return self.bridge_type(
            service=self.adapter.service,
            backend=partial(self.adapter.make_backend, launches=True),
            render=self.workloads.render,
            choices=self.workloads.choices,
            blocks=self.workloads.blocks,
            lacks=self.workloads.lacks,
            look_up=self.workloads.look_up,
            condense=self.workloads.condense,
            tuning=tuning,
            max_attempts=self.adapter.max_attempts,
            stall_timeout=stall_timeout,
            endpoint=endpoint_of(self),
            events=self.adapter.make_events,
            destinations=self.adapter.rules.destinations,
            last_words=LastWordsReader(
                self.adapter, tuning.container_log_lines, LogFiles(self.adapter.service.event)
            ).open,
            account_quotas=self.adapter.account_quotas if tuning.read_service_quotas else None,
        )

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
            tuning = self.adapter.tuning
            self._adoption.put_off.over()
            self.tracking.staged.clear()
            in_time = bridge.stop(
                tuning.shutdown_timeout,
                stop_containers=not tuning.adopt_task_instances if stop_containers is None else stop_containers,
                reason=reason,
            )
            bridge.drain(self._reports.apply, budget=1.0)
            waiting = len(self.tracking.unlaunched)
            log.info(
                self.adapter.service.event("ended"),
                in_time=in_time,
                containers_left=len(self.tracking.launches) - waiting,
                unlaunched=waiting,
            )
            self._waits.collect(all_of_them=True)
            self._lines.write(budget=0.5)
        except Exception:
            log.exception(self.adapter.service.event("end.failed"))

    # --- Airflow's heartbeat ---------------------------------------------------------------------------------

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        bridge = self._bridge
        if bridge is None or self._ended:
            return
        workloads, tracking = self.workloads, self.tracking
        queued_at = time.time()
        for taken, workload in compat.take(self, workload_items):
            key = tracking.shared(taken)
            self.running.add(key)
            try:
                refusal = compat.unsupported(workload)
                if refusal is not None:
                    self._metrics.failed(Ending.REFUSED)
                    self.fail(key, refusal)
                    continue
                launch, subject = workloads.new_launch(key, workload, queued_at)
                self._adoption.hand_over_first(bridge, key)  # its container has to go before the next one comes
                tracking.add(key, launch, subject)
                bridge.submit(launch)
            except Exception as error:  # noqa: BLE001 - it is about this workload alone
                self._metrics.failed(Ending.REFUSED)
                self.fail(key, f"The workload could not be taken: {in_words(error)}")

    def sync(self) -> None:
        """Apply what the engine has reported; never wait, never raise."""
        bridge = self._bridge
        if bridge is None:
            return
        try:
            if given_up := self._task_event_logs.release():
                self._lines.add("warning", "event_log.given_up", entries=given_up)
            bridge.drain(self._reports.apply)
            self._adoption.hand_over(bridge)
            self._waits.collect()
            self._lines.write()
            self._metrics.emit(bridge.statistics, bridge.meters.samples)
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(self.adapter.service.event("sync.failed"), error)
        try:
            bridge.heartbeat(may_launch=not bridge.is_silent() or self._ownership.may_launch(bridge))
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(self.adapter.service.event("heartbeat.failed"), error)

    @property
    def slots_available(self) -> int:
        """How many more workloads can be taken, so that the last of them launches well before it times out."""
        free = cast("int", super().slots_available)
        bridge = self._bridge
        if bridge is None:
            return free
        statistics = bridge.statistics()
        if statistics.paused not in {None, SILENT}:
            return min(free, 0)
        room = self.tracking.room(statistics.launch_rate, statistics.stranded) - len(compat.queued_keys(self))
        return min(free, max(0, room))

    def get_event_buffer(self, dag_ids: list[str] | None = None) -> dict[Any, Any]:
        """Hand the events over to the scheduler."""
        events: dict[Any, Any] = super().get_event_buffer(dag_ids)
        self._told = frozenset(events)
        return events

    def has_task(self, task_instance: Any) -> bool:
        """
        Return whether a task instance is here, or was scheduled again before its last event was handed over.

        The scheduler fails a task instance whose container has ended, unless the task instance has announced that
        or is here again. One that is SCHEDULED under the same try has announced it: its container gave it back (a
        sensor in reschedule mode, a deferral), and it was due again before the container was seen to end.
        """
        if super().has_task(task_instance):
            return True
        return (
            str(task_instance.state) == TaskInstanceState.SCHEDULED.value
            and compat.task_key(self, task_instance) in self._told
        )

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """Add an entry to the event log of a task instance; callbacks have none."""
        if isinstance(ti_key, str):
            return  # 3.2's key of a callback
        # An entry that the database refuses would take those beside it along.
        super().log_task_event(event=event, extra=storable(extra), ti_key=ti_key)

    # --- launches that Airflow no longer wants ---------------------------------------------------------------

    def change_state(
        self,
        key: Key,
        state: Any,
        info: Any = None,
        remove_running: bool = True,  # noqa: FBT001, FBT002 - Airflow's signature
    ) -> None:
        """
        Set an event; if it is not the executor's own, stop the container, for which nobody waits any more.

        The scheduler calls this for task instances that lost their heartbeat.
        """
        super().change_state(key, state, info, remove_running)
        if remove_running and key != self._reports.applying:
            self._abandon(key, f"Airflow set the task instance to {state} while its container was not done")

    def revoke_task(self, *, ti: Any) -> None:
        """
        Forget a task instance and stop its container, wherever that is on its way; emit no event.

        :raises NotImplementedError: while the launch waits for a destination in trouble; while the launch, or its
            container, waits for capacity, and until its container has then had ``task_queued_timeout`` to start.
            The scheduler leaves the task instance queued and asks again later; a revoke that succeeded for the
            third time would fail it, its retries unused. The scheduler also postpones all other revokes of that
            round.
        """
        if self._is_held_up(ti):
            raise NotImplementedError("The launch waits for AWS, or did until a moment ago")
        try:
            key = compat.task_key(self, ti)
            compat.forget_queued(self, key)
            self.running.discard(key)
            self.event_buffer.pop(key, None)
            self._abandon(key, "Airflow revoked the task instance: it was queued for too long")
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(self.adapter.service.event("revoke.failed"), error)

    def _is_held_up(self, ti: Any) -> bool:
        tracking = self.tracking
        try:
            tracked = tracking.launches.get(compat.task_key(self, ti))
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(self.adapter.service.event("revoke.failed"), error)
            return False
        bridge = self._bridge
        if tracked is None or bridge is None:
            return False
        statistics = bridge.statistics()
        paused = statistics.paused not in {None, SILENT} and tracked.launch_id in tracking.unlaunched
        paused = paused or tracked.launch_id in statistics.stranded
        return (paused or tracking.is_held_up(tracked.launch_id)) and statistics.loop_lag < HUNG_SECONDS

    def _abandon(self, key: Key, reason: str) -> None:
        tracking = self.tracking
        tracked = tracking.launches.get(key)
        bridge = self._bridge
        if tracked is None or bridge is None:
            return
        # Its adoption is committed: only then does the scheduler ask anything about its task instance.
        self._adoption.hand_over_first(bridge, key)
        bridge.submit(Stop(tracked.launch_id, reason))
        self._lines.add("info", "launch.abandoned", key=str(key), reason=reason)
        tracking.forget(key)

    def try_adopt_task_instances(self, tis: Sequence[Any]) -> Sequence[Any]:
        """Take over the launches of a scheduler that is gone; return the task instances that cannot be."""
        if not tis or self._bridge is None or self._ended or not self.adapter.tuning.adopt_task_instances:
            return tis
        with self._metrics.timer(ADOPTION_DURATION):
            return self._adoption.adopt(tis)

    # --- what people look at ---------------------------------------------------------------------------------

    def debug_dump(self) -> None:
        """Log the executor's state; never raise, take no lock, show no workload (3.1's show their JWT)."""
        event = self.adapter.service.event
        try:
            bridge, launches = self._bridge, self.tracking.launches
            log.info(
                event("debug_dump"),
                executor=repr(self),
                queued=len(compat.queued_keys(self)),
                running=len(self.running),
                events=len(self.event_buffer),
                launches=len(launches),
                unlaunched=len(self.tracking.unlaunched),
                staged=len(self.tracking.staged),
                slots_available=self.slots_available,
                statistics=repr(bridge.statistics()) if bridge else None,
            )
            records = bridge.shown_launches() if bridge else []
            for record in records:
                log.info(event("launch"), **record)
            others = {tracked.launch_id for tracked in list(launches.values())}
            for launch_id in others - {record["launch_id"] for record in records}:
                log.info(event("launch"), launch_id=launch_id, phase="on its way to or from the engine")
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(event("debug_dump.failed"), error)

    def statistics(self) -> Statistics | None:
        """Return the engine's latest statistics; None before ``start()``."""
        return self._bridge.statistics() if self._bridge is not None else None

    def get_streaming_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[Iterator[str]]]:
        """
        Return lines about the container of a running task instance, and the container's own last lines.

        Airflow 3.4 calls this, in the api-server, unstarted.
        """
        about, lines = task_log(self.adapter, ti, try_number)
        return about, [(line for line in lines)] if lines else []

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """Return the same, for Airflow 3.1 to 3.3, which cut a text into lines themselves."""
        about, streams = self.get_streaming_task_log(ti, try_number)
        return about, ["\n".join(lines) for lines in streams]

    @staticmethod
    def get_cli_commands() -> list[GroupCommand]:
        """Return the commands of ``airflow ecs-async``; Airflow 3.2 and later take them from the provider info."""
        from airflow.cli.cli_config import lazy_load_command

        return cast("list[GroupCommand]", lazy_load_command("ecs_async_executor.cli.get_cli_commands")())
