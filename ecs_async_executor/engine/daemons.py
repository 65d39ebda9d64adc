"""
A loop's default executor whose threads no end of a process waits for.

Python joins the threads of an ordinary one at exit, and a loop joins them when it closes. To look up a name, to
read a file on a network share and other calls of libraries can take longer than a scheduler may take to end.
Imports the standard library only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own; for :meth:`asyncio.loop.set_default_executor`."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a call."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="ecs-async-worker", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Leave behind what has not returned."""
