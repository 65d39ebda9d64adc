"""The local service in a process of its own: it outlives every scheduler, and the audit reads its ledger."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from ecs_async_executor.local import LocalEcs
from tests.chaos.cloud import CLOUDS
from tests.chaos.weather import VISIBLE_AFTER, climate, script
from tests.local.rules import told_of


def main(ready: Path, ledger: Path, seed: int, name: str) -> None:
    """Serve until a signal comes."""
    cloud = CLOUDS[name]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with LocalEcs(
        script=script(cloud),
        latency=(0.002, 0.05),
        limits=cloud.limits,
        groups=cloud.groups,
        behaviour=cloud.behaviour(seed),
        visible_after=VISIBLE_AFTER,
        regions=[cloud.abroad] if cloud.abroad else [],
        realistic=False,
        ledger_path=ledger,
        seed=seed,
    ) as ecs:
        for region in filter(None, (ecs.region, cloud.abroad)):
            ecs.register("airflow", "main", command=["quick"], place=ecs.place(region))
        if cloud.events:
            told_of(ecs, cloud.events)
        for fault in climate(cloud):
            ecs.faults.add(fault)
        partial = ready.with_suffix(".partial")
        partial.write_text(json.dumps(ecs.environment))
        partial.replace(ready)
        stop.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
