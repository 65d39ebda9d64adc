"""
The stack of another thread, for the log: lines of code, no values.

Imports nothing of this project.
"""

from __future__ import annotations

import sys
import traceback


def stack_of(thread: int | None) -> str:
    """Return where a thread is at present, by its identifier; empty if it has ended."""
    frame = sys._current_frames().get(thread or 0)  # noqa: SLF001 - the only way to another thread's stack
    return "".join(traceback.format_stack(frame)) if frame else ""
