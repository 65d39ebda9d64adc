"""Dictionaries that fill and empty again."""

from __future__ import annotations

from ecs_async_executor.core.dictionaries import take_out


def test_the_room_of_many_entries_is_given_back_with_the_last() -> None:
    entries = dict.fromkeys(range(1000), "value")
    for key in range(999):
        take_out(entries, key)
    assert entries == {999: "value"}
    take_out(entries, -1)  # none of them
    assert entries == {999: "value"}
    take_out(entries, 999)
    assert entries.__sizeof__() == {}.__sizeof__()
