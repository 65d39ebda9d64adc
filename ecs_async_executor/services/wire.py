"""
What the services' modules share: merging requests, decoding replies, and calls that fail with our errors only.

May import :mod:`~ecs_async_executor.services.aws` and :mod:`~ecs_async_executor.core.errors`. No Airflow.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import msgspec

from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services.aws import Decoder, classify, unlogged

if TYPE_CHECKING:
    from ecs_async_executor.services.aws import ClientFactory

EXECUTOR_MARK: Final = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
"""Tells Airflow in the container that an executor started it; the provider's executors set the same."""
OVERRIDES_LIMIT: Final = 8192
"""Characters of ``overrides`` that RunTask takes, JSON punctuation included. Batch runs its jobs through ECS."""

_UNCHANGEABLE: Final = frozenset({str, int, float, bool, type(None)})

# --- requests -----------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return ``base`` updated by ``overrides``, dictionaries recursively, everything else replaced, lists too.

    Neither argument is changed, nor shares anything changeable with the result.
    """
    result: dict[str, Any] = {}
    for key, value in base.items():
        if key not in overrides:
            result[key] = copied(value)
    for key, value in overrides.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merge(below, value)
        else:
            result[key] = copied(value)
    return result


def copied(value: Any) -> Any:
    """Do what ``copy.deepcopy`` does, several times as fast for what requests are made of."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    return value if kind in _UNCHANGEABLE else copy.deepcopy(value)


def parameters_of(executor_config: Any, operation: str) -> Mapping[str, Any]:
    """
    Return an ``executor_config`` as the request parameters that it has to be.

    :raises Rejected: if it is something else; nothing of its values is in the reason
    """
    if executor_config is None:
        return {}
    if not isinstance(executor_config, Mapping) or not all(isinstance(key, str) for key in executor_config):
        raise Rejected(
            f"executor_config must be a dictionary of {operation} parameters, not {kind_of(executor_config)}"
        )
    return executor_config


def put_command(container: dict[str, Any], command: Collection[str], name: str) -> None:
    """
    Give a container's override its command and the mark of an executor.

    :param name: the container's, for people
    :raises Rejected: if its environment is not made as the API wants it
    """
    environment = container.setdefault("environment", [])
    if not isinstance(environment, list):
        raise Rejected(f"environment of {name} must be a list of names and values, not {kind_of(environment)}")
    container["command"] = list(command)
    environment.append(dict(EXECUTOR_MARK))


def sealed(request: Mapping[str, Any], overrides: str) -> dict[str, Any]:
    """
    Return a copy of a finished request that nobody else has.

    :param overrides: the parameter that must be short enough, and JSON
    :raises Rejected: if it is not
    """
    try:
        whole: dict[str, Any] = copied(dict(request))
        size = len(json.dumps(whole.get(overrides, {}), separators=(",", ":"), ensure_ascii=False))
    except Exception as error:  # noqa: BLE001 - it comes from the author's own objects
        raise Rejected(f"{overrides} cannot be sent as JSON: {type(error).__name__}") from None
    if size > OVERRIDES_LIMIT:
        raise Rejected(
            f"{overrides} have {size} characters with the command in them, and ECS takes "
            f"{OVERRIDES_LIMIT}: make environment and the rest of executor_config smaller"
        )
    return whole


def in_one_line(parts: Mapping[str, Any]) -> str:
    """Join what names a placement; what is None is left out."""
    return " ".join(
        f"{name}={value if isinstance(value, (str, int)) else json.dumps(value, separators=(',', ':'))}"
        for name, value in parts.items()
        if value is not None
    )


def kind_of(value: object) -> str:
    """Name the type of what was given, for people."""
    return "nothing" if value is None else type(value).__name__


# --- stops --------------------------------------------------------------------------------------------------

_STOP_REASON_LIMIT: Final = 255
_SIGNATURE: Final = " (by ecs-async-executor)"
_OF_EXECUTORS: Final = ("Airflow Executor received a SIGTERM", "The Airflow scheduler that started it ")
"""What the provider's executors say, and what these did before they signed it."""


def stop_reason(reason: str) -> str:
    """Return what is sent with a stop, so that it can be told from a person's; the services show it."""
    return reason[: _STOP_REASON_LIMIT - len(_SIGNATURE)] + _SIGNATURE


def is_of_an_executor(reason: str) -> bool:
    """Tell if the reason for a stop is an executor's, be it another scheduler's."""
    return _SIGNATURE in reason or reason.startswith(_OF_EXECUTORS)


# --- replies ------------------------------------------------------------------------------------------------


