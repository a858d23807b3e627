"""NNCF's int8 files, for `benchmarks.bench_models`: made in an environment of its own, which is installed once."""

import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import nncf_int8
from compress import artifacts
from compress.errors import ModelError
from compress.graph import save_model
from compress.pipeline import open_model
from compress.recipe import Recipe
from compress.tasks.base import Task

DEPLOYED, CANONICAL = "deployed", "canonical form"
ROOT = Path(__file__).parent.parent
PACKAGES = ("nncf", "onnx", "onnxruntime")
"""What NNCF's environment holds, at the versions of constraints.txt."""
STAMP = "installed.txt"


def input_files(recipe: Recipe, task: Task, folder: Path) -> dict[str, Path]:
    """The deployed file, and its canonical form; a PyTorch model has the latter only, which then stands for both."""
    canonical = folder / "canonical.onnx"
    save_model(open_model(recipe.model, recipe.weights, task.input_shape), canonical)
    given = Path(recipe.model)
    return {DEPLOYED: given if given.is_file() else canonical, CANONICAL: canonical}


def quantize_nncf_in(
    python: Path, source: Path, images: Sequence[np.ndarray], out_file: Path, *, half_range: bool = False
) -> str:
    """NNCF's post-training quantisation (`nncf_int8.quantize`) in a Python that has it; returns its version.

    Raises:
        ModelError: NNCF is not installed there, or fails on the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        stored, made = Path(folder) / "images.npz", Path(folder) / "int8.onnx"
        np.savez(stored, *images)  # as arr_0, arr_1, ...
        command = [str(python), str(Path(nncf_int8.__file__)), str(source), str(stored), str(made)]
        done = _run([*command, *(["--half-range"] if half_range else [])])
        if done.returncode or not made.is_file():
            raise ModelError(f"NNCF fails in {python}: {_last_line(done.stderr)}")
        artifacts.write_atomic(out_file, made.read_bytes())
        return _last_line(done.stdout)


def peers_python(folder: Path) -> Path:
    """The Python of an environment that has NNCF, made now if it is not there yet.

    Raises:
        ModelError: it cannot be made, e.g. without a network.
    """
    python = folder / "bin" / "python"
    wanted = " ".join(PACKAGES) + "\n" + (ROOT / "constraints.txt").read_text()
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(f"NNCF: its environment {folder} cannot be made ({error}).") from error
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = _run([*pip, "--constraint", str(ROOT / "constraints.txt"), *PACKAGES])
    if done.returncode:
        raise ModelError(f"NNCF cannot be installed into {folder}: {_last_line(done.stderr)}")
    artifacts.write_atomic(stamp, wanted.encode())
    return python


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run another Python; without this one's path, which would lead it to this one's packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        return subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        return subprocess.CompletedProcess(list(command), 1, "", str(error))


def _last_line(text: str) -> str:
    """What went wrong, or came out, stands last.

    >>> _last_line("Traceback\\n  line 1\\nImportError: no nncf\\n"), _last_line("")
    ('ImportError: no nncf', 'it says nothing')
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
