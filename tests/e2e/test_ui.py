"""
What this package adds to Airflow's UI, in a real browser, while the demo is kept.

With ``ECS_ASYNC_TESTS_SCREENSHOTS`` the pictures of what was looked at are kept in that folder. With
``ECS_ASYNC_TESTS_KEPT``, the address of a demo that is kept, none is started: ``-k ECS`` or ``-k Batch``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from tests.e2e.demos import ON_BATCH, Demo

pytest.importorskip("playwright.sync_api", reason="needs the dependency group 'browser'")

from playwright.sync_api import Browser, FrameLocator, Locator, Page, Response, expect, sync_playwright

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

RUN = "{run}"
"""Stands in paths for the run of the demo's DAGs, whose name is that of the moment at which the demo began."""
WIDTH, HEIGHT = 1200, 800
STEP_MS, FIRST_LOOK_MS = 10_000, 20_000
"""How long a step may take; the first question to AWS imports its SDK."""
SCHEMES = ("light", "dark")
CONSOLE = r"https://us-east-1\.console\.aws\.amazon\.com"

OUT_OF_MEMORY = ("broken", "out_of_memory")
NO_IMAGE = ("broken", "no_image")
HOST_LOST = ("host_lost", "long_haul")
RUNS_ON = ("lasting", "runs_on")
NO_CAPACITY = ("lasting", "no_capacity")
PRINTED = re.compile(r"Part \d+ of 20 is read, \d+ MB are in memory")


@dataclass(frozen=True)
class Service:
    """
    What differs between the services.

    :param container: the page of a container in the AWS console
    :param waits: why the task without capacity waits
    :param waits_in_container: it has a container meanwhile
    :param lost: the reason of a container whose host was taken away
    """

    arguments: tuple[str, ...]
    container: str
    waits: str
    waits_in_container: bool
    lost: str


ECS = Service(
    arguments=(),
    container=rf"{CONSOLE}/ecs/v2/clusters/demo/tasks/[0-9a-f]{{32}}\?region=us-east-1",
    waits="Capacity is unavailable at this time",
    waits_in_container=False,
    lost="Your Spot Task was interrupted",
)
BATCH = Service(
    arguments=ON_BATCH,
    container=rf"{CONSOLE}/batch/home\?region=us-east-1#jobs/.*[0-9a-f-]{{36}}",
    waits="INSUFFICIENT_INSTANCE_CAPACITY",
    waits_in_container=True,
    lost="Host EC2",
)


@dataclass(frozen=True)
class Kept:
    """
    A demo that has made its report and goes on.

    :param run: of its DAGs, as it stands in addresses
    """

    url: str
    service: Service
    run: str


