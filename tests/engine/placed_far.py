"""The random walk with placements in two clusters and three destinations, any of which may be down."""

from __future__ import annotations

from dataclasses import replace

from hypothesis.stateful import invariant

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.destinations import destination_of, sent_to, within
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Finished
from ecs_async_executor.core.phases import Waiting
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.placed import PROBES, SLACK, Placed
from tests.engine.walk import PATIENT, Instance
from tests.engine.weather import EVERYWHERE, Weather

CLUSTERS = {"spot": "one", "on-demand": "one", "ec2": "two"}
PERMANENT = 90.0
UNANSWERED = 75.0
"""Seconds after which a destination counts as one that does not answer, with the last request that hangs."""
RECOVERY = 300.0
"""Seconds after which a rate that was cut is no reason to wait any more."""


class PlacedFar(Weather, Placed):
    """
    Where a launch can go to several placements, in clusters and destinations that have troubles of their own.

    It waits for none of them for long while another has room and answers, unless its request is in doubt.
    """

    RULES = replace(PATIENT, permanent_error_grace=PERMANENT)
    NAMES = ("spot", "on-demand", "ec2", "eu|spot", "eu|ec2", "us|on-demand")
    CHOICES = (
        NO_CHOICES,
        Choices(("eu|spot",), 20.0),
        Choices(("spot", "eu|spot"), 0.0),
        Choices(("eu|spot", "spot"), 0.0),
        Choices(("spot", "ec2", "us|on-demand"), 60.0),
        Choices(("us|on-demand", "eu|ec2", "on-demand"), 20.0),
        Choices(("eu|ec2", "eu|spot", "ec2"), 60.0),
        Choices(("eu|spot", "on-demand", "us|on-demand"), 200.0),
    )

    def __init__(self) -> None:
        self.down_until = dict.fromkeys(EVERYWHERE, 0.0)
        self.throttled_until = dict.fromkeys(EVERYWHERE, 0.0)
        self.heard_at = 0.0
        super().__init__()

    def at(self, spec: LaunchSpec, choice: str) -> LaunchSpec:
        return sent_to(
            destination_of(choice), replace(spec, scope=CLUSTERS[within(choice)], placement=within(choice))
        )

    def placement_of(self, name: str) -> str:
        destination = destination_of(name)
        return f"destination={destination} {within(name)}" if destination else name

    # --- weather ---------------------------------------------------------------------------------------------

    def turn(self, name: str, how: str, until: float) -> None:
        super().turn(name, how, until)
        now = self.loop.time()
        self.down_until[name] = now if how == "comes back" else until
        if how == "throttled":
            self.throttled_until[name] = until
        else:
            self.throttled_until[name] = min(self.throttled_until[name], now)

    def fault(self, operation: str, cloud: FakeCloud) -> BackendError | None:
        error = super().fault(operation, cloud)
        if operation == "launch" and error is not None and error.kind is Kind.THROTTLED:
            now = self.loop.time()
            self.throttled_until = {name: max(at, now) for name, at in self.throttled_until.items()}
        return error

    # --- what has to hold ------------------------------------------------------------------------------------

    def open_since(self, choices: Choices, now: float) -> float:
        """Return since when one of the choices has had room in a destination that answers; ``now`` if none has."""
        if not choices.names:
            return self.down_until[""]
        well = [
            max(self.room_since[name], self.down_until[destination_of(name)])
            for name in choices.names
            if self.has_room(name)
        ]
        return min(well, default=now)

    def is_throttled(self, choices: Choices, now: float) -> bool:
        where = {destination_of(name) for name in choices.names} or {""}
        return any(now < self.throttled_until[name] + RECOVERY for name in where)

    @invariant()
    def no_launch_waits_for_long_while_one_of_its_placements_has_room(self) -> None:
        now = self.loop.time()
        trouble = max((until for name, (_, _, until) in self.faults.items() if "launch" in name), default=0.0)
        calm = max(self.calm_since, trouble + 60.0)
        for tracked in self.harness.ledger.unsettled.values():
            phase, choices = tracked.phase, self.choices[tracked.launch.label]
            if not isinstance(phase, Waiting) or not tracked.wanted or self.is_throttled(choices, now):
                continue
            since = max(calm, tracked.since, phase.not_before, self.open_since(choices, now))
            bound = max(choices.patience, PERMANENT) + UNANSWERED + PROBES + SLACK
            assert now - since <= bound, f"{tracked!r}, {choices}, since {since}, now {now}, {self.down_until}"

    def apply_reports(self) -> None:
        super().apply_reports()
        self.heard_at = self.loop.time()

    def tells_the_truth(self, instance: Instance, outcome: Finished) -> None:
        reason = outcome.reason or ""
        if "unknown whether" in reason:
            return  # records could not be read for longer than the grace
        super().tells_the_truth(instance, outcome)
        if "refused the container for" in reason:
            choices = self.choices[instance.launch.label]
            trouble = max((until for _, _, until in self.faults.values()), default=0.0)
            since = max(self.calm_since, trouble, self.open_since(choices, self.heard_at))
            # It ended between the last look and this one.
            room_for = self.heard_at - since
            assert room_for <= PERMANENT + PROBES + SLACK, (
                f"there was room for {room_for} s: {instance}, {choices}"
            )

    def teardown(self) -> None:
        try:
            self.no_launch_waits_for_the_one_destination_that_is_down()
        finally:
            self.all_come_back()
            super().teardown()

    def no_launch_waits_for_the_one_destination_that_is_down(self) -> None:
        for name in self.NAMES:
            self.becomes_free(name)
        down = self.only_one_is_down("hangs", "expired", "denied")
        self.queue_new([Plan()], 30)
        self.pass_time(RECOVERY + 400.0)
        self.apply_reports()
        long_ago = self.loop.time() - RECOVERY
        for tracked in self.harness.ledger.unsettled.values():
            names, phase = self.choices[tracked.launch.label].names or ("",), tracked.phase
            waits = isinstance(phase, Waiting) and tracked.wanted and phase.not_before < long_ago
            elsewhere = [name for name in names if destination_of(name) != down]
            assert not (waits and elsewhere), f"waits although only {down or 'home'} is down: {tracked!r}, {names}"
