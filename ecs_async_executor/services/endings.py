"""
Kinds of ends: what AWS's words about a container that did not succeed mean. Pure functions.

A new text of AWS's goes into a pattern here, with a line in the tables of tests/services/test_endings.py. Imports
``core`` only. ECS and Batch share the words, as Batch runs its jobs through ECS.
"""

from __future__ import annotations

import re
from typing import Final

from ecs_async_executor.core.endings import Ending

_OUT_OF_MEMORY: Final = re.compile(r"\bOutOfMemory(Error)?\b")
_NO_IMAGE: Final = re.compile(r"\b(CannotPull\w*|ImagePull\w*|CannotVerifyImage\w*)")
_NOT_STARTED: Final = re.compile(
    r"\b(CannotStart|CannotCreate|ResourceInitialization|ContainerRuntime|TaskFailedToStart)\w*"
    r"|\bTimeout waiting for (network interface|EphemeralStorage) provisioning"
    r"|\bDockerTimeoutError: Could not transition to (created|started|running)",
    re.IGNORECASE,
)
_SPOT: Final = re.compile(r"\bSpot\b.*\binterrupt", re.IGNORECASE)
_HOST: Final = re.compile(
    r"^(Host EC2 |Container instance deregistration)|\bmaintenance on the underlying infrastructure"
)
"""A person may have taken the host away, but that is no decision about the tasks on it."""


def is_spot(reason: str) -> bool:
    """Return whether a task's or job's reason says that its spot capacity was taken back."""
    return _SPOT.search(reason) is not None


def is_host_lost(reason: str) -> bool:
    """Return whether a task's or job's reason says that its host is gone."""
    return _HOST.search(reason) is not None


def is_out_of_memory(words: str) -> bool:
    """Return whether a container lacked memory: of one that exited 0, a process in it was killed."""
    return _OUT_OF_MEMORY.search(words) is not None


def ending_in(words: str, exit_code: int | None, *, started: bool) -> Ending:
    """
    Return the kind of an end that nobody and nothing outside the container has caused.

    :param words: what the service says of the container; of a task or job as well if there is no exit code
    :param exit_code: of Airflow's container, not 0
    :param started: user code can have run in it
    """
    if is_out_of_memory(words):
        return Ending.OOM
    if _NO_IMAGE.search(words):
        return Ending.IMAGE
    if _NOT_STARTED.search(words):
        return Ending.START
    if exit_code is not None:
        return Ending.EXIT
    # One that ran and left no exit code: the agent could not inspect it, or says nothing at all.
    return Ending.LOST if started else Ending.START
