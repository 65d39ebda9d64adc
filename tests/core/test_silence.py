"""A scheduler that does not call: both sides of it, without threads and clocks."""

from __future__ import annotations

from ecs_async_executor.core.silence import Heartbeats, SilenceWatch


def test_a_silence_begins_after_the_timeout_and_is_counted_when_it_ends() -> None:
    heartbeats = Heartbeats(20.0, 0.0)
    heartbeats.heartbeat(20.0)
    assert heartbeats.silences == 0
    assert not heartbeats.is_silent(40.0)
    assert heartbeats.is_silent(40.1)
    heartbeats.heartbeat(50.0)
    assert heartbeats.silences == 1
    assert heartbeats.age(53.0) == 3.0
    assert not heartbeats.is_silent(53.0)


def test_the_time_before_the_beginning_is_no_silence() -> None:
    heartbeats = Heartbeats(20.0, 0.0)
    heartbeats.begin(100.0)
    heartbeats.heartbeat(101.0)
    assert heartbeats.silences == 0


def test_without_a_timeout_there_is_no_silence() -> None:
    heartbeats = Heartbeats(None, 0.0)
    assert not heartbeats.is_silent(1e9)
    assert not SilenceWatch(None, lambda: 1e9, lambda: 0).notices()


def test_a_silence_holds_until_its_launches_are_looked_after() -> None:
    heartbeats, now = Heartbeats(20.0, 0.0), 0.0
    watch = SilenceWatch(20.0, lambda: heartbeats.age(now), lambda: heartbeats.silences)
    assert not watch.notices()
    now = 30.0
    assert watch.is_silent()
    assert watch.notices()
    heartbeats.heartbeat(now)
    assert not watch.is_silent()
    assert watch.notices()
    watch.looked_after()
    assert not watch.notices()


def test_a_silence_in_which_nothing_was_looked_at_is_noticed_afterwards() -> None:
    heartbeats, now = Heartbeats(20.0, 0.0), 0.0
    watch = SilenceWatch(20.0, lambda: heartbeats.age(now), lambda: heartbeats.silences)
    now = 30.0
    heartbeats.heartbeat(now)
    assert watch.notices()
