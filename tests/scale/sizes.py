"""
Every collection that can be reached from an object, by the way to it: nobody has to remember to list a new one.

The walk follows attributes, slots, fields of msgspec structures, the entries of collections, closures, partials,
and the variables of running coroutines. Collections that are reached by the same way, but for the entry, count
together: ``ledger.launches[].past`` is what all launches have in ``past``.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import inspect
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

PACKAGE = "ecs_async_executor"
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), type(NotImplemented), enum.Enum)
_LEFT_OUT = (
    *(type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.GetSetDescriptorType),
    *(types.MemberDescriptorType, weakref.ref, asyncio.AbstractEventLoop),
)
_FOREIGN = "sqlalchemy"
"""From any row its models lead to all tables of Airflow."""
_SLOT = types.MemberDescriptorType
_PASSED_OVER = (*_ATOMS, *_LEFT_OUT)
_COLLECTIONS = (dict, list, set, frozenset, tuple, deque)


@dataclass
class Size:
    """
    What was found under one name.

    :param collections: how many
    :param items: entries of all of them
    :param size: bytes of the collections, without their entries
    """

    collections: int = 0
    items: int = 0
    size: int = 0


def sizes_of(roots: Mapping[str, object], leave_out: Iterable[object] = ()) -> dict[str, Size]:
    """
    Return the sizes of all collections that can be reached.

    :param roots: where to begin, by name
    :param leave_out: objects that are not gone into
    """
    found: dict[str, Size] = {}
    seen = {id(one) for one in leave_out}
    kept: list[object] = []  # what the walk itself makes must not give its id to something else meanwhile
    ways: deque[tuple[str, object]] = deque(roots.items())
    while ways:
        name, thing = ways.popleft()
        if isinstance(thing, _PASSED_OVER) or id(thing) in seen or type(thing).__module__.startswith(_FOREIGN):
            continue
        seen.add(id(thing))
        if isinstance(thing, _COLLECTIONS) or hasattr(thing, "cache_info"):
            _count(found.setdefault(name, Size()), thing)
        for part, other in _parts(thing):
            if not isinstance(other, _ATOMS):
                kept.append(other)
                ways.append((name + part, other))
    return found


def grown(before: Mapping[str, Size], after: Mapping[str, Size], slack: int = 10) -> dict[str, tuple[int, int]]:
    """
    Return the collections that have grown: the entries before and after, by name.

    :param slack: more entries that are no growth
    """
    had = {name: before[name].items if name in before else 0 for name in after}
    return {name: (had[name], size.items) for name, size in after.items() if size.items > had[name] + slack}


def full(
    had_grown: Iterable[str], entries: Mapping[str, Sequence[int]], launches: Sequence[int]
) -> dict[str, dict[str, int]]:
    """
    Return what is kept up to a number: its entries, and the launches after which it had as many, by name.

    :param had_grown: what held more after half of a day than after a small part, and no more at its end
    :param entries: at each look, by name
    :param launches: until each look
    """
    found: dict[str, dict[str, int]] = {}
    for name in sorted(had_grown):
        row = entries[name]
        most = max(row)
        if row[-1] == most:
            found[name] = {"entries": most, "full_after": launches[row.index(most)]}
    return found


def of_package(package: str = PACKAGE) -> dict[str, object]:
    """Return what the modules and the classes of a package keep, by name."""
    found: dict[str, object] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != package or module is None:
            continue
        short = module_name.removeprefix(f"{package}.")
        for name, thing in list(vars(module).items()):
            if isinstance(thing, type) and thing.__module__ == module_name:
                found |= {
                    f"{short}:{thing.__name__}.{attribute}": value
                    for attribute, value in list(vars(thing).items())
                    if _keeps(value)
                }
            elif not name.startswith("__") and _keeps(thing):
                found[f"{short}:{name}"] = thing
    return found


def _keeps(thing: object) -> bool:
    return isinstance(thing, (dict, list, set, deque, weakref.WeakSet)) or hasattr(thing, "cache_info")


def _count(size: Size, thing: Any) -> None:
    size.collections += 1
    size.items += thing.cache_info().currsize if hasattr(thing, "cache_info") else len(thing)
    size.size += sys.getsizeof(thing)


def _parts(thing: Any) -> Iterator[tuple[str, object]]:
    """Return what an object consists of, with the way from it."""
    if isinstance(thing, dict):
        for key, value in list(thing.items()):
            yield "{}", key
            yield f"[{key}]" if isinstance(key, str) and len(thing) <= 12 and key.isidentifier() else "[]", value
    elif isinstance(thing, _COLLECTIONS):
        for one in list(thing):
            yield "[]", one
    if isinstance(thing, msgspec.Struct):
        for name in thing.__struct_fields__:
            yield f".{name}", getattr(thing, name)
    elif isinstance(thing, functools.partial):
        yield "()", thing.func
        yield "()", thing.args
        yield "()", thing.keywords
    elif isinstance(thing, types.MethodType):
        yield "", thing.__self__
        yield "", thing.__func__
    elif isinstance(thing, types.FunctionType):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            for content in gc.get_referents(cell):
                yield f"<{name}>", content
    elif isinstance(thing, types.CoroutineType):
        yield from _of_frame(thing.__qualname__, inspect.getcoroutinelocals(thing), thing.cr_await)
    elif isinstance(thing, types.AsyncGeneratorType):
        yield from _of_frame(thing.__qualname__, thing.ag_frame.f_locals if thing.ag_frame else {}, thing.ag_await)
    elif isinstance(thing, types.GeneratorType):
        yield from _of_frame(
            thing.__qualname__, thing.gi_frame.f_locals if thing.gi_frame else {}, thing.gi_yieldfrom
        )
    elif isinstance(thing, asyncio.Task):
        yield "", thing.get_coro()
    else:
        yield from _of_instance(thing)


def _of_frame(name: str, variables: Mapping[str, object], awaited: object) -> Iterator[tuple[str, object]]:
    for variable, value in variables.items():
        yield f"({name}).{variable}", value
    if awaited is not None:
        yield "", awaited


def _of_instance(thing: Any) -> Iterator[tuple[str, object]]:
    try:
        attributes = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        attributes = None
    if isinstance(attributes, dict):
        for name, value in list(attributes.items()):
            yield f".{name}", value
    slots = [slot for cls in type(thing).__mro__ for slot in vars(cls).values() if isinstance(slot, _SLOT)]
    for slot in slots:
        with suppress(AttributeError):  # it has never been set
            yield f".{slot.__name__}", slot.__get__(thing)  # no code of the object's runs
    if attributes is None and not slots and not isinstance(thing, _COLLECTIONS):
        for other in gc.get_referents(thing):
            yield "", other
