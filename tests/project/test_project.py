from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import ecs_async_executor
from ecs_async_executor.core.metrics import Measure, metrics_table
from ecs_async_executor.settings import aws_batch_table, aws_ecs_table, batch_differences, settings_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = sorted((ROOT / "constraints").glob("airflow-*.txt"))


def pins(path: Path) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(requirement.name, []).append(requirement)
    return found


SETTINGS = {
    "settings": settings_table,
    "batch settings": batch_differences,
    "aws ecs settings": aws_ecs_table,
    "aws batch settings": aws_batch_table,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_page_of_settings_has_them_as_they_are(name: str) -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    shown = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == SETTINGS[name]().strip(), "write the tables anew: nox -s readme"


@pytest.mark.parametrize("measure", Measure)
def test_the_page_of_metrics_has_them_as_they_are(measure: Measure) -> None:
    page, name = (ROOT / "docs" / "metrics.md").read_text(), f"{measure.value}s"
    shown = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == metrics_table(measure).strip(), "write the tables anew: nox -s readme"


def test_installed_version_is_the_projects() -> None:
    assert ecs_async_executor.__version__ == PROJECT["version"] == metadata.version("ecs-async-executor")


def test_changelog_has_the_version_and_a_place_for_what_comes() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [version for version, _ in headings[:2]] == ["Unreleased", PROJECT["version"]]
    dates = [date for _, date in headings[1:]]
    assert [date for date in dates if not re.fullmatch(r" - 20\d\d-\d\d-\d\d", date)] == []


def test_the_classifier_of_the_status_is_that_of_the_version() -> None:
    (status,) = (name for name in PROJECT["classifiers"] if name.startswith("Development Status"))
    version = Version(PROJECT["version"])
    is_stable = version >= Version("1") and not version.is_prerelease
    assert status.endswith("5 - Production/Stable" if is_stable else "4 - Beta")


def test_classifiers_are_the_pythons_that_can_install_it() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {f"3.{name.removeprefix(prefix)}" for name in PROJECT["classifiers"] if name.startswith(prefix)}
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert named == {f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}.5")}


def test_readme_names_the_versions_that_are_supported() -> None:
    readme = (ROOT / "README.md").read_text()
    pythons = sorted(
        (name.rpartition(" ")[2] for name in PROJECT["classifiers"] if ":: Python :: 3." in name),
        key=lambda version: int(version.partition(".")[2]),
    )
    airflows = [path.stem.removeprefix("airflow-").rpartition(".")[0] for path in CONSTRAINTS]
    assert f"Airflow {airflows[0]} to {airflows[-1]} on Python {pythons[0]} to {pythons[-1]}" in readme


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_what_the_project_asks_for(path: Path) -> None:
    pinned = pins(path)
    asked = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    for requirement in map(Requirement, asked):
        assert requirement.name in pinned
        for pin in pinned[requirement.name]:
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert requirement.specifier.contains(specifier.version), f"{requirement} but {pin}"


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_hold_names_and_versions_only(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[^ ]+( ; [^/]+)?", line)] == []
    assert f"apache-airflow-core=={path.stem.removeprefix('airflow-')}" in lines


@pytest.mark.parametrize("name", ["aiobotocore", "anyio", "pydantic", "structlog"])
def test_lower_bounds_are_what_the_oldest_constraints_install(name: str) -> None:
    (asked,) = (one for one in map(Requirement, PROJECT["dependencies"]) if one.name == name)
    (pin,) = pins(CONSTRAINTS[0])[name]
    (lowest,) = (specifier.version for specifier in asked.specifier if specifier.operator == ">=")
    (tested,) = (specifier.version for specifier in pin.specifier)
    assert tested.split(".")[:2] == lowest.split(".")[:2]


def test_every_test_that_the_guarantees_name_exists() -> None:
    guarantees = (ROOT / "docs" / "guarantees.md").read_text()
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))
    named = set(re.findall(r"`(test_\w+)`", guarantees))
    assert len(named) > 30
    assert sorted(name for name in named if f"def {name}(" not in tests) == []
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", guarantees))
    assert sorted(name for name in files if not (ROOT / name).exists()) == []


PACKAGE = Path(ecs_async_executor.__file__).parent


def modules(*places: str) -> list[Path]:
    found = [path for place in places for path in sorted(PACKAGE.glob(place))]
    assert len(found) >= len(places)
    return found


@pytest.mark.parametrize("path", modules("core/*.py", "engine/*.py"), ids=lambda path: path.stem)
def test_no_module_of_the_engine_names_a_service(path: Path) -> None:
    source = path.read_text()
    assert "ecs_executor." not in source
    assert not re.findall(r"\b(?:ECS|EC2|Batch|Fargate|RunTask|SubmitJob|Describe(?:Tasks|Jobs))\b", source)


@pytest.mark.parametrize(
    "path",
    [
        *modules("services/*.py"),
        *(path for path in modules("adapter/*.py") if path.stem not in {"batch", "ecs"}),
    ],
    ids=lambda p: p.stem,
)
def test_what_the_services_share_names_no_event_after_one_of_them(path: Path) -> None:
    assert not re.findall(r"[\"'](?:ecs|batch)_executor\.", path.read_text())
