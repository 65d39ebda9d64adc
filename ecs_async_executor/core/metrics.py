"""
The metrics: the name, kind, unit and meaning of everything that the executor measures. Nothing else is sent.

May import ``endings``. The tables in ``docs/metrics.md`` are made from this one. Before each name comes the prefix
of the executor. StatsD drops tags, so the dimension that matters is in the name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from ecs_async_executor.core.endings import Ending

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
"""What a name of a metric cannot have everywhere; a dot would make two names of one."""
_NAME_LIMIT: Final = 64


class Measure(enum.Enum):
    """What a value of a metric is."""

    GAUGE = "gauge"
    """The present value."""
    COUNTER = "counter"
    """What has been added since the value before."""
    TIMER = "timer"
    """The duration of one of many, in milliseconds."""


@dataclass(frozen=True, slots=True, eq=False)  # eq: each is one of those below, and a key in dictionaries
class Metric:
    """
    One metric.

    :param name: without the prefix of the service
    :param unit: of the values
    :param meaning: in words, for the page
    """

    name: str
    measure: Measure
    unit: str
    meaning: str


class Operation(enum.Enum):
    """A call to the service; its value is part of a metric's name."""

    LAUNCH = "launch"
    DESCRIBE = "describe"
    SEARCH = "search"
    STOP = "stop"
    CHECK = "check"


class Result(enum.Enum):
    """The result of a call; its value is part of a metric's name."""

    OK = "ok"
    THROTTLED = "throttled"
    ERROR = "error"


_OPERATIONS: Mapping[Operation, str] = {
    Operation.LAUNCH: "start a container",
    Operation.DESCRIBE: "describe containers",
    Operation.SEARCH: "search for containers",
    Operation.STOP: "stop a container",
    Operation.CHECK: "check the connection at start",
}
_RESULTS: Mapping[Result, str] = {
    Result.OK: "succeeded",
    Result.THROTTLED: "AWS refused for their rate",
    Result.ERROR: "AWS refused for another reason, lack of capacity included, or did not answer",
}
_ENDINGS: Mapping[Ending, str] = {
    Ending.EXIT: "The container exited, not 0, for no other reason that is known.",
    Ending.OOM: "The container needed more memory than it had.",
    Ending.IMAGE: "The image of the container could not be had.",
    Ending.START: "The container did not start for another reason: a secret, a volume, a network interface.",
    Ending.CAPACITY: "There was no room for the container within `capacity_timeout`.",
    Ending.SPOT: "The spot capacity of the container was taken back.",
    Ending.HOST: "The host of the container was lost.",
    Ending.STOPPED: "A person, a deployment or a limit that a person configured has stopped the container.",
    Ending.REFUSED: "AWS refused the request, or the workload made none.",
    Ending.LOST: "Nobody could find out what became of the container.",
}

# --- gauges ---------------------------------------------------------------------------------------------------

PENDING = Metric("pending", Measure.GAUGE, "launches", "Launches that wait for a container.")
LAUNCHING = Metric("launching", Measure.GAUGE, "launches", "Launches whose request is in flight.")
ACTIVE = Metric("active", Measure.GAUGE, "launches", "Launches that have a container.")
OLDEST_UNLAUNCHED = Metric(
    "oldest_unlaunched", Measure.GAUGE, "s", "How long the oldest pending launch has waited; 0 if none is pending."
)
LAUNCH_RATE = Metric(
    "launch_rate",
    Measure.GAUGE,
    "launches per second",
    "The launches per second that the limits allow at present.",
)
GATES_CLOSED = Metric(
    "gates_closed",
    Measure.GAUGE,
    "placements",
    "Placements that wait for capacity, or for a refusal to be mended.",
)
CAPACITY_WAIT = Metric(
    "gate.capacity.wait", Measure.GAUGE, "s", "For how long a placement has had no capacity: the longest wait."
)
REFUSED_WAIT = Metric(
    "gate.refused.wait",
    Measure.GAUGE,
    "s",
    "For how long AWS has refused the launches of a placement: the longest wait.",
)
PAUSED = Metric(
    "paused", Measure.GAUGE, "0 or 1", "1 while nothing at all can be launched; the log and `status` say why."
)
DESTINATIONS_DOWN = Metric(
    "destinations_down",
    Measure.GAUGE,
    "destinations",
    "Regions or accounts, home among them, where nothing can be launched, or at less than half of the usual rate; "
    "0 if there is only home, which `paused` is about. The log and `status` name them.",
)
EVENTS_DISTRUSTED = Metric(
    "events.distrusted",
    Measure.GAUGE,
    "queues",
    "Queues of events that the executor does not rely on at present: one cannot be read, or ends came without "
    "events. 0 without a queue. The log and `status` say which.",
)
LOOP_LAG = Metric("loop_lag", Measure.GAUGE, "s", "How late the loop's thread serves its timers.")
HOOK_HANGS = Metric(
    "hook_hangs", Measure.GAUGE, "s", "How long a hook has not returned, once that is more than a minute; else 0."
)
OUTBOX = Metric(
    "outbox", Measure.GAUGE, "reports", "Reports that the scheduler has not taken: it is slow, or does not call."
)

