"""What people read of a failed container and its last lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.hints import hint
from ecs_async_executor.core.last_words import ENTRY_CHARACTERS, ENTRY_LINES, besides, entry, file, ran
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


def test_an_entry_has_the_lines_as_people_read_them_and_bounds_what_is_shown() -> None:
    raw = "{" + "x" * 5000 + "}"
    text = entry(dead(), [raw, "plain"], readable=lambda line: "short" if line == raw else line)
    assert text.split("\n")[-2:] == ["short", "plain"]


def test_of_a_line_that_reads_as_several_an_entry_has_the_end_if_not_all_fits() -> None:
    several = [f"{n} " + "x" * 900 for n in range(20)]
    shown = entry(dead(), ["raw", "plain"], readable=lambda line: "\n".join(several) if line == "raw" else line)
    assert shown.split("\n")[-3:] == [*several[-2:], "plain"]
    assert len(shown) <= ENTRY_CHARACTERS


# --- beside the task's log -------------------------------------------------------------------------------------


def printed(event: str, microsecond: int = 0, **more: str) -> str:
    at = f"2026-11-29T01:05:46.{microsecond:06d}Z"
    return json.dumps({"timestamp": at, "level": "info", "event": event, "logger": "task.stdout", **more})


SUPERVISOR = printed("Executing workload")


def test_what_a_task_has_printed_and_its_log_has_does_not_stand_twice() -> None:
    text = file(dead(), [SUPERVISOR, printed("50 MB", 890), "plain", printed("100 MB", 890)])
    shown = besides(text, "\n".join([printed("50 MB", 625), printed("100 MB", 625), ""])).split("\n")
    assert shown == [
        *file(dead(), ["x"]).split("\n")[:3],
        "(without 2 lines that the task's own log has)",
        SUPERVISOR,
        "plain",
        "",
    ]


@pytest.mark.parametrize(
    "log",
    [
        "",
        "50 MB",
        "{no json",
        '{"event": "50 MB"}',
        '{"timestamp": "2026-11-29"}',
        printed("50 MB", level="error"),
        printed("50 MB", 890)[:-20],
    ],
)
def test_what_the_tasks_log_lacks_stays(log: str) -> None:
    text = file(dead(), [SUPERVISOR, printed("50 MB", 890), "50 MB", "{no json", '{"event": "50 MB"}'])
    assert besides(text, log) == text


def test_a_line_that_comes_more_often_than_in_the_tasks_log_stays_as_often() -> None:
    text = file(dead(), [printed(".", number) for number in range(3)])
    assert besides(text, printed(".", 7)).count("task.stdout") == 2
    assert "(without 1 line that" in besides(text, printed(".", 7))
