"""The executor's metrics: what is sent, when, and how much of a heartbeat that may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.adapter import metrics as sending
from ecs_async_executor.adapter.metrics import EMITTING_BUDGET, GAUGES, METRICS_INTERVAL, Metrics
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import Finished, Launch
from ecs_async_executor.core.metrics import (
    ADOPTION_DURATION,
    CALL_DURATION,
    COUNTERS,
    LAUNCH_DURATION,
    METRICS,
    Measure,
    Metric,
    Operation,
)
from ecs_async_executor.core.metrics import GAUGES as GAUGES_THERE_ARE
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.statistics import AtDestination, Events, Statistics
from tests.adapter.scripted import ScriptedBatchExecutor, failed, make_workload, queue, succeeded
from tests.adapter.test_executor import launch_one

SEARCH_TOOK = CALL_DURATION[Operation.SEARCH]


class Recorder:
    """Airflow's metrics, and a clock that each value moves on."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, float]] = []
        self.tags: set[str] = set()
        self.now = 100.0
        self.cost = 0.0

    def _record(self, how: str) -> Callable[..., None]:
        def record(name: str, value: float, *, tags: Any) -> None:
            self.sent.append((how, name, value))
            self.tags.add(str(tags))
            self.now += self.cost

        return record

    def __getattr__(self, how: str) -> Callable[..., None]:
        return self._record(how)

    def values(self) -> dict[str, float]:
        return {name: value for _, name, value in self.sent}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(sending, "stats", recorder)
    return recorder


@pytest.fixture
def metrics(recorder: Recorder) -> Metrics:
    return Metrics("ecs_executor", "blue", monotonic=lambda: recorder.now)


def emit(metrics: Metrics, statistics: Statistics, *samples: tuple[Metric, float]) -> None:
    metrics.emit(lambda: statistics, deque(samples))


def test_every_gauge_and_counter_is_sent_at_first_and_every_few_seconds_what_has_changed(
    metrics: Metrics, recorder: Recorder
) -> None:
    first = Statistics(
        pending=2,
        active=1,
        launching=3,
        oldest_pending_age=4.0,
        launch_rate=20.0,
        closed_gates=1,
        capacity_wait=7.0,
        refused_wait=8.0,
        paused="AWS does not answer",
        events=(
            Events("", None, 60.0, 3, trusted=True),
            Events("eu", "AccessDenied", 1.0, 0, trusted=False),
        ),
        destinations=(
            AtDestination("", None, False, 20.0, 0, 0, 0),
            AtDestination("eu", "no", False, 20.0, 0, 0, 0),
        ),
        hook_hangs=61.0,
        outbox=9,
        counts={"launches": 3, "api.launch.ok": 3},
    )
    emit(metrics, first)
    emit(metrics, first)
    assert {(how, name) for how, name, _ in recorder.sent} == {
        ("gauge" if one.measure is Measure.GAUGE else "incr", f"ecs_executor.{one.name}")
        for one in METRICS
        if one.measure is not Measure.TIMER
    }
    assert len(recorder.sent) == len(GAUGES) + len(COUNTERS)
    assert {name.partition(".")[2]: value for name, value in recorder.values().items() if value} == {
        "pending": 2,
        "active": 1,
        "launching": 3,
        "oldest_unlaunched": 4.0,
        "launch_rate": 20.0,
        "gates_closed": 1,
        "gate.capacity.wait": 7.0,
        "gate.refused.wait": 8.0,
        "paused": 1,
        "destinations_down": 1,
        "events.distrusted": 1,
        "hook_hangs": 61.0,
        "outbox": 9,
        "launches": 3,
        "api.launch.ok": 3,
    }
    assert recorder.tags == {"{'team_name': 'blue'}"}
    recorder.now += METRICS_INTERVAL
    recorder.sent.clear()
    emit(metrics, Statistics(restarts=1, counts={"launches": 5, "api.launch.ok": 3, "throttles": 1}))
    counted = {name: value for how, name, value in recorder.sent if how == "incr"}
    assert counted == {
        "ecs_executor.launches": 2,
        "ecs_executor.throttles": 1,
        "ecs_executor.engine_restarts": 1,
    }


