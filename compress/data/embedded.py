"""The names of a model's classes that its own file holds: a recogniser's charset, a classifier's labels.

Source: RapidOCR, whose .onnx files hold them among their metadata, one a line.
"""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from compress.errors import DataError

KEY = "character"


def holds_names(model: Path) -> bool:
    """Whether a file is an .onnx file that holds names, be they such as can be used or not."""
    return _holder(model) is not None


def read_names(model: Path) -> str:
    """The names, as they stand in an .onnx file.

    Raises:
        DataError: no such file, no ONNX model, or it holds none.
    """
    return _names(_load(model), model)


def class_names(model: Path) -> tuple[str, ...] | None:
    """A classifier's labels in the order of its outputs; None where its file holds none, or none that it can mean.

    That is a file whose output [N, K] says another number than there are names, or where two of them are the same.
    """
    loaded = _holder(model)
    if loaded is None:
        return None
    names = tuple(_names(loaded, model).splitlines())
    size = loaded.graph.output[0].type.tensor_type.shape.dim
    fits = len(size) == 2 and size[1].dim_value in (0, len(names))
    return names if fits and len(set(names)) == len(names) > 1 and all(names) else None


def _holder(model: Path) -> onnx.ModelProto | None:
    """The model of an .onnx file that holds names; None of any other file."""
    if model.suffix.lower() != ".onnx" or not model.is_file():
        return None
    try:
        loaded = _load(model)
        _names(loaded, model)
    except DataError:
        return None
    return loaded


def _load(model: Path) -> onnx.ModelProto:
    try:
        return onnx.load(model, load_external_data=False)
    except FileNotFoundError as error:
        raise DataError(f"{model}: no such file. Expected a charset: one character a line.") from error
    except (OSError, DecodeError) as error:
        raise DataError(f"{model}: cannot be read as an ONNX model. Give the charset file instead.") from error


def _names(loaded: onnx.ModelProto, model: Path) -> str:
    found = [entry.value for entry in loaded.metadata_props if entry.key == KEY]
    if not found:
        raise DataError(f"{model}: its metadata hold no charset ({KEY!r}). Give the charset file instead.")
    return found[0]
