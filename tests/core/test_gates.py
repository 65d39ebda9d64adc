"""Gates: one probe at a time, less and less often, until one succeeds."""

from __future__ import annotations

import gc

from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.gates import Gate, Gates


def test_an_open_gate_lets_everybody_pass() -> None:
    gate = Gate()
    gate.probe_started(0.0)
    gate.undecided(0.0)
    gate.succeeded()
    assert gate.is_open
    assert gate.may_pass(0.0)
    assert gate.closed_since is None
    assert gate.next_probe_at is None


def test_probes_follow_each_other_at_growing_distances() -> None:
    gate = Gate()
    gate.close(100.0, "RESOURCE:MEMORY")
    now = 100.0
    gaps = []
    for _ in range(6):
        at = gate.next_probe_at
        assert at is not None
        assert not gate.may_pass(at - 0.001)
        assert gate.may_pass(at)
        gaps.append(at - now)
        gate.probe_started(at)
        now = at + 0.25
        gate.refused(now, "RESOURCE:CPU")
    assert gaps == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert gate.closed_since == 100.0
    assert gate.reason == "RESOURCE:CPU"


def test_a_probe_that_succeeds_opens_the_gate_and_forgets() -> None:
    gate = Gate()
    gate.refused(0.0, "AGENT")
    gate.probe_started(5.0)
    gate.refused(6.0, "AGENT")
    gate.probe_started(16.0)
    gate.succeeded()
    assert gate.is_open
    assert (gate.reason, gate.next_probe_at) == ("", None)
    gate.refused(20.0, "AGENT")
    assert gate.next_probe_at == 25.0


def test_a_probe_whose_answer_was_about_something_else_is_followed_by_the_next_at_once() -> None:
    gate = Gate()
    gate.refused(0.0, "AGENT")
    gate.probe_started(5.0)
    gate.void(5.5)
    assert gate.next_probe_at == 5.5
    assert not gate.is_open
    gate.void(6.0)
    assert gate.next_probe_at == 5.5, "no probe was out"


def test_what_was_sent_before_the_gate_closed_decides_nothing() -> None:
    gate = Gate()
    gate.refused(0.0, "first")
    gate.refused(0.1, "second")
    gate.succeeded()
    assert gate.closed_since == 0.0
    assert gate.reason == "second"
    assert gate.next_probe_at == 5.0


def test_a_probe_without_an_answer_makes_way_for_the_next_at_the_same_distance() -> None:
    gate = Gate()
    gate.close(0.0, "AGENT")
    gate.probe_started(5.0)
    assert not gate.may_pass(15.0)
    gate.undecided(15.0)
    assert gate.next_probe_at == 20.0


def test_a_lost_probe_does_not_keep_the_gate_closed_for_ever() -> None:
    gate = Gate(probe_timeout=120.0)
    gate.close(0.0, "AGENT")
    gate.probe_started(5.0)
    assert not gate.may_pass(124.9)
    assert gate.may_pass(125.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2.0, 10.0), st.sampled_from(["try", "ok", "no", "eh", "close"])), max_size=100)
)
def test_a_closed_gate_never_has_two_probes_out(events: list[tuple[float, str]]) -> None:
    gate = Gate(probe_timeout=1e9)
    now = 0.0
    out = 0
    for step, event in events:
        now += step
        if event == "try" and gate.may_pass(now):
            out += not gate.is_open
            gate.probe_started(now)
        elif event == "close":
            gate.close(now, "x")
        elif event != "try" and out:
            out = 0
            {"ok": lambda _: gate.succeeded(), "no": lambda t: gate.refused(t, "x"), "eh": gate.undecided}[event](
                now
            )
            assert gate.is_open == (event == "ok")
        assert out <= 1


def test_gates_remember_only_the_closed_ones() -> None:
    gates = Gates()
    for i in range(1000):
        assert gates[f"open {i}"].may_pass(0.0)
    gates["closed"].refused(0.0, "AGENT")
    gc.collect()
    assert list(gates) == ["closed"]
    assert len(gates) == 1
    assert len(gates._gates) == 1
    assert not gates["closed"].may_pass(1.0)
    gates["closed"].probe_started(5.0)
    gates["closed"].succeeded()
    gc.collect()
    assert list(gates) == []
    assert len(gates._gates) == 0


def test_a_gate_held_while_it_was_forgotten_is_still_the_one() -> None:
    gates = Gates(first_delay=2.0)
    held = gates["a"]
    assert gates["a"] is held
    held.refused(0.0, "AGENT")
    assert gates["a"] is held
    assert gates["a"].next_probe_at == 2.0


def test_a_closed_gate_can_be_forgotten() -> None:
    gates = Gates(first_delay=2.0)
    gates["a"].refused(0.0, "AGENT")
    held = gates["a"]
    gates.forget("a")
    gates.forget("unknown")
    assert len(gates) == 0
    assert gates["a"].is_open
    gates["a"].refused(1.0, "AGENT")
    held.probe_started(2.0)
    held.succeeded()  # of the one that was forgotten
    assert list(gates) == ["a"]
    assert not gates["a"].is_open
