"""``python -m ecs_async_executor.local``: the local ECS and Batch as a program; stops on SIGTERM and SIGINT."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from ecs_async_executor.local import LocalEcs
from ecs_async_executor.local.batch import RETENTION
from ecs_async_executor.local.behaviour import Behaviour
from ecs_async_executor.local.errors import AwsError
from ecs_async_executor.local.manual import DESCRIPTION, manual
from ecs_async_executor.local.runners import INHERITED
from ecs_async_executor.local.server import Latency, parse_latency

WAKE_SECONDS = 0.5


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ecs_async_executor.local",
        description=DESCRIPTION,
        epilog=manual(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=0, help="port to listen on, 0 for a free one (default: %(default)s)")
    add("--port-file", type=Path, metavar="FILE", help="write the port to FILE when ready")
    add("--runner", choices=("subprocess", "scripted"), default="subprocess", help="default: %(default)s")
    add("--script", type=Path, metavar="FILE.json", help="rules of the scripted runner, a JSON list: see scripts")
    add(
        "--latency",
        type=_latency,
        default=0.0,
        metavar="SECONDS",
        help='latency of every answer: a number, or JSON such as [0.05, 0.15] or {"RunTask": 0.1}',
    )
    add(
        "--max-running",
        type=int,
        metavar="N",
        help="run N tasks and jobs at most; others wait in PROVISIONING or RUNNABLE",
    )
    add(
        "--capacity",
        action="append",
        default=[],
        metavar="NAME=N",
        help="room for N tasks on a launch type or capacity provider, beyond which RunTask answers with failures, "
        "or for N jobs in a job queue, beyond which they wait in RUNNABLE; in each region, or in one as "
        "REGION/NAME=N; repeatable",
    )
    add(
        "--groups",
        type=Path,
        metavar="FILE.json",
        help="Auto Scaling groups: an object of capacity providers, as in "
        '{"asg": {"hosts": 0, "tasks_per_host": 20, "scale_out": 720}}',
    )
    add(
        "--behaviour",
        type=_behaviour,
        default="default",
        metavar="SWITCHES",
        help='"aws" for what AWS does as far as is known, or JSON as in {"failure_memory": "replay"}',
    )
    add("--rate-limits", action="store_true", help="enforce AWS's default rate limits")
    add(
        "--visible-after",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long after its creation a task or job is not described (default: %(default)s)",
    )
    add("--listed-after", type=float, metavar="SECONDS", help="how long it is not listed (default: the same)")
    add("--retention", type=float, default=3600.0, metavar="SECONDS", help="how long a stopped task is kept")
    add(
        "--job-retention", type=float, default=RETENTION, metavar="SECONDS", help="how long a finished job is kept"
    )
    add("--job-delay", type=float, default=0.0, metavar="SECONDS", help="time from SubmitJob to RUNNABLE")
    add("--start-delay", type=float, default=0.0, metavar="SECONDS", help="time from placement to start")
    add("--stop-timeout", type=float, default=30.0, metavar="SECONDS", help="time from SIGTERM to SIGKILL")
    add(
        "--log-dir",
        type=Path,
        metavar="DIR",
        help="write each process's output to DIR/<task id>.log (default: a folder that goes with the server)",
    )
    add(
        "--missing-image",
        action="append",
        default=[],
        metavar="PATTERN",
        help="an image that cannot be pulled, with * for any characters; repeatable",
    )
    add(
        "--inherit-environment",
        action="store_true",
        help="give processes the server's whole environment, as if it were in their image; by default they get "
        f"{', '.join(INHERITED)} of it, and always what their definition and request set",
    )
    add(
        "--ledger", type=Path, metavar="FILE", help="append a JSON line for each container accepted and each ended"
    )
    add("--cluster", action="append", default=[], metavar="NAME", help="a cluster besides 'default'; repeatable")
    add(
        "--task-definition",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.json",
        help="a task definition to register at the start, as RegisterTaskDefinition takes it: see task "
        "definitions; repeatable",
    )
    add(
        "--job-queue",
        action="append",
        default=[],
        metavar="NAME",
        help="a job queue besides 'default'; repeatable",
    )
    add(
        "--job-definition",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.json",
        help="a job definition to register at the start, as RegisterJobDefinition takes it, besides 'airflow'; "
        "repeatable",
    )
    add(
        "--region",
        default=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        help="region of the clusters, queues and definitions made at the start (default: %(default)s)",
    )
    add(
        "--other-region",
        action="append",
        default=[],
        metavar="NAME",
        help="another region in which to make them; repeatable",
    )
    add("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return the exit code."""
    options = parser().parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        ecs = LocalEcs(
            runner=options.runner,
            script=json.loads(options.script.read_text()) if options.script else (),
            latency=options.latency,
            max_running=options.max_running,
            capacity={name: int(n) for name, _, n in (c.partition("=") for c in options.capacity)},
            groups=json.loads(options.groups.read_text()) if options.groups else None,
            behaviour=options.behaviour,
            limits=options.rate_limits,
            visible_after=options.visible_after,
            listed_after=options.listed_after,
            retention=options.retention,
            job_retention=options.job_retention,
            job_delay=options.job_delay,
            start_delay=options.start_delay,
            stop_timeout=options.stop_timeout,
            inherit_environment=options.inherit_environment,
            missing_images=options.missing_image,
            log_dir=options.log_dir,
            ledger_path=options.ledger,
            clusters=options.cluster,
            job_queues=options.job_queue,
            region=options.region,
            regions=options.other_region,
            host=options.host,
            port=options.port,
            seed=options.seed,
        )
        definitions = [json.loads(path.read_text()) for path in options.task_definition]
        jobs = [json.loads(path.read_text()) for path in options.job_definition]
        ecs.start()
    except (OSError, ValueError) as error:
        print(f"local ECS: {error}", file=sys.stderr)
        return 2
    try:
        for place in map(ecs.place, (options.region, *options.other_region)):
            for definition in definitions:
                ecs.register_task_definition(definition, place=place)
            for definition in jobs:
                ecs.register_job_definition(definition, place=place)
        if options.port_file is not None:
            _write(options.port_file, str(ecs.port))
        print(f"local ECS on {ecs.url}", flush=True)
        # The operating system may deliver a signal to a thread that is starting a process. That does not interrupt
        # this wait, and Python acts on the signal only in this thread: hence the timeout.
        while not stop.wait(WAKE_SECONDS):
            pass
    except AwsError as error:
        print(f"local ECS: {error}", file=sys.stderr)
        return 2
    finally:
        ecs.stop()
        if options.port_file is not None:
            options.port_file.unlink(missing_ok=True)
    return 0


def _behaviour(text: str) -> Behaviour:
    try:
        return Behaviour.of(json.loads(text) if text.startswith("{") else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _latency(text: str) -> Latency:
    return parse_latency(json.loads(text))


def _write(path: Path, text: str) -> None:
    """Write a file so that no reader sees half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
