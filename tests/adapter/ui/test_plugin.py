"""What every process of Airflow's imports, and what the API server finds in it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files

from ecs_async_executor.adapter.ui import html
from ecs_async_executor.plugin import EcsAsyncPlugin

IMPORTED_BY_THE_PLUGIN = """
import json, sys
import airflow.plugins_manager
from airflow.sdk import BaseOperatorLink
before = set(sys.modules)
from ecs_async_executor.plugin import EcsAsyncPlugin
plugin = EcsAsyncPlugin()
plugin.external_views, plugin.global_operator_extra_links
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_plugin_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTED_BY_THE_PLUGIN], capture_output=True, text=True, check=True
    )
    imported = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in imported if not name.startswith("ecs_async_executor")] == []
    assert set(imported) <= {
        "ecs_async_executor",
        "ecs_async_executor.adapter",
        "ecs_async_executor.adapter.ui",
        "ecs_async_executor.adapter.ui.addresses",
        "ecs_async_executor.adapter.ui.plugin",
        "ecs_async_executor.plugin",
    }


def test_airflow_finds_the_plugin_by_its_entry_point() -> None:
    [ours] = entry_points(group="airflow.plugins", name="ecs_async_executor")
    assert ours.load() is EcsAsyncPlugin


def test_the_tab_and_the_page_are_where_airflow_shows_them() -> None:
    tab, page = EcsAsyncPlugin().external_views
    assert (tab["name"], tab["destination"], tab["url_route"]) == ("Container", "task_instance", "container")
    assert all(name in tab["href"] for name in ("{DAG_ID}", "{RUN_ID}", "{TASK_ID}", "{MAP_INDEX}"))
    assert (page["name"], page["destination"], page["url_route"]) == ("ECS", "nav", "ecs")


def test_no_page_has_a_script_or_a_style_in_it_or_switches_escaping_off() -> None:
    pages = [
        one
        for one in (files("ecs_async_executor.adapter.ui") / "templates").iterdir()
        if one.name.endswith(".html")
    ]
    assert len(pages) >= 4
    for page in pages:
        text = page.read_text()
        assert not [
            word for word in (" style=", "<style", "safe", "autoescape", " onclick", " onload") if word in text
        ]
        assert text.count("<script") == text.count("<script src=")


def test_an_answer_is_escaped_whatever_it_has() -> None:
    assert "<x>" not in html.rendered("message.html", title="<x>", text="<x>")
