"""
The project's checks; `nox -l` lists them. The two to know are `nox -s demo` and `nox -s tests`.

It needs nox and one Python, and uses uv if that is installed, else virtualenv and pip. Every session installs
under one of the files in constraints/, so a check gives the same result tomorrow as today.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "imports", "tests"]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

AIRFLOW = "3.3.2"
"""The Airflow of every session but `compat` and `next`."""

AIRFLOW_NEXT = "3.4.0b2"

RELEASES = {
    # Airflow: (a few days after its release, dependency groups to resolve with it). 3.1.0's set of dependencies is
    # the oldest that is supported: it has the lowest aiobotocore, anyio, structlog and pydantic.
    "3.1.0": ("2025-09-29", ("test",)),
    "3.1.8": ("2026-03-25", ("test",)),
    "3.2.2": ("2026-06-10", ("test",)),
    "3.3.2": ("2026-11-21", ("dev",)),
}

CORNERS = [
    ("3.10", "3.1.0"),
    ("3.11", "3.1.8"),
    ("3.11", "3.2.2"),
    ("3.13", "3.2.2"),
    ("3.12", "3.3.2"),
    ("3.13", "3.3.2"),
]
"""(Python, Airflow) of `compat`: every minor version of both, and every Airflow if Python 3.11 is the only one."""

HIGHEST_AIOBOTOCORE = ("aiobotocore==3.10.0", "boto3==1.43.117", "botocore==1.43.117")

# Use installed interpreters only: nox skips a corner whose Python is missing, and says so.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
# pyenv puts a shim on PATH for every Python it holds, and a shim fails unless its version is activated.
os.environ["PATH"] = os.pathsep.join(
    [
        *(
            str(binaries)
            for version in PYTHONS
            for binaries in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin"))[-1:]
        ),
        os.environ.get("PATH", os.defpath),
    ]
)


def group(*names: str) -> list[str]:
    """Return the requirements of dependency groups in pyproject.toml, which pip can read only from 25.1 on."""
    return list(nox.project.dependency_groups(PYPROJECT, *names))


def constraints(airflow: str = AIRFLOW) -> tuple[str, str]:
    """Return the arguments that pin an installation to the versions current with this Airflow."""
    return "-c", str(ROOT / "constraints" / f"airflow-{airflow}.txt")


def install(session: nox.Session, *requirements: str, airflow: str = AIRFLOW) -> None:
    """Install this project as editable, with all extras, beside one Airflow."""
    session.install(
        *constraints(airflow), f"apache-airflow-core=={airflow}", "-e", ".[amazon,local]", *requirements
    )


SPREAD = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder")
"""Three processes, for two cores: most tests wait rather than compute. tests/conftest.py makes the groups."""
BROAD = (*SPREAD, "-m", "not e2e")
QUICK = (*SPREAD, "-m", "not e2e and not slow")
NARROW = (*QUICK, "--ignore", "tests/local", "--ignore", "tests/infrastructure")
"""For another Python: leave out the tests that depend on neither Python nor Airflow nor a dependency."""
OF_AIRFLOW = (*QUICK, "tests/adapter", "tests/differential", "tests/project", "tests/scale", "tests/settings")
"""For another Airflow on the same Python: the only folders that import Airflow or its amazon provider."""
OF_THE_SDK = (*QUICK, "tests/adapter", "tests/contract", "tests/differential", "tests/services", "tests/settings")
"""For another aiobotocore: the folders in which requests are made, sent or read by it."""
OF_THE_WHEEL = (*QUICK, "tests/adapter/ui", "tests/project", "tests/services", "tests/settings")
"""For the built wheel: what loads every module, reads a file of the package, or is found by its metadata."""


def pytest(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run these tests, or those named on the command line, with these environment variables."""
    home = Path(session.create_tmp()).absolute() / "airflow"
    # Airflow reads and writes its home on import: never use that of the caller.
    session.run("pytest", *(session.posargs or arguments), env={"AIRFLOW_HOME": str(home), **environment})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*constraints(), *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly, against the newest supported Airflow."""
    install(session, *group("test", "types"), "nox")
    session.run("mypy", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Check which folder imports which (CONTRIBUTING.md has the tree)."""
    session.install(*constraints(), *group("imports"))
    session.run("lint-imports")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the newest supported Airflow; arguments go to pytest."""
    install(session, *group("test", "infrastructure"))
    pytest(session, *BROAD)


@nox.session
def e2e(session: nox.Session) -> None:
    """Run the tests that start a whole Airflow: the demo, interrupted in every way."""
    install(session, *group("test"))
    pytest(session, "tests/e2e", "-m", "e2e")


@nox.session
def compose(session: nox.Session) -> None:
    """Run the services of infrastructure/docker/docker-compose.yaml as processes, without Docker."""
    install(session, *group("test", "ha"))
    pytest(session, "tests/e2e/test_compose.py", "-m", "e2e", ECS_ASYNC_TESTS_NO_SKIPS="1")


@nox.session
def route(session: nox.Session) -> None:
    """Type what docs/try-it.md says, and run a task that names its executor by an alias."""
    install(session, *group("test"))
    pytest(
        session, "tests/e2e/test_try_it.py", "tests/e2e/test_alias.py", "-m", "e2e", ECS_ASYNC_TESTS_NO_SKIPS="1"
    )


CLIENTS = {
    "awscli": ("awscli==1.46.3",),
    "dagster": ("dagster==1.13.27", "dagster-aws==0.29.27"),
    "prefect": ("prefect==3.9.1", "prefect-aws==0.7.12"),
}
"""Other clients of ECS; each has an environment of its own, because they need other versions than Airflow."""


@nox.session
def clients(session: nox.Session) -> None:
    """Type what docs/local.md says: the AWS CLI, Dagster and Prefect on the local ECS."""
    install(session, *group("test"))
    path = [os.environ["PATH"]]
    for name, requirements in CLIENTS.items():
        binaries = Path(session.create_tmp()).absolute() / name / "bin"
        session.run("python", "-m", "venv", "--clear", str(binaries.parent))
        session.run(str(binaries / "python"), "-m", "pip", "install", "--quiet", *requirements, external=True)
        path.append(str(binaries))
    # Elsewhere these tests are skipped without the clients; here a skip would be a check without a result.
    told = {"ECS_ASYNC_TESTS_NO_SKIPS": "1", "PATH": os.pathsep.join(path)}
    pytest(session, "tests/e2e/test_other_clients.py", "-m", "e2e", **told)


@nox.session
def ha(session: nox.Session) -> None:
    """Kill schedulers of a real Airflow on a real PostgreSQL, and measure what API calls notice of row locks."""
    install(session, *group("test", "ha"))
    # Elsewhere these tests are skipped without a PostgreSQL; here a skip would be a check without a result.
    tests = ("tests/e2e/test_ha.py", "tests/e2e/test_locks.py", "-m", "e2e", "-s")
    pytest(session, *tests, ECS_ASYNC_TESTS_NO_SKIPS="1")


PICTURES = {
    "ecs-container-out_of_memory-light.png": "ui-container.png",
    "ecs-page-light.png": "ui-page.png",
    "ecs-logs-long_haul-light.png": "ui-logs.png",
}
"""The screenshots of `ui` that docs/ui.md shows, and their names in docs/images."""


@nox.session
def ui(session: nox.Session) -> None:
    """Look at Airflow's UI in Chromium while the demo runs; `-- --pictures` renews those in docs/images."""
    install(session, *group("test", "browser"))
    shots = Path(session.create_tmp()).absolute() / "screenshots"
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir()
    renew = session.posargs == ["--pictures"]
    if renew:
        session.posargs.clear()
    # Elsewhere these tests are skipped without a Chromium; here a skip would be a check without a result.
    told = {"ECS_ASYNC_TESTS_NO_SKIPS": "1", "ECS_ASYNC_TESTS_SCREENSHOTS": str(shots)}
    pytest(session, "tests/e2e/test_ui.py", "-m", "e2e", *(("-k", "ECS") if renew else ()), **told)
    session.log(f"Screenshots are in {shots}")
    for taken, kept in PICTURES.items() if renew else ():
        shutil.copy(shots / taken, ROOT / "docs" / "images" / kept)


