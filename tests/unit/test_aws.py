from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore import exceptions as boto
from botocore.credentials import ReadOnlyCredentials
from botocore.parsers import ResponseParserError
from botocore.session import get_session
from botocore.validate import ParamValidator
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import BackendError, ConfigurationError, Kind
from ecs_async_executor.services import aws
from ecs_async_executor.services.aws import (
    ClientFactory,
    ReloadedCredentials,
    ThreadedCredentials,
    bounded,
    classify,
    unlogged,
)
from ecs_async_executor.settings import EcsSettings, Tuning

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
URL = "https://ecs.eu-west-1.amazonaws.com/"


def refusal(code: str, message: str = "", status: int = 400, operation: str = "RunTask", **more: Any) -> Exception:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response | more, operation)


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
    (refusal("ServerException", "Rate exceeded", 500), Kind.THROTTLED),
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
    (refusal("AccessDenied", "not authorized to perform: sts:AssumeRole", 403, "AssumeRole"), Kind.CREDENTIALS),
    (refusal("Throttling", "slow", 400, "AssumeRoleWithWebIdentity"), Kind.CREDENTIALS),
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
    (refusal("SomethingNewException", "no", 400), Kind.REFUSED),
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
    (refusal("ServerException", "Service Unavailable. Please try again later.", 500), Kind.AMBIGUOUS),
    (refusal("ServerException", "odd", 400), Kind.AMBIGUOUS),
    (refusal("InternalFailure", status=500), Kind.AMBIGUOUS),
    (refusal("ServiceUnavailable", status=503), Kind.AMBIGUOUS),
    (refusal("AccessDeniedException", status=500), Kind.AMBIGUOUS),
    (refusal("502", "<html>Bad Gateway</html>", 502), Kind.AMBIGUOUS),
    (refusal("", "<html>Proxy</html>", 403), Kind.AMBIGUOUS),
    (refusal("Unknown", "Unknown", 400), Kind.AMBIGUOUS),
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


def test_a_services_words_are_short_and_hold_no_token() -> None:
    error = classify(refusal("ClientException", f"bad command: --json-string {TOKEN} " + "x" * 5000), "RunTask")
    assert TOKEN[:12] not in str(error)
    assert "--json-string ***" in error.message
    assert len(error.message) == 500


def test_an_unforeseen_error_shows_only_its_name() -> None:
    error = classify(ValueError(f"unexpected reply with {TOKEN} and hunter2"), "RunTask")
    assert (error.code, error.message) == ("ValueError", "no usable answer to RunTask")


def test_bounded_makes_one_line() -> None:
    assert bounded(" a\n  b ") == "a b"
    assert bounded("x" * 20, 10) == "xxxxxxx..."


def param_error(parameters: dict[str, Any]) -> Exception:
    shape: Any = get_session().get_service_model("ecs").operation_model("RunTask").input_shape
    report = ParamValidator().validate(parameters, shape)
    assert report.has_errors()
    return boto.ParamValidationError(report=report.generate_report())


SECRET = "hunter2\nInvalid type for parameter"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"taskDefinition": "f", "overrides": {"containerOverrides": [{"cpu": SECRET}]}},
            "overrides.containerOverrides[0].cpu must be int, not str",
        ),
        ({"taskDefinition": "f", "tags": {"k": SECRET}}, "tags must be list or tuple, not dict"),
        (
            {"taskDefinition": "f", "capacityProviderStrategy": SECRET},
            "capacityProviderStrategy must be list or tuple",
        ),
        ({"taskDefinition": "f", "podOverride": SECRET}, "podOverride is no parameter of input"),
        ({"taskDefinition": "f", "overrides": {"x_y": SECRET}}, "x_y is no parameter of overrides"),
        ({}, "taskDefinition is missing in input"),
        ({"taskDefinition": "f", SECRET: SECRET}, "a parameter has a wrong name or type"),
        (
            {"taskDefinition": 7, "overrides": {"containerOverrides": [{"cpu": SECRET, "memory": SECRET}]}},
            "taskDefinition must be str, not int; overrides.containerOverrides[0].cpu must be int",
        ),
    ],
)
def test_a_refused_parameter_is_named_with_its_type_but_not_its_value(
    parameters: dict[str, Any], said: str
) -> None:
    error = classify(param_error(parameters), "RunTask")
    assert error.kind is Kind.INVALID
    assert error.message.startswith("the request is malformed: ")
    assert said in error.message
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("what", ["length", "range"])
def test_a_parameter_out_of_bounds_is_named(what: str) -> None:
    report = f"Invalid {what} for parameter a.b[0], value: hunter2, valid min {what}: 1"
    error = classify(boto.ParamValidationError(report=report), "RunTask")
    assert error.message == f"the request is malformed: a.b[0] has the wrong {what}"


