"""Rewrite rules for LayerNorm over the last dimension: spelled out in single operators -> LayerNormalization.

Exporters wrote it so below opset 17, and Paddle2ONNX still does:

    d = x - mean(x);  y = d / sqrt(mean(d * d) + epsilon) * scale + offset

onnxscript has rules of the same kind, but takes whatever is added behind the scale for the offset, a residual as well.
"""

import numpy as np
import onnx_ir as ir

from compress.graph.edit import (
    array_of,
    attribute,
    constant,
    dims_of,
    is_inner,
    producer,
    reduced_axes,
    replace_node,
    scalar_of,
)


def layer_norm(graph: ir.Graph, node: ir.Node) -> bool:
    """(x - mean) / deviation * scale, with a constant scale [C] of the last dimension -> LayerNormalization."""
    if node.op_type != "Mul":
        return False
    for normal, factor in (node.inputs, reversed(node.inputs)):
        found = _normalised(normal)
        if found is None:
            continue
        x, epsilon = found
        scale = _per_channel(graph, factor, x)
        if scale is not None:
            replace_node(graph, node, "LayerNormalization", [x, scale], axis=-1, epsilon=epsilon)
            return True
    return False


def layer_norm_offset(graph: ir.Graph, node: ir.Node) -> bool:
    """LayerNormalization + constant [C] -> the same with the constant as its offset."""
    if node.op_type != "Add":
        return False
    for made, added in (node.inputs, reversed(node.inputs)):
        norm = producer(made, "LayerNormalization")
        if norm is None or len([value for value in norm.inputs if value is not None]) != 2:
            continue
        statistics = any(value.uses() or value.is_graph_output() for value in norm.outputs[1:])
        x, scale = norm.inputs[:2]
        last = attribute(norm, "axis", -1) in (-1, len(dims_of(x) or ()) - 1)
        if statistics or not last or not is_inner(norm.outputs[0]) or _per_channel(graph, scale, x) is not scale:
            continue
        offset = _per_channel(graph, added, x)
        if offset is not None:
            attributes = {name: found.value for name, found in norm.attributes.items()}
            replace_node(graph, node, "LayerNormalization", [x, scale, offset], **attributes)
            graph.remove(norm, safe=True)
            return True
    return False


def _normalised(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """Match d / sqrt(mean(d * d) + epsilon) with d = x - mean(x), which nobody else reads: x and epsilon."""
    parts = _quotient(value)
    if parts is None or value is None or not is_inner(value):
        return None
    centred, root = parts
    total = producer(root.inputs[0], "Add")
    for variance, number in () if total is None else (total.inputs, reversed(total.inputs)):
        epsilon = _number(number)
        squares = _mean_of(variance)
        if epsilon is not None and squares is not None and _is_square(squares, centred):
            x = _centred(centred)
            return None if x is None else (x, epsilon)
    return None


def _quotient(value: ir.Value | None) -> tuple[ir.Value, ir.Node] | None:
    """Match d / sqrt(...), or d * (1 / sqrt(...)): d and the root."""
    division, product = producer(value, "Div"), producer(value, "Mul")
    if division is not None:
        above, root = division.inputs[0], producer(division.inputs[1], "Sqrt")
        return None if above is None or root is None else (above, root)
    for above, below in () if product is None else (product.inputs, reversed(product.inputs)):
        inverse = producer(below, "Reciprocal")
        root = None if inverse is None else producer(inverse.inputs[0], "Sqrt")
        if above is not None and root is not None:
            return above, root
    return None


def _mean_of(value: ir.Value | None) -> ir.Value | None:
    """What a value is the mean of over the last dimension, which stays with size 1."""
    mean = producer(value, "ReduceMean")
    rank = 0 if mean is None else len(dims_of(mean.inputs[0]) or ())
    if mean is None or not rank or attribute(mean, "keepdims", 1) != 1:
        return None
    return mean.inputs[0] if reduced_axes(mean, rank) == [rank - 1] else None


def _is_square(value: ir.Value, of: ir.Value) -> bool:
    """Whether a value is another one's square."""
    product, power = producer(value, "Mul"), producer(value, "Pow")
    if product is not None:
        return all(factor is of for factor in product.inputs)
    return power is not None and power.inputs[0] is of and _number(power.inputs[1]) == 2.0


def _centred(value: ir.Value) -> ir.Value | None:
    """Match x - mean(x): x."""
    difference = producer(value, "Sub")
    if difference is None or difference.inputs[0] is None:
        return None
    return difference.inputs[0] if _mean_of(difference.inputs[1]) is difference.inputs[0] else None


def _number(value: ir.Value | None) -> float | None:
    """A constant of one element that leaves the rank of what it is combined with."""
    array = array_of(value)
    return scalar_of(value) if array is not None and array.ndim <= 1 else None


def _per_channel(graph: ir.Graph, value: ir.Value | None, x: ir.Value | None) -> ir.Value | None:
    """A constant with one number for each place of the last dimension of x [..., C], as [C]; None if it is not one."""
    array, dims = array_of(value), dims_of(x)
    if value is None or array is None or dims is None or array.dtype != np.float32 or not 1 <= array.ndim <= len(dims):
        return None
    if array.shape[-1:] != dims[-1:] or array.size != dims[-1]:
        return None
    return value if array.ndim == 1 else constant(graph, f"{value.name}.flat", array.reshape(-1))
