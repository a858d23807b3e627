"""Passes on the canonical graph that must come before quantisation, so that QAT trains what the file computes.

Each is exact in real arithmetic; in float32 the outputs agree to rounding.
"""

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.graph.rules import array_of, attribute, constant, insert_and_replace


def lower_for_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold every BatchNorm into its convolution and every hard-sigmoid's slope into the convolution before it."""
    graph_model = ir.from_proto(model)
    for node in list(graph_model.graph):
        fold_batch_norm(graph_model.graph, node)
    for node in list(graph_model.graph):
        fold_hard_sigmoid(graph_model.graph, node)
    common.RemoveUnusedNodesPass()(graph_model)
    for node in graph_model.graph:
        node.name = node.outputs[0].name
    lowered = ir.to_proto(graph_model)
    del lowered.graph.value_info[:]
    return lowered


def fold_batch_norm(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv or ConvTranspose -> BatchNormalization becomes one convolution: w * s, b * s + o - m * s, s = scale/sqrt(v + eps)."""
    if node.op_type != "BatchNormalization" or node.inputs[0] is None:
        return False
    conv = node.inputs[0].producer()
    if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or len(conv.outputs[0].uses()) != 1 or conv.outputs[0].is_graph_output():
        return False
    scale, offset, mean, variance = (array_of(value) for value in node.inputs[1:5])
    weight = array_of(conv.inputs[1])
    if scale is None or offset is None or mean is None or variance is None or weight is None:
        return False
    epsilon = float(attribute(node, "epsilon", 1e-5))  # type: ignore[arg-type]
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    old = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    bias = (0.0 if old is None else old) * factor + offset - mean * factor
    if conv.op_type == "Conv":
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # [I, O / groups, ...]: the factor of output channel g * (O / groups) + o
        groups = int(attribute(conv, "group", 1))  # type: ignore[call-overload]
        per_input = factor.reshape(groups, 1, -1).repeat(weight.shape[0] // groups, axis=1).reshape(weight.shape[0], -1)
        scaled = weight * per_input.reshape(*per_input.shape, *[1] * (weight.ndim - 2))
    _replace_conv(graph, conv, node, scaled, bias)
    return True


def fold_hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv -> HardSigmoid(alpha, beta) becomes Conv(alpha * w, alpha * b + beta) -> Clip(0, 1), which saturation computes."""
    if node.op_type != "HardSigmoid" or node.inputs[0] is None:
        return False
    conv = node.inputs[0].producer()
    if conv is None or conv.op_type != "Conv" or len(conv.outputs[0].uses()) != 1 or conv.outputs[0].is_graph_output():
        return False
    weight = array_of(conv.inputs[1])
    if weight is None:
        return False
    alpha, beta = float(attribute(node, "alpha", 0.2)), float(attribute(node, "beta", 0.5))  # type: ignore[arg-type]
    old = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    bias = alpha * (np.zeros(weight.shape[0]) if old is None else old) + beta
    moved = _replace_conv(graph, conv, conv, alpha * weight.astype(np.float64), bias)
    low, high = (constant(graph, f"{node.outputs[0].name}.{name}", np.float32(value)[()] * np.ones((), np.float32)) for name, value in (("low", 0), ("high", 1)))
    insert_and_replace(graph, node, "Clip", [moved, low, high])
    return True


def _replace_conv(graph: ir.Graph, conv: ir.Node, replaced: ir.Node, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """A convolution with other weights, in the place of `replaced` (itself, or the node that reads it)."""
    weight_value, bias_value = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    assert weight_value is not None
    new_weight = constant(graph, f"{weight_value.name}.folded", weight.astype(np.float32))
    bias_name = f"{conv.outputs[0].name}.bias" if bias_value is None else f"{bias_value.name}.folded"
    new_bias = constant(graph, bias_name, bias.astype(np.float32))
    attributes = {name: found.value for name, found in conv.attributes.items()}
    name = replaced.outputs[0].name
    insert_and_replace(graph, replaced, conv.op_type, [conv.inputs[0], new_weight, new_bias], **attributes)
    if conv is not replaced:
        graph.remove(conv, safe=True)
    made = next(node.outputs[0] for node in graph if node.outputs and node.outputs[0].name == name)
    return made
