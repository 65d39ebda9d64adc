from __future__ import annotations

import pytest

from ecs_async_executor.settings import reading


@pytest.fixture
def with_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the amazon provider for installed, which connections need."""
    monkeypatch.setattr(reading, "_amazon_provider_is_installed", lambda: True)
