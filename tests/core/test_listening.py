"""What a message means, how long it may go round, and when sweeps may stretch."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.listening import (
    LATE_SECONDS,
    MOST_RECEIVES,
    OLD_SECONDS,
    STRETCHED_SECONDS,
    Early,
    Hearing,
    Hint,
    Message,
    left_for_others,
)

STOPPED, RUNNING = Seen.STOPPED, Seen.RUNNING


def test_a_strangers_message_goes_round_a_few_times_for_longer_and_longer_and_then_ends() -> None:
    waits = [left_for_others(Message("r", None, receives=receives)) for receives in range(1, MOST_RECEIVES + 1)]
    assert waits == [*[0.0] * 6, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0, 16.0, None]
    assert left_for_others(Message("r", None, age=OLD_SECONDS)) is None


class Ends:
    """Ends of containers, one a second, with an event or without."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hearing = Hearing(self.now)
        self.hearing.answered(self.now)
        self.now += LATE_SECONDS
        self.number = 0

    def heard(self, times: int = 1, *, first: bool = True) -> None:
        for _ in range(times):
            handle_id = self._next()
            if first:
                self.hearing.heard(Hint(handle_id, STOPPED), self.now)
                self.hearing.ended(handle_id, self.now)
            else:
                self.hearing.ended(handle_id, self.now)
                self.hearing.heard(Hint(handle_id, STOPPED), self.now + 1.0)

    def missed(self, times: int = 1) -> None:
        for _ in range(times):
            self.hearing.ended(self._next(), self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.hearing.advance(self.now)

    def _next(self) -> str:
        self.passes(1.0)
        self.number += 1
        return f"c{self.number}"

    @property
    def interval(self) -> float:
        return self.hearing.interval(1.0)


@pytest.mark.parametrize("first", [True, False])
def test_the_time_between_sweeps_doubles_with_every_eight_ends_that_have_an_event(first: bool) -> None:
    ends, intervals = Ends(), []
    for _ in range(8):
        ends.heard(8, first=first)
        intervals.append(ends.interval)
    assert intervals == [2.0, 4.0, 8.0, 16.0, 32.0, STRETCHED_SECONDS, STRETCHED_SECONDS, STRETCHED_SECONDS]


def test_sweeps_that_are_rarer_anyway_stay_so() -> None:
    ends = Ends()
    ends.heard(100)
    assert ends.hearing.interval(90.0) == 90.0


def test_one_missed_end_in_a_hundred_ends_it_and_a_hundred_more_with_an_event_begin_it_again() -> None:
    ends = Ends()
    ends.heard(50)
    ends.missed()
    ends.passes(LATE_SECONDS)
    assert ends.interval == 1.0
    ends.heard(40)
    assert ends.interval == 1.0
    ends.heard(100)
    assert ends.interval == STRETCHED_SECONDS


def test_fewer_missed_ends_are_borne() -> None:
    ends = Ends()
    for _ in range(20):
        ends.heard(150)
        ends.missed()
    ends.passes(LATE_SECONDS)
    assert ends.hearing.missed == 20
    assert ends.interval == STRETCHED_SECONDS


def test_an_event_that_comes_late_but_in_time_is_no_miss() -> None:
    ends = Ends()
    ends.heard(50)
    ends.missed()
    ends.passes(LATE_SECONDS - 1.0)
    ends.hearing.heard(Hint(f"c{ends.number}", STOPPED), ends.now)
    ends.passes(LATE_SECONDS)
    assert (ends.hearing.missed, ends.interval) == (0, STRETCHED_SECONDS)


def test_that_a_container_ran_says_nothing_about_the_event_of_its_end() -> None:
    ends = Ends()
    ends.hearing.heard(Hint("c1", RUNNING), ends.now)
    ends.missed()
    ends.passes(LATE_SECONDS)
    assert ends.hearing.missed == 1


def test_a_queue_that_is_silent_while_containers_end_is_distrusted_before_any_event_is_late() -> None:
    ends = Ends()
    ends.heard(100)
    ends.missed(8)
    assert ends.interval == STRETCHED_SECONDS
    ends.passes(0.0)
    assert ends.hearing.missed == 0
    assert ends.interval == 1.0


def quiet(every: float = 1.0, times: int = 200) -> Ends:
    """Return ends whose events have come at a steady rate, and no event since."""
    ends = Ends()
    for _ in range(times):
        ends.heard()
        ends.passes(every - 1.0)
        ends.hearing.came(ends.now)
    return ends


def test_without_events_for_some_seconds_a_sweep_looks_why() -> None:
    ends = quiet()
    ends.passes(4.0)
    assert ends.interval == STRETCHED_SECONDS
    ends.passes(1.0)
    assert ends.interval == 1.0
    assert ends.hearing.is_trusted


def test_a_look_that_finds_nothing_is_the_last_until_an_event_comes() -> None:
    ends = quiet()
    ends.passes(5.0)
    ends.hearing.swept(ends.now - 1.0)  # it began before
    assert ends.interval == 1.0
    ends.hearing.swept(ends.now)
    assert ends.interval == STRETCHED_SECONDS
    ends.passes(300.0)
    assert ends.interval == STRETCHED_SECONDS


def test_a_look_that_finds_an_end_without_its_event_goes_on_until_it_comes_or_is_missed() -> None:
    ends = quiet()
    ends.passes(5.0)
    ends.missed()
    ends.hearing.swept(ends.now)
    assert ends.interval == 1.0
    ends.passes(LATE_SECONDS)
    assert (ends.hearing.missed, ends.interval) == (1, 1.0)
    ends.hearing.swept(ends.now)
    assert ends.interval == STRETCHED_SECONDS  # one in two hundred is borne


def test_an_event_ends_the_look_whosever_it_is() -> None:
    ends = quiet()
    ends.passes(5.0)
    ends.hearing.came(ends.now)
    assert ends.interval == STRETCHED_SECONDS


def test_where_events_come_in_bursts_the_time_between_them_is_no_silence() -> None:
    ends = quiet(every=20.0)
    ends.passes(39.0)
    assert ends.interval == STRETCHED_SECONDS
    ends.passes(1.0)
    assert ends.interval == 1.0


def test_a_night_without_events_does_not_make_a_silence_of_the_morning_usual() -> None:
    ends = quiet()
    ends.passes(8 * 3600.0)
    ends.heard()
    ends.hearing.came(ends.now)
    ends.passes(5.0)
    assert ends.interval == 1.0


def test_many_ends_at_once_do_not_make_a_queue_silent() -> None:
    ends = Ends()
    ends.heard(100)
    for number in range(50):
        ends.hearing.ended(f"burst-{number}", ends.now)
    ends.passes(1.0)
    assert ends.interval == STRETCHED_SECONDS
    for number in range(50):
        ends.hearing.heard(Hint(f"burst-{number}", STOPPED), ends.now)
    ends.passes(LATE_SECONDS)
    assert (ends.hearing.missed, ends.interval) == (0, STRETCHED_SECONDS)


def test_a_queue_that_fails_is_not_waited_for_and_its_outage_counts_no_miss() -> None:
    ends = Ends()
    ends.heard(100)
    ends.missed()
    ends.hearing.failed("denied")
    assert ends.interval == 1.0
    ends.missed(30)
    ends.passes(LATE_SECONDS)
    ends.hearing.answered(ends.now)
    assert (ends.hearing.missed, ends.interval) == (0, STRETCHED_SECONDS)
    ends.missed()  # its event can have come while the queue was not read
    ends.passes(LATE_SECONDS)
    assert ends.hearing.missed == 0


def test_ends_right_after_the_beginning_are_no_misses() -> None:
    hearing = Hearing(0.0)
    hearing.answered(0.0)
    hearing.ended("a", 1.0)
    hearing.advance(100.0)
    assert hearing.missed == 0


def test_a_container_is_known_for_some_minutes_after_its_end() -> None:
    ends = Ends()
    ends.heard()
    assert ends.hearing.was_ours("c1")
    ends.passes(301.0)
    assert not ends.hearing.was_ours("c1")


def test_nothing_is_remembered_for_ever() -> None:
    ends = Ends()
    for number in range(30_000):
        ends.hearing.heard(Hint(f"told-{number}", STOPPED), ends.now)
        ends.hearing.ended(f"over-{number}", ends.now)
    assert all(len(memory) <= 30_000 for memory in (ends.hearing._told, ends.hearing._over))
    ends.passes(400.0)
    assert not ends.hearing._told
    assert not ends.hearing._over
    assert not ends.hearing._unheard


def test_an_early_event_waits_some_seconds_for_the_answer_to_its_launch() -> None:
    early = Early()
    early.add(Hint("a", STOPPED), 0.0)
    early.add(Hint("b", STOPPED), 0.0)
    assert early.take({"a": 1}, 1.0) == [Hint("a", STOPPED)]
    assert early.take({"a": 1}, 2.0) == []
    assert early.take({}, 5.0) == []
    assert early.take({"b": 1}, 5.0) == []
    for number in range(2000):
        early.add(Hint(f"c{number}"), 6.0)
    assert len(early) == 1000