# --- credentials


class Source:
    """Credentials of boto3 whose refresh waits in a thread until it is let go."""

    def __init__(self) -> None:
        self.seconds_left = 3600.0
        self.refreshes = 0
        self.threads: list[threading.Thread] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        return self.seconds_left <= (900 if refresh_in is None else refresh_in)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.threads.append(threading.current_thread())
        assert self.go.wait(10)
        if self.error:
            raise self.error
        self.refreshes += 1
        self.seconds_left = 3600
        return ReadOnlyCredentials("key", f"secret{self.refreshes}", None)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def test_credentials_are_read_in_a_thread_once_for_all_who_wait() -> None:
    async def run() -> None:
        source = Source()
        credentials = ThreadedCredentials(source, "ecs_executor")
        waiting = [asyncio.create_task(credentials.get_frozen_credentials()) for _ in range(5)]
        await until(lambda: source.threads)
        ticks = 0
        for _ in range(50):  # the loop is free meanwhile
            await asyncio.sleep(0)
            ticks += 1
        assert ticks == 50
        assert not any(one.done() for one in waiting)
        source.go.set()
        assert {frozen.secret_key for frozen in await asyncio.gather(*waiting)} == {"secret1"}
        assert source.threads != [threading.current_thread()]
        assert len(source.threads) == 1
        await credentials.get_frozen_credentials()
        assert len(source.threads) == 1

    asyncio.run(run())


def test_nobody_waits_for_an_early_refresh() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        credentials._not_before = 0.0
        source.go.clear()
        source.seconds_left = 600
        assert [(await credentials.get_frozen_credentials()).secret_key for _ in range(3)] == ["secret1"] * 3
        await until(lambda: len(source.threads) == 2)
        source.go.set()
        await until(lambda: source.refreshes == 2)
        await until(lambda: credentials._refreshing is None)
        assert (await credentials.get_frozen_credentials()).secret_key == "secret2"

    asyncio.run(run())


def test_an_early_refresh_that_fails_is_not_repeated_all_the_time() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        credentials._not_before = 0.0
        source.seconds_left, source.error = 600, RuntimeError("hunter2")
        with capture_logs() as logs:
            await credentials.get_frozen_credentials()
            await until(lambda: credentials._refreshing is None)
            assert (await credentials.get_frozen_credentials()).secret_key == "secret1"
        assert len(source.threads) == 2
        assert [entry["event"] for entry in logs] == ["ecs_executor.credentials.not_refreshed"]
        assert "hunter2" not in str(logs)

    asyncio.run(run())


def test_in_the_last_minute_everybody_waits() -> None:
    async def run() -> None:
        source = Source()
        source.go.set()
        credentials = ThreadedCredentials(source, "ecs_executor")
        await credentials.get_frozen_credentials()
        source.seconds_left = 30
        assert (await credentials.get_frozen_credentials()).secret_key == "secret2"
        source.seconds_left, source.error = 30, RuntimeError("x")
        with capture_logs(), pytest.raises(RuntimeError):
            await credentials.get_frozen_credentials()

    asyncio.run(run())


class Fixed:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("key", self.secret, None)


def test_refused_credentials_are_loaded_again_but_not_all_the_time() -> None:
    async def run() -> None:
        loads = iter("abc")

        async def load() -> Fixed:
            await asyncio.sleep(0)
            return Fixed(next(loads))

        credentials = ReloadedCredentials(load)

        async def secret() -> Any:
            return (await credentials.get_frozen_credentials()).secret_key

        assert list(await asyncio.gather(secret(), secret())) == ["a", "a"]
        credentials.forget()
        assert await secret() == "a"  # too soon
        credentials._not_before = 0.0
        assert list(await asyncio.gather(secret(), secret())) == ["b", "b"]

    asyncio.run(run())


