"""
How the commands read durations.

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
