"""What is counted of a bucket's calls, and for how long."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.usage import RECENT_SECONDS, USED_SECONDS, Usage, Used


def send(usage: Usage, per_second: int, begin: float, seconds: int) -> None:
    for number in range(per_second * seconds):
        usage.sent(begin + number / per_second)


def test_nothing_has_been_sent_at_first() -> None:
    assert Usage().figures(5.0) == Used()


def test_the_present_use_is_the_mean_of_the_last_seconds() -> None:
    usage = Usage()
    send(usage, 20, 100.0, 30)
    assert usage.figures(130.0).used == 20.0
    assert usage.figures(130.0).calls == 600
    assert usage.figures(130.0 + USED_SECONDS / 2).used == 10.0
    assert usage.figures(131.0 + USED_SECONDS).used == 0.0


def test_what_is_long_ago_does_not_count() -> None:
    usage = Usage()
    send(usage, 5, 0.0, 10)
    usage.refused(9.0, 5.0)
    assert (usage.figures(11.0).calls, usage.figures(11.0).refused) == (50, 1)
    assert usage.figures(20.0 + RECENT_SECONDS) == Used()


def test_a_call_knows_how_many_went_in_the_second_before_it() -> None:
    usage = Usage()
    send(usage, 20, 100.0, 5)
    assert usage.sent(105.0) == pytest.approx(21.0)
    assert usage.sent(105.5) == pytest.approx(2 + 20 * 0.5)
    assert usage.sent(300.0) == 1


def test_a_series_of_refusals_goes_on_until_there_is_none_for_ten_minutes() -> None:
    usage = Usage()
    usage.refused(100.0, 20.0)
    usage.refused(100.0 + RECENT_SECONDS, 10.0)
    seen = usage.figures(101.0 + RECENT_SECONDS)
    assert (seen.refused_since, seen.refused_at, seen.sent_when_refused) == (100.0, 700.0, 19.0)
    later = 800.0 + RECENT_SECONDS
    usage.refused(later, 4.0)
    seen = usage.figures(later)
    assert (seen.refused_since, seen.sent_when_refused, seen.refused) == (later, 4.0, 1)


def test_a_clock_that_is_read_late_makes_no_second_of_its_own() -> None:
    usage = Usage()
    usage.sent(11.0)
    usage.sent(10.9)
    assert usage.figures(12.0).calls == 2


def test_seconds_of_long_ago_are_dropped_by_the_next_call_and_the_next_look() -> None:
    usage = Usage()
    send(usage, 1, 0.0, 50)
    usage.sent(RECENT_SECONDS + 20.5)
    assert len(usage._seconds) == 30
    usage.figures(3.0 * RECENT_SECONDS)
    assert not usage._seconds
