"""Airflow's own log IO and reader of task logs, and an S3 to keep logs in."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def keep_remotely(monkeypatch: pytest.MonkeyPatch, log_io: Any) -> None:
    """Make a log IO Airflow's, as ``[logging] remote_logging`` does; None: logs stay in their folder."""
    module: Any = importlib.import_module("airflow.logging_config")
    active = getattr(module, "_ActiveLoggingConfig", None)
    if active is not None:
        monkeypatch.setattr(active, "logging_config_loaded", True)
        monkeypatch.setattr(active, "remote_task_log", log_io)
    else:
        monkeypatch.setattr(module, "REMOTE_TASK_LOG", log_io)


@contextmanager
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """
    Serve S3 with a bucket, where Airflow's and boto3's clients go.

    moto keeps the names of buckets for the whole process, and those of a local ECS that is gone lead nowhere: so
    each has a name of its own.

    :returns: a client, and the bucket's name
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID", "")
        client: Any = boto3.client("s3")
        bucket = f"logs-{uuid.uuid4()}"
        client.create_bucket(Bucket=bucket)
        yield client, bucket
    finally:
        server.stop()


def s3_log_io(folder: Path, base: str) -> Any:
    """Return Airflow's log IO for S3; skip the test where the amazon provider lacks it."""
    handler = pytest.importorskip("airflow.providers.amazon.aws.log.s3_task_handler")
    return handler.S3RemoteLogIO(base_log_folder=folder, remote_base=base, delete_local_copy=True)
