"""
What the package adds to the start of Airflow's processes: ``python -m benchmarks.startup`` measures it.

Each process runs in turns in two environments, which have the packages of this one, without ours and with it. They
are made of links, so both read the same files, which Python has compiled before. On a busy machine the difference
of whole processes drowns in their noise; so the CPU of each part of ours is measured as well, in forks of a
process that has loaded what Airflow has loaded by then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ecs_async_executor
from benchmarks import results

RUNS = 21
PLUGINS = "from airflow.plugins_manager import ensure_plugins_loaded; ensure_plugins_loaded()"
TASK = f"""
import airflow.sdk.execution_time.execute_workload, airflow.sdk.execution_time.task_runner, airflow.settings
{PLUGINS}
"""
SCHEDULER = f"""
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.executors.executor_loader import ExecutorLoader
ExecutorLoader.init_executors()
{PLUGINS}
"""
API_SERVER = "from airflow.api_fastapi.app import create_app; create_app()"
PROCESSES: dict[str, tuple[str, ...]] = {
    "airflow version": ("-m", "airflow", "version"),
    "airflow config get-value core executor": ("-m", "airflow", "config", "get-value", "core", "executor"),
    "a task: imports of its supervisor, and plugins": ("-c", TASK),
    "a scheduler: imports, plugins and LocalExecutor": ("-c", SCHEDULER),
    "an API server: its app, with those of plugins": ("-c", API_SERVER),
}
IMPORT = "import ecs_async_executor"
PARTS = {
    "provider info and policy (every process)": (
        "import airflow.settings, airflow.policies",
        (
            "import ecs_async_executor.adapter.dag_policy, ecs_async_executor.provider_info as p; "
            "p.get_provider_info()"
        ),
    ),
    "plugin (every process)": (
        "import airflow.settings, airflow.plugins_manager, airflow.sdk.bases.operatorlink",
        "import ecs_async_executor.plugin",
    ),
    "commands (airflow ...)": (
        "import airflow.settings, airflow.cli.cli_config",
        "from ecs_async_executor.cli import get_cli_commands; get_cli_commands()",
    ),
    "app (API servers)": (
        "import airflow.settings, airflow.api_fastapi.main as main, airflow.plugins_manager",
        "import ecs_async_executor.plugin as p; p.EcsAsyncPlugin().fastapi_apps",
    ),
    "models of the options (when an executor starts)": (
        "import airflow.settings, pydantic",
        "import ecs_async_executor.settings",
    ),
}
"""What Airflow loads, with what it has loaded before."""
FORKS = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
{before}
sys.path.append({folder!r})
for _ in range({runs}):
    reading, writing = os.pipe()
    if not os.fork():
        began = time.process_time()
        {part}
        os.write(writing, str(time.process_time() - began).encode())
        os._exit(0)
    os.wait()
    print("part", os.read(reading, 100).decode())
"""


@dataclass
class Times:
    """Seconds of each run of one process in one environment."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the figures, and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each Airflow (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="results file (default: none is written)")
    parser.add_argument("--shared", action="store_true", help="say that others used the machine meanwhile")
    options = parser.parse_args(argv)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        without, installed = (
            _environment(Path(folder) / name, ours=name == "with") for name in ("without", "with")
        )
        home = Path(folder) / "airflow"
        figures = [
            _compare("python: the import", RUNS, home, (installed, ("-c", "pass")), (installed, ("-c", IMPORT))),
            *(
                _compare(name, options.runs, home, (without, arguments), (installed, arguments))
                for name, arguments in PROCESSES.items()
            ),
        ]
        parts = {name: _part(*part, without, home, RUNS) for name, part in PARTS.items()}
    if options.output:
        data = {
            "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
            "command": " ".join(("python -m benchmarks.startup", *(argv if argv is not None else sys.argv[1:]))),
            "versions": results.versions(),
            "machine": results.machine(),
            "machine_was_shared": options.shared,
            "load_average_before_and_after": [before, os.getloadavg()],
            "figures": figures,
            "cpu_ms_of_parts": parts,
        }
        options.output.write_text(json.dumps(data, indent=1) + "\n")
    return 0


def _compare(
    name: str,
    runs: int,
    home: Path,
    base: tuple[Path, tuple[str, ...]],
    ours: tuple[Path, tuple[str, ...]],
) -> dict[str, Any]:
    """Run two processes in turns, and print by how much the second takes longer."""
    environment = _variables(home)
    times = (Times(), Times())
    for number in range(-1, runs):
        # The first of two has the colder caches, so they change places.
        for which in (0, 1) if number % 2 else (1, 0):
            python, arguments = (base, ours)[which]
            wall, cpu = _run((str(python), *arguments), environment)
            if number >= 0:  # the run before those compiles and fills the caches
                times[which].wall.append(wall)
                times[which].cpu.append(cpu)
    figures: dict[str, Any] = {"process": name, "runs": runs}
    for kind in ("wall", "cpu"):
        of_base, of_ours = (getattr(one, kind) for one in times)
        figures[f"{kind}_ms"] = {
            "without": round(statistics.median(of_base) * 1e3, 1),
            "with": round(statistics.median(of_ours) * 1e3, 1),
            "median of the differences": round(
                statistics.median(there - here for here, there in zip(of_base, of_ours, strict=True)) * 1e3, 1
            ),
        }
    print(json.dumps(figures), flush=True)  # noqa: T201 - the result
    return figures


def _part(before: str, part: str, python: Path, home: Path, runs: int) -> float:
    """Return the CPU of a part of ours in ms, the median over forks; print it."""
    folder = Path(ecs_async_executor.__file__).parents[1]
    code = FORKS.format(before=before, part=part, folder=str(folder), runs=runs)
    done = subprocess.run(  # noqa: S603 - Python, as above
        [str(python), "-c", code], env=_variables(home), capture_output=True, text=True, check=True
    )
    times = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("part ")]
    assert len(times) == runs
    median = round(statistics.median(times) * 1e3, 2)
    print(json.dumps({"part": part, "cpu_ms": median}), flush=True)  # noqa: T201 - the result
    return median


def _variables(home: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "PYTHONWARNINGS": "ignore",
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Return how long a process takes, and the CPU of it and its children, in seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - Python, as above
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {process.returncode}")
    return wall, used.ru_utime + used.ru_stime


def _environment(folder: Path, *, ours: bool) -> Path:
    """Make an environment of links to the packages of this one, with or without ours; return its Python."""
    venv.create(folder, symlinks=True)
    (there,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        is_ours = "ecs_async_executor" in path.name
        if is_ours and (not ours or path.suffix == ".pth"):
            continue
        (there / path.name).symlink_to(path)
    package = there / "ecs_async_executor"
    if ours and not package.exists():  # installed as editable
        package.symlink_to(Path(ecs_async_executor.__file__).parent)
    return folder / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main())
