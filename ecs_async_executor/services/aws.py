"""
AWS clients: session, credentials, client settings, and the one map from wire errors to ours.

May import :mod:`ecs_async_executor.core.errors` and :mod:`ecs_async_executor.settings`. aiobotocore, botocore and
the amazon provider are imported when a client is made, so that importing the executor class stays cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import structlog

from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind
from ecs_async_executor.settings import ECS_SECTION, AwsSettings, Tuning

log = structlog.get_logger(__name__)

# --- what may be said ---------------------------------------------------------------------------------------

Decoder: TypeAlias = Callable[[bytes], dict[str, Any]]
"""Makes a reply of the bytes of a successful answer."""

_HTTP_OK: Final = 200
_WORDS_LIMIT: Final = 500
_TOKEN = re.compile(r"\beyJ[\w-]{4,}\.[\w-]+(\.[\w-]*)?")


def bounded(text: str, limit: int = _WORDS_LIMIT) -> str:
    """Shorten a service's words to one line that is safe to show: it may echo a command, with a token in it."""
    text = _TOKEN.sub("***", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


_in_our_call: ContextVar[bool] = ContextVar("ecs_async_executor_in_our_call", default=False)
_LOGGERS_THAT_SHOW_REQUESTS: Final = (
    "aiobotocore.client",
    "aiobotocore.endpoint",
    "aiobotocore.hooks",
    "aiobotocore.httpsession",
    "aiobotocore.parsers",
    "aiobotocore.regions",
    "aiobotocore.retryhandler",
    "botocore.auth",
    "botocore.awsrequest",
    "botocore.client",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.regions",
    "botocore.retries.standard",
    "botocore.retryhandler",
)


def _conceal(record: logging.LogRecord) -> bool:
    """Cut what a debug record of our calls would show of the request and the reply: commands and tokens."""
    if record.levelno <= logging.DEBUG and _in_our_call.get() and record.args:
        record.msg = str(record.msg).partition("%")[0].rstrip(" :\n") + " (not shown)"
        record.args = None
    return True


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep requests and replies out of the AWS libraries' debug log while this is open; for this task only."""
    before = _in_our_call.set(True)
    try:
        yield
    finally:
        _in_our_call.reset(before)


def _install_log_filter() -> None:
    # On each logger itself: a filter sees no records that come up from below. Adding it twice changes nothing.
    for name in _LOGGERS_THAT_SHOW_REQUESTS:
        logging.getLogger(name).addFilter(_conceal)


# --- parameters ---------------------------------------------------------------------------------------------


def wrong_parameters(service: str, operation: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """
    Say which parameters of a request the SDK would refuse for their names or types; values are not shown.

    :param service: the service's name in the SDK
    :param operation: the API's name of it
    """
    if not parameters:
        return
    whole = _input_shape(service, operation)
    for path, shape, value in _wrong(whole, parameters, ""):
        if not _fits(shape, value):
            given = "nothing" if value is None else type(value).__name__
            yield f"{path or 'it'} must be {_SDK_TYPES[shape.type_name][0]}, not {given}"
            continue
        above, _, name = path.rpartition(".")
        members = list(shape.members)
        meant = difflib.get_close_matches(name, members, 1)
        if not meant and shape is whole:
            meant = [f"{place}.{name}" for place in _places(whole, name)][:1]
        way_out = f"did you mean {meant[0]}?" if meant else f"{above or 'it'} takes {', '.join(members)}"
        yield f"{operation} has no {path}; {way_out}"


@functools.cache
def _input_shape(service: str, operation: str) -> Any:
    from botocore.session import get_session

    return get_session().get_service_model(service).operation_model(operation).input_shape


_SDK_TYPES: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "boolean": ("true or false", (bool,)),
    "double": ("a number", (float, int)),
    "float": ("a number", (float, int)),
    "integer": ("a whole number", (int,)),
    "list": ("a list", (list, tuple)),
    "long": ("a whole number", (int,)),
    "map": ("an object", (Mapping,)),
    "string": ("a text", (str,)),
    "structure": ("an object", (Mapping,)),
}
"""The SDK's names of types, what they are in words, and what it takes for them."""


def _fits(shape: Any, value: Any) -> bool:
    if shape.type_name not in _SDK_TYPES:
        return True
    if isinstance(value, bool):
        return bool(shape.type_name == "boolean")
    return isinstance(value, _SDK_TYPES[shape.type_name][1])


def _wrong(shape: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """
    Yield the path of each member that does not belong there, with a shape and a value.

    They are its own if its type is wrong, and those of what it is in if that has no such member.
    """
    if not _fits(shape, value):
        yield path, shape, value
    elif shape.type_name == "structure":
        for key, member in value.items():
            below = f"{path}.{key}" if path else str(key)
            if key in shape.members:
                yield from _wrong(shape.members[key], member, below)
            else:
                yield below, shape, value
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            yield from _wrong(shape.member, member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, member in value.items():
            yield from _wrong(shape.value, member, f"{path}.{key}")


def _places(shape: Any, name: str) -> Iterator[str]:
    """Yield where else in a request a parameter of this name belongs, lists aside."""
    for key, member in shape.members.items():
        if member.type_name == "structure":
            if name in member.members:
                yield key
            yield from (f"{key}.{place}" for place in _places(member, name))


# --- errors -------------------------------------------------------------------------------------------------

_THROTTLES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_WRAPPED_THROTTLE = re.compile(
    r"rate exceeded|ErrorCode: (Throttling|RequestLimitExceeded)|request limit exceeded", re.IGNORECASE
)
_NO_CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS_ERRORS: Final = (
    # Names, because not every supported botocore has all of them.
    "CredentialRetrievalError",
    "InfiniteLoopConfigError",
    "InvalidConfigError",
    "LoginError",
    "MetadataRetrievalError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "TokenRetrievalError",
    "UnknownCredentialError",
)
_SERVER_FAULTS: Final = frozenset(
    {"InternalError", "InternalFailure", "ServerException", "ServiceUnavailable", "ServiceUnavailableException"}
)
_MENDABLE: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "BlockedException",
        "ClusterNotFoundException",
        "NotAuthorized",
        "OptInRequired",
        "UnauthorizedOperation",
    }
)
_MALFORMED: Final = frozenset(
    {
        "ClientException",
        "InvalidAction",
        "InvalidParameterException",
        "MalformedQueryString",
        "PlatformTaskDefinitionIncompatibilityException",
        "PlatformUnknownException",
        "SerializationException",
        "UnsupportedFeatureException",
        "ValidationError",
        "ValidationException",
    }
)
_NO_ROOM = re.compile(
    r"capacity is unavailable|no container instances were found|reached the limit on the number of"
    r"|\bPROVISIONING\b.*\b(limit|quota|exceed\w*|maximum)|\b(limit|quota|exceed\w*|maximum)\b.*\bPROVISIONING\b",
    re.IGNORECASE,
)
_MENDABLE_WORDS = re.compile(
    r"cluster (was |is )?(inactive|not found)"
    r"|task ?definition (is |was )?(inactive|not found)"
    r"|(unable to (find|describe)|no such) (the )?task ?definition"
    r"|job[ -]?(queue|definition)\b.*\b(not found|does(n't| not) exist|inactive|disabled|invalid|is not)"
    r"|\b(inactive|disabled|invalid) job[ -]?(queue|definition)\b",
    re.IGNORECASE,
)
_NO_SUCH_CONTAINER = re.compile(
    r"task was not found|\bjob\b(?![ -]?(queue|definition)).*\b(not found|does(n't| not) exist)", re.IGNORECASE
)
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500


def classify(exception: BaseException, operation: str) -> BackendError:
    """
    Say what an exception of a call to AWS means.

    What cannot be told apart counts as ambiguous: it may or may not have been done. Nothing that was sent, and
    no value of a refused parameter, is in the result.

    :param operation: the API's name of what was called
    """
    from botocore import exceptions as boto

    if isinstance(exception, BackendError):
        return exception
    name = type(exception).__name__
    if isinstance(exception, ConfigurationError):
        return BackendError(Kind.REFUSED, name, str(exception))
    if isinstance(exception, boto.ClientError):
        return _classify_reply(exception, operation)
    if isinstance(exception, boto.ParamValidationError):
        return BackendError(Kind.INVALID, name, _parameters(str(exception)))
    if any(parent.__name__ in _NO_CREDENTIALS_ERRORS for parent in type(exception).__mro__):
        return BackendError(Kind.CREDENTIALS, name, bounded(str(exception)))
    unanswered = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)
    if isinstance(exception, boto.BotoCoreError) and not isinstance(exception, unanswered):
        # What is left of botocore's own errors comes before anything is sent: no region, an unusable endpoint.
        return BackendError(Kind.REFUSED, name, bounded(str(exception)))
    if isinstance(exception, unanswered):
        return BackendError(Kind.AMBIGUOUS, name, bounded(str(exception)))
    # From aiohttp, asyncio or a parser, whose texts can hold a piece of the reply.
    return BackendError(Kind.AMBIGUOUS, name, f"no usable answer to {operation}")


