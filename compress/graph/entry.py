"""The way in for PyTorch users: a module becomes a canonical ONNX model.

Which of PyTorch's exporters made it is decided by what comes out: the file must import, compute what PyTorch computes,
and leave open the number and the width of images where the module does. TorchScript's goes first: docs/presets.md has
the figures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from compress.compute.modes import evaluating
from compress.errors import CompressError, InputSizeError, ModelError
from compress.graph.canonical import canonicalise
from compress.graph.exporters import (
    Export,
    Names,
    by_dynamo,
    by_torchscript,
    exportable_pooling,
    reason_of,
)
from compress.graph.load import check_whole
from compress.graph.to_torch import to_torch
from compress.graph.trial_run import run_quietly
from compress.progress import Note

TOLERANCE = 1e-3
"""Of an output's largest value: sums in another order stay far below it."""
MORE_IMAGES, MORE_COLUMNS = 1, 32
"""By how much other images differ from the example that an export is tried on; detectors want multiples of 32."""
EXPORTERS: dict[str, Export] = {"TorchScript's": by_torchscript, "dynamo's": by_dynamo}
"""In the order in which they are tried."""


def from_torch(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    input_name: str = "x",
    output_name: str = "output",
    on_note: Note | None = None,
) -> onnx.ModelProto:
    """Export a PyTorch module to a canonical ONNX model with dynamic batch, height and width.

    Where its operators depend on the height (as `squeeze` does), that is the example's. BatchNorm is kept as it is (not
    folded into the convolutions), so that the model can be trained on.

    The file is of the first of PyTorch's two exporters, TorchScript's and dynamo's, whose file serves: it can be
    imported, computes what the module computes on noise, and takes other numbers and widths of images where the module
    does. Where neither does, the one that comes nearest is taken.

    Args:
        module: any network that `torch.onnx.export` takes; exported in evaluation mode and left as it was.
        example_inputs: the image batch [N, 3, H, W] it is called with, or a sequence of its inputs.
        input_name: name of the first input in the graph.
        output_name: name of the first output in the graph.
        on_note: receives one line where TorchScript's exporter does not serve.

    Raises:
        InputSizeError: the module does not run on the example.
        ModelError: the module cannot be exported (the message holds PyTorch's reasons), what its file computes is not
            what the module computes, or it has 2 GB of weights or more.
    """
    check_whole(sum(tensor.nbytes for tensor in module.state_dict().values()), type(module).__name__)
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    with evaluating(module), exportable_pooling(module):
        return _choose(module, inputs, Names(input_name, output_name), on_note or (lambda line: None))


@dataclass(frozen=True)
class _Trial:
    """What the module computes on noise of some size."""

    differs: str
    """In what its size differs from the example's: batch or width; empty: in nothing."""
    axis: int
    inputs: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]
    reshapes: bool = False
    """Its results have other shapes than the example's: a file that fixes this size is of less use. Classifiers return
    the same of every width."""


