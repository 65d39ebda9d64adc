"""When the demo stops watching, with Airflow and the local server played by objects of a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from ecs_async_executor.local.demo import local_ecs, watch
from ecs_async_executor.local.demo.airflow_home import Try
from ecs_async_executor.local.demo.cloud import Ran
from ecs_async_executor.local.demo.scenario import ABROAD, HOME, HOST_LOST, Expected, Where
from ecs_async_executor.local.demo.show import Show
from ecs_async_executor.local.demo.stage import FailedError

ONE = Expected("mapped", "total")
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def ran(name: str) -> Ran:
    """Make a container in which the first try runs."""
    return Ran(name, HOST_LOST.label, 1, "RUNNING", NOW, NOW, None, None, "", "", Where("there", 1, 1))


def test_a_host_is_taken_away_once_also_if_the_same_try_gets_another_container() -> None:
    taken: list[str] = []
    containers = [[ran("a")], [ran("a"), ran("b")], [ran("b")]]
    reads = ["running", "running", "success"]

    def tries() -> list[Try]:
        state = reads.pop(0)
        return [Try("host_lost", "long_haul", -1, 1, state, None, None, None, None, state == "success")]

    airflow = SimpleNamespace(tries=tries, executor_entries=list, last_words=lambda _: "")
    stage: Any = SimpleNamespace(airflow=airflow, processes=SimpleNamespace(check=lambda: None), provider=True)
    cloud: Any = SimpleNamespace(
        containers=lambda: containers.pop(0) if len(containers) > 1 else [replace(ran("b"), stopped=NOW)],
        noun="ECS task",
        take_host_away=taken.append,
        withhold_capacity=lambda _: None,
    )
    watch.Watch(stage, cloud, Show(), [HOST_LOST]).until_settled(60, lambda _: None, patient=True)
    assert taken == ["a"]


def watching(states: list[str | None], *, ours: bool) -> watch.Watch:
    """Watch a task instance that is in these states, one at each look; the last one lasts."""

    def tries() -> list[Try]:
        state = states.pop(0) if len(states) > 1 else states[0]
        return [Try("mapped", "total", -1, 1, state, None, None, None, None, state in ("success", "failed"))]

    airflow = SimpleNamespace(tries=tries, executor_entries=list, last_words=lambda _: "")
    stage: Any = SimpleNamespace(airflow=airflow, processes=SimpleNamespace(check=lambda: None), provider=not ours)
    cloud: Any = SimpleNamespace(containers=list, noun="ECS task")
    return watch.Watch(stage, cloud, Show(), [ONE])


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watch, "TELL_SECONDS", 0.0)


def test_it_watches_until_all_task_instances_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STUCK_SECONDS", 0.0)  # which only counts for the provider's executor
    details: list[str] = []
    found = watching(["queued", "running", "success"], ours=True).until_settled(60, details.append, patient=True)
    assert [read.state for read in found.tries] == ["success"]
    assert details == ["1 of 1 are not done", "1 of 1 are not done", "0 of 1 are not done"]


def test_what_our_executor_does_not_finish_in_time_is_a_failure() -> None:
    with pytest.raises(FailedError, match="not done after 0 s"):
        watching(["running"], ours=True).until_settled(0, lambda _: None, patient=True)


@pytest.mark.parametrize(("stuck", "limit"), [(0.0, 60.0), (60.0, 0.0)], ids=["nothing changes", "time is up"])
def test_what_the_providers_executor_does_not_finish_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, stuck: float, limit: float
) -> None:
    monkeypatch.setattr(watch, "STUCK_SECONDS", stuck)
    found = watching(["queued", "running"], ours=False).until_settled(limit, lambda _: None, patient=False)
    assert found.tries[0].state in ("queued", "running")
    assert not found.settled()


def test_the_failure_of_a_try_that_is_retried_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    for states in (("running",), ("up_for_retry",), ("failed", "queued"), ("failed", "failed")):
        tries = enumerate(states, 1)
        show.news([Try("dag", "task", -1, number, state, NOW, NOW, NOW, None, False) for number, state in tries])
    told = [line.partition("s  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "dag.task: running",
        "dag.task: failed; another try will follow (up_for_retry)",
        "dag.task (try 2): queued",
        "dag.task (try 2): failed",
    ]


class Listing:
    """A client for which a task stops between the list of those that run and that of those that have stopped."""

    def __init__(self, *arns: str) -> None:
        self._arns = list(arns)

    def get_paginator(self, _: str) -> Listing:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"taskArns": self._arns}]

    def describe_tasks(self, tasks: Sequence[str], **_: Any) -> dict[str, Any]:
        return {"tasks": [{"taskArn": arn, "taskDefinitionArn": "task-definition/demo:1"} for arn in tasks]}


def test_a_task_that_stops_between_two_lists_is_one_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(task: dict[str, Any]) -> Ran:
        return replace(ran(task["taskArn"]), stopped=NOW)

    monkeypatch.setattr(local_ecs, "_read", read)
    ecs = local_ecs.Ecs("http://127.0.0.1:9")
    ecs._ecs = {HOME: Listing("one"), ABROAD: Listing()}  # type: ignore[dict-item]
    assert [one.id for one in ecs.containers()] == ["one"]
    assert [one.id for one in ecs.containers()] == ["one"]
