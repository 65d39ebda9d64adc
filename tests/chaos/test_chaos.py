"""A small storm, and tests that the audit sees every broken promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.local.behaviour import CHOICES
from tests.chaos.airflow_db import Outcome
from tests.chaos.audit import Audit, audit
from tests.chaos.cloud import CLOUDS
from tests.chaos.regions import ABROAD, FACTOR, FEWEST, HOME, MARGIN_SECONDS, Course, Outage, delays
from tests.chaos.storm import run

LAUNCH = ("w1", 1)
SUCCESS = Outcome("w1", 1, scheduler=1, success=True, reason=None, handle_id="arn:1")
FAILURE = replace(SUCCESS, success=False, reason="it exited 3")


def container(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"arn:{number}",
        "token": f"id-{number}",
        "started_by": "id",
        "command": ["quick", "w1", "1", "nonce"],
        "replays": 0,
        "status": "STOPPED",
        "created_at": 1.0,
        "started_at": 2.0,
        "stopped_at": 3.0,
        "exit_code": 0,
        "stop_code": None,
        "stopped_reason": None,
        "launch_type": "FARGATE",
        **fields,
    }


NEVER: dict[str, Any] = {"started_at": None, "exit_code": None}
NO_ROOM: dict[str, Any] = {**NEVER, "launch_type": "EC2", "stopped_reason": "RESOURCE:MEMORY"}


def one_after_the_other(*containers: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a launch, each made after the one before it had stopped."""
    return [
        {**one, "created_at": 10.0 * number, "stopped_at": 10.0 * number + 5.0}
        for number, one in enumerate(containers)
    ]


def audited(outcomes: list[Outcome], *containers: dict[str, Any], revoked: bool = False) -> Audit:
    return audit({LAUNCH: revoked}, outcomes, containers)


@pytest.mark.e2e  # nox -s chaos runs larger ones
@pytest.mark.slow
@pytest.mark.parametrize("service", sorted(name for name, cloud in CLOUDS.items() if not cloud.calm))
def test_killed_schedulers_and_every_fault_lose_nothing_and_run_nothing_twice(service: str) -> None:
    result = run(200, seed=1, timeout=300, incarnations=4, queued_timeout=30, service=service)
    assert result.crashes == []
    assert result.left == []
    assert result.audit.problems == []
    assert result.finished
    assert result.deaths.total() > 2
    assert result.struck.total() > 50
    assert result.adopted > 0
    if CLOUDS[service].groups:
        assert result.audit.grouped > 0
    if CLOUDS[service].events:
        assert result.struck["event_doubled"] > 0
        assert result.struck["event_forged"] > 0
        assert result.calls["DeleteMessageBatch"] > 0, "no scheduler has received an event"
    if CLOUDS[service].abroad:
        assert 0 < result.audit.abroad < result.audit.containers
        assert result.storms["abroad down"] > 0
        assert result.storms["spot full"] > 0


@pytest.mark.parametrize(
    ("outcomes", "containers", "why"),
    [
        ([SUCCESS], [container()], "exited 0"),
        ([SUCCESS], one_after_the_other(container(2, **NEVER), container(1)), "exited 0"),
        ([SUCCESS], one_after_the_other(*(container(n, **NO_ROOM) for n in range(2, 9)), container()), "exited 0"),
        ([FAILURE], [container(exit_code=3)], "exited 3"),
        ([FAILURE], [container(exit_code=None)], "lost its host"),
        (
            [replace(FAILURE, handle_id="arn:3")],
            one_after_the_other(*(container(n, **NEVER) for n in (1, 2, 3))),
            "never started",
        ),
    ],
)
def test_the_audit_accepts_what_the_containers_bear_out(
    outcomes: list[Outcome], containers: list[dict[str, Any]], why: str
) -> None:
    result = audited(outcomes, *containers)
    assert result.problems == []
    assert result.why == {why: 1}


