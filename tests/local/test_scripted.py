"""The scripted runner, through boto3, in a time that the tests move."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs, Rule

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]


def look(ecs: LocalEcs, task: dict[str, Any]) -> tuple[str, str, int | None]:
    record = ecs.task(task["taskArn"])
    return record["lastStatus"], record["desiredStatus"], record["containers"][0].get("exitCode")


def test_a_task_goes_through_its_states_in_time(start: Start, run: Run, clock: Any) -> None:
    rule = {"provisioning": 10, "pending": 20, "duration": 60, "exit_code": 7, "stopping": 5, "deprovisioning": 15}
    ecs = start(clock=clock, script=[rule])
    task = run(ecs.client())
    seen = []
    for _ in range(112):
        seen.append(look(ecs, task))
        clock.advance(1)
    changes = [(n, s) for n, s in enumerate(seen) if n == 0 or s != seen[n - 1]]
    assert changes == [
        (0, ("PROVISIONING", "RUNNING", None)),
        (10, ("PENDING", "RUNNING", None)),
        (30, ("RUNNING", "RUNNING", None)),
        (90, ("STOPPING", "STOPPED", 7)),
        (95, ("DEPROVISIONING", "STOPPED", 7)),
        (110, ("STOPPED", "STOPPED", 7)),
    ]
    record = ecs.task(task["taskArn"])
    at = clock.now - 112
    assert [
        record[k] - at for k in ("createdAt", "startedAt", "stoppingAt", "executionStoppedAt", "stoppedAt")
    ] == [
        0,
        30,
        90,
        95,
        110,
    ]
    assert (record["stopCode"], record["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )


def test_rules_match_by_command_mark_definition_launch_and_attempt(start: Start, run: Run, clock: Any) -> None:
    script = [
        {"command": "fl.ky$", "attempt": 1, "exit_code": 1},
        {"command": "fl.ky$", "exit_code": 2},
        {"started_by": "^special", "exit_code": 3},
        {"definition": "^odd:", "exit_code": 4},
        {"launch": [6, 7], "exit_code": 5},
        {"exit_code": 0},
    ]
    ecs = start(clock=clock, script=script)
    ecs.register("odd", "main")
    client = ecs.client()
    run(client, "sh", "flaky")
    run(client, "sh", "flaky")
    run(client, "x", startedBy="special-1")
    run(client, "x", taskDefinition="odd")
    for _ in range(4):
        run(client, "x")
    assert [e.exit_code for e in ecs.ledger.entries()] == [1, 2, 3, 4, 0, 5, 5, 0]


def test_attempts_are_counted_per_mark_where_there_is_one(start: Start, run: Run) -> None:
    ecs = start()
    client = ecs.client()
    for mark in ("a", "b", "a"):
        run(client, "same", startedBy=mark)
    run(client, "same")
    assert [(e.started_by, e.attempt) for e in ecs.ledger.entries()] == [("a", 1), ("b", 1), ("a", 2), ("", 1)]
    assert {mark: len(found) for mark, found in ecs.ledger.by_started_by().items()} == {"a": 2, "b": 1, "": 1}


def test_a_task_that_never_starts_has_no_exit_code_and_no_start(start: Start, run: Run, clock: Any) -> None:
    reason = "ResourceInitializationError: unable to pull secrets"
    ecs = start(clock=clock, script=[{"pending": 30, "starts": False, "stopped_reason": reason}])
    task = run(ecs.client())
    clock.advance(31)
    record = ecs.task(task["taskArn"])
    assert (record["lastStatus"], record["stopCode"], record["stoppedReason"]) == (
        "STOPPED",
        "TaskFailedToStart",
        reason,
    )
    assert "startedAt" not in record
    assert "exitCode" not in record["containers"][0]


@pytest.mark.parametrize("state", ["PROVISIONING", "PENDING"])
def test_a_stuck_task_stays_until_it_is_stopped(start: Start, run: Run, clock: Any, state: str) -> None:
    ecs = start(clock=clock, script=[{"stuck": state}])
    client = ecs.client()
    task = run(client)
    clock.advance(86400)
    assert look(ecs, task) == (state, "RUNNING", None)
    client.stop_task(task=task["taskArn"])
    assert look(ecs, task) == ("STOPPED", "STOPPED", None)


def test_a_container_that_exits_before_a_stop_reaches_it_keeps_its_exit_code(
    start: Start, run: Run, clock: Any
) -> None:
    ecs = start(clock=clock, script=[{"duration": 10, "exit_code": 4, "stop_delay": 30}])
    client = ecs.client()
    task = run(client)
    clock.advance(5)
    client.stop_task(task=task["taskArn"])
    clock.advance(5)
    assert look(ecs, task) == ("STOPPED", "STOPPED", 4)
    assert ecs.task(task["taskArn"])["stopCode"] == "UserInitiated"


def test_sidecars_run_on_until_the_task_has_stopped(start: Start, request_for: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": 1, "exit_code": 0, "stopping": 20}])
    ecs.register("pair", "main", sidecars=[{"name": "proxy", "essential": True}])
    task = ecs.client().run_task(**request_for("x", taskDefinition="pair"))["tasks"][0]
    clock.advance(2)
    main, proxy = ecs.task(task["taskArn"])["containers"]
    assert (main["name"], main["lastStatus"], main["exitCode"]) == ("main", "STOPPED", 0)
    assert (proxy["name"], proxy["lastStatus"], "exitCode" in proxy) == ("proxy", "RUNNING", False)
    clock.advance(20)
    assert [c["exitCode"] for c in ecs.task(task["taskArn"])["containers"]] == [0, 0]


def test_a_full_host_lets_tasks_wait_in_provisioning_and_starts_them_in_order(
    start: Start, run: Run, clock: Any
) -> None:
    ecs = start(clock=clock, max_running=2, script=[{"duration": 10}])
    client = ecs.client()
    tasks = [run(client) for _ in range(5)]
    assert [look(ecs, t)[0] for t in tasks] == ["RUNNING"] * 2 + ["PROVISIONING"] * 3
    assert (ecs.running, ecs.waiting) == (2, 3)
    client.stop_task(task=tasks[3]["taskArn"])
    assert look(ecs, tasks[3]) == ("STOPPED", "STOPPED", None)
    clock.advance(25)
    started = [e.started_at for e in ecs.ledger.entries()]
    created = clock.now - 25
    assert [s - created if s else None for s in started] == [0, 0, 10, None, 10]
    assert (ecs.running, ecs.waiting) == (0, 0)


def test_a_lost_host_leaves_no_exit_code(start: Start, run: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": 600}])
    tasks = [run(ecs.client()) for _ in range(2)]
    clock.advance(5)
    assert ecs.kill(tasks[0]["taskArn"], cause="host")
    record = ecs.task(tasks[0]["taskArn"])
    assert look(ecs, tasks[0]) == ("STOPPED", "STOPPED", None)
    assert record["containers"][0]["lastStatus"] == "STOPPED"
    assert (record["stopCode"], record["stoppedReason"][:18]) == ("TerminationNotice", "Host EC2 (instance")
    assert not ecs.kill(tasks[0]["taskArn"])
    assert look(ecs, tasks[1]) == ("RUNNING", "RUNNING", None)


def test_a_spot_task_runs_through_its_notice(start: Start, run: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": 600}])
    task = run(ecs.client())
    ecs.kill(task["taskArn"], cause="spot", notice=120)
    clock.advance(119)
    record = ecs.task(task["taskArn"])
    assert look(ecs, task) == ("RUNNING", "STOPPED", None)
    assert (record["stopCode"], record["stoppedReason"]) == ("SpotInterruption", "Your Spot Task was interrupted.")
    clock.advance(1)
    assert look(ecs, task) == ("STOPPED", "STOPPED", None)


def test_what_finishes_within_its_notice_keeps_its_exit_code(start: Start, run: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": 60, "exit_code": 0}])
    task = run(ecs.client())
    ecs.kill(task["taskArn"], cause="spot", notice=120)
    clock.advance(121)
    assert look(ecs, task) == ("STOPPED", "STOPPED", 0)
    assert ecs.task(task["taskArn"])["stopCode"] == "SpotInterruption"


def test_killing_an_unknown_task_or_with_an_unknown_cause_is_an_error(start: Start, run: Run) -> None:
    ecs = start(script=[{"duration": None}])
    with pytest.raises(KeyError):
        ecs.kill("unknown")
    with pytest.raises(ValueError, match="unknown cause: 'flood'"):
        ecs.kill(run(ecs.client())["taskArn"], cause="flood")


def test_the_same_seed_draws_the_same_lives(start: Start, request_for: Run, clock: Any) -> None:
    def lives(seed: int) -> list[tuple[float, int | None]]:
        script = [{"probability": 0.3, "exit_code": 9, "duration": [1, 5]}, {"duration": [10, 20]}]
        ecs = start(clock=clock, script=script, seed=seed)
        for _ in range(4):
            ecs.client().run_task(**request_for(count=10))
        clock.advance(30)
        return [((e.stopped_at or 0) - e.created_at, e.exit_code) for e in ecs.ledger.entries()]

    one, again, other = lives(1), lives(1), lives(2)
    assert [x[1] for x in one] == [x[1] for x in again]
    assert [round(x[0], 3) for x in one] == [round(x[0], 3) for x in again]
    assert [round(x[0], 3) for x in one] != [round(x[0], 3) for x in other]
    assert 4 < sum(code == 9 for _, code in one) < 24


def test_the_script_can_be_replaced_while_tasks_live(start: Start, run: Run, clock: Any) -> None:
    ecs = start(clock=clock, script=[{"duration": 10, "exit_code": 1}])
    run(ecs.client())
    ecs.script([{"duration": 10, "exit_code": 2}])
    run(ecs.client())
    clock.advance(11)
    assert [e.exit_code for e in ecs.ledger.entries()] == [1, 2]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"comand": "x"}, "unknown in a rule: comand"),
        ({"command": "("}, "no regular expression"),
        ({"duration": "long"}, r"rule.duration cannot be 'long'"),
        ({"duration": [1, 2, 3]}, "rule.duration"),
        ({"starts": 1}, "rule.starts"),
        ({"stuck": "RUNNING"}, "stuck must be"),
        ("x", "must be an object"),
    ],
)
def test_a_malformed_rule_is_refused_at_once(rule: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rule.from_json(rule)


def test_a_rule_reads_single_items_and_pairs() -> None:
    rule = Rule.from_json({"launch": 3, "attempt": [1, 2], "duration": [1, 2], "pending": 4})
    assert (rule.launch, rule.attempt, rule.duration, rule.pending) == ((3,), (1, 2), (1.0, 2.0), 4.0)


def test_ten_thousand_running_tasks_cost_little(start: Start, request_for: Run) -> None:
    ecs = start(script=[{"duration": 3600}])
    params = request_for("x", count=10)
    arns = [
        task["taskArn"]
        for _ in range(1000)
        for task in json.loads(ecs._ecs.call("RunTask", params, ecs.place()))["tasks"]
    ]
    assert ecs.running == 10_000
    begun = time.process_time()
    for n in range(0, 10_000, 100):
        ecs._ecs.call("DescribeTasks", {"tasks": arns[n : n + 100]}, ecs.place())
    first = time.process_time() - begun
    begun = time.process_time()
    for n in range(0, 10_000, 100):
        ecs._ecs.call("DescribeTasks", {"tasks": arns[n : n + 100]}, ecs.place())
    assert time.process_time() - begun < 0.5
    assert first < 5
