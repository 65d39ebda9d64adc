"""
Parsing: decode the replies that make up nearly all of the traffic straight into the fields that we use.

botocore walks the service's description for every field of every record: 8 ms for the status of 100 ECS tasks, of
which we read ten fields; a typed msgspec decoder takes 0.14 ms. Imports ``redaction``; when a client is opened,
aiobotocore.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, cast

import msgspec
import structlog

from ecs_async_executor.services.redaction import redacted

log = structlog.get_logger(__name__)

Decoder: TypeAlias = Callable[[bytes], dict[str, Any]]
"""Makes a reply of the body of a successful answer; raises ValueError to leave the body to botocore."""

_HTTP_OK: Final = 200

# --- whole replies ------------------------------------------------------------------------------------------


_SELDOM: Final = "seldom needed"
"""Where a reply has the function that reads those of its fields; no service's field has a space in its name."""


def decoder_of(reply: Any, seldom: Any = None) -> Decoder:
    """
    Return a decoder that reads the fields of a TypedDict and skips all others.

    If one record does not fit its type, the whole reply is decoded untyped: the other records must stay readable,
    and the code that makes an observation of each record finds the bad one.

    :param seldom: a TypedDict of fields that few replies are asked for; :func:`with_seldom_fields` reads them
    """
    read = _reader_of(reply)
    if seldom is None:
        return read
    read_more = _reader_of(seldom)

    def decode(body: bytes) -> dict[str, Any]:
        decoded = read(body)
        decoded[_SELDOM] = partial(read_more, body)
        return decoded

    return decode


def _reader_of(reply: Any) -> Decoder:
    typed = msgspec.json.Decoder(reply)

    def read(body: bytes) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", typed.decode(body))
        except msgspec.ValidationError:
            decoded = json.loads(body)
            if not isinstance(decoded, dict):
                raise ValueError("the reply is no JSON object") from None  # noqa: TRY004 - see Decoder
            return decoded
        except msgspec.DecodeError as error:  # a ValueError itself in newer versions only
            raise ValueError(str(error)) from None

    return read


def with_seldom_fields(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a reply with the fields that its decoder skips as seldom needed, perhaps without the others."""
    read: Callable[[], Mapping[str, Any]] | None = reply.get(_SELDOM)
    return reply if read is None else read()


class ParserFactory:
    """
    A session's source of parsers: botocore's, except for the replies that have a decoder.

    :param decoders: by the name of a reply's shape in the SDK
    """

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        from aiobotocore.parsers import AioResponseParserFactory

        self._inner = AioResponseParserFactory()
        self._decoders = decoders

    def set_parser_defaults(self, **options: Any) -> None:
        """Pass on the options of botocore's client."""
        self._inner.set_parser_defaults(**options)

    def create_parser(self, protocol_name: str) -> _Parser:
        """Return a parser of a protocol."""
        return _Parser(partial(self._inner.create_parser, protocol_name), self._decoders)


class _Parser:
    """
    Parses one reply.

    :param fallback: makes botocore's parser; most replies need none
    """

    def __init__(self, fallback: Callable[[], Any], decoders: Mapping[str, Decoder]) -> None:
        self._fallback = fallback
        self._decoders = decoders

    async def parse(self, response: Mapping[str, Any], shape: Any) -> Any:
        """Return a reply as botocore does, or with its decoder's fields only."""
        decoder = self._decoders.get(shape.name) if shape is not None else None
        if decoder is not None and response["status_code"] == _HTTP_OK:
            with contextlib.suppress(ValueError):
                reply = decoder(response["body"])
                reply["ResponseMetadata"] = {"HTTPStatusCode": _HTTP_OK}
                return reply
        return await self._fallback().parse(response, shape)


# --- single records -----------------------------------------------------------------------------------------

UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError)
"""What reading a malformed record raises."""


def text(value: object) -> str:
    """
    Return a value that has to be a string.

    :raises TypeError: if it is none
    """
    if not isinstance(value, str):
        raise TypeError(f"a string is a {type(value).__name__}")
    return value


def first_amount(values: Iterable[object], read: Callable[[object], int]) -> int | None:
    """
    Return the first of some amounts that is more than nothing; services write numbers as text, too.

    :param read: reads an amount with a unit, which a service repeats as a request or a definition has it
    """
    for value in values:
        with contextlib.suppress(TypeError, ValueError):
            amount = read(value) if isinstance(value, str) and not value.isdecimal() else int(value)  # type: ignore[call-overload]
            if amount > 0:
                return int(amount)
    return None


class UnreadableRecords:
    """
    Logs each record of a reply that cannot be read, once.

    :param event: the log event's name
    :param field: the log line's name for the record's identifier
    :param keys: the record's fields that can hold the identifier
    """

    def __init__(self, event: str, field: str, *keys: str) -> None:
        self._event = event
        self._field = field
        self._keys = keys
        self._logged: set[str] = set()

    def log(self, record: object, error: Exception, /, **particulars: str) -> None:
        """
        Log a record, unless one with its identifier was logged before.

        :param particulars: more for the log line; safe to show
        """
        identifier = type(record).__name__
        if isinstance(record, Mapping):
            identifier = str(next((record[key] for key in self._keys if record.get(key)), None))
        if identifier in self._logged:
            return
        self._logged.add(identifier)
        said = {self._field: redacted(identifier), **particulars, "error": type(error).__name__}
        log.warning(self._event, **said)
