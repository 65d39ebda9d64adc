"""docs/rehearsing.md has every alert, and names no fault that the local ECS does not know."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.core.metrics import METRICS
from ecs_async_executor.local.faults import Fault

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "rehearsing.md").read_text()
ALERTS = re.findall(r"^\| \[(Executor\w+)\]\(operations\.md#\w+\) \|", PAGE, re.MULTILINE)
FAULTS = re.findall(r"`fault '([^']*)'`", PAGE)
SENT = re.findall(r"`(?:while )?send ([a-z._]+) \d+ (?:g|c|ms)[`;]", PAGE)


def test_every_alert_can_be_rehearsed() -> None:
    rules = yaml.safe_load((DOCS / "monitoring" / "alerts.yaml").read_text())
    assert [rule["alert"] for group in rules["groups"] for rule in group["rules"]] == ALERTS


def test_the_page_has_faults() -> None:
    assert len(FAULTS) > 8


@pytest.mark.parametrize("text", sorted(set(FAULTS)))
def test_the_local_ecs_takes_a_fault_of_the_page(text: str) -> None:
    Fault.from_json(json.loads(text))


@pytest.mark.parametrize("name", sorted(set(SENT)))
def test_a_value_sent_by_hand_is_one_of_the_metrics(name: str) -> None:
    assert name in {metric.name for metric in METRICS}