def test_launches_are_counted_by_the_placement_that_they_have_chosen(metrics: Metrics, recorder: Recorder) -> None:
    emit(metrics, Statistics(chosen={"spot": 3, "a.b c": 1}))
    recorder.now += METRICS_INTERVAL
    emit(metrics, Statistics(chosen={"spot": 5, "a.b c": 1, "a/b c": 1}))
    counted = [(name, value) for how, name, value in recorder.sent if ".launches." in name]
    assert counted == [
        ("ecs_executor.launches.spot", 3),
        ("ecs_executor.launches.a_b_c", 1),
        ("ecs_executor.launches.spot", 2),
        ("ecs_executor.launches.a_b_c", 1),
    ]


def test_each_gauge_of_the_table_has_a_value() -> None:
    assert tuple(GAUGES) == GAUGES_THERE_ARE


def test_a_silence_that_this_heartbeat_ends_is_no_pause(metrics: Metrics, recorder: Recorder) -> None:
    emit(metrics, Statistics(paused="the scheduler does not call the executor"))
    assert recorder.values()["ecs_executor.paused"] == 0


def test_durations_are_sent_one_by_one_in_milliseconds(metrics: Metrics, recorder: Recorder) -> None:
    emit(metrics, Statistics())
    recorder.sent.clear()
    emit(metrics, Statistics(), (SEARCH_TOOK, 0.25), (LAUNCH_DURATION, 2.0), (SEARCH_TOOK, 0.5))
    assert recorder.sent == [
        ("timing", "ecs_executor.api.search.duration", 250.0),
        ("timing", "ecs_executor.launch.duration", 2000.0),
        ("timing", "ecs_executor.api.search.duration", 500.0),
    ]


def test_what_a_heartbeat_has_no_time_for_is_sent_in_the_next(metrics: Metrics, recorder: Recorder) -> None:
    recorder.cost = EMITTING_BUDGET / 4
    samples = deque([(SEARCH_TOOK, 1.0)] * 10)
    calls = 0
    while samples or not calls:
        before = len(recorder.sent)
        metrics.emit(Statistics, samples)
        assert 1 <= len(recorder.sent) - before <= 5
        calls += 1
    assert len(recorder.sent) == len(GAUGES) + len(COUNTERS) + 10
    assert calls > 10


def test_failures_are_counted_by_their_kind(
    make_executor: Callable[..., Any], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "EMITTING_BUDGET", 10.0)
    monkeypatch.setattr(sending, "METRICS_INTERVAL", 0.0)
    executor = make_executor(ScriptedBatchExecutor)
    outcomes: dict[str, Callable[[Launch], Finished]] = {
        "a": succeeded,
        "b": lambda launch: failed(launch, ending=Ending.OOM),
        "c": lambda launch: failed(launch, ending=Ending.OOM),
        "d": lambda launch: failed(launch, ending=Ending.SPOT),
    }
    launches = {task_id: launch_one(executor, task_id=task_id) for task_id in outcomes}
    executor.scripted.report(*(outcomes[task_id](launch) for task_id, launch in launches.items()))
    executor.sync()
    counted = {name: value for _, name, value in recorder.sent if ".failures." in name and value}
    assert counted == {"batch_executor.failures.oom": 2, "batch_executor.failures.spot": 1}


def test_a_workload_that_cannot_be_taken_is_a_refused_one(
    executor: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "EMITTING_BUDGET", 10.0)
    monkeypatch.setattr(executor.workloads, "new_launch", lambda *_: 1 / 0)
    queue(executor, make_workload())
    executor.heartbeat()
    assert recorder.values()["ecs_executor.failures.refused"] == 1


def test_the_durations_of_the_engine_reach_airflow(
    executor: Any, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "EMITTING_BUDGET", 10.0)
    meters: Meters = executor.scripted.meters
    meters.time(LAUNCH_DURATION, 1.5)
    meters.end_window()
    executor.sync()
    assert ("timing", "ecs_executor.launch.duration", 1500.0) in recorder.sent


def test_the_timer_of_adoptions_has_its_name(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timers:
        def timer(self, name: str, *, tags: Any) -> str:
            return name

    monkeypatch.setattr(sending, "stats", Timers())
    assert metrics.timer(ADOPTION_DURATION) == "ecs_executor.adopt_task_instances.duration"
