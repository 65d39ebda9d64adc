"""A scheduler whose credentials never come says so, takes nothing more, and ends in time, the process included."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCHEDULER = """
import json, sys, time, uuid
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.services import credentials, ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import EcsSettings, Tuning

hook, begun = sys.argv[1], time.monotonic()
class Hangs:
    def __init__(self, **_):
        time.sleep(60)
credentials._hook_class = lambda: Hangs if hook == "connection" else None

settings = EcsSettings(cluster="c", container_name="a", region_name="eu-west-1")
tuning = Tuning(connect_timeout=0.5, read_timeout=0.5, shutdown_timeout=4.0)
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
while not bridge.statistics().paused and time.monotonic() < begun + 20:
    bridge.heartbeat()
    bridge.drain(reports.append)
    time.sleep(0.02)
paused, paused_after = bridge.statistics().paused, time.monotonic() - begun
ending = time.monotonic()
bridge.stop(tuning.shutdown_timeout, stop_containers=False, reason="")
print(json.dumps({
    "paused": paused, "paused_after": paused_after, "ended_in": time.monotonic() - ending,
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
    config.write_text("[default]\ncredential_process = sleep 20\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    ran = subprocess.run(
        [sys.executable, "-c", SCHEDULER, source], env=environment, check=True, capture_output=True, timeout=50
    )
    ended_at = time.time()
    said = json.loads(ran.stdout.splitlines()[-1])
    assert re.search(reason, said["paused"])
    assert said["paused_after"] < 10
    assert said["ended_in"] < 5.0
    assert said["reports"] == 0
    assert ended_at - said["ended_at"] < 3.0, "no thread holds up the process"
