from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services import calls, ecs
from tests.services.ecs.samples import ARN, use
from tests.services.fakes import FakeClient, refusal, until


class Cluster:
    """Lists and describes tasks as ECS does, two to a page."""

    def __init__(self, running: dict[str, str], stopped: dict[str, str]) -> None:
        self.running = running
        self.stopped = stopped
        self.client = FakeClient(list_tasks=self.list_tasks, describe_tasks=self.describe_tasks)
        self.hold: asyncio.Event | None = None

    async def list_tasks(self, *, cluster: str, **filters: str) -> dict[str, Any]:
        marked, state = filters.get("startedBy"), filters.get("desiredStatus", "RUNNING")
        first = int(filters.get("nextToken", 0))
        assert cluster == "k"
        assert not ("startedBy" in filters and "desiredStatus" in filters), "startedBy must be the only filter"
        tasks = self.running if state == "RUNNING" else self.stopped
        arns = [arn for arn, mark in tasks.items() if marked in {None, mark}]
        page = {"taskArns": arns[first : first + 2]}
        if self.hold is not None and state == "STOPPED":
            await self.hold.wait()
        return page | ({"nextToken": str(first + 2)} if len(arns) > first + 2 else {})

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        assert cluster == "k"
        assert 0 < len(tasks) <= 100
        return {"tasks": [{"taskArn": arn, "startedBy": self.stopped[arn]} for arn in tasks]}

    def sweeps(self) -> int:
        return sum(
            1
            for call in self.client.asked("list_tasks")
            if call.get("desiredStatus") == "STOPPED" and "nextToken" not in call
        )


def test_find_lists_running_and_stopped_tasks_through_all_pages() -> None:
    cluster = Cluster(
        running={ARN + f"r{n}": "mark" if n % 2 else "other" for n in range(10)},
        stopped={ARN + f"s{n}": "mark" if n == 4 else "other" for n in range(5)},
    )
    found = use(cluster.client, lambda backend: backend.search("k", "mark"))
    assert found == [Handle("k", ARN + name) for name in ("r1", "r3", "r5", "r7", "r9", "s4")]


def test_a_search_pays_for_each_request_but_its_first_and_a_sweep_is_paid_once() -> None:
    cluster = Cluster(
        running={ARN + f"r{n}": "mark" for n in range(5)}, stopped={ARN + f"s{n}": "mark" for n in range(250)}
    )
    paid = 0

    async def paced() -> None:
        nonlocal paid
        paid += 1

    async def search(backend: ecs.EcsBackend) -> None:
        await asyncio.gather(*(backend.search("k", "mark", paced) for _ in range(10)))

    use(cluster.client, search)
    requests = len(cluster.client.asked("list_tasks")) + len(cluster.client.asked("describe_tasks"))
    assert requests > 150
    assert paid == requests - 10
    assert cluster.sweeps() <= 2


@pytest.mark.parametrize("record", [None, "task", {"startedBy": "mark"}, {"taskArn": ["x"], "startedBy": "mark"}])
def test_a_stopped_task_whose_record_cannot_be_read_spoils_no_search(record: Any) -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark", ARN + "2": "mark"})

    def describe_tasks(**parameters: Any) -> Any:
        reply = cluster.describe_tasks(**parameters)
        return {"tasks": [record if task["taskArn"] == ARN + "2" else task for task in reply["tasks"]]}

    cluster.client.answers["describe_tasks"] = describe_tasks
    with capture_logs() as logs:
        assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "1")]
    assert [entry["event"] for entry in logs] == ["ecs_executor.describe.malformed"]


def test_a_task_that_is_in_both_lists_is_found_once() -> None:
    cluster = Cluster(running={ARN + "1": "mark"}, stopped={ARN + "1": "mark"})
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "1")]


def test_those_who_search_during_a_sweep_share_the_next_one() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "old"})

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        cluster.hold = asyncio.Event()
        first = asyncio.create_task(backend.search("k", "new"))
        await until(lambda: cluster.sweeps() == 1)
        others = [asyncio.create_task(backend.search("k", "new")) for _ in range(20)]
        await until(lambda: len(cluster.client.asked("list_tasks")) == 22)
        # Stopped after the first sweep had read its page: only a later sweep can see it.
        cluster.stopped[ARN + "2"] = "new"
        cluster.hold.set()
        return [await first, *await asyncio.gather(*others)]

    first, *others = use(cluster.client, search)
    assert first == []
    assert others == [[Handle("k", ARN + "2")]] * 20
    assert cluster.sweeps() == 2
    assert [call["tasks"] for call in cluster.client.asked("describe_tasks")] == [[ARN + "1"], [ARN + "2"]]


