"""Records made of JSON objects and checked at once, so that no bad value fails later. Imports nothing of ours."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_json(record: type[T], data: object) -> T:
    """
    Return a record (a dataclass) made of a JSON object.

    A list or a single item may stand for a tuple.

    :raises ValueError: if a member is unknown, missing or of the wrong type
    """
    name = record.__name__.lower()
    if not isinstance(data, Mapping):
        msg = f"a {name} must be an object, not {data!r}"
        raise ValueError(msg)  # noqa: TRY004 - callers handle one kind of error
    hints = get_type_hints(record)
    known = [f.name for f in fields(record)]  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        msg = f"unknown in a {name}: {', '.join(unknown)}; known: {', '.join(known)}"
        raise ValueError(msg)
    try:
        return record(**{key: _convert(value, hints[key], f"{name}.{key}") for key, value in data.items()})
    except TypeError as error:
        msg = f"incomplete {name}: {error}"
        raise ValueError(msg) from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        converted = _matching(value, option)
        if converted is not _NO:
            return converted
    msg = f"{where} cannot be {value!r}"
    raise ValueError(msg)


def _matching(value: Any, hint: Any) -> Any:
    origin = get_origin(hint) or hint
    if origin is tuple:
        inner = get_args(hint)
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        if inner[-1] is Ellipsis:
            inner = inner[:1] * len(items)
        converted = [_matching(item, option) for item, option in zip(items, inner, strict=False)]
        return _NO if len(items) != len(inner) or _NO in converted else tuple(converted)
    if isinstance(value, bool):
        return value if origin is bool else _NO
    if origin is float:
        return float(value) if isinstance(value, (int, float)) else _NO
    if origin is Any or isinstance(value, origin):
        return value
    return _NO


_NO = object()
