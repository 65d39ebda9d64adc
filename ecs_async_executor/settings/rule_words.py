"""How rules are spoken of: places in them, and the kinds of their values. Imports nothing of ours."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""The keys, and the numbers of items in lists, that lead to a value."""

_PLAIN: Final = re.compile(r"[\w -]+")
_SHOWN_CHARACTERS: Final = 200
"""The length at which a message cuts a value off."""


def dotted(path: Path) -> str:
    """Return a path as people write it: ``queues.gpu.retries[1].memory``."""
    words = ""
    for part in path:
        if isinstance(part, int):
            words += f"[{part}]"
        else:
            words += f"{'.' if words else ''}{part if _PLAIN.fullmatch(part) else json.dumps(part)}"
    return words


def kind_of(value: object) -> str:
    """Return what a value is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "an object"
    kinds = {str: "text", int: "a number", float: "a number", list: "a list", tuple: "a list"}
    return kinds.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """Return a value that may be seen, cut off where it is long."""
    words = repr(value)
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[:_SHOWN_CHARACTERS]}..."


def meant(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the word that is probably meant; None if no word is near."""
    found = difflib.get_close_matches(word, list(words), 1, cutoff)
    return found[0] if found else None
