"""Launches with several placements: none waits behind a full one that it can leave, and all return to the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import AirflowState, Launch, Notice
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import DENIED, NO_MEMORY, THROTTLED, TIMED_OUT, failing
from tests.engine.harness import OPTIONS, QUOTA, RULES, Harness, make_launch, under_a_new_id

pytestmark = pytest.mark.anyio

THREE = Choices(("spot", "on-demand", "ec2"), 60.0)
TWO = Choices(("spot", "on-demand"), 60.0)
NOTHING = BackendError(Kind.CAPACITY, "Capacity", "Capacity is unavailable at this time.", token_used=True)
PROBES = 60.0
"""The longest time from one probe to the next."""


def having(choices: Choices, **of_label: Choices) -> Callable[[Launch], Choices]:
    return lambda launch: of_label.get(launch.label, choices)


def placements(cloud: FakeCloud) -> Counter[str]:
    return Counter(container.placement for container in cloud.containers.values())


def placed_at(cloud: FakeCloud, label: str) -> list[tuple[str, float]]:
    return [(container.placement, container.created) for container in cloud.of(label)]


def elsewhere(harness: Harness, label: str) -> list[str]:
    return [notice.text for notice in harness.notices(label) if notice.event == "container placed elsewhere"]


async def test_the_best_placement_is_used_while_it_has_room() -> None:
    cloud = FakeCloud()
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 100)
    assert placements(cloud) == {"spot": 100}
    assert {finished.choice for finished in harness.ends} == {"spot"}
    assert not any(isinstance(report, Notice) for report in harness.reports)


async def test_launches_leave_a_full_placement_after_their_patience_and_the_event_log_says_why() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(59)
        assert not cloud.containers
        assert all(len(harness.notices(f"w{n}")) == 1 for n in range(100)), "that they wait"
        await harness.until(lambda: len(harness.finished()) == 100)
        assert anyio.current_time() < 75
        assert harness.snapshots[-1].chosen == {"on-demand": 100}
    assert placements(cloud) == {"on-demand": 100}
    for n in range(100):
        [text] = elsewhere(harness, f"w{n}")
        assert text.startswith("Launched at placement 'on-demand': 'spot' has been full for 6")
        assert text.endswith(" s: Capacity: Capacity is unavailable at this time.")
        [finished] = harness.finished(f"w{n}")
        assert (finished.success, finished.choice) == (True, "on-demand")


@pytest.mark.parametrize("patience", [0.0, 5.0, 300.0])
async def test_each_launch_has_its_own_patience(patience: float) -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    choices = having(TWO, impatient=Choices(TWO.names, patience))
    async with Harness(cloud, choices=choices).running() as harness:
        harness.launch("other", route="other")
        harness.launch("impatient", route="impatient")
        await harness.until(lambda: len(harness.finished()) == 2)
    [(_, other)], [(_, impatient)] = placed_at(cloud, "other"), placed_at(cloud, "impatient")
    assert 60 <= other < 61
    assert patience <= impatient < patience + 1


async def test_a_launch_that_comes_to_a_placement_which_has_long_been_full_leaves_at_once() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        for n in range(20):
            await anyio.sleep(7)
            harness.launch(f"w{n}")
            await harness.until_launched(f"w{n}", timeout=0.5)
            assert len(harness.notices(f"w{n}")) == 1, "where it is, and why; not that it waits"
    assert placements(cloud) == {"on-demand": 21}


@pytest.mark.parametrize("gap", [130.0, 1500.0])
async def test_after_a_while_without_launches_the_next_one_is_a_probe_and_need_not_be_patient_again(
    gap: float,
) -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        harness.launch("first")
        await harness.until_finished("first")
        await anyio.sleep(gap)
        before = cloud.calls["launch"]
        harness.launch("second")
        await harness.until_launched("second", timeout=1)
        assert cloud.calls["launch"] == before + 2
        del cloud.full["spot"]
        await anyio.sleep(gap)
        harness.launch("third")
        await harness.until_launched("third", timeout=1)
    assert placed_at(cloud, "second")[0][0] == "on-demand"
    assert placed_at(cloud, "third")[0][0] == "spot"


async def test_probes_of_the_better_placement_go_on_and_new_launches_return_as_soon_as_one_succeeds() -> None:
    cloud, probes = FakeCloud(), 0
    cloud.full["spot"] = NOTHING
    probes = 0
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for second in range(600):
            if second == 300:
                del cloud.full["spot"]
                probes = cloud.calls["launch"] - len(cloud.containers)
            harness.launch(f"w{second}")
            await anyio.sleep(1)
        await harness.until(lambda: len(harness.finished()) == 600)
    assert 7 <= probes <= 12, "5, 10, 20, 40, 60 s apart"
    went = [(second, placed_at(cloud, f"w{second}")[0]) for second in range(600)]
    back = min(second for second, (placement, _) in went if placement == "spot")
    assert 300 <= back <= 300 + PROBES + 1
    assert all(placement == "spot" for second, (placement, _) in went if second > back)
    assert all(placement == "on-demand" for second, (placement, _) in went if second < back)
    waited = [at - second for second, (_, at) in went if second > 61]
    assert max(waited) < 1, "the probe too: its patience is spent"
    assert all(len(elsewhere(harness, f"w{second}")) == (second < back) for second in range(600))


async def test_a_backlog_returns_to_the_better_placement_too() -> None:
    """What waits for the rate of the next one is not bound to it."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000.0))
    cloud.full["spot"] = NOTHING
    slow = replace(OPTIONS, launch_rate=lambda bucket: 1.0, launch_rate_max=1.0, launch_burst=1)
    async with Harness(cloud, choices=having(Choices(TWO.names, 0.0)), options=slow).running() as harness:
        for n in range(300):
            harness.launch(f"w{n}")
        await anyio.sleep(60)
        del cloud.full["spot"]
        await harness.until(lambda: len(cloud.containers) == 300)
    assert placements(cloud)["on-demand"] < 60 + PROBES
    assert placements(cloud)["spot"] > 300 - 60 - PROBES


