"""
Where a request goes: an account and a Region. Nothing of one place is known in another.

Imports nothing of this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ASSUMING = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})
"""The operations of STS whose credentials are good for the account of a role."""

_SIGNATURE_PARTS = 5
_KEY = re.compile(rb"<AccessKeyId>([^<]+)</AccessKeyId>")
_ROLE = re.compile(rb"<Arn>arn:[\w-]+:sts::(\d+):assumed-role/")


@dataclass(frozen=True, slots=True)
class Place:
    """One Region of one account."""

    account: str
    region: str


def signed_by(authorization: str) -> tuple[str, str | None]:
    """Return the access key and the Region of a signature, an empty key and None without one."""
    _, _, scope = authorization.partition("Credential=")
    parts = scope.split(",", 1)[0].split("/")
    return ("/".join(parts[:-4]), parts[-3]) if len(parts) >= _SIGNATURE_PARTS else ("", None)


def assumed_by(reply: bytes) -> tuple[str, str] | None:
    """Return the access key that STS gives for a role and the role's account, None if it gives none."""
    key, role = _KEY.search(reply), _ROLE.search(reply)
    return (key[1].decode(), role[1].decode()) if key is not None and role is not None else None


class Limits:
    """
    Limits by name, each of which counts in every place of its own.

    :param limits: by name, or by ``<Region>/<name>`` for one Region
    :param home: the place where the name alone says which limit it is
    """

    def __init__(self, limits: Mapping[str, int], home: Place) -> None:
        self._limits: dict[str, int] = dict(limits)
        self._home = home

    def change(self, limits: Mapping[str, int | None]) -> None:
        """Set some of them; None lifts one."""
        self._limits = {name: n for name, n in {**self._limits, **limits}.items() if n is not None}

    def limit(self, place: Place, name: str | None) -> int | None:
        """Return the limit of a name in a place, None if it has none."""
        return self._limits.get(f"{place.region}/{name}", self._limits.get(name or ""))

    def counter(self, place: Place, name: str) -> str:
        """Return a name for what counts against a limit, another one in each place."""
        return name if place == self._home else f"{place.account}/{place.region}/{name}"
