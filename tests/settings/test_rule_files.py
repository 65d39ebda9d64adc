from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecs_async_executor.settings.rule_files import LARGEST, UnusableFile, read_rule_file


def written(folder: Path, text: str | bytes, name: str = "rules.yaml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(name: str) -> str:
    with pytest.raises(UnusableFile) as caught:
        read_rule_file(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is an empty file: write rules into it, or unset the option"),
        ("\n  \n", "is an empty file: write rules into it, or unset the option"),
        ("# nothing yet\n", "is a file without rules: write some into it, or unset the option"),
        ("queues:\n\tgpu: {}\n", "is not YAML: line 2, column 1 has a tab: indent with spaces"),
        ("queues: {gpu: {}\n", "is not YAML: line 2, column 1: expected ',' or '}', but got '<stream end>' "),
        ("queues:\n  gpu: a: b\n", "is not YAML: line 2, column 9: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "has a second document, which begins in line 2: remove it"),
        ("a: 1\nb: \x07\n", "is not text: line 2 has the character 0x07"),
        (b"a: 1\nb: \xff\n", "is not text in UTF-8: line 2 has the byte 0xff"),
        (b"\x89PNG\r\n\x1a\n\x00", "is not text in UTF-8: line 1 has the byte 0x89"),
        ("a: 1".encode("utf-16"), "is not text in UTF-8: line 1 has the byte 0xff"),
        ("#" * (LARGEST + 1), "is larger than 256 KiB: is it the right file?"),
        ("[" * 50_000, "is not valid: the file is nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    assert refusal(written(tmp_path, text)).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"queues": {},}', "is not JSON: line 1, column 15: "),
        ('{\n"placement_patience": NaN}', "is not JSON: NaN is no number there"),
        ("queues: {}", "is not JSON: line 1, column 1: Expecting value"),
        ("null", "is a file without rules: write some into it, or unset the option"),
        ("[" * 50_000, "is not valid: the file is nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused_where_json_is_promised(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(written(tmp_path, text, "rules.json")).startswith(said)


ALLOWED = "the absolute path of a .yaml, .yml or .json file"


@pytest.mark.parametrize(
    "name", ["rules.yaml", "./rules.yaml", "~/rules.yaml", "/opt/rules", "/opt/rules.toml", ""]
)
def test_a_name_has_to_be_an_absolute_path_of_a_kind_of_file_that_can_be_read(name: str) -> None:
    assert refusal(name) == f"is not valid: it must be {ALLOWED}"


def test_what_is_no_readable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "does not exist: the scheduler and the commands read it, and the api-server where it has to"
    assert refusal(str(tmp_path / "no.yaml")) == missing
    (tmp_path / "folder.yaml").mkdir()
    assert refusal(str(tmp_path / "folder.yaml")) == f"is not valid: it is a directory, and must be {ALLOWED}"
    os.mkfifo(tmp_path / "pipe.yaml")  # nobody writes to it: an open() would wait for ever
    assert refusal(str(tmp_path / "pipe.yaml")) == f"is not valid: it is no ordinary file, and must be {ALLOWED}"
    assert refusal("/a\0.yaml") == "cannot be read: embedded null byte"

    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path, "queues: {}")
    monkeypatch.setattr("builtins.open", denied)  # root may read everything
    assert refusal(path) == "cannot be read: let the user of this process read the file"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("queues:\n  gpu: &gpu {}\n", ["line 2: &gpu is an anchor, which is not read: write values out"]),
        (
            "queues:\n  a: &x {}\n  b: *x\n",
            [
                "line 2: &x is an anchor, which is not read: write values out",
                "line 3: *x is an alias, which is not read: write the value out",
            ],
        ),
        (
            "a: &x [*x]\n",
            [
                "line 1: &x is an anchor, which is not read: write values out",
                "line 1: *x is an alias, which is not read: write the value out",
            ],
        ),
        (
            "queues:\n  gpu: !!python/object/apply:os.system ['true']\n",
            ["line 2: !!python/object/apply:os.system is a tag, which is not read: write the value itself"],
        ),
        (
            "queues:\n  gpu: {cluster: !Ref Cluster}\n",
            ["line 2: !Ref is a tag, which is not read: write the value itself"],
        ),
        (
            "queues:\n  gpu:\n    cluster: a\n  gpu: {}\n",
            ["line 2, queues.gpu is there a second time in line 4: remove one of them"],
        ),
        (
            "queues:\n  12: {}\n",
            ["line 2, queues has the key '12', which is no text: write it in quotes"],
        ),
        ("true: 1\n", ["line 1 has the key 'true', which is no text: write it in quotes"]),
        ("? [a]\n: 1\n", ["line 1 has a key that is a list or an object: keys are text"]),
        ("placement_patience: 1e999\n", ["line 1, placement_patience is a number that is too large"]),
        ("- spot\n", ["must have an object with keys, not a list"]),
        ("spot\n", ["must have an object with keys, not text"]),
    ],
)
def test_what_yaml_can_do_and_rules_cannot_is_named_with_its_line(
    tmp_path: Path, text: str, problems: list[str]
) -> None:
    name = written(tmp_path, text)
    assert read_rule_file(name).problems == tuple(f"{name} {problem}" for problem in problems)


def test_a_key_twice_in_json_is_named_with_its_line(tmp_path: Path) -> None:
    name = written(tmp_path, '{"queues": {\n\t"a": {},\n\t"a": {"cluster": "c"}}}', "rules.json")
    assert read_rule_file(name).problems == (
        f"{name} line 2, queues.a is there a second time in line 3: remove one of them",
    )


def test_words_that_yaml_1_1_takes_for_something_else_are_text(tmp_path: Path) -> None:
    text = """\
no: no
on: 'off'
account: 012345678901
time: 12:30
day: 2026-01-02
group: 1_000
octal: 0o17
number: -5
share: 1.5
large: 1e3
yes_: true
nothing:
"""
    assert read_rule_file(written(tmp_path, text)).values == {
        "no": "no",
        "on": "off",
        "account": "012345678901",
        "time": "12:30",
        "day": "2026-01-02",
        "group": "1_000",
        "octal": "0o17",
        "number": -5,
        "share": 1.5,
        "large": 1000.0,
        "yes_": True,
        "nothing": None,
    }


@pytest.mark.parametrize("name", ["rules.yaml", "rules.yml", "rules.json", "RULES.JSON"])
def test_every_key_has_its_line(tmp_path: Path, name: str) -> None:
    text = '{"queues":\n\t{"a": {"tags":\n\n [{"k": 1},\n 2]}}}'.replace("\t", " ")
    found = read_rule_file(written(tmp_path, text, name))
    assert found.values == {"queues": {"a": {"tags": [{"k": 1}, 2]}}}
    assert found.lines == {
        ("queues",): 1,
        ("queues", "a"): 2,
        ("queues", "a", "tags"): 2,
        ("queues", "a", "tags", 0): 4,
        ("queues", "a", "tags", 0, "k"): 4,
        ("queues", "a", "tags", 1): 5,
    }
    assert found.where(("queues", "a", "tags", 1, "x")) == f"{tmp_path / name} line 5, "
    assert found.where(("other",)) == f"{tmp_path / name}, "


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    values=st.dictionaries(st.text(max_size=10), TREES, min_size=1, max_size=4),
    indent=st.sampled_from([None, 2, "\t"]),
)
def test_any_json_is_read_as_json_is(tmp_path: Path, values: dict[str, Any], indent: int | str | None) -> None:
    found = read_rule_file(written(tmp_path, json.dumps(values, indent=indent), "rules.json"))
    assert (found.values, found.problems) == (values, ())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(text=st.text(alphabet="aq:-[]{}&*!|>'\"#%@ \n\t,?~0.é\x00", max_size=60))
def test_no_text_makes_the_reader_fail_in_another_way(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(UnusableFile):
        assert isinstance(read_rule_file(written(tmp_path, text)).values, dict)
