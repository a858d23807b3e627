"""PyTorch's two exporters, each called quietly, with one line of reason where it fails.

TorchScript's runs the module on the example and writes down what it did; dynamo's (`torch.export`) reads its Python.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.canonical import OPSET

DYNAMO_OPSET = 18
"""The lowest that dynamo's exporter writes."""


@dataclass(frozen=True)
class Names:
    """What the first input and the first output are called in a graph."""

    input: str = "x"
    output: str = "output"


Export = Callable[[nn.Module, Sequence[Tensor], dict[int, str], Names], onnx.ModelProto]
"""Of a module on inputs, with these axes of the first of them left open: axis -> name.

Raises:
    ModelError: it cannot be exported; the message is the exporter's reason.
"""


def by_torchscript(module: nn.Module, inputs: Sequence[Tensor], axes: dict[int, str], names: Names) -> onnx.ModelProto:
    """What the TorchScript exporter makes of a module (see `Export`)."""
    with tempfile.TemporaryDirectory() as folder, _as_one_error():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(inputs),
            path,
            dynamo=False,
            do_constant_folding=False,  # it would fold BatchNorm, too; our own folding does not
            opset_version=OPSET,
            input_names=[names.input, *(f"{names.input}_{index}" for index in range(1, len(inputs)))],
            output_names=[names.output],
            dynamic_axes={names.input: axes},
        )
        return onnx.load(path)


def by_dynamo(module: nn.Module, inputs: Sequence[Tensor], axes: dict[int, str], names: Names) -> onnx.ModelProto:
    """What the dynamo exporter makes of a module (see `Export`); not optimised, since that would fold BatchNorm.

    It takes an open axis for fixed where the example has a 1 there, so a single image stands in it twice.
    """
    doubled = [torch.cat([each, each]) if each.ndim and each.shape[0] == 1 else each for each in inputs]
    dynamic = [dict.fromkeys(axes, torch.export.Dim.DYNAMIC), *({} for _ in doubled[1:])]
    with _as_one_error():
        program = torch.onnx.export(
            module,
            tuple(doubled),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=DYNAMO_OPSET,
            input_names=[names.input, *(f"{names.input}_{index}" for index in range(1, len(doubled)))],
            output_names=[names.output],
            dynamic_shapes=tuple(dynamic),
        )
        assert program is not None
        model = program.model_proto
    for axis, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if dim.dim_param and axis in axes:
            dim.dim_param = axes[axis]  # of its own it has names such as s77
    return model


@contextlib.contextmanager
def _as_one_error() -> Iterator[None]:
    """Run an exporter without what it prints, and with its errors, of many kinds, as one.

    Raises:
        ModelError: it failed; the message is the first line of the first cause.
    """
    try:
        with warnings.catch_warnings(), _silenced():
            warnings.simplefilter("ignore")  # notes on constants and the exporters' own deprecations
            yield
    except MemoryError:
        raise
    except Exception as error:  # the exporters raise many kinds; all mean the same to the user
        raise ModelError(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """The first line of an error's first cause, without colours and at most 200 characters; else its kind.

    >>> try:
    ...     raise ValueError("step 1 failed") from KeyError("what is\\nwrong")
    ... except ValueError as error:
    ...     reason_of(error)
    "'what is\\\\nwrong'"
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    text = " ".join(lines[0].split()) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Nothing on stdout and stderr, where the exporters print whole graphs and advice, some of it from C++."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in (1, 2)]
    quiet = io.StringIO()
    with open(os.devnull, "wb") as nowhere, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        try:
            yield
        finally:
            for stream, own in zip((1, 2), kept, strict=True):
                os.dup2(own, stream)
                os.close(own)


class _MeanOver(nn.Module):
    """Average pooling over whole axes, which is what `AdaptiveAvgPool2d` to sizes of 1 and None computes."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=True) if self.axes else x


@contextlib.contextmanager
def exportable_pooling(module: nn.Module) -> Iterator[None]:
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
