"""
The placements that a launch may choose from, best first.

Imports nothing of ours. A choice is the name of a set of request parameters in the executor's rules; what a
request made with it competes for is its *placement* (:class:`~ecs_async_executor.core.backend.LaunchSpec`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Choices:
    """
    What a launch may choose from.

    :param names: best first; empty: there is one request and no choice
    :param patience: seconds for which a better choice has to be full before the next one is used
    :param elsewhere: other choices, None for the lack of one, with which another scheduler may have launched it
    """

    names: tuple[str, ...] = ()
    patience: float = 60.0
    elsewhere: tuple[str | None, ...] = ()

    @property
    def everywhere(self) -> tuple[str | None, ...]:
        """Every choice with which it may have been launched, None for the lack of one."""
        return (*(self.names or (None,)), *self.elsewhere)


NO_CHOICES: Final = Choices()
