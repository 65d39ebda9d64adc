"""The plugin for Airflow's UI under the name that Airflow loads it by; every process of Airflow's imports it."""

from ecs_async_executor.adapter.ui.plugin import EcsAsyncPlugin

__all__ = ["EcsAsyncPlugin"]