async def test_of_several_full_placements_the_first_that_is_not_is_used() -> None:
    cloud = FakeCloud()
    cloud.full |= {"spot": NOTHING, "on-demand": NO_MEMORY}
    async with Harness(cloud, choices=having(THREE)).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 50)
        assert anyio.current_time() < 75, "the patience is spent once"
        cloud.full["ec2"] = NO_MEMORY
        del cloud.full["on-demand"]
        harness.launch("later")
        await harness.until_launched("later", timeout=PROBES + 1)
    assert placements(cloud) == {"ec2": 50, "on-demand": 1}


async def test_when_all_are_full_each_is_probed_and_the_first_with_room_has_them_all() -> None:
    cloud = FakeCloud()
    cloud.full |= dict.fromkeys(THREE.names, NOTHING)
    async with Harness(cloud, choices=having(THREE), options=QUOTA).running() as harness:
        for n in range(300):
            harness.launch(f"w{n}", priority=n % 3)
        await anyio.sleep(1000)
        assert not cloud.containers
        assert cloud.calls["launch"] < 3 * (64 + 1000 / 50 + 5)
        assert all(not elsewhere(harness, f"w{n}") for n in range(300))
        del cloud.full["on-demand"]
        await harness.until(lambda: len(harness.finished()) == 300)
    assert placements(cloud) == {"on-demand": 300}
    assert anyio.current_time() < 1000 + PROBES + 30


async def test_a_launch_fails_for_want_of_capacity_only_when_all_its_placements_are_full() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    rules = replace(RULES, capacity_timeout=100.0)
    choices = Choices(TWO.names, 400.0)
    async with Harness(cloud, choices=having(choices), rules=rules).running() as harness:
        harness.launch("patient")
        await harness.until_finished("patient")
        assert 400 <= anyio.current_time() < 410
        cloud.full["on-demand"] = NO_MEMORY
        harness.launch("nowhere")
        finished = await harness.until_finished("nowhere")
        assert 500 <= anyio.current_time() < 700
    [patient] = harness.finished("patient")
    assert patient.success
    assert not finished.success
    assert "had no capacity for the container for 1" in (finished.reason or "")
    assert finished.choice is None, "it had no container"


