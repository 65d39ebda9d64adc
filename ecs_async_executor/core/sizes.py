"""
How big a container is: sizes as people write them, and as people read them. Imports nothing of ours.

Inside, CPU is counted in CPU units, of which a vCPU has 1024, memory in MiB, disk in GiB and time in seconds, as
AWS counts them. GB means GiB, as it does for AWS. A fraction of a unit is rounded up, so nobody gets less than
they ask for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Final

import msgspec

VCPU: Final = 1024
"""CPU units."""
MOST_VCPUS: Final = 32
"""Up to here a bare number of CPUs means vCPUs. Serverless containers have no more."""
LEAST_UNITS: Final = 128
"""From here on a bare number of CPUs means CPU units: AWS takes no fewer for a task."""
LEAST_BARE_MIB: Final = 128
"""Below this a bare number of MiB is taken for a slip: Python alone needs more."""

_GIB: Final = 1024
_MOST_CPU: Final = 448 * VCPU
_MOST_MIB: Final = 32 * 1024 * 1024
_MOST_GIB: Final = 64 * 1024
_LONGEST_SHOWN: Final = 40


class Size(msgspec.Struct, frozen=True, gc=False):
    """
    The size of a container; None for what is not known or not asked for.

    :param cpu: in CPU units, of which a vCPU has 1024
    :param memory: in MiB
    :param gpu: how many
    :param disk: ephemeral storage in GiB
    """

    cpu: int | None = None
    memory: int | None = None
    gpu: int | None = None
    disk: int | None = None


class WrongSize(ValueError):
    """A value is no size; the text is a sentence that names the key, the value and the way out."""


# --- as people write them -----------------------------------------------------------------------------------

_NUMBER: Final = r"\d{1,12}(?:\.\d{0,6})?|\.\d{1,6}"
_AMOUNT = re.compile(rf"\s*({_NUMBER})\s*([a-zA-Z]+(?: [a-zA-Z]+)?)?\s*")
_FACTOR = re.compile(rf"\s*(?:[x*×]\s*({_NUMBER})|({_NUMBER})\s*[x×])\s*", re.IGNORECASE)

_CPU_UNITS: Final[Mapping[str, int]] = (
    dict.fromkeys(("vcpu", "vcpus"), VCPU) | dict.fromkeys(("unit", "units", "cpu unit", "cpu units"), 1)
)  # fmt: skip
_MEMORY_UNITS: Final[Mapping[str, int]] = (
    dict.fromkeys(("m", "mb", "mi", "mib"), 1)
    | dict.fromkeys(("g", "gb", "gi", "gib"), _GIB)
    | dict.fromkeys(("t", "tb", "ti", "tib"), _GIB * _GIB)
)
_TIME_UNITS: Final[Mapping[str, int]] = (
    dict.fromkeys(("s", "sec", "second", "seconds"), 1)
    | dict.fromkeys(("m", "min", "minute", "minutes"), 60)
    | dict.fromkeys(("h", "hour", "hours"), 3600)
    | dict.fromkeys(("d", "day", "days"), 86400)
)


def cpu_units(value: object, key: str = "cpu") -> int:
    """
    Return how many CPU units are meant.

    A bare number up to 32 counts vCPUs; a bare whole number from 128 on counts CPU units, as AWS does.
    Between the two, a number needs its unit.

    :raises WrongSize: if it is no amount of CPU, or could mean either
    """
    way_out = 'write vCPUs, such as 0.5 or "2 vCPU", or CPU units, such as 512 or "512 units"'
    amount, unit = _read(value, key, way_out)
    if unit is not None:
        factor = _factor_of(unit, _CPU_UNITS, value, key, way_out)
    elif amount <= MOST_VCPUS:
        factor = VCPU
    elif amount >= LEAST_UNITS and amount.denominator == 1:
        factor = 1
    elif amount < LEAST_UNITS:
        plain = _plain(amount)
        raise WrongSize(
            f"{key} = {_shown(value)} could mean vCPUs or CPU units: "
            f'write "{plain} vCPU"' + (f' or "{plain} units"' if amount.denominator == 1 else "")
        )
    else:
        raise WrongSize(f"{key} = {_shown(value)} must be a whole number of CPU units: {way_out}")
    return _within(math.ceil(amount * factor), _MOST_CPU, value, key, way_out)


def memory_mib(value: object, key: str = "memory") -> int:
    """
    Return how many MiB are meant; a bare number counts MiB, as the APIs do.

    :raises WrongSize: if it is no amount of memory, or a number so small that it cannot be meant in MiB
    """
    way_out = 'write a number with its unit, such as "4 GB" or "512 MB", or a whole number of MiB'
    amount, unit = _read(value, key, way_out)
    if unit is not None:
        amount *= _factor_of(unit, _MEMORY_UNITS, value, key, way_out)
    elif amount < LEAST_BARE_MIB or amount.denominator != 1:
        plain = _plain(amount)
        raise WrongSize(f'{key} = {_shown(value)} would be {plain} MiB: write "{plain} GB" or "{plain} MB"')
    return _within(math.ceil(amount), _MOST_MIB, value, key, way_out)


def disk_gib(value: object, key: str = "disk") -> int:
    """
    Return how many GiB of disk are meant; a bare number counts GiB, as AWS does.

    :raises WrongSize: if it is no amount of disk
    """
    way_out = 'write a number with its unit, such as "50 GB", or a whole number of GiB'
    amount, unit = _read(value, key, way_out)
    if unit is not None:
        amount *= Fraction(_factor_of(unit, _MEMORY_UNITS, value, key, way_out), _GIB)
    return _within(math.ceil(amount), _MOST_GIB, value, key, way_out)


def gpu_count(value: object, key: str = "gpu") -> int:
    """
    Return how many GPUs are meant; 0 is none.

    :raises WrongSize: if it is no whole number
    """
    way_out = "write a whole number"
    amount, unit = _read(value, key, way_out, least=0)
    if amount.denominator != 1 or (unit or "gpu") not in {"gpu", "gpus"}:
        raise WrongSize(f"{key} = {_shown(value)} is no number of GPUs: {way_out}")
    return int(amount)


def seconds(value: object, key: str = "command_timeout") -> int:
    """
    Return how many seconds are meant; a bare number counts seconds.

    :raises WrongSize: if it is no duration
    """
    way_out = 'write seconds, or a number with its unit, such as "90 min" or "2 h"'
    if isinstance(value, timedelta):
        amount, unit = Fraction(value / timedelta(seconds=1)), None
        if amount <= 0:
            raise WrongSize(f"{key} must be more than nothing: {way_out}")
    else:
        amount, unit = _read(value, key, way_out)
    if unit is not None:
        amount *= _factor_of(unit, _TIME_UNITS, value, key, way_out)
    return math.ceil(amount)


def factor(value: object, key: str = "memory") -> Fraction | None:
    """
    Return a factor such as ``"x2"`` or ``"x1.5"``; None if the value is not written as one.

    :raises WrongSize: if the factor makes nothing larger
    """
    found = _FACTOR.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    amount = Fraction(found[1] or found[2])
    if amount <= 1:
        raise WrongSize(f'{key} = {_shown(value)} makes nothing larger: write a factor above 1, such as "x2"')
    return amount


def multiplied(amount: int, by: Fraction) -> int:
    """Return an amount times a factor, rounded up."""
    return math.ceil(amount * by)


def _read(value: object, key: str, way_out: str, least: int | None = None) -> tuple[Fraction, str | None]:
    """Return number and unit; the number is above 0, or at least ``least``."""
    unit = None
    if isinstance(value, str):
        found = _AMOUNT.fullmatch(value)
        if found is None:
            raise WrongSize(f"{key} = {_shown(value)} cannot be read: {way_out}")
        amount, unit = Fraction(found[1]), found[2]
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongSize(f"{key} must be a number or text, not {_shown(value)}: {way_out}")
    else:
        # By its text: people mean the decimal number, not the binary one beside it.
        amount = Fraction(value) if isinstance(value, int) else Fraction(repr(float(value)))
    if amount < (0 if least is None else least) or (amount == 0 and least is None):
        raise WrongSize(f"{key} = {_shown(value)} must be more than nothing: {way_out}")
    return amount, unit.lower() if unit else None


def _factor_of(unit: str, units: Mapping[str, int], value: object, key: str, way_out: str) -> int:
    if unit not in units:
        raise WrongSize(f"{key} = {_shown(value)} has a unit that it cannot have: {way_out}")
    return units[unit]


def _within(amount: int, most: int, value: object, key: str, way_out: str) -> int:
    if amount > most:
        raise WrongSize(f"{key} = {_shown(value)} is more than any machine has: {way_out}")
    return amount


def _shown(value: object) -> str:
    """Return a value for a message; only text and numbers are shown, and no more of them than a size needs."""
    if value is None:
        return "nothing"
    if isinstance(value, timedelta):
        return str(value)
    if not isinstance(value, str | int | float):
        return type(value).__name__
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[: _LONGEST_SHOWN - 3]}..."


def _plain(amount: Fraction) -> str:
    return f"{float(amount):g}"


# --- as people read them ------------------------------------------------------------------------------------


def cpu_in_words(units: int) -> str:
    """Return an amount of CPU, such as ``0.5 vCPU``."""
    if units * 1000 % VCPU:
        return f"{units} CPU units"
    return f"{units / VCPU:g} vCPU"


def memory_in_words(mib: int) -> str:
    """Return an amount of memory, such as ``4 GB`` or ``512 MB``; GB means GiB, as it does for AWS."""
    if mib < _GIB or mib * 100 % _GIB:
        return f"{mib} MB"
    return f"{mib / _GIB:.10g} GB"


def in_words(size: Size) -> str:
    """Return a size, such as ``1 vCPU, 4 GB, 1 GPU, 50 GB disk``; "" if nothing is known of it."""
    parts = []
    if size.cpu:
        parts.append(cpu_in_words(size.cpu))
    if size.memory:
        parts.append(memory_in_words(size.memory))
    if size.gpu:
        parts.append(f"{size.gpu} GPU")
    if size.disk:
        parts.append(f"{size.disk} GB disk")
    return ", ".join(parts)
