"""
Environment files: what ECS reads from S3 before it starts a container, in AWS's words when it cannot.

May import moto, :mod:`faults`, :mod:`life` and :mod:`place`. The objects are those of moto's S3. For faults,
reading one is the operation ``GetEnvironmentFile``: ``error`` and ``status`` refuse it, ``latency`` makes it slow,
and ``hang`` lets it run into its time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from moto.s3.models import s3_backends

from ecs_async_executor.local.faults import Faults
from ecs_async_executor.local.life import Fetched, NotFetched
from ecs_async_executor.local.place import Place

OPERATION = "GetEnvironmentFile"
TIME_LIMIT = 30.0
"""Seconds that ECS's agent gives a download."""
LONGEST_LINE = 64 * 1024 - 1

_FAILED = "ResourceInitializationError: failed to download env files: "
_REFUSED = (
    _FAILED + "service call has been retried 1 time(s): operation error S3: HeadObject, https response error "
    "StatusCode: {status}, api error {code}: {code}."
)
_TOO_SLOW = (
    _FAILED
    + "file download command: non empty error stream: RequestCanceled: request context canceled caused by: "
    "context deadline exceeded"
)
_ARN = "arn:aws:s3:::"


class EnvironmentFiles:
    """
    Reads environment files as the execution role of tasks. Safe to use from any thread.

    :param faults: what goes wrong
    :param accounts: returns the accounts whose buckets there are
    """

    def __init__(self, faults: Faults, accounts: Callable[[], Iterable[str]]) -> None:
        self._faults = faults
        self._accounts = accounts

    def reader(self, arns: Sequence[str], place: Place) -> Callable[[], Fetched] | None:
        """Return what reads these files for a task in a place, None if there are none."""
        return (lambda: self.fetch(arns, place)) if arns else None

    def fetch(self, arns: Sequence[str], place: Place) -> Fetched:
        """
        Read files; of a variable in several, the first counts.

        :raises NotFetched: if one cannot be read
        """
        variables: dict[str, str] = {}
        seconds = 0.0
        for arn in arns:
            for fault in self._faults.strike(OPERATION, arn.encode(), place):
                if fault.kind == "latency":
                    seconds += fault.seconds
                elif fault.kind == "hang" or seconds > TIME_LIMIT:
                    raise NotFetched(_TOO_SLOW, min(fault.seconds, TIME_LIMIT))
                else:
                    raise NotFetched(_REFUSED.format(status=fault.status, code=fault.code), seconds)
            if seconds > TIME_LIMIT:
                raise NotFetched(_TOO_SLOW, TIME_LIMIT)
            for name, value in self._variables(arn).items():
                variables.setdefault(name, value)
        return Fetched(variables, seconds)

    def _variables(self, arn: str) -> dict[str, str]:
        content = self._content(arn)
        if content is None or not arn.endswith(".env"):
            # S3 tells a role that may not list the bucket no more of an object that is not there.
            raise NotFetched(_REFUSED.format(status=403, code="Forbidden"), 0.0)
        found: dict[str, str] = {}
        for line in content.decode().split("\n"):
            if len(line) > LONGEST_LINE:
                raise NotFetched(f"{_FAILED}bufio.Scanner: token too long", 0.0)
            name, *parts = line.split("=")
            # The agent takes a value up to its first "=", and no line without a value.
            if not line.startswith("#") and parts and name and parts[0]:
                found[name] = parts[0]
        return found

    def _content(self, arn: str) -> bytes | None:
        bucket, _, key = arn.removeprefix(_ARN).partition("/")
        for account in self._accounts():
            buckets = s3_backends[account]["aws"].buckets
            if bucket in buckets:
                content: bytes | None = getattr(buckets[bucket].keys.get(key), "value", None)
                return content
        return None