async def test_a_refusal_sends_launches_elsewhere_when_they_would_fail_otherwise() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = DENIED
    async with Harness(cloud, choices=having(Choices(TWO.names, 10.0))).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await anyio.sleep(119)
        assert not cloud.containers, "a person may be mending it"
        await harness.until(lambda: len(harness.finished()) == 20)
        assert anyio.current_time() < 140
    assert all(finished.success for finished in harness.finished())
    assert placements(cloud) == {"on-demand": 20}
    [text] = elsewhere(harness, "w7")
    assert text.startswith("Launched at placement 'on-demand': 'spot' has refused launches for 12")
    assert "not authorized to perform: ecs:RunTask" in text


async def test_a_launch_that_all_its_placements_refuse_fails_after_the_grace() -> None:
    cloud = FakeCloud()
    cloud.full |= dict.fromkeys(TWO.names, DENIED)
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        assert 120 <= anyio.current_time() < 400
    assert "not authorized to perform: ecs:RunTask" in (finished.reason or "")


async def test_a_rate_is_no_lack_of_room() -> None:
    cloud = FakeCloud(fault=failing("launch", THROTTLED, until=200.0))
    async with Harness(cloud, choices=having(Choices(TWO.names, 0.0)), options=QUOTA).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 100)
    assert placements(cloud) == {"spot": 100}


async def test_the_most_urgent_launches_leave_first() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000.0))
    cloud.full["spot"] = NOTHING
    slow = replace(OPTIONS, launch_rate=lambda bucket: 2.0, launch_rate_max=2.0, launch_burst=1)
    async with Harness(cloud, choices=having(TWO), options=slow).running() as harness:
        for n in range(60):
            harness.launch(f"w{n}", priority=n)
        harness.launch("no choice", priority=30, route="others")
        await harness.until(lambda: len(cloud.containers) == 61)
    order = [int(c.label[1:]) for c in cloud.containers.values() if c.label != "no choice"]
    assert sum(abs(place - (59 - n)) for place, n in enumerate(order)) <= 2 * 10, "but for the probes"


async def test_a_launch_without_choice_waits_at_the_placement_that_others_leave() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    choices = having(TWO, bound=Choices(("spot",), 0.0))
    async with Harness(cloud, choices=choices).running() as harness:
        harness.launch("bound", route="bound")
        harness.launch("free")
        await harness.until_finished("free")
        await anyio.sleep(600)
        assert not harness.finished("bound")
        del cloud.full["spot"]
        finished = await harness.until_finished("bound", timeout=PROBES + 20)
    assert finished.choice == "spot"
    assert not elsewhere(harness, "bound")


# --- containers that find no room --------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [20.0, 600.0])
async def test_a_container_that_found_no_room_counts_for_its_placement(wait: float) -> None:
    """RunTask accepts it, and the service gives up looking for room after a while."""
    cloud = FakeCloud()
    cloud.no_place["spot"] = Plan(start_after=wait, unplaced=wait, starts=False)
    async with Harness(cloud, choices=having(TWO), options=QUOTA).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 20)
        # It has waited itself: only what its patience has left is waited for.
        assert anyio.current_time() < max(wait, 60.0) + 30
        done = len(cloud.containers)
        for n in range(20):
            harness.launch(f"later{n}")
        await harness.until(lambda: len(harness.finished()) == 40, timeout=wait + 60)
        assert placements(cloud)["spot"] <= done + 4, "one probe at a time"
    assert all(finished.success for finished in harness.finished())
    assert placements(cloud)["on-demand"] == 40
    [text] = elsewhere(harness, "w3")
    assert text.startswith("Launched at placement 'on-demand': 'spot' has been full for ")


