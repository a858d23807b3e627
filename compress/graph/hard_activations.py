"""Rewrite rules for hard-sigmoid and hard-swish: every way of spelling them with Add, Clip, Mul and Div."""

import onnx_ir as ir

from compress.graph.edit import attribute, producer, replace_node, scalar_of

ROUNDING = 1e-6
"""Constants may differ from 3, 6 and 1/6 by what float32 loses, no more: the rewritten graph computes the same."""


def hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """clip(x + 3, 0, 6) / 6, clip(0.2x + 0.5, 0, 1) and the like -> HardSigmoid."""
    if node.op_type not in ("Clip", "Div", "Mul"):
        return False
    ramp = _clipped_ramp(node.outputs[0])
    if ramp is None:
        return False
    x, slope, offset = ramp
    replace_node(graph, node, "HardSigmoid", [x], alpha=slope, beta=offset)
    return True


def hard_swish(graph: ir.Graph, node: ir.Node) -> bool:
    """x * clip(x + 3, 0, 6) / 6 in any order, and x * HardSigmoid(x; 1/6, 1/2) -> HardSwish."""
    if node.op_type not in ("Mul", "Div"):
        return False
    product, outer = _scaled(node.outputs[0])
    mul = producer(product, "Mul")
    if mul is None:
        return False
    for factor, gate in ((mul.inputs[0], mul.inputs[1]), (mul.inputs[1], mul.inputs[0])):
        if factor is None or gate is None:
            continue
        for x, inner in ((factor, 1.0), _scaled(factor)):
            if _is_gate(x, gate, outer * inner):
                replace_node(graph, node, "HardSwish", [x])
                return True
    return False


def _clipped_ramp(value: ir.Value) -> tuple[ir.Value, float, float] | None:
    """Match factor * clip(a*x + b, 0, top) and return (x, slope, offset) of the same thing clipped to [0, 1]."""
    inner, factor = _scaled(value)
    clip = producer(inner, "Clip")
    if clip is None:
        return None
    low, top = _clip_bounds(clip)
    if low != 0.0 or top is None or not _is_near(factor * top, 1.0):
        return None
    add = producer(clip.inputs[0], "Add")
    parts = None if add is None else _split_number(add)
    if parts is None:
        return None
    x, slope = _scaled(parts[0])
    return x, slope * factor, parts[1] * factor


def _is_gate(x: ir.Value, gate: ir.Value, outer: float) -> bool:
    """Whether outer * gate is clip(x + 3, 0, 6) / 6."""
    sigmoid = producer(gate, "HardSigmoid")
    if sigmoid is not None:
        alpha, beta = attribute(sigmoid, "alpha", 0.2), attribute(sigmoid, "beta", 0.5)
        same = _is_near(outer, 1.0) and _is_near(alpha * 6, 1.0) and _is_near(beta, 0.5)
        return same and sigmoid.inputs[0] is x
    inner, factor = _scaled(gate)
    clip = producer(inner, "Clip")
    if clip is None or not _is_near(outer * factor * 6, 1.0):
        return False
    low, top = _clip_bounds(clip)
    add = producer(clip.inputs[0], "Add")
    parts = None if add is None else _split_number(add)
    return low == 0.0 and top == 6.0 and parts is not None and parts[0] is x and _is_near(parts[1], 3.0)


def _scaled(value: ir.Value) -> tuple[ir.Value, float]:
    """Peel a multiplication or division by a number: value = tensor * factor."""
    node = value.producer()
    if node is not None and node.op_type in ("Mul", "Div"):
        found = _split_number(node)
        if found is not None and found[1] != 0:
            return found[0], found[1] if node.op_type == "Mul" else 1.0 / found[1]
    return value, 1.0


def _split_number(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(tensor, number) of an Add, Mul or Div by a constant; a Div has it second, the others on either side."""
    first, second = node.inputs
    for tensor, other in ((first, second), (second, first)):
        number = scalar_of(other)
        if number is not None and tensor is not None and _keeps_rank(tensor, other):
            return tensor, number
        if node.op_type == "Div":
            break
    return None


def _keeps_rank(tensor: ir.Value, number: ir.Value | None) -> bool:
    """Whether arithmetic with this constant leaves the tensor's rank ([1, 1, 1, 1] would raise a [N, C])."""
    rank = 0 if number is None or number.shape is None else len(number.shape)
    return rank <= 1 or (tensor.shape is not None and len(tensor.shape) >= rank)


def _clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    low = scalar_of(node.inputs[1]) if len(node.inputs) > 1 else None
    high = scalar_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return low, high


def _is_near(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= ROUNDING * max(1.0, abs(wanted))
