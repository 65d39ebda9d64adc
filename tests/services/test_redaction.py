from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
from aiohttp import web
from botocore import exceptions as boto

from ecs_async_executor.services import redaction
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.redaction import install_log_filter, redacted, storable, unlogged, without_tokens
from tests.services.server import answer, served

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


def test_what_may_be_shown_is_one_line_of_a_length() -> None:
    assert redacted(" a\n  b ") == "a b"
    assert redacted("x" * 20, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    "shown",
    [
        JWT,
        JWT.rpartition(".")[0],
        JWT.rpartition(".")[0] + ".",
        JWT.rpartition(".")[0] + ".cut-off-i",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
    ],
)
@pytest.mark.parametrize("text", ['{{"token":"{}"}}', "%22{}%22", "token\\n{}", "--json-string {} "])
def test_a_jwt_is_hidden_with_and_without_its_signature(text: str, shown: str) -> None:
    assert redacted(text.format(shown)) == text.format("***").strip()


@pytest.mark.parametrize("text", ["tokens.eyJ.md", "1.2.3", "keyJar.a.b", "arn:aws:ecs:eu-west-1:1:task/c/1"])
def test_other_dotted_words_stay(text: str) -> None:
    assert redacted(text) == text


def test_a_long_word_without_a_jwt_is_searched_once() -> None:
    began = time.perf_counter()
    text = "eyJ" * 80_000
    assert without_tokens(text) == text
    assert time.perf_counter() - began < 2.0  # tried from each of its places, it would take a minute


@pytest.mark.parametrize("text", ["a\0b", "a\ud83db"])
def test_what_no_database_takes_is_replaced(text: str) -> None:
    assert storable(text) == redacted(text) == "a\N{REPLACEMENT CHARACTER}b"
    assert storable("\N{PILE OF POO}\t\x1b[1m") == "\N{PILE OF POO}\t\x1b[1m"


def test_the_pattern_for_jwts_stands_in_one_place() -> None:
    package = Path(redaction.__file__).parents[1]
    assert [path for path in package.rglob("*.py") if "eyJ" in path.read_text()] == [Path(redaction.__file__)]


@pytest.mark.usefixtures("keys")
def test_nothing_of_a_request_or_reply_gets_into_the_debug_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "sessiontoken")
    command = ["python", "--json-string", f'{{"token": "{JWT}"}}']
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
    for secret in (JWT, "--json-string", "ctoken", "sessiontoken"):
        assert secret not in caplog.text
    assert "(not shown)" in caplog.text


def test_other_peoples_requests_are_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    install_log_filter()
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
    install_log_filter()
    install_log_filter()
    assert logging.getLogger("botocore.endpoint").filters.count(redaction._conceal) == 1
