"""
What an account may use, as far as the service says so. Pure.

May import the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_VCPUS: Final = re.compile(r"limit on the number of (?:vCPUs|tasks)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AccountQuota:
    """
    A quota of an account in a Region.

    :param name: the service's
    :param code: the service's, such as ``L-3032A538``
    :param adjustable: a higher value can be requested
    :param of_vcpus: it says how many vCPUs the account may use at once
    """

    name: str
    code: str
    value: float
    adjustable: bool = True
    of_vcpus: bool = False


@dataclass(frozen=True, slots=True)
class AccountQuotas:
    """
    Those that are known of an account in a Region.

    :param launch_rates: launches per second, by the bucket that they draw from
    """

    region: str
    quotas: tuple[AccountQuota, ...] = ()
    launch_rates: Mapping[str, float] = field(default_factory=dict)


def is_about_vcpus(reason: str) -> bool:
    """Return whether the service refuses a container because of the vCPUs that the account uses."""
    return _VCPUS.search(reason) is not None


def vcpus_in_words(quotas: Iterable[AccountQuota]) -> str:
    """Return what is known of the vCPUs that an account may use, a clause; "" if nothing is."""
    return ", ".join(f"{quota.name} ({quota.code}) is {quota.value:g}" for quota in quotas if quota.of_vcpus)
