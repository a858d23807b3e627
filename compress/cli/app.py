"""The program: its commands, how errors are shown, and exit codes.

0 done · 1 a gate was missed · 2 usage, bad input, or a mistake of ours · 130 interrupted · 143 terminated.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from compress.cli import (
    benching,
    comparing,
    cropping,
    files,
    preparing,
    pruning,
    reconstructing,
    rendering,
    replacing,
    running,
    shrinking,
    training,
)
from compress.compute.launcher import is_alone, process_count
from compress.errors import CompressError, advice_to_write, killed_worker, reason

BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143
"""128 + SIGTERM, as shells show it."""


class Commands(TyperGroup):
    """Shows what went wrong as `Error: ...`, and takes `--debug` before or after the command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        debug = ["--debug"] if "--debug" in args else []
        parsed: list[str] = super().parse_args(ctx, [*debug, *(arg for arg in args if arg != "--debug")])
        return parsed

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, TyperException):  # its own ways to end, and usage errors
            raise
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (CompressError, OSError, MemoryError) as error:
            if isinstance(error, BrokenPipeError):  # `compress ... | head`
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            for line in explain(error).splitlines():
                typer.echo(f"Error: {line}", err=True)
            raise typer.Exit(BAD_INPUT) from error
        except Exception as error:  # a mistake of ours
            if ctx.params.get("debug"):
                traceback.print_exc()
            typer.echo(f"Error: {killed_worker(error) or internal(error)}", err=True)
            raise typer.Exit(BAD_INPUT) from error


def explain(error: BaseException) -> str:
    """What to tell the user, a line for each problem.

    >>> explain(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'a.txt: No such file or directory.'
    """
    if isinstance(error, MemoryError):
        return "out of memory. Use a smaller batch size, or close other programs."
    if isinstance(error, OSError):
        what = f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}."
        return f"{what} {advice_to_write(error, '')}".rstrip()
    return str(error)


def internal(error: Exception) -> str:
    """What to tell the user of an error that should never have come this far."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f", {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
    return (
        f"internal error ({reason(error)}{where}). This is a mistake in compress, not in your input: please report it. "
        "--debug shows the traceback; the same command goes on from what is done."
    )


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"compress {version('compress')}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def program(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and exit.")
    ] = False,
) -> None:
    """Make OCR models smaller and faster: ONNX in, pruned and quantised int8 ONNX out, with proof.

    Wherever a command takes a MODEL, give an .onnx file, or package.module:factory with --weights.

    Exit codes: 0 done, 1 a gate of the recipe was missed, 2 usage, bad input or an internal error,
    130 interrupted, 143 terminated.
    """
    if process_count() > 1 and context.invoked_subcommand != "run":
        raise CompressError(
            f"torchrun: {process_count()} processes were started, and only `compress run` shares its work between "
            "several. Run this command without torchrun."
        )


for command in (
    files.inspect,
    pruning.sensitivity,
    replacing.replace,
    pruning.prune,
    reconstructing.reconstruct,
    training.finetune,
    training.quantize,
    files.evaluate,
    cropping.crop,
    cropping.splice,
    benching.bench,
    files.report,
    comparing.compare,
    preparing.init,
    preparing.check,
    running.run,
    shrinking.shrink,
    rendering.render,
    rendering.demo,
):
    app.command()(command)


def main() -> None:
    """Run the program on `sys.argv`.

    SIGTERM, as of a CI that cancels a job, ends it like Ctrl-C, with the same words; the exit code tells the two apart.
    """
    was_terminated = _take_sigterm()
    try:
        sys.exit(app(prog_name="compress"))
    except SystemExit as end:
        if was_terminated() and end.code:
            raise SystemExit(TERMINATED) from end
        raise


def _take_sigterm() -> Callable[[], bool]:
    """Let SIGTERM interrupt this process; whether it did.

    Not where torchrun started several processes: it sends SIGTERM to those that are left when one of them fails, and
    they could wait for each other on their way out. Nor where whoever started the program wants it ignored.
    """
    came: list[int] = []
    own = os.getpid()

    def interrupt(number: int, _: object) -> None:
        if os.getpid() != own:  # a forked process, which ends as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        came.append(number)
        signal.signal(number, signal.SIG_IGN)  # whoever sends it again does not stop what is being kept
        raise KeyboardInterrupt

    alone = is_alone() and threading.current_thread() is threading.main_thread()
    if alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
    return lambda: bool(came)
