"""What errors mean; a new code or text of AWS's gets a line in a table here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from struct import pack

import aiohttp
import pytest
from aiohttp import web
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.errors import classify, is_denied, kind_of_failure
from tests.certificates import untrusted
from tests.services.fakes import refusal
from tests.services.server import Talk, listening, served

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
URL = "https://ecs.eu-west-1.amazonaws.com/"

KINDS: list[tuple[Exception, Kind]] = [
    # throttles, by any name
    (refusal("ThrottlingException", "Rate exceeded"), Kind.THROTTLED),
    (refusal("Throttling"), Kind.THROTTLED),
    (refusal("RequestLimitExceeded"), Kind.THROTTLED),
    (refusal("TooManyRequestsException", status=429), Kind.THROTTLED),
    (refusal("", status=429), Kind.THROTTLED),
    (refusal("SlowDown", status=503), Kind.THROTTLED),
    (refusal("com.amazonaws.ecs#ThrottlingException"), Kind.THROTTLED),
    (
        refusal(
            "InvalidParameterException",
            "Error retrieving subnet information: Rate exceeded (ErrorCode: Throttling)",
        ),
        Kind.THROTTLED,
    ),
    (
        refusal("InvalidParameterException", "Request limit exceeded. (ErrorCode: RequestLimitExceeded)"),
        Kind.THROTTLED,
    ),
    (refusal("ServerException", "Rate exceeded", status=500), Kind.THROTTLED),
    (
        refusal(
            "ClientException", "Too many concurrent attempts to create a new revision of the specified family."
        ),
        Kind.CONCURRENT,
    ),
    # no room
    (refusal("InvalidParameterException", "No Container Instances were found in your cluster."), Kind.CAPACITY),
    (refusal("ClientException", "Capacity is unavailable at this time."), Kind.CAPACITY),
    (refusal("ClientException", "You've reached the limit on the number of tasks"), Kind.CAPACITY),
    (refusal("ClientException", "The number of tasks in PROVISIONING exceeds the maximum"), Kind.CAPACITY),
    (refusal("ClientException", "Limit reached: tasks in the PROVISIONING state"), Kind.CAPACITY),
    # credentials and clocks
    *[
        (refusal(code), Kind.CREDENTIALS)
        for code in (
            "ExpiredTokenException",
            "ExpiredToken",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "MissingAuthenticationTokenException",
        )
    ],
    (
        refusal("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than"),
        Kind.CREDENTIALS,
    ),
    (refusal("AccessDenied", "not authorized to perform: sts:AssumeRole", "AssumeRole", 403), Kind.CREDENTIALS),
    (refusal("Throttling", "slow", "AssumeRoleWithWebIdentity"), Kind.CREDENTIALS),
    (boto.NoCredentialsError(), Kind.CREDENTIALS),
    (boto.PartialCredentialsError(provider="env", cred_var="x"), Kind.CREDENTIALS),
    (boto.CredentialRetrievalError(provider="x", error_msg="y"), Kind.CREDENTIALS),
    (boto.TokenRetrievalError(provider="x", error_msg="y"), Kind.CREDENTIALS),
    (boto.UnauthorizedSSOTokenError(), Kind.CREDENTIALS),
    (boto.MetadataRetrievalError(error_msg="y"), Kind.CREDENTIALS),
    (boto.ProfileNotFound(profile="x"), Kind.CREDENTIALS),
    # refusals that a person may be mending
    (refusal("AccessDeniedException"), Kind.REFUSED),
    (refusal("ClusterNotFoundException", "Cluster not found."), Kind.REFUSED),
    (refusal("BlockedException"), Kind.REFUSED),
    (refusal("ClientException", "TaskDefinition is inactive"), Kind.REFUSED),
    (refusal("ClientException", "Unable to find task definition"), Kind.REFUSED),
    (refusal("InvalidParameterException", "TaskDefinition not found."), Kind.REFUSED),
    (refusal("InvalidParameterException", "The referenced cluster was inactive."), Kind.REFUSED),
    (refusal("ClientException", "JobQueue nightly-job not found."), Kind.REFUSED),
    (refusal("ClientException", "JobQueue x-job-queue not found."), Kind.REFUSED),
    (refusal("ClientException", "JobQueue arn:aws:batch:eu-west-1:1:job-queue/main not found."), Kind.REFUSED),
    (
        refusal("ClientException", "JobDefinition name airflow-job does not exist or is not in ACTIVE status"),
        Kind.REFUSED,
    ),
    (refusal("SomethingNewException", "no"), Kind.REFUSED),
    (boto.NoRegionError(), Kind.REFUSED),
    (ConfigurationError(["[x] y"]), Kind.REFUSED),
    # malformed
    (refusal("InvalidParameterException", "Override for container named x is not a container"), Kind.INVALID),
    (refusal("ClientException", "Tags can not be empty."), Kind.INVALID),
    (refusal("PlatformUnknownException"), Kind.INVALID),
    (refusal("SerializationException"), Kind.INVALID),
    (refusal("ValidationException"), Kind.INVALID),
    (boto.ParamValidationError(report="x"), Kind.INVALID),
    # others with a meaning
    (refusal("ConflictException"), Kind.CONFLICT),
    (
        refusal("InvalidParameterException", "The referenced task was not found.", operation="StopTask"),
        Kind.NOT_FOUND,
    ),
    (refusal("ClientException", "Job 876da822 not found", operation="StopTask"), Kind.NOT_FOUND),
    # nobody knows
    (refusal("ServerException", "Service Unavailable. Please try again later.", status=500), Kind.AMBIGUOUS),
    (refusal("ServerException", "odd"), Kind.AMBIGUOUS),
    (refusal("InternalFailure", status=500), Kind.AMBIGUOUS),
    (refusal("ServiceUnavailable", status=503), Kind.AMBIGUOUS),
    (refusal("AccessDeniedException", status=500), Kind.AMBIGUOUS),
    (refusal("502", "<html>Bad Gateway</html>", status=502), Kind.AMBIGUOUS),
    (refusal("", "<html>Proxy</html>", status=403), Kind.AMBIGUOUS),
    (refusal("Unknown", "Unknown"), Kind.AMBIGUOUS),
    (refusal("", status=408), Kind.AMBIGUOUS),
    (refusal("RequestTimeout", status=400), Kind.AMBIGUOUS),
    (boto.ReadTimeoutError(endpoint_url=URL), Kind.AMBIGUOUS),
    (boto.ConnectTimeoutError(endpoint_url=URL), Kind.AMBIGUOUS),
    (boto.EndpointConnectionError(endpoint_url=URL), Kind.AMBIGUOUS),
    (boto.ConnectionClosedError(endpoint_url=URL), Kind.AMBIGUOUS),
    (boto.SSLError(endpoint_url=URL, error=OSError("x")), Kind.AMBIGUOUS),
    (boto.HTTPClientError(error="x"), Kind.AMBIGUOUS),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), Kind.AMBIGUOUS),
    (ResponseParserError("x"), Kind.AMBIGUOUS),
    (aiohttp.ServerDisconnectedError(), Kind.AMBIGUOUS),
    (aiohttp.ClientPayloadError("x"), Kind.AMBIGUOUS),
    (asyncio.TimeoutError(), Kind.AMBIGUOUS),
    (ConnectionResetError(), Kind.AMBIGUOUS),
    (json.JSONDecodeError("x", "y", 0), Kind.AMBIGUOUS),
]


@pytest.mark.parametrize(("exception", "kind"), KINDS, ids=lambda value: str(value)[:80])
def test_an_exception_of_a_call_has_one_meaning(exception: Exception, kind: Kind) -> None:
    operation = "StopTask" if kind is Kind.NOT_FOUND else "RunTask"
    error = classify(exception, operation)
    assert error.kind is kind
    assert error.code


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = BackendError(Kind.CAPACITY, "x", "y")
    assert classify(error, "RunTask") is error


def test_a_conflict_names_what_exists_and_others_do_not() -> None:
    assert classify(refusal("ConflictException", resourceIds=["a", "b"]), "RunTask").resource_ids == ("a", "b")
    assert classify(refusal("ConflictException"), "RunTask").resource_ids == ()
    assert classify(refusal("ClientException", resourceIds=["a"]), "RunTask").resource_ids == ()


@pytest.mark.parametrize(
    ("message", "said"),
    [("", "Throttling"), ("Throttling", "Throttling"), ("Rate exceeded", "Throttling: Rate exceeded")],
)
def test_a_code_is_told_once(message: str, said: str) -> None:
    assert str(classify(refusal("Throttling", message), "RunTask")) == said


def test_a_services_words_are_short_and_hold_no_jwt() -> None:
    error = classify(refusal("ClientException", f"bad command: --json-string {JWT} " + "x" * 5000), "RunTask")
    assert JWT[:12] not in str(error)
    assert "--json-string ***" in error.message
    assert len(error.message) == 500


def test_an_unforeseen_error_shows_only_its_name() -> None:
    error = classify(ValueError(f"unexpected reply with {JWT} and hunter2"), "RunTask")
    assert (error.code, error.message) == ("ValueError", "no usable answer to RunTask")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("how", ["hang", "close", "reset", "truncate", "html"])
def test_no_definite_answer_is_ambiguous(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async def misbehave(request: web.Request) -> web.StreamResponse:
        if how == "hang":
            await asyncio.sleep(2)
        if how == "html":
            return web.Response(text="<html>bad gateway</html>", status=502, content_type="text/html")
        assert request.transport is not None
        if how == "reset":
            # aiobotocore reports it as it does a refused connection.
            socket = request.transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
            request.transport.abort()
        if how == "truncate":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"tasks": [')
        request.transport.close()
        return web.Response()

    async def run() -> BackendError:
        async with served(misbehave) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            return await error_of_run_task()

    assert asyncio.run(run()).kind is Kind.AMBIGUOUS


async def error_of_run_task() -> BackendError:
    factory = ClientFactory(region_name="eu-west-1", connect_timeout=0.2, read_timeout=0.2)
    async with factory.client("ecs") as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
            await client.run_task(taskDefinition="f")
        return classify(caught.value, "RunTask")


async def _no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\r\n\r\n")


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("url", "talk"),
    [
        ("http://127.0.0.1:9/", None),
        ("http://nowhere.invalid/", None),
        ("https://127.0.0.1:{}/", _no_tls),
        ("https://127.0.0.1:{}/", _hang_up),
        ("https://127.0.0.1:{}/", _say_nothing),
    ],
    ids=["refused", "no such name", "no TLS", "no handshake", "handshake takes too long"],
)
def test_without_a_connection_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch, url: str, talk: Talk | None
) -> None:
    async def run() -> BackendError:
        async with listening(talk) as port:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url.format(port))
            return await error_of_run_task()

    error = asyncio.run(run())
    assert error.kind is Kind.UNSENT
    assert "RunTask" not in error.message
    assert error.message


@pytest.mark.usefixtures("keys")
def test_a_certificate_that_is_not_trusted_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with untrusted(tmp_path) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        error = asyncio.run(error_of_run_task())
    assert error.kind is Kind.UNSENT
    assert error.message.startswith(f"SSL validation failed for {endpoint}")
    assert error.message.endswith(
        "AWS_CA_BUNDLE, or verify of the connection, has to name the CA that signed this certificate"
    )


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("talk", [None, _forbid], ids=["refused", "forbidden"])
def test_a_proxy_that_lets_nothing_through_has_sent_nothing(
    monkeypatch: pytest.MonkeyPatch, talk: Talk | None
) -> None:
    async def run() -> BackendError:
        async with listening(talk) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            return await error_of_run_task()

    assert asyncio.run(run()).kind is Kind.UNSENT


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("RESOURCE:MEMORY", Kind.CAPACITY),
        ("RESOURCE:ENI", Kind.CAPACITY),
        ("AGENT", Kind.CAPACITY),
        ("Capacity is unavailable at this time. Please try again later or in a different zone", Kind.CAPACITY),
        ("You\u2019ve reached the limit on the number of vCPUs you can run concurrently", Kind.CAPACITY),
        ("You've reached the limit on the number of tasks you can run concurrently", Kind.CAPACITY),
        ("EMPTY CAPACITY PROVIDER", Kind.CAPACITY),
        ("NO ACTIVE INSTANCES", Kind.CAPACITY),
        ("", Kind.CAPACITY),
        ("DistinctInstance placement constraint unsatisfied.", Kind.CAPACITY),
        ("ATTRIBUTE", Kind.INVALID),
        ("LOCATION", Kind.INVALID),
        ("MISSING", Kind.REFUSED),
        ("something new", Kind.REFUSED),
    ],
)
def test_the_reason_of_a_run_task_failure_has_one_meaning(reason: str, kind: Kind) -> None:
    assert kind_of_failure(reason) is kind


@pytest.mark.parametrize(
    ("code", "message", "denied"),
    [
        ("AccessDeniedException", "", True),
        ("AccessDenied", "", True),
        ("UnauthorizedOperation", "", True),
        ("NewException", "User: u is not authorized to perform: ecs:DescribeTasks", True),
        ("ClusterNotFoundException", "Cluster not found.", False),
        ("ThrottlingException", "Rate exceeded", False),
    ],
)
def test_a_missing_permission_is_told_from_other_refusals(code: str, message: str, denied: bool) -> None:
    assert is_denied(classify(refusal(code, message), "RunTask")) is denied
