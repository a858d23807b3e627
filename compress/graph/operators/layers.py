"""Operators with trained weights: ONNX node -> PyTorch module, and PyTorch module -> ONNX weights.

Each operator's two directions stand side by side, so that reading and writing cannot drift apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.graph import modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.indexing import pad_same
from compress.graph.operators.auto_pad import split_padding
from compress.graph.operators.norms import (
    affine_weights,
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    layer_norm_weights,
    norm_weights,
)
from compress.graph.operators.recurrent import recurrent_layer, recurrent_weights
from compress.graph.operators.weights import Weights, as_array, optional_weight, set_tensor, set_weights


def _conv(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    weight, bias, groups = g.weight(node.input[1]), optional_weight(g, node, 2), at.get("group", 1)
    dims = weight.ndim - 2
    if dims not in (1, 2):
        raise Unsupported(f"{dims}-dimensional kernel")
    even, uneven, same = split_padding(at, weight.shape[2:])
    x = g.value(node.input[0])
    if same is not None:
        x = g.graph.call_function(pad_same, (x, *same))
    if uneven is not None:
        x = g.graph.call_function(modules.pad_image, (x, uneven))
    make: Any = nn.Conv2d if dims == 2 else nn.Conv1d
    conv = make(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(at.get("strides", [1] * dims)),
        padding=even,
        dilation=tuple(at.get("dilations", [1] * dims)),
        groups=groups,
        bias=bias is not None,
    )
    set_weights(conv, weight, bias)
    return g.module(node, conv, x)


def _conv_transpose(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    weight, bias, groups = g.weight(node.input[1]), optional_weight(g, node, 2), at.get("group", 1)
    if weight.ndim != 4:
        raise Unsupported(f"{weight.ndim - 2}-dimensional kernel")
    even, uneven, same = split_padding(at, weight.shape[2:])
    if uneven is not None or same is not None or "output_shape" in at:
        raise Unsupported("uneven padding or output_shape")
    conv = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * groups,
        (weight.shape[2], weight.shape[3]),
        stride=tuple(at.get("strides", [1, 1])),
        padding=(even[0], even[1]),
        output_padding=tuple(at.get("output_padding", [0, 0])),
        groups=groups,
        bias=bias is not None,
        dilation=tuple(at.get("dilations", [1, 1])),
    )
    set_weights(conv, weight, bias)
    return g.module(node, conv, g.value(node.input[0]))


def conv_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Weights of a convolution, transposed or not."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
    weights = {1: as_array(module.weight)}
    if module.bias is not None:
        weights[2] = as_array(module.bias)
    return weights


def prelu(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A slope for each channel, or one for all, is a PReLU; any other shape is spelled out."""
    slope = g.weight(node.input[1])
    x, rank = g.value(node.input[0]), g.rank(node.input[0])
    per_channel = rank is not None and slope.ndim >= rank - 1 >= 1 and slope.numel() == slope.shape[1 - rank]
    if not per_channel and slope.numel() > 1:
        return g.call(node, modules.leaky, x, g.value(node.input[1]))
    layer = nn.PReLU(slope.numel())
    set_tensor(layer.weight, slope.reshape(-1))
    layer.onnx_rank = slope.ndim  # type: ignore[assignment]
    return g.module(node, layer, x)


def prelu_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """The slopes, [C, 1, 1] behind as many dimensions as they had."""
    assert isinstance(module, nn.PReLU)
    slope, rank = as_array(module.weight), int(module.onnx_rank)  # type: ignore[arg-type]
    shape = [1] * rank
    if slope.size > 1 or rank:
        shape[_channel_axis(rank)] = slope.size
    return {1: slope.reshape(shape)}


def _channel_axis(rank: int) -> int:
    """Where the channels are in a slope: [C], [C, 1], [C, 1, 1] or [1, C, 1, 1]."""
    return 1 if rank == 4 else 0


