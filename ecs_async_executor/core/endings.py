"""
Why a launch ended without success: the kinds that people count, alert on and react to.

Imports nothing of ours.
"""

from __future__ import annotations

import enum


class Ending(enum.Enum):
    """The kind of an end; its value is part of a metric's name."""

    EXIT = "exit_code"
    """The container ran and exited, not 0, for no other reason that is known."""
    OOM = "oom"
    """The container needed more memory than it had."""
    IMAGE = "image"
    """Its image could not be had."""
    START = "start"
    """It did not start for another reason: a secret, a volume, a network interface, a command."""
    CAPACITY = "capacity"
    """There was no room for it."""
    SPOT = "spot"
    """Its spot capacity was taken back."""
    HOST = "host"
    """Its host was lost."""
    STOPPED = "stopped"
    """A person, a deployment or a limit that a person configured has stopped it."""
    REFUSED = "refused"
    """The service refused the request, or there could be none."""
    LOST = "lost"
    """Nobody could find out what became of it."""
