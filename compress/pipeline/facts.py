"""What a deployed file tells of its use: the kind of task, by its output, and the size of the images it is fed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from compress.compute.channel_order import channels_first, is_channels_last
from compress.data.processing import DEFAULT_PRESET, PRESETS, Outputs, check_preset
from compress.errors import ModelError
from compress.graph import load_model, too_large_window
from compress.graph.batching import check_batch
from compress.measure.session import Model, Session
from compress.pipeline.models import DEFAULT_SHAPE, OTHER_SIZES, Shape
from compress.recipe.task_settings import CHANNELS, INPUTS
from compress.tasks.probabilities import SUM_TOLERANCE

GREY = 1
BEYOND = 0.1
"""So far beyond 0 and 1 are values that are no probabilities; less may be rounding, or a resized map."""


@dataclass(frozen=True)
class ModelFacts:
    """A deployed file, as far as its use depends on it; None is a size that the file leaves open."""

    path: Path
    input: tuple[int | None, ...]
    """[N, C, H, W], also where the file's own order is another."""
    output: tuple[int | None, ...]
    """Of the first output."""
    fed: tuple[int, ...] | None = None
    """(C, H, W) of an image that it was seen to run on; None if it ran on none."""
    problem: str = ""
    """Why it ran on none."""
    steps_first: bool = False
    """Of two images it was seen to return [T, 2, K]."""
    returns: Outputs | None = None
    """What its first output was seen to be; None where that is not known, or the values are not finite."""
    outputs: tuple[str, ...] = ()
    """The names of all its outputs."""


def look_at(
    model: Model, shape: Shape | None = None, *, path: Path | None = None, preset: str = DEFAULT_PRESET
) -> ModelFacts:
    """Read a file's shapes, and run it once on a black image of a size that it takes.

    Args:
        model: the file, its bytes, or the parsed model.
        shape: (C, H, W) to run it on; default the kind's own, then other usual ones.
        path: what messages call it; default the file.
        preset: whose size is tried first where the file leaves it open.

    Raises:
        ModelError: onnxruntime rejects it, it has several inputs, its input is no image, or several at once and no
            other number of them.
        DataError: there is no such preset.
    """
    check_preset(preset)
    name = path or (model if isinstance(model, Path) else Path("model"))
    session = Session(model, name=str(name))
    session.check_floats()
    if len(session.input_shape) != 4:
        raise ModelError(
            f"{name}: input shape {shape_text(session.input_shape)}. Expected [N, {CHANNELS}, H, W]: images. Use a "
            "model of images."
        )
    check_batch(session.input_shape, name)
    given, declared = session.input_shape, session.output_shape
    graph = parsed(model) if shape is None and not all(given[1:]) else None
    fed, output, problem = _run(session, _candidates(given, shape, guess_kind(declared), preset), graph)
    kind = guess_kind(output)
    if shape is None and kind is not None and guess_kind(declared) != kind:  # not known before: now its own size
        fed, output, problem = _run(session, _candidates(given, None, kind, preset), graph)
    if guess_kind(declared) is not None and (len(declared) == 4 or declared[-1] is not None):
        output = declared
    return ModelFacts(
        Path(name),
        given,
        output or declared,
        fed,
        problem,
        steps_first=_has_steps_first(session, fed, output),
        returns=None if fed is None else _form(session, fed),
        outputs=session.output_names,
    )


def form_of(output: np.ndarray) -> Outputs | None:
    """What an output is: rows of classes [..., K], or where it has four dimensions maps. None where it does not tell.

    Values from 0 to 1 are no logits: rows of them that do not sum to 1 may be rounded, or be of each class alone.

    >>> form_of(np.array([[0.25, 0.75]])), form_of(np.log([[0.25, 0.75]])), form_of(np.array([[-1.0, 3.0]]))
    ('probabilities', 'log_probabilities', 'logits')
    >>> form_of(np.array([[0.25, 0.8]])), form_of(np.full((1, 1, 8, 8), -3.0)), form_of(np.full((1, 1, 8, 8), 1.0001))
    (None, 'logits', None)
    """
    if not output.size or output.dtype.kind != "f" or not np.isfinite(output).all():
        return None
    least, most = float(output.min()), float(output.max())
    if output.ndim != 4:
        if least >= 0 and np.allclose(output.sum(axis=-1), 1, atol=SUM_TOLERANCE):
            return "probabilities"
        if most <= 0 and np.allclose(np.exp(output).sum(axis=-1), 1, atol=SUM_TOLERANCE):
            return "log_probabilities"
    return "logits" if least < -BEYOND or most > 1 + BEYOND else None


def _form(session: Session, fed: Sequence[int]) -> Outputs | None:
    try:
        return form_of(session.run(noise_image(fed)))
    except ModelError:  # it takes black images, and not every other one
        return None


def noise_image(shape: Sequence[int]) -> np.ndarray:
    """An image [1, C, H, W] of noise, always the same one."""
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def _has_steps_first(session: Session, fed: tuple[int, ...] | None, output: Sequence[int | None]) -> bool:
    """Whether a model of three dimensions returns [T, N, K], by what it makes of two images."""
    if fed is None or len(output) != 3:
        return False
    try:
        first, second, _ = session.run(np.zeros((2, *fed), np.float32)).shape
    except ModelError:  # for a number of images other than two
        return False
    return second == 2 != first


