"""onnxruntime behind one small class: the only file that imports it."""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import helper, version_converter
from onnx.external_data_helper import load_external_data_for_model

from compress.artifacts import write_atomic
from compress.compute.channel_order import TO_FIRST, channels_first, has_channels_last, in_order_of, is_channels_last
from compress.compute.element_types import RECURRENT, has_half_recurrent, to_float32
from compress.errors import DataError, ModelError
from compress.progress import count_of

Model = Path | bytes | onnx.ModelProto

_ERRORS_ONLY = 3
_SILENT = 4
_DEFAULT_SEVERITY = 2
_PER_CHANNEL_OPSET = 13


class Session:
    """A model in onnxruntime on the CPU: images in, first output out.

    Images, and maps among the first outputs, are [N, C, H, W]; a file of images [N, H, W, C] is fed and read so.

    Args:
        model: a file, its bytes, or the parsed model.
        threads: intra-operator threads; one by default, so that figures do not depend on what else runs.
        optimise: let onnxruntime rewrite the graph (fusions, integer kernels). Off, a QDQ file runs as it is
            written: every operator in float between its DequantizeLinear and QuantizeLinear.
        exact_int8: forbid the 16-bit saturation of x86 CPUs without VNNI. There the fast kernels for uint8
            activations times int8 weights add two products in 16 bits, and 2 * 255 * 127 does not fit;
            onnxruntime's `session.x64quantprecision` requests slower kernels that are exact. It is a graph
            rewrite, hence without effect where `optimise` is off, and on CPUs that do not saturate.
        flush_denormals: treat denormal numbers as zero (they slow CPUs down 2 to 16 times).
        spin: let idle threads wait busily, onnxruntime's default; off where other work (training) needs the cores.
        stop_spinning: let them wait busily during a call only: off, those of several sessions that are run in turn
            take the cores from each other.
        name: what messages call the model; by default its path or the graph's name.

    Raises:
        ModelError: onnxruntime rejects the model; the message names the file and the reason.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        optimise: bool = True,
        exact_int8: bool = False,
        flush_denormals: bool = False,
        spin: bool = True,
        stop_spinning: bool = False,
        name: str | None = None,
    ) -> None:
        self._name = name or name_of(model)
        options = session_options(threads, optimise, exact_int8, flush_denormals)
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if stop_spinning:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = start_session(model, options)
        except Exception as error:
            raise ModelError(
                f"{self._name}: onnxruntime cannot load it: {first_line(error)}. "
                "Check that the file is a complete ONNX model."
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise ModelError(
                f"{self._name}: has {count_of(len(inputs), 'input')} and {count_of(len(outputs), 'output')}. "
                "Expected one image input and at least one output."
            )
        self._input = inputs[0]
        self.output_names = tuple(output.name for output in outputs)
        self._takes_floats = self._input.type in ("tensor(float)", "tensor(float16)")
        self._own_shape = _static_shape(self._input.shape)
        self.input_shape = channels_first(self._own_shape)
        self.output_shape = _static_shape(outputs[0].shape)
        self._turns_output = is_channels_last(self._own_shape) and has_channels_last(self.output_shape)
        if self._turns_output:
            self.output_shape = tuple(self.output_shape[axis] for axis in TO_FIRST)

    def check_floats(self) -> None:
        """
        Raises:
            ModelError: the model's input is not of floats.
        """
        if not self._takes_floats:
            raise ModelError(
                f"{self._name}: its input is not of floats. Expected float images. Export it with such an input."
            )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Compute the first output for float32 `images` [N, C, H, W], in float32 also where the file's are float16.

        One by one where the file takes one image at a time.

        Raises:
            ModelError: the images do not fit the model's input, or the model fails while running.
        """
        if self.input_shape[:1] == (1,) and len(images) > 1:
            return _stacked([self.run(images[place : place + 1]) for place in range(len(images))])
        fed = in_order_of(self._own_shape, images)
        found = self._run(self.output_names[:1], fed)[0]
        return found.transpose(TO_FIRST) if self._turns_output and fed is not images else found

    def run_all(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute every output, by name and in the file's own order, for float32 `images` [N, C, H, W]."""
        found = self._run(self.output_names, in_order_of(self._own_shape, images))
        return dict(zip(self.output_names, found, strict=True))

    def _run(self, names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        half = self._input.type == "tensor(float16)"
        try:
            found = self._session.run(list(names), {self._input.name: images.astype(np.float16) if half else images})
            return [one.astype(np.float32) if half and one.dtype == np.float16 else one for one in found]
        except Exception as error:
            self.check_floats()
            raise ModelError(
                f"{self._name}: onnxruntime fails on {images.dtype} images of shape {list(images.shape)} "
                f"(the input is {self._input.type} {self._input.shape}): {first_line(error)}"
            ) from error


class Part:
    """A part of a model in onnxruntime on the CPU: any inputs, and the outputs that are requested.

    Args:
        model: the part.
        threads: intra-operator threads.

    Raises:
        ModelError: onnxruntime rejects it.
    """

    def __init__(self, model: onnx.ModelProto, *, threads: int = 1) -> None:
        options = session_options(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = start_session(model, options)
        except Exception as error:
            raise ModelError(f"{name_of(model)}: onnxruntime cannot load a part: {first_line(error)}") from error

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute these outputs for these inputs.

        Raises:
            ModelError: the part fails while running.
        """
        try:
            found: list[np.ndarray] = self._session.run(list(outputs), dict(feeds))
        except Exception as error:
            raise ModelError(f"onnxruntime fails on a part of the model: {first_line(error)}") from error
        return found


def _stacked(results: Sequence[np.ndarray]) -> np.ndarray:
    """Results of single images as one of all: along the first dimension, or the second of [T, 1, K].

    >>> _stacked([np.zeros((1, 5)), np.ones((1, 5))]).shape, _stacked([np.zeros((9, 1, 5))] * 3).shape
    ((2, 5), (9, 3, 5))
    """
    shape = results[0].shape
    axis = 1 if len(shape) == 3 and shape[0] != 1 and shape[1] == 1 else 0
    return np.concatenate(results, axis=axis)


def value_shapes(
    model: onnx.ModelProto, names: Sequence[str], images: np.ndarray | Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shapes of inner values for these images (or inputs by name), by running the model with them as further outputs.

    Exact wherever the model runs, also behind operators that shape inference does not know (onnxruntime's
    own integer ones) and behind shapes that are computed while running.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {output.name for output in probe.graph.output}
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    if isinstance(images, Mapping):
        return {name: found.shape for name, found in zip(names, Part(probe).run(names, images), strict=True)}
    values = Session(probe, optimise=False).run_all(images)
    return {name: tuple(values[name].shape) for name in names}


def quantize_static_minmax(
    model_path: Path,
    images: Iterable[np.ndarray],
    out_path: Path,
    *,
    per_channel: bool = True,
    reduce_range: bool = False,
) -> None:
    """Quantise with onnxruntime's own tool, as its documentation recommends: the figure to beat.

    QDQ, ranges by minimum and maximum, uint8 activations and int8 weights, after its own pre-processing
    (shape inference and optimisation, as far as they work on the model).

    Args:
        model_path: the float32 model.
        images: float32 batches [N, C, H, W] to calibrate with.
        out_path: where the int8 model goes.
        per_channel: one weight scale per output channel.
        reduce_range: 7-bit weights, which cannot saturate on CPUs without VNNI.

    Raises:
        DataError: there are no images.
        ModelError: the tool fails on the model.
    """
    from onnxruntime import quantization  # slow to import, and needed here only

    batches = list(images)
    if not batches:
        raise DataError(f"{model_path}: no images to calibrate with. Give at least one batch.")
    given = onnx.load(model_path, load_external_data=False).graph.input[0]
    sizes = [size.dim_value or None for size in given.type.tensor_type.shape.dim]
    batches = [in_order_of(sizes, batch) for batch in batches]
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        made = Path(folder) / "quantised.onnx"
        try:
            source = _preprocessed(_raised_opset(model_path, Path(folder)), Path(folder) / "preprocessed.onnx")
            quantization.quantize_static(
                source,
                made,
                _reader(quantization, given.name, batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=per_channel,
                reduce_range=reduce_range,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except Exception as error:
            raise ModelError(f"{model_path}: onnxruntime cannot quantise it: {first_line(error)}") from error
        write_atomic(out_path, made.read_bytes())


def start_session(model: Model, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """onnxruntime's own session, on the CPU; what goes wrong is raised as one of half a dozen unrelated types."""
    return onnxruntime.InferenceSession(_source_of(model), options, providers=["CPUExecutionProvider"])


def session_options(
    threads: int, optimise: bool = True, exact_int8: bool = False, flush_denormals: bool = False
) -> onnxruntime.SessionOptions:
    """What a session starts with; see `Session`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT  # what goes wrong is raised, too, and said once
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if exact_int8:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if flush_denormals:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def name_of(model: Model) -> str:
    """What messages call a model."""
    if isinstance(model, Path):
        return str(model)
    graph_name = model.graph.name if isinstance(model, onnx.ModelProto) else ""
    return f"model {graph_name!r}" if graph_name else "model"


def _source_of(model: Model) -> str | bytes:
    """What InferenceSession reads: a path where there is one, so that external data is found beside it.

    Of a model with recurrent layers in half precision, its float32 form: onnxruntime would end the program.
    """
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model}: no such file. Expected an ONNX model.")
    found = _recurrent(model)
    if found is not None and has_half_recurrent(found):
        if isinstance(model, Path):
            load_external_data_for_model(found, str(model.parent.resolve()))
        return to_float32(found).SerializeToString()
    if isinstance(model, Path):
        return str(model)
    return model if isinstance(model, bytes) else model.SerializeToString()


def _recurrent(model: Model) -> onnx.ModelProto | None:
    """A model that may have recurrent layers, parsed, without its external weights; None of others, unparsed."""
    if isinstance(model, onnx.ModelProto):
        return model
    data = model.read_bytes() if isinstance(model, Path) else model
    if not any(name.encode() in data for name in RECURRENT):
        return None
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(data)
    except DecodeError:  # onnxruntime says so, as of every other file that it cannot read
        return None
    return parsed


def first_line(error: Exception) -> str:
    """The reason that onnxruntime gives, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _static_shape(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)


def _raised_opset(model_path: Path, folder: Path) -> Path:
    """The model at opset 13 or later: below it DequantizeLinear has no scales per channel; in float32 where onnxruntime
    crashes on it otherwise."""
    model = onnx.load(model_path)
    if has_half_recurrent(model):
        model = to_float32(model)
        model_path = folder / "float32.onnx"
        onnx.save(model, model_path)
    if any(opset.domain in ("", "ai.onnx") and opset.version >= _PER_CHANNEL_OPSET for opset in model.opset_import):
        return model_path
    out_path = folder / "raised.onnx"
    onnx.save(version_converter.convert_version(model, _PER_CHANNEL_OPSET), out_path)
    return out_path


def _preprocessed(model_path: Path, out_path: Path) -> Path:
    """The model after the tool's own pre-processing, as far as that goes.

    Its symbolic shape inference gives up on some exports (PaddlePaddle's among them); the optimisation after it,
    which folds BatchNorm, works without. A model that even that fails on is quantised as it is. The tool leaves files
    where it is run, so it is run in the folder of `out_path`.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = model_path.resolve()
    for skip_symbolic_shape in (False, True):
        try:
            with chdir(out_path.parent):
                quant_pre_process(source, out_path, skip_symbolic_shape=skip_symbolic_shape)
        except Exception:  # whatever the tool raises, the next simpler way is tried
            continue
        return out_path
    return model_path


def _reader(quantization: Any, input_name: str, batches: list[np.ndarray]) -> Any:
    """The calibration reader that the tool requires: an iterator in the shape of a class."""
    items: Iterator[dict[str, np.ndarray]] = iter([{input_name: batch} for batch in batches])

    class _Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(items, None)

    return _Reader()


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Hold back advice that the tool writes to the root logger, and warnings of the sessions that it makes."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    try:
        yield
    finally:
        logging.disable(previous)
        onnxruntime.set_default_logger_severity(_DEFAULT_SEVERITY)
