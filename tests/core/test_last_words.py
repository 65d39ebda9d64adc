"""What people read of a failed container and its last lines."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.hints import hint
from ecs_async_executor.core.last_words import ENTRY_CHARACTERS, ENTRY_LINES, entry, file, ran
from ecs_async_executor.core.messages import PostMortem

OOM = "ECS container exited 137 (OutOfMemoryError: Container killed due to memory usage)"


def dead(ending: Ending = Ending.OOM, exit_code: int | None = 137, reason: str = OOM, **more: Any) -> PostMortem:
    return PostMortem("id", "key", "arn", ending, reason, exit_code, **more)


def test_an_entry_has_the_reason_a_hint_and_the_last_lines() -> None:
    lines = [f"line {number}" for number in range(50)]
    text = entry(dead(), lines).split("\n")
    assert text[:3] == [OOM, hint(Ending.OOM), "Container arn printed last:"]
    assert text[3:] == lines[-ENTRY_LINES:]


def test_the_file_has_all_the_lines() -> None:
    lines = [f"line {number}" for number in range(50)]
    assert file(dead(), lines).split("\n")[3:] == [*lines, ""]


@pytest.mark.parametrize("length", [399, 400, 5000])
def test_an_entry_is_bounded_and_ends_with_the_last_line(length: int) -> None:
    text = entry(dead(), [f"{number} " + "x" * length for number in range(50)])
    assert len(text) <= ENTRY_CHARACTERS
    assert text.split("\n")[-1].startswith("49 x")
    assert [line.partition(" ")[0] for line in text.split("\n")[-5:]] == ["45", "46", "47", "48", "49"]


def test_a_hint_can_come_from_the_lines() -> None:
    text = entry(dead(Ending.EXIT, 1, "ECS container exited 1"), ["python: No module named airflow"])
    assert "has no Airflow" in text


@pytest.mark.parametrize(
    ("of", "problem", "said"),
    [
        (dead(), "", "Container arn has printed nothing that has arrived at its log."),
        (dead(), "no permission", "The output of container arn cannot be shown: no permission."),
        (dead(Ending.IMAGE, None), "no stream", "Container arn never ran, so that there is no output."),
        (dead(Ending.START, 127), "", "Container arn has printed nothing that has arrived at its log."),
        (dead(Ending.LOST, None), "no stream", "The output of container arn cannot be shown: no stream."),
    ],
)
def test_without_lines_it_says_why(of: PostMortem, problem: str, said: str) -> None:
    assert entry(of, [], problem).split("\n")[-1] == said
    assert said in file(of, [], problem)


@pytest.mark.parametrize("ending", list(Ending))
def test_a_container_with_an_exit_code_has_run(ending: Ending) -> None:
    assert ran(dead(ending, 1))