@nox.session
@nox.parametrize(["python", "airflow"], CORNERS)
def compat(session: nox.Session, airflow: str) -> None:
    """Run the tests on the corners of Airflow and Python; arguments go to pytest and may name those of `ha`."""
    install(session, *group("test", *(["ha"] if session.posargs else [])), airflow=airflow)
    # The other tests run on Python 3.11 in `tests`, and on the oldest dependencies in the corner with Python 3.10.
    pytest(session, *(OF_AIRFLOW if session.python == "3.11" else NARROW))


@nox.session
def highest(session: nox.Session) -> None:
    """Run the tests on the newest aiobotocore; the lowest comes with Airflow 3.1.0 in `compat`."""
    install(session, *group("test"))
    session.install(*HIGHEST_AIOBOTOCORE)
    pytest(session, *OF_THE_SDK)


@nox.session
def next(session: nox.Session) -> None:  # noqa: A001 - nox takes the session's name from the function's
    """Run the tests on a pre-release of Airflow, without constraints; they may fail."""
    session.install("--pre", f"apache-airflow-core=={AIRFLOW_NEXT}", "-e", ".[amazon,local]", *group("test"))
    pytest(session, *BROAD)


@nox.session
def chaos(session: nox.Session) -> None:
    """Send 10,000 workloads through every fault while schedulers are killed; arguments go to it (--workloads)."""
    install(session, *group("test"))
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Watch a real Airflow run DAGs on a local ECS or Batch; arguments go to it (--executor batch, --keep)."""
    session.log("Installing Airflow and the amazon provider. The first time that is some quiet minutes of pip.")
    # The amazon provider has the executor that the burst is measured with besides ours.
    session.install(*constraints(), f"apache-airflow-core=={AIRFLOW}", ".[amazon,local]")
    # Run the installed package, not the sources here.
    session.chdir(session.create_tmp())
    # Ctrl-C reaches the demo too, which then needs a moment to end its processes.
    session.run(
        *("python", "-m", "ecs_async_executor.local.demo", *session.posargs),
        interrupt_timeout=60,
        terminate_timeout=30,
    )


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into the folder site, and check its links and that it asks no other server."""
    session.install(*constraints(), *group("docs", "test"))
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    pytest(session, "tests/site", ECS_ASYNC_TESTS_SITE=str(ROOT / "site"))


