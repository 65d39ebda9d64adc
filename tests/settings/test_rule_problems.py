"""Rules that are wrong, and the exact words about each of them."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.services import batch as batch_service
from ecs_async_executor.services import ecs as ecs_service
from ecs_async_executor.settings import (
    AwsSettings,
    BatchSettings,
    EcsSettings,
    ExecutorRules,
    Source,
    load,
    load_for_batch,
    reading,
)
from ecs_async_executor.settings.rule_files import ALLOWED
from ecs_async_executor.settings.rule_keys import QueueKeys, RetryKeys
from ecs_async_executor.settings.rule_parsing import Given, Service
from ecs_async_executor.settings.rule_reading import read_rules
from tests.settings.conf import REQUIRED, BatchConf, Conf


def rules_of(path: Path, options: dict[str, Any] | None = None, *, on_batch: bool = False) -> ExecutorRules:
    ours = {"executor_rules": str(path), **(options or {})}
    if on_batch:
        return load_for_batch(BatchConf(ours), batch_service.wrong_parameters).rules
    return load(Conf(ours), ecs_service.wrong_parameters).rules


def problems_of(
    folder: Path, text: str, options: dict[str, Any] | None = None, *, on_batch: bool = False
) -> list[str]:
    """Return what is said about a file, without the folder that it is in."""
    path = folder / "rules.yaml"
    path.write_text(dedent(text))
    with pytest.raises(ConfigurationError) as caught:
        rules_of(path, options, on_batch=on_batch)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


WRONG: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "wrong_rules.yaml").read_text())


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong["rules"].strip())
def test_a_wrong_rule_is_named_with_line_key_and_way_out(tmp_path: Path, wrong: dict[str, Any]) -> None:
    found = problems_of(tmp_path, wrong["rules"], on_batch=wrong.get("on_batch", False))
    assert found == [f"rules.yaml {wrong['said']}"]


def test_everything_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    text = """\
        queues:
          gpu:
            memory: lots
            cluster: [a]
          gpu:
            cpu: 1
          eu:
            placements: [spot, resrved]
        placements:
          - reserved: {cluste: c}
        retries:
          - {when: oom}
    """
    options = {"launch_burst": "0", "queues": '{"eu": {}, "x": {"memory": "a"}}', "placement_patience": "soon"}
    found = problems_of(tmp_path, text, options)
    ours, elsewhere = "[ecs_async_executor]", "is set in another place too"
    unreadable = (
        'cannot be read: write a number with its unit, such as "4 GB" or "512 MB", or a whole number of MiB'
    )
    patience = "is not valid: it must be a number of seconds from 0 to 86400"
    assert found == [
        f"{ours} launch_burst = '0' is not valid: it must be a whole number from 1 to 100",
        f"{ours} placement_patience = 'soon' {patience}",
        f"{ours} queues.x.memory = 'a' {unreadable}",
        "rules.yaml line 2, queues.gpu is there a second time in line 5: remove one of them",
        f"rules.yaml line 3, queues.gpu.memory = 'lots' {unreadable}",
        "rules.yaml line 4, queues.gpu.cluster must be a string, not list",
        f"rules.yaml line 7, queues.eu {elsewhere}, {ours} queues.eu: remove one of them",
        "rules.yaml line 8, queues.eu.placements: there is no placement 'resrved'; did you mean reserved?",
        "rules.yaml line 10, placements[0].reserved.cluste: RunTask has no cluste; did you mean cluster?",
        "rules.yaml line 12, retries[0] changes nothing: give it memory, placements or another key",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        ({"queues": '{"q": {"cpu": 1}}'}, "queues: {q: {}}", "queues.q is set in another place too, {} queues.q"),
        ({"placements": "spot"}, "placements: [ec2]", "placements is set in another place too, {} placements"),
        (
            {"placements": '[{"a": {"launchType": "EC2"}}]'},
            "placements: {a: {}}",
            "placements.a is set in another place too, {} placements[0].a",
        ),
        (
            {"placement_patience": "5"},
            "placement_patience: 5",
            "placement_patience is set in another place too, {} placement_patience",
        ),
        (
            {"retries": '[{"when": "oom", "memory": "x2"}]'},
            "retries: []",
            "retries is set in another place too, {} retries",
        ),
    ],
)
def test_what_an_option_says_the_file_cannot_say_too(
    tmp_path: Path, options: dict[str, str], text: str, said: str
) -> None:
    said = said.format("[ecs_async_executor]")
    assert problems_of(tmp_path, text, options) == [f"rules.yaml line 1, {said}: remove one of them"]


def test_an_option_and_the_file_may_each_say_a_part(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("queues: {a: {placements: big}}\nplacements: {big: {launchType: EC2}}\n")
    found = rules_of(path, {"queues": '{"b": {"placements": ["big", "spot"]}}', "placements": "spot, ec2"})
    assert found.queues.keys() == {"a", "b"}
    assert (found.order, found.placements["big"].parameters) == (("spot", "ec2"), {"launchType": "EC2"})


def test_problems_of_options_are_named_with_option_and_key_path(tmp_path: Path) -> None:
    conf = Conf({"retries": '[{"when": "oom", "memory": "x1"}]', "placements": "spot, spto"})
    too_small = "makes nothing larger: write a factor above 1, such as"
    with pytest.raises(ConfigurationError) as caught:
        _ = load(conf, ecs_service.wrong_parameters).rules
    assert caught.value.problems == (
        f"[ecs_async_executor] retries[0].memory = 'x1' {too_small} \"x2\"",
        "[ecs_async_executor] placements[1]: there is no placement 'spto'; did you mean spot?",
    )


def test_no_problem_shows_what_may_be_secret(tmp_path: Path) -> None:
    text = """\
        queues:
          a: hunter2
          b: {environment: hunter2, retries: [hunter2]}
          c: {environment: {P: [hunter2]}, overrides: {containerOverrides: hunter2}}
          d: {overrides: {containerOverrides: [{environment: [{name: P, valu: hunter2}]}]}, tags: hunter2}
          e: {retries: {when: hunter2}, hunter: {p: hunter2}}
        placements: {f: {environment: {AIRFLOW_IS_EXECUTOR_CONTAINER: hunter2}}}
        retries: [{when: any, environment: hunter2, overrides: hunter2, startedBy: [hunter2]}]
    """
    found = problems_of(tmp_path, text)
    assert len(found) >= 12
    assert "hunter2" not in str(found)


@pytest.mark.usefixtures("with_connections")
def test_more_destinations_than_one_executor_has_are_refused(tmp_path: Path) -> None:
    queues = {f"q{n}": {"region_name": "eu-west-1", "conn_id": f"c{n}"} for n in range(20)}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"queues": queues}))
    assert len(rules_of(path).destinations) == 20
    queues["one"] = {"region_name": "eu-west-2"}
    path.write_text(json.dumps({"queues": queues}))
    with pytest.raises(ConfigurationError) as caught:
        rules_of(path)
    assert caught.value.problems == (
        "The rules name 21 destinations, and an executor has at most 20: leave some to another executor",
    )


def test_a_connection_of_a_queue_needs_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_amazon_provider_is_installed", lambda: False)
    (problem,) = problems_of(tmp_path, "queues: {eu: {conn_id: aws_eu}}")
    assert problem == (
        "rules.yaml line 1, queues.eu.conn_id = 'aws_eu' is a connection, which needs the amazon provider: "
        "install it (pip install 'ecs-async-executor[amazon]'), or remove it"
    )


def test_a_placement_that_no_list_has_is_doubted(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "placements:\n  gpu: {launchType: EC2}\n  big: {launchType: EC2}\nretries: [{when: oom, capacity: big}]"
    )
    assert rules_of(path).doubts == (
        f"{path} line 2, placements.gpu is in no list of placements: only tasks that name it use it",
    )


def test_a_key_that_is_wrong_hides_no_other_problem_of_its_rule(tmp_path: Path) -> None:
    text = """\
        queues:
          eu:
            region_name: Ireland
            placements: {spot: {}}
            cpu: 64
            cluster: [a]
            retries: [{when: never, memory: x1, overrides: {cpuu: 1}}, {when: oom, memory: x2}]
    """
    found = [problem.split(": ")[0].split(" ", 3)[3] for problem in problems_of(tmp_path, text)]
    assert found == [
        "queues.eu.region_name = 'Ireland' is not valid",
        "queues.eu.placements must be the name of a placement, or a list of different names, not an object",
        "queues.eu.cpu = 64 could mean vCPUs or CPU units",
        "queues.eu.cluster must be a string, not list",
        "queues.eu.retries[0].when = 'never' is not valid",
        "queues.eu.retries[0].memory = 'x1' makes nothing larger",
        "queues.eu.retries[0].overrides",
    ]


def test_a_file_that_cannot_be_read_is_reported_beside_everything_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = load(
            Conf({"executor_rules": "rules.yaml", "launch_burst": "0"}, {**REQUIRED, "launch_type": "X"}),
            ecs_service.wrong_parameters,
        ).rules
    assert caught.value.problems == (
        "[ecs_async_executor] launch_burst = '0' is not valid: it must be a whole number from 1 to 100",
        f"[ecs_async_executor] executor_rules = 'rules.yaml' is not valid: it must be {ALLOWED}",
        "[aws_ecs_executor] launch_type = 'X' is not valid: it must be one of FARGATE, EC2, EXTERNAL",
    )


def test_a_file_is_read_when_its_rules_are_needed_and_once(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    found = load(Conf({"executor_rules": str(path)}), ecs_service.wrong_parameters)
    assert found.tuning.executor_rules == str(path)
    path.write_text("queues: {a: {cluster: one}}")
    assert found.rules.parameters_of("a") == {"cluster": "one"}
    path.write_text("queues: {a: {cluster: two}}")
    assert found.rules.parameters_of("a") == {"cluster": "one"}


def test_rules_that_are_nested_too_deeply_are_refused() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": deep}
    queues = {"q": {"overrides": deep}}
    with pytest.raises(ConfigurationError) as caught:
        _ = load(Conf({"queues": queues}), ecs_service.wrong_parameters).rules
    assert caught.value.problems == ("[ecs_async_executor] the rules are nested too deeply",)


OWN_KEYS = [
    *QueueKeys.model_fields,
    *RetryKeys.model_fields,
    "up to",
    "capacity",
    "cluster",
    "overrides",
    "tags",
    "x",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["oom", "any", "exit 3", "x2", "4 GB", "spot", "eu-west-1", b"b", 1j, frozenset({1})]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.sampled_from(OWN_KEYS) | st.integers(0, 2), inner, max_size=4),
    ),
    max_leaves=12,
)
RULES = {
    "queues": ANYTHING | st.dictionaries(st.text(max_size=3), ANYTHING, max_size=2),
    "placements": ANYTHING | st.lists(ANYTHING | st.dictionaries(st.just("p"), ANYTHING, max_size=1), max_size=3),
    "retries": ANYTHING | st.lists(st.dictionaries(st.sampled_from(OWN_KEYS), ANYTHING, max_size=4), max_size=3),
}


@pytest.mark.parametrize("service", [EcsSettings, BatchSettings])
@settings(deadline=None, max_examples=300)
@given(values=st.fixed_dictionaries({}, optional={**RULES, "placement_patience": ANYTHING, "other": ANYTHING}))
def test_no_rules_whatever_make_the_reader_fail(service: type[AwsSettings], values: dict[str, Any]) -> None:
    wrong = {EcsSettings: ecs_service, BatchSettings: batch_service}[service].wrong_parameters
    given_rules = Given(values, lambda _: "rules.yaml line 1, ")
    rules, problems = read_rules([given_rules, given_rules], Service(service, wrong))
    assert all(problems)
    assert rules.destinations is not None


def test_problems_of_a_teams_rules_name_its_section() -> None:
    conf = Conf({"queues": '{"q": {"cpu": 64}}'})
    with pytest.raises(ConfigurationError) as caught:
        _ = load(conf, ecs_service.wrong_parameters, Source("red")).rules
    (problem,) = caught.value.problems
    assert problem.startswith("[red=ecs_async_executor] queues.q.cpu = 64 could mean")
