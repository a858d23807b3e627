"""What `compress shrink` starts from: a deployed file, or a PyTorch module, which is exported into the run's folder."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from compress.errors import CompressError, ModelError
from compress.graph import save_model
from compress.measure.session import Model
from compress.pipeline.models import Shape, is_factory, open_model
from compress.pipeline.state import holds_results
from compress.progress import Note

EXPORTED = "original.onnx"
"""In the run's folder."""


@dataclass(frozen=True)
class Original:
    """A model and the file that it is, or will be once `write` was called."""

    name: str
    file: Path
    export: onnx.ModelProto | None = None
    """Of a PyTorch module."""

    @property
    def model(self) -> Model:
        """What can be looked at before anything is written."""
        return self.file if self.export is None else self.export

    def write(self) -> None:
        """Put an export into the run's folder, unless it is there.

        Raises:
            CompressError: another one is there, and something was computed from it.
            OutputError: the file cannot be written.
        """
        if self.export is None:
            return
        if not self.file.exists():
            save_model(self.export, self.file)
        elif self.file.read_bytes() == self.export.SerializeToString():
            return
        elif not holds_results(self.file.parent):
            save_model(self.export, self.file)
        else:
            raise CompressError(
                f"{self.file}: of another module or other weights than now. Use the same ones to go on with that run, "
                f"or delete {self.file.parent} or give another --out to start anew."
            )


def open_original(
    spec: str, weights: Path | None, shape: Shape | None, folder: Path, on_note: Note | None = None
) -> Original:
    """The model that a user names, for a run in a folder; nothing is written yet.

    Args:
        spec: an .onnx file, or `package.module:factory`.
        weights: of the factory's module.
        shape: (C, H, W) it is exported with; default the first usual one that it takes.
        folder: of the run.
        on_note: receives which of PyTorch's exporters was needed (see `compress.graph.from_torch`).

    Raises:
        ModelError: the module cannot be exported, or weights are given for a file.
    """
    if is_factory(spec):
        return Original(spec.rpartition(":")[2], folder / EXPORTED, open_model(spec, weights, shape, on_note))
    if weights is not None:
        raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
    return Original(Path(spec).stem, Path(spec))
