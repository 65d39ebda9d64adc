"""
Dictionaries that fill and empty again.

Imports nothing of ours. A dictionary keeps the room of its largest size until enough has been added again. After
an adoption of 100,000 launches, those that they have passed through would keep some hundred bytes for each.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)


def take_out(entries: dict[K, Any], key: K) -> None:
    """Take an entry out if it is in, and give the room back with the last one."""
    entries.pop(key, None)
    if not entries:
        entries.clear()
