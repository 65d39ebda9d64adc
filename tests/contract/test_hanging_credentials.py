"""A scheduler whose credentials never come says so, takes nothing more, and ends in time, the process included."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

HANGS = 600
"""
Seconds for which the source of the credentials says nothing. The limits of this test are far below that, and far
above what the settings add up to: only waiting for the source exceeds them, no machine that has too much to do.
"""
SHUTDOWN_TIMEOUT = 4.0
SLOW = 60.0
"""Seconds that a loaded machine may take more for a step."""

SCHEDULER = """
import json, sys, time, uuid
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.services import credentials, ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import EcsSettings, Tuning

hook, begun = sys.argv[1], time.monotonic()
hangs, shutdown_timeout, slow = map(float, sys.argv[2:])
class Hangs:
    def __init__(self, **_):
        time.sleep(hangs)
credentials._hook_class = lambda: Hangs if hook == "connection" else None

settings = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")
tuning = Tuning(connect_timeout=0.5, read_timeout=0.5, shutdown_timeout=shutdown_timeout)
bridge = Bridge(
    service=ecs.SERVICE,
    backend=lambda: ecs.EcsBackend(ClientFactory.from_settings(settings, tuning), settings),
    render=lambda launch: LaunchSpec({"taskDefinition": "d"}, "c", "c", "FARGATE", launch.started_by),
    tuning=tuning,
    max_attempts=3,
)
bridge.start()
for _ in range(20):
    identity = str(uuid.uuid4())
    bridge.submit(Launch(identity, identity, None, 0, identity, time.time(), identity, tokened=True))
reports = []
while not bridge.statistics().paused and time.monotonic() < begun + slow:
    bridge.heartbeat()
    bridge.drain(reports.append)
    time.sleep(0.02)
paused = bridge.statistics().paused
ending = time.monotonic()
bridge.stop(tuning.shutdown_timeout, stop_containers=False, reason="")
print(json.dumps({
    "paused": paused, "ended_in": time.monotonic() - ending,
    "reports": len(reports), "ended_at": time.time(),
}))
"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("process", "AWS credentials: CredentialRetrievalError: .*no credentials within 0.5 s"),
        ("connection", "no AWS client: CredentialRetrievalError: .*the connection 'aws_default' within 0.5 s"),
    ],
)
def test_a_scheduler_whose_credentials_never_come_says_so_and_its_process_ends_in_time(
    tmp_path: Path, source: str, reason: str
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = sleep {HANGS}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    command = [sys.executable, "-c", SCHEDULER, source, *map(str, (HANGS, SHUTDOWN_TIMEOUT, SLOW))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as scheduler:
        try:
            output, _ = scheduler.communicate(timeout=4 * SLOW)
            ended_at = time.time()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(scheduler.pid, signal.SIGKILL)  # the process that says nothing outlives it
    assert scheduler.returncode == 0
    said = json.loads(output.splitlines()[-1])
    assert re.search(reason, str(said["paused"])), "it says so, while it waits"
    assert said["ended_in"] < SHUTDOWN_TIMEOUT + SLOW
    assert said["reports"] == 0
    assert ended_at - said["ended_at"] < SLOW, "no thread holds up the process"