def declared_input(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """The first input's shape, of images [N, C, H, W]; None is a size that the file leaves open."""
    value = real_inputs(model)[0]
    return channels_first([size.dim_value if size.dim_value > 0 else None for size in value.type.tensor_type.shape.dim])


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _candidates(
    given: Sequence[int | None], shape: Shape | None, kind: str | None, preset: str
) -> Iterator[tuple[int, ...]]:
    """Sizes of an image to try: what the file leaves open is filled in."""
    own = [PRESETS[name][kind].input for name in (preset, DEFAULT_PRESET) if kind in PRESETS[name]]
    sizes = [shape] if shape is not None else [*own, *(OTHER_SIZES if own else ()), *INPUTS.values(), *OTHER_SIZES]
    filled: dict[tuple[int, ...], None] = {}
    for channels in (CHANNELS, GREY):
        for size in sizes:
            wanted = (channels if shape is None else size[0], *size[1:])
            filled[tuple(fixed or open_ for fixed, open_ in zip(given[1:], wanted, strict=True))] = None
    yield from filled


def _run(
    session: Session, candidates: Iterator[tuple[int, ...]], graph: onnx.ModelProto | None
) -> tuple[tuple[int, ...] | None, tuple[int | None, ...], str]:
    """The first size that the model takes, its output's shape there, and why it took the first of all not.

    A size that a window of the graph does not fit in is taken only where no other is: onnxruntime runs PP-OCRv4's
    recogniser at height 32 as well, but it was trained at 48.
    """
    problem, misfit = "", None
    for size in candidates:
        try:
            output = tuple(session.run(np.zeros((1, *size), np.float32)).shape)
        except ModelError as error:
            problem = problem or str(error)  # of another size, perhaps
            continue
        if graph is None or too_large_window(graph, (1, *size)) is None:
            return size, output, ""
        misfit = misfit or (size, output, "")
    return misfit or (None, (), problem)


def parsed(model: Model) -> onnx.ModelProto | None:
    """A model's graph, without weights that lie beside it; None where it is of images in another order."""
    if isinstance(model, bytes):
        graph = onnx.load_from_string(model)
    else:
        graph = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    sizes = [size.dim_value or None for size in real_inputs(graph)[0].type.tensor_type.shape.dim]
    return None if is_channels_last(sizes) else graph


def guess_kind(output: Sequence[int | None]) -> str | None:
    """The kind of task by the output's shape, or None where it is none of the three.

    Of three dimensions it is a recogniser's, [N, T, K] or [T, N, K].

    >>> guess_kind((None, 2)), guess_kind((None, None, 97)), guess_kind((None, 1, None, None)), guess_kind((1, 9, 9, 9))
    ('classification', 'recognition', 'detection', None)
    """
    if len(output) == 4:
        return "detection" if output[1] == 1 else None
    kind = {2: "classification", 3: "recognition"}.get(len(output))
    return None if kind and output[-1] == 1 else kind


def image_shape(facts: ModelFacts, kind: str, given: Shape | None) -> Shape:
    """(C, H, W) that the model is fed: as given, else what the file fixes, else the kind's own if it takes that."""
    if given is not None:
        return given
    if facts.fed is not None and (guess_kind(facts.output) or "") == kind:
        channels, height, width = facts.fed
        return channels, height, width
    channels, height, width = (size or own for size, own in zip(facts.input[1:], INPUTS[kind], strict=True))
    return channels, height, width


def shape_for(model: onnx.ModelProto, given: Shape | None, otherwise: Sequence[int] = ()) -> Shape:
    """The size of image to look at a model with.

    Args:
        model: of images.
        given: (C, H, W) that the user said.
        otherwise: (C, H, W) that an earlier stage used; empty, as in artefacts of earlier versions, for what the model
            is seen to run on.
    """
    if given is not None:
        return given
    if len(otherwise) == 3:
        first, second, third = otherwise
        return first, second, third
    try:
        fed = look_at(model).fed
    except ModelError:  # not of images
        fed = None
    return DEFAULT_SHAPE if fed is None else (fed[0], fed[1], fed[2])


def size_said(facts: ModelFacts) -> str:
    """What to say of a size that the file does not fix; empty where it fixes all of it."""
    if facts.fed is None or all(facts.input[1:]):
        return ""
    kind = guess_kind(facts.output)
    channels, height, width = image_shape(facts, kind or "", None)
    what = f"is that of {kind}" if kind else "is of no kind known here"
    return (
        f"{facts.path}: input {shape_text(facts.input)}, looked at with {channels} x {height} x {width}: its "
        f"output {shape_text(facts.output)} {what}. For another size: --input C,H,W."
    )


def takes_several(path: Path) -> bool:
    """Whether a file for one image at a time can be trained with several (see `compress.graph.batching`)."""
    dims = load_model(path).graph.input[0].type.tensor_type.shape.dim
    return bool(dims) and not dims[0].HasField("dim_value")


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as text.

    >>> shape_text((None, 1, None, 640))
    '[?, 1, ?, 640]'
    """
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