def test_what_went_wrong_is_said_until_it_is_tried_again() -> None:
    async def run() -> None:
        loads = 0

        async def load() -> Fixed:
            nonlocal loads
            loads += 1
            await asyncio.sleep(0)
            if loads == 1:
                raise RuntimeError("STS says no")
            return Fixed("a")

        credentials = ReloadedCredentials(load)
        for _ in range(2):
            with pytest.raises(boto.CredentialRetrievalError, match="STS says no"):
                await credentials.get_frozen_credentials()
        assert loads == 1
        credentials._not_before = 0.0
        assert (await credentials.get_frozen_credentials()).secret_key == "a"

    asyncio.run(run())


def test_no_credentials_are_no_credentials() -> None:
    async def load() -> None:
        return None

    async def run() -> Any:
        return await ReloadedCredentials(load).get_frozen_credentials()

    assert asyncio.run(run()) is None


@pytest.mark.parametrize(
    "error",
    [
        boto.EndpointConnectionError(endpoint_url="https://sts.amazonaws.com"),
        refusal("AccessDenied", "no", 403, "AssumeRole"),
        RuntimeError("the database is away"),
        boto.NoCredentialsError(),
    ],
    ids=str,
)
def test_what_goes_wrong_with_credentials_is_about_credentials(error: Exception) -> None:
    """An unreachable STS must not look as if RunTask had been sent."""

    async def load() -> Fixed:
        raise error

    async def run() -> None:
        await ReloadedCredentials(load).get_frozen_credentials()

    with pytest.raises(boto.BotoCoreError) as caught:
        asyncio.run(run())
    assert classify(caught.value, "RunTask").kind is Kind.CREDENTIALS


# --- clients


