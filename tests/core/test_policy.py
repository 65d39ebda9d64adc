"""What to do about an error, as a table."""

from __future__ import annotations

import itertools

import pytest

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.policy import Verdict, delay, relaunch_delay, verdict

FIRST, RESENT = False, True
VERDICTS = {
    (Kind.THROTTLED, FIRST): Verdict.AGAIN,
    (Kind.THROTTLED, RESENT): Verdict.RESEND,
    (Kind.CONCURRENT, FIRST): Verdict.AGAIN,
    (Kind.CONCURRENT, RESENT): Verdict.RESEND,
    (Kind.AMBIGUOUS, FIRST): Verdict.RESEND,
    (Kind.AMBIGUOUS, RESENT): Verdict.RESEND,
    (Kind.UNSENT, FIRST): Verdict.AGAIN,
    (Kind.UNSENT, RESENT): Verdict.RESEND,
    (Kind.CAPACITY, FIRST): Verdict.GATE,
    (Kind.CAPACITY, RESENT): Verdict.RESEND,
    (Kind.CREDENTIALS, FIRST): Verdict.PAUSE,
    (Kind.CREDENTIALS, RESENT): Verdict.PAUSE,
    (Kind.REFUSED, FIRST): Verdict.GATE,
    (Kind.REFUSED, RESENT): Verdict.RESEND,
    (Kind.INVALID, FIRST): Verdict.FAIL,
    (Kind.INVALID, RESENT): Verdict.FAIL,
    (Kind.CONFLICT, FIRST): Verdict.AGAIN,
    (Kind.CONFLICT, RESENT): Verdict.RESEND,
    (Kind.NOT_FOUND, FIRST): Verdict.FAIL,
    (Kind.NOT_FOUND, RESENT): Verdict.FAIL,
}


def test_the_table_is_complete() -> None:
    assert set(VERDICTS) == set(itertools.product(Kind, (FIRST, RESENT)))


@pytest.mark.parametrize(("kind", "maybe_sent"), VERDICTS, ids=str)
@pytest.mark.parametrize("claimable", [False, True], ids=["nameless", "named"])
def test_verdict(kind: Kind, maybe_sent: bool, claimable: bool) -> None:
    """Only a conflict's container is this launch's."""
    claims = kind is Kind.CONFLICT and claimable
    expected = Verdict.CLAIM if claims else VERDICTS[kind, maybe_sent]
    assert verdict(kind, maybe_sent=maybe_sent, claimable=claimable) is expected


@pytest.mark.parametrize(("kind", "maybe_sent"), VERDICTS, ids=str)
def test_a_token_that_is_used_up_while_something_under_it_is_in_doubt_takes_a_search(
    kind: Kind, maybe_sent: bool
) -> None:
    expected = VERDICTS[kind, maybe_sent]
    if maybe_sent and expected is not Verdict.FAIL:
        expected = Verdict.SEARCH
    assert verdict(kind, maybe_sent=maybe_sent, token_used=True) is expected


GATED = {Kind.CAPACITY, Kind.REFUSED, Kind.CREDENTIALS}
CAPS = {Kind.THROTTLED: 5.0, Kind.CONCURRENT: 15.0, Kind.CONFLICT: 1.0}


@pytest.mark.parametrize("kind", sorted(GATED, key=str), ids=str)
def test_a_gate_says_when_so_the_launch_itself_does_not_wait(kind: Kind) -> None:
    assert {delay(kind, nth, 1.0) for nth in (1, 2, 100)} == {0.0}


@pytest.mark.parametrize("kind", sorted(set(Kind) - GATED, key=str), ids=str)
def test_delays_grow_to_a_limit_and_never_reach_zero(kind: Kind) -> None:
    for jitter in (0.0, 0.5, 1.0):
        delays = [delay(kind, nth, jitter) for nth in range(1, 100)]
        assert delays == sorted(delays)
        assert 0.0 < delays[0] < delays[-1] <= CAPS.get(kind, 30.0)
    assert delay(kind, 10**9, 1.0) == CAPS.get(kind, 30.0)
    assert delay(kind, 1, 0.0) == delay(kind, 1, 1.0) / 2


def test_relaunches_wait_longer_each_time_up_to_a_minute() -> None:
    assert [relaunch_delay(attempt, 1.0) for attempt in (1, 2, 3, 4, 5, 50)] == [2.0, 6.0, 18.0, 54.0, 60.0, 60.0]
    assert relaunch_delay(1, 0.0) == 1.0
