"""
How the commands read durations and numbers.

Imports nothing of this project: every ``airflow`` command loads it.
"""

from __future__ import annotations

import argparse
import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """
    Read a duration: ``90``, ``90s``, ``10m``, ``2h``, ``1d``.

    :raises ArgumentTypeError: if it is none
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 90s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def count(text: str) -> int:
    """
    Read a whole number that is not negative.

    :raises ArgumentTypeError: if it is none
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def count_from_one(text: str) -> int:
    """
    Read a whole number from 1.

    :raises ArgumentTypeError: if it is none
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)
