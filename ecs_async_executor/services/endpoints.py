"""
Endpoints: where a client's requests go, worked out once instead of for each.

Imports nothing of ours; the client is aiobotocore's.
"""

from __future__ import annotations

from typing import Any


def settle_endpoint(client: Any) -> None:
    """
    Have a client send all requests to the endpoint of its first, and not work that out again for each.

    Only for services whose endpoint depends on the client's configuration alone, as that of ECS and Batch does. A
    client that keeps its resolver in another place stays as it is.
    """
    if hasattr(getattr(client, "_ruleset_resolver", None), "construct_endpoint"):
        client._ruleset_resolver = _Settled(client._ruleset_resolver)  # noqa: SLF001 - there is no other way in


class _Settled:
    """Botocore's resolver, asked once."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver
        self._endpoint: Any = None

    async def construct_endpoint(self, **question: Any) -> Any:
        if self._endpoint is None:
            self._endpoint = await self._resolver.construct_endpoint(**question)
        return self._endpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)