def _linear_module(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear from weight [O, I] and bias [O]."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    set_weights(linear, weight, bias)
    return linear


def _gemm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    if g.constant(node.input[1]) is None:
        options = {name: at[name] for name in ("alpha", "beta", "transA", "transB") if name in at}
        return g.call(node, modules.onnx_gemm, *(g.value(name) for name in node.input if name), **options)
    if at.get("transA", 0):
        raise Unsupported("transA, with a weight")
    weight, bias = g.weight(node.input[1]), optional_weight(g, node, 2)
    weight = weight * at["alpha"] if at.get("alpha", 1.0) != 1.0 else weight  # written back with factors of 1
    bias = bias * at["beta"] if bias is not None and at.get("beta", 1.0) != 1.0 else bias
    weight = weight if at.get("transB", 0) else weight.T
    if bias is not None:
        if bias.numel() not in (1, weight.shape[0]):
            raise Unsupported(f"bias of shape {list(bias.shape)}")
        bias = bias.reshape(-1).expand(weight.shape[0])
    return g.module(node, _linear_module(weight, bias), g.value(node.input[0]))


def _matmul(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A constant matrix as second operand is a Linear, which takes in the Add of its bias; else a plain product."""
    matrix = g.constant(node.input[1])
    if matrix is None or matrix.ndim != 2:
        return g.call(node, torch.matmul, g.value(node.input[0]), g.value(node.input[1]))
    weight = g.weight(node.input[1]).T
    add = bias_node(g.readers.get(node.output[0], []), node, g.constants, g.outputs)
    if add is None:
        return g.module(node, _linear_module(weight, None), g.value(node.input[0]))
    bias = g.weight(bias_input(add, node))
    made = g.module(node, _linear_module(weight, bias), g.value(node.input[0]))
    made.meta["value"] = add.output[0]  # what is computed; meta["onnx"] stays the product, which holds the weight
    g.values[add.output[0]] = made
    g.taken_in.add(add.output[0])
    return made


def bias_node(
    readers: Sequence[onnx.NodeProto], node: onnx.NodeProto, constants: dict[str, np.ndarray], outputs: set[str]
) -> onnx.NodeProto | None:
    """The Add of a constant bias [O] that alone reads a MatMul, or None."""
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in outputs:
        return None
    weight, bias = constants[node.input[1]], constants.get(bias_input(readers[0], node))
    return readers[0] if bias is not None and bias.shape == (weight.shape[1],) else None


def bias_input(add: onnx.NodeProto, matmul: onnx.NodeProto) -> str:
    """The operand of an Add that is not the product."""
    return str(add.input[1] if add.input[0] == matmul.output[0] else add.input[0])


def linear_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Weight (and for Gemm the bias) of a Linear."""
    assert isinstance(module, nn.Linear)
    weight = as_array(module.weight)
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    weights = {1: weight if transposed else np.ascontiguousarray(weight.T)}
    if node.op_type == "Gemm" and module.bias is not None:
        weights[2] = as_array(module.bias)
    return weights


LAYERS: dict[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": recurrent_layer,
    "GRU": recurrent_layer,
    "RNN": recurrent_layer,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "PRelu": prelu,
}
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "Conv": (nn.Conv1d, nn.Conv2d),
    "ConvTranspose": (nn.ConvTranspose2d,),
    "BatchNormalization": (nn.BatchNorm1d, nn.BatchNorm2d),
    "LayerNormalization": (nn.LayerNorm,),
    "Gemm": (nn.Linear,),
    "MatMul": (nn.Linear,),
    "LSTM": (nn.LSTM,),
    "GRU": (nn.GRU,),
    "RNN": (nn.RNN,),
    "InstanceNormalization": (nn.InstanceNorm1d, nn.InstanceNorm2d),
    "GroupNormalization": (nn.GroupNorm,),
    "PRelu": (nn.PReLU,),
}
"""Operator -> the PyTorch layers it is imported as."""
WRITERS = {
    "Conv": conv_weights,
    "ConvTranspose": conv_weights,
    "BatchNormalization": norm_weights,
    "LayerNormalization": layer_norm_weights,
    "Gemm": linear_weights,
    "MatMul": linear_weights,
    "LSTM": recurrent_weights,
    "GRU": recurrent_weights,
    "RNN": recurrent_weights,
    "InstanceNormalization": affine_weights,
    "GroupNormalization": affine_weights,
    "PRelu": prelu_weights,
}
"""Operator -> the weights of such a layer, by input position."""
