"""Garbage collection is put off for a call, and comes back whatever happens to the call."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ecs_async_executor.adapter.collecting import PutOff


@pytest.fixture(autouse=True)
def _on_again() -> Iterator[None]:
    yield
    gc.enable()


def interrupted_inside(put_off: PutOff) -> None:
    """Raise SystemExit while garbage collection is put off."""
    with put_off:
        assert not gc.isenabled()
        raise SystemExit


def test_garbage_is_collected_again_after_an_exception() -> None:
    with pytest.raises(SystemExit):
        interrupted_inside(PutOff())
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off() -> None:
    gc.disable()
    put_off = PutOff()
    with put_off:
        pass
    put_off.over()
    assert not gc.isenabled()


def test_garbage_is_collected_again_from_the_next_heartbeat_on_if_an_exception_prevented_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_off = PutOff()
    monkeypatch.setattr(PutOff, "__exit__", lambda *_: None)
    with pytest.raises(SystemExit):
        interrupted_inside(put_off)
    assert not gc.isenabled()
    put_off.over()
    assert gc.isenabled()
