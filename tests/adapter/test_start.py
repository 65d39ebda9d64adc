"""The start of the whole executor over a socket: what can never work stops it, what may pass does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.local import LocalEcs


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_ENDPOINT_URL_ECS", "localhost:4566", "AWS_ENDPOINT_URL_ECS = 'localhost:4566': Invalid endpoint"),
        ("AWS_ACCESS_KEY_ID", "local\n", "AWS_ACCESS_KEY_ID ends in a newline"),
        ("AWS_CA_BUNDLE", "/missing.pem", "AWS_CA_BUNDLE = '/missing.pem': .* No such file or directory"),
    ],
)
def test_a_setting_of_awss_with_which_nothing_can_be_sent_stops_the_start(
    local_ecs: Callable[..., LocalEcs],
    started: Callable[..., AsyncEcsExecutor],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    local_ecs()
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP", "True")
    monkeypatch.setenv(variable, value)
    with pytest.raises(compat.AirflowException, match=f"ECS Executor health check has failed because: .*{words}"):
        started()
