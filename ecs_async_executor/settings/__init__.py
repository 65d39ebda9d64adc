"""
The typed, validated settings: our own sections, and the amazon provider's of the same services.

Modules here may import each other, pydantic and :mod:`ecs_async_executor.core`, nothing else of this project. They
import in this order only: ``options``, ``values``, ``rules``, ``rule_words``; ``tuning``, ``aws``, ``rule_keys``,
``rule_files``; ``rule_parsing``; ``rule_reading``, ``rule_schema``, ``describing``; ``reading``.
"""

from __future__ import annotations

from ecs_async_executor.settings.aws import ECS_SECTION as ECS_SECTION
from ecs_async_executor.settings.aws import AwsSettings as AwsSettings
from ecs_async_executor.settings.aws import BatchSettings as BatchSettings
from ecs_async_executor.settings.aws import EcsSettings as EcsSettings
from ecs_async_executor.settings.describing import Option as Option
from ecs_async_executor.settings.describing import aws_batch_table as aws_batch_table
from ecs_async_executor.settings.describing import aws_ecs_table as aws_ecs_table
from ecs_async_executor.settings.describing import batch_differences as batch_differences
from ecs_async_executor.settings.describing import describe as describe
from ecs_async_executor.settings.describing import provider_config as provider_config
from ecs_async_executor.settings.describing import settings_table as settings_table
from ecs_async_executor.settings.reading import ConfReader as ConfReader
from ecs_async_executor.settings.reading import Settings as Settings
from ecs_async_executor.settings.reading import SettingsForBatch as SettingsForBatch
from ecs_async_executor.settings.reading import Source as Source
from ecs_async_executor.settings.reading import load as load
from ecs_async_executor.settings.reading import load_for_batch as load_for_batch
from ecs_async_executor.settings.rules import Destination as Destination
from ecs_async_executor.settings.rules import ExecutorRules as ExecutorRules
from ecs_async_executor.settings.rules import Placement as Placement
from ecs_async_executor.settings.rules import Queue as Queue
from ecs_async_executor.settings.rules import Retry as Retry
from ecs_async_executor.settings.tuning import BatchTuning as BatchTuning
from ecs_async_executor.settings.tuning import Tuning as Tuning
from ecs_async_executor.settings.values import CONTAINER_FORMS as CONTAINER_FORMS
from ecs_async_executor.settings.values import JOB_NAME as JOB_NAME
from ecs_async_executor.settings.values import MORE_THAN_A_CONTAINER as MORE_THAN_A_CONTAINER
