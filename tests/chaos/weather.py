"""The weather, all from a seed: lives of containers, faults that are always in force, and storms."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ecs_async_executor.local import Fault, Rule
from tests.chaos.cloud import Cloud

PLACEMENTS = ("256", "512", "1024", "2048", "4096", "8192")
"""Amounts of CPU or memory; each is a placement with a gate of its own."""

VISIBLE_AFTER = 1.0
"""Seconds for which a new container is MISSING."""


@dataclass(frozen=True)
class Life:
    """A kind of life of a workload's containers, and how common it is."""

    name: str
    weight: float
    rule: dict[str, Any] = field(default_factory=dict)


_SHORT: dict[str, Any] = {"pending": (0.2, 1.5), "duration": (0.2, 3.0)}

LIVES = (
    Life("quick", 56, _SHORT),
    Life("slow", 10, {"pending": (2.0, 12.0), "duration": (0.2, 3.0)}),
    Life("lingers", 5, {**_SHORT, "stopping": 10.0, "deprovisioning": 10.0}),
    Life("long", 2, {"pending": 1.0, "duration": (10.0, 25.0)}),
    Life("fails", 8, {**_SHORT, "exit_code": 3}),
    Life("killed", 2, {**_SHORT, "exit_code": 137, "container_reason": "OutOfMemoryError: out of memory"}),
    Life(
        "lost",
        3,
        {
            **_SHORT,
            "exit_code": None,
            "stop_code": "TerminationNotice",
            "stopped_reason": "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated.",
        },
    ),
    Life(
        "never",
        2,
        {"pending": 0.5, "starts": False, "stopped_reason": "CannotPullContainerError: image not found"},
    ),
    Life("flaky", 6, _SHORT),
    Life("stuck", 2, _SHORT),
    Life("defers", 4, _SHORT),
)
"""``flaky``: every second container never starts. ``stuck``: the first queueing's container waits for a place
until it is stopped. ``defers``: the workload succeeds and is queued again."""

DENIED: dict[str, Any] = {
    "kind": "error",
    "code": "AccessDeniedException",
    "message": "User: airflow is not authorized to perform this operation",
}


_OF_EVENTS = (
    Fault(kind="event_lost", probability=0.003),
    Fault(kind="event_doubled", probability=0.1),
    Fault(kind="event_late", probability=0.05, seconds=5.0),
    Fault(kind="event_late", probability=0.01, seconds=60.0),
    Fault(kind="event_forged", probability=0.05),
    Fault(kind="reset_before", operation="*Message*", probability=0.02),
    Fault(kind="reset_after", operation="*Message*", probability=0.02),
)
"""What can become of any event, and of any request to their queue."""


def script(cloud: Cloud) -> list[Rule]:
    """Return the rules of the containers' lives; a command is ``<life> <key> <queueing> <nonce>``."""
    failure: dict[str, Any] = {"pending": 0.5, "starts": False, "stopped_reason": "ResourceInitializationError"}
    return [
        Rule(command=r"^stuck \S+ 1 ", stuck=cloud.stuck),
        Rule(command=r"^flaky ", probability=0.5, **failure),
        Rule(command=r"^(quick|slow) ", probability=0.03, **failure),
        *(Rule(command=f"^{life.name} ", **life.rule) for life in LIVES),
    ]


