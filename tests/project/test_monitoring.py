"""The dashboard and the alert rules name metrics that there are, and every alert has words for who it wakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor.core.metrics import METRICS, Measure

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "monitoring"
EXECUTORS = ("ecs", "batch")
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())


def known() -> dict[str, Measure]:
    """Return the names that statsd_exporter makes of the metrics, without a mapping."""
    names: dict[str, Measure] = {}
    for executor in EXECUTORS:
        for metric in METRICS:
            name = f"airflow_{executor}_executor_{metric.name.replace('.', '_')}"
            names[name] = metric.measure
            if metric.measure is Measure.TIMER:  # a summary
                names[f"{name}_count"] = names[f"{name}_sum"] = Measure.COUNTER
    return names


def misuses(expression: str) -> list[str]:
    """Return what an expression names that is not there, or uses as if it were something else."""
    there = known()
    wrong = []
    used = re.findall(r"(\w+\()?(airflow_\w+)(\{[^}]*\})?(\[)?", expression)
    assert used, expression
    for function, name, labels, window in used:
        measure = there.get(name)
        if measure is None:
            wrong.append(f"no metric {name}")
        elif measure is Measure.COUNTER and not (window and function in {"rate(", "increase("}):
            wrong.append(f"{name} only grows")
        elif measure is not Measure.COUNTER and window and function != "changes(":
            wrong.append(f"{name} is no counter")
        elif measure is Measure.TIMER and "quantile=" not in labels:
            wrong.append(f"{name} without quantile")
    return wrong


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_metrics_that_there_are_of_both_executors(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    assert misuses(expression) == []
    ecs, batch = (set(re.findall(rf"airflow_{one}_executor_(\w+)", expression)) for one in EXECUTORS)
    assert ecs == batch
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_every_alert_on_the_page_is_one_of_the_rules() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page[page.index("\n## Metrics and alerts\n") + 1 :].partition("\n## ")[0]
    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: str(panel["title"]))
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_panel_asks_for_metrics_that_there_are(panel: dict[str, Any], executor: str) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert misuses(target["expr"].replace("${executor}", executor)) == []


def test_the_dashboard_offers_both_executors() -> None:
    (executors,) = (one for one in DASHBOARD["templating"]["list"] if one["name"] == "executor")
    assert executors["query"].split(",") == list(EXECUTORS)


def test_every_gauge_and_every_kind_of_failure_is_on_the_dashboard() -> None:
    text = json.dumps(DASHBOARD)
    for metric in METRICS:
        if metric.measure is Measure.GAUGE or metric.name.startswith("failures."):
            assert f"_executor_{metric.name.replace('.', '_')}{{" in text, metric.name


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("max(airflow_ecs_executor_nothing) > 1", "no metric airflow_ecs_executor_nothing"),
        ("airflow_ecs_executor_launches > 1", "airflow_ecs_executor_launches only grows"),
        ("rate(airflow_ecs_executor_pending[5m]) > 1", "airflow_ecs_executor_pending is no counter"),
        ("airflow_ecs_executor_launch_duration > 1", "airflow_ecs_executor_launch_duration without quantile"),
    ],
)
def test_this_test_finds_expressions_that_are_wrong(expression: str, wrong: str) -> None:
    assert misuses(expression) == [wrong]
