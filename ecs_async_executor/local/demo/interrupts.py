"""Signals as something to ask about: nothing is torn in the middle, and the end always comes to its end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(BaseException):
    """
    A signal asked the demo to end. No Exception: nothing may take it for an error and go on.

    :param number: the signal's
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Interrupts:
    """Context manager that notes the signals that ask a program to end, instead of being ended by them."""

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def insistent(self) -> bool:
        """Somebody has asked more than once."""
        return len(self._noted) > 1

    def check(self) -> None:
        """
        Look whether there was a signal.

        :raises StoppedError: if there was
        """
        if self._noted:
            raise StoppedError(self._noted[0])

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)