def run_of(url: str) -> str:
    """Ask Airflow how the run of the demo's DAGs is called."""
    with urlopen(f"{url}/auth/token", timeout=30) as answer:  # noqa: S310 - our own server
        token = json.load(answer)["access_token"]
    address = f"{url}/api/v2/dags/broken/dagRuns"
    asking = Request(address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urlopen(asking, timeout=30) as answer:  # noqa: S310
        (run,) = json.load(answer)["dag_runs"]
    return quote(run["dag_run_id"])


@pytest.fixture(scope="module", params=[pytest.param(ECS, id="ECS"), pytest.param(BATCH, id="Batch")])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    service: Service = request.param
    if url := os.environ.get("ECS_ASYNC_TESTS_KEPT"):
        yield Kept(url, service, run_of(url))
        return
    demo = Demo(tmp_path_factory.mktemp("demo"), "--keep", *service.arguments, limit=900)
    try:
        demo.read_until("Airflow's UI is at ")
        found = re.search(r"UI is at (http://[\d.:]+)", demo.lines[-1])
        assert found is not None
        yield Kept(found[1], service, run_of(found[1]))
        demo.process.send_signal(signal.SIGINT)
        demo.finish()
    finally:
        demo.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, nor in most containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(kept: Kept, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages of Airflow's UI; nothing of ours may fail in them."""
    problems: list[str] = []

    def note_refusal(answer: Response) -> None:
        if answer.status >= 400:
            problems.append(f"{answer.url}: {answer.status}")

    def open_page(path: str, scheme: str = "light") -> Page:
        page = chromium.new_context(
            base_url=kept.url,
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": WIDTH, "height": HEIGHT},
            reduced_motion="reduce",
        ).new_page()
        page.set_default_timeout(STEP_MS)
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.on("response", note_refusal)
        page.goto(path.replace(RUN, kept.run))
        return page

    yield open_page
    for context in chromium.contexts:
        context.close()
    assert problems == []


@pytest.fixture
def shoot(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Page, str], None]:
    """Take a picture of a page."""
    folder = Path(os.environ.get("ECS_ASYNC_TESTS_SCREENSHOTS", tmp_path))
    service = "batch" if "Batch" in request.node.name else "ecs"

    def shoot(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{service}-{name}.png")

    return shoot


def path_of(task: tuple[str, str], tab: str = "") -> str:
    dag_id, task_id = task
    return f"/dags/{dag_id}/runs/{RUN}/tasks/{task_id}{tab}"


def frame_of(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def soon(locator: Locator) -> None:
    expect(locator.first).to_be_visible(timeout=FIRST_LOOK_MS)


def ids(value: object) -> str | None:
    return value[1] if isinstance(value, tuple) else None


# --- links ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [RUNS_ON, OUT_OF_MEMORY, NO_IMAGE, NO_CAPACITY], ids=ids)
def test_a_task_instance_links_to_its_container_and_the_containers_log(
    kept: Kept, open_page: Callable[..., Page], task: tuple[str, str]
) -> None:
    page = open_page(path_of(task, "/details"))
    soon(page.get_by_role("heading", name=task[1]))
    links = page.get_by_role("link", name="Container in AWS"), page.get_by_role("link", name="Container log")
    if task == NO_CAPACITY and not kept.service.waits_in_container:
        soon(page.get_by_text("Task ID"))
        assert [link.count() for link in links] == [0, 0]
        return
    container, log = links
    soon(container)
    address = container.get_attribute("href") or ""
    if address.startswith("/"):  # a job's id does not name its Region: our page asks, and leads there
        leads = page.request.get(address, max_redirects=0)
        assert leads.status == 307, leads.text()
        address = leads.headers["location"]
    assert re.fullmatch(kept.service.container, address)
    answer = page.request.get(log.get_attribute("href") or "", max_redirects=0)
    if task in (NO_IMAGE, NO_CAPACITY):
        assert answer.status == 200
        why = "never ran, so that it has printed nothing" if task == NO_IMAGE else "names no log stream"
        assert why in answer.text()
        return
    assert answer.status == 307, answer.text()
    assert re.match(rf"{CONSOLE}/cloudwatch/home\?region=us-east-1#logsV2:log-groups", answer.headers["location"])


# --- the tab ----------------------------------------------------------------------------------------------------


def expected_in_tab(task: tuple[str, str], service: Service) -> list[str | re.Pattern[str]]:
    words: dict[tuple[str, str], list[str | re.Pattern[str]]] = {
        RUNS_ON: ["running", "RUNNING", re.compile(r"Still running, line \d+")],
        NO_CAPACITY: ["queued", re.compile("^Waits for"), service.waits],
        OUT_OF_MEMORY: [
            "failed",
            "exit code 137",
            "OutOfMemoryError: Container killed due to memory usage",
            "The container needed more memory than it had.",
            PRINTED,
        ],
        NO_IMAGE: [
            "failed",
            "CannotPullContainerError",
            "The registry has no image of this name and tag.",
            "registry.example/nightly-etl:7",
        ],
    }
    return words[task]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("task", [RUNS_ON, NO_CAPACITY, OUT_OF_MEMORY, NO_IMAGE], ids=ids)
def test_the_tab_says_what_the_container_does_and_why(
    kept: Kept,
    open_page: Callable[..., Page],
    shoot: Callable[[Page, str], None],
    task: tuple[str, str],
    scheme: str,
) -> None:
    page = open_page(path_of(task), scheme)
    page.get_by_role("link", name="Container", exact=True).click()
    frame = frame_of(page)
    for words in expected_in_tab(task, kept.service):
        soon(frame.get_by_text(words))
    shoot(page, f"container-{task[1]}-{scheme}")
    assert is_light(frame) == (scheme == "dark")


def is_light(frame: FrameLocator) -> bool:
    """Return whether the text is light, as on a dark ground."""
    colour = frame.locator("body").evaluate("body => getComputedStyle(body).color")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128


def test_the_tab_follows_the_colours_that_were_chosen_in_airflow(open_page: Callable[..., Page]) -> None:
    page = open_page(path_of(NO_CAPACITY, "/plugin/container"))
    soon(frame_of(page).get_by_text("queued"))
    assert not is_light(frame_of(page))
    page.get_by_role("button", name="User").click()
    page.get_by_role("menuitem", name="Appearance").hover()
    page.get_by_role("menuitem", name="Dark").or_(page.get_by_role("menuitemradio", name="Dark")).click()
    expect(frame_of(page).locator("html")).to_have_attribute("data-theme", "dark")
    assert is_light(frame_of(page))


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_in_the_menu_lists_what_runs_and_what_waits_and_why(
    kept: Kept, open_page: Callable[..., Page], shoot: Callable[[Page, str], None], scheme: str
) -> None:
    page = open_page("/", scheme)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="ECS").click()
    frame = frame_of(page)
    waiting, running = (
        frame.locator("section").filter(has=frame.locator("h2", has_text=title))
        for title in ("Waiting", "Running")
    )
    soon(waiting.get_by_role("row").filter(has_text=NO_CAPACITY[1]).filter(has_text=kept.service.waits))
    soon(running.get_by_role("row").filter(has_text=RUNS_ON[1]))
    figures = frame.locator("ul.figures")
    expect(figures).to_contain_text("with a container")
    expect(figures).to_contain_text("throttles")
    assert is_light(frame) == (scheme == "dark")
    shoot(page, f"page-{scheme}")
    running.get_by_role("link", name=RUNS_ON[1]).click()
    page.wait_for_url(f"**/tasks/{RUNS_ON[1]}**")


# --- logs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [OUT_OF_MEMORY, NO_IMAGE, HOST_LOST], ids=ids)
def test_the_logs_of_a_failed_try_end_with_the_containers_last_lines(
    kept: Kept, open_page: Callable[..., Page], shoot: Callable[[Page, str], None], task: tuple[str, str]
) -> None:
    page = open_page(path_of(task, "?try_number=1"))
    reason = {
        OUT_OF_MEMORY: "OutOfMemoryError: Container killed due to memory usage",
        NO_IMAGE: "CannotPullContainerError",
        HOST_LOST: kept.service.lost,
    }
    log = page.locator("code, pre")
    soon(log.get_by_text(reason[task]))
    if task == NO_IMAGE:
        soon(log.get_by_text("never ran, so that there is no output"))
    else:
        soon(log.get_by_text("printed last:"))
    if task == OUT_OF_MEMORY:
        text = "".join(log.all_inner_texts()).partition("printed last:")[2]
        assert PRINTED.search(text), text
    shoot(page, f"logs-{task[1]}-light")


def test_the_logs_of_a_running_try_have_what_its_container_prints(open_page: Callable[..., Page]) -> None:
    page = open_page(path_of(RUNS_ON))
    soon(page.get_by_text(re.compile(r"Still running, line \d+")))
