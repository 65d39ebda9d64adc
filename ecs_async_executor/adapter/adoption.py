"""
Adoption: the launches of a scheduler that is gone become this executor's.

May import ``compat``, ``core``, the bridge and the service-free adapter. Main thread only. The scheduler locks the
task instances' rows meanwhile, and their heartbeats wait for those locks: no call to the service is made. The
launches are staged, and handed to the engine by the next ``sync()``, which comes after the commit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.collecting import PutOff
from ecs_async_executor.adapter.compat import Key, VersionedExecutor
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.telemetry import LogLines
from ecs_async_executor.adapter.tracking import Tracking
from ecs_async_executor.adapter.workloads import AdoptedWorkload, Workloads
from ecs_async_executor.core.dictionaries import take_out
from ecs_async_executor.core.messages import Adopt, AirflowState, Launch
from ecs_async_executor.core.policy import RESEND_WINDOW
from ecs_async_executor.engine.bridge import Bridge

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

HAND_OVER_BUDGET = 0.002
"""Seconds of one ``sync()``: of many launches, the engine can ask the service for so many at a time only."""
LAUNCHES_PER_LOOK = 64
"""Launches that are handed over between two looks at the clock."""
_STATES = {state.value: state for state in AirflowState}


class Adoption:
    """
    Adopts task instances for an executor.

    :ivar put_off: garbage collections, during an adoption
    """

    def __init__(
        self,
        executor: VersionedExecutor,
        adapter: ServiceAdapter,
        workloads: Workloads,
        tracking: Tracking,
        lines: LogLines,
    ) -> None:
        self._executor = executor
        self._adapter = adapter
        self._workloads = workloads
        self._tracking = tracking
        self._lines = lines
        self._watched: WeakSet[Session] = WeakSet()
        self.put_off = PutOff()

    def adopt(self, tis: Sequence[Any]) -> list[Any]:
        """
        Stage the launches of task instances; return the task instances that cannot be adopted.

        The scheduler repeats the call after some database errors; the repetition replaces what was staged.

        :raises RETRIED_DATABASE_ERRORS: for the scheduler to repeat it
        """
        with self.put_off:
            return self._adopt(tis)

    def _adopt(self, tis: Sequence[Any]) -> list[Any]:
        session = compat.load_for_adoption(tis)
        # A launch that is running, or past its launching, is never launched again. It needs a whole workload only
        # for a hook that reads the command to say where the container runs.
        rebuilt = compat.rebuild([ti for ti in tis if self._needs_workload(ti)])
        log_paths = compat.log_paths()
        stage: dict[Key, tuple[Adopt, uuid.UUID]] = {}
        given_back: list[Any] = []
        known: list[Key] = []
        for ti in tis:
            key = self._tracking.shared(compat.task_key(self._executor, ti))
            if self._is_known(key, ti):
                known.append(key)
                continue
            workload = rebuilt.get(ti.id)
            if str(ti.state) not in _STATES:
                reason = f"state {ti.state}"
            elif isinstance(workload, Exception) and str(ti.state) == AirflowState.QUEUED.value:
                reason = in_words(workload)
            else:
                try:
                    stage[key] = self._adopt_of(ti, key, workload, log_paths), compat.uuid_of(ti)
                    continue
                except compat.RETRIED_DATABASE_ERRORS:
                    raise
                except Exception as error:  # noqa: BLE001 - would end the scheduler
                    reason = in_words(error)
            self._lines.add("warning", "adoption.refused", key=str(key), reason=reason)
            given_back.append(ti)
        self._replace_stage(stage, session)
        self._executor.running.update(known, stage)
        self._lines.add("info", "adopted", staged=len(stage), known=len(known), given_back=len(given_back))
        return given_back

    def hand_over(self, bridge: Bridge, budget: float = HAND_OVER_BUDGET) -> None:
        """
        Hand what is staged to the engine, or as much as there is time for. Call it after the adoption's commit.

        :param budget: seconds
        """
        self.put_off.over()  # SystemExit can have kept the adoption from it
        staged = self._tracking.staged
        until = time.monotonic() + budget
        while staged:
            for _ in range(min(len(staged), LAUNCHES_PER_LOOK)):
                self._hand_over(bridge, *next(iter(staged.items())))
            if time.monotonic() >= until:
                break

    def hand_over_first(self, bridge: Bridge, key: Key) -> None:
        """Hand the launch of a key over before all others, if it is staged."""
        adopt = self._tracking.staged.get(key)
        if adopt is not None:
            self._hand_over(bridge, key, adopt)

    def _hand_over(self, bridge: Bridge, key: Key, adopt: Adopt) -> None:
        # In this order: the engine can be given a launch twice, but none may be lost.
        bridge.submit(adopt)
        take_out(self._tracking.staged, key)

    def _is_known(self, key: Key, ti: Any) -> bool:
        tracking = self._tracking
        tracked = tracking.launches.get(key)
        return tracked is not None and key not in tracking.uncommitted and tracking.is_launch_of(tracked, ti)

    def _needs_workload(self, ti: Any) -> bool:
        if str(ti.state) == AirflowState.QUEUED.value:
            return True
        external_id = ti.external_executor_id
        return self._workloads.overridden and not (external_id and self._adapter.handle_id(external_id))

    def _adopt_of(self, ti: Any, key: Key, workload: Any, log_paths: Callable[[Any], str | None]) -> Adopt:
        if str(ti.state) != AirflowState.QUEUED.value:
            rebuilt = None if isinstance(workload, Exception) else workload
            workload = AdoptedWorkload(ti.queue, ti.executor_config, rebuilt, log_paths(ti))
        external_id = ti.external_executor_id
        identity = self._workloads.assigned_identity(external_id)
        queued_at = ti.queued_dttm.timestamp() if ti.queued_dttm else time.time()
        return Adopt(
            launch=Launch(
                launch_id=identity or str(uuid.uuid4()),
                key=key,
                workload=workload,
                priority=ti.priority_weight or 0,
                started_by=identity or str(ti.id),
                queued_at=queued_at,
                route=self._workloads.route(ti),
                # The service may have forgotten older client tokens: then the engine searches for the container.
                tokened=identity is not None and time.time() - queued_at < RESEND_WINDOW,
            ),
            state=_STATES[str(ti.state)],
            handle_id=self._adapter.handle_id(external_id) if external_id else None,
        )

    def _replace_stage(self, stage: dict[Key, tuple[Adopt, uuid.UUID]], session: Session | None) -> None:
        # An earlier call staged them and was rolled back; this one does not name them: they are another's by now.
        # Those of a call that was committed only wait to be handed over.
        uncommitted = self._tracking.uncommitted
        for key in [key for key in self._tracking.staged if key not in stage and key in uncommitted]:
            self._unstage(key)
        if session is not None:
            self._watch(session)
        for key, (adopt, subject) in stage.items():
            self._tracking.stage(key, adopt, subject, committed=session is None)

    def _unstage(self, key: Key) -> None:
        self._tracking.forget(key)
        self._executor.running.discard(key)

    def _watch(self, session: Session) -> None:
        """Undo the staging if the adoption's transaction is rolled back: the scheduler need not repeat it."""
        if session in self._watched:
            return
        self._watched.add(session)
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)

    def _committed(self, _: Session) -> None:
        self._tracking.uncommitted.clear()

    def _rolled_back(self, _: Session) -> None:
        for key in list(self._tracking.uncommitted):
            if key in self._tracking.staged:
                self._unstage(key)
        self._tracking.uncommitted.clear()
