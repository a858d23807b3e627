"""Which constants of a graph were trained: scales, offsets and position embeddings that no layer holds.

An ONNX file does not say what its exporter trained. What is added to, multiplied with or joined to what layers compute
was; what an image meets before the first layer is its normalisation, single numbers are settings, and huge ones masks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "MatMul", "Concat", "Einsum"))
_MOVES = frozenset(("Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"))
"""Operators whose result holds nothing but elements of their first input."""
_SIZES = frozenset(("Shape", "Size"))
_WEIGHTED = frozenset(
    (
        *("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "LayerNormalization", "LSTM", "GRU", "RNN"),
        *("InstanceNormalization", "GroupNormalization", "PRelu"),
    )
)

BEFORE_LAYERS = "meets the image before the first layer: its normalisation"
SINGLE = "a single number"
MASK = "holds infinite or huge numbers: a mask"
_HUGE = 1e4
"""Masks of attention hold -1e4 (half precision), -1e9 or -inf."""


@dataclass(frozen=True)
class Constants:
    """The float constants, by name, that take part in a graph's arithmetic outside its layers."""

    trained: frozenset[str] = frozenset()
    fixed: dict[str, str] = field(default_factory=dict)
    """Those that are not trained, and why."""


def free_constants(graph: onnx.GraphProto) -> Constants:
    """Find the constants of a canonical graph that are operands of Add, Sub, Mul, Div, MatMul or Concat.

    Constants may be sliced, reshaped, expanded or joined on the way. Left out are the operands of arithmetic on sizes,
    and matrices that a MatMul multiplies what it reads with, which are a linear layer's weight.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    floats = {name for name, array in arrays.items() if array.dtype == np.float32}
    made_of = {name: {name} for name in floats}
    images = {value.name for value in graph.input} - arrays.keys()
    deep: set[str] = set()
    trained: set[str] = set()
    fixed: dict[str, str] = {}
    for node in graph.node:
        given = [name for name in node.input if name]
        results = {name for name in node.output if name}
        if node.op_type in _SIZES:
            continue
        if not images.isdisjoint(given):
            images |= results
            if not deep.isdisjoint(given) or node.op_type in _WEIGHTED or _is_linear(node, arrays):
                deep |= results
            for name in _free_operands(node, arrays, made_of):
                for constant in made_of[name]:
                    why = _why_fixed(arrays[constant]) or (BEFORE_LAYERS if deep.isdisjoint(given) else "")
                    if why:
                        fixed.setdefault(constant, why)
                    else:
                        trained.add(constant)
        elif node.op_type in _MOVES and given[0] in made_of:
            made_of |= dict.fromkeys(results, made_of[given[0]])
        elif node.op_type in _ARITHMETIC and all(name in made_of for name in given):
            made_of |= dict.fromkeys(results, set().union(*(made_of[name] for name in given)))
    return Constants(frozenset(trained), {name: why for name, why in fixed.items() if name not in trained})


def _why_fixed(array: np.ndarray) -> str:
    """Why a constant cannot have been trained, whatever it is an operand of; empty where it can."""
    if array.size < 2:
        return SINGLE
    return "" if (np.abs(array) < _HUGE).all() else MASK


def _free_operands(node: onnx.NodeProto, arrays: dict[str, np.ndarray], made_of: dict[str, set[str]]) -> Iterator[str]:
    """The operands of a node's arithmetic that constants were made into."""
    if node.op_type in _ARITHMETIC:
        weight = node.input[1] if _is_linear(node, arrays) else None
        yield from (name for name in node.input if name in made_of and name != weight)


def _is_linear(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in arrays and arrays[node.input[1]].ndim == 2
