"""
Calls: one request of a client per call, and our errors instead of the SDK's.

Imports ``core``, ``errors``, ``parameters`` and ``redaction``. No Airflow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from ecs_async_executor.core.backend import Paced
from ecs_async_executor.core.errors import NO_ANSWER, BackendError, Kind
from ecs_async_executor.services.errors import CREATE_CLIENT, classify
from ecs_async_executor.services.parameters import check_parameters
from ecs_async_executor.services.redaction import unlogged

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory
    from ecs_async_executor.services.parsing import Decoder

_RETRY_DELAYS: Final = (0.25, 0.5, 1.0, 2.0)
"""Seconds between the tries of a request that continues a long read."""
_EMPTY_PAGE_DELAYS: Final = (0.25, 0.5, 0.0)
"""Seconds after each empty page, if the page before it has announced more; all of them have to be empty."""


@dataclass(frozen=True, slots=True)
class Operation:
    """
    An operation of a service.

    :param method: the client's method
    :param fields: a reply has at least one of these; empty: no reply is told from a foreign one
    """

    method: str
    fields: frozenset[str] = frozenset()


class Calls:
    """
    A client of a service: each failure comes out as a BackendError.

    :param clients: makes the client
    :param service: the service's name in the SDK
    :param operations: by their names in the API
    :param decoders: see :meth:`ClientFactory.client`
    :param lean: likewise
    """

    def __init__(
        self,
        clients: ClientFactory,
        service: str,
        *,
        operations: Mapping[str, Operation],
        decoders: Mapping[str, Decoder],
        lean: bool = False,
    ) -> None:
        self._clients = clients
        self._service = service
        self._operations = operations
        self._decoders = decoders
        self._lean = lean
        self._client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Hold the client open; it belongs to the running loop.

        :raises BackendError: if the client cannot be made
        """
        manager = self._clients.client(self._service, self._decoders, lean=self._lean)
        try:
            client = await manager.__aenter__()
        except Exception as error:  # noqa: BLE001 - classify knows them all
            raise classify(error, CREATE_CLIENT) from None
        try:
            self._client = client
            yield
        finally:
            self._client = None
            await manager.__aexit__(None, None, None)

    @property
    def region_name(self) -> str:
        """The client's region."""
        return str(self._client.meta.region_name)

    @property
    def partition(self) -> str:
        """The second part of ARNs where the client is: ``aws``, ``aws-cn`` and others."""
        return str(self._client.meta.partition)

    def check(self, operation: str, parameters: Mapping[str, Any]) -> None:
        """
        Check parameters as the SDK does before it sends them.

        :raises BackendError: if it would refuse them, as if it had
        """
        try:
            check_parameters(self._service, operation, parameters)
        except Exception as error:  # noqa: BLE001 - the DAG author's own objects can raise anything
            raise classify(error, operation) from None

    async def __call__(self, operation: str, **parameters: Any) -> Any:
        """
        Make one request.

        :param operation: its name in the API
        :raises BackendError: if there is no usable reply; without a cause
        """
        asked = self._operations[operation]
        method: Callable[..., Awaitable[Any]] = getattr(self._client, asked.method)
        try:
            with unlogged():
                reply = await method(**parameters)
        except Exception as error:  # noqa: BLE001 - classify knows them all
            problem = classify(error, operation)
            if problem.kind is Kind.CREDENTIALS:
                self._clients.forget_credentials()
            # Not "from error": its text can hold the request, with the command in it.
            raise problem from None
        if asked.fields and asked.fields.isdisjoint(reply):
            # botocore takes a body that is no JSON for an empty reply.
            raise BackendError(
                Kind.AMBIGUOUS, "MalformedReply", f"the reply to {operation} has none of its usual fields"
            )
        return reply

    async def retrying(self, operation: str, *, paced: Paced, **parameters: Any) -> Any:
        """
        Make one request of a long read; repeat it after a throttle and without an answer.

        A read that began anew each time might never end.

        :param paced: awaited before each try
        :raises BackendError: if there is no usable reply in the end
        """
        for pause in _RETRY_DELAYS:
            await paced()
            try:
                return await self(operation, **parameters)
            except BackendError as error:
                if error.kind not in NO_ANSWER and error.kind is not Kind.THROTTLED:
                    raise
            await anyio.sleep(pause)
        await paced()
        return await self(operation, **parameters)

    async def pages(self, operation: str, key: str, *, paced: Paced, **parameters: Any) -> list[Any]:
        """
        Read a list to its end.

        A truncated list would make the missing items look deleted. So an empty last page is asked for again: the
        page before it has announced more.

        :param key: the reply's field with the items
        :param paced: awaited before each request but the first
        :raises BackendError: if a page cannot be read
        """
        reply = await self(operation, **parameters)
        items = list(reply.get(key) or ())
        while next_page := reply.get("nextToken"):
            for pause in _EMPTY_PAGE_DELAYS:
                reply = await self.retrying(operation, paced=paced, **parameters, nextToken=next_page)
                if reply.get(key) or reply.get("nextToken"):
                    break
                await anyio.sleep(pause)
            items += reply.get(key) or []
        return items