async def test_a_placement_is_full_until_a_container_gets_its_place_there() -> None:
    """That its requests are accepted proves nothing."""
    cloud = FakeCloud()
    cloud.no_place["spot"] = Plan(start_after=10.0, unplaced=10.0, starts=False)
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for second in range(900):
            if second == 400:
                del cloud.no_place["spot"]
            harness.launch(f"w{second}")
            await anyio.sleep(1)
        await harness.until(lambda: len(harness.finished()) == 900)
    assert all(finished.success for finished in harness.finished())
    wasted = [c for c in cloud.containers.values() if not c.plan.starts]
    late = [c for c in wasted if c.created > 120]
    assert len(late) <= 10, "one probe at a time, less and less often"
    last = {f"w{second}": cloud.of(f"w{second}")[-1] for second in range(900)}
    assert all(last[f"w{second}"].created - second <= 60 + PROBES for second in range(900))
    assert all(last[f"w{second}"].placement == "spot" for second in range(400 + 75, 900))


async def test_where_no_placement_has_room_containers_wait_for_it_as_without_choices() -> None:
    cloud = FakeCloud()
    nowhere = Plan(start_after=300.0, unplaced=300.0, starts=False)
    cloud.no_place |= {"spot": nowhere, "on-demand": nowhere}
    async with Harness(cloud, choices=having(TWO), options=QUOTA).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await anyio.sleep(1000)
        waiting = [c for c in cloud.containers.values() if c.alive(anyio.current_time())]
        assert len(waiting) > 10, "they are what a group of hosts grows by"
        cloud.no_place.clear()
        await harness.until(lambda: len(harness.finished()) == 20)
    assert all(finished.success for finished in harness.finished())


# --- launches in doubt -------------------------------------------------------------------------------------------


async def test_a_launch_in_doubt_never_changes_its_placement() -> None:
    """Its request may have been carried out, and then its placement is full for an hour."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=4000.0))
    cloud.fault = failing("launch", TIMED_OUT, times=1)
    async with Harness(cloud, choices=having(Choices(TWO.names, 0.0))).running() as harness:
        harness.launch("doubtful")
        await harness.until(lambda: harness.phases("doubtful") == ["in doubt"])
        cloud.full["spot"] = replace_used(NOTHING, token_used=False)
        for n in range(10):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(cloud.containers) == 10)
        await anyio.sleep(1000)
        assert not cloud.of("doubtful")
        del cloud.full["spot"]
        await harness.until_launched("doubtful")
    assert [placement for placement, _ in placed_at(cloud, "doubtful")] == ["spot"]
    assert {c.placement for c in cloud.containers.values()} == {"spot", "on-demand"}


def replace_used(error: BackendError, *, token_used: bool) -> BackendError:
    return BackendError(error.kind, error.code, error.message, token_used=token_used)


async def test_a_request_in_doubt_that_is_rendered_again_keeps_its_choice() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=4000.0))
    cloud.fault = failing("launch", TIMED_OUT, until=400.0)
    rendered: list[str | None] = []

    def render(launch: Launch) -> LaunchSpec:
        spec = harness.default_render(launch)
        return replace(spec, expires_at=1_800_000_000.0 + anyio.current_time() + 70)

    harness = Harness(cloud, choices=having(Choices(TWO.names, 0.0)), render=render)
    chosen = harness.chosen

    def noted(spec: LaunchSpec, choice: str) -> LaunchSpec:
        rendered.append(choice)
        return chosen(spec, choice)

    harness.chosen = noted  # type: ignore[method-assign]
    async with harness.running():
        harness.launch("a")
        await anyio.sleep(200)
        cloud.full["spot"] = replace_used(NOTHING, token_used=False)
        await anyio.sleep(600)
        del cloud.full["spot"]
        await harness.until_launched("a")
    assert len(rendered) > 3
    assert set(rendered) == {"spot"}


async def test_no_changed_request_is_sent_under_a_token_that_was_used_or_is_in_doubt() -> None:
    sent: dict[str, set[str]] = {}

    class Cloud(FakeCloud):
        async def launch(self, spec: LaunchSpec, client_token: str) -> Any:
            sent.setdefault(client_token, set()).add(spec.placement)
            return await super().launch(spec, client_token)

    cloud = Cloud(failure_memory="conflict")
    cloud.full |= {"spot": NOTHING, "on-demand": NO_MEMORY}
    cloud.fault = lambda operation, _: (
        TIMED_OUT if operation == "launch:after" and int(anyio.current_time() * 50) % 3 == 0 else None
    )
    async with Harness(cloud, choices=having(Choices(THREE.names, 10.0)), options=QUOTA).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}", tokened=True)
        await harness.until(lambda: len(harness.finished()) == 100)
    assert all(len(where) == 1 for where in sent.values())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(100))


# --- relaunches, adoption, bad input -----------------------------------------------------------------------------


async def test_what_never_started_is_launched_again_wherever_there_is_room_by_then() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=90.0, starts=nth > 1))
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        harness.launch("a")
        await harness.until_launched("a")
        cloud.full["spot"] = NOTHING
        harness.launch("b")
        finished = await harness.until_finished("a")
    assert [placement for placement, _ in placed_at(cloud, "a")] == ["spot", "on-demand"]
    assert finished.choice == "on-demand"


@pytest.mark.parametrize("second_choices", [THREE, Choices(("ec2",), elsewhere=TWO.names)], ids=["same", "other"])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("repeatable", [True, False])
async def test_an_adopted_launch_is_searched_for_wherever_it_can_have_gone(
    repeatable: bool, told: bool, second_choices: Choices
) -> None:
    """Each placement is a cluster of its own, and the scheduler that died had left the full one."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=500.0), repeatable=repeatable)
    cloud.full["spot"] = NOTHING
    rules = replace(RULES, repeatable=repeatable)

    def clusters(harness: Harness) -> Harness:
        chosen = harness.chosen
        harness.chosen = lambda spec, choice: replace(chosen(spec, choice), scope=choice)  # type: ignore[method-assign]
        return harness

    first = clusters(Harness(cloud, choices=having(THREE), rules=rules))
    async with first.running():
        launches = [make_launch(f"w{n}", tokened=repeatable) for n in range(10)]
        first.submit(*launches)
        await first.until(lambda: len(cloud.containers) == 10)
    del cloud.full["spot"]
    second = clusters(Harness(cloud, choices=having(second_choices), rules=rules))
    async with second.running():
        for launch in launches:
            again = launch if repeatable else under_a_new_id(launch)
            handle_id = cloud.of(launch.label)[0].handle.id if told else None
            second.adopt(again, AirflowState.QUEUED, handle_id)
        await second.until(lambda: len(second.finished()) == 10)
    assert all(finished.success for finished in second.finished())
    assert placements(cloud) == {"on-demand": 10}
    assert not cloud.asked_to_stop


