"""Placements whose launches are refused: why they are closed, when they are reviewed, when they are forgotten."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred
from ecs_async_executor.core.placements import Placements


def refused(placements: Placements, now: float, kind: Kind = Kind.CAPACITY, reason: str = "AGENT") -> None:
    gate = placements.gate("main")
    gate.probe_started(now)
    placements.refused("main", gate, kind, reason, now)


def test_an_open_placement_has_no_reason() -> None:
    placements = Placements()
    assert placements.barred("main") is None
    assert len(placements) == 0


def test_a_closed_placement_says_since_when_why_and_when_it_was_refused_last() -> None:
    placements = Placements()
    refused(placements, 10.0)
    refused(placements, 20.0, reason="RESOURCE:CPU")
    assert placements.barred("main") == Barred(Kind.CAPACITY, "RESOURCE:CPU", 10.0, 20.0, 5.0, "main")
    assert len(placements) == 1


def test_another_kind_of_refusal_begins_anew_while_the_gate_stays_closed() -> None:
    placements = Placements()
    refused(placements, 10.0)
    refused(placements, 20.0, Kind.REFUSED, "AccessDenied")
    refused(placements, 30.0, Kind.REFUSED, "AccessDenied")
    assert placements.barred("main") == Barred(Kind.REFUSED, "AccessDenied", 20.0, 30.0, 10.0, "main")


def test_a_late_answer_that_refuses_outweighs_a_want_of_room_until_the_next_probe() -> None:
    placements = Placements()
    refused(placements, 10.0)
    gate = placements.gate("main")
    placements.refused_late("main", Kind.REFUSED, "AccessDenied", 12.0)
    assert placements.barred("main") == Barred(Kind.REFUSED, "AccessDenied", 12.0, 12.0, 0.0, "main")
    assert gate.next_probe_at == 15.0
    placements.refused_late("main", Kind.CAPACITY, "AGENT", 13.0)
    assert placements.barred("main") == Barred(Kind.REFUSED, "AccessDenied", 12.0, 12.0, 0.0, "main")
    refused(placements, 15.0)
    assert placements.barred("main") == Barred(Kind.CAPACITY, "AGENT", 15.0, 15.0, 5.0, "main")


def test_a_late_answer_closes_no_placement_that_has_opened_meanwhile() -> None:
    placements = Placements()
    placements.refused_late("main", Kind.REFUSED, "AccessDenied", 12.0)
    assert placements.barred("main") is None


def test_a_probe_that_succeeds_opens_the_placement_and_forgets_the_reason() -> None:
    placements = Placements()
    refused(placements, 10.0, Kind.REFUSED)
    gate = placements.gate("main")
    gate.probe_started(15.0)
    placements.succeeded("main", gate)
    assert placements.barred("main") is None
    refused(placements, 30.0)
    closed = placements.barred("main")
    assert closed is not None
    assert (closed.kind, closed.since) == (Kind.CAPACITY, 30.0)


def test_a_review_begins_once_a_second_and_only_while_something_is_closed() -> None:
    placements = Placements()
    assert not placements.begins_review(0.0)
    refused(placements, 0.0)
    assert [placements.begins_review(now) for now in (0.0, 0.5, 1.0, 1.9, 2.0)] == [True, False, True, False, True]


@pytest.mark.parametrize(("needed_until", "forgotten_at"), [(-1.0, 60.0), (30.0, 90.0)])
def test_a_closed_gate_is_forgotten_a_minute_after_its_last_launch(
    needed_until: float, forgotten_at: float
) -> None:
    placements = Placements()
    refused(placements, 0.0)
    for second in range(121):
        now = float(second)
        gone = placements.forget(lambda: {"main"} if now <= needed_until else set(), now)  # noqa: B023
        assert gone == (["main"] if now == forgotten_at else [])
    assert placements.barred("main") is None
    refused(placements, 200.0)
    assert placements.forget(set, 200.0) == [], "the time before counts for the forgotten gate only"


def test_who_needs_the_gates_is_asked_only_while_one_is_closed() -> None:
    def needed() -> set[str | None]:
        raise AssertionError("asked")

    assert Placements().forget(needed, 100.0) == []


# --- room --------------------------------------------------------------------------------------------------------


def without_place(placements: Placements, now: float, number: int = 1, since: float = 0.0) -> None:
    placements.had_no_place("main", number, "RESOURCE:CPU", since=since, now=now)


def test_a_container_without_a_place_closes_the_room_since_it_began_to_look_and_not_the_gate() -> None:
    placements = Placements()
    without_place(placements, 600.0, since=20.0)
    assert placements.closed_since("main") is None
    assert placements.closed_since("main", room=True) == 20.0
    assert placements.may_pass("main", 600.0)
    assert not placements.may_pass("main", 600.0, room=True)
    assert placements.next_probe_at("main", room=True) == 605.0
    assert placements.barred("main") is None
    assert placements.barred("main", room=True) == Barred(Kind.CAPACITY, "RESOURCE:CPU", 20.0, 600.0, 0.0, "main")
    assert [placement for placement, _ in placements.closed()] == ["main"]
    assert len(placements) == 1


def test_the_time_in_which_later_ones_have_got_their_places_does_not_count() -> None:
    placements = Placements()
    placements.has_placed("main", since=400.0)
    placements.has_placed("main", since=10.0)
    without_place(placements, 600.0, since=20.0)
    assert placements.closed_since("main", room=True) == 400.0


def test_one_container_at_a_time_finds_out_whether_there_is_room() -> None:
    placements = Placements()
    without_place(placements, 10.0)
    placements.chosen("main", "spot", 7, 14.0)  # sent for another reason: no probe is due
    without_place(placements, 14.5, number=7)
    placements.chosen("main", "spot", 8, 15.0)
    assert not placements.may_pass("main", 100.0, room=True)
    without_place(placements, 100.0, number=9)  # an older one
    assert not placements.may_pass("main", 110.0, room=True)
    without_place(placements, 110.0, number=8)
    assert placements.next_probe_at("main", room=True) == 120.0, "twice as long after it"
    placements.chosen("main", "spot", 10, 120.0)
    placements.found_out_nothing("main", 11, 121.0)
    assert not placements.may_pass("main", 121.0, room=True)
    placements.give_up_probes(lambda placement, number: (placement, number) == ("main", 10), 121.0)
    assert not placements.may_pass("main", 121.0, room=True)
    placements.give_up_probes(lambda placement, number: False, 121.0)
    assert placements.may_pass("main", 121.0, room=True), "its answer was not about the room"
    assert placements.choice_of("main") == "spot"
    assert placements.choice_of("other") is None


def test_a_container_that_runs_opens_the_room_whoever_sent_it() -> None:
    placements = Placements()
    without_place(placements, 10.0)
    placements.has_placed("main", since=11.0)
    assert placements.closed_since("main", room=True) is None
    assert len(placements) == 0


def waits(placements: Placements, now: float, since: float = 0.0) -> bool:
    return placements.waits_for_place("main", "RUNNABLE", since=since, patience=60.0, now=now)


def test_a_container_that_waits_for_its_place_closes_the_room_once_its_launch_would_have_gone_elsewhere() -> None:
    placements = Placements()
    assert not waits(placements, 79.0, since=20.0)
    assert len(placements) == 0
    assert waits(placements, 80.0, since=20.0)
    assert not waits(placements, 85.0, since=20.0), "it is news once"
    assert placements.closed_since("main") is None
    assert placements.barred("main", room=True) == Barred(Kind.CAPACITY, "RUNNABLE", 20.0, 80.0, 0.0, "main")


def test_a_room_in_which_containers_wait_holds_back_whoever_has_no_patience_left() -> None:
    placements = Placements()
    waits(placements, 60.0)
    assert [placements.holds_back("main", patience, 100.0) for patience in (0.0, 100.0, 101.0)] == [
        True,
        True,
        False,
    ]
    without_place(placements, 100.0)
    assert placements.holds_back("main", 600.0, 100.0), "what waits there comes to nothing"
    assert placements.holds_back("other", 600.0, 100.0)


def test_only_a_container_that_has_not_been_overtaken_opens_the_room() -> None:
    """Where a queue moves, but slowly, each container gets its place after a wait that is too long."""
    placements = Placements()
    waits(placements, 200.0, since=100.0)
    placements.has_placed("main", since=99.0)
    assert placements.closed_since("main", room=True) == 100.0
    placements.has_placed("main", since=100.0)
    assert placements.closed_since("main", room=True) is None
    assert not waits(placements, 205.0, since=101.0), "closed again, but that is no news"
    assert placements.closed_since("main", room=True) == 101.0
    placements.has_placed("main", since=190.0)
    assert placements.closed_since("main", room=True) is None
    waits(placements, 249.0, since=101.0)
    assert placements.closed_since("main", room=True) is None, "it is a misfit: a later one has got a place"


def test_a_placement_that_launches_choose_is_remembered_for_an_hour() -> None:
    placements = Placements()
    refused(placements, 0.0)
    without_place(placements, 0.0)
    placements.chosen("main", "spot", 1, 0.0)
    gone = [now for now in range(0, 4000, 20) if placements.forget(set, float(now))]
    assert gone == [3600]
    assert placements.closed_since("main", room=True) is None
