"""Look at an onnx_ir graph's constants and attributes, and replace its nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

SAME = ("SAME_UPPER", "SAME_LOWER")
"""Values of auto_pad by which padding depends on the size of the image."""


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initialiser under a name not yet taken."""
    unique, suffix = name, 1
    while unique in graph.initializers:
        unique, suffix = f"{name}.{suffix}", suffix + 1
    value = ir.val(
        unique,
        dtype=ir.DataType.from_numpy(array.dtype),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=unique),
    )
    graph.register_initializer(value)
    return value


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant that a value holds, or None."""
    return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())


def scalar_of(value: ir.Value | None) -> float | None:
    """The single number that a value holds, or None."""
    array = array_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's plain value."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def auto_pad(node: ir.Node) -> str:
    """How a convolution or pooling pads its input; NOTSET where `pads` say so."""
    mode = attribute(node, "auto_pad", "NOTSET")
    return mode.decode() if isinstance(mode, bytes) else str(mode)


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that computes a value, if it is of that type."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def is_inner(value: ir.Value) -> bool:
    """Whether one node alone reads a value, so that nobody misses it when that node is rewritten."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def replace_node(
    graph: ir.Graph, old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: Any
) -> ir.Value:
    """Put a new node in the place of `old`; its output takes over the name, type and uses of old's first."""
    new = ir.node(op_type, inputs, attributes)
    name = old.outputs[0].name
    ir.convenience.replace_nodes_and_values(graph, old, [old], [new], [old.outputs[0]], [new.outputs[0]])
    new.outputs[0].name = name
    return new.outputs[0]


def reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    """The axes that a Reduce node of a value of this rank goes over, rising and not negative; None where unknown.

    Before opset 18 (13 for ReduceSum) they are an attribute, then an input. None of them ([]) may mean all.
    """
    axes = attribute(node, "axes")
    if axes is None and len(node.inputs) > 1:
        axes = array_of(node.inputs[1])
    return None if axes is None else sorted(int(axis) % rank for axis in np.asarray(axes).reshape(-1))


def dims_of(value: ir.Value | None) -> tuple[int | str, ...] | None:
    """The shape as numbers and symbols, or None where a dimension is not known at all."""
    if value is None or value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    known = tuple(dim for dim in dims if dim is not None and not (isinstance(dim, int) and dim < 0))
    return known if len(known) == len(dims) else None