@asynccontextmanager
async def served(handle: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the default chain find keys, and nothing else."""
    monkeypatch.setattr(aws, "_hook_class", lambda: None)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_ECS", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body), status=status, content_type="application/x-amz-json-1.1")


@pytest.mark.usefixtures("keys")
def test_a_request_is_sent_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def fail(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return answer({"__type": "ServerException", "message": "no"}, 500)

    async def run() -> BackendError:
        async with served(fail) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            async with ClientFactory(region_name="eu-west-1").client("ecs") as client:
                with pytest.raises(boto.ClientError) as caught:
                    await client.run_task(taskDefinition="f")
                return classify(caught.value, "RunTask")

    assert asyncio.run(run()).kind is Kind.AMBIGUOUS
    assert calls == 1


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("how", ["hang", "close", "truncate", "html", "refuse"])
def test_no_definite_answer_is_ambiguous(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async def misbehave(request: web.Request) -> web.StreamResponse:
        if how == "hang":
            await asyncio.sleep(2)
        if how == "html":
            return web.Response(text="<html>bad gateway</html>", status=502, content_type="text/html")
        assert request.transport is not None
        if how == "truncate":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"tasks": [')
        request.transport.close()
        return web.Response()

    async def run() -> BackendError:
        async with served(misbehave) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/" if how == "refuse" else url)
            factory = ClientFactory(region_name="eu-west-1", read_timeout=0.2)
            async with factory.client("ecs") as client:
                with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
                    await client.run_task(taskDefinition="f")
                return classify(caught.value, "RunTask")

    assert asyncio.run(run()).kind is Kind.AMBIGUOUS


@pytest.mark.usefixtures("keys")
def test_nothing_of_a_request_or_reply_gets_into_the_debug_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "sessiontoken")
    command = ["python", "--json-string", f'{{"token": "{TOKEN}"}}']
    overrides = {"containerOverrides": [{"name": "a", "command": command}]}

    async def echo(_: web.Request) -> web.Response:
        return answer({"tasks": [{"taskArn": "arn", "overrides": overrides}], "failures": []})

    async def run() -> None:
        async with served(echo) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            async with ClientFactory(region_name="eu-west-1").client("ecs") as client:
                with unlogged():
                    await client.run_task(taskDefinition="f", overrides=overrides, clientToken="ctoken")
                    with pytest.raises(boto.ParamValidationError):
                        await client.run_task(taskDefinition="f", overrides=command)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    names = {record.name for record in caplog.records}
    assert {"botocore.hooks", "botocore.endpoint", "botocore.auth"} & names, "botocore logs under other names now"
    for secret in (TOKEN, "--json-string", "ctoken", "sessiontoken"):
        assert secret not in caplog.text
    assert "(not shown)" in caplog.text


def test_other_peoples_requests_are_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    aws._install_log_filter()
    with caplog.at_level(logging.DEBUG):
        with unlogged():
            logging.getLogger("botocore.endpoint").debug("Making request with params: %s", "ours")
            logging.getLogger("botocore.endpoint").warning("ours too: %s", "a warning")
        logging.getLogger("botocore.endpoint").debug("Making request with params: %s", "theirs")
    assert [record.getMessage() for record in caplog.records] == [
        "Making request with params (not shown)",
        "ours too: a warning",
        "Making request with params: theirs",
    ]


def test_the_filter_is_installed_once() -> None:
    aws._install_log_filter()
    aws._install_log_filter()
    assert logging.getLogger("botocore.endpoint").filters.count(aws._conceal) == 1


@pytest.mark.usefixtures("keys")
def test_the_pool_has_room_for_everything_that_can_be_under_way() -> None:
    tuning = Tuning(max_concurrent_launches=200, max_concurrent_describes=20, connect_timeout=2, read_timeout=3)
    settings = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")

    async def run() -> Any:
        async with ClientFactory.from_settings(settings, tuning).client("ecs") as client:
            return client.meta.config, client.meta.region_name

    config, region = asyncio.run(run())
    assert config.max_pool_connections > 220
    assert (config.connect_timeout, config.read_timeout) == (2, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert config.tcp_keepalive is True
    assert region == "eu-west-1"


@pytest.mark.usefixtures("keys")
def test_a_connection_without_the_provider_is_a_clear_error() -> None:
    async def run() -> None:
        async with ClientFactory(conn_id="aws_prod").client("ecs"):
            pass

    with pytest.raises(ConfigurationError, match=r"conn_id = 'aws_prod'.*need the amazon provider"):
        asyncio.run(run())


@pytest.mark.usefixtures("keys")
def test_without_a_region_nothing_can_be_opened() -> None:
    async def run() -> None:
        async with ClientFactory().client("ecs"):
            pass

    with pytest.raises(boto.NoRegionError) as caught:
        asyncio.run(run())
    assert classify(caught.value, "CreateClient").kind is Kind.REFUSED


@pytest.mark.usefixtures("keys")
def test_forgotten_credentials_are_found_again_by_the_open_client(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    async def note(request: web.Request) -> web.Response:
        used.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
        return answer({"taskArns": []})

    async def run() -> None:
        async with served(note) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            factory = ClientFactory(region_name="eu-west-1")
            async with factory.client("ecs") as client:
                await client.list_tasks()
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
                await client.list_tasks()
                factory.forget_credentials()
                factory._credentials[0]._not_before = 0.0
                await client.list_tasks()
            assert factory._credentials == []

    asyncio.run(run())
    assert used == ["AKIDKEY", "AKIDKEY", "AKIDOTHER"]


class Hook:
    """Stands in for AwsBaseHook: resolving takes place where it is noted."""

    threads: list[threading.Thread] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, *, aws_conn_id: str | None, region_name: str | None, client_type: str, config: Any) -> None:
        from botocore.config import Config

        assert client_type == "ecs"
        self.threads.append(threading.current_thread())
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name or "sa-east-1"
        self.verify = None
        self.config: Any = config or Config(user_agent_extra="x/1", retries={"max_attempts": 9})
        self.conn_config = SimpleNamespace(profile_name=None, get_service_endpoint_url=lambda _: None)

    def get_session(self, *, region_name: str) -> Any:
        from botocore.credentials import Credentials

        self.threads.append(threading.current_thread())
        assert region_name == self.region_name
        assert (self.config.connect_timeout, self.config.read_timeout) == (5.0, 10.0)  # STS must not hang either
        return SimpleNamespace(get_credentials=lambda: Credentials(f"AKID{self.aws_conn_id}", "s"))


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("conn_id", "used"), [(None, "aws_default"), ("prod", "prod"), ("", "None")])
def test_a_connection_is_resolved_by_the_hook_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, conn_id: str | None, used: str
) -> None:
    monkeypatch.setattr(aws, "_hook_class", lambda: Hook)
    Hook.threads.clear()
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"].split("Credential=")[1])
        return answer({"taskArns": []})

    async def run() -> Any:
        async with served(note) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            async with ClientFactory(conn_id=conn_id).client("ecs") as client:
                await client.list_tasks()
                return client.meta.config

    config = asyncio.run(run())
    assert seen[0].startswith(f"AKID{used}/")
    assert "/sa-east-1/ecs/" in seen[0]
    assert config.user_agent_extra == "x/1"
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert Hook.threads
    assert threading.main_thread() not in Hook.threads


def test_making_a_factory_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook_class() -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(aws, "_hook_class", hook_class)
    ClientFactory(conn_id="x").forget_credentials()
