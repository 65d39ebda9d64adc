"""
Errors: what AWS's errors mean. THE ONE PLACE where a new error code or text of AWS's is added.

- An error *code*: into the set of its kind under "codes".
- The *text* of an error whose code says too little: into a pattern under "texts".
- A *reason* in RunTask's ``failures[]``, or of a task that found no place: into a pattern under "reasons of
  failures".

Then add a line to the tables in tests/services/test_errors.py. The kinds, and the consequence of each, are in
:mod:`ecs_async_executor.core.errors`. Imports that, ``redaction`` and ``parameters``, and botocore when there is
an error.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ecs_async_executor.core.errors import NO_ANSWER, BackendError, ConfigurationError, Kind
from ecs_async_executor.services.parameters import refused_parameters
from ecs_async_executor.services.redaction import redacted

CREATE_CLIENT: Final = "CreateClient"
"""In place of an operation's name, before there is a client: nothing was sent."""

# --- codes --------------------------------------------------------------------------------------------------

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
_SERVER_FAULTS: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
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
"""INVALID, unless the text says something else: see below."""
_NO_CREDENTIALS_EXCEPTIONS: Final = (
    # botocore's exceptions, by name because not every supported botocore has all of them.
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
_UNAVAILABLE: Final = frozenset({"IDPCommunicationError"})
"""Codes of STS that say nothing about whether the caller may have credentials."""
_REQUEST_TIMEOUT: Final = 408
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500

# --- texts --------------------------------------------------------------------------------------------------

_TOO_MANY_AT_ONCE = re.compile(r"too many concurrent attempts", re.IGNORECASE)
_WRAPPED_THROTTLE = re.compile(
    r"rate exceeded|ErrorCode: (Throttling|RequestLimitExceeded)|request limit exceeded", re.IGNORECASE
)
_WRAPPED_SERVER_FAULT = re.compile(
    r"ErrorCode: (Unavailable|ServiceUnavailable|InternalError|InternalFailure)\b|\bconnect timed out",
    re.IGNORECASE,
)
"""ECS reports what EC2, which it asks itself, answers as the caller's mistake: a throttle, a fault, nothing."""
_UNAVAILABLE_AGENT = re.compile(
    r"non 200 response (5\d\d|429)|received error when attempting to retrieve", re.IGNORECASE
)
"""What botocore says of an agent that gives containers their credentials."""
_MENDABLE = re.compile(
    r"cluster (was |is )?(inactive|not found)"
    r"|task ?definition (is |was )?(inactive|not found)"
    r"|(unable to (find|describe)|no such) (the )?task ?definition"
    r"|job[ -]?(queue|definition)\b.*\b(not found|does(n't| not) exist|inactive|disabled|invalid|is not)"
    r"|\b(inactive|disabled|invalid) job[ -]?(queue|definition)\b"
    # IAM takes half a minute to make a new role known, and a new capacity provider is associated a moment later.
    r"|unable to assume the (service[ -]linked )?role|capacity provider that is not associated"
    r"|ErrorCode: UnauthorizedOperation\b",
    re.IGNORECASE,
)
_NOT_AUTHORIZED = re.compile(r"\bnot authorized to perform\b", re.IGNORECASE)
_NO_SUCH_CONTAINER = re.compile(
    r"task was not found|\bjob\b(?![ -]?(queue|definition)).*\b(not found|does(n't| not) exist)", re.IGNORECASE
)
_NO_CAPACITY = re.compile(
    r"capacity is unavailable|no container instances were found|reached the limit on the number of"
    r"|\bPROVISIONING\b.*\b(limit|quota|exceed\w*|maximum)|\b(limit|quota|exceed\w*|maximum)\b.*\bPROVISIONING\b",
    re.IGNORECASE,
)
_TEXTS_OF_MALFORMED: Final = (
    (_MENDABLE, Kind.REFUSED),  # first: the name of a queue or a definition can contain "job"
    (_NO_SUCH_CONTAINER, Kind.NOT_FOUND),
    (_NO_CAPACITY, Kind.CAPACITY),
)

# --- reasons of failures ------------------------------------------------------------------------------------

_NO_CAPACITY_REASON = re.compile(
    r"^(RESOURCE|AGENT|INACTIVE)\b|no active instances|capacity|reached the limit on the number of"
    r"|placement constraint unsatisfied",
    re.IGNORECASE,
)
_IMPOSSIBLE_REASON = re.compile(r"^(ATTRIBUTE|LOCATION)\b")
"""No instance has what this request asks for. As REFUSED it would hold up the other launches in the cluster."""

_UNPLACED = re.compile(
    r"^(RESOURCE|AGENT)\b|no active instances|empty capacity provider|capacity is unavailable", re.IGNORECASE
)
"""Why a task ends in PROVISIONING: nobody had room for it."""


def is_lack_of_room(reason: str) -> bool:
    """Return whether the reason of a task that failed to start says that there was no place for it."""
    return _UNPLACED.search(reason) is not None


def kind_of_failure(reason: str) -> Kind:
    """
    Return what the reason of an entry in RunTask's ``failures[]`` means.

    An unknown reason is REFUSED: nothing was done, and it may pass. No reason at all is CAPACITY: of an answer
    older than an hour ECS repeats only how many failures it had.
    """
    if not reason or _NO_CAPACITY_REASON.search(reason):
        return Kind.CAPACITY
    return Kind.INVALID if _IMPOSSIBLE_REASON.search(reason) else Kind.REFUSED


# --- from exceptions to kinds -------------------------------------------------------------------------------


def classify(exception: BaseException, operation: str) -> BackendError:
    """
    Return what an exception of a call to AWS means.

    An unknown exception is AMBIGUOUS: the request may or may not have been carried out. The result holds nothing
    of the request, and no value of a refused parameter.

    :param operation: the called operation's name in the API, or :data:`CREATE_CLIENT`
    """
    from botocore import exceptions as boto

    if isinstance(exception, BackendError):
        return exception
    name = type(exception).__name__
    if isinstance(exception, ConfigurationError):
        return BackendError(Kind.REFUSED, name, redacted("; ".join(exception.problems)))
    if isinstance(exception, boto.ClientError):
        return _classify_reply(exception, operation)
    if isinstance(exception, boto.ParamValidationError):
        return BackendError(Kind.INVALID, name, refused_parameters(str(exception)))
    if any(parent.__name__ in _NO_CREDENTIALS_EXCEPTIONS for parent in type(exception).__mro__):
        unavailable = is_unavailable(exception)
        return BackendError(Kind.CREDENTIALS, name, redacted(str(exception)), unavailable=unavailable)
    if isinstance(exception, (boto.ConnectionError, boto.HTTPClientError)) and _never_connected(exception):
        return BackendError(Kind.UNSENT, name, redacted(f"{exception}{_way_out(exception)}"))
    if isinstance(exception, (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)):
        return BackendError(Kind.AMBIGUOUS, name, redacted(str(exception)))
    if isinstance(exception, boto.BotoCoreError):
        # The rest of botocore's exceptions come before anything is sent: no region, an unusable endpoint.
        return BackendError(Kind.REFUSED, name, redacted(str(exception)))
    if operation == CREATE_CLIENT:
        return BackendError(Kind.REFUSED, name, redacted(str(exception)))
    # From aiohttp, asyncio or a parser, whose texts can hold a piece of the reply.
    return BackendError(Kind.AMBIGUOUS, name, f"no usable answer to {operation}")


def is_denied(error: BackendError) -> bool:
    """Return whether the service refused a call because the credentials lack a permission."""
    return error.kind is Kind.REFUSED and (
        error.code.startswith(("AccessDenied", "Unauthorized"))
        or _NOT_AUTHORIZED.search(error.message) is not None
    )


def is_unavailable(error: BaseException) -> bool:
    """
    Return whether the source of credentials that raised this gave no answer: STS, an IdP, the agent of a pod.

    An error that says so itself has ``unavailable`` among its ``kwargs``.
    """
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        code, message, status = _said(error)
        kind = _kind(code, message, status)
        return kind in NO_ANSWER or kind in (Kind.THROTTLED, Kind.CONCURRENT) or code in _UNAVAILABLE
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError, TimeoutError, ConnectionError)):
        return True
    if isinstance(error, boto.BotoCoreError):
        return bool(error.kwargs.get("unavailable")) or _UNAVAILABLE_AGENT.search(str(error)) is not None
    # The provider asks an IdP with requests.
    answered = getattr(getattr(error, "response", None), "status_code", None)
    if answered is not None:
        return bool(answered >= _SERVER_ERROR or answered == _TOO_MANY_REQUESTS)
    return any(parent.__qualname__ in ("ConnectionError", "Timeout") for parent in type(error).__mro__)


