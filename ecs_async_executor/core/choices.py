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
    """

    names: tuple[str, ...] = ()
    patience: float = 60.0


NO_CHOICES: Final = Choices()