def test_a_failed_sweep_is_not_shared() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    to_come = [refusal("ThrottlingException", "slow", "ListTasks")]

    def list_tasks(**parameters: Any) -> Any:
        if parameters.get("desiredStatus") == "STOPPED" and to_come:
            return to_come.pop()
        return cluster.list_tasks(**parameters)

    cluster.client.answers["list_tasks"] = list_tasks

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        return await asyncio.gather(*(backend.search("k", "mark") for _ in range(3)), return_exceptions=True)

    results = use(cluster.client, search)
    assert isinstance(results[0], BackendError)
    assert results[1:] == [[Handle("k", ARN + "1")]] * 2


def test_a_sweep_goes_on_where_an_answer_was_lost_or_came_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_RETRY_DELAYS", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    troubles: dict[str, list[Exception]] = {
        "4": [refusal("ThrottlingException", "slow", "ListTasks"), ConnectionResetError()],
        "describe": [ConnectionResetError()],
    }

    def list_tasks(**parameters: Any) -> Any:
        to_come = troubles.get(parameters.get("nextToken", ""))
        return to_come.pop() if to_come else cluster.list_tasks(**parameters)

    def describe_tasks(**parameters: Any) -> Any:
        to_come = troubles["describe"]
        return to_come.pop() if to_come else cluster.describe_tasks(**parameters)

    cluster.client.answers.update(list_tasks=list_tasks, describe_tasks=describe_tasks)
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "s8")]
    assert cluster.sweeps() == 1
    assert not any(troubles.values())


@pytest.mark.parametrize("page", ["", "4", "8"])
def test_half_a_list_is_not_taken_for_the_whole(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_EMPTY_PAGE_DELAYS", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    nothing: list[Any] = [{"taskArns": []}]

    def list_tasks(**parameters: Any) -> Any:
        stopped = parameters.get("desiredStatus") == "STOPPED"
        if stopped and parameters.get("nextToken", "") == page and nothing:
            return nothing.pop()
        return cluster.list_tasks(**parameters)

    cluster.client.answers["list_tasks"] = list_tasks
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "s8")]
    assert not nothing


def test_a_list_that_ends_with_an_empty_page_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_EMPTY_PAGE_DELAYS", (0.0, 0.0))
    cluster = Cluster(running={}, stopped={ARN + "1": "mark", ARN + "2": "other"})

    async def list_tasks(**parameters: Any) -> Any:
        page = await cluster.list_tasks(**parameters)
        return page | ({"nextToken": "2"} if page["taskArns"] else {})

    cluster.client.answers["list_tasks"] = list_tasks
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "1")]


def test_what_a_failed_sweep_has_learnt_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecs.EcsBackend, "describe_batch", 3)
    cluster = Cluster(running={}, stopped={ARN + f"s{n}": "mark" if n == 8 else "other" for n in range(9)})
    refused = [refusal("AccessDeniedException", "no", "DescribeTasks")]

    def describe_tasks(**parameters: Any) -> Any:
        last = ARN + "s8" in parameters["tasks"]
        return refused.pop() if last and refused else cluster.describe_tasks(**parameters)

    cluster.client.answers["describe_tasks"] = describe_tasks

    async def search(backend: ecs.EcsBackend) -> list[Any]:
        with pytest.raises(BackendError):
            await backend.search("k", "mark")
        return list(await backend.search("k", "mark"))

    assert use(cluster.client, search) == [Handle("k", ARN + "s8")]
    asked = [call["tasks"] for call in cluster.client.asked("describe_tasks")]
    assert [len(tasks) for tasks in asked] == [3, 3, 3, 3]
    assert asked[2] == asked[3]


def test_a_listed_task_that_is_not_shown_for_a_moment_is_found_all_the_same() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    replies: list[Any] = [{"tasks": [], "failures": []}, {"failures": [{"arn": ARN + "1", "reason": "MISSING"}]}]

    def describe_tasks(**parameters: Any) -> Any:
        return replies.pop() if replies else cluster.describe_tasks(**parameters)

    cluster.client.answers["describe_tasks"] = describe_tasks
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == [Handle("k", ARN + "1")]


def test_a_listed_task_that_was_forgotten_since_is_not_asked_for_without_end() -> None:
    cluster = Cluster(running={}, stopped={ARN + "1": "mark"})
    cluster.client.answers["describe_tasks"] = {"failures": [{"arn": ARN + "1", "reason": "MISSING"}]}
    assert use(cluster.client, lambda backend: backend.search("k", "mark")) == []
    assert len(cluster.client.asked("describe_tasks")) == 3
