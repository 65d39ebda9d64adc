"""The files for a public forge: well formed, safe by zizmor's rules, and about commands that there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SESSIONS = set(re.findall(r"@nox\.session[^\n]*\n(?:@[^\n]+\n)*def (\w+)", (ROOT / "noxfile.py").read_text()))
SESSIONS |= set(re.findall(r'@nox\.session\(name="(\w+)"', (ROOT / "noxfile.py").read_text()))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_the_files_have_the_form_that_the_forge_wants(schema: str, paths: list[Path]) -> None:
    assert paths
    assert run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths) == ""


def test_zizmor_finds_nothing_unsafe() -> None:
    zizmor = Path(sysconfig.get_path("scripts")) / "zizmor"
    assert run(zizmor, "--offline", "--no-progress", "--quiet", "--pedantic", *WORKFLOWS) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_say_which_version_that_is(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_an_action_has_the_same_commit_everywhere() -> None:
    used = {one for path in WORKFLOWS for one in re.findall(r"uses: (.+)", path.read_text())}
    assert len({one.partition("@")[0] for one in used}) == len(used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_sessions_and_files_that_there_are(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"nox -s (\w+)", text)) <= SESSIONS
    constraints = set(re.findall(r"-c (constraints/\S+)", text))
    assert constraints
    assert all((ROOT / one).exists() for one in constraints)
    assert "bash .ci/run" not in text or (ROOT / ".ci" / "run").exists()


def test_every_workflow_has_no_rights_but_those_of_its_jobs() -> None:
    for path in WORKFLOWS:
        workflow: dict[str, Any] = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}, path.name
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 90, (path.name, name)


def test_a_release_is_published_without_a_password() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text())
    job = workflow["jobs"]["publish"]
    assert job["permissions"] == {"id-token": "write"}
    assert "secrets." not in json.dumps(workflow)


def test_who_reports_a_bug_is_asked_for_the_check_and_the_dump() -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    fields = {one["id"]: one for one in form["body"] if "id" in one}
    assert fields["check"]["attributes"]["label"] == "airflow ecs-async check -o json"
    assert "kill -USR2" in fields["dump"]["attributes"]["description"]
    assert all(fields[name]["validations"]["required"] for name in ("seen", "check", "dump", "versions"))


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md"])
def test_no_address_is_invented(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.findall(r"https?://|\S+@\S+", text)
    assert "private" in text