def _classify_reply(exception: Any, operation: str) -> BackendError:
    error = exception.response.get("Error") or {}
    code = str(error.get("Code") or "")
    message = str(error.get("Message") or "")
    status = (exception.response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    resources = exception.response.get("resourceIds") or ()
    asked = getattr(exception, "operation_name", operation) or operation
    # Codes can come as "prefix#Code" or "Code:url".
    code = code.rpartition("#")[2].partition(":")[0]
    if asked == operation:
        kind = _kind(code, message, int(status))
    else:
        # STS or SSO on behalf of our call.
        kind = Kind.CREDENTIALS
        message = f"{asked}: {message}"
    return BackendError(
        kind,
        bounded(code, 100) or f"HTTP {status}",
        bounded(message),
        [str(one) for one in resources] if kind is Kind.CONFLICT else (),
    )


def _kind(code: str, message: str, status: int) -> Kind:
    if "too many concurrent attempts" in message.lower():
        return Kind.CONCURRENT
    if code in _THROTTLES or status == _TOO_MANY_REQUESTS or _WRAPPED_THROTTLE.search(message):
        return Kind.THROTTLED
    if code == "ConflictException":
        return Kind.CONFLICT
    if code in _NO_CREDENTIALS:
        return Kind.CREDENTIALS
    nameless = code == "Unknown" or not re.search("[A-Za-z]", code)
    if status >= _SERVER_ERROR or code in _SERVER_FAULTS or nameless:
        return Kind.AMBIGUOUS
    if code in _MALFORMED:
        if _MENDABLE_WORDS.search(message):
            return Kind.REFUSED  # first: what a queue or a definition is called can have "job" in it, too
        if _NO_SUCH_CONTAINER.search(message):
            return Kind.NOT_FOUND
        return Kind.CAPACITY if _NO_ROOM.search(message) else Kind.INVALID
    # A definite no: known ones that a person may be mending, and unknown ones, which deserve the same patience.
    return Kind.REFUSED


_PATH: Final = r"[\w.\[\]-]+"
_TYPES: Final = r"<class '[\w.]+'>(?:, <class '[\w.]+'>)*"
_WRONG_TYPE = re.compile(
    rf"^Invalid type for parameter ({_PATH}), value: .*?, type: <class '([\w.]+)'>, valid types: ({_TYPES})$",
    re.MULTILINE | re.DOTALL,
)
_OTHERWISE_WRONG = re.compile(rf"^Invalid (length|range) for parameter ({_PATH}), value: ", re.MULTILINE)
_MISSING = re.compile(rf"^Missing required parameter in ({_PATH}): \"(\w+)\"$", re.MULTILINE)
_UNKNOWN = re.compile(rf"^Unknown parameter in ({_PATH}): \"(\w{{1,64}})\", must be one of: ", re.MULTILINE)


def _parameters(report: str) -> str:
    """Name the parameters that botocore refuses, and their types; its own text quotes their values."""
    found = [
        f"{path} must be {_type_names(valid)}, not {actual}" for path, actual, valid in _WRONG_TYPE.findall(report)
    ]
    found += [f"{path} has the wrong {what}" for what, path in _OTHERWISE_WRONG.findall(report)]
    found += [f"{name} is missing in {where}" for where, name in _MISSING.findall(report)]
    found += [f"{name} is no parameter of {where}" for where, name in _UNKNOWN.findall(report)]
    return bounded("the request is malformed: " + ("; ".join(found) or "a parameter has a wrong name or type"))


def _type_names(types: str) -> str:
    return " or ".join(re.findall(r"'([\w.]+)'", types))


# --- credentials --------------------------------------------------------------------------------------------

_RELOAD_INTERVAL: Final = 5.0
"""Seconds between two times of asking for other credentials because AWS refused the ones there are."""
_LAST_MINUTE: Final = 60
_REFRESH_AGAIN: Final = 10.0
"""Seconds until an early refresh that brought nothing new is tried again."""


class _AsyncCredentials(Protocol):
    async def get_frozen_credentials(self) -> Any: ...


class ThreadedCredentials:
    """
    Credentials of boto3 for an asyncio client: whatever may block happens in a thread.

    While what there is stays good for a minute, nobody waits for the refresh.

    :param executor: what names of log events begin with
    """

    def __init__(self, credentials: Any, executor: str) -> None:
        self._credentials = credentials
        self._executor = executor
        self._frozen: Any = None
        self._refreshing: asyncio.Task[None] | None = None
        self._not_before = 0.0

    async def get_frozen_credentials(self) -> Any:
        """Return access key, secret key and token as they are now."""
        if self._frozen is not None and not self._expires():
            return self._frozen
        spare_time = self._frozen is not None and not self._expires(_LAST_MINUTE)
        if spare_time and asyncio.get_running_loop().time() < self._not_before:
            return self._frozen
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh AWS credentials")
            self._refreshing.add_done_callback(self._refreshed)
        if not spare_time:
            await asyncio.shield(self._refreshing)
        return self._frozen

    def _expires(self, within: int | None = None) -> bool:
        needed = getattr(self._credentials, "refresh_needed", None)
        return needed is not None and bool(needed(within))

    async def _refresh(self) -> None:
        self._frozen = await asyncio.to_thread(self._credentials.get_frozen_credentials)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        self._not_before = task.get_loop().time() + _REFRESH_AGAIN
        if not task.cancelled() and (error := task.exception()) is not None:
            event = f"{self._executor}.credentials.not_refreshed"
            log.warning(event, error=type(error).__name__)


class ReloadedCredentials:
    """
    Credentials that are looked up again after AWS has refused them.

    So that a connection whose keys were changed, or a new credentials file, needs no restart. Whatever goes
    wrong comes out as botocore's CredentialRetrievalError: nothing was sent yet.

    :param load: finds the credentials, None if there are none
    """

    method = "ecs-async-executor"

    def __init__(self, load: Callable[[], Awaitable[_AsyncCredentials | None]]) -> None:
        self._load = load
        self._current: _AsyncCredentials | None = None
        self._refused = True
        self._error: Exception | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    def forget(self) -> None:
        """Look them up again before the next request, but not all the time."""
        self._refused = True

    async def get_frozen_credentials(self) -> Any:
        """Return access key, secret key and token as they are now, None if there are none."""
        from botocore.exceptions import CredentialRetrievalError

        try:
            if self._refused:
                async with self._lock:
                    await self._reload()
            return None if self._current is None else await self._current.get_frozen_credentials()
        except CredentialRetrievalError:
            raise
        except Exception as error:  # noqa: BLE001 - it comes from all over: STS, files, a database
            raise CredentialRetrievalError(
                provider=self.method, error_msg=bounded(f"{type(error).__name__}: {error}")
            ) from None

    async def _reload(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._refused and now >= self._not_before:
            self._not_before = now + _RELOAD_INTERVAL
            self._error = None
            try:
                self._current = await self._load()
            except Exception as error:
                self._error = error
                raise
            self._refused = False
        elif self._refused and self._error is not None:
            raise self._error  # which says more than that there are none

    def get_deferred_property(self, _name: str) -> Callable[[], None]:
        """Offer no account id; botocore asks for it for endpoints that ECS does not have."""
        return lambda: None

    def get_account_id(self) -> None:
        """Offer no account id."""


# --- clients ------------------------------------------------------------------------------------------------

_STOP_CONNECTIONS: Final = 16
_SPARE_CONNECTIONS: Final = 8
_DEFAULT_CONN_ID: Final = "aws_default"


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a client gets what the settings do not say."""

    load: Callable[[], Awaitable[_AsyncCredentials | None]]
    region_name: str | None = None
    endpoint_url: str | None = None
    verify: bool | str | None = None
    profile_name: str | None = None
    config: Any = None


class _ParserFactory:
    """What a session asks for the parser of a protocol: botocore's, but for the replies that have a decoder."""

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        from aiobotocore.parsers import AioResponseParserFactory

        self._inner = AioResponseParserFactory()
        self._decoders = decoders

    def set_parser_defaults(self, **options: Any) -> None:
        """Pass on what botocore's client asks of its parsers."""
        self._inner.set_parser_defaults(**options)

    def create_parser(self, protocol_name: str) -> _Parser:
        """Make the parser of a protocol."""
        return _Parser(self._inner.create_parser(protocol_name), self._decoders)


class _Parser:
    """
    Decode the replies that make up nearly all of the traffic straight to what is used of them.

    botocore walks the service's description for every field of every record: 8 ms for the status of 100 tasks,
    of which ten fields are looked at.
    """

    def __init__(self, inner: Any, decoders: Mapping[str, Decoder]) -> None:
        self._inner = inner
        self._decoders = decoders

    async def parse(self, response: Mapping[str, Any], shape: Any) -> Any:
        """Return a reply as botocore would, at least the fields that its decoder knows."""
        decoder = self._decoders.get(shape.name) if shape is not None else None
        if decoder is not None and response["status_code"] == _HTTP_OK:
            with contextlib.suppress(ValueError):
                reply = decoder(response["body"])
                reply["ResponseMetadata"] = {"HTTPStatusCode": _HTTP_OK}
                return reply
        return await self._inner.parse(response, shape)


class ClientFactory:
    """
    Makes AWS clients, with the credentials of an Airflow connection if the amazon provider is installed.

    Making one does nothing: connections are resolved when a client is opened, in a thread.

    :param conn_id: Airflow's connection; None: the provider's default if it is installed; "": none
    :param region_name: None: what the connection or AWS's own configuration says
    :param section: of the configuration, for people
    :param connections: how many requests can be under way at once
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        region_name: str | None = None,
        section: str = ECS_SECTION,
        connect_timeout: float = 5.0,
        read_timeout: float = 10.0,
        connections: int = 100,
    ) -> None:
        self._conn_id = conn_id
        self._region_name = region_name
        self._section = section
        self._executor = section.removeprefix("aws_")  # as the provider calls both
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._connections = connections
        self._credentials: list[ReloadedCredentials] = []

    @classmethod
    def from_settings(cls, aws: AwsSettings, tuning: Tuning) -> ClientFactory:
        """Make a factory whose pool is as large as what may be under way at once."""
        return cls(
            conn_id=aws.conn_id,
            region_name=aws.region_name,
            section=aws.section,
            connect_timeout=tuning.connect_timeout,
            read_timeout=tuning.read_timeout,
            connections=tuning.max_concurrent_launches
            + tuning.max_concurrent_describes
            + _STOP_CONNECTIONS
            + _SPARE_CONNECTIONS,
        )

    def forget_credentials(self) -> None:
        """Look the credentials up again: AWS has refused them."""
        for credentials in self._credentials:
            credentials.forget()

    def client(
        self, service: str, decoders: Mapping[str, Decoder] | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """
        Open a client of a service; it belongs to the loop that runs this.

        :param decoders: by the name of a reply's shape in the service's description, what makes a reply of the
            bytes of a successful answer, instead of botocore; raises ValueError to leave it to botocore after all
        :raises ConfigurationError: if a connection is configured that needs the amazon provider
        """
        return self._client(service, decoders or {})

    @asynccontextmanager
    async def _client(self, service: str, decoders: Mapping[str, Decoder]) -> AsyncIterator[Any]:
        from aiobotocore.session import AioSession

        _install_log_filter()
        origin = await asyncio.to_thread(self._origin, service)
        session = AioSession()
        if origin.profile_name:
            session.set_config_variable("profile", origin.profile_name)
        session.register_component("response_parser_factory", _ParserFactory(decoders))
        credentials = ReloadedCredentials(origin.load)
        session._credentials = credentials  # noqa: SLF001 - aiobotocore's only way in, and the provider's too
        # The service's description is the large part of what a new client reads from disk.
        await asyncio.to_thread(session.get_component("data_loader").load_service_model, service, "service-2")
        self._credentials.append(credentials)
        try:
            async with session.create_client(
                service,
                region_name=origin.region_name,
                endpoint_url=origin.endpoint_url,
                verify=origin.verify,
                config=self._config(origin.config, session.user_agent()),
            ) as client:
                yield client
        finally:
            self._credentials.remove(credentials)

    def _config(self, inherited: Any, user_agent: str) -> Any:
        from aiobotocore.config import AioConfig

        if inherited is not None and inherited.user_agent is not None:
            user_agent = inherited.user_agent
        ours = AioConfig(
            # Retrying is our own policy's business: exactly one attempt.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=self._connections,
            connect_timeout=self._connect_timeout,
            read_timeout=self._read_timeout,
            tcp_keepalive=True,
            # One that is not given is put together anew for every request, which is a sixth of what it costs.
            user_agent=user_agent,
        )
        return ours if inherited is None else AioConfig().merge(inherited).merge(ours)

    def _origin(self, service: str) -> _Origin:
        """Resolve the connection. Blocks: asks Airflow's secrets backends and database."""
        hook_class = _hook_class()
        if hook_class is None:
            if self._conn_id:
                raise ConfigurationError(
                    (
                        (
                            f"[{self._section}] conn_id = {self._conn_id!r}: Airflow connections for AWS need "
                            "the amazon provider (pip install 'ecs-async-executor[amazon]')"
                        ),
                    )
                )
            return _Origin(load=_default_chain, region_name=self._region_name)
        hook = self._hook(hook_class, service)
        connection = hook.conn_config
        return _Origin(
            load=lambda: self._load_from_connection(hook_class, service),
            region_name=hook.region_name,
            endpoint_url=connection.get_service_endpoint_url(service),
            verify=hook.verify,
            profile_name=connection.profile_name,
            config=hook.config,
        )

    def _hook(self, hook_class: Any, service: str, config: Any = None) -> Any:
        conn_id = _DEFAULT_CONN_ID if self._conn_id is None else self._conn_id
        return hook_class(
            aws_conn_id=conn_id or None, region_name=self._region_name, client_type=service, config=config
        )

    async def _load_from_connection(self, hook_class: Any, service: str) -> _AsyncCredentials | None:
        credentials = await asyncio.to_thread(self._connection_credentials, hook_class, service)
        return None if credentials is None else ThreadedCredentials(credentials, self._executor)

    def _connection_credentials(self, hook_class: Any, service: str) -> Any:
        """Find a connection's credentials. Blocks: a role is assumed here."""
        from botocore.config import Config

        config = self._hook(hook_class, service).config.merge(
            Config(
                # A thread that waits for STS cannot be interrupted, and a shutdown has to wait for it: so it is
                # bounded like any other request, and repeated by whoever asks next.
                connect_timeout=self._connect_timeout,
                read_timeout=self._read_timeout,
                retries={"mode": "standard", "total_max_attempts": 1},
            )
        )
        hook = self._hook(hook_class, service, config)
        return hook.get_session(region_name=hook.region_name).get_credentials()


def _hook_class() -> Any:
    with contextlib.suppress(ModuleNotFoundError):
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return AwsBaseHook
    return None


async def _default_chain() -> Any:
    from aiobotocore.session import AioSession

    return await AioSession().get_credentials()
