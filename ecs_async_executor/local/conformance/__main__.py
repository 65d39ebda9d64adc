"""``python -m ecs_async_executor.local.conformance``: ask a local ECS, an endpoint, or AWS."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecs_async_executor.local.conformance.bench import Bench
from ecs_async_executor.local.conformance.model import Result
from ecs_async_executor.local.conformance.run import CHECKS, chosen, estimate, run
from ecs_async_executor.local.conformance.target import IMAGE, Target

DIFFERENT = 1
MISUSED = 2
UNANSWERED = 3
LOCAL_INTERVAL = 0.2
LOCAL_CREDENTIALS = ("local", "local")
ASKED = {
    "cluster": "ECS cluster",
    "subnets": "subnets, with commas",
    "assign_public_ip": "do these subnets need a public address to pull an image? (y/n)",
}
"""What a run on AWS cannot do without, and how it is asked for."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ecs_async_executor.local.conformance",
        description="Ask an ECS and a Batch whether what is believed of them is so. Without --endpoint or --real, "
        "a local one that is started for it. Exit code 1 if a belief does not hold, 3 if nothing was "
        "answered.",
    )
    add = parser.add_argument
    add("check", nargs="*", help="names of checks, or beginnings of names; all of them without one")
    add("--list", action="store_true", help="show the checks and what they cost, and ask nothing")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="URL", help="a local ECS and Batch that run")
    where.add_argument(
        "--real", action="store_true", help="AWS, with the credentials of the environment: costs money"
    )
    add("--yes", action="store_true", help="do not ask before a run on AWS")
    add("--json", type=Path, metavar="FILE", help="write the results to FILE")
    add("--region", default=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")
    add("--cluster", help="ECS cluster")
    add("--subnets", help="with commas")
    add("--security-groups", default="", help="with commas; without one the VPC's default")
    add(
        "--assign-public-ip", action="store_true", default=None, help="where the subnets reach no registry without"
    )
    add("--launch-type", default="FARGATE", choices=("FARGATE", "EC2"))
    add("--capacity-provider", help="instead of the launch type")
    add("--task-definition", help="an existing one, with sh in its image; without it one is registered")
    add("--container", default="main", help="the container of that task definition (default: %(default)s)")
    add("--image", default=IMAGE, help="of the task definition that is registered (default: %(default)s)")
    add("--ec2-cluster", help="a cluster with a container instance; without it checks of failures are skipped")
    add("--job-queue", help="for the checks of Batch, which are skipped without it")
    add("--job-definition", help="for them likewise, with sh in its image")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, print a table and return the exit code."""
    options = parser().parse_args(argv)
    try:
        checks = chosen(options.check)
    except ValueError as error:
        print(error, file=sys.stderr)
        return MISUSED
    if options.list:
        for check in checks:
            print(f"{check.name:30} {check.known.value:11} {check.belief}")
        print(_costs(checks))
        return 0
    if options.json is not None and not options.json.parent.is_dir():
        print(f"there is no folder {options.json.parent}", file=sys.stderr)
        return MISUSED
    if options.real:
        if not _completed(options):
            return MISUSED
        print(_costs([c for c in checks if _target(options).has(c.needs)]))
        if not options.yes and not _agreed():
            return MISUSED
    with ExitStack() as stack:
        own = not options.real and options.endpoint is None
        target = stack.enter_context(_own(options.region)) if own else _target(options)
        bench = Bench(target, _client("ecs", target), _client("batch", target) if target.has("batch") else None)
        report = run(bench, checks, _show)
    print(f"\n{report.table()}")
    if options.json is not None:
        options.json.write_text(report.to_json(), encoding="utf-8")
    elif options.real:
        print(f"\n{report.to_json()}")
    if not report.answered:
        print("nothing was answered", file=sys.stderr)
        return UNANSWERED
    return DIFFERENT if report.wrong else 0


@contextmanager
def _own(region: str) -> Iterator[Target]:
    """Serve a local ECS and Batch that do what AWS does as far as is known, for the time of a run."""
    from ecs_async_executor.local import Instance, LocalEcs

    with LocalEcs(
        runner="subprocess",
        region=region,
        behaviour="aws",
        start_delay=1.0,
        visible_after=0.5,
        instances={"instances": [Instance(), Instance()]},
    ) as ecs:
        yield Target(
            endpoint=ecs.url,
            region=ecs.region,
            ec2_cluster="instances",
            job_queue="default",
            job_definition="airflow",
            interval=LOCAL_INTERVAL,
            work=1,
            patience=30.0,
        )


def _target(options: argparse.Namespace) -> Target:
    local = not options.real
    target = Target(
        endpoint=options.endpoint,
        region=options.region,
        cluster=options.cluster or "default",
        subnets=_words(options.subnets or ("subnet-1" if local else "")),
        security_groups=_words(options.security_groups),
        assign_public_ip=bool(options.assign_public_ip),
        launch_type=options.launch_type,
        capacity_provider=options.capacity_provider,
        task_definition=options.task_definition,
        container=options.container,
        image=options.image,
        ec2_cluster=options.ec2_cluster,
        job_queue=options.job_queue or ("default" if local else None),
        job_definition=options.job_definition or ("airflow" if local else None),
    )
    return replace(target, interval=LOCAL_INTERVAL, work=1, patience=60.0) if local else target


def _client(service: str, target: Target) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "total_max_attempts": 8})
    session = boto3.Session(*(LOCAL_CREDENTIALS if target.endpoint is not None else ()))
    return session.client(  # type: ignore[call-overload]
        service, region_name=target.region, endpoint_url=target.endpoint, config=config
    )


def _completed(options: argparse.Namespace) -> bool:
    """Ask for what a run on AWS needs and was not given; return whether it is all there."""
    missing = [name for name in ASKED if getattr(options, name) is None]
    if options.assign_public_ip is None and (options.yes or not sys.stdin.isatty()):
        missing.remove("assign_public_ip")
    if missing and not sys.stdin.isatty():
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        print(f"a run on AWS needs {names}", file=sys.stderr)
        return False
    for name in missing:
        said = input(f"{ASKED[name]}: ").strip()
        setattr(options, name, said.lower().startswith("y") if name == "assign_public_ip" else said)
    return bool(options.cluster and options.subnets)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("nobody is there to agree; give --yes", file=sys.stderr)
        return False
    return input("Go on? (y/n) ").strip().lower().startswith("y")


def _costs(checks: Sequence[Any]) -> str:
    containers, dollars = estimate(checks)
    return (
        f"{len(checks)} of {len(CHECKS)} checks, at most {containers} containers of a quarter of a vCPU for two "
        f"minutes each: about {dollars:.3f} US dollars on Fargate, without addresses and traffic."
    )


def _show(result: Result) -> None:
    print(f"{result.verdict.value:10} {result.name}: {result.answer}", flush=True)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


if __name__ == "__main__":
    sys.exit(main())
