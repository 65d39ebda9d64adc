"""
The plugin: two links and a tab for each task instance, a page of the menu, and the app that serves them.

May import Airflow, and ``addresses``. Every process of Airflow's imports this module, those of tasks included:
FastAPI, the executors and the AWS SDK are imported when a page or a link is asked for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import structlog
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

from ecs_async_executor.adapter.ui import addresses


class ContainerLink(BaseOperatorLink):
    """The container of a try, in the AWS console."""

    name = "Container in AWS"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the address of the container's page; an empty text hides the link."""
        from ecs_async_executor.adapter.ui.links import container_link

        return container_link(ti_key)


class LogLink(BaseOperatorLink):
    """What the container of a try has printed, in CloudWatch."""

    name = "Container log in CloudWatch"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the address of our page that leads to the log stream; an empty text hides the link."""
        from ecs_async_executor.adapter.ui.links import log_link

        return log_link(ti_key)


class EcsAsyncPlugin(AirflowPlugin):
    """What this package adds to Airflow's UI."""

    name = "ecs_async_executor"
    global_operator_extra_links = [ContainerLink(), LogLink()]  # noqa: RUF012 - Airflow declares it

    @cached_property
    def external_views(self) -> list[dict[str, str]]:  # type: ignore[override]
        """The tab and the page, each in a frame."""
        return [
            {
                "name": "Container",
                "href": addresses.of_any_task(),
                "destination": "task_instance",
                "url_route": "container",
            },
            {
                "name": "ECS",
                "href": addresses.overview(),
                "destination": "nav",
                "category": "browse",
                "url_route": "ecs",
            },
        ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app, which only the API server asks for; none if it cannot be made, and the API server starts."""
        try:
            from ecs_async_executor.adapter.ui.app import make_app
        except Exception:  # noqa: BLE001 - Airflow lets it end the API server
            structlog.get_logger(__name__).exception("ecs_async.ui.unavailable")
            return []
        return [{"name": "ecs-async", "app": make_app(), "url_prefix": addresses.PREFIX}]
