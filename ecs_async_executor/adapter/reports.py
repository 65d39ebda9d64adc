"""
The engine's reports become Airflow's events, and errors become words.

May import ``compat``, ``core`` and the service-free adapter. Main thread only, inside ``sync()``: no system call,
and every statement can be followed by SystemExit, after which the same report is applied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from ecs_async_executor.adapter.compat import Key, VersionedExecutor
from ecs_async_executor.adapter.last_ends import (
    CONTAINER_FAILURE,
    INTERRUPTED,
    OUT_OF_MEMORY,
    RETRY_RULE,
    LastEnds,
)
from ecs_async_executor.adapter.metrics import Metrics
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.telemetry import LogLines, WaitLines
from ecs_async_executor.adapter.tracking import KnownLaunch, Tracking
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError, Rejected
from ecs_async_executor.core.hints import hint
from ecs_async_executor.core.messages import (
    Finished,
    HeldUp,
    LastWords,
    Launched,
    Notice,
    PostMortem,
    Report,
    Unfollowed,
)
from ecs_async_executor.core.retries import End, line_of
from ecs_async_executor.services.redaction import redacted


class Reports:
    """
    Applies reports to an executor.

    :ivar applying: the key whose outcome is being set: a change of its state is the executor's own
    :ivar examine: has the last lines of a failed container read; None: nobody reads them
    """

    def __init__(
        self,
        executor: VersionedExecutor,
        adapter: ServiceAdapter,
        tracking: Tracking,
        *,
        lines: LogLines,
        waits: WaitLines,
        metrics: Metrics,
        last_ends: LastEnds,
    ) -> None:
        self._executor = executor
        self._adapter = adapter
        self._tracking = tracking
        self._lines = lines
        self._waits = waits
        self._metrics = metrics
        self._last_ends = last_ends
        self.applying: Key | None = None
        self.examine: Callable[[PostMortem], None] | None = None

    def apply(self, report: Report) -> None:
        """Apply a report, at most once per launch and to no other launch of its key; raise nothing."""
        try:
            self._apply(report)
        except Exception as error:  # noqa: BLE001 - every sync() would meet it again, before all other reports
            self._lines.add("error", "report.failed", key=str(report.key), exc_info=error)
            if isinstance(report, Finished | Unfollowed):
                self._executor.running.discard(cast("Key", report.key))
                self._tracking.forget(report.key)

    def _apply(self, report: Report) -> None:
        key: Key = report.key
        if isinstance(report, LastWords):  # its launch has ended some time ago
            event = f"{self._adapter.service.name.lower()} container output"
            self._executor.log_task_event(event=event, extra=report.text, ti_key=key)
            return
        tracking = self._tracking
        tracked = tracking.launches.get(key)
        if tracked is None or tracked.launch_id != report.launch_id:
            return
        executor = self._executor
        if isinstance(report, Finished):
            self._last_ends.forget(report.launch_id)
            self._explain(report, tracked)
            self.applying = key
            try:
                if report.success:
                    executor.success(key)
                else:
                    executor.fail(key, report.reason)
            finally:
                self.applying = None
            # Last: a SystemExit before this has the report applied again, to the same effect.
            tracking.forget(key)
            if not report.success:
                self._metrics.failed(report.ending or Ending.LOST)
        elif isinstance(report, Launched):
            tracking.has_container(key)
            executor.running_state(key, report.handle_id)
            if (note := self._last_ends.note_of(report.launch_id, key)) is not None:
                self._write(RETRY_RULE, note, key)
                self._last_ends.noted(report.launch_id, key)
        elif isinstance(report, Notice):
            if report.unlaunched:
                tracking.waits_for_capacity(report.launch_id)
            self._waits.add(report)
            executor.log_task_event(event=report.event, extra=report.text, ti_key=key)
        elif isinstance(report, HeldUp):
            if report.over:
                tracking.has_container(key)
            else:
                tracking.waits_for_capacity(report.launch_id)
        elif isinstance(report, Unfollowed):
            self._lines.add("warning", "container.unfollowed", key=str(key), reason=report.reason)
            executor.log_task_event(event="container not followed", extra=report.reason, ti_key=key)
            executor.running.discard(key)
            tracking.forget(key)

    def _explain(self, report: Finished, tracked: KnownLaunch) -> None:
        """Put an end into the log, and into Airflow's event log, unless all went well; raise nothing."""
        try:
            end = _end_of(report)
            self._last_ends.remember(report.key, end)
            if report.success:
                if end is not None:
                    event, outlived = _OUTLIVED[end.ending]
                    self._write(event, _with_line([report.reason, outlived, _hint(report)], end), report.key)
                return
            what = "container" if report.handle_id else "launch"
            self._lines.add(
                "warning",
                f"{what}.failed",
                key=str(report.key),
                launch_id=report.launch_id,
                reason=report.reason,
                handle_id=report.handle_id,
                exit_code=report.exit_code,
                stop_code=report.stop_code,
            )
            event = CONTAINER_FAILURE if report.handle_id else self._adapter.launch_failure
            self._write(event, _with_line([report.reason, _hint(report)], end), report.key)
            if self.examine is not None and report.handle_id and tracked.task_instance is not None:
                self.examine(_post_mortem(report, report.handle_id, tracked.log_path(report.key)))
        except Exception as error:  # noqa: BLE001 - the outcome matters more than its explanation
            self._lines.add("error", "report.failed", key=str(report.key), exc_info=error)

    def _write(self, event: str, text: str, key: object) -> None:
        """Write an entry of the event log; its name begins with the service's."""
        self._executor.log_task_event(
            event=f"{self._adapter.service.name.lower()} {event}", extra=text, ti_key=cast("Key", key)
        )


