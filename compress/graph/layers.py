"""Operators with trained weights: ONNX node -> PyTorch module, and PyTorch module -> ONNX weights.

Each operator's two directions stand side by side, so that reading and writing cannot drift apart.
ONNX orders LSTM gates i, o, f, c and PyTorch i, f, g (= c), o; GRU gates z, r, h and r, z, n (= h).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.graph import modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported

Weights = dict[int, np.ndarray]
"""ONNX input position -> array."""
GATES_TO_TORCH = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
GATES_TO_ONNX = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}
"""The activations of each direction that PyTorch's layers (and ONNX's by default) have."""


def split_padding(at: Attributes, dims: int) -> tuple[tuple[int, ...], list[int] | None]:
    """Padding as (even padding for the layer, PyTorch-ordered uneven padding to do before it or None)."""
    mode = at.get("auto_pad", b"NOTSET")
    if mode not in (b"NOTSET", b"VALID", b""):
        raise Unsupported(f"auto_pad {mode.decode()}")
    pads = list(at.get("pads", [0] * 2 * dims)) if mode != b"VALID" else [0] * 2 * dims
    begin, end = pads[:dims], pads[dims:]
    if begin == end:
        return tuple(begin), None
    return (0,) * dims, [side for axis in reversed(range(dims)) for side in (begin[axis], end[axis])]


def _set(parameter: Tensor | None, value: Tensor) -> None:
    assert parameter is not None
    with torch.no_grad():
        parameter.copy_(value)


def _set_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    assert isinstance(layer.weight, Tensor)
    _set(layer.weight, weight)
    if bias is not None:
        assert isinstance(layer.bias, Tensor)
        _set(layer.bias, bias)


def _optional(g: Importer, node: onnx.NodeProto, position: int) -> Tensor | None:
    return g.weight(node.input[position]) if len(node.input) > position and node.input[position] else None


def _conv(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    weight, bias, groups = g.weight(node.input[1]), _optional(g, node, 2), at.get("group", 1)
    dims = weight.ndim - 2
    if dims not in (1, 2):
        raise Unsupported(f"{dims}-dimensional kernel")
    even, uneven = split_padding(at, dims)
    x = g.value(node.input[0])
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
    _set_weights(conv, weight, bias)
    return g.module(node, conv, x)


def _conv_transpose(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    weight, bias, groups = g.weight(node.input[1]), _optional(g, node, 2), at.get("group", 1)
    if weight.ndim != 4:
        raise Unsupported(f"{weight.ndim - 2}-dimensional kernel")
    even, uneven = split_padding(at, 2)
    if uneven is not None or "output_shape" in at:
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
    _set_weights(conv, weight, bias)
    return g.module(node, conv, g.value(node.input[0]))


def conv_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Weights of a convolution, transposed or not."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
    weights = {1: _numpy(module.weight)}
    if module.bias is not None:
        weights[2] = _numpy(module.bias)
    return weights


def _batch_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    if at.get("training_mode", 0):
        raise Unsupported("training_mode")
    scale, offset, mean, variance = (g.weight(name) for name in node.input[1:5])
    # On [N, C] and [N, C, L] PyTorch calls it BatchNorm1d; images are taken for granted where the rank is unknown.
    make = nn.BatchNorm1d if g.rank(node.input[0]) in (2, 3) else nn.BatchNorm2d
    # ONNX's momentum weighs the old average, PyTorch's the new batch.
    norm = make(scale.numel(), eps=at.get("epsilon", 1e-5), momentum=1.0 - at.get("momentum", 0.9))
    _set_weights(norm, scale, offset)
    _set(norm.running_mean, mean)
    _set(norm.running_var, variance)
    return g.module(node, norm, g.value(node.input[0]))


def norm_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale, offset, mean and variance of a BatchNorm."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    tensors = (module.weight, module.bias, module.running_mean, module.running_var)
    return {position: _numpy(tensor) for position, tensor in enumerate(tensors, start=1) if tensor is not None}


def _layer_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    scale, offset = g.weight(node.input[1]), _optional(g, node, 2)
    if at.get("axis", -1) != -1 or scale.ndim != 1:
        raise Unsupported("axis other than the last")
    norm = nn.LayerNorm(scale.numel(), eps=at.get("epsilon", 1e-5), bias=offset is not None)
    _set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def layer_norm_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale and offset of a LayerNorm."""
    assert isinstance(module, nn.LayerNorm)
    return {1: _numpy(module.weight)} | ({2: _numpy(module.bias)} if module.bias is not None else {})


