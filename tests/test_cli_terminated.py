"""SIGTERM ends the program like Ctrl-C, with an exit code of its own; other processes end as they would without it."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import os, signal, sys, time
{before}
from compress.cli import app, main
from compress.cli.progress import progress

@app.command()
def wait():
    with progress("All is kept."):
        print("ready", flush=True)
        {then}
        time.sleep(60)

sys.argv = ["compress", "wait"]
main()
"""


@contextmanager
def started(then: str = "", before: str = "", **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The program at a command that does `then`, and waits."""
    code = PROGRAM.format(then=textwrap.indent(then, " " * 8).strip(), before=before)
    given = {**os.environ, **environment}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, env=given, **streams) as program:  # type: ignore[call-overload]
        try:
            yield program
        finally:
            program.kill()


def ended(program: "subprocess.Popen[str]", *signals: int) -> tuple[int, str]:
    """How it ends by these signals once it is ready, and what it says."""
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    for number in signals:
        program.send_signal(number)
    _, said = program.communicate(timeout=30)
    return program.returncode, said


INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler)"
"""What a shell starts in the background ignores Ctrl-C."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_says_what_is_kept(number: int, code: int) -> None:
    with started(before=INTERRUPT) as program:
        assert ended(program, number) == (code, "Interrupted. All is kept.\n")


def test_who_wants_it_ignored_has_it_ignored() -> None:
    with started(
        "os.kill(os.getpid(), signal.SIGTERM); sys.exit(7)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    ) as program:
        assert ended(program) == (7, "")


def test_a_forked_process_ends_by_the_signal() -> None:
    then = """reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, b"here")
    time.sleep(60)
os.read(reading, 4)
os.kill(child, signal.SIGTERM)
sys.exit(os.waitpid(child, 0)[1])"""
    with started(then) as program:
        assert ended(program) == (signal.SIGTERM, "")


@pytest.mark.parametrize(("count", "is_default"), [("2", "True"), ("1", "False")])
def test_a_process_of_torchrun_ends_by_the_signal(count: str, is_default: str) -> None:
    """The launcher sends it to those that are left, which could wait for one that is gone."""
    code = """
    import signal
    from compress.cli.app import _take_sigterm
    _take_sigterm()
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    """
    given = {**os.environ, "WORLD_SIZE": count, "RANK": "0"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout == f"{is_default}\n"
