"""A request that is taken over from another launch is the one that would have been made for the launch itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.adapter.templates import KINDS_KEPT
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services.requests import OVERRIDES_LIMIT
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor, make_workload, queue

KINDS = {"ECS": ScriptedExecutor, "BATCH": ScriptedBatchExecutor}
RULES = {
    "QUEUES": {
        "gpu": {"cluster": "gpus", "memory": "4 GB"},
        "far": {"region_name": "us-east-2"},
        "choosy": {"placements": ["spot", "near"]},
    },
    "PLACEMENTS": {
        "near": {"launchType": "FARGATE"},
        "spot": {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}], "region_name": "us-east-2"},
    },
}
RULES_OF_BATCH = {
    "QUEUES": {"gpu": {"jobQueue": "gpus", "memory": "4 GB"}, "choosy": {"placements": ["spot", "near"]}},
    "PLACEMENTS": {"near": {}, "spot": {"jobQueue": "spot"}},
}
AIRFLOWS = {"name": "airflow", "environment": [{"name": "A", "value": "b"}]}
LIKE_ECS = {"overrides": {"containerOverrides": [AIRFLOWS]}}
ASKED: dict[str, tuple[str, str | None, Any, str | None]] = {
    "nothing": ("ECS", "default", {}, None),
    "a queue's": ("ECS", "gpu", {}, None),
    "another destination": ("ECS", "far", {}, None),
    "a placement": ("ECS", "choosy", {}, "near"),
    "a placement elsewhere": ("ECS", "choosy", {}, "spot"),
    "an environment": ("ECS", "default", LIKE_ECS, None),
    "a size": ("ECS", "default", {"cpu": 1, "memory": "3 GB", "environment": {"A": "b"}}, None),
    "own tags": ("ECS", "default", {"tags": {"team": "data"}}, None),
    "an own mark": ("ECS", "default", {"startedBy": "me"}, None),
    "no mark": ("ECS", "default", {"startedBy": None}, None),
    "words like a stand-in": ("ECS", "default", {"tags": [{"key": "the command", "value": "the command"}]}, None),
    "what the SDK refuses": ("ECS", "default", {"overrides": {"cpus": 5}}, None),
    "Batch: nothing": ("BATCH", "default", {}, None),
    "Batch: a queue's": ("BATCH", "gpu", {}, None),
    "Batch: a placement": ("BATCH", "choosy", {}, "spot"),
    "Batch: own tags": ("BATCH", "default", {"tags": {"team": "data"}, "jobName": "mine"}, None),
    "Batch: a number for a name": ("BATCH", "default", {"jobName": 2026}, None),
    "Batch: several containers": (
        *("BATCH", "default"),
        {"ecsPropertiesOverride": {"taskProperties": [{"containers": [{"name": "airflow"}]}]}},
        None,
    ),
}


class Rendering:
    """An executor, and how often a request is made by all the layers."""

    def __init__(self, service: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        rules = (RULES if service == "ECS" else RULES_OF_BATCH) | options
        for name, value in rules.items():
            monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__{name}", json.dumps(value))
        self.executor: Any = KINDS[service]()
        self.executor.start()
        self.made = 0
        adapter = self.executor.adapter
        made = adapter.request

        def request(*arguments: Any) -> Any:
            self.made += 1
            return made(*arguments)

        monkeypatch.setattr(adapter, "request", request)

    def launch(self, task_id: str = "task", **of_ti: Any) -> Launch:
        token = self.executor.jwt_generator.generate({"sub": "the task instance"})
        queue(self.executor, make_workload(task_id, **of_ti).model_copy(update={"token": token}))
        self.executor.heartbeat()
        launch: Launch = self.executor.scripted.launches[-1]
        return launch

    def render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        spec: LaunchSpec = self.executor.workloads.render(launch, choice)
        return spec

    def anew(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        """Render a launch by all the layers."""
        workloads = self.executor.workloads
        templates, workloads._templates = workloads._templates, None
        try:
            return self.render(launch, choice)
        finally:
            workloads._templates = templates


@pytest.mark.parametrize("tagged", [False, True], ids=["", "tagged"])
@pytest.mark.parametrize("asked", ASKED)
def test_a_request_of_a_kind_is_the_one_that_would_have_been_made_for_the_launch(
    asked: str, tagged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, of_queue, config, choice = ASKED[asked]
    rendering = Rendering(service, monkeypatch, CONTAINER_TAGS=tagged)
    for number in range(4):
        launch = rendering.launch(f"task-{number}", queue=of_queue, executor_config=config)
        spec, anew = rendering.render(launch, choice), rendering.anew(launch, choice)
        assert replace(spec, checked=False) == anew
        assert spec.checked is (number > 0 and asked != "what the SDK refuses")


def test_the_layers_are_gone_through_twice_for_any_number_of_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    for number in range(6):
        rendering.render(rendering.launch(f"task-{number}", executor_config=LIKE_ECS))
    assert rendering.made == 2


def test_a_request_shares_nothing_that_another_launch_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    launches = [rendering.launch(f"task-{number}") for number in range(3)]
    specs = [rendering.render(launch) for launch in launches]
    assert [spec.request["startedBy"] for spec in specs] == [launch.started_by for launch in launches]
    commands = [spec.request["overrides"]["containerOverrides"][0]["command"][-1] for spec in specs]
    assert len(set(commands)) == len(launches)


def test_values_of_other_types_are_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    for value in (True, 1, 1.0):
        config = {"enableExecuteCommand": value}
        for number in range(3):
            launch = rendering.launch(f"task-{number}-{value}", executor_config=config)
            assert rendering.render(launch).request["enableExecuteCommand"] is value


def test_the_authors_own_objects_are_asked_for_each_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(dict[str, Any]):
        pass

    rendering = Rendering("ECS", monkeypatch)
    for number in range(4):
        config = Counted(overrides={"cpu": str(256 << number)})
        launch = rendering.launch(f"task-{number}", executor_config=config)
        assert rendering.render(launch).request["overrides"]["cpu"] == str(256 << number)


def test_a_command_that_is_too_long_is_refused_in_the_words_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    for number in range(3):
        rendering.render(rendering.launch(f"task-{number}"))
    long = rendering.launch("t" * 250, dag_id="d" * OVERRIDES_LIMIT)
    refusals = []
    for render in (rendering.render, rendering.anew):
        with pytest.raises(Rejected) as caught:
            render(long)
        refusals.append(caught.value.reason)
    assert refusals[0] == refusals[1]
    assert "ECS takes at most 8192" in refusals[0]


@pytest.mark.parametrize("room", [0, 1])
def test_the_last_character_that_fits_is_the_same(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    for number in range(3):
        rendering.render(rendering.launch(f"task-{number}", dag_id="é"))
    launch = rendering.launch("long", dag_id="é")
    overrides = rendering.render(launch).request["overrides"]
    free = OVERRIDES_LIMIT - len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False))
    fits = rendering.launch("long", dag_id="é" * (1 + free + room))
    for render in (rendering.render, rendering.anew):
        if room:
            with pytest.raises(Rejected, match="has 8193 characters"):
                render(fits)
        else:
            render(fits)


def test_a_changed_base_counts_from_the_next_launch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    for number in range(3):
        rendering.render(rendering.launch(f"task-{number}"))
    rendering.executor.run_task_kwargs["enableECSManagedTags"] = True
    assert rendering.render(rendering.launch("later")).request["enableECSManagedTags"] is True


def test_a_later_try_with_rules_is_made_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch, RETRIES=[{"when": "oom", "memory": "x2"}])
    for number in range(3):
        rendering.render(rendering.launch(f"task-{number}"))
    made = rendering.made
    rendering.render(rendering.launch("again", try_number=2))
    assert rendering.made == made + 1


def test_a_hook_is_called_for_each_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Hooked(ScriptedExecutor):
        def _run_task_kwargs(self, *arguments: Any) -> dict[str, Any]:
            called.append(arguments[0])
            return super()._run_task_kwargs(*arguments)

    monkeypatch.setitem(KINDS, "ECS", Hooked)
    rendering = Rendering("ECS", monkeypatch)
    launches = [rendering.launch(f"task-{number}") for number in range(4)]
    for launch in launches:
        rendering.render(launch)
    assert called == [launch.key for launch in launches]


def test_any_number_of_kinds_takes_a_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering = Rendering("ECS", monkeypatch)
    launch = rendering.launch()
    templates = rendering.executor.workloads._templates
    for number in range(3 * KINDS_KEPT):
        launch.workload.ti.executor_config = {"overrides": {"cpu": str(number)}}
        rendering.render(launch)
        assert len(templates._seen) <= KINDS_KEPT
        assert len(templates._templates) <= KINDS_KEPT
