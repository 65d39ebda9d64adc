"""Hooks that change the ``executor_config`` in place, as they could before there were rules."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.retries import End
from ecs_async_executor.core.sizes import Size
from tests.adapter import test_retrying
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor
from tests.adapter.test_retrying import Tried

OOM = End(1, Ending.OOM, 137, Size(512, 2048))
RULES = {"placements": "spot", "retries": [{"when": "oom", "memory": "x2"}]}
TEAMS: dict[str, dict[str, dict[str, str]]] = {
    "data": {"tags": {"team": "data"}, "overrides": {"taskRoleArn": "arn:aws:iam::111122223333:role/data"}}
}


class Hooked(ScriptedExecutor):
    """Replaces a word of the user's own in the ``executor_config``."""

    def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> Any:
        team = TEAMS[exec_config.pop("team", "data")]
        exec_config["tags"] = team["tags"]
        exec_config.setdefault("overrides", {}).update(team["overrides"])
        return super()._run_task_kwargs(task_id, cmd, queue, exec_config)


@pytest.mark.parametrize("choice", [None, "spot"])
@pytest.mark.parametrize("ends", [(), (OOM,)], ids=["first", "second"])
def test_what_a_hook_changes_in_place_is_sent_with_rules_as_without(
    choice: str | None, ends: tuple[End, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(test_retrying.KINDS, "ecs", Hooked)
    tried = Tried("ecs", monkeypatch, **RULES)
    config: dict[str, Any] = {
        "team": "data",
        "overrides": {"executionRoleArn": "arn:aws:iam::111122223333:role/pull"},
    }
    request = tried.request(tried.launch(*ends, executor_config=config), choice)
    assert request["tags"] == [{"key": "team", "value": "data"}]
    assert "team" not in request
    overrides = {key: value for key, value in request["overrides"].items() if key != "containerOverrides"}
    size = {"cpu": "512", "memory": "4096"} if ends else {}
    assert overrides == {**size, **config["overrides"], **TEAMS["data"]["overrides"]}
    assert ("capacityProviderStrategy" in request) is (choice == "spot")


def test_a_hook_may_take_away_what_rules_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hooked(ScriptedBatchExecutor):
        def _submit_job_kwargs(self, workload_key: Any, cmd: Any, queue: Any, exec_config: Any) -> Any:
            exec_config.pop("memory", None)
            exec_config["environment"]["A"] = "2"
            del exec_config["environment"]["B"]
            return super()._submit_job_kwargs(workload_key, cmd, queue, exec_config)

    monkeypatch.setitem(test_retrying.KINDS, "batch", Hooked)
    placed = {"placements": [{"large": {"jobQueue": "large", "memory": "4 GB"}}]}
    tried = Tried("batch", monkeypatch, **placed)
    config = {"environment": {"A": "1", "B": "1", "C": "1"}, "cpu": 1}
    request = tried.request(tried.launch(executor_config=config), "large")
    assert request["jobQueue"] == "large"
    container = request["containerOverrides"]
    assert container["resourceRequirements"] == [{"type": "VCPU", "value": "1"}]
    assert {one["name"]: one["value"] for one in container["environment"][:-1]} == {"A": "2", "C": "1"}
