"""What commands print can be read, and nothing but read; and how they end if something outside ends them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from ecs_async_executor.adapter.commands.durations import count, count_from_one
from ecs_async_executor.adapter.commands.ending import INTERRUPTED, command
from ecs_async_executor.adapter.commands.output import say, show
from ecs_async_executor.adapter.commands.words import warn
from ecs_async_executor.services.readable import readable

Shown = pytest.CaptureFixture[str]
HOSTILE = "No room [/red] [bold]in[/bold] \x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\x9b3J\x08 end"
SHOWN = "No room [/red] [bold]in[/bold] red3J end"


@pytest.mark.parametrize("output", ["table", "plain"])
def test_a_table_takes_no_cell_for_markup_or_a_terminals_command(output: str, capsys: Shown) -> None:
    show([{"reason": HOSTILE}], output)
    assert SHOWN in capsys.readouterr().out


def test_json_has_the_text_as_it_is(capsys: Shown) -> None:
    show([{"reason": HOSTILE, "containers": [{"name": "a"}]}], "json")
    assert json.loads(capsys.readouterr().out) == [{"reason": HOSTILE, "containers": [{"name": "a"}]}]


def test_lines_have_no_control_characters(capsys: Shown) -> None:
    say(HOSTILE)
    warn(HOSTILE)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_a_terminals_command_that_never_ends_hides_no_words(capsys: Shown) -> None:
    say("\x1b]what follows\x1bP it")
    assert capsys.readouterr().out == "what follows it\n"


def test_nor_has_a_line_of_a_container_even_where_json_hides_them() -> None:
    assert readable(HOSTILE) == SHOWN
    assert readable(json.dumps({"event": HOSTILE, "who": HOSTILE})) == f"{SHOWN} who={SHOWN}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), INTERRUPTED),
        (
            OperationalError("SELECT a, b, c", {}, Exception("no such table: log")),
            "Airflow's database cannot be read: Exception: no such table: log (`airflow db check` tries it alone)",
        ),
    ],
)
def test_what_ends_a_command_from_outside_is_no_traceback(error: BaseException, code: Any) -> None:
    @command
    def ended(_: argparse.Namespace) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        ended(argparse.Namespace())
    assert caught.value.code == code


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    program = (
        "import argparse, os\n"
        "from ecs_async_executor.adapter.commands.ending import command\n"
        "from ecs_async_executor.adapter.commands.output import say\n"
        "reading, writing = os.pipe()\n"
        "os.close(reading)\n"
        "os.dup2(writing, 1)\n"  # only now: Airflow 3.2 logs to stdout when it is imported
        "command(lambda _: say('x'))(argparse.Namespace())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("read", "text"), [(count, "-1"), (count, "x"), (count_from_one, "0")])
def test_a_number_that_makes_no_sense_is_refused_before_anything_is_asked(read: Any, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} is no number"):
        read(text)


def test_numbers_are_read() -> None:
    assert (count("0"), count_from_one("12")) == (0, 12)