GAUGES = (
    PENDING,
    LAUNCHING,
    ACTIVE,
    OLDEST_UNLAUNCHED,
    LAUNCH_RATE,
    GATES_CLOSED,
    CAPACITY_WAIT,
    REFUSED_WAIT,
    PAUSED,
    DESTINATIONS_DOWN,
    EVENTS_DISTRUSTED,
    LOOP_LAG,
    HOOK_HANGS,
    OUTBOX,
)

# --- counters -------------------------------------------------------------------------------------------------

LAUNCHES = Metric("launches", Measure.COUNTER, "launches", "Containers that AWS has accepted.")
THROTTLES = Metric("throttles", Measure.COUNTER, "calls", "Calls of any kind that AWS refused for their rate.")
ENGINE_RESTARTS = Metric(
    "engine_restarts", Measure.COUNTER, "restarts", "Times that the loop's thread has died and was replaced."
)
LOG_READS_DROPPED = Metric(
    "log_reads.dropped",
    Measure.COUNTER,
    "containers",
    "Containers whose last lines were not read after a failure: too many failed at once.",
)
EVENTS_RECEIVED = Metric(
    "events.received",
    Measure.COUNTER,
    "events",
    "Events about containers of this scheduler, doubled ones too.",
)
EVENTS_MISSED = Metric(
    "events.missed",
    Measure.COUNTER,
    "containers",
    "Containers whose end was seen without an event, although events were received.",
)
EVENTS_IGNORED = Metric(
    "events.ignored",
    Measure.COUNTER,
    "messages",
    "Messages about containers that this scheduler does not know, and those that are no event.",
)
LAUNCHES_AT = Metric(
    "launches.<placement>",
    Measure.COUNTER,
    "launches",
    "Of these, those of launches that have chosen the placement; its name in `placements`, with `_` for all but "
    "letters, digits, `-` and `_`.",
)
FAILURES: Mapping[Ending, Metric] = {
    ending: Metric(f"failures.{ending.value}", Measure.COUNTER, "launches", meaning)
    for ending, meaning in _ENDINGS.items()
}
CALLS: Mapping[tuple[Operation, Result], Metric] = {
    (operation, result): Metric(
        f"api.{operation.value}.{result.value}", Measure.COUNTER, "calls", f"Calls to {what} that {how}."
    )
    for operation, what in _OPERATIONS.items()
    for result, how in _RESULTS.items()
}

EVENTS = (EVENTS_RECEIVED, EVENTS_MISSED, EVENTS_IGNORED)

COUNTERS = (
    LAUNCHES,
    THROTTLES,
    ENGINE_RESTARTS,
    LOG_READS_DROPPED,
    *EVENTS,
    *FAILURES.values(),
    *CALLS.values(),
)

# --- timers ---------------------------------------------------------------------------------------------------

LAUNCH_DURATION = Metric(
    "launch.duration",
    Measure.TIMER,
    "ms",
    "From the moment that the executor took a workload until AWS accepted its first container.",
)
START_DURATION = Metric(
    "start.duration",
    Measure.TIMER,
    "ms",
    "From the moment that AWS accepted a container until the executor saw it run; one only seen after its "
    "end is left out.",
)
DETECTION_DURATION = Metric(
    "detection.duration",
    Measure.TIMER,
    "ms",
    "From the end of a container, by AWS's clock, until the executor reported it.",
)
ADOPTION_DURATION = Metric(
    "adopt_task_instances.duration",
    Measure.TIMER,
    "ms",
    "How long the scheduler was held up to take over task instances of one that is gone.",
)
CALL_DURATION: Mapping[Operation, Metric] = {
    operation: Metric(
        f"api.{operation.value}.duration",
        Measure.TIMER,
        "ms",
        f"How long a call to {what} took, whatever its result.",
    )
    for operation, what in _OPERATIONS.items()
}

TIMERS = (LAUNCH_DURATION, START_DURATION, DETECTION_DURATION, *CALL_DURATION.values(), ADOPTION_DURATION)

METRICS = (*GAUGES, *COUNTERS, *TIMERS)


@cache
def launches_at(choice: str) -> Metric:
    """Return the counter of the launches that have chosen a placement."""
    return replace(LAUNCHES_AT, name=f"launches.{_UNSAFE.sub('_', choice)[:_NAME_LIMIT]}")


def metrics_table(measure: Measure) -> str:
    """Return the metrics of one kind as a Markdown table."""
    metrics = [one for one in METRICS if one.measure is measure]
    if measure is Measure.COUNTER:
        metrics.insert(metrics.index(LAUNCHES) + 1, LAUNCHES_AT)
    rows = [f"| `{one.name}` | {one.unit} | {one.meaning} |" for one in metrics]
    return "\n".join(["| Name | Unit | Meaning |", "| --- | --- | --- |", *rows, ""])
