"""Command line of the demo: ``python -m ecs_async_executor.local.demo``."""

from __future__ import annotations

import argparse
import sys

from ecs_async_executor.local.demo.run import Options, demo
from ecs_async_executor.local.demo.stage import CLOUDS
from ecs_async_executor.local.demo.watch import TIMEOUT_SECONDS


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, run the demo and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ecs_async_executor.local.demo",
        description="Run a real Airflow on a local ECS or Batch and check what becomes of every task.",
    )
    parser.add_argument(
        "--executor", choices=tuple(CLOUDS), default="ecs", help="the service to run on (default: %(default)s)"
    )
    more = parser.add_mutually_exclusive_group()
    more.add_argument(
        "--provider",
        action="store_true",
        help="run the DAGs once more with the amazon provider's own executor, and compare",
    )
    more.add_argument("--keep", action="store_true", help="go on after the report, to look around in Airflow's UI")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_SECONDS, metavar="SECONDS", help="for the DAGs (%(default)s)"
    )
    options = parser.parse_args(arguments)
    return demo(
        Options(service=options.executor, provider=options.provider, keep=options.keep, timeout=options.timeout)
    )


if __name__ == "__main__":
    sys.exit(main())
