from __future__ import annotations

import pytest

from ecs_async_executor.provider_info import get_provider_info
from ecs_async_executor.settings import BatchTuning, Tuning, load, load_for_batch, provider_config

CONFIG = get_provider_info()["config"]
MODELS: dict[str, type[Tuning]] = {"ecs_async_executor": Tuning, "batch_async_executor": BatchTuning}
EVERY_OPTION = [(section, name) for section in CONFIG for name in CONFIG[section]["options"]]


class Defaults:
    """A configuration that has the declared defaults, as Airflow's has, and what is required besides."""

    def get(self, section: str, key: str, *, fallback: object = None) -> object:
        if section not in CONFIG:
            required = ("cluster", "container_name", "job_name", "job_queue")
            return "airflow" if key in required else fallback
        default = CONFIG[section]["options"][key]["default"]
        return fallback if default is None else default


def tuning(section: str, conf: Defaults) -> Tuning:
    return (load if MODELS[section] is Tuning else load_for_batch)(conf, lambda _: ()).tuning


def test_only_our_own_sections_are_declared() -> None:
    assert set(CONFIG) == set(MODELS)


def test_the_file_of_the_options_has_them_as_they_are() -> None:
    assert provider_config() == CONFIG, "write it anew: nox -s readme"


@pytest.mark.parametrize("section", MODELS)
def test_every_option_is_declared(section: str) -> None:
    assert list(CONFIG[section]["options"]) == list(Tuning.model_fields) == list(MODELS[section].model_fields)


@pytest.mark.parametrize(("section", "name"), EVERY_OPTION)
def test_an_option_is_described_as_airflow_wants_it(section: str, name: str) -> None:
    option = CONFIG[section]["options"][name]
    assert option["description"]
    assert option["version_added"] == "1.0.0"
    assert option["type"] in {"string", "integer", "float", "boolean"}
    assert isinstance(option["example"], str)
    assert option["default"] is None or isinstance(option["default"], str)
    # Airflow expands variables in defaults: braces and percent signs would be taken for such.
    assert not set(option["default"] or "") & set("{}%")


@pytest.mark.parametrize("section", MODELS)
def test_the_declared_defaults_are_the_defaults(section: str) -> None:
    assert tuning(section, Defaults()) == MODELS[section]()


NOT_ON_BATCH = {("batch_async_executor", name) for name in ("workload_delivery", "workload_bucket")}
NEEDS = {"workload_delivery": "workload_bucket"}
"""Options that are of no use without another one."""


@pytest.mark.parametrize(("section", "name"), [one for one in EVERY_OPTION if one not in NOT_ON_BATCH])
def test_the_declared_examples_are_allowed(section: str, name: str) -> None:
    class Example(Defaults):
        def get(self, section: str, key: str, *, fallback: object = None) -> object:
            is_it = section in CONFIG and key in {name, NEEDS.get(name)}
            example = CONFIG[section]["options"][key]["example"] if is_it else None
            return example or super().get(section, key, fallback=fallback)

    assert getattr(tuning(section, Example()), name) != getattr(MODELS[section](), name)


def test_the_package_name_is_the_distributions() -> None:
    from importlib.metadata import distribution

    info = get_provider_info()
    assert distribution(info["package-name"]).metadata["Name"] == info["package-name"]


def test_what_is_named_exists() -> None:
    pytest.importorskip("airflow")
    from importlib import import_module

    info = get_provider_info()
    for path in [*info["executors"], *info["cli"]]:
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name))


def test_airflow_accepts_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    airflow = pytest.importorskip("airflow")
    import json
    from pathlib import Path

    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
