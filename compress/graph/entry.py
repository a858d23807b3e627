"""The way in for PyTorch users: a module becomes a canonical ONNX model."""

import contextlib
import io
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.canonical import OPSET, canonicalise
from compress.graph.load import check_whole


def from_torch(
    module: nn.Module, example_inputs: Tensor | Sequence[Tensor], *, input_name: str = "x", output_name: str = "output"
) -> onnx.ModelProto:
    """Export a PyTorch module to a canonical ONNX model with dynamic batch, height and width.

    Where its operators depend on the height (as `squeeze` does), that is the example's.

    BatchNorm is kept as it is (not folded into the convolutions), so that the model can be trained on.

    Args:
        module: any network that `torch.onnx.export` can trace; exported in evaluation mode and left as it was.
        example_inputs: the image batch [N, 3, H, W] it is called with, or a sequence of its inputs.
        input_name: name of the first input in the graph.
        output_name: name of the first output in the graph.

    Raises:
        ModelError: the module cannot be exported (the message holds PyTorch's reason), or has 2 GB of weights or more.
    """
    check_whole(sum(tensor.nbytes for tensor in module.state_dict().values()), type(module).__name__)
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    with _evaluating(module), _exportable_pooling(module):
        return canonicalise(_export_open(module, inputs, input_name, output_name))


def _export_open(module: nn.Module, inputs: tuple[Tensor, ...], input_name: str, output_name: str) -> onnx.ModelProto:
    """The export with the most open axes that holds no If; else the last one that there is.

    Raises:
        ModelError: none can be made; of the first is said why.
    """
    found: onnx.ModelProto | None = None
    problem: ModelError | None = None
    for axes in _dynamic_axes(inputs[0]):
        try:
            found = _export(module, inputs, axes, input_name, output_name)
        except ModelError as error:
            problem = problem or error
            continue
        if not any(node.op_type == "If" for node in found.graph.node):
            break
    if found is None:
        assert problem is not None
        raise problem
    return found


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], axes: dict[int, str], input_name: str, output_name: str
) -> onnx.ModelProto:
    """What PyTorch makes of a module, with these axes of the first input left open.

    Raises:
        ModelError: the module cannot be exported.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            with warnings.catch_warnings(), _silenced():
                warnings.simplefilter("ignore")  # the tracer's notes on constants and its own deprecation
                torch.onnx.export(
                    module,
                    inputs,
                    path,
                    dynamo=False,
                    do_constant_folding=False,  # it would fold BatchNorm, too; our own folding does not
                    opset_version=OPSET,
                    input_names=[input_name, *(f"{input_name}_{index}" for index in range(1, len(inputs)))],
                    output_names=[output_name],
                    dynamic_axes={input_name: axes},
                )
        except Exception as error:  # the exporter raises many kinds; all mean the same to the user
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = textwrap.shorten(lines[0], 200, placeholder="...")
            raise ModelError(f"{type(module).__name__}: cannot be exported to ONNX ({reason}).") from error
        return onnx.load(path)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Nothing on stdout, where the exporter prints whole graphs, some of them from C++."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere, contextlib.redirect_stdout(io.StringIO()):
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and every part's own mode again afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _MeanOver(nn.Module):
    """Average pooling over whole axes, which is what `AdaptiveAvgPool2d` to sizes of 1 and None computes."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=True) if self.axes else x


@contextlib.contextmanager
def _exportable_pooling(module: nn.Module) -> Iterator[None]:
    """Adaptive pooling to (None, 1) and the like, of which the exporter makes nothing, as means meanwhile."""
    replaced = []
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, tuple):
                sizes = child.output_size
                if None in sizes and set(sizes) <= {None, 1}:
                    replaced.append((owner, name, child))
                    axes = tuple(axis for axis, size in zip((-2, -1), sizes, strict=True) if size == 1)
                    setattr(owner, name, _MeanOver(axes).train(child.training))
    try:
        yield
    finally:
        for owner, name, child in replaced:
            setattr(owner, name, child)


def _dynamic_axes(example: Tensor) -> Iterator[dict[int, str]]:
    """Axes that are left open, all first. `squeeze` of a height that is open becomes an If, which cannot be trained:
    where the module has one, the height is fixed, and at last the width, too."""
    if example.ndim == 4:
        yield {0: "batch", 2: "height", 3: "width"}
        yield {0: "batch", 3: "width"}
    yield {0: "batch"}
