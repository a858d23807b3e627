"""Rewrite rules that fold constant scales and offsets into the convolutions beside them.

PP-OCRv4's and v5's backbones (PP-LCNetV3) put a learned affine layer of two numbers, x * scale + offset, behind every
convolution and behind every activation. Each is a pass over memory, and keeps onnxruntime from fusing the convolution
with its activation. Weights are changed in float64 and rounded once.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph.edit import SAME, array_of, attribute, auto_pad, constant, is_inner, replace_node, scalar_of
from compress.graph.gelu import gelu_input

LEAST_SCALE = 1e-6
"""Smaller scales stay where they are: an offset would be divided by them."""


Parameters = tuple[np.ndarray, np.ndarray | None]
"""Weights and bias, float64."""


@dataclass(frozen=True)
class Affine:
    """A value that is x * scale + offset, of two numbers."""

    x: ir.Value
    scale: float
    offset: float


def conv_scale(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv -> Mul(constant per channel) becomes a convolution with scaled weights and bias."""
    if node.op_type != "Mul":
        return False
    for made, factor in (node.inputs, reversed(node.inputs)):
        conv = made.producer() if made is not None else None
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or not is_inner(conv.outputs[0]):
            continue
        parameters = _parameters(conv)
        scale = None if parameters is None else _per_filter(array_of(factor), conv, parameters[0])
        if parameters is None or scale is None:
            continue
        weight, bias = parameters
        filters = scale.reshape(-1, *[1] * (weight.ndim - 1)) if conv.op_type == "Conv" else scale
        scaled = weight * filters, None if bias is None else bias * scale
        if not _is_finite(scaled):
            continue
        _replace_conv(graph, node, conv, conv.inputs[0], *scaled)
        graph.remove(conv, safe=True)
        return True
    return False


def affine_into_convs(graph: ir.Graph, node: ir.Node) -> bool:
    """x * scale + offset, two numbers, that convolutions alone read becomes part of them.

    Where one of them pads, its zeros must stay zeros: the scale goes into the weights, and x + offset / scale stays.
    So does the half of a GELU, by which onnxruntime knows it.
    """
    found = _affine(node)
    if found is None or gelu_input(node) is not None:
        return False
    value = node.outputs[0]
    convs = [use.node for use in value.uses()]
    known = [
        conv.graph is graph and conv.op_type == "Conv" and conv.inputs[0] is value and _parameters(conv) is not None
        for conv in convs
    ]
    if value.is_graph_output() or not convs or not all(known) or len({id(conv) for conv in convs}) < len(convs):
        return False
    padded = found.offset != 0 and any(_pads(conv) for conv in convs)
    if padded and (found.scale == 1 or abs(found.scale) < LEAST_SCALE):
        return False
    folded = [_folded(conv, found.scale, 0.0 if padded else found.offset) for conv in convs]
    if not all(map(_is_finite, folded)):
        return False
    read = _moved(graph, node, found.x, found.offset / found.scale) if padded else found.x
    for conv, parameters in zip(convs, folded, strict=True):
        _replace_conv(graph, conv, conv, read, *parameters)
    return True


def _folded(conv: ir.Node, scale: float, offset: float) -> Parameters:
    """Weights and bias with which a convolution computes of x what it computed of x * scale + offset."""
    weight, bias = _parameters(conv) or (np.zeros(0), None)
    if offset:
        moved = offset * weight.reshape(len(weight), -1).sum(axis=1)
        bias = moved if bias is None else bias + moved
    return weight * scale, bias


def _is_finite(parameters: Parameters) -> bool:
    """Whether float32 holds them."""
    most = np.finfo(np.float32).max
    return all(np.abs(array).max(initial=0.0) <= most for array in parameters if array is not None)


def _affine(node: ir.Node) -> Affine | None:
    """Match x * scale + offset, either of them alone, too; the last node's readers are to read it all."""
    if node.op_type == "Mul":
        found = _with_number(node)
        return None if found is None else Affine(found[0], found[1], 0.0)
    found = _with_number(node) if node.op_type == "Add" else None
    if found is None:
        return None
    inner, offset = found
    product = inner.producer()
    scaled = _with_number(product) if product is not None and product.op_type == "Mul" and is_inner(inner) else None
    return Affine(inner, 1.0, offset) if scaled is None else Affine(*scaled, offset)


def _with_number(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The operands of a node of two: a computed value, and a number that adds no dimension."""
    for value, other in (node.inputs, reversed(node.inputs)):
        array, number = array_of(other), scalar_of(other)
        if value is not None and array_of(value) is None and array is not None and number is not None:
            rank = 0 if value.shape is None else len(value.shape)
            return (value, number) if array.dtype == np.float32 and array.ndim <= rank and np.isfinite(number) else None
    return None


def _moved(graph: ir.Graph, before: ir.Node, x: ir.Value, offset: float) -> ir.Value:
    """x + offset, in front of a node."""
    name = before.outputs[0].name
    made = ir.node("Add", [x, constant(graph, f"{name}.offset", np.array(offset, np.float32))])
    made.outputs[0].name = f"{name}.moved"
    graph.insert_before(before, made)
    return made.outputs[0]


def _parameters(conv: ir.Node) -> Parameters | None:
    """A convolution's constant weights and bias in float64, or None where they are computed."""
    weight = array_of(conv.inputs[1])
    given = conv.inputs[2] if len(conv.inputs) > 2 else None
    bias = array_of(given)
    if weight is None or weight.dtype != np.float32 or (given is not None and bias is None):
        return None
    return weight.astype(np.float64), None if bias is None else bias.astype(np.float64)


def _per_filter(factor: np.ndarray | None, conv: ir.Node, weight: np.ndarray) -> np.ndarray | None:
    """A factor of a convolution's output as a number for each filter [O] or for all [1]; None if it is not one."""
    if factor is None or factor.dtype != np.float32 or not np.isfinite(factor).all():
        return None
    if factor.size == 1:
        return factor.reshape(1).astype(np.float64) if factor.ndim <= weight.ndim else None
    spatial = [1] * (weight.ndim - 2)
    if conv.op_type != "Conv" or factor.shape not in ((len(weight), *spatial), (1, len(weight), *spatial)):
        return None
    return factor.reshape(-1).astype(np.float64)


def _replace_conv(
    graph: ir.Graph, node: ir.Node, conv: ir.Node, x: ir.Value | None, weight: np.ndarray, bias: np.ndarray | None
) -> None:
    """Put a convolution with other parameters in the place of a node."""
    name = conv.outputs[0].name
    parameters = [constant(graph, f"{name}.scaled", np.ascontiguousarray(weight, np.float32))]
    if bias is not None:
        parameters.append(constant(graph, f"{name}.bias", np.ascontiguousarray(bias, np.float32)))
    attributes = {key: found.value for key, found in conv.attributes.items()}
    replace_node(graph, node, conv.op_type, [x, *parameters], **attributes)


def _pads(conv: ir.Node) -> bool:
    """Whether a convolution sees zeros around its input."""
    mode = auto_pad(conv)
    return mode in SAME or (mode == "NOTSET" and any(attribute(conv, "pads", [])))
