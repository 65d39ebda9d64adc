"""Which placement a launch is sent to, as tables: what is closed since when and for what, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ecs_async_executor.core.choosing import Choosing, Outage
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.events import Barred
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.queue import UNKNOWN, LaunchQueue, Way
from tests.core.lives import tracked, waiting
from tests.rules import rules

NOW = 1000.0
PATIENCE = 60.0
RULES = rules()
WAYS = tuple(Way(name, f"placement of {name}", f"bucket of {name}") for name in ("spot", "on-demand", "ec2"))


@dataclass(frozen=True)
class Closed:
    """Since how many seconds, for what, when the next probe is due; ``room``: a container found none, or waits."""

    ago: float
    kind: Kind = Kind.CAPACITY
    probe_in: float = 5.0
    room: bool = False
    waits: bool = False


OPEN = None
FULL, LONG_FULL, DUE = Closed(30.0), Closed(90.0), Closed(90.0, probe_in=0.0)
REFUSES, LONG_REFUSES = Closed(90.0, Kind.REFUSED), Closed(150.0, Kind.REFUSED)
NO_ROOM, LONG_NO_ROOM = Closed(30.0, room=True), Closed(90.0, room=True)
WAITED, LONG_WAITED = Closed(30.0, waits=True), Closed(90.0, waits=True)


def choosing(*states: Closed | None) -> tuple[Choosing, LaunchQueue]:
    placements = Placements()
    for way, closed in zip(WAYS, states, strict=False):
        if closed is None:
            continue
        assert way.placement is not None
        since = NOW - closed.ago
        if closed.waits:
            reason = f"{way.choice}'s words"
            placements.waits_for_place(way.placement, reason, since=since, patience=0.0, now=NOW - 1.0)
            continue
        if closed.room:
            placements.had_no_place(way.placement, 1, f"{way.choice}'s words", since=since, now=NOW - 1.0)
            continue
        gate = placements.gate(way.placement)
        placements.refused(way.placement, gate, closed.kind, f"{way.choice}'s words", NOW - closed.ago)
        gate._next_probe_at = NOW + closed.probe_in
    queue = LaunchQueue(WAYS[: len(states)], PATIENCE)
    queue.heap.append((0, 0, 1, 1, tracked(waiting())))
    return Choosing(placements, RULES), queue


def at_once(_: Way, now: float) -> float:
    return now


@pytest.mark.parametrize(
    ("states", "name"),
    [
        ((OPEN,), "spot"),
        ((LONG_FULL,), None),
        ((DUE,), "spot"),
        ((OPEN, OPEN), "spot"),
        ((FULL, OPEN), None),
        ((LONG_FULL, OPEN), "on-demand"),
        ((DUE, OPEN), "spot"),
        ((LONG_FULL, FULL), None),
        ((LONG_FULL, DUE), "on-demand"),
        ((LONG_FULL, FULL, OPEN), "ec2"),
        ((LONG_FULL, DUE, OPEN), "on-demand"),
        ((LONG_FULL, LONG_FULL, LONG_FULL), None),
        ((REFUSES, OPEN), None),
        ((LONG_REFUSES, OPEN), "on-demand"),
        ((LONG_FULL, REFUSES, OPEN), "ec2"),
        ((LONG_FULL, REFUSES), None),
        ((NO_ROOM,), "spot"),
        ((NO_ROOM, OPEN), None),
        ((LONG_NO_ROOM, OPEN), "on-demand"),
        ((LONG_NO_ROOM, FULL), "spot"),
        ((LONG_FULL, NO_ROOM), "on-demand"),
        ((LONG_NO_ROOM, NO_ROOM), "spot"),
        ((WAITED, OPEN), "spot"),
        ((LONG_WAITED, OPEN), "on-demand"),
        ((LONG_WAITED, WAITED), "spot"),
        ((LONG_WAITED, WAITED, OPEN), "ec2"),
        ((LONG_WAITED, FULL), "spot"),
        ((LONG_FULL, WAITED), "on-demand"),
    ],
)
def test_the_first_open_placement_is_used_once_the_best_has_been_closed_for_long_enough(
    states: tuple[Closed | None, ...], name: str | None
) -> None:
    chooser, queue = choosing(*states)
    way, wake_at = chooser.way(queue, NOW, at_once)
    assert (way.choice if way is not None else None) == name
    assert way is not None or NOW < wake_at <= NOW + 60.0


@pytest.mark.parametrize(("patience", "leaves_at"), [(60.0, NOW + 30.0), (20.0, None), (0.0, None)])
def test_a_launch_looks_again_when_its_patience_is_spent(patience: float, leaves_at: float | None) -> None:
    chooser, queue = choosing(Closed(30.0, probe_in=45.0), OPEN)
    queue.patience = patience
    way, wake_at = chooser.way(queue, NOW, at_once)
    assert (wake_at if way is None else None) == leaves_at


@pytest.mark.parametrize(
    ("states", "name", "asked"),
    [
        ((OPEN, OPEN), None, ["spot"]),
        ((LONG_FULL, OPEN), None, ["on-demand"]),
        ((DUE, OPEN), "on-demand", ["spot", "on-demand"]),
        ((Closed(30.0, probe_in=0.0), OPEN), None, ["spot"]),
    ],
)
def test_waiting_for_a_rate_is_no_reason_to_go_elsewhere_but_a_probe_holds_nobody_up(
    states: tuple[Closed | None, ...], name: str | None, asked: list[str]
) -> None:
    chooser, queue = choosing(*states)
    questions: list[str | None] = []

    def ready_at(way: Way, now: float) -> float:
        questions.append(way.choice)
        return now + 2.0 if way.choice != name else now

    way, wake_at = chooser.way(queue, NOW, ready_at)
    assert (way.choice if way is not None else None) == name
    assert way is not None or wake_at == NOW + 2.0
    assert questions == asked


@pytest.mark.parametrize(
    ("states", "down_for", "name"),
    [
        ((OPEN, OPEN), {"spot": 30.0}, None),
        ((OPEN, OPEN), {"spot": 60.0}, "on-demand"),
        ((OPEN, OPEN), {"on-demand": 60.0}, "spot"),
        ((LONG_FULL, OPEN, OPEN), {"on-demand": 1.0}, "ec2"),
        ((OPEN, FULL, OPEN), {"spot": 60.0}, "ec2"),
        ((OPEN, NO_ROOM), {"spot": 60.0}, "on-demand"),
        ((OPEN, FULL), {"spot": 60.0}, None),
        ((DUE, OPEN), {"spot": 10.0}, "on-demand"),
        ((REFUSES, OPEN), {"spot": 60.0}, "on-demand"),
        ((OPEN, OPEN), {"spot": 60.0, "on-demand": 60.0}, "spot"),
        ((OPEN,), {"spot": 60.0}, "spot"),
    ],
)
def test_a_destination_out_of_reach_is_left_after_the_patience_if_another_is_not(
    states: tuple[Closed | None, ...], down_for: dict[str, float], name: str | None
) -> None:
    def outage(way: Way, now: float) -> Outage | None:
        return Outage(now - down_for[str(way.choice)], "expired") if way.choice in down_for else None

    chooser, queue = choosing(*states)
    way, wake_at = chooser.way(queue, NOW, at_once, outage)
    assert (way.choice if way is not None else None) == name
    assert way is not None or NOW < wake_at <= NOW + 60.0


def test_people_read_that_the_best_placement_of_a_launch_is_out_of_reach() -> None:
    chooser, queue = choosing(OPEN, OPEN)
    words = chooser.instead(queue, WAYS[1], NOW, lambda way, now: Outage(now - 61.0, "AWS credentials: expired"))
    assert words == (
        "Launched at placement 'on-demand': 'spot' has been out of reach for 61 s: AWS credentials: expired"
    )


def test_where_a_placement_is_not_known_the_request_tells_it() -> None:
    chooser, _ = choosing(LONG_FULL, FULL)
    assert chooser.way(LaunchQueue(UNKNOWN, 0.0), NOW, at_once)[0] == Way()
    unknown = Way("ec2")
    queue = LaunchQueue((*WAYS[:2], unknown), PATIENCE)
    assert chooser.way(queue, NOW, at_once)[0] is unknown
    assert chooser.barred(LaunchQueue(UNKNOWN, 0.0), NOW) is None


@pytest.mark.parametrize(
    ("states", "way", "words"),
    [
        (
            (LONG_FULL, OPEN),
            WAYS[1],
            "Launched at placement 'on-demand': 'spot' has been full for 90 s: spot's words",
        ),
        (
            (LONG_REFUSES, LONG_FULL, OPEN),
            WAYS[2],
            "Launched at placement 'ec2': 'spot' has refused launches for 150 s: spot's words",
        ),
        (
            (LONG_NO_ROOM, OPEN),
            WAYS[1],
            "Launched at placement 'on-demand': 'spot' has been full for 90 s: spot's words",
        ),
        ((DUE, OPEN), WAYS[0], ""),
        ((OPEN, OPEN), WAYS[0], ""),
        ((OPEN, OPEN), WAYS[1], ""),
    ],
)
def test_people_read_why_a_launch_is_not_at_its_best_placement(
    states: tuple[Closed | None, ...], way: Way, words: str
) -> None:
    chooser, queue = choosing(*states)
    assert chooser.instead(queue, way, NOW) == words


@pytest.mark.parametrize(
    ("states", "kind", "ago", "elsewhere"),
    [
        ((OPEN,), None, 0.0, False),
        ((LONG_FULL,), Kind.CAPACITY, 90.0, False),
        ((NO_ROOM,), None, 0.0, False),
        ((OPEN, LONG_FULL), None, 0.0, False),
        ((FULL, OPEN), Kind.CAPACITY, 30.0, True),
        ((REFUSES, OPEN), Kind.REFUSED, 90.0, True),
        ((LONG_FULL, OPEN), None, 0.0, False),
        ((LONG_FULL, FULL), Kind.CAPACITY, 30.0, False),
        ((LONG_FULL, LONG_REFUSES), Kind.CAPACITY, 90.0, False),
        ((LONG_REFUSES, FULL), Kind.CAPACITY, 30.0, False),
        ((LONG_REFUSES, REFUSES), Kind.REFUSED, 90.0, False),
        ((LONG_FULL, FULL, OPEN), None, 0.0, False),
        ((LONG_NO_ROOM, LONG_FULL), None, 0.0, False),
    ],
)
def test_the_wait_counts_only_while_every_placement_is_closed(
    states: tuple[Closed | None, ...], kind: Kind | None, ago: float, elsewhere: bool
) -> None:
    chooser, queue = choosing(*states)
    barred = chooser.barred(queue, NOW)
    if kind is None:
        assert barred is None
        return
    assert isinstance(barred, Barred)
    assert (barred.kind, barred.since, barred.elsewhere) == (kind, NOW - ago, elsewhere)
    assert barred.placement == WAYS[states == (LONG_REFUSES, FULL)].placement


@pytest.mark.parametrize(
    ("states", "waits"),
    [((LONG_FULL, OPEN), {}), ((FULL, OPEN), {}), ((LONG_FULL, FULL), {Kind.CAPACITY: 30.0})],
)
def test_a_placement_that_launches_leave_is_no_wait(
    states: tuple[Closed | None, ...], waits: dict[Kind, float]
) -> None:
    chooser, queue = choosing(*states)
    for number, way in enumerate(queue.ways):
        assert way.placement is not None
        assert way.choice is not None
        chooser._placements.chosen(way.placement, way.choice, number, NOW)
    assert chooser.longest_waits([queue], NOW) == waits
    assert chooser.longest_waits([], NOW) == {}, "nobody waits"


def test_a_closed_placement_without_choice_is_a_wait_even_when_nobody_waits() -> None:
    chooser, _ = choosing(LONG_FULL)
    assert chooser.longest_waits([], NOW) == {Kind.CAPACITY: 90.0}


@pytest.mark.parametrize(("state", "waits"), [(WAITED, False), (LONG_WAITED, False), (NO_ROOM, True)])
def test_nobody_is_told_to_wait_where_containers_can_wait(state: Closed, waits: bool) -> None:
    chooser, queue = choosing(state, OPEN)
    assert (chooser.barred(queue, NOW) is not None) == waits
