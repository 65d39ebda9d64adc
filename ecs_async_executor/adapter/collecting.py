"""Python's garbage collection, put off for as long as a call takes. May import the standard library only."""

from __future__ import annotations

import gc
from types import TracebackType


class PutOff:
    """
    Have no garbage collected inside of ``with``, by any thread.

    While many objects are made that stay, full collections otherwise come again and again, and find no garbage.
    SystemExit can surface at any statement, those of this class included: call :meth:`over` again later.
    """

    def __init__(self) -> None:
        self._owed = False

    def __enter__(self) -> None:
        if gc.isenabled():
            self._owed = True  # first: then it cannot be off and not owed
            gc.disable()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over()

    def over(self) -> None:
        """Have garbage collected again, if this has put it off."""
        if self._owed:
            gc.enable()
            self._owed = False
