"""Times of single operators: each runs alone in onnxruntime, with its profiler on.

An operator's time depends on its shapes in ways that multiply-adds do not tell: kernels work on blocks of 8 or 16
channels, depthwise convolutions are slow in int8, some operators have no integer kernel at all. So it is measured: a
model of this one operator, float32 or in QDQ form with uint8 ends, of which onnxruntime makes the kernels that it makes
of the whole network. Layouts are the exception: a lone convolution brings layout changes with it that a run of
convolutions pays once, at its ends, so these are kept apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx

from compress.measure.micro_model import END, micro_model, random_feeds
from compress.measure.runtime import Kernel, profile

Precision = Literal["float32", "int8"]
Activation = Literal["", "Relu", "Clip6", "HardSigmoid", "HardSwish"]
LAYOUT_CHANGES = frozenset(("Transpose", "ReorderInput", "ReorderOutput"))


@dataclass(frozen=True)
class Operator:
    """One operator with all that its time depends on."""

    op_type: str
    """An ONNX operator (opset 17); QuantizeLinear and DequantizeLinear are those of a whole tensor."""
    inputs: tuple[tuple[int, ...], ...]
    """Shapes of the tensors it computes from."""
    weight: tuple[int, ...] = ()
    """Shape of its weight, or of the other constant it computes with; of a recurrent layer that of W."""
    attributes: tuple[tuple[str, Any], ...] = ()
    """Sorted; integers, floats, texts, tuples of numbers. Constant inputs that say how to compute (the scales of
    Resize, the starts of Slice) are here by their name."""
    activation: Activation = ""
    """What runs fused behind it. `Clip6` is Clip(0, 6)."""
    precision: Precision = "float32"


@dataclass(frozen=True)
class OperatorTime:
    """Milliseconds of one operator: its own kernels, and changes of layout in front of it and behind it.

    Runs of operators in one layout pay `before_ms` once, at the first, and `after_ms` at the last.
    """

    kernel_ms: float
    before_ms: float = 0.0
    after_ms: float = 0.0


def measure_operator(operator: Operator, threads: int = 1) -> OperatorTime:
    """Time one operator on this machine: about 30 runs after 5, at least 10 of a slow one.

    Raises:
        ModelError: onnxruntime has no such operator, or not for these shapes.
    """
    model = operator_model(operator)
    return classify(operator.op_type, profile(model, random_feeds(model), threads=threads))


def operator_model(operator: Operator) -> onnx.ModelProto:
    """The model of one operator that is timed."""
    return micro_model(
        operator.op_type,
        operator.inputs,
        operator.weight,
        dict(operator.attributes),
        operator.activation,
        integer=operator.precision == "int8",
    )


def classify(op_type: str, kernels: Sequence[Kernel]) -> OperatorTime:
    """Tell an operator's own kernels, in the order in which they ran, from the layout changes around them.

    >>> ran = [Kernel("ReorderInput", "a", (0.5,)), Kernel("Conv", "b", (2.0,)), Kernel("ReorderOutput", "c", (1.0,))]
    >>> classify("Conv", ran)
    OperatorTime(kernel_ms=2.0, before_ms=0.5, after_ms=1.0)
    """
    parts = {"before_ms": 0.0, "kernel_ms": 0.0, "after_ms": 0.0}
    for kernel in kernels:
        if kernel.name == END:
            continue
        part = "kernel_ms"
        if kernel.op_type in LAYOUT_CHANGES and op_type not in LAYOUT_CHANGES:
            part = "after_ms" if parts["kernel_ms"] > 0 else "before_ms"
        parts[part] += middle_mean(kernel.times_ms)
    return OperatorTime(**parts)


def middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: as robust as the median, and finer than the microsecond of onnxruntime's profiler.

    >>> middle_mean([1.0, 2.0, 3.0, 100.0])
    2.5
    """
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
