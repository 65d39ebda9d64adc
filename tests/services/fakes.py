"""A client that answers as a test says, its factory, and AWS's refusals."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError


class FakeClient:
    """Answers each call by a value or a function, and keeps the calls."""

    meta = SimpleNamespace(region_name="eu-west-1")

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(**parameters: Any) -> Any:
            self.calls.append((name, copy.deepcopy(parameters)))
            answer = self.answers[name]
            answer = answer(**parameters) if callable(answer) else answer
            if asyncio.iscoroutine(answer):
                answer = await answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def asked(self, name: str) -> list[dict[str, Any]]:
        return [parameters for called, parameters in self.calls if called == name]


class FakeFactory:
    """Hands out one client, and counts how often its credentials were refused."""

    def __init__(self, client: FakeClient, service: str = "ecs") -> None:
        self._client = client
        self._service = service
        self.forgotten = 0
        self.closed = False

    @asynccontextmanager
    async def client(self, service: str, decoders: Any = None, **_: Any) -> Any:
        assert service == self._service
        yield self._client
        self.closed = True

    def forget_credentials(self) -> None:
        self.forgotten += 1


def refusal(
    code: str, message: str = "", operation: str = "RunTask", status: int = 400, **more: Any
) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response | more, operation)


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks and threads run until they have come to a point."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")
