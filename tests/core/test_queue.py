"""Launch queues: launches with the same ways share one, a launch in doubt has one way, and urgency decides."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.phases import FRESH, Doubt, InDoubt, Patience, Tracked, Waiting
from ecs_async_executor.core.queue import ROUTES_KEPT, LaunchQueues, Way

TWO = Choices(("spot", "on-demand"), 60.0)


def launch(number: int, *, route: object = "route", priority: int = 0, probes: int = 0) -> Tracked:
    made = Launch(f"id {number}", f"key {number}", None, priority, "mark", 0.0, route=route)
    return Tracked(made, number, 0.0, Waiting(0.0, Patience(probes=probes) if probes else FRESH))


def spec(choice: str | None, placement: str | None = None) -> LaunchSpec:
    return LaunchSpec({}, "scope", placement or f"at {choice}", "bucket", choice=choice)


def test_a_launch_of_which_nothing_is_known_is_unknown_until_one_of_its_route_was_rendered() -> None:
    queues = LaunchQueues()
    first, second, other = launch(1), launch(2), launch(3, route="another")
    assert queues.queue_of(first) is queues.unknown
    queues.learn_choices(first, NO_CHOICES)
    assert queues.queue_of(second) is queues.unknown
    queues.learn_way(first, spec(None, "main"))
    assert queues.queue_of(first) is queues.queue_of(second)
    assert queues.queue_of(second).ways == (Way(None, "main", "bucket"),)
    assert queues.queue_of(other) is queues.unknown


def test_what_is_not_known_of_a_choice_is_a_way_without_placement() -> None:
    queues = LaunchQueues()
    first, second = launch(1), launch(2)
    queues.learn_choices(first, TWO)
    queues.learn_way(first, spec("spot"))
    assert queues.ways_of(second) == (Way("spot", "at spot", "bucket"), Way("on-demand"))
    queues.learn_way(second, spec("on-demand"))
    assert queues.ways_of(first) == (Way("spot", "at spot", "bucket"), Way("on-demand", "at on-demand", "bucket"))


def test_a_launchs_own_requests_count_before_the_latest_of_its_route() -> None:
    queues = LaunchQueues()
    first, second = launch(1), launch(2)
    queues.learn_choices(first, NO_CHOICES)
    queues.learn_way(first, spec(None, "small"))
    queues.learn_way(second, spec(None, "big"))
    assert queues.ways_of(first)[0].placement == "small"
    assert queues.ways_of(launch(3))[0].placement == "big"
    queues.forget(first)
    assert queues.ways_of(first)[0].placement == "big"


def test_launches_with_another_patience_wait_in_another_queue() -> None:
    queues = LaunchQueues()
    patient, impatient = launch(1), launch(2, route="impatient")
    queues.learn_choices(patient, TWO)
    queues.learn_choices(impatient, Choices(TWO.names, 5.0))
    for one in (patient, impatient):
        queues.learn_way(one, spec("spot"))
    assert queues.queue_of(patient).patience == 60.0
    assert queues.queue_of(impatient).patience == 5.0


def test_a_launch_in_doubt_has_the_way_of_its_request_and_no_other() -> None:
    queues = LaunchQueues()
    doubtful = launch(1)
    queues.learn_choices(doubtful, TWO)
    queues.learn_way(doubtful, spec("spot"))
    doubtful.phase = InDoubt(0.0, Doubt(0.0, spec("on-demand")))
    assert queues.ways_of(doubtful) == (Way("on-demand", "at on-demand", "bucket"),)
    doubtful.phase = InDoubt(0.0, Doubt(0.0, inherited=True))
    assert len(queues.ways_of(doubtful)) == 2, "what another scheduler has sent binds no request of ours"


def test_a_queue_is_dropped_once_nothing_waits_in_it_and_the_unknown_one_never() -> None:
    queues = LaunchQueues()
    one = launch(1)
    queues.learn_choices(one, NO_CHOICES)
    queues.learn_way(one, spec(None, "main"))
    queues.add(one, 0.0)
    queue = queues.queue_of(one)
    queues.drop(queue)
    assert queue in queues.queues.values(), "a launch waits"
    queues.pop(queue)
    queues.drop(queue)
    queues.drop(queues.unknown)
    assert list(queues.queues.values()) == [queues.unknown]


def test_no_more_routes_are_remembered_than_fit() -> None:
    queues = LaunchQueues()
    for number in range(3 * ROUTES_KEPT):
        one = launch(number, route=number)
        queues.learn_choices(one, NO_CHOICES)
        queues.learn_way(one, spec(None, "main"))
        queues.forget(one)
    assert len(queues._routes) <= ROUTES_KEPT
    assert not queues._own


@pytest.mark.parametrize(
    ("choices", "probes", "order"),
    [
        (NO_CHOICES, {}, [3, 2, 1]),
        (NO_CHOICES, {3: 1}, [2, 1, 3]),
        (TWO, {3: 1}, [3, 2, 1]),
        (TWO, {3: 2}, [2, 1, 3]),
    ],
)
def test_only_a_round_of_refused_probes_puts_a_launch_behind_the_others(
    choices: Choices, probes: dict[int, int], order: list[int]
) -> None:
    queues = LaunchQueues()
    launches = [launch(number, priority=number, probes=probes.get(number, 0)) for number in (1, 2, 3)]
    queues.learn_choices(launches[0], choices)
    queues.learn_way(launches[0], spec(choices.names[0] if choices.names else None, "main"))
    for one in launches:
        queues.add(one, 0.0)
    queue = queues.queue_of(launches[0])
    popped = []
    for _ in launches:
        head = queues.head(queue)
        assert head is not None
        popped.append(head.number)
        queues.pop(queue)
    assert popped == order


def test_launches_that_leave_go_by_urgency_alone() -> None:
    queues = LaunchQueues()
    launches = [launch(number, priority=number, probes=2 * number) for number in (1, 2, 3)]
    queues.learn_choices(launches[0], TWO)
    queues.learn_way(launches[0], spec("spot"))
    for one in launches:
        queues.add(one, 0.0)
    queue = queues.queue_of(launches[0])
    assert queues.head(queue) is launches[0]
    queues.forgive(queue)
    assert queues.head(queue) is launches[2]
    assert not queue.tried


def test_every_way_of_a_waiting_launch_is_needed() -> None:
    queues = LaunchQueues()
    one, sent = launch(1), launch(2, route="sent")
    queues.learn_choices(one, TWO)
    for choice in TWO.names:
        queues.learn_way(one, spec(choice))
    queues.learn_choices(sent, NO_CHOICES)
    queues.learn_way(sent, spec(None, "main"))
    queues.add(one, 0.0)
    assert queues.needed_placements([sent]) == {"at spot", "at on-demand", "main"}
    queues.forget(one)
    assert queues.needed_placements([]) == set()
