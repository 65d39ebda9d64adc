"""Dockerfile, docker-compose and Helm values: well formed, and they say what the code and the pages say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import yaml

from ecs_async_executor.local.__main__ import parser
from ecs_async_executor.settings import Settings, load
from ecs_async_executor.settings.reading import Source
from tests.infrastructure.cloudformation import Template
from tests.infrastructure.policies import INFRASTRUCTURE

ROOT = INFRASTRUCTURE.parent
DOCKER = INFRASTRUCTURE / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VALUES: dict[str, Any] = yaml.safe_load((INFRASTRUCTURE / "helm-values.yaml").read_text())
DEFINITION: dict[str, Any] = json.loads((DOCKER / "task-definition.json").read_text())
DESTINATION = "arn:aws:iam::210987654321:role/airflow-scheduler"
"""As in infrastructure/iam."""
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    assert run(SCRIPTS / "hadolint", DOCKER / "Dockerfile") == ""


def test_the_compose_file_is_one() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert run(*command, DOCKER / "docker-compose.yaml") == ""


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        if "--from" not in line
        for source in line.replace("${DAGS}", "infrastructure/docker/dags").split()[:-1]
        if not source.startswith("--")
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_images_have_an_airflow_that_is_supported() -> None:
    (airflow,) = set(re.findall(r"ARG AIRFLOW_VERSION=(\S+)", DOCKERFILE))
    (python,) = re.findall(r"ARG PYTHON_VERSION=(\S+)", DOCKERFILE)
    assert (ROOT / "constraints" / f"airflow-{airflow}.txt").exists()
    assert f"Programming Language :: Python :: {python}" in (ROOT / "pyproject.toml").read_text()
    assert VALUES["airflowVersion"] == airflow


def test_every_target_that_something_names_is_in_the_dockerfile() -> None:
    stages = set(re.findall(r" AS (\w+)$", DOCKERFILE, re.MULTILINE))
    named = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    page = (ROOT / "docs" / "infrastructure.md").read_text()
    named |= set(re.findall(r"--target (\w+)", DOCKERFILE + page))
    assert {"task", "airflow", "local"} <= named <= stages


def test_the_local_ecs_takes_the_options_that_compose_gives_it() -> None:
    python, option, module, *words = SERVICES["ecs"]["command"]
    assert (python, option, module) == ("python", "-m", "ecs_async_executor.local")
    given = parser().parse_args(words)
    assert (given.host, given.runner) == ("0.0.0.0", "subprocess")  # noqa: S104
    address = SERVICES["scheduler"]["environment"]["AWS_ENDPOINT_URL"]
    assert address == f"http://ecs:{given.port}"
    assert any(f":{given.port}/_local/health" in word for word in SERVICES["ecs"]["healthcheck"]["test"])
    (mounted,) = (one for one in SERVICES["ecs"]["volumes"] if "task-definition" in one)
    source, target, _ = mounted.split(":")
    assert (DOCKER / source).samefile(DOCKER / "task-definition.json")
    assert [str(path) for path in given.task_definition] == [target]


class Options:
    """
    Airflow's configuration, as settings read it.

    :param sections: options by section, in lower case
    """

    def __init__(self, sections: dict[str, dict[str, str]]) -> None:
        self.sections = sections

    def get(self, section: str, key: str, *, fallback: Any = None) -> Any:
        return self.sections.get(section, {}).get(key, fallback)

    def settings(self) -> Settings:
        source = Source(options_set=lambda section: dict.fromkeys(self.sections.get(section, {}), "here"))
        return load(self, lambda parameters: (), source)


def of_environment(environment: dict[str, str]) -> Options:
    sections: dict[str, dict[str, str]] = {}
    for name, value in environment.items():
        if match := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name):
            sections.setdefault(match[1].lower(), {})[match[2].lower()] = str(value)
    return Options(sections)


def test_the_settings_of_compose_are_good() -> None:
    environment = SERVICES["scheduler"]["environment"]
    settings = of_environment(environment).settings()
    assert settings.doubts == ()
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "ecs_async_executor.AsyncEcsExecutor"
    given = parser().parse_args(SERVICES["ecs"]["command"][3:])
    assert settings.ecs.cluster in given.cluster
    assert settings.ecs.task_definition == DEFINITION["family"]
    assert [one["name"] for one in DEFINITION["containerDefinitions"]] == [settings.ecs.container_name]
    assert settings.ecs.region_name == "us-east-1"  # the local ECS's, where none is given
    assert settings.tuning.status_port == 8796


def test_the_settings_of_the_helm_values_are_good() -> None:
    options = Options(VALUES["config"])
    settings = options.settings()
    assert settings.doubts == ()
    assert VALUES["executor"] == "ecs_async_executor.AsyncEcsExecutor"
    # A Kubernetes label.
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{,62}", VALUES["executor"])
    assert settings.ecs.container_name == "airflow"
    assert str(options.get("core", "execution_api_server_url")).endswith("/execution/")


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_a_scheduler_has_longer_to_end_than_it_takes() -> None:
    compose = of_environment(SERVICES["scheduler"]["environment"]).settings().tuning
    assert seconds(SERVICES["scheduler"]["stop_grace_period"]) > compose.shutdown_timeout
    helm = Options(VALUES["config"]).settings().tuning
    assert VALUES["scheduler"]["terminationGracePeriodSeconds"] > helm.shutdown_timeout


def test_containers_find_the_execution_api_where_the_api_server_is() -> None:
    (container,) = DEFINITION["containerDefinitions"]
    variables = {one["name"]: one["value"] for one in container["environment"]}
    url = variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert url == SERVICES["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert url == "http://api-server:8080/execution/"
    assert SERVICES["api-server"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_task_definition_is_the_templates() -> None:
    template = Template(Image="airflow-task", ExecutionApiUrl="http://api-server:8080/execution/")
    (made,) = template.resources["TaskDefinition"]["ContainerDefinitions"]
    (container,) = DEFINITION["containerDefinitions"]
    assert made["Name"] == container["name"]
    assert made["StopTimeout"] == container["stopTimeout"]
    # The template makes the log group; nobody does beside docker-compose.yaml.
    options = {**made["LogConfiguration"]["Options"], "awslogs-create-group": "true"}
    assert options.keys() == container["logConfiguration"]["options"].keys()


def test_the_example_dag_is_where_the_images_and_compose_have_it() -> None:
    assert (DOCKER / "dags" / "hello.py").exists()
    assert "COPY --chown=airflow:root ${DAGS} /opt/airflow/dags" in DOCKERFILE


def test_the_settings_on_the_page_are_good() -> None:
    page = (ROOT / "docs" / "infrastructure.md").read_text()
    first, second = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)
    parsed = ConfigParser(interpolation=None)
    parsed.read_string(first)
    settings = Options({name: dict(parsed[name]) for name in parsed.sections()}).settings()
    assert settings.doubts == ()
    assert settings.ecs.conn_id in {None, ""}
    parsed.read_string(second)
    rules = Options({name: dict(parsed[name]) for name in parsed.sections()}).settings().rules
    assert [one.role_arn for one in rules.destinations.values()] == [DESTINATION]
