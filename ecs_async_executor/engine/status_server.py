"""
The lane that shows what the executor does: ``GET /status`` and ``GET /health``, at a port, off by default.

May import ``status``, aiohttp, anyio and structlog. It changes nothing. aiohttp's server is imported with its
first use: most executors show nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import structlog

from ecs_async_executor.engine.status import FILTERS, Endpoint, Status

if TYPE_CHECKING:
    from aiohttp import web

log = structlog.get_logger(__name__)

RETRY_SECONDS = 10.0
"""A port in use is tried again after so long: its owner may be a scheduler that is about to end."""
CONNECTION_SECONDS = 5.0
"""A connection is cut after one to two times as long: clients that hang must not use up the sockets."""
CONNECTIONS_MAX = 16
"""At a time: each takes one of the scheduler's files, and a part of the loop's time."""
BACKLOG = 16
CLOSE_SECONDS = 0.5
_HEADERS = {"Cache-Control": "no-store", "Server": "ecs-async-executor"}


class StatusServer:
    """
    Serves one engine's status.

    :param event: makes the full name of a log event
    """

    def __init__(self, endpoint: Endpoint, status: Status, event: Callable[[str], str]) -> None:
        self._endpoint = endpoint
        self._status = status
        self._event = event
        self._told = False

    async def run(self) -> None:
        """Serve until cancelled; while the port cannot be opened, try again."""
        from aiohttp import web

        application = web.Application()
        application.add_routes([web.get("/status", self._show), web.get("/health", self._say_health)])
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            logger=_http_log,
            keepalive_timeout=CONNECTION_SECONDS,
            shutdown_timeout=CLOSE_SECONDS,
        )
        await runner.setup()
        with ExitStack() as sockets:
            try:
                await self._listen(runner, sockets)
                await self._cut_old_connections(runner)
            finally:
                sockets.close()
                with anyio.CancelScope(shield=True), anyio.move_on_after(2 * CLOSE_SECONDS):
                    await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, sockets: ExitStack) -> None:
        endpoint = self._endpoint
        while True:
            try:
                for listening in await _bound(endpoint.host, endpoint.port):
                    sockets.callback(listening.close)
                    sockets.callback((await _serve(listening, runner)).close)
            except OSError as error:
                if not self._told:
                    self._told = True
                    log.error(  # noqa: TRY400 - the traceback shows nothing more
                        self._event("status.unavailable"),
                        setting=f"{endpoint.setting} = {endpoint.port}",
                        reason=f"cannot listen on {endpoint.host}:{endpoint.port}: {error.strerror or error}",
                        hint="each executor, of each service and team, and each scheduler on a machine needs a "
                        "port of its own",
                    )
            else:
                self._told = False
                log.info(self._event("status.listening"), host=endpoint.host, port=endpoint.port)
                return
            await anyio.sleep(RETRY_SECONDS)

    async def _cut_old_connections(self, runner: web.AppRunner) -> None:
        server = runner.server
        assert server is not None
        old: set[web.RequestHandler] = set()
        while True:
            await anyio.sleep(CONNECTION_SECONDS)
            connections = set(server.connections)
            for connection in connections & old:
                if connection.transport is not None:
                    connection.transport.abort()  # close() would wait for a client that does not read
            old = connections - old

    async def _show(self, request: web.Request) -> web.Response:
        from aiohttp import web

        state = request.query.get("state")
        if state is not None and state not in FILTERS:
            return web.json_response(
                {"error": f"state = {state!r} is not valid: it must be one of {', '.join(FILTERS)}"},
                status=400,
                headers=_HEADERS,
            )
        body = await self._status.document(state)
        return web.Response(body=body, content_type="application/json", headers=_HEADERS)

    async def _say_health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        """Say that the loop lives; what pauses it would not get better by a restart."""
        from aiohttp import web

        return web.json_response({"status": "ok", "paused": self._status.paused()}, headers=_HEADERS)


# --- sockets ------------------------------------------------------------------------------------------------


async def _bound(host: str, port: int) -> list[socket.socket]:
    """
    Bind a socket to each address of a host.

    :raises OSError: if one of them cannot be used
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with ExitStack() as made:
        bound = [
            made.enter_context(socket.create_server(address, family=family, backlog=BACKLOG))
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found)
        ]
        made.pop_all()
    _listening.update(bound)
    return bound


async def _serve(listening: socket.socket, runner: web.AppRunner) -> asyncio.Server:
    server = runner.server
    assert server is not None

    def connected() -> asyncio.Protocol:
        return _Refused() if len(server.connections) >= CONNECTIONS_MAX else server()

    return await asyncio.get_running_loop().create_server(connected, sock=listening, backlog=BACKLOG)


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


_listening: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Leave the port to the parent: a child that outlives it, as LocalExecutor's can, would keep it open."""
    for listening in list(_listening):
        listening.close()


os.register_at_fork(after_in_child=_after_fork_in_child)


# --- the log of aiohttp -------------------------------------------------------------------------------------


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record is not about a request that is no HTTP: those are answered, not logged."""
    from aiohttp.http_exceptions import HttpProcessingError

    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_is_ours)
