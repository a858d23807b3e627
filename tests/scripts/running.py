"""Runs a script or a benchmark as the command line would, without the seconds that starting PyTorch takes."""

import contextlib
import io
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `scripts/NAME.py` in this process; what it prints and its exit code are as in one of its own."""
    path = str(SCRIPTS / f"{name}.py")
    with mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]):  # they import one another
        return _run(lambda: runpy.run_path(path, run_name="__main__"), [path, *arguments])


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m NAME` in this process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"'{name}' found in sys.modules")  # imported by another test
        return _run(lambda: runpy.run_module(name, run_name="__main__"), [name, *arguments])


def _run(program: Callable[[], object], words: list[str]) -> subprocess.CompletedProcess[str]:
    output, errors, code = io.StringIO(), io.StringIO(), 0
    threads = torch.get_num_threads()
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            program()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            torch.set_num_threads(threads)  # scripts set their own, and the tests after this one would run on them
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())
