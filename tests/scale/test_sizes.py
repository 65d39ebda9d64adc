"""The sizes of collections: none is missed, however it is kept."""

from __future__ import annotations

import functools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import msgspec
import pytest

from tests.scale.sizes import full, of_package, sizes_of


class Struct(msgspec.Struct, gc=False):
    """Out of the garbage collector's sight."""

    kept: Any


@dataclass(slots=True)
class Slotted:
    kept: Any = field(default_factory=list)


class Plain:
    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def method(self) -> None:
        """Be bound."""


class Subclass(deque[Any]):
    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept


def in_closure(kept: Any) -> Callable[[], Any]:
    return lambda: kept


def generator_over(kept: Any) -> Any:
    yield kept
    yield 1


@functools.lru_cache
def cached(number: int) -> list[int]:
    return [number]


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "structure": Struct,
    "slots": Slotted,
    "attribute": Plain,
    "method": lambda kept: Plain(kept).method,
    "closure": in_closure,
    "partial": lambda kept: functools.partial(print, kept),
    "partial by name": lambda kept: functools.partial(print, end=kept),
    "dictionary": lambda kept: {1: kept},
    "key": lambda kept: {Hashed(kept): 1},
    "ordered": lambda kept: OrderedDict({1: kept}),
    "default": lambda kept: defaultdict(list, {"a": kept}),
    "deque": lambda kept: deque([kept]),
    "subclass of a collection": Subclass,
    "generator": lambda kept: next(again := generator_over(kept)) and again,
}


class Hashed:
    def __init__(self, kept: Any) -> None:
        self.kept = kept


@pytest.mark.parametrize("kind", [dict, list, set, deque])
@pytest.mark.parametrize("holder", list(HOLDERS))
def test_a_collection_is_found_wherever_it_is_kept(holder: str, kind: Callable[[Any], Any]) -> None:
    kept = kind(dict.fromkeys(range(1234)))
    found = sizes_of({"root": HOLDERS[holder](kept)})
    assert [size.items for size in found.values() if size.items >= 1234] == [1234]


def test_collections_of_entries_count_together() -> None:
    found = sizes_of({"root": Plain([Struct([1, 2]), Struct([3])])})
    assert found["root.kept"].items == 2
    assert (found["root.kept[].kept"].collections, found["root.kept[].kept"].items) == (2, 3)


def test_what_is_left_out_is_not_gone_into() -> None:
    other = Plain([1])
    assert sizes_of({"root": Plain(other)}, leave_out=[other]) == {}


def test_weak_references_count_and_keep_nothing() -> None:
    key = Plain([1])
    weak: WeakKeyDictionary[Plain, Any] = WeakKeyDictionary({key: 1})
    found = sizes_of({"root": weak})
    assert found["root.data"].items == 1
    assert not [name for name in found if name.endswith(".kept")]


@pytest.mark.anyio
async def test_the_variables_of_a_task_that_waits_are_found() -> None:
    async def inner(rows: list[int]) -> None:
        mine = {row: row for row in rows}
        await anyio.sleep_forever()
        mine.clear()

    async def outer() -> None:
        await inner(list(range(77)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outer)
        await anyio.wait_all_tasks_blocked()
        found = sizes_of({"tasks": tasks})
        tasks.cancel_scope.cancel()
    names = [name.rpartition(".")[2] for name, size in found.items() if size.items == 77]
    assert sorted(names) == ["mine", "rows"]


def test_what_modules_and_classes_keep_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ecs_async_executor.core import ledger

    monkeypatch.setattr(ledger, "leak", {1: 2}, raising=False)
    monkeypatch.setattr(ledger.Ledger, "leaks", [1], raising=False)
    monkeypatch.setattr(ledger, "cached", cached, raising=False)
    cached.cache_clear()
    cached(1)
    found = sizes_of(of_package())
    assert found["core.ledger:leak"].items == found["core.ledger:Ledger.leaks"].items == 1
    assert found["core.ledger:cached"].items == 1


def test_what_grew_in_the_first_half_only_is_full_and_says_since_when() -> None:
    entries = {"kept up to a number": [1, 7, 7, 7], "of the present": [1, 9, 2, 3]}
    found = full(entries, entries, launches=[10, 20, 30, 40])
    assert found == {"kept up to a number": {"entries": 7, "full_after": 20}}