def _linear_module(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear from weight [O, I] and bias [O]."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _set_weights(linear, weight, bias)
    return linear


def _gemm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    if at.get("transA", 0) or at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0:
        raise Unsupported("transA, alpha or beta")
    weight, bias = g.weight(node.input[1]), _optional(g, node, 2)
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
    weight = _numpy(module.weight)
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    weights = {1: weight if transposed else np.ascontiguousarray(weight.T)}
    if node.op_type == "Gemm" and module.bias is not None:
        weights[2] = _numpy(module.bias)
    return weights


def _recurrent(g: Importer, node: onnx.NodeProto, at: Attributes) -> tuple[Any, ...]:
    kind = node.op_type
    directions = {b"forward": 1, b"bidirectional": 2}.get(at.get("direction", b"forward"))
    if directions is None:
        raise Unsupported("direction reverse alone")
    _check_recurrent(node, at, directions)
    inputs, recurrent, bias = g.weight(node.input[1]), g.weight(node.input[2]), _optional(g, node, 3)
    make = nn.LSTM if kind == "LSTM" else nn.GRU
    layer = make(inputs.shape[2], recurrent.shape[2], bias=bias is not None, bidirectional=directions == 2)
    order = GATES_TO_TORCH[kind]
    for direction, suffix in enumerate(("", "_reverse")[:directions]):
        _set(getattr(layer, f"weight_ih_l0{suffix}"), _reorder(inputs[direction], order))
        _set(getattr(layer, f"weight_hh_l0{suffix}"), _reorder(recurrent[direction], order))
        if bias is not None:
            first, second = bias[direction].chunk(2)
            _set(getattr(layer, f"bias_ih_l0{suffix}"), _reorder(first, order))
            _set(getattr(layer, f"bias_hh_l0{suffix}"), _reorder(second, order))
    result = g.module(node, layer, g.value(node.input[0]))
    outputs: list[Any] = [g.call(node, modules.recurrent_output, result, directions)]
    for position in range(1, len(node.output)):
        outputs.append(g.call(node, modules.recurrent_state, result, position - 1, output=position))
    return tuple(outputs)


def _check_recurrent(node: onnx.NodeProto, at: Attributes, directions: int) -> None:
    """Raise for what PyTorch's layers do not compute."""
    activations = [name.decode().lower() for name in at.get("activations", [])]
    if activations and activations != ACTIVATIONS[node.op_type] * directions:
        raise Unsupported(f"activations {', '.join(activations)}")
    if at.get("layout", 0) or "clip" in at or at.get("input_forget", 0):
        raise Unsupported("layout, clip or input_forget")
    if node.op_type == "GRU" and not at.get("linear_before_reset", 0):
        raise Unsupported("linear_before_reset=0, which PyTorch's GRU does not compute")
    if any(node.input[4:]):
        raise Unsupported("sequence lengths, initial states or peepholes")


def _reorder(gates: Tensor, order: Sequence[int]) -> Tensor:
    """Permute the gate blocks along the first dimension."""
    blocks = gates.chunk(len(order))
    return torch.cat([blocks[index] for index in order])


def recurrent_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """W [D, gates*H, I], R [D, gates*H, H] and B [D, 2*gates*H] of an LSTM or GRU."""
    assert isinstance(module, nn.LSTM | nn.GRU)
    order = GATES_TO_ONNX[node.op_type]
    suffixes = ("", "_reverse") if module.bidirectional else ("",)

    def stacked(name: str) -> Tensor:
        return torch.stack([_reorder(getattr(module, f"{name}_l0{suffix}").detach(), order) for suffix in suffixes])

    weights = {1: _numpy(stacked("weight_ih")), 2: _numpy(stacked("weight_hh"))}
    if module.bias:
        weights[3] = _numpy(torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1))
    return weights


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


LAYERS: dict[str, Handler] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
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
}
"""Operator -> the weights of such a layer, by input position."""
