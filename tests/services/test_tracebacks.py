"""Tracebacks in Airflow's JSON, against Python's own and made by the structlog that is installed."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from structlog.tracebacks import ExceptionDictTransformer

from ecs_async_executor.services.readable import readable
from ecs_async_executor.services.tracebacks import traceback_in


def parse(row: dict[str, int]) -> int:
    return row["amount"]


def raises() -> None:
    raise ValueError("no such row")


def raises_from() -> None:
    try:
        parse({})
    except KeyError as error:
        raise RuntimeError("row 17 has no amount") from error


def raises_while_handling() -> None:
    try:
        raises_from()
    except RuntimeError:
        parse({})


def raises_from_none() -> None:
    try:
        parse({})
    except KeyError:
        raise RuntimeError("row 17 has no amount") from None


def raises_nothing_to_say() -> None:
    raise RuntimeError


def raises_several_lines() -> None:
    raise RuntimeError("first\nsecond")


def is_no_python() -> None:
    compile("x = = 1", "dags/wrong.py", "exec")


def structured(function: Callable[[], object], **options: Any) -> tuple[BaseException, Any]:
    """Return what a function raises, and that as it is in Airflow's JSON."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - whatever it raises
        exc_info = (type(error), error, error.__traceback__)
        transform = ExceptionDictTransformer(use_rich=False, **options)
        return error, json.loads(json.dumps(transform(exc_info)))
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "function",
    [
        raises,
        raises_from,
        raises_while_handling,
        raises_from_none,
        raises_nothing_to_say,
        raises_several_lines,
        is_no_python,
    ],
)
def test_a_traceback_reads_as_python_prints_it_but_for_the_lines_of_source(function: Callable[[], None]) -> None:
    error, value = structured(function, show_locals=False)
    printed = "".join(traceback.format_exception(error)).splitlines()
    source = "    "
    assert [one for one in traceback_in(value) or () if not one.startswith(source)] == [
        one for one in printed if not one.startswith(source)
    ]


def test_local_variables_are_not_shown() -> None:
    def logs_in() -> None:
        password = "hunter2"
        raise RuntimeError(f"{len(password)} characters")

    _, value = structured(logs_in, show_locals=True)
    assert "hunter2" in json.dumps(value)
    assert "hunter2" not in "\n".join(traceback_in(value) or ())


def test_frames_that_structlog_leaves_out_are_said_to_be_left_out() -> None:
    def falls(depth: int) -> None:
        if depth:
            falls(depth - 1)
        raise RuntimeError("deep")

    _, value = structured(lambda: falls(20), show_locals=False, max_frames=4)
    assert "  [Skipped frames: 19]" in (traceback_in(value) or ())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has neither notes nor groups")
def test_notes_and_the_exceptions_of_a_group_are_shown() -> None:
    parts = [structured(function)[0] for function in (raises, raises_from)]
    for number, part in enumerate(parts):
        part.add_note(f"note {number}")  # type: ignore[attr-defined,unused-ignore]

    def raises_many() -> None:
        raise BaseExceptionGroup("both failed", parts)  # noqa: F821

    lines = traceback_in(structured(raises_many, show_locals=False)[1]) or []
    assert "ExceptionGroup: both failed (2 sub-exceptions)" in lines
    for said in (
        "ValueError: no such row",
        "note 0",
        "KeyError: 'amount'",
        "note 1",
    ):
        assert f"  | {said}" in lines


@pytest.mark.parametrize(
    "value",
    [None, 1, [], {}, "Traceback", ["a"], [{"exc_type": "X"}], [{"exc_type": "X", "exc_value": "y"}, 1]],
)
def test_what_is_no_traceback_is_none(value: object) -> None:
    assert traceback_in(value) is None


def test_what_is_malformed_in_a_traceback_is_left_out() -> None:
    value = [
        {"exc_type": "X", "exc_value": None, "frames": [1, {"filename": "f"}], "exceptions": [2], "exc_notes": 3}
    ]
    assert traceback_in(value) == [
        "Traceback (most recent call last):",
        '  File "f", line None, in None',
        "X: None",
    ]


def test_in_a_line_of_airflows_json_it_follows_in_lines_of_its_own() -> None:
    _, value = structured(raises_nothing_to_say, show_locals=False)
    record = {
        "timestamp": "2026-11-28T01:02:03Z",
        "level": "error",
        "event": "Failed",
        "error_detail": value,
        "n": 1,
    }
    first, title, *_, last = readable(json.dumps(record)).split("\n")
    assert (first, title, last) == (
        "2026-11-28T01:02:03 ERROR Failed n=1",
        "Traceback (most recent call last):",
        "RuntimeError",
    )


def test_a_traceback_that_is_text_already_follows_too() -> None:
    text = 'Traceback (most recent call last):\n  File "f", line 1, in g\nRuntimeError: x'
    assert readable(json.dumps({"event": "Failed", "exception": text})) == f"Failed\n{text}"
