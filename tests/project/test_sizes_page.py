"""The examples in docs/sizes.md become what the page says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.settings import BatchSettings, EcsSettings

PAGE = Path(__file__).parents[2] / "docs" / "sizes.md"
EXAMPLES = re.search(r"<!-- examples.*?-->\n(.*)<!-- /examples -->", PAGE.read_text(), re.DOTALL)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (EXAMPLES[1] if EXAMPLES else "").splitlines()
    if line.startswith("| `{")
]
ON_FARGATE, ON_EC2 = (
    EcsSettings(cluster="c", container_name="airflow", task_definition="f", launch_type=one)
    for one in ("FARGATE", "EC2")
)
ON_BATCH = BatchSettings(job_name="airflow", job_queue="q", job_definition="d")


def in_words(amounts: dict[str, Any]) -> str:
    needs = {one["type"]: one["value"] for one in amounts.pop("resourceRequirements", ())}
    if storage := amounts.pop("ephemeralStorage", None):
        amounts["ephemeralStorage"] = storage["sizeInGiB"]
    api = [f"`{name}` {value}" for name, value in amounts.items()]
    return ", ".join([*api, *(f"{name} {value}" for name, value in needs.items())])


def on_ecs(settings: EcsSettings, config: Any) -> str:
    try:
        made = ecs.workload_request(ecs.base_request(settings), None, config, "airflow", [])
    except Rejected:
        return "refused"
    [container] = made["overrides"].pop("containerOverrides")
    of_task, of_container = in_words(made["overrides"]), in_words(without_command(container))
    return of_task if settings is ON_FARGATE else of_container


def on_batch(config: Any) -> str:
    try:
        made = batch.workload_request(batch.base_request(ON_BATCH), None, config, [])
    except Rejected:
        return "refused"
    if "timeout" in made:
        return f"timeout {made['timeout']['attemptDurationSeconds']}"
    return in_words(without_command(made["containerOverrides"]))


def without_command(container: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in container.items() if key not in {"name", "command", "environment"}}


def test_there_are_examples() -> None:
    assert len(ROWS) == 8


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_an_example_becomes_what_the_page_says(row: list[str]) -> None:
    written, *become = row
    config = ast.literal_eval(written.strip("`"))
    assert [on_ecs(ON_FARGATE, config), on_ecs(ON_EC2, config), on_batch(config)] == become
