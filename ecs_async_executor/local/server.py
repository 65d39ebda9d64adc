"""
The HTTP server: keep-alive on an asyncio loop, faults, and the way to a service of ours or to moto.

Requests about tasks and jobs go to the services of the :class:`~ecs_async_executor.local.account.Account`, on the
loop itself. All others go to moto's WSGI application in one worker thread. ``/_local/`` is the control path.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from aiohttp import web
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from ecs_async_executor.local import rates
from ecs_async_executor.local.account import Account, Service
from ecs_async_executor.local.behaviour import Behaviour
from ecs_async_executor.local.errors import AwsError
from ecs_async_executor.local.events import LOOK_SECONDS, Events
from ecs_async_executor.local.faults import Fault, Faults
from ecs_async_executor.local.outputs import LOGS_TARGET
from ecs_async_executor.local.place import ASSUMING, Place
from ecs_async_executor.local.quotas import QUOTAS_TARGET, listed
from ecs_async_executor.local.scripted import ScriptedRunner
from ecs_async_executor.local.wire import (
    BATCH_PATH,
    JSON_TYPES,
    TARGET,
    break_off,
    code_of,
    error_reply,
    is_about_s3,
    json_reply,
    operation_of,
    params_of,
    s3_error_reply,
    spoilt,
)

MAX_BODY = 256 * 2**20
KEEP_ALIVE = 75.0
RECEIVE = "ReceiveMessage"
RECEIVE_SECONDS = 0.05
LONGEST_WAIT = 20.0

Latency: TypeAlias = float | tuple[float, float] | Mapping[str, float | tuple[float, float]]
"""Seconds, bounds of random ones, or either by operation (``*`` for the others)."""


@dataclass(slots=True)
class OperationStatistics:
    """
    The figures of one operation.

    :param calls: requests received
    :param errors: replies by error code, or by ``HTTP <status>`` if there is no code
    :param in_flight: requests being answered now
    :param peak: the most requests that were being answered at a time
    :param items: the number of tasks or jobs asked for, added up (DescribeTasks, DescribeJobs)
    :param first_at: wall-clock seconds of the first call
    :param last_at: wall-clock seconds of the last call
    """

    calls: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    peak: int = 0
    items: int = 0
    first_at: float | None = None
    last_at: float | None = None


@dataclass(slots=True)
class Statistics:
    """
    The figures of the server.

    :param connections: TCP connections accepted
    :param operations: the figures of each operation
    """

    connections: int = 0
    operations: dict[str, OperationStatistics] = field(default_factory=dict)

    def operation(self, name: str) -> OperationStatistics:
        """Return the figures of one operation, zeros if it was never called."""
        return self.operations.setdefault(name, OperationStatistics())


class Front:
    """
    Answers requests. All methods but :meth:`call_moto` run on the loop.

    :param latency: seconds that every answer takes at least
    :param limits: rate limits to enforce, None for none
    """

    def __init__(
        self,
        account: Account,
        *,
        faults: Faults,
        latency: Latency = 0.0,
        limits: Mapping[str, rates.Rate] | None = None,
        seed: int = 0,
    ) -> None:
        self.account = account
        self.faults = faults
        self.latency = latency
        self.buckets = rates.Buckets(limits or {})
        self.statistics = Statistics()
        self.closing = asyncio.Event()
        self._random = random.Random(seed)  # noqa: S311
        self._wsgi = DomainDispatcherApplication(create_backend_app)
        self._moto = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moto")
        self._setup: Callable[[], None] | None = None

    def server(self) -> web.Server:
        """Return the aiohttp server that passes requests to this object."""
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)

        return _Server(
            self,
            request_factory=request,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE,
        )

    def close(self) -> None:
        """End the worker thread."""
        self._moto.shutdown(wait=True)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = await request.read()
        if request.path.startswith("/_local/"):
            return await self._control(request, body)
        if request.path == "/moto-api/reset":
            # moto's own reset would cover every account in this process.
            await asyncio.get_running_loop().run_in_executor(None, self.reset)
            return web.json_response({"status": "ok"})
        name, operation = operation_of(request, body)
        service = self.account.services.get(name)
        place = self.account.place(request.headers.get("Authorization", ""))
        figures = self.statistics.operation(operation)
        now = time.time()
        figures.calls += 1
        figures.first_at = figures.first_at or now
        figures.last_at = now
        figures.in_flight += 1
        figures.peak = max(figures.peak, figures.in_flight)
        try:
            return await self._serve(request, service, operation, body, place, figures)
        finally:
            figures.in_flight -= 1

    async def _serve(
        self,
        request: web.BaseRequest,
        service: Service | None,
        operation: str,
        body: bytes,
        place: Place,
        figures: OperationStatistics,
    ) -> web.StreamResponse:
        about_s3 = is_about_s3(request)
        # A request to S3 names its object in the path only.
        struck = self.faults.strike(operation, body + request.raw_path.encode() if about_s3 else body, place)
        delay = self._latency(operation) + sum(f.seconds for f in struck if f.kind == "latency")
        if delay > 0:
            await asyncio.sleep(delay)
        fault = next((f for f in struck if f.kind != "latency"), None)
        try:
            early = await self._before(request, service, operation, fault, body, place) if fault else None
            if early is not None:
                response = early
            else:
                response = await self._work(request, service, operation, body, place, figures, fault)
        except AwsError as error:
            early, response = None, s3_error_reply(error) if about_s3 else error_reply(error, service)
        if response.status >= HTTPStatus.BAD_REQUEST:
            code = code_of(response)
            figures.errors[code] = figures.errors.get(code, 0) + 1
        if fault is None or early is not None:
            return response
        return await self._after(request, service, fault, response)

    def _latency(self, operation: str) -> float:
        latency = self.latency
        if isinstance(latency, Mapping):
            latency = latency.get(operation, latency.get("*", 0.0))
        return self._random.uniform(*latency) if isinstance(latency, tuple) else latency

    async def _work(
        self,
        request: web.BaseRequest,
        service: Service | None,
        operation: str,
        body: bytes,
        place: Place,
        figures: OperationStatistics,
        fault: Fault | None,
    ) -> web.Response:
        if service is None and request.headers.get("X-Amz-Target", "").startswith(QUOTAS_TARGET):
            return json_reply(listed(operation, params_of(body), self.account.quotas, place))
        if operation == RECEIVE and body.startswith(b"{"):
            return await self._receive(request, body, place)
        if service is None:
            about_logs = request.headers.get("X-Amz-Target", "").startswith(LOGS_TARGET)
            outputs = self.account.outputs
            if about_logs:
                await asyncio.get_running_loop().run_in_executor(self._moto, outputs.deliver)
            response = await self._forward(request, body, place)
            if operation in ASSUMING and isinstance(response.body, bytes):
                self.account.assumed(response.body)
            if about_logs and response.status == HTTPStatus.BAD_REQUEST and isinstance(response.body, bytes):
                response.body = outputs.worded(place, body, response.body)
            return response
        if operation not in service.operations:
            self._limit(service, operation, {}, place)
            service.prepare(place)
            return await self._forward(request, body, place)
        params = params_of(body)
        items = params.get("tasks" if operation == "DescribeTasks" else "jobs")
        if isinstance(items, list):
            figures.items += len(items)
        self._limit(service, operation, params, place)
        try:
            return json_reply(service.call(operation, params, place, fault), service=service)
        except (AttributeError, KeyError, TypeError) as error:
            # AWS's libraries check types before they send; a client that does not gets AWS's answer.
            raise AwsError("SerializationException", f"Malformed parameters: {error!r}") from error

    async def _receive(self, request: web.BaseRequest, body: bytes, place: Place) -> web.Response:
        """Receive messages of SQS: it is here that their receiver waits, for moto has one thread."""
        params = params_of(body)
        until = time.monotonic() + min(float(params.get("WaitTimeSeconds") or 0.0), LONGEST_WAIT)
        at_once = json.dumps({**params, "WaitTimeSeconds": 0}).encode()
        while True:
            response = await self._forward(request, at_once, place)
            content = response.body if isinstance(response.body, bytes) else b""
            found = response.status != HTTPStatus.OK or b'"Messages"' in content
            if found or time.monotonic() >= until or self.closing.is_set():
                return response
            await asyncio.sleep(RECEIVE_SECONDS)
            if request.transport is None or request.transport.is_closing():
                return response  # what a receiver that is gone took, others would miss

    async def tell_of_changes(self) -> None:
        """Tell EventBridge of tasks and jobs until the server closes."""
        events = Events(self.account, self.faults)
        loop = asyncio.get_running_loop()
        while not self.closing.is_set():
            await loop.run_in_executor(self._moto, events.look)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.closing.wait(), LOOK_SECONDS)

    def _limit(self, service: Service, operation: str, params: Mapping[str, Any], place: Place) -> None:
        if not self.buckets.rates:
            return
        names = tuple(service.buckets(operation, params, place))
        if names and not self.buckets.take(place, names, time.monotonic()):
            raise service.throttled()

    async def _before(
        self,
        request: web.BaseRequest,
        service: Service | None,
        operation: str,
        fault: Fault,
        body: bytes,
        place: Place,
    ) -> web.Response | None:
        """Return the answer of a fault that replaces the work, or None if the work is to be done."""
        kind = fault.kind
        if kind == "throttle":
            if is_about_s3(request):
                raise AwsError("SlowDown", "Please reduce your request rate.", 503)
            raise service.throttled() if service is not None else AwsError("ThrottlingException", "Rate exceeded")
        if kind == "expired_token":
            raise service.expired() if service is not None else AwsError("ExpiredToken", "The token is expired")
        if kind == "error":
            raise AwsError(fault.code, fault.message, fault.status)
        if kind == "status":
            return web.Response(
                status=fault.status if fault.status != HTTPStatus.BAD_REQUEST else 503,
                text="<html><body><h1>Service Unavailable</h1></body></html>",
                content_type="text/html",
            )
        if kind in ("reset_before", "close_before"):
            return break_off(request, reset=kind == "reset_before")
        if kind == "hang":
            return await self._hang(request, fault)
        if service is not None and kind in ("failures", "empty", "missing"):
            text = service.without(operation, kind, params_of(body), place, fault)
            return json_reply(text, service=service) if text is not None else None
        return None

    async def _after(
        self, request: web.BaseRequest, service: Service | None, fault: Fault, response: web.Response
    ) -> web.StreamResponse:
        """Return the answer as a fault changes it."""
        kind = fault.kind
        if kind == "error_after":
            return error_reply(AwsError(fault.code, fault.message, fault.status), service)
        if kind in ("reset_after", "close_after"):
            return break_off(request, reset=kind == "reset_after")
        if kind == "hang_after":
            return await self._hang(request, fault)
        if kind == "garbage":
            return json_reply("\x00<not json>", service=service)
        if kind in ("unknown_status", "odd_record"):
            return spoilt(response, kind)
        if kind == "truncate":
            content = response.body if isinstance(response.body, bytes) else b""
            partial = web.StreamResponse(status=response.status, headers=response.headers)
            partial.content_length = len(content)
            await partial.prepare(request)
            await partial.write(content[: len(content) // 2])
            break_off(request, reset=False)
            return partial
        return response

    async def _hang(self, request: web.BaseRequest, fault: Fault) -> web.Response:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.closing.wait(), fault.seconds)
        return break_off(request, reset=True)

    async def _forward(self, request: web.BaseRequest, body: bytes, place: Place) -> web.Response:
        """Have moto answer a request."""
        headers = {k: v for k, v in request.headers.items() if k.lower() != "x-moto-account-id"}
        environ = self._environ(request.method, request.raw_path, headers, body, place)
        loop = asyncio.get_running_loop()
        status, reply_headers, content = await loop.run_in_executor(self._moto, self._call_wsgi, environ)
        response = web.Response(status=status, body=content)
        for name, value in reply_headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "keep-alive"):
                if name.lower() == "content-type":
                    response.headers[name] = value
                else:
                    response.headers.add(name, value)
        return response

    def call_moto(self, place: Place, service: str, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """
        Call one of our services in a place from this process, in any thread but the loop's.

        :raises AwsError: if moto refuses it
        """
        headers = {
            "Content-Type": JSON_TYPES[service],
            "Host": f"{service}.{place.region}.amazonaws.com",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=local/20250101/{place.region}/{service}/aws4_request, "
            "SignedHeaders=host, Signature=0",
        }
        if service == "ecs":
            headers["X-Amz-Target"] = f"{TARGET}.{operation}"
        path = f"{BATCH_PATH}{operation.lower()}" if service == "batch" else "/"
        environ = self._environ("POST", path, headers, json.dumps(params).encode(), place)
        self.account.services[service].prepare(place)
        status, _, content = self._moto.submit(self._call_wsgi, environ).result()
        reply: dict[str, Any] = json.loads(content or b"{}")
        if status >= HTTPStatus.BAD_REQUEST:
            code = str(reply.get("__type", status)).rsplit("#", 1)[-1]
            raise AwsError(code, str(reply.get("message") or reply.get("Message") or ""), status)
        return reply

    def in_moto(self, what: Callable[[], None]) -> None:
        """Run a function in moto's thread, between two requests; do not call it on the loop."""
        self._moto.submit(what).result()

    @staticmethod
    def _environ(
        method: str, raw_path: str, headers: Mapping[str, str], body: bytes, place: Place
    ) -> dict[str, Any]:
        path, _, query = raw_path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": raw_path,
            "REQUEST_URI": raw_path,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_X_MOTO_ACCOUNT_ID": place.account,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            if key == "CONTENT_TYPE":
                environ[key] = value
            elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING", "CONNECTION", "EXPECT"):
                environ[f"HTTP_{key}"] = value
        return environ

    def _call_wsgi(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
            started.append((status, headers))

        chunks = self._wsgi(environ, start_response)
        try:
            content = b"".join(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        return int(status.split(" ", 1)[0]), headers, content

    async def _control(self, request: web.BaseRequest, body: bytes) -> web.Response:
        try:
            data = json.loads(body) if body else {}
            reply = await self._controlled(request.method, request.path.split("/")[2:], request.query, data)
        except KeyError as error:
            return json_reply(json.dumps({"error": f"there is no {error.args[0]}"}), 404)
        except (ValueError, TypeError) as error:
            return json_reply(json.dumps({"error": str(error)}), 400)
        return json_reply(json.dumps(reply))

    async def _controlled(self, method: str, path: list[str], query: Mapping[str, str], data: Any) -> Any:
        match method, path:
            case "GET", ["health"]:
                return {"status": "ok", **asdict(self.account.home)}
            case "GET", ["ledger"]:
                return {
                    "entries": [asdict(e) for e in self.account.ledger.entries(started_by=query.get("started_by"))]
                }
            case "GET", ["statistics"]:
                return self.figures()
            case "GET", ["faults"]:
                return {"faults": self.faults.listing()}
            case "POST", ["faults"]:
                wanted = [Fault.from_json(d) for d in (data if isinstance(data, list) else [data])]
                return {"ids": [self.faults.add(fault) for fault in wanted]}
            case "DELETE", ["faults"]:
                self.faults.clear()
                return {}
            case "DELETE", ["faults", number]:
                self.faults.remove(int(number))
                return {}
            case "PUT", ["latency"]:
                self.latency = parse_latency(data)
                return {}
            case "GET", ["behaviour"]:
                return asdict(self.account.behaviour)
            case "PUT", ["behaviour"]:
                self.account.behaviour = Behaviour.of(data)
                return {}
            case "PUT", ["capacity"]:
                self.account.limit(data)
                return {}
            case "PUT", ["script"]:
                if not isinstance(self.account.host.runner, ScriptedRunner):
                    raise ValueError("this server's runner takes no script")  # noqa: TRY004
                self.account.host.runner.script(data)
                return {}
            case "GET", ["tasks" | "jobs", reference]:
                return self.account.owner(reference).show(reference)
            case "POST", ["tasks" | "jobs", reference, "kill"]:
                return {"killed": self.account.kill(reference, **data)}
            case "POST", ["tasks" | "jobs", reference, "interrupt"]:
                self.account.owner(reference).interrupt(reference)
                return {}
            case "POST", ["reset"]:
                await asyncio.get_running_loop().run_in_executor(None, self.reset)
                return {}
        raise KeyError("/".join(["_local", *path]))

    def figures(self) -> dict[str, Any]:
        """Return the statistics as plain data, with the numbers of running and waiting jobs."""
        return asdict(self.statistics) | {
            "running": self.account.host.running,
            "waiting": self.account.host.waiting,
            "accepted": len(self.account.ledger),
        }

    def on_reset(self, setup: Callable[[], None]) -> None:
        """Register the function that prepares an empty server; it is called after a reset."""
        self._setup = setup

    def reset(self) -> None:
        """
        Kill all running containers and forget everything.

        Do not call it in the loop's thread: it waits for moto's part, which the worker thread does.
        """
        self.faults.clear()
        accounts = self.account.accounts
        self.account.reset()
        connections = self.statistics.connections
        self.statistics = Statistics(connections=connections)
        self.in_moto(lambda: self.account.wipe(accounts))
        if self._setup is not None:
            self._setup()


class _Server(web.Server):
    def __init__(self, front: Front, **kwargs: Any) -> None:
        super().__init__(front.serve, **kwargs)
        self._front = front

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        self._front.statistics.connections += 1
        super().connection_made(handler, transport)


def parse_latency(data: Any) -> Latency:
    """
    Return a latency read from JSON.

    :raises ValueError: if it is neither a number, nor a pair, nor an object of these
    """
    if isinstance(data, Mapping):
        return {str(k): _seconds(v) for k, v in data.items()}
    return _seconds(data)


def _seconds(data: Any) -> float | tuple[float, float]:
    if isinstance(data, (list, tuple)) and len(data) == 2:  # noqa: PLR2004
        return float(data[0]), float(data[1])
    if isinstance(data, (int, float)):
        return float(data)
    msg = f"not a number of seconds or a pair of them: {data!r}"
    raise ValueError(msg)