async def test_a_launch_that_names_no_placement_that_exists_fails_alone() -> None:
    def choices(launch: Launch) -> Choices:
        if launch.label == "bad":
            raise Rejected("executor_config: placements: there is no placement 'spto'. Allowed: spot")
        return TWO

    async with Harness(FakeCloud(), choices=choices).running() as harness:
        harness.launch("bad", route="bad")
        harness.launch("good")
        await harness.until(lambda: len(harness.finished()) == 2)
    [bad], [good] = harness.finished("bad"), harness.finished("good")
    assert bad.reason == "executor_config: placements: there is no placement 'spto'. Allowed: spot"
    assert good.success


# --- figures -----------------------------------------------------------------------------------------------------


async def test_a_placement_that_launches_leave_is_no_wait_for_capacity() -> None:
    cloud = FakeCloud()
    cloud.full["spot"] = NOTHING
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for second in range(300):
            harness.launch(f"w{second}")
            await anyio.sleep(1)
        latest = harness.snapshots[-1]
        assert (latest.closed_gates, latest.capacity_wait) == (1, 0.0)
        cloud.full["on-demand"] = NO_MEMORY
        harness.launch("stuck")
        await anyio.sleep(100)
        latest = harness.snapshots[-1]
        assert latest.closed_gates == 2
        assert 95 < latest.capacity_wait < 101


async def test_a_burst_of_3000_is_rendered_once_each_but_for_probes() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000.0))
    cloud.full["spot"] = NOTHING
    async with Harness(cloud, choices=having(TWO)).running() as harness:
        for n in range(3000):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(cloud.containers) == 3000)
        assert len(harness.rendered) < 3000 + 2 * 64 + 20