_IN_ORDER: Final = (
    INTERRUPTED,
    "Airflow's process in the container has ended in order, and has told Airflow how the task ended.",
)
_OUTLIVED: Final[Mapping[Ending, tuple[str, str]]] = {
    Ending.OOM: (
        OUT_OF_MEMORY,
        (
            "A process in the container was killed for want of memory, most likely the task. Airflow's own "
            "process in it lived on, and has told Airflow how the task ended."
        ),
    ),
    Ending.SPOT: _IN_ORDER,
    Ending.HOST: _IN_ORDER,
}
"""What there is to say of a container that exited 0 all the same: the entry's name, and a sentence."""
_MOST_CHARACTERS: Final = 8000
"""Of an entry, so that its last line is whole in any database."""


def _end_of(report: Finished) -> End | None:
    """Return how a try ended; None if all went well, or if it is no task instance's."""
    if report.success and report.ending is None:
        return None
    unsaid = Ending.LOST if report.exit_code is None else Ending.EXIT
    number = getattr(report.key, "try_number", 0)
    return End(number, report.ending or unsaid, report.exit_code, report.size, report.choice)


def _hint(report: Finished) -> str | None:
    return hint(report.ending, report.exit_code, report.reason)


def _with_line(sentences: Iterable[str | None], end: End | None) -> str:
    """Return an entry's text: what people read, and a line of which the next try is made."""
    told = "\n".join(one for one in sentences if one)
    return told[:_MOST_CHARACTERS] if end is None else f"{told[:_MOST_CHARACTERS]}\n{line_of(end)}"


def _post_mortem(report: Finished, handle_id: str, log_path: str | None) -> PostMortem:
    return PostMortem(
        report.launch_id,
        report.key,
        handle_id,
        report.ending,
        reason=report.reason or "",
        exit_code=report.exit_code,
        log_path=log_path,
    )


def in_words(error: BaseException) -> str:
    """Return an exception's words, safe to show."""
    text = redacted(str(error))
    if isinstance(error, BackendError | TimeoutError | Rejected):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
