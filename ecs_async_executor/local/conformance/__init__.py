"""
Ask an ECS and a Batch whether what is believed of them is so: small checks against any endpoint.

``python -m ecs_async_executor.local.conformance`` asks a local ECS of its own, ``--endpoint URL`` one that runs,
``--real`` AWS, with an account's credentials and for a few cents. Each check has a belief, asks for it and gives
the answer with a verdict; a table and a JSON document hold all of them. What it starts or makes it removes again.

Needs boto3, which comes with moto. Knows of the rest of this package only how to start a local ECS.
"""

from __future__ import annotations

from ecs_async_executor.local.conformance.model import Answer as Answer
from ecs_async_executor.local.conformance.model import Check as Check
from ecs_async_executor.local.conformance.model import Known as Known
from ecs_async_executor.local.conformance.model import Result as Result
from ecs_async_executor.local.conformance.model import Unanswered as Unanswered
from ecs_async_executor.local.conformance.model import Verdict as Verdict
from ecs_async_executor.local.conformance.run import CHECKS as CHECKS
from ecs_async_executor.local.conformance.run import Report as Report
from ecs_async_executor.local.conformance.run import run as run
from ecs_async_executor.local.conformance.target import Target as Target

__all__ = ["CHECKS", "Answer", "Check", "Known", "Report", "Result", "Target", "Unanswered", "Verdict", "run"]
