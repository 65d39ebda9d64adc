"""How the demo says what it is doing: a live line on a terminal, one line per event elsewhere."""

from __future__ import annotations

import contextlib
import textwrap
import time
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ecs_async_executor.local.demo.airflow_home import Try

WIDTH = 100
"""Columns to use where there is no terminal to ask."""

TAIL = 40
"""Lines of a log that are shown when something went wrong."""

QUIET_SECONDS = 10.0
"""How long nothing is written, where there is no terminal, of what still goes on."""

RETRIED = "up_for_retry"


class Show:
    """Writes to standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            # A file has no width; the default of 80 columns would fold the table.
            self.console.width = WIDTH
        self._began = time.monotonic()
        self._states: dict[tuple[str, int], str | None] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        """Write one line, with the time since the beginning."""
        self.console.print(f"[dim]{self.elapsed:6.1f} s[/]  {text}", soft_wrap=True)

    def file(self, title: str, path: Path) -> None:
        """Write a file that people may want to read."""
        self.say(f"{title}, {path}:")
        text = textwrap.indent(path.read_text().rstrip(), " " * 10)
        self.console.print(text, style="dim", markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """
        Show that something takes its time, and how long it took.

        :returns: a function to call again and again meanwhile: it shows what is waited for, and the seconds so far
        """
        began = told = time.monotonic()
        live = self.console.status(f"{text} …") if self.console.is_terminal else None

        def tell(detail: str) -> None:
            nonlocal told
            now = time.monotonic()
            if live is not None:
                live.update(f"{text}: {now - began:.0f} s, {detail}")
            elif now - told >= QUIET_SECONDS:
                told = now
                self.say(f"[dim]… {text}: {now - began:.0f} s, {detail}[/]")

        with live or contextlib.nullcontext():
            yield tell
        self.say(f"{text}: {time.monotonic() - began:.1f} s")

    def patiently(self, text: str, why: Callable[[str], str]) -> Callable[[str], None]:
        """
        Return a function to call again and again while something has to end, whoever still reads.

        It writes a line every ten seconds, and never raises.

        :param why: makes the line's end of what that function is called with
        """
        began = told = time.monotonic()

        def tell(detail: str) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= QUIET_SECONDS:
                told = now
                # Without a reader, rich ends the program.
                with contextlib.suppress(OSError, SystemExit):
                    self.say(f"[dim]… {text}: {now - began:.0f} s, {why(detail)}[/]")

        return tell

    def news(self, tries: Sequence[Try]) -> None:
        """
        Write what has changed since the last time.

        Airflow has a try that will be followed by another as "up_for_retry", and as "failed" once that one begins.
        """
        for read in tries:
            key = (read.label, read.number)
            before, self._states[key] = self._states.get(key), read.state
            if read.state in (None, before) or (before, read.state) == (RETRIED, "failed"):
                continue
            again = f" (try {read.number})" if read.number > 1 else ""
            state = "failed; another try will follow (up_for_retry)" if read.state == RETRIED else read.state
            self.say(f"{read.label}{again}: {state}")

    def tail(self, title: str, text: str) -> None:
        """Write the end of a log, if there is anything in it."""
        lines = text.strip().splitlines()
        if lines:
            self.console.rule(title)
            self.console.print("\n".join(lines[-TAIL:]), markup=False, soft_wrap=True)

    def tail_file(self, path: Path) -> None:
        """Write the end of a log file, if there is one."""
        if path.exists():
            self.tail(path.name, path.read_text(errors="replace"))
