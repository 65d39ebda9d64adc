"""
Names of jobs: where a launch's mark goes, since Batch takes no client token and no ``startedBy``.

``<configured name>-<mark>[-<piece of the launch id>]-<number of the attempt>``. Imports ``core`` only.
"""

from __future__ import annotations

import re
from typing import Final

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.identity import UUID_PATTERN

_NAME_LIMIT: Final = 128
_SUFFIX_ROOM: Final = 16
"""Characters of a job's name after the mark: hyphens, a piece of the launch id, the attempt's number."""
_MARK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(rf".*-({UUID_PATTERN})-(?:[0-9a-f]{{8}}-)?\d+")


def name_prefix(name: str, mark: str) -> str:
    """
    Return the beginning that the names of all jobs of a workload share.

    :param name: as it is configured; its end is cut off if it is too long
    :param mark: see :class:`~ecs_async_executor.core.messages.Launch`
    :raises Rejected: if the mark cannot be part of a name
    """
    if not _MARK.fullmatch(mark):
        raise Rejected("the mark of a launch must have 1 to 64 letters, digits, hyphens or underscores")
    return f"{name[: _NAME_LIMIT - _SUFFIX_ROOM - len(mark) - 1]}-{mark}"


def own_prefix(prefix: str, launch_id: str) -> str:
    """
    Return the beginning that the names of all jobs of one launch share.

    :param prefix: see :func:`name_prefix`; it is the result where it ends with the launch id already
    """
    return prefix if prefix.endswith(f"-{launch_id}") else f"{prefix}-{launch_id[:8]}"


def job_name(prefix: str, client_token: str) -> str:
    """
    Return the name of one attempt's job.

    :param prefix: see :func:`name_prefix`
    :param client_token: ``<launch_id>-<number of the attempt>``
    """
    launch_id, _, number = client_token.rpartition("-")
    return f"{own_prefix(prefix, launch_id)}-{number}"


def mark_in(name: object) -> str | None:
    """Return the mark in the name of one of our jobs, None if there is none."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return found[1] if found else None
