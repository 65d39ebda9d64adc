"""What the scheduler's thread says in the log: lines that wait, and one line for many launches that wait."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.adapter import telemetry
from ecs_async_executor.adapter.telemetry import FIRST_WAIT_SECONDS, WAITS_INTERVAL, LogLines, WaitLines
from ecs_async_executor.core.messages import Notice

MEMORY, CPU = "no capacity: RESOURCE:MEMORY", "no capacity: RESOURCE:CPU"


class Waits:
    """Wait lines with a clock, and what they have written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[dict[str, Any]] = []
        self.now = 0.0
        monkeypatch.setattr(telemetry, "log", self)
        self.lines = LogLines("ecs_executor")
        self.waits = WaitLines(self.lines, monotonic=lambda: self.now)

    def warning(self, event: str, **values: Any) -> None:
        assert event == "ecs_executor.notice"
        self.written.append(values)

    def tell(self, number: int, about: str = MEMORY, placement: str | None = "main") -> None:
        text = f"The container waits: {about} ({number})"
        self.waits.add(
            Notice(f"l{number}", f"key{number}", "container waits", text, about=about, placement=placement)
        )

    def pass_time(self, seconds: float) -> list[dict[str, Any]]:
        self.now += seconds
        self.waits.collect()
        self.lines.write(budget=60.0)
        written, self.written = self.written, []
        return written


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def test_1000_launches_that_wait_for_the_same_have_one_line(waits: Waits) -> None:
    for number in range(1000):
        waits.tell(number)
        assert waits.pass_time(FIRST_WAIT_SECONDS / 2000) == []
    [line] = waits.pass_time(FIRST_WAIT_SECONDS)
    assert line == {
        "about": "container waits",
        "launches": 1000,
        "placement": "main",
        "latest": "key999",
        "text": f"The container waits: {MEMORY} (999)",
    }
    assert waits.pass_time(10 * WAITS_INTERVAL) == []


def test_each_reason_and_each_placement_has_a_line_of_its_own(waits: Waits) -> None:
    waits.tell(1)
    waits.tell(2, CPU)
    waits.tell(3, placement="gpu")
    waits.tell(4)
    lines = waits.pass_time(FIRST_WAIT_SECONDS)
    assert [(line["placement"], line["latest"], line["launches"]) for line in lines] == [
        ("main", "key4", 2),
        ("main", "key2", 1),
        ("gpu", "key3", 1),
    ]


def test_those_that_come_later_are_summed_up_once_a_minute(waits: Waits) -> None:
    waits.tell(1)
    assert len(waits.pass_time(FIRST_WAIT_SECONDS)) == 1
    for number in range(30):
        waits.tell(number)
        assert waits.pass_time(1.0) == []
    [line] = waits.pass_time(WAITS_INTERVAL)
    assert line["launches"] == 30
    assert waits.pass_time(WAITS_INTERVAL) == []
    waits.tell(1)
    assert len(waits.pass_time(FIRST_WAIT_SECONDS)) == 1


def test_reasons_without_number_are_not_kept_without_limit(waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "WAITS_KEPT", 2)
    for number, about in enumerate(("a", "b", "c")):
        waits.tell(number, about)
    assert [line["latest"] for line in waits.pass_time(0.0)] == ["key0"]
    assert [line["latest"] for line in waits.pass_time(FIRST_WAIT_SECONDS)] == ["key1", "key2"]