@dataclass(frozen=True)
class _Candidate:
    """An export, and what is wrong with it."""

    model: onnx.ModelProto
    not_imported: str = ""
    """Why it cannot be imported."""
    unequal: bool = False
    """It computes something else than the module."""
    closed: tuple[str, ...] = ()
    """What the module takes in several sizes, with results of other shapes, and the file does not: batch, width."""

    @property
    def serves(self) -> bool:
        """Whether it can be imported and computes what the module does."""
        return not (self.not_imported or self.unequal)

    @property
    def problem(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if self.not_imported:
            return f"its file cannot be imported: {self.not_imported}"
        if self.unequal:
            return "its file does not compute what PyTorch computes"
        return f"its file fixes the {' and the '.join(self.closed)}" if self.closed else ""

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Higher is better."""
        return not self.unequal, self.serves, -len(self.closed)


def _choose(module: nn.Module, inputs: tuple[Tensor, ...], names: Names, say: Note) -> onnx.ModelProto:
    """The first export with nothing wrong, else the best one.

    Raises:
        ModelError: there is none, or it computes something else.
    """
    name = type(module).__name__
    trials = _trials(module, inputs)
    found: dict[str, _Candidate] = {}
    problems: dict[str, str] = {}
    for exporter, export in EXPORTERS.items():
        if problems:
            why = next(iter(problems.values()))
            say(f"{name}: TorchScript's exporter does not serve ({why}). Trying dynamo's, which may take a minute.")
        try:
            candidate = _most_open(export, module, inputs, names, trials)
        except ModelError as error:
            problems[exporter] = str(error)
            continue
        found[exporter] = candidate
        if not candidate.problem:
            break
        problems[exporter] = candidate.problem
    if all(candidate.unequal for candidate in found.values()):
        advice = " Look for Python's numbers or conditions made of the image's values or sizes." if found else ""
        raise ModelError(f"{name}: cannot be exported to ONNX ({_both(problems)}).{advice}")
    exporter, best = max(found.items(), key=lambda pair: pair[1].rank)  # the first of equals
    if problems:
        say(f"{name}: exported by {exporter} exporter{f', {best.problem}' if best.closed else ''}.")
    return best.model


def _both(problems: dict[str, str]) -> str:
    """Reasons by exporter, said once where they are the same."""
    if len(set(problems.values())) == 1:
        return next(iter(problems.values()))
    return "; ".join(f"{exporter} exporter: {problem}" for exporter, problem in problems.items())


def _most_open(
    export: Export, module: nn.Module, inputs: tuple[Tensor, ...], names: Names, trials: Sequence[_Trial]
) -> _Candidate:
    """The export with the most open axes that serves and holds no If; else the first that holds none, else the last.

    Raises:
        ModelError: none can be made; of the first is said why.
    """
    first: _Candidate | None = None
    last: _Candidate | None = None
    problem: ModelError | None = None
    for axes in _dynamic_axes(inputs[0]):
        try:
            exported = export(module, inputs, axes, names)
            candidate = _judged(canonicalise(exported), trials)
        except ModelError as error:
            problem = problem or error
            continue
        last = candidate
        if any(node.op_type == "If" for node in exported.graph.node):
            continue
        if candidate.serves:
            return candidate
        first = first or candidate
    if (found := first or last) is None:
        assert problem is not None
        raise problem
    return found


def _dynamic_axes(example: Tensor) -> Iterator[dict[int, str]]:
    """Axes that are left open, all first. `squeeze` of a height that is open becomes an If, which cannot be trained:
    where the module has one, the height is fixed, and at last the width, too."""
    if example.ndim == 4:
        yield {0: "batch", 2: "height", 3: "width"}
        yield {0: "batch", 3: "width"}
    yield {0: "batch"}


def _trials(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[_Trial]:
    """What the module computes on noise of the example's size, of one more image and of a larger width, where it takes
    them; nothing where it computes something else each time.

    Raises:
        InputSizeError: it does not run on the example.
    """
    try:
        _run(module, inputs)
    except (CompressError, MemoryError):
        raise
    except Exception as error:  # the user's module may raise anything
        raise InputSizeError(f"{type(module).__name__}: cannot be exported to ONNX ({reason_of(error)}).") from error
    own = _noise(inputs, inputs[0].shape)
    expected, again = _run(module, own), _run(module, own)
    if not _equal(expected, again):
        return []
    trials = [_Trial("", -1, own, expected)]
    sizes = {"batch": (0, MORE_IMAGES), "width": (3, MORE_COLUMNS)} if inputs[0].ndim == 4 and len(inputs) == 1 else {}
    for differs, (axis, more) in sizes.items():
        shape = list(inputs[0].shape)
        shape[axis] += more
        images = _noise(inputs, shape)
        try:
            computed = _run(module, images)
        except Exception:  # of many kinds: it does not take that size
            continue
        if [each.ndim for each in computed] == [each.ndim for each in expected]:
            reshapes = [each.shape for each in computed] != [each.shape for each in expected]
            trials.append(_Trial(differs, axis, images, computed, reshapes))
    return trials


def _judged(model: onnx.ModelProto, trials: Sequence[_Trial]) -> _Candidate:
    """What is wrong with an export."""
    try:
        imported = to_torch(model)
    except ModelError as error:
        return _Candidate(model, not_imported=str(error).rstrip("."))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    closed = []
    for trial in trials:
        if trial.differs and not dims[trial.axis].dim_param:
            closed += [trial.differs] if trial.reshapes else []
            continue
        try:
            computed = _run(imported, tuple(each.cpu() for each in trial.inputs))
        except Exception:  # of many kinds: a size that is said to be open, and is not
            return _Candidate(model, unequal=True)
        if not _equal(computed, trial.expected):
            return _Candidate(model, unequal=True)
    return _Candidate(model, closed=tuple(closed))


def _noise(inputs: tuple[Tensor, ...], shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The inputs with noise in the place of the images, from -0.5 to 0.5; inputs of integers are left."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.rand(tuple(each.shape if place else shape), generator=generator).sub(0.5).to(each)
        if each.is_floating_point()
        else each
        for place, each in enumerate(inputs)
    )


def _run(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Every tensor of floats that a module returns, in tuples, lists and dictionaries; as float32 on the CPU."""
    with torch.no_grad():
        return tuple(each.detach().float().cpu() for each in _tensors(run_quietly(module, *inputs)))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():  # classes and places jump where two are nearly alike
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether two results are the same to rounding, of as many tensors as both have."""
    return all(_close(a, b) for a, b in zip(one, other, strict=False))


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.abs().nan_to_num(0.0, 0.0).max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * scale + 1e-7, equal_nan=True)
