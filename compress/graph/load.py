"""Read an ONNX file: every way in which it can be broken is one clear error; what comes out is canonical."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from compress.artifacts import write_atomic
from compress.compute.element_types import half_types, to_float32
from compress.errors import CompressError, ModelError, first_line
from compress.graph.batching import check_batch, free_batch, has_single_batch
from compress.graph.canonical import canonicalise
from compress.graph.channels_first import with_channels_first
from compress.progress import Note

MAX_BYTES = 2**31 - 1
"""protobuf's limit of one message: a model and all its weights must fit, or it cannot be changed or written."""
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors")
"""How names of PyTorch's weights end."""


def load_model(path: Path, on_note: Note | None = None) -> onnx.ModelProto:
    """Read a model and bring it into canonical form (see `compress.graph.canonical`).

    Half-precision weights are taken up to float32. A file for one image at a time takes any number, where its graph
    allows (see `compress.graph.batching`). One of images [N, H, W, C] takes [N, C, H, W].

    Args:
        path: the .onnx file.
        on_note: receives one line for each of these.

    Raises:
        ModelError: the file is missing, empty, truncated, not ONNX, already quantised, holds NaN, keeps
            weights outside its own folder, or takes several images at a time and no other number of them.
    """
    path = Path(path)
    model = read_model(path)
    if is_quantised(model):
        raise ModelError(f"{path}: already quantised. Start from the fp32 model it was made from.")
    check_batch([dim.dim_value or None for dim in _images(model).type.tensor_type.shape.dim], path)
    say = on_note or (lambda line: None)
    half = half_types(model)
    if half:
        try:
            model = to_float32(model)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        say(f"{path}: holds {' and '.join(half)} numbers, taken up to float32: the result is a float32 or int8 file.")
    ordered = with_channels_first(model)
    if ordered is not None:
        model = ordered
        say(f"{path}: takes images [N, H, W, C]; the result takes [N, C, H, W].")
    try:
        canonical = canonicalise(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    for tensor in canonical.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(numpy_helper.to_array(tensor)).any():
            raise ModelError(
                f"{path}: weight {tensor.name!r} holds NaN. Its training diverged; export an earlier state."
            )
    return _with_free_batch(canonical, model, path, say) if has_single_batch(canonical) else canonical


def _images(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The first input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return next((value for value in model.graph.input if value.name not in weights), model.graph.input[0])


def _with_free_batch(model: onnx.ModelProto, original: onnx.ModelProto, path: Path, say: Note) -> onnx.ModelProto:
    """The canonical model for any number of images, where its graph allows."""
    freed = free_batch(model, original)
    if freed is None:
        say(f"{path}: takes one image at a time, and its graph does not allow more: it cannot be trained in batches.")
        return model
    say(f"{path}: takes one image at a time; the result takes any number.")
    return freed


def read_model(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file as it is.

    Raises:
        ModelError: as for `load_model`.
    """
    path = Path(path)
    model = _parse(path)
    weight_files = _weight_files(model, path)
    check_whole(path.stat().st_size + sum(span.length for span in weight_files), str(path))
    if weight_files:
        try:
            load_external_data_for_model(model, str(path.parent.resolve()))
        except (MemoryError, CompressError):
            raise
        except Exception as error:  # of files, sizes and offsets that make no sense, in many kinds
            raise ModelError(
                f"{path}: external weights cannot be read ({first_line(error)}). Export the model again."
            ) from error
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # beside ValidationError also what Python makes of its messages, of any bytes
        raise ModelError(f"{path}: not a valid ONNX model ({first_line(error)}). Export it again.") from error
    return model


def deployed_files(path: Path) -> tuple[Path, ...]:
    """The files that a model is deployed as: its .onnx file, and every file that holds weights of it, each once.

    Raises:
        ModelError: a file is missing, cannot be read, or lies outside the model's folder.
    """
    path = Path(path)
    return (path, *dict.fromkeys(span.file for span in _weight_files(_parse(path), path)))


def deployed_bytes(path: Path) -> int:
    """Bytes of a model as it is deployed, all of its files.

    Raises:
        ModelError: as for `deployed_files`.
    """
    return sum(file.stat().st_size for file in deployed_files(path))


def _parse(path: Path) -> onnx.ModelProto:
    """A model file without its external weights.

    Raises:
        ModelError: as for `load_model`.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder. Expected an .onnx file.")
    try:
        check_whole(path.stat().st_size, str(path))
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file. Expected an .onnx file.") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise ModelError(f"{path}: is empty. Expected an .onnx file; was the download or export cut short?")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        _check_no_checkpoint(path)
        raise ModelError(
            f"{path}: not an ONNX file, or truncated ({len(data)} bytes). Export or download it again."
        ) from error
    if not model.graph.node or not model.graph.input or not model.graph.output:
        _check_no_checkpoint(path)
        raise ModelError(f"{path}: holds no graph with inputs and outputs. Expected an ONNX model.")
    return model


def _check_no_checkpoint(path: Path) -> None:
    """
    Raises:
        ModelError: what cannot be read as ONNX is named like PyTorch's weights.
    """
    if path.suffix.lower() in CHECKPOINTS:
        raise ModelError(
            f"{path}: not an ONNX file, but PyTorch's by its name. Give package.module:factory, which makes it, "
            f"with --weights {path}; or export it as .onnx."
        )


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether the graph holds quantised operators already."""
    return any(
        node.op_type.startswith(("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "QGemm", "QAttention"))
        or "Integer" in node.op_type
        or node.op_type.endswith("NBits")
        for node in model.graph.node
    )


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomic(Path(path), model.SerializeToString())


@dataclass(frozen=True)
class _Span:
    """Where an external weight lies: a file, and how many of its bytes."""

    file: Path
    length: int


def _weight_files(model: onnx.ModelProto, path: Path) -> list[_Span]:
    """Where each weight lies that is not in the model itself; refuse files outside its folder."""
    folder = path.parent.resolve()
    found = []
    for tensor in _all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
        location = locations[0] if len(locations) == 1 and "\0" not in locations[0] else ""  # no file's name holds it
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            named = ", ".join(map(repr, locations)) or "no name"
            raise ModelError(
                f"{path}: weight {tensor.name!r} lies outside the model's folder ({named}), which is refused. "
                "Put the data file beside the model and export it with a relative name."
            )
        if not target.is_file():
            raise ModelError(f"{path}: weight file {location!r} is missing beside the model. Copy it there.")
        found.append(_Span(target, _length(tensor, target, path)))
    return found


def _length(tensor: onnx.TensorProto, file: Path, path: Path) -> int:
    """Bytes of an external weight.

    Raises:
        ModelError: the file does not hold them.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - offset)
    except ValueError as error:
        raise ModelError(f"{path}: weight {tensor.name!r}: {error} in its place. Export the model again.") from error
    if min(offset, length) < 0 or offset + length > size:
        raise ModelError(
            f"{path}: weight {tensor.name!r} ends at byte {offset + length} of {file.name!r}, which has {size}. "
            "Copy the file again, or export the model again."
        )
    return length


def check_whole(size_bytes: int, name: str) -> None:
    """Refuse what no ONNX model in memory can hold, before anything is done with it.

    Args:
        size_bytes: of a model with all its weights.
        name: what messages call it.

    Raises:
        ModelError: it is 2 GB or more.
    """
    if size_bytes > MAX_BYTES:
        raise ModelError(
            f"{name}: {size_bytes / 1e9:.2f} GB with all weights. Must be below {MAX_BYTES / 1e9:.2f} GB, the most "
            "that protobuf holds as a whole. Use a smaller model."
        )


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _tensors_of(function.node)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph and the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(graph.node)


def _tensors_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)
