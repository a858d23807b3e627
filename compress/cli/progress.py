"""How far a command has come: a bar with the time left on a terminal, lines elsewhere, one a minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from compress.progress import Progress

FIRST_LINE_S, LINE_EVERY_S = 5.0, 60.0
"""Seconds to the second line of a stage, and at most between lines; between the two they double."""


@contextmanager
def progress(saved: str) -> Iterator[Progress]:
    """Show progress on stderr while the block runs.

    Args:
        saved: what is kept on Ctrl-C and how to go on, said then; the program exits with 130.
    """
    try:
        if sys.stderr.isatty():
            with _bar() as on_progress:
                yield on_progress
        else:
            yield plain_lines()
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. {saved}", err=True)
        raise typer.Exit(130) from None


def say(text: str) -> None:
    """Say something that stays, above the bar where there is one."""
    print(text, file=sys.stderr, flush=True)  # the bar catches what is written to sys.stderr while it is shown


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=None)
        last = (0, -1)

        def on_progress(done: int, total: int, message: str) -> None:
            nonlocal last
            if total != last[1] or done < last[0]:  # another stage: its own clock
                shown.reset(task, total=total)
            last = (done, total)
            shown.update(task, completed=done, total=total, description=message)

        yield on_progress


def plain_lines(
    write: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    every_s: float = LINE_EVERY_S,
) -> Progress:
    """Progress as lines: the first and last of each stage; between them after 5 seconds, 10 more, and so on up to one
    every `every_s`.

    Args:
        write: takes a line; stderr by default.
        clock: seconds, from anywhere.
        every_s: most seconds between lines.
    """
    emit = write or (lambda line: typer.echo(line, err=True))
    state = {"start": clock(), "next": float("-inf"), "wait": 0.0, "first": 0, "done": 0, "total": -1}

    def on_progress(done: int, total: int, message: str) -> None:
        now = clock()
        if total != state["total"] or done < state["done"]:
            state.update(start=now, next=float("-inf"), wait=min(FIRST_LINE_S, every_s), first=done, total=total)
        state["done"] = done
        if done < total and now < state["next"]:
            return
        state.update(next=now + state["wait"], wait=min(2 * state["wait"], every_s))
        emit(f"[{done}/{total}] {message}{_left(done - state['first'], total - done, now - state['start'])}")

    return on_progress


def _left(finished: float, to_do: float, seconds: float) -> str:
    """The time left, at the pace so far.

    >>> _left(10, 30, 20.0), _left(0, 40, 3.0)
    (', 1m00s left', '')
    """
    if finished <= 0 or to_do <= 0 or seconds <= 0:
        return ""
    left = round(seconds / finished * to_do)
    return f", {left // 60}m{left % 60:02d}s left" if left >= 60 else f", {left}s left"
