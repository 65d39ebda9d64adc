"""Files beside a task's log, written by Airflow's own log IO."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.utils.log.file_task_handler import _interleave_logs
from structlog.testing import capture_logs

from ecs_async_executor.adapter import log_files
from ecs_async_executor.adapter.log_files import SUFFIX, THREADS, WAITING_MAX, LogFiles
from tests.adapter.airflow_logs import keep_remotely, s3, s3_log_io

LOG = "dag_id=d/run_id=r/task_id=t/attempt=1.log"


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Airflow's log folder, where task logs stay."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "logs"))
    keep_remotely(monkeypatch, None)
    return tmp_path / "logs"


@pytest.fixture
def umask() -> Iterator[None]:
    """That of an image of Airflow's."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_without_remote_logs_a_file_is_in_airflows_log_folder(folder: Path, umask: None) -> None:
    log_files.write(LOG + SUFFIX, "one\n")
    log_files.write(LOG + SUFFIX, "two\n")  # by the next container of the same try
    file = folder / (LOG + SUFFIX)
    assert file.read_text() == "one\ntwo\n"
    # A later try, perhaps another user's, writes its log into the same folders.
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o664, 0o775]


def in_json(event: str, at: str) -> str:
    return f'{{"timestamp": "2026-11-29T01:05:46.{at}Z", "level": "info", "event": "{event}"}}'


def test_where_the_folder_is_shared_with_containers_the_logs_tab_has_no_line_twice(folder: Path) -> None:
    (folder / LOG).parent.mkdir(parents=True)
    (folder / LOG).write_text(in_json("printed", "000625") + "\n")
    log_files.write(LOG + SUFFIX, "\n".join(["why", in_json("began", "0"), in_json("printed", "000890"), ""]))
    streams: Any = [iter(file.read_text().splitlines()) for file in (folder / LOG).parent.iterdir()]
    shown = [one.event for one in _interleave_logs(*streams)]
    assert [line for line in shown if "printed" in line] == ["printed"]
    assert {"why", "began"} <= set(shown)


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_a_tasks_log_that_is_no_file_is_not_read(folder: Path, tmp_path: Path, what: str) -> None:
    (folder / LOG).parent.mkdir(parents=True)
    line = in_json("printed", "0")
    (tmp_path / "elsewhere").write_text(line)
    make: dict[str, Callable[[], Any]] = {
        "link": lambda: (folder / LOG).symlink_to(tmp_path / "elsewhere"),
        "pipe": lambda: os.mkfifo(folder / LOG),
        "folder": (folder / LOG).mkdir,
    }
    make[what]()
    log_files.write(LOG + SUFFIX, line)
    assert (folder / (LOG + SUFFIX)).read_text() == line


@pytest.mark.parametrize("path", ["../elsewhere.log", "a/../../elsewhere.log", "/elsewhere.log"])
def test_a_path_that_leads_out_of_the_log_folder_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not below the log folder"):
        log_files.write(path, "one")
    assert not list(folder.parent.glob("**/*.log"))


def test_a_link_of_a_task_leads_nowhere(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    secret = outside / "task.log"
    secret.write_text("mine\n")
    (folder / "run").mkdir(parents=True)
    (folder / "dag").symlink_to(outside)
    (folder / "run" / f"task.log{SUFFIX}").symlink_to(secret)
    (folder / "run" / "dangling.log").symlink_to(outside / "new.log")
    os.mkfifo(folder / "run" / "pipe.log")
    with pytest.raises(ValueError, match="not below the log folder"):
        log_files.write("dag/task.log", "theirs\n")
    for name in (f"task.log{SUFFIX}", "dangling.log", "pipe.log"):
        with pytest.raises(OSError, match=name):
            log_files.write(f"run/{name}", "theirs\n")
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("task.log", "mine\n")]


@pytest.mark.slow
def test_a_file_is_uploaded_to_s3_and_the_tasks_own_log_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto", reason="needs the extra 'local'")
    own = folder / LOG
    own.parent.mkdir(parents=True)
    own.write_text("the task's own")
    with s3(monkeypatch) as (client, bucket):
        keep_remotely(monkeypatch, s3_log_io(folder, f"s3://{bucket}/airflow"))
        log_files.write(LOG + SUFFIX, "one\n")
        log_files.write(LOG + SUFFIX, "two\n")
        (found,) = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert found["Key"] == f"airflow/{LOG}{SUFFIX}"
        body = client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
    assert body.split() == [b"one", b"two"]
    assert own.read_text() == "the task's own"
    assert not (folder / (LOG + SUFFIX)).exists()


def test_a_log_io_that_takes_no_files_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Streams:
        """As CloudWatch's: an upload ends its stream, and deletes the log's folder."""

        base_log_folder = folder
        delete_local_copy = True

        def upload(self, *_: Any) -> None:
            raise AssertionError

    keep_remotely(monkeypatch, Streams())
    log_files.write(LOG + SUFFIX, "one")
    assert not folder.exists()


def test_the_log_io_of_cloudwatch_takes_no_files(folder: Path) -> None:
    handler = pytest.importorskip("airflow.providers.amazon.aws.log.cloudwatch_task_handler")
    arn = "arn:aws:logs:eu-west-1:123456789012:log-group:group"
    log_io = handler.CloudWatchRemoteLogIO(base_log_folder=folder, remote_base="", log_group_arn=arn)
    assert not log_files._takes_files(log_io)


def test_texts_are_written_in_few_daemon_threads_and_too_many_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    go, written = threading.Event(), []

    def write(path: str, text: str) -> None:
        go.wait(20.0)
        written.append((path, text, threading.current_thread().daemon))

    monkeypatch.setattr(log_files, "write", write)
    before = set(threading.enumerate())
    files = LogFiles("executor.{}".format)
    for number in range(THREADS):
        files.write(f"{number}.log", "x")
    until(lambda: not files._waiting)
    with capture_logs() as lines:
        for number in range(WAITING_MAX + 5):
            files.write(f"a-{number}.log", "x")
    assert len(set(threading.enumerate()) - before) == THREADS
    assert [(line["event"], line["files"]) for line in lines] == [("executor.log_file.dropped", 1)]
    monkeypatch.setattr(log_files, "LINES_INTERVAL", 0.0)
    with capture_logs() as lines:
        files.write("b.log", "x")
    assert [(line["path"], line["files"]) for line in lines] == [("b.log", 5)]
    go.set()
    until(lambda: len(written) == WAITING_MAX + THREADS)
    assert {path for path, _, _ in written} >= {f"a-0.log{SUFFIX}", f"a-{WAITING_MAX - 1}.log{SUFFIX}"}
    assert all(daemon for _, _, daemon in written)
    until(lambda: set(threading.enumerate()) <= before)


def test_a_file_that_cannot_be_written_is_logged_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(path: str, _text: str) -> None:
        if path.startswith("bad"):
            raise PermissionError("no")
        written.append(path)

    monkeypatch.setattr(log_files, "write", write)
    monkeypatch.setattr(log_files, "THREADS", 1)
    files = LogFiles("executor.{}".format)
    with capture_logs() as lines:
        for path in ("bad-1.log", "bad-2.log", "bad-3.log", "good.log"):
            files.write(path, "x")
        until(lambda: written)
    (line,) = lines  # not one for each file of a folder that cannot be written
    assert line["event"] == "executor.log_file.failed"
    assert line["error"] == "PermissionError: no"
