"""GELU spelled out, x * (1 + erf(x / sqrt 2)) / 2: what exporters write before opset 20, which has an operator for it.

onnxruntime computes the five nodes in one pass where it finds all of them beside one another (GeluFusion). It does not
where the half was folded into what is behind, nor where x is dequantised: each of its readers has a DequantizeLinear of
its own then. PP-OCRv6's smaller detector, one thread of an AMD EPYC: with the half folded 77 ms instead of 62, and all
in integers 84 ms instead of 73 (docs/packages.md).
"""

import math

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.graph.edit import array_of, is_inner, producer, replace_node, scalar_of

OPSET = 20
"""The first that has the operator Gelu."""
TOLERANCE = 1e-3
"""Relative, of constants: sqrt 2 in float16 is 1.1e-4 off."""


def gelu_input(node: ir.Node) -> ir.Value | None:
    """The x of which a node is the last of a GELU that is spelled out, or None."""
    halved = _operands(node, "Mul", 0.5)  # (x * (1 + erf)) * 0.5
    if halved is not None:
        product = producer(halved, "Mul")
        pairs = [] if product is None or not is_inner(halved) else _pairs(product)
        return next((x for x, factor in pairs if _is_gate(factor, x)), None)
    for one, factor in _pairs(node) if node.op_type == "Mul" else []:  # (x * 0.5) * (1 + erf)
        half = producer(one, "Mul")
        x = None if half is None or not is_inner(one) else _operands(half, "Mul", 0.5)
        if x is not None and _is_gate(factor, x):
            return x
    return None


def with_gelu_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one node for each GELU that is spelled out, which takes opset 20.

    It is returned as it is where it has none, or cannot be converted to that opset.
    """
    graph_model = ir.from_proto(model)
    if not any(map(gelu_input, graph_model.graph)):
        return model
    if graph_model.opset_imports.get("", OPSET) < OPSET:
        try:
            graph_model = ir.from_proto(onnx.version_converter.convert_version(model, OPSET))
        except Exception:  # a C++ exception without a stable type: the five nodes compute the same
            return model
    for node in list(graph_model.graph):
        x = gelu_input(node) if node.graph is not None else None
        if x is not None:
            replace_node(graph_model.graph, node, "Gelu", [x])
    common.RemoveUnusedNodesPass()(graph_model)
    return ir.to_proto(graph_model)


def _is_gate(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether a value is 1 + erf(x / sqrt 2), that nothing else reads."""
    if value is None or not is_inner(value):
        return False
    added = value.producer()
    erf = producer(_operands(added, "Add", 1.0), "Erf")
    scaled = None if erf is None or erf.inputs[0] is None else erf.inputs[0].producer()
    root = math.sqrt(2)
    return x in (_operands(scaled, "Div", root), _operands(scaled, "Mul", 1 / root))


def _pairs(node: ir.Node) -> list[tuple[ir.Value, ir.Value]]:
    """The operands of a product, both ways round."""
    first, second = node.inputs
    return [] if first is None or second is None else [(first, second), (second, first)]


def _operands(node: ir.Node | None, op_type: str, number: float) -> ir.Value | None:
    """The computed operand of a node of this type whose other one is a number (of a Div the second)."""
    if node is None or node.op_type != op_type or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    for value, other in ((first, second), (second, first))[: 1 if op_type == "Div" else 2]:
        found = scalar_of(other)
        if found is not None and array_of(value) is None and math.isclose(found, number, rel_tol=TOLERANCE):
            return value
    return None
