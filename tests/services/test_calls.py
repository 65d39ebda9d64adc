from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from ecs_async_executor.core.errors import BackendError, Kind
from tests.services.ecs.samples import ARN, spec, use
from tests.services.fakes import FakeClient, FakeFactory, refusal


def test_an_error_keeps_no_way_to_the_request() -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(run_task=ValueError("python -m x")), lambda backend: backend.launch(spec(), "l-1"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "python" not in str(caught.value)


def test_refused_credentials_are_looked_up_again() -> None:
    client = FakeClient(describe_tasks=refusal("ExpiredTokenException", "old", "DescribeTasks"))
    factory = FakeFactory(client)
    with pytest.raises(BackendError) as caught:
        use(client, lambda backend: backend.describe("k", [ARN + "1"]), factory)
    assert caught.value.kind is Kind.CREDENTIALS
    assert factory.forgotten == 1
    assert factory.closed


def test_a_client_that_cannot_be_made_is_an_error_of_ours() -> None:
    class Broken(FakeFactory):
        @asynccontextmanager
        async def client(self, service: str, decoders: Any = None, **_: Any) -> Any:
            if service:
                raise NoCredentialsError
            yield

    client = FakeClient()
    with pytest.raises(BackendError) as caught:
        use(client, lambda _: None, Broken(client))
    assert caught.value.kind is Kind.CREDENTIALS
