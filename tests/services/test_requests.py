from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from ecs_async_executor.services.requests import is_from_executor, merge, persons_reason, stop_reason
from tests.services.samples import json_objects, patient, scribble


@patient
@given(json_objects, json_objects)
def test_merge_changes_neither_argument_nor_shares_anything_with_them(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    before = copy.deepcopy((a, b))
    result = merge(a, b)
    assert (a, b) == before
    scribble(result)
    assert (a, b) == before


@patient
@given(json_objects, json_objects)
def test_merge_updates_recursively(a: dict[str, Any], b: dict[str, Any]) -> None:
    result = merge(a, b)
    assert result.keys() == a.keys() | b.keys()
    for key, value in result.items():
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            assert value == merge(a[key], b[key])
        else:
            assert value == (b[key] if key in b else a[key])


@pytest.mark.parametrize(
    "words",
    [
        "wrong input",
        "x" * 1000,
        "",
        stop_reason("copied from an executor's"),
        "Airflow Executor received a SIGTERM",
        "The Airflow scheduler that started it has ended",
    ],
)
def test_a_persons_reason_is_never_taken_for_an_executors(words: str) -> None:
    reason = persons_reason(words)
    assert not is_from_executor(reason)
    assert len(reason) <= 255
