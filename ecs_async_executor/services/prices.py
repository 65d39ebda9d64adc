"""
What a size costs an hour on Fargate: list prices, on demand, for Linux. Imports ``core``.

The prices are those of AWS's price list for Amazon ECS: usage types ``Fargate-vCPU-Hours:perCPU`` and
``Fargate-GB-Hours``, their ``ARM`` forms, and ``Fargate-EphemeralStorage-GB-Hours``. Only Regions are here whose
prices could be confirmed. Prices change: people are told the date with each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ecs_async_executor.core.sizes import VCPU, Size

AS_OF: Final = "August 2026"
_FREE_DISK: Final = 20
"""GiB that each task has without being charged for them."""
_GIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Rates:
    """
    The prices of a Region in US dollars an hour; None for what is not known.

    :param x86: of a vCPU, and of a GB of memory
    :param arm: likewise
    :param disk: of a GB of ephemeral storage beyond the first 20
    """

    x86: tuple[float, float]
    arm: tuple[float, float] | None = None
    disk: float | None = None


PRICES: Final[Mapping[str, Rates]] = {
    "ap-northeast-1": Rates((0.05056, 0.00553), None, 0.000133),
    "ap-southeast-1": Rates((0.05056, 0.00553), (0.04045, 0.00442)),
    "eu-central-1": Rates((0.04656, 0.00511)),
    "eu-west-1": Rates((0.04048, 0.004445), (0.03238, 0.00356)),
    "eu-west-2": Rates((0.04656, 0.00511), (0.03725, 0.00409), 0.000129),
    "us-east-1": Rates((0.04048, 0.004445), (0.03238, 0.00356), 0.000111),
    "us-east-2": Rates((0.04048, 0.004445), (0.03238, 0.00356), 0.000111),
    "us-west-2": Rates((0.04048, 0.004445), None, 0.000111),
}


def an_hour(size: Size, region: str | None, *, spot: bool = False) -> str:
    """
    Return a sentence about what a task of this size costs an hour on Fargate; "" if its size is not known.

    :param spot: it runs on Fargate Spot
    """
    if size.cpu is None or size.memory is None:
        return ""
    if region is None:
        return "No price: the Region is not known; set region_name."
    rates = PRICES.get(region)
    if rates is None:
        return f"No price: the bundled list has none for {region}."
    disk = max(0, (size.disk or 0) - _FREE_DISK)
    storage = disk * (rates.disk or 0.0)
    sums = {
        name: _sum(size, of_one) + storage for name, of_one in (("x86", rates.x86), ("ARM", rates.arm)) if of_one
    }
    amounts = ", ".join(f"${amount:.4f} on {name}" for name, amount in sums.items())
    without = "tax and network" if not disk or rates.disk is not None else "disk, tax and network"
    said = f"An hour costs {amounts}: list prices of {AS_OF}, {region}, on demand, without {without}."
    return f"{said} On Spot it is less, and varies." if spot else said


def _sum(size: Size, rates: tuple[float, float]) -> float:
    assert size.cpu is not None
    assert size.memory is not None
    return size.cpu / VCPU * rates[0] + size.memory / _GIB * rates[1]
