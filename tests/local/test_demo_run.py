"""What the demo makes of its runs, which are played here; tests/e2e has real ones."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.local.demo import run
from ecs_async_executor.local.demo.__main__ import main


class Played:
    """A run that ends with a status, without a report."""

    statuses: dict[bool, int]
    played: list[bool]

    def __init__(self, *_: Any, provider: bool) -> None:
        self._provider = provider
        self.bursts: list[Any] = []
        self.report = None

    def guarded(self) -> int:
        self.played.append(self._provider)
        return self.statuses[self._provider]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> type[Played]:
    Played.statuses, Played.played = {False: 0, True: 0}, []
    monkeypatch.setattr(run, "Run", Played)
    monkeypatch.setattr(run, "provider_version", lambda: "9.39.0")
    return Played


def test_without_a_comparison_only_our_executor_runs(played: type[Played]) -> None:
    assert main([]) == 0
    assert played.played == [False]


def test_a_comparison_succeeds_if_ours_does_whatever_the_providers_executor_does(played: type[Played]) -> None:
    played.statuses = {False: 0, True: 1}
    assert main(["--provider"]) == 0
    assert played.played == [False, True]


def test_nothing_is_compared_with_a_run_of_ours_that_has_failed(played: type[Played]) -> None:
    played.statuses = {False: 1, True: 0}
    assert main(["--provider"]) == 1
    assert played.played == [False]


def test_a_comparison_without_the_provider_says_what_to_install(
    played: type[Played], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "provider_version", lambda: None)
    assert main(["--provider"]) == 2
    assert "pip install 'ecs-async-executor[amazon]'" in capsys.readouterr().out
    assert played.played == []


def test_a_demo_that_is_kept_has_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--keep", "--provider"])
    assert "not allowed with argument" in capsys.readouterr().err