@nox.session
def security(session: nox.Session) -> None:
    """Look for secrets in the files, and for known weaknesses of dependencies; `-- --offline`: only the first."""
    session.install(*constraints(), *group("security"))
    files = str(session.run("git", "ls-files", external=True, silent=True, log=False)).splitlines()
    # What was found and looked at is in the baseline, and so are the forms of invented secrets.
    session.run("detect-secrets-hook", "--baseline", ".secrets.baseline", *files, silent=True, log=False)
    session.log(f"No secret in {len(files)} files")
    if "--offline" in session.posargs:
        return
    # A mirror of PyPI without its advisories skips every package, which --strict calls a failure.
    _, pinned = constraints()
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "-r", pinned, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the executor beside the provider's and bare aiobotocore; arguments go to it (--smoke, --service)."""
    install(session, *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build wheel and sdist into dist, check them, and run tests against the wheel, without the sources."""
    bench, dist = Path(session.create_tmp()).absolute() / "wheel", ROOT / "dist"
    for folder in (bench, dist):
        shutil.rmtree(folder, ignore_errors=True)
    session.install("build", "check-wheel-contents", "twine")
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    if not dist.exists():
        session.skip("nothing was built (--install-only)")
    (built,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("check-wheel-contents", "--package", "ecs_async_executor", str(built))
    session.run("twine", "check", "--strict", str(built), str(source))
    session.install(
        *constraints(),
        f"apache-airflow-core=={AIRFLOW}",
        f"ecs-async-executor[amazon,local] @ {built.as_uri()}",
        *group("test"),
    )
    for name in ("tests", "docs", "infrastructure", "constraints"):
        shutil.copytree(ROOT / name, bench / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "noxfile.py"):
        shutil.copy(ROOT / name, bench)
    session.chdir(bench)
    pytest(session, *OF_THE_WHEEL)


@nox.session(name="constraints", default=False)
def lock(session: nox.Session) -> None:
    """Resolve constraints/ again, for all Airflows or some; `-- --date 2026-12-01`: the newest, as of then."""
    session.install("uv")
    named: list[str] = session.posargs
    upgrade: tuple[str, ...] = ()
    if "--date" in named:
        # Without --upgrade uv keeps each version that still fits.
        named, (date,), upgrade = [AIRFLOW], named[named.index("--date") + 1 :], ("--upgrade",)
        RELEASES[AIRFLOW] = (date, RELEASES[AIRFLOW][1])
        # It is the date of this file's constraints from now on.
        here = Path(__file__)
        here.write_text(re.sub(rf'("{re.escape(AIRFLOW)}": \(")[\d-]+', rf"\g<1>{date}", here.read_text()))
    for airflow, (date, groups) in RELEASES.items():
        if named and airflow not in named:
            continue
        path = ROOT / "constraints" / f"airflow-{airflow}.txt"
        source = Path(session.create_tmp()) / "airflow.in"
        source.write_text(f"apache-airflow-core=={airflow}\n")
        session.run(
            *("uv", "pip", "compile", "pyproject.toml", str(source), "--output-file", str(path), "--quiet"),
            *("--extra", "amazon", "--extra", "local", *(f"--group={name}" for name in groups)),
            *("--universal", "--python-version", PYTHONS[0], "--exclude-newer", date, *upgrade),
            # The local ECS extends this one minor version of moto, which is newer than the older Airflows.
            *(f"--exclude-newer-package={name}=2026-11-01" for name in ("moto", "py-partiql-parser")),
            *("--no-annotate", "--no-header", "--no-config"),
        )
        path.write_text(
            f"# Versions current on {date} for Airflow {airflow} and this project's extras and tests.\n"
            f"# Written by `nox -s constraints -- {airflow}`.\n" + path.read_text()
        )


@nox.session(default=False)
def readme(session: nox.Session) -> None:
    """Rewrite the tables in docs/, the schemas of rules, and the options that Airflow is told of."""
    session.install(*constraints(), "msgspec", "pydantic")
    settings, metrics = "from ecs_async_executor.settings", "from ecs_async_executor.core.metrics"
    table_of = "import Measure, metrics_table; print(metrics_table(Measure.{}))"
    schema = "from ecs_async_executor.settings.rule_schema"
    keys_of = "import keys_table; print(keys_table('{}'))"
    for path, name, script in (
        *(
            (ROOT / "docs" / "settings.md", name, f"{settings} import {table}; print({table}())")
            for name, table in (
                ("settings", "settings_table"),
                ("batch settings", "batch_differences"),
                ("aws ecs settings", "aws_ecs_table"),
                ("aws batch settings", "aws_batch_table"),
            )
        ),
        (ROOT / "docs" / "metrics.md", "gauges", f"{metrics} {table_of.format('GAUGE')}"),
        (ROOT / "docs" / "metrics.md", "counters", f"{metrics} {table_of.format('COUNTER')}"),
        (ROOT / "docs" / "metrics.md", "timers", f"{metrics} {table_of.format('TIMER')}"),
        *(
            (ROOT / "docs" / "placement.md", f"{kind} keys", f"{schema} {keys_of.format(kind)}")
            for kind in ("size", "destination", "queue", "retry")
        ),
    ):
        table = session.run("python", "-c", script, silent=True, env={"PYTHONPATH": str(ROOT)})
        before, marker, rest = re.split(rf"(<!-- {name}:.*?-->\n)", path.read_text(), maxsplit=1)
        path.write_text(f"{before}{marker}\n{str(table).strip()}\n\n{rest[rest.index(f'<!-- /{name} -->') :]}")
    options = (
        "import json; from pathlib import Path; from ecs_async_executor.settings import provider_config; "
        "file = Path('ecs_async_executor/provider_config.json'); "
        "file.write_text(json.dumps(provider_config(), indent=1) + '\\n')"
    )
    session.run("python", "-c", options, env={"PYTHONPATH": str(ROOT)})
    schemas = (
        f"{schema} import SCHEMA_FILES, schema_text; from pathlib import Path; "
        "[Path('ecs_async_executor/settings', name).write_text(schema_text(service)) "
        "for service, name in SCHEMA_FILES.items()]"
    )
    session.run("python", "-c", schemas, env={"PYTHONPATH": str(ROOT)})
