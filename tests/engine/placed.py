"""The random walk with placements that become full and free: what has to hold of launches that can leave them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.phases import Waiting
from ecs_async_executor.core.policy import Rules
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import Harness
from tests.engine.walk import WALK_OPTIONS, Instance, Walk

PROBES = 60.0
SLACK = 15.0
NO_ROOM = {
    "used": BackendError(Kind.CAPACITY, "Capacity", "none", token_used=True),
    "unused": BackendError(Kind.CAPACITY, "Capacity", "none"),
}


class WatchfulCloud(FakeCloud):
    """Notes when a scheduler sends another placement's request under a client token that is used or in doubt."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.taken: dict[tuple[str, int], str] = {}
        self.moved: list[str] = []

    def scope_of(self, handle_id: str | None) -> str:
        known = self.containers.get(handle_id or "")
        return "default" if known is None else known.handle.scope

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        key = client_token, spec.request["by"]
        known = self.taken.get(key)
        if known not in (None, spec.placement):
            self.moved.append(f"{client_token}: {known} -> {spec.placement}")
        self.taken[key] = spec.placement
        try:
            return await super().launch(spec, client_token)
        except BackendError as error:
            if known is None and error.kind not in (Kind.AMBIGUOUS, Kind.CONFLICT) and not error.token_used:
                del self.taken[key]  # nothing was done, and nothing is remembered
            raise


class Placed(Walk):
    """With placements that become full, or accept what they have no room for, each a cluster of its own."""

    CLOUD = WatchfulCloud
    FAILURE_MEMORY = "conflict"
    NAMES: tuple[str, ...] = ("spot", "on-demand", "ec2")
    CHOICES: tuple[Choices, ...] = (
        NO_CHOICES,
        Choices(("ec2",), 20.0),
        Choices(("spot", "on-demand"), 0.0),
        Choices(("spot", "on-demand"), 60.0),
        Choices(("spot", "ec2", "on-demand"), 20.0),
        Choices(("ec2", "on-demand", "spot"), 200.0),
    )
    cloud: WatchfulCloud

    def __init__(self) -> None:
        self.schedulers = itertools.count()
        self.choices: dict[str, Choices] = {}
        self.room_since = dict.fromkeys(self.NAMES, 0.0)
        self.calm_since = 0.0
        super().__init__()

    def make_harness(self, rules: Rules) -> Harness:
        by = next(self.schedulers)

        def render(launch: Launch) -> LaunchSpec:
            spec = self.render(launch)
            return replace(spec, request={**spec.request, "by": by})

        options = replace(WALK_OPTIONS, destinations=self.ELSEWHERE)
        harness = Harness(self.cloud, options=options, rules=rules, render=render, choices=self.choices_of_launch)
        chosen = harness.chosen
        harness.chosen = lambda spec, choice: self.at(chosen(spec, choice), choice)  # type: ignore[method-assign]
        return harness

    def at(self, spec: LaunchSpec, choice: str) -> LaunchSpec:
        """Return the request for a choice as one to its cluster."""
        return replace(spec, scope=choice)

    def placement_of(self, name: str) -> str:
        """Return the placement of the requests for a choice."""
        return name

    def choices_of_launch(self, launch: Launch) -> Choices:
        return self.choices[launch.label]

    def hand_over(self, instance: Instance) -> None:
        launch = instance.launch
        choices = self.choices.setdefault(launch.label, self.random.choice(self.CHOICES))
        instance.launch = launch.evolve(route=self.CHOICES.index(choices))
        super().hand_over(instance)

    def start_loop(self) -> None:
        super().start_loop()
        self.calm_since = self.loop.time()

    def wakes(self, harness: Harness) -> None:
        super().wakes(harness)
        self.calm_since = self.loop.time()

    @rule(
        data=st.data(),
        how=st.sampled_from(["free", "used", "unused", "accepts"]),
        gives_up_after=st.sampled_from([5.0, 100.0, 700.0]),
    )
    def placements_become_full_or_free(self, data: st.DataObject, how: str, gives_up_after: float) -> None:
        for name in sorted(data.draw(st.sets(st.sampled_from(self.NAMES), min_size=1))):
            placement, had_room = self.placement_of(name), self.has_room(name)
            self.becomes_free(name)
            if how == "accepts":
                plan = Plan(start_after=gives_up_after, unplaced=gives_up_after, starts=False)
                self.cloud.no_place[placement] = plan
            elif how != "free":
                self.cloud.full[placement] = NO_ROOM[how]
            elif not had_room:
                self.room_since[name] = self.loop.time()

    def becomes_free(self, name: str) -> None:
        self.cloud.full.pop(self.placement_of(name), None)
        self.cloud.no_place.pop(self.placement_of(name), None)

    @rule(seconds=st.sampled_from([130.0, 400.0]))
    def nothing_happens(self, seconds: float) -> None:
        self.pass_time(seconds)

    def has_room(self, name: str) -> bool:
        placement = self.placement_of(name)
        return placement not in self.cloud.full and placement not in self.cloud.no_place

    @invariant()
    def a_launch_in_doubt_never_moves(self) -> None:
        assert not self.cloud.moved, self.cloud.moved

    @invariant()
    def no_launch_waits_for_long_while_one_of_its_placements_has_room(self) -> None:
        now = self.loop.time()
        # Credentials are looked at again after a minute at most; a rate that was cut takes its time.
        trouble = max((until for name, (_, _, until) in self.faults.items() if "launch" in name), default=0.0)
        if now < trouble + 60.0 or self.harness.meters.throttles:
            return
        calm = max(self.calm_since, trouble + 60.0)
        for tracked in self.harness.ledger.unsettled.values():
            phase, choices = tracked.phase, self.choices[tracked.launch.label]
            if not isinstance(phase, Waiting) or not tracked.wanted:
                continue
            free = [self.room_since[name] for name in choices.names if self.has_room(name)]
            room = min(free, default=now if choices.names else 0.0)
            since = max(calm, tracked.since, phase.not_before, room)
            assert now - since <= choices.patience + PROBES + SLACK, f"{tracked!r}, {choices}, since {since}"

    def teardown(self) -> None:
        for name in self.NAMES[1:]:  # the first stays as it is
            self.becomes_free(name)
        super().teardown()