def _never_connected(exception: Any) -> bool:
    """
    Return whether there was no connection for the request.

    A name is not found, a connection refused, a TLS handshake fails, a proxy lets nothing through. aiobotocore
    reports a reset connection as it does a refused one; what aiohttp has said tells them apart.
    """
    import aiohttp
    from botocore import exceptions as boto

    error = exception.kwargs.get("error")
    if isinstance(exception, boto.ConnectTimeoutError):
        return isinstance(error, aiohttp.ServerTimeoutError)
    return isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError))


def _way_out(exception: Any) -> str:
    """Return what to do about an untrusted certificate, which may also be the endpoint's fault, and pass."""
    import aiohttp

    if not isinstance(exception.kwargs.get("error"), aiohttp.ClientConnectorCertificateError):
        return ""
    return ". AWS_CA_BUNDLE, or verify of the connection, has to name the CA that signed this certificate"


def _said(exception: Any) -> tuple[str, str, int]:
    """Return code, message and HTTP status of a reply."""
    error = exception.response.get("Error") or {}
    status = (exception.response.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    # Codes can come as "prefix#Code" or "Code:url".
    code = str(error.get("Code") or "").rpartition("#")[2].partition(":")[0]
    return code, str(error.get("Message") or ""), int(status)


def _classify_reply(exception: Any, operation: str) -> BackendError:
    code, message, status = _said(exception)
    resources = exception.response.get("resourceIds") or ()
    called = getattr(exception, "operation_name", operation) or operation
    unavailable = False
    if called == operation:
        kind = _kind(code, message, status)
    else:
        # STS or SSO, which the SDK called to get credentials for our call.
        kind = Kind.CREDENTIALS
        message = f"{called}: {message}"
        unavailable = is_unavailable(exception)
    return BackendError(
        kind,
        redacted(code, 100) or f"HTTP {status}",
        redacted(message),
        [str(one) for one in resources] if kind is Kind.CONFLICT else (),
        unavailable=unavailable,
    )


def _kind(code: str, message: str, status: int) -> Kind:
    if _TOO_MANY_AT_ONCE.search(message):
        return Kind.CONCURRENT
    if code in _THROTTLES or status == _TOO_MANY_REQUESTS or _WRAPPED_THROTTLE.search(message):
        return Kind.THROTTLED
    if code == "ConflictException":
        return Kind.CONFLICT
    if code in _NO_CREDENTIALS:
        return Kind.CREDENTIALS
    if code in _MALFORMED and _WRAPPED_SERVER_FAULT.search(message):
        return Kind.AMBIGUOUS
    nameless = code == "Unknown" or not re.search("[A-Za-z]", code)
    if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT or code in _SERVER_FAULTS or nameless:
        return Kind.AMBIGUOUS
    if code in _MALFORMED:
        return next((kind for text, kind in _TEXTS_OF_MALFORMED if text.search(message)), Kind.INVALID)
    # A definite no that a person may be mending (AccessDeniedException, ClusterNotFoundException). An unknown
    # code deserves the same patience.
    return Kind.REFUSED
