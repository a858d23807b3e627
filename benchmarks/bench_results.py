"""What `benchmarks.bench_models` is requested, and what it finds."""

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import CANONICAL, DEPLOYED
from compress import artifacts
from compress.artifacts import Latency, Machine, Score
from compress.errors import CompressError
from compress.recipe import QuantizeStep, Recipe

ONNXRUNTIME, NNCF, OURS, PRUNED = "onnxruntime", "nncf", "int8", "pruned_int8"
TITLES = {
    DEPLOYED: "deployed, fp32",
    CANONICAL: "canonical, fp32",
    ONNXRUNTIME: "onnxruntime's quantizer",
    NNCF: "NNCF",
    OURS: "ours, int8",
    PRUNED: "ours, pruned + int8",
}
"""Row -> what the table calls it; in the table's order."""
IN_OPENVINO = "@openvino"
"""Behind a row's name: the same file in OpenVINO, not in onnxruntime."""


def row_names(openvino: bool) -> tuple[str, ...]:
    """All rows in the table's order; with `openvino` those of the int8 files that are deployed there once more.

    >>> row_names(True)[3:5]
    ('nncf', 'nncf@openvino')
    """
    again = (NNCF, OURS, PRUNED) if openvino else ()
    return tuple(row for name in TITLES for row in ((name, name + IN_OPENVINO) if name in again else (name,)))


def title(row: str) -> str:
    """What the table calls a row.

    >>> title("nncf"), title("nncf@openvino")
    ('NNCF', 'NNCF, in OpenVINO')
    """
    base = row.removesuffix(IN_OPENVINO)
    return TITLES[base] if base == row else f"{TITLES[base]}, in OpenVINO"


@dataclass(frozen=True)
class Row:
    """A file and its figures, or the reason why there are none."""

    name: str
    file: str = ""
    size_bytes: int = 0
    score: Score | None = None
    latencies: dict[str, Latency] = field(default_factory=dict)
    """Threads -> time of one image."""
    missing: str = ""


@dataclass(frozen=True)
class ModelBench:
    """All rows of a model."""

    name: str
    recipe: str
    input_shape: tuple[int, ...]
    calibration: int
    """Training images that all int8 files were calibrated with."""
    images: int | None
    """Validation images to score on that were requested; None: all."""
    trained: tuple[str, ...]
    """Rows that were trained, not calibrated only."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Bench:
    """A whole run."""

    command: str
    date: str
    commit: str
    machine: Machine
    busy_cores: float | None
    """Cores that other work kept busy while files were timed, on average; None where that is not known."""
    nncf: str
    """NNCF's version; empty where it made nothing."""
    threads: tuple[int, ...]
    rounds: int
    models: tuple[ModelBench, ...]
    version: int = artifacts.VERSION


@dataclass(frozen=True)
class Entry:
    """A model to measure, as it was requested."""

    name: str
    recipe: Recipe
    ours: Path | None = None
    """A finished run of the recipe; None: its own output folder, and run now if need be."""
    int8: Path | None = None
    """An int8 file of the unpruned model; None: calibrated now."""
    images: int | None = None
    """Validation images to score on; None: all."""

    def step(self) -> QuantizeStep:
        """How the recipe quantises.

        Raises:
            CompressError: it does not.
        """
        step = self.recipe.find_step(QuantizeStep)
        if step is None:
            raise CompressError(
                f"--model {self.name}: {self.recipe.name}: has no `quantize` step, whose file is measured."
            )
        return step
