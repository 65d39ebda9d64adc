"""
What a check has found: one thing that was looked at, and what that means for a first task.

Imports the standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What a finding means; the value is for people and programs."""

    GOOD = "good"
    WARNING = "warning"
    """Tasks run, though hardly as they are meant to, or not everything about them can be shown."""
    PROBLEM = "problem"
    """Tasks would wait or fail."""
    NOT_TRIED = "not tried"
    INFO = "info"
    """Something that applies, for people to compare with what they meant."""


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at.

    :param name: of what was looked at
    :param text: what was found, as a clause; can be empty if it is good
    :param hint: the way out, as a clause; empty if there is none, or if the text says it
    """

    name: str
    verdict: Verdict
    text: str = ""
    hint: str = ""


def good(name: str, text: str = "") -> Finding:
    """Return a finding that changes nothing."""
    return Finding(name, Verdict.GOOD, text)


def info(name: str, text: str) -> Finding:
    """Return what applies."""
    return Finding(name, Verdict.INFO, text)


def warning(name: str, text: str, hint: str = "") -> Finding:
    """Return a finding that people should know of."""
    return Finding(name, Verdict.WARNING, text, hint)


def problem(name: str, text: str, hint: str = "") -> Finding:
    """Return a finding that keeps tasks from running."""
    return Finding(name, Verdict.PROBLEM, text, hint)