def decoder_of(reply: Any) -> Decoder:
    """
    Make the decoder of a reply of which only the fields of a TypedDict are used.

    A record that is not as it should be must not spoil the others: then everything is read as it comes, and
    whoever makes an observation of the record finds the bad one. The decoder raises ValueError if the reply is
    no JSON object.
    """
    typed = msgspec.json.Decoder(reply)

    def decode(body: bytes) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", typed.decode(body))
        except msgspec.ValidationError:
            decoded = json.loads(body)
            if not isinstance(decoded, dict):
                # What botocore is asked on.
                raise ValueError("the reply is no JSON object") from None  # noqa: TRY004
            return decoded
        except msgspec.DecodeError as error:  # a ValueError itself in newer versions only
            raise ValueError(str(error)) from None

    return decode


def text(value: object) -> str:
    """
    Return a value that has to be a text.

    :raises TypeError: if it is none
    """
    if not isinstance(value, str):
        raise TypeError(f"a text is a {type(value).__name__}")
    return value


# --- calls --------------------------------------------------------------------------------------------------


class Calls:
    """
    The client of a service: one request per call, and everything that goes wrong comes out as a BackendError.

    :param session: makes the client
    :param service: the service's name in the SDK
    :param decoders: see :meth:`ClientFactory.client`
    :param methods: the client's methods, by the API's names of operations
    :param always_there: by operation, keys of which a reply that is one has at least one
    """

    def __init__(
        self,
        session: ClientFactory,
        service: str,
        *,
        decoders: Mapping[str, Decoder],
        methods: Mapping[str, str],
        always_there: Mapping[str, frozenset[str]],
    ) -> None:
        self._session = session
        self._service = service
        self._decoders = decoders
        self._methods = methods
        self._always_there = always_there
        self._client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold the client open; it belongs to the loop that runs this."""
        manager = self._session.client(self._service, self._decoders)
        try:
            client = await manager.__aenter__()
        except Exception as error:  # noqa: BLE001 - that is what classify is for
            raise classify(error, "CreateClient") from None
        try:
            self._client = client
            yield
        finally:
            self._client = None
            await manager.__aexit__(None, None, None)

    @property
    def region_name(self) -> str:
        """Where the client asks."""
        return str(self._client.meta.region_name)

    async def __call__(self, operation: str, **parameters: Any) -> Any:
        """
        Make one request.

        :param operation: the API's name of it
        :raises BackendError: if there is no usable answer; without its cause
        """
        call: Callable[..., Awaitable[Any]] = getattr(self._client, self._methods[operation])
        try:
            with unlogged():
                reply = await call(**parameters)
        except Exception as error:  # noqa: BLE001 - that is what classify is for
            problem = classify(error, operation)
            if problem.kind is Kind.CREDENTIALS:
                self._session.forget_credentials()
            # Not "from error": its text can hold the request, with the command in it.
            raise problem from None
        expected = self._always_there.get(operation)
        if expected is not None and expected.isdisjoint(reply):
            # botocore takes a body that is no JSON for an empty reply.
            raise BackendError(Kind.AMBIGUOUS, "MalformedReply", f"{operation} answered with something else")
        return reply

    async def go_on(self, operation: str, **parameters: Any) -> Any:
        """
        Make a further request of a read that takes many, again if it gets no answer or comes too fast.

        Begun anew each time, it would hardly ever come to its end.
        """
        for pause in _GO_ON_AFTER:
            try:
                return await self(operation, **parameters)
            except BackendError as error:
                if error.kind not in {Kind.AMBIGUOUS, Kind.THROTTLED}:
                    raise
            await anyio.sleep(pause)
        return await self(operation, **parameters)

    async def pages(self, operation: str, key: str, **parameters: Any) -> list[Any]:
        """
        Read a list to its end.

        A last page with nothing on it, where the one before has said that there is more, is asked for again: half
        a list that is taken for the whole makes what it lacks look gone.

        :param key: of a reply's part of the list
        """
        reply = await self(operation, **parameters)
        members = list(reply.get(key) or ())
        while token := reply.get("nextToken"):
            for pause in _EMPTY_PAGE_AGAIN:
                reply = await self.go_on(operation, **parameters, nextToken=token)
                if reply.get(key) or reply.get("nextToken"):
                    break
                await anyio.sleep(pause)
            members += reply.get(key) or []
        return members


_GO_ON_AFTER: Final = (0.25, 0.5, 1.0, 2.0)
"""Seconds between the tries of a request that continues a long read."""
_EMPTY_PAGE_AGAIN: Final = (0.25, 0.5, 0.0)
"""Seconds after each of the answers that have to agree that a list has nothing more, although it was to have."""
