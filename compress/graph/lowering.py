"""Passes on the canonical graph that must come before quantisation, so that QAT trains what the file computes.

Each is exact in real arithmetic; in float32 the outputs agree to rounding.
"""

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.graph.edit import array_of, attribute, constant, is_inner, replace_node
from compress.graph.resampling import resample_late


def lower_for_int8(model: onnx.ModelProto, *, resample: bool = True) -> onnx.ModelProto:
    """Fold every BatchNorm into its convolution and every hard-sigmoid's slope into the convolution before it.

    Args:
        model: in canonical form.
        resample: also compute at low resolution what is upsampled (see `compress.graph.resampling`): fewer
            multiply-adds and a faster file for a few more bytes of weights.
    """
    graph_model = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    for node in list(graph_model.graph):
        fold_batch_norm(graph_model.graph, node)
    for node in list(graph_model.graph):
        fold_hard_sigmoid(graph_model.graph, node)
    if resample:
        resample_late(graph_model)
    common.RemoveUnusedNodesPass()(graph_model)
    for node in graph_model.graph:
        node.name = node.outputs[0].name
    lowered = ir.to_proto(graph_model)
    del lowered.graph.value_info[:]
    return lowered


def fold_batch_norm(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv or ConvTranspose -> BatchNormalization becomes one convolution.

    w' = w * s and b' = (b - mean) * s + offset, with s = scale / sqrt(variance + epsilon) per output channel.
    """
    if node.op_type != "BatchNormalization":
        return False
    conv = _convolution_before(node, ("Conv", "ConvTranspose"))
    scale, offset, mean, variance = (array_of(value) for value in node.inputs[1:5])
    if conv is None or scale is None or offset is None or mean is None or variance is None:
        return False
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    weight, bias = _weights_of(conv)
    if conv.op_type == "Conv":
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # [I, O / groups, ...]: the factor of output channel g * (O / groups) + o
        groups = int(attribute(conv, "group", 1))
        per_input = factor.reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)
        scaled = weight * per_input.reshape(*per_input.shape, *[1] * (weight.ndim - 2))
    _replace_conv(graph, conv, node, scaled, (bias - mean) * factor + offset)
    graph.remove(conv, safe=True)
    return True


def fold_hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv -> HardSigmoid(alpha, beta) becomes Conv(alpha * w, alpha * b + beta) -> Clip(0, 1).

    The clip costs nothing in integers: saturation computes it.
    """
    if node.op_type != "HardSigmoid":
        return False
    conv = _convolution_before(node, ("Conv",))
    if conv is None:
        return False
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    weight, bias = _weights_of(conv)
    moved = _replace_conv(graph, conv, conv, alpha * weight, alpha * bias + beta)
    low = constant(graph, f"{node.outputs[0].name}.low", np.array(0.0, np.float32))
    high = constant(graph, f"{node.outputs[0].name}.high", np.array(1.0, np.float32))
    replace_node(graph, node, "Clip", [moved, low, high])
    return True


def _convolution_before(node: ir.Node, op_types: tuple[str, ...]) -> ir.Node | None:
    """The convolution with constant weights that computes a node's input for it alone."""
    value = node.inputs[0]
    conv = None if value is None else value.producer()
    if value is None or conv is None or conv.op_type not in op_types or not is_inner(value):
        return None
    parameters = [parameter for parameter in conv.inputs[1:] if parameter is not None]
    return conv if all(array_of(parameter) is not None for parameter in parameters) else None


def _weights_of(conv: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias (zero where there is none), in float64."""
    weight = array_of(conv.inputs[1])
    bias = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    assert weight is not None
    return weight.astype(np.float64), np.zeros(1) if bias is None else bias.astype(np.float64)


def _replace_conv(graph: ir.Graph, conv: ir.Node, old: ir.Node, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """Put the convolution, with other weights, in the place of `old` (itself, or the node that reads it)."""
    given = conv.inputs[2] if len(conv.inputs) > 2 else None
    weight_name = f"{conv.inputs[1].name}.folded" if conv.inputs[1] is not None else ""
    bias_name = f"{conv.outputs[0].name}.bias" if given is None else f"{given.name}.folded"
    channels = weight.shape[0] if conv.op_type == "Conv" else weight.shape[1] * int(attribute(conv, "group", 1))
    new_weight = constant(graph, weight_name, weight.astype(np.float32))
    new_bias = constant(graph, bias_name, np.broadcast_to(bias, (channels,)).astype(np.float32))
    attributes = {name: found.value for name, found in conv.attributes.items()}
    return replace_node(graph, old, conv.op_type, [conv.inputs[0], new_weight, new_bias], **attributes)
