"""Some thousand launches of a day: none is lost or runs twice, and nothing holds more at the end."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.adapter import tracking
from ecs_async_executor.core import usage
from ecs_async_executor.core.ledger import Ledger
from tests.engine.virtual_time import run
from tests.scale.day import Day
from tests.scale.sizes import Size, grown

pytestmark = [
    pytest.mark.slow,
    # Airflow's own use of what its dependencies deprecate is not ours to mend; our use of Airflow is.
    pytest.mark.filterwarnings("ignore:::(?!ecs_async_executor|tests)"),
]


@pytest.fixture(autouse=True)
def soon_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is kept up to a number be full after the first part of a day."""
    monkeypatch.setattr(tracking, "SPENT_IDENTITIES_KEPT", 200)
    monkeypatch.setattr(tracking, "SHARED_TEXTS_KEPT", 50)
    monkeypatch.setattr(usage, "RECENT_SECONDS", 5)


def live(launches: int = 2000) -> tuple[Day, dict[str, tuple[int, int]]]:
    """Live through twice the same; return the day, and what holds more after the second half."""
    day = Day(launches=launches, seconds=launches / 10, parts=(0.5, 0.5), heartbeat=2.0, peer_lives=40.0)
    idle: list[dict[str, Size]] = []

    def look(day: Day, _: float, is_over: bool) -> None:
        if is_over:
            idle.append(day.sizes())
            assert not day.killed, "something holds a scheduler that was killed"

    run(day.run, 1e9, look)
    first, second = idle
    return day, grown(first, second)


def test_a_day_loses_no_launch_runs_none_twice_and_leaves_nothing_behind() -> None:
    day, more = live()
    assert more == {}
    assert (day.lost, day.told_twice, day.cloud.ran_twice) == ([], [], [])
    for happened in (
        "success",
        "failed",
        "deferrals",
        "retries",
        "adopted",
        "schedulers killed",
        "loop threads died",
    ):
        assert day.counts[happened] > 0, happened


def test_the_day_sees_a_collection_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Ledger._forget

    def forget(ledger: Any, tracked: Any, now: float) -> None:
        finish(ledger, tracked, now)
        ledger._by_key[tracked.number, "left behind"] = tracked

    monkeypatch.setattr(Ledger, "_forget", forget)
    _, more = live(300)
    before, after = more["ledger._by_key"]
    assert after > before + 100
