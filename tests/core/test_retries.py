"""What the next try gets: ends as lines, rules, and what rules make of ends."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.retries import (
    NO_CHANGES,
    Changes,
    End,
    Rule,
    changes_after,
    end_in,
    line_of,
    rule_of,
    told,
    without_line,
)
from ecs_async_executor.core.sizes import Size, WrongSize

GB = 1024
OOM_AT_4 = End(1, Ending.OOM, 137, Size(1024, 4 * GB))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**below, **above}


def after(*ends: End, rules: list[dict[str, Any]], asked: Size | None = None) -> Changes:
    made = [rule_of(rule["when"], {key: value for key, value in rule.items() if key != "when"}) for rule in rules]
    return changes_after(ends, made, asked or Size(), merge)


# --- ends as lines ------------------------------------------------------------------------------------------


def test_the_line_of_an_end() -> None:
    end = End(1, Ending.OOM, 137, Size(1024, 4096), "spot")
    assert line_of(end) == "ending=oom exit_code=137 cpu=1024 memory=4096 placement=spot"
    assert line_of(End(1, Ending.HOST)) == "ending=host"


choices = st.none() | st.text(min_size=1).map(lambda text: " ".join(text.split())).filter(bool)
amounts = st.none() | st.integers(1, 1 << 30)
sizes = st.builds(Size, amounts, amounts).map(lambda size: None if size == Size() else size)
ends = st.builds(End, st.integers(1, 30), st.sampled_from(Ending), st.none() | st.integers(0, 255), sizes, choices)


@given(ends, st.text(), st.text())
def test_an_end_is_read_as_it_was_written_whatever_stands_around_it(end: End, before: str, after_it: str) -> None:
    line = line_of(end)
    assert len(line.splitlines()) == 1
    after_it = after_it.replace("ending=", "")
    assert end_in(f"{before}\n{line}\n{after_it}", end.try_number) == end


@given(st.text() | st.text().map("ending=".__add__) | st.text().map("ending=oom ".__add__))
def test_any_text_can_be_read(text: str) -> None:
    end_in(text, 1)
    assert text.startswith(without_line(text))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", None),
        ("ECS container exited 1", None),
        ("the words ending=oom in a sentence", None),
        ("ending=oom", End(1, Ending.OOM)),
        ("ending=oom exit_code= memory=much cpu=-1", End(1, Ending.OOM)),
        ('ending=oom zone=a exit_code=137 note="two words"', End(1, Ending.OOM, 137)),
        ("ending=eaten exit_code=3", None),  # a kind of a later version
        ("ending=host\nending=oom", End(1, Ending.OOM)),
        ('ending=oom placement="my "quoted', End(1, Ending.OOM)),
        ("ending=oom placement=", End(1, Ending.OOM)),
    ],
)  # fmt: skip
def test_what_is_read_of_a_text(text: str, end: End | None) -> None:
    assert end_in(text, 1) == end


def test_people_need_not_read_the_line() -> None:
    assert without_line(f"It failed.\nSo it goes.\n{line_of(OOM_AT_4)}") == "It failed.\nSo it goes."
    assert without_line(f"{line_of(OOM_AT_4)}\nIt failed.") == f"{line_of(OOM_AT_4)}\nIt failed."


# --- which rule is about which end --------------------------------------------------------------------------

MATCHES = {
    "oom": {Ending.OOM},
    "spot": {Ending.SPOT},
    "host": {Ending.HOST},
    "image": {Ending.IMAGE},
    "start": {Ending.START},
    "any": set(Ending),
}


@pytest.mark.parametrize("when", MATCHES)
@pytest.mark.parametrize("ending", Ending)
def test_a_rule_is_about_its_kind(when: str, ending: Ending) -> None:
    assert Rule(when).matches(End(1, ending, 3)) is (ending in MATCHES[when])


@pytest.mark.parametrize("ending", Ending)
def test_a_rule_about_an_exit_code_is_about_that_code_alone(ending: Ending) -> None:
    assert Rule("exit 75").matches(End(1, ending, 75))
    assert not Rule("exit 75").matches(End(1, ending, 7))
    assert not Rule("exit 75").matches(End(1, ending))


def test_the_first_rule_about_an_end_decides() -> None:
    rules: list[dict[str, Any]] = [{"when": "oom", "memory": "8 GB"}, {"when": "any", "memory": "16 GB", "cpu": 2}]
    assert after(OOM_AT_4, rules=rules) == Changes(
        memory=8 * GB, reasons=("with 8 GB of memory instead of 4 GB: try 1 ended by running out of memory",)
    )
    assert after(End(1, Ending.SPOT), rules=rules).cpu == 2048


# --- rules and ends -> what the next try gets ----------------------------------------------------------------

DOUBLE = {"when": "oom", "memory": "x2"}
CAPPED = {**DOUBLE, "up_to": "10 GB"}
OOM_AT_8 = End(3, Ending.OOM, 137, Size(1024, 8 * GB))
SPOT = End(2, Ending.SPOT, 143, Size(1024, 8 * GB))
ON_DEMAND = {"when": "spot", "placements": ["on-demand"]}
TABLE: dict[str, tuple[list[End], list[dict[str, Any]], Size, Changes]] = {
    "no end": ([], [DOUBLE], Size(), NO_CHANGES),
    "no rule": ([OOM_AT_4], [], Size(), NO_CHANGES),
    "no rule about it": ([SPOT], [DOUBLE], Size(), NO_CHANGES),
    "twice what it had": ([OOM_AT_4], [DOUBLE], Size(memory=2 * GB), Changes(memory=8 * GB)),
    "twice what was asked for": ([End(1, Ending.OOM)], [DOUBLE], Size(memory=GB), Changes(memory=2 * GB)),
    "twice nobody knows what": ([End(1, Ending.OOM)], [DOUBLE], Size(), NO_CHANGES),
    "so much": ([End(1, Ending.OOM)], [{"when": "oom", "memory": "6 GB"}], Size(), Changes(memory=6 * GB)),
    "no less than it had": ([OOM_AT_4], [{"when": "oom", "memory": "2 GB"}], Size(), Changes(memory=4 * GB)),
    "rounded up": ([End(1, Ending.OOM, size=Size(memory=3))], [{"when": "oom", "memory": "x1.5"}], Size(),
                   Changes(memory=5)),
    "stays after another end": ([OOM_AT_4, SPOT], [DOUBLE], Size(memory=4 * GB), Changes(memory=8 * GB)),
    "goes on from what it had": ([OOM_AT_4, SPOT, OOM_AT_8], [DOUBLE], Size(), Changes(memory=16 * GB)),
    "goes on from what it was to have": ([OOM_AT_4, End(2, Ending.OOM)], [DOUBLE], Size(),
                                         Changes(memory=16 * GB)),
    "not taken back by a smaller container": (
        [OOM_AT_8, End(4, Ending.OOM, size=Size(memory=4 * GB))], [DOUBLE], Size(), Changes(memory=16 * GB)),
    "the configuration asks for more by now": ([OOM_AT_4], [DOUBLE], Size(memory=32 * GB), NO_CHANGES),
    "up to": ([OOM_AT_8], [CAPPED], Size(memory=4 * GB), Changes(memory=10 * GB)),
    "the most is reached": ([End(1, Ending.OOM, size=Size(memory=10 * GB))], [CAPPED], Size(memory=4 * GB),
                            Changes(memory=10 * GB)),
    "it had more than the most": ([End(1, Ending.OOM, size=Size(memory=12 * GB))], [CAPPED], Size(),
                                  Changes(memory=12 * GB)),
    "CPU": ([OOM_AT_4], [{"when": "any", "cpu": "x2", "up_to": "1.5 vCPU"}], Size(), Changes(cpu=1536)),
    "up to is about memory": ([OOM_AT_4], [{"when": "any", "cpu": "x8", "memory": "x4", "up_to": "5 GB"}], Size(),
                              Changes(cpu=8192, memory=5 * GB)),
    "elsewhere": ([SPOT], [ON_DEMAND], Size(), Changes(placements=("on-demand",))),
    "elsewhere with more": ([OOM_AT_4, SPOT], [DOUBLE, ON_DEMAND], Size(),
                            Changes(memory=8 * GB, placements=("on-demand",))),
    "the latest end decides where": (
        [SPOT, End(3, Ending.HOST)], [ON_DEMAND, {"when": "host", "placements": ["ec2", "spot"]}], Size(),
        Changes(placements=("ec2", "spot"))),
    "parameters": (
        [End(1, Ending.IMAGE), End(2, Ending.START)],
        [{"when": "image", "taskDefinition": "old", "disk": 50}, {"when": "start", "disk": 100}], Size(),
        Changes(parameters={"taskDefinition": "old", "disk": 100})),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_the_next_try_gets(name: str) -> None:
    those, rules, asked, expected = TABLE[name]
    found = after(*those, rules=rules, asked=asked)
    assert (found.cpu, found.memory, found.placements, found.parameters) == (
        expected.cpu,
        expected.memory,
        expected.placements,
        expected.parameters,
    )


factors = st.fractions(1, 8, max_denominator=8).filter(lambda factor: factor > 1)
whens = st.sampled_from(["oom", "spot", "any", "exit 75"])
rules_of_any_kind = st.builds(
    Rule,
    whens,
    cpu=st.none() | factors | st.integers(1, 5000),
    memory=st.none() | factors | st.integers(1, 5000),
    up_to=st.none() | st.integers(1, 5000),
    placements=st.none() | st.sampled_from([("spot",), ("on-demand", "ec2")]),
    parameters=st.sampled_from([{}, {"a": 1}, {"b": 2}]),
)
small = st.builds(Size, st.none() | st.integers(1, 5000), st.none() | st.integers(1, 5000))
small_ends = st.lists(
    st.builds(End, st.integers(1, 30), st.sampled_from(Ending), st.sampled_from([None, 1, 75]), st.none() | small),
    max_size=6,
    unique_by=lambda end: end.try_number,
)
rule_lists = st.lists(rules_of_any_kind, max_size=4)


@given(small_ends, rule_lists, small, st.randoms())
def test_the_order_in_which_ends_are_found_changes_nothing(
    those: list[End], rules: list[Rule], asked: Size, random: Any
) -> None:
    shuffled = random.sample(those, len(those))
    assert changes_after(those, rules, asked, merge) == changes_after(shuffled, rules, asked, merge)


@given(small_ends, rule_lists, small)
def test_one_more_end_never_takes_away_what_the_ends_before_it_gave(
    those: list[End], rules: list[Rule], asked: Size
) -> None:
    those = sorted(those, key=lambda end: end.try_number)
    amounts = [changes_after(those[:number], rules, asked, merge) for number in range(len(those) + 1)]
    for less, more in pairwise(amounts):
        assert (less.memory or 0) <= (more.memory or 0)
        assert (less.cpu or 0) <= (more.cpu or 0)
        assert less.placements is None or more.placements is not None
        assert less.parameters.keys() <= more.parameters.keys()


@given(small_ends, rule_lists, small)
def test_a_try_never_gets_less_than_an_end_was_about_or_than_is_asked_for(
    those: list[End], rules: list[Rule], asked: Size
) -> None:
    found = changes_after(those, rules, asked, merge)
    if found.memory is not None:
        assert asked.memory is None or found.memory > asked.memory
        for end in those:
            rule = next((one for one in rules if one.matches(end)), None)
            if rule is not None and rule.memory is not None and end.size is not None:
                assert found.memory >= (end.size.memory or 0)


@given(small_ends, rule_lists, st.integers(1, 5000), small)
def test_no_try_gets_more_than_the_most_that_is_allowed_unless_it_had_more(
    those: list[End], rules: list[Rule], most: int, asked: Size
) -> None:
    capped = [Rule(rule.when, memory=rule.memory, up_to=most) for rule in rules]
    had = [end.size.memory or 0 for end in those if end.size is not None]
    found = changes_after(those, capped, asked, merge)
    assert (found.memory or 0) <= max([most, asked.memory or 0, *had])


def test_a_factor_of_nothing_known_changes_nothing_and_says_so() -> None:
    found = after(End(1, Ending.OOM), rules=[DOUBLE])
    assert found.memory is None
    assert told(found, 2) == (
        "Try 2 is launched with memory as before: a rule multiplies it, and nothing tells how much it was."
    )


def test_a_wrong_size_is_named() -> None:
    wrong: list[dict[str, Any]] = [
        {"memory": "x1"},
        {"memory": "lots"},
        {"cpu": []},
        {"memory": "x2", "up_to": "x3"},
    ]
    for changes in wrong:
        with pytest.raises(WrongSize, match=next(reversed(changes))):
            rule_of("oom", changes)


def test_a_factor_is_kept_exactly() -> None:
    assert rule_of("oom", {"memory": "x1.1"}).memory == Fraction(11, 10)


# --- what people read ----------------------------------------------------------------------------------------


def test_people_read_what_a_try_gets_and_why() -> None:
    assert told(NO_CHANGES, 2) == ""
    assert told(after(OOM_AT_4, rules=[DOUBLE]), 2) == (
        "Try 2 is launched with 8 GB of memory instead of 4 GB: try 1 ended by running out of memory."
    )
    rules: list[dict[str, Any]] = [DOUBLE, {**ON_DEMAND, "environment": {"TOKEN": "secret"}, "image": "x"}]
    assert told(after(OOM_AT_4, SPOT, rules=rules), 3) == (
        "Try 3 is launched with 8 GB of memory instead of 4 GB: try 1 ended by running out of memory; "
        "with placement on-demand: try 2 ended by a spot interruption; "
        "with environment, image from a retry rule: try 2 ended by a spot interruption."
    )
    reached = End(1, Ending.OOM, size=Size(memory=10 * GB))
    most = "Try 2 is launched with 10 GB of memory, the most that its rule allows: "
    assert told(after(reached, rules=[CAPPED]), 2) == f"{most}try 1 ended by running out of memory."


@pytest.mark.parametrize("ending", Ending)
def test_every_kind_of_end_has_words(ending: Ending) -> None:
    found = after(End(1, ending, 3), rules=[{"when": "any", "cpu": 2}])
    assert told(found, 2).startswith("Try 2 is launched with 2 vCPU: try 1 ended by ")
