from __future__ import annotations

from ecs_async_executor.settings import Tuning, batch_differences, settings_table
from tests.settings.conf import tuning


def test_the_table_has_every_option_and_its_default() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in settings_table().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{name}`" for name in Tuning.model_fields]
    assert {len(row) for row in rows} == {5}
    defaults = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert defaults["shutdown_timeout"] == "20"
    assert defaults["capacity_timeout"] == "unset"
    for name, text in defaults.items():
        expected = Tuning() if text == "unset" else tuning(**{name: text})
        assert expected == Tuning()


def test_the_readme_shows_what_differs_for_batch_only() -> None:
    shown = [line.split("`")[1] for line in batch_differences().splitlines()[2:]]
    assert shown == [
        "launch_rate",
        "launch_rate_max",
        "describe_rate",
        "permanent_error_grace",
        "container_tags",
        "workload_delivery",
        "workload_bucket",
        "queues",
    ]
