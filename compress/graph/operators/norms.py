"""Normalisations: ONNX node -> PyTorch layer, and PyTorch layer -> ONNX weights."""

import onnx
from torch import fx, nn

from compress.graph.importer import Attributes, Importer, Unsupported
from compress.graph.operators.weights import Weights, as_array, optional_weight, set_tensor, set_weights

PER_CHANNEL_GROUP_NORM = 21
"""Opset since which GroupNormalization has a scale for each channel."""


def batch_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A BatchNorm with its running statistics."""
    if at.get("training_mode", 0):
        raise Unsupported("training_mode")
    scale, offset, mean, variance = (g.weight(name) for name in node.input[1:5])
    # On [N, C] and [N, C, L] PyTorch calls it BatchNorm1d; images are taken for granted where the rank is unknown.
    make = nn.BatchNorm1d if g.rank(node.input[0]) in (2, 3) else nn.BatchNorm2d
    # ONNX's momentum weighs the old average, PyTorch's the new batch.
    norm = make(scale.numel(), eps=at.get("epsilon", 1e-5), momentum=1.0 - at.get("momentum", 0.9))
    set_weights(norm, scale, offset)
    set_tensor(norm.running_mean, mean)
    set_tensor(norm.running_var, variance)
    return g.module(node, norm, g.value(node.input[0]))


def norm_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale, offset, mean and variance of a BatchNorm."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    tensors = (module.weight, module.bias, module.running_mean, module.running_var)
    return {position: as_array(tensor) for position, tensor in enumerate(tensors, start=1) if tensor is not None}


def layer_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A LayerNorm over the last dimensions."""
    scale, offset = g.weight(node.input[1]), optional_weight(g, node, 2)
    axis, rank = at.get("axis", -1), g.rank(node.input[0])
    normalised = -axis if axis < 0 else (rank or 0) - axis
    if len([name for name in node.output if name]) > 1 or scale.ndim != normalised:
        raise Unsupported("several outputs, or a scale that does not have the shape of what is normalised")
    norm = nn.LayerNorm(tuple(scale.shape), eps=at.get("epsilon", 1e-5), bias=offset is not None)
    set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def instance_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """An InstanceNorm with scale and offset."""
    scale, offset = g.weight(node.input[1]), g.weight(node.input[2])
    make = nn.InstanceNorm1d if g.rank(node.input[0]) == 3 else nn.InstanceNorm2d
    norm = make(scale.numel(), eps=at.get("epsilon", 1e-5), affine=True)
    set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def group_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A GroupNorm with a scale and an offset for each channel."""
    scale, offset = g.weight(node.input[1]), g.weight(node.input[2])
    if g.opset < PER_CHANNEL_GROUP_NORM and scale.numel() != 1:
        raise Unsupported(f"one scale for each group, as before opset {PER_CHANNEL_GROUP_NORM}")
    norm = nn.GroupNorm(at["num_groups"], scale.numel(), eps=at.get("epsilon", 1e-5))
    set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def affine_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale and offset of a normalisation without statistics."""
    assert isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.GroupNorm)
    return {1: as_array(module.weight), 2: as_array(module.bias)}


def layer_norm_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale and offset of a LayerNorm."""
    assert isinstance(module, nn.LayerNorm)
    return {1: as_array(module.weight)} | ({2: as_array(module.bias)} if module.bias is not None else {})
