"""
What ``airflow ecs-async check --launch`` runs in a container: its text is the command, so it imports none of ours.

It asks what a task needs before its own code runs, without a database or a JWT.
"""

from __future__ import annotations

import os
import socket
import sys
from importlib import import_module
from importlib.metadata import version
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

NO_AIRFLOW = 40
NO_API = 41
NO_FILE = 42
MODULES = ("sdk.execution_time.execute_workload", "sdk.execution_time.supervisor", "executors.workloads")


def main() -> int:
    """Print what was found; return 0 if a task could run."""
    say("Python", sys.version.split()[0])
    try:
        say("Airflow", version("apache-airflow-core"))
        for name in MODULES:
            import_module(f"airflow.{name}")
        from airflow.configuration import conf
    except Exception as error:  # noqa: BLE001 - an import can raise anything
        say("Airflow cannot be imported:", type(error).__name__, error)
        return NO_AIRFLOW
    say("airflow.sdk.execution_time.execute_workload can be imported")
    if variable := "".join(sys.argv[1:-1]):  # before the workload
        if not os.environ.get(variable):
            say(f"The environment file has not arrived: there is no variable {variable}")
            return NO_FILE
        say("The environment file has arrived")
    base = conf.get("api", "base_url", fallback="/")
    base = f"http://localhost:8080{base}" if base.startswith("/") else base  # as Airflow has it
    url = urlsplit(conf.get("core", "execution_api_server_url", fallback=base))
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    if url.scheme in getproxies() and not proxy_bypass(host):
        say(f"The execution API at {host}:{port} is behind a proxy: not tried")
        return 0
    try:
        socket.create_connection((host, port), 10).close()
    except OSError as error:
        say(f"The execution API at {host}:{port} cannot be reached:", error)
        return NO_API
    say(f"The execution API at {host}:{port} can be reached")
    return 0


def say(*words: object) -> None:
    """Print at once: a container can be stopped at any moment."""
    print(*words, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
