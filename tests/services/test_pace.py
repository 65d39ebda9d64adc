"""How often a process reads CloudWatch Logs."""

from __future__ import annotations

import threading

from ecs_async_executor.services import pace
from ecs_async_executor.services.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_after_a_rest_some_requests_pass_at_once_and_then_one_after_the_other() -> None:
    clock = Clock()
    turns = Pace(10.0, 3, clock)
    assert [round(turns.reserve(), 3) for _ in range(6)] == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]
    clock.now += 0.3
    assert round(turns.reserve(), 3) == 0.1
    clock.now += 60.0
    assert [round(turns.reserve(), 3) for _ in range(4)] == [0.0, 0.0, 0.0, 0.1]


def test_each_region_has_its_own_pace_below_its_quota() -> None:
    assert pace.of_log_reads("eu-west-1") is pace.of_log_reads("eu-west-1")
    assert pace.of_log_reads("eu-west-1") is not pace.of_log_reads("us-east-1")
    intervals = {region: pace.of_log_reads(region)._interval for region in ("eu-west-1", "us-east-1")}
    assert intervals == {"eu-west-1": 1 / 5.0, "us-east-1": 1 / 12.5}


def test_readers_in_several_threads_share_a_pace() -> None:
    turns = Pace(10.0, 1, Clock())
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.append(turns.reserve())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(round(one, 3) for one in waits) == [round(0.1 * n, 3) for n in range(8)]
