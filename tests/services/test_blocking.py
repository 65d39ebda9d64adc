"""Calls that block are bounded, and questions without an answer do not pile up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from ecs_async_executor.services import blocking


class Question:
    """Blocks until it is answered."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> int:
        self.asked += 1
        assert self.go.wait(600)  # longer than any test takes; the fixture ends it
        if self.error:
            raise self.error
        return self.asked


@pytest.fixture
def question() -> Iterator[Question]:
    question = Question()
    yield question
    question.go.set()


def test_who_asks_what_is_asked_already_waits_for_the_same_answer(question: Question) -> None:
    async def run() -> list[int]:
        asking = [asyncio.create_task(blocking.call(question, "answer", 5, question)) for _ in range(5)]
        await asyncio.sleep(0.05)
        question.go.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(run()) == [1] * 5


def test_a_question_without_an_answer_is_asked_once_however_often_and_from_however_many_loops(
    question: Question,
) -> None:
    before = set(threading.enumerate())
    for _ in range(5):
        with pytest.raises(TimeoutError, match=r"^no answer within 0\.01 s$"):
            asyncio.run(blocking.call(question, "answer", 0.01, question))
    assert question.asked == 1
    assert len(set(threading.enumerate()) - before) == 1  # one of another test may have ended meanwhile
    question.go.set()


def test_an_answer_that_came_late_is_for_who_asks_next_and_for_nobody_after(question: Question) -> None:
    for answers in (1, 2):
        question.go.clear()
        with pytest.raises(TimeoutError):
            asyncio.run(blocking.call(question, "answer", 0.01, question))
        question.go.set()
        while blocking._asked[question].ended_at is None:
            time.sleep(0.001)
        assert question.asked == answers
        assert asyncio.run(blocking.call(question, "answer", 5, question)) == answers


def test_an_answer_that_came_long_ago_is_nobodys(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "KEPT_FOR", 0.0)
    with pytest.raises(TimeoutError):
        asyncio.run(blocking.call(question, "answer", 0.01, question))
    question.go.set()
    while blocking._asked[question].ended_at is None:
        time.sleep(0.001)
    assert asyncio.run(blocking.call(question, "answer", 5, question)) == 2


class Clock:
    """A clock that stands still but when it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(blocking, "time", clock)
    return clock


def asks(key: object, question: Question) -> bool:
    """Ask, and return whether there was an answer."""
    try:
        asyncio.run(blocking.call(key, "answer", 0.01, question))
    except TimeoutError:
        return False
    return True


def test_what_may_have_lost_whom_it_asks_is_asked_again_and_more_and_more_rarely(
    question: Question, clock: Clock
) -> None:
    before, asked_at = set(threading.enumerate()), []
    for minute in range(0, 24 * 60, 10):
        clock.now = 1000.0 + minute * 60
        known = question.asked
        asks(clock, question)
        if question.asked > known:
            asked_at.append(minute)
    assert asked_at == [0, 10, 30, 70, 150, 310, 630, 1270]
    assert len(set(threading.enumerate()) - before) == len(asked_at)


def test_once_an_abandoned_question_ends_the_next_one_is_asked_at_once(question: Question, clock: Clock) -> None:
    second, third = Question(), Question()
    third.go.set()
    asks(clock, question)
    clock.now += blocking.GIVEN_UP_AFTER
    for _ in range(3):
        asks(clock, second)
        asks(clock, third)
    assert (question.asked, second.asked, third.asked) == (1, 1, 0)
    question.go.set()
    while not asks(clock, third):
        time.sleep(0.001)
    assert third.asked == 1
    second.go.set()


def test_an_error_is_the_callers(question: Question) -> None:
    question.go.set()
    question.error = LookupError("no such connection")
    with pytest.raises(LookupError, match="no such connection"):
        asyncio.run(blocking.call(question, "answer", 5, question))
