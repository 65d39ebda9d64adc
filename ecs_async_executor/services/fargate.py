"""
The sizes that Fargate has for Linux, and which of them fits. Imports ``core``.

Source: "Task CPU and memory" on the page "Amazon ECS task definition differences for Fargate" of the ECS Developer
Guide. Batch has the same sizes (ResourceRequirement in its API reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ecs_async_executor.core.sizes import cpu_in_words, memory_in_words

_GIB: Final = 1024


def _every(step: int, least: int, most: int) -> tuple[int, ...]:
    return tuple(gib * _GIB for gib in range(least, most + 1, step))


SIZES: Final[Mapping[int, tuple[int, ...]]] = {
    256: (512, 1024, 2048),
    512: _every(1, 1, 4),
    1024: _every(1, 2, 8),
    2048: _every(1, 4, 16),
    4096: _every(1, 8, 30),
    8192: _every(4, 16, 60),
    16384: _every(8, 32, 120),
    32768: (60 * _GIB, 120 * _GIB, 244 * _GIB),
}
"""The memory in MiB that each number of CPU units can have; all ascending."""
_MEMORIES: Final = tuple(sorted({one for of_cpu in SIZES.values() for one in of_cpu}))
DISK: Final = range(21, 201)
"""GiB of ephemeral storage that a task can ask for; one that does not ask has 20."""
LARGEST: Final = "32 vCPU and 244 GB"


def is_valid(cpu: int | None, memory: int | None) -> bool:
    """Return whether a task can have this size; None for what is not known."""
    if cpu is None:
        return memory is None or memory in _MEMORIES
    return cpu in SIZES and (memory is None or memory in SIZES[cpu])


def fitting(cpu: int | None, memory: int | None) -> tuple[int | None, int | None] | None:
    """
    Return the smallest size that has at least this, with the fewest CPUs; None if there is none.

    What is None stays None: the task definition decides it.
    """
    if cpu is None:
        found = memory and next((one for one in _MEMORIES if one >= memory), None)
        return None if memory and found is None else (None, found)
    for units, memories in SIZES.items():
        if units >= cpu and (fit := next((one for one in memories if memory is None or one >= memory), None)):
            return units, None if memory is None else fit
    return None


def nearest(cpu: int | None, memory: int | None) -> list[str]:
    """Return in words the sizes next to one that Fargate does not have: the smaller, if any, and the larger."""
    valid: list[tuple[int | None, int | None]] = (
        [(None, one) for one in _MEMORIES]
        if cpu is None
        else [(units, one) for units, memories in SIZES.items() for one in (memories if memory else (None,))]
    )
    less = [one for one in valid if (one[0] or 0) <= (cpu or 0) and (one[1] or 0) <= (memory or 0)]
    fit = fitting(cpu, memory)
    return [in_words(*one) for one in (*less[-1:], *([fit] if fit else []))]


def as_asked(cpu: int | None, memory: int | None) -> str:
    """Return a size with the keys that ask for it, for a message: ``cpu and memory = 1 vCPU with 3 GB``."""
    keys = [key for key, amount in (("cpu", cpu), ("memory", memory)) if amount is not None]
    return f"{' and '.join(keys)} = {in_words(cpu, memory)}"


def in_words(cpu: int | None, memory: int | None) -> str:
    """Return a size for a message, such as ``1 vCPU with 3 GB``."""
    parts = [] if cpu is None else [cpu_in_words(cpu)]
    return " with ".join([*parts, *([] if memory is None else [memory_in_words(memory)])])
