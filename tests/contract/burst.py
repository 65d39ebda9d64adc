"""
A scheduler in a process of its own, to be killed: launches what it is given, and beats for ever.

Arguments: the service, then identities.
"""

from __future__ import annotations

import sys
import time
from typing import Any, cast

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.bridge import Bridge
from tests.contract.services import LOCAL, TUNING

name, *identities = sys.argv[1:]
service = LOCAL[name](cast("Any", None))  # the environment says where it is


def render(launch: Launch) -> LaunchSpec:
    return service.spec("long", started_by=launch.started_by, jwt=str(time.time()))


bridge = Bridge(service=service.facts, backend=service.backend, render=render, tuning=TUNING, max_attempts=3)
bridge.start()
for identity in identities:
    bridge.submit(Launch(identity, identity, None, 0, identity, time.time(), identity, tokened=True))
while True:
    bridge.drain(lambda report: None)
    bridge.heartbeat()
    time.sleep(0.02)