def climate(cloud: Cloud) -> list[Fault]:
    """Return the faults that can strike any request at any time."""
    if cloud.calm:
        return []
    every, run, read = cloud.every, cloud.launch, cloud.describe
    concurrent = Fault(
        kind="error",
        operation=run,
        probability=0.003,
        code="ThrottlingException",
        message="Too many concurrent attempts to create a new task",
    )
    full = Fault(kind="failures", operation=run, probability=0.005, failures=({"reason": "RESOURCE:MEMORY"},))
    return [
        *([concurrent] if cloud.concurrent else []),
        *([full] if cloud.failure_memories else []),
        Fault(kind="latency", operation=every, probability=0.007, seconds=1.0),
        Fault(kind="reset_before", operation=every, probability=0.007),
        Fault(kind="reset_after", operation=every, probability=0.007),
        Fault(kind="close_before", operation=every, probability=0.005),
        Fault(kind="close_after", operation=every, probability=0.007),
        Fault(kind="error", operation=every, probability=0.007, code="ServerException", status=500),
        Fault(kind="error_after", operation=every, probability=0.007, code="ServerException", status=500),
        Fault(kind="status", operation=every, probability=0.007, status=503),
        Fault(kind="truncate", operation=every, probability=0.007),
        Fault(kind="garbage", operation=every, probability=0.007),
        Fault(kind="empty", operation=every, probability=0.007),
        Fault(kind="throttle", operation=every, probability=0.002),
        Fault(kind="hang", operation=every, probability=0.003, seconds=10.0),
        Fault(kind="hang_after", operation=run, probability=0.005, seconds=10.0),
        Fault(kind="missing", operation=read, probability=0.02),
        *(_OF_EVENTS if cloud.events else ()),
    ]


@dataclass(frozen=True)
class Storm:
    """
    One storm.

    :param after: seconds after the storm before
    :param faults: faults that it puts in force
    :param hosts: number of the latest containers that lose their hosts
    :param lasting: seconds for which the other Region is down
    """

    after: float
    name: str
    faults: tuple[Fault, ...] = ()
    hosts: int = 0
    lasting: float = 0.0


DOWN: tuple[dict[str, Any], ...] = (
    {"kind": "hang", "seconds": 10.0},
    {"kind": "expired_token"},
    {"kind": "throttle"},
    {"kind": "status", "status": 503},
    DENIED,
)
"""Ways in which a Region can be down for everything that goes there."""


def storms(seed: int, cloud: Cloud) -> Iterator[Storm]:
    """Yield storms without end."""
    draw = random.Random(f"{seed}:storms")
    kinds = {"throttles": 5, "no capacity": 3, "denied": 2, "credentials": 1, "outage": 1, "hosts lost": 5}
    if cloud.abroad:
        kinds |= {"abroad down": 6, "spot full": 6}
    if cloud.events:
        kinds |= {"no events": 4, "queue denied": 2}
    if cloud.calm:
        kinds = {"abroad down": 1}
    while True:
        (name,) = draw.choices(list(kinds), list(kinds.values()))
        after, lasting = draw.uniform(0.5, 5.0), draw.uniform(0.5, 4.0)
        here = cloud.placed.format(draw.choice(PLACEMENTS))
        how = draw.choice(cloud.no_capacity)
        hosts = draw.randint(1, 8)
        if name == "throttles":
            fault = Fault(kind="throttle", operation=cloud.every, probability=0.7, lasting=lasting / 8)
        elif name == "no capacity":
            fault = Fault(operation=cloud.launch, contains=here, lasting=lasting, **how)
        elif name == "denied":
            fault = Fault(operation=cloud.launch, contains=here, lasting=lasting, **DENIED)
        elif name == "credentials":
            fault = Fault(kind="expired_token", operation=cloud.every, lasting=lasting / 2)
        elif name == "abroad down":
            lasting = draw.uniform(3.0, 9.0)
            if cloud.calm:
                lasting, after = draw.uniform(2.0, 4.0), draw.uniform(5.0, 7.0)  # the one before has ended
            down = Fault(operation=cloud.every, region=cloud.abroad, lasting=lasting, **draw.choice(DOWN))
            yield Storm(after, name, (down,), lasting=lasting)
            continue
        elif name == "spot full":
            full = Fault.from_json({"known": "spot_full"})
            fault = replace(full, lasting=lasting)
        elif name == "no events":
            fault = Fault(kind="event_lost", lasting=2 * lasting)
        elif name == "queue denied":
            fault = Fault(operation="*Message*", lasting=2 * lasting, **DENIED)
        elif name == "outage":
            fault = Fault(kind="status", operation=cloud.every, status=503, lasting=lasting / 2)
        else:
            yield Storm(after, name, hosts=hosts)
            continue
        yield Storm(after, name, (fault,))