@pytest.mark.parametrize(
    ("outcomes", "containers", "problem"),
    [
        ([], [container()], "lost"),
        ([], [], "lost"),
        ([SUCCESS, SUCCESS], [container()], "2 outcomes"),
        ([SUCCESS], [container(1), container(2)], "ran 2 times"),
        ([SUCCESS], [container(exit_code=3)], "wrong"),
        ([SUCCESS], [container(2)], "wrong"),
        ([SUCCESS], [], "wrong"),
        ([FAILURE], [container()], "wrong"),
        ([FAILURE], [container(1, **NEVER), container(2)], "wrong"),
        ([FAILURE], [container(n, **NEVER) for n in (1, 2)], "wrong"),
        ([FAILURE], one_after_the_other(*(container(n, **NO_ROOM) for n in (1, 2, 3))), "wrong"),
        ([SUCCESS], [container(1), container(2, **NEVER)], "one container too many"),
        ([SUCCESS], [container(2, **{**NEVER, "stopped_at": None}), container(1)], "one container too many"),
        ([SUCCESS], [container(1), container(2, **NO_ROOM, stop_code="UserInitiated")], "withdrawn"),
        ([replace(FAILURE, handle_id=None)], [], "wrong"),
        ([SUCCESS], [container(), container(2, command=["quick", "w2", "1", "nonce"])], "stray"),
    ],
)
def test_the_audit_sees_every_broken_promise(
    outcomes: list[Outcome], containers: list[dict[str, Any]], problem: str
) -> None:
    assert problem in " ".join(audited(outcomes, *containers).problems)


def test_what_is_revoked_may_be_stopped_and_is_counted_without_room() -> None:
    result = audited([], container(stop_code="UserInitiated", **NO_ROOM), revoked=True)
    assert result.problems == []
    assert (result.grouped, result.without_room) == (1, 1)


def test_ten_runs_meet_every_memory_of_client_tokens() -> None:
    ecs = CLOUDS["ecs"]
    assert {ecs.behaviour(seed)["failure_memory"] for seed in range(10)} == set(CHOICES["failure_memory"])
    assert ecs.behaviour(1) == {"failure_memory": "conflict"}, "the checks' seed has what AWS is believed to do"
    assert CLOUDS["batch"].behaviour(1) == {}


def test_a_revoked_launch_needs_no_outcome_but_may_run_once_only() -> None:
    assert audited([], container(), revoked=True).problems == []
    assert audited([], container(1), container(2), revoked=True).twice


@pytest.mark.e2e
@pytest.mark.slow
def test_launches_at_home_take_no_longer_while_another_region_is_down() -> None:
    result = run(
        300, seed=1, timeout=300, incarnations=1, parallelism=30, queued_timeout=30, service="ecs-regions-calm"
    )
    assert result.crashes == []
    assert result.audit.problems == []
    assert result.finished
    took = result.audit.delays
    assert len(result.outages) > 3
    assert took.launches > FEWEST
    assert took.during < took.otherwise + 1.0


# --- two Regions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placement", "course"),
    [
        ("512", Course(abroad=False, chooses=False, size="512")),
        ("abroad/512", Course(abroad=True, chooses=False, size="512")),
        ("abroad/spot/1024", Course(abroad=True, chooses=True, size="1024")),
    ],
)
def test_a_placement_says_where_a_workload_goes(placement: str, course: Course) -> None:
    assert Course.read(placement) == course


@pytest.mark.parametrize(
    ("during", "launches", "held_up"),
    [
        (1.0, FEWEST, False),
        (FACTOR + MARGIN_SECONDS, FEWEST, False),
        (FACTOR + MARGIN_SECONDS + 0.1, FEWEST, True),
        (60.0, FEWEST - 1, False),
    ],
)
def test_the_audit_sees_that_an_outage_abroad_held_up_launches_at_home(
    during: float, launches: int, held_up: bool
) -> None:
    queued_at = {(f"w{n}", 1): 100.0 for n in range(launches)} | {("before", 1): 10.0, ("abroad", 1): 100.0}
    containers = {key: [container(created_at=at + during, region=HOME)] for key, at in queued_at.items()}
    containers["before", 1] = [container(created_at=11.0, region=HOME), container(created_at=90.0, region=HOME)]
    containers["abroad", 1] = [container(created_at=900.0, region=ABROAD)]
    found = delays(queued_at, containers, [Outage(50.0, 60.0), Outage(95.0, 105.0)])
    assert (found.launches, found.otherwise, round(found.during, 6)) == (launches, 1.0, during)
    assert (found.problem is not None) == held_up
    seen = audited([])
    seen.delays = found
    assert ("held up" in " ".join(seen.problems)) == held_up
