"""Operators with trained weights: ONNX node -> PyTorch module, and PyTorch module -> ONNX weights.

Each operator's two directions stand side by side, so that reading and writing cannot drift apart.
ONNX orders LSTM gates i, o, f, c and PyTorch i, f, g (= c), o; GRU gates z, r, h and r, z, n (= h).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.graph import modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.indexing import pad_same, same_sides
from compress.graph.recurrent_cells import ResetBeforeGRU

SAME = (b"SAME_UPPER", b"SAME_LOWER")
"""Values of auto_pad that depend on the image."""
Weights = dict[int, np.ndarray]
"""ONNX input position -> array."""
GATES_TO_TORCH = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
GATES_TO_ONNX = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
PER_CHANNEL_GROUP_NORM = 21
"""Opset since which GroupNormalization has a scale for each channel."""
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
"""The activations of each direction that PyTorch's layers (and ONNX's by default) have."""


Same = tuple[list[int], list[int], list[int], bool]
"""Kernel, strides, dilations, and whether the odd pixel goes behind: what `pad_same` takes."""


def split_padding(at: Attributes, kernel: Sequence[int]) -> tuple[tuple[int, ...], list[int] | None, Same | None]:
    """Padding as one of three: even padding for the layer, PyTorch-ordered uneven padding to do before it, or SAME.

    With stride 1 SAME is a number of pixels like any other; else it depends on the image's size.
    """
    dims = len(kernel)
    mode = at.get("auto_pad", b"NOTSET")
    strides, dilations = (list(at.get(name, [1] * dims)) for name in ("strides", "dilations"))
    pads = list(at.get("pads", [0] * 2 * dims))
    if mode in SAME:
        upper = mode == b"SAME_UPPER"
        if set(strides) != {1}:
            return (0,) * dims, None, (list(kernel), strides, dilations, upper)
        sides = [same_sides(0, size, 1, step, upper) for size, step in zip(kernel, dilations, strict=True)]
        pads = [begin for begin, _ in sides] + [end for _, end in sides]
    elif mode == b"VALID":
        pads = [0] * 2 * dims
    elif mode not in (b"NOTSET", b""):
        raise Unsupported(f"auto_pad {mode.decode()}")
    begin, end = pads[:dims], pads[dims:]
    if begin == end:
        return tuple(begin), None, None
    return (0,) * dims, [side for axis in reversed(range(dims)) for side in (begin[axis], end[axis])], None


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
    _set_weights(conv, weight, bias)
    return g.module(node, conv, x)


def _conv_transpose(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    weight, bias, groups = g.weight(node.input[1]), _optional(g, node, 2), at.get("group", 1)
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
    axis, rank = at.get("axis", -1), g.rank(node.input[0])
    normalised = -axis if axis < 0 else (rank or 0) - axis
    if len([name for name in node.output if name]) > 1 or scale.ndim != normalised:
        raise Unsupported("several outputs, or a scale that does not have the shape of what is normalised")
    norm = nn.LayerNorm(tuple(scale.shape), eps=at.get("epsilon", 1e-5), bias=offset is not None)
    _set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def _instance_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    scale, offset = g.weight(node.input[1]), g.weight(node.input[2])
    make = nn.InstanceNorm1d if g.rank(node.input[0]) == 3 else nn.InstanceNorm2d
    norm = make(scale.numel(), eps=at.get("epsilon", 1e-5), affine=True)
    _set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def _group_norm(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    scale, offset = g.weight(node.input[1]), g.weight(node.input[2])
    if g.opset < PER_CHANNEL_GROUP_NORM and scale.numel() != 1:
        raise Unsupported(f"one scale for each group, as before opset {PER_CHANNEL_GROUP_NORM}")
    norm = nn.GroupNorm(at["num_groups"], scale.numel(), eps=at.get("epsilon", 1e-5))
    _set_weights(norm, scale, offset)
    return g.module(node, norm, g.value(node.input[0]))


def affine_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """Scale and offset of a normalisation without statistics."""
    assert isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.GroupNorm)
    return {1: _numpy(module.weight), 2: _numpy(module.bias)}


def prelu(g: Importer, node: onnx.NodeProto, at: Attributes) -> fx.Node:
    """A slope for each channel, or one for all, is a PReLU; any other shape is spelled out."""
    slope = g.weight(node.input[1])
    x, rank = g.value(node.input[0]), g.rank(node.input[0])
    per_channel = rank is not None and slope.ndim >= rank - 1 >= 1 and slope.numel() == slope.shape[1 - rank]
    if not per_channel and slope.numel() > 1:
        return g.call(node, modules.leaky, x, g.value(node.input[1]))
    layer = nn.PReLU(slope.numel())
    _set(layer.weight, slope.reshape(-1))
    layer.onnx_rank = slope.ndim  # type: ignore[assignment]
    return g.module(node, layer, x)


def prelu_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """The slopes, [C, 1, 1] behind as many dimensions as they had."""
    assert isinstance(module, nn.PReLU)
    slope, rank = _numpy(module.weight), int(module.onnx_rank)  # type: ignore[arg-type]
    shape = [1] * rank
    if slope.size > 1 or rank:
        shape[_channel_axis(rank)] = slope.size
    return {1: slope.reshape(shape)}


def _channel_axis(rank: int) -> int:
    """Where the channels are in a slope: [C], [C, 1], [C, 1, 1] or [1, C, 1, 1]."""
    return 1 if rank == 4 else 0


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
    if g.constant(node.input[1]) is None:
        options = {name: at[name] for name in ("alpha", "beta", "transA", "transB") if name in at}
        return g.call(node, modules.onnx_gemm, *(g.value(name) for name in node.input if name), **options)
    if at.get("transA", 0):
        raise Unsupported("transA, with a weight")
    weight, bias = g.weight(node.input[1]), _optional(g, node, 2)
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
    weight = _numpy(module.weight)
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    weights = {1: weight if transposed else np.ascontiguousarray(weight.T)}
    if node.op_type == "Gemm" and module.bias is not None:
        weights[2] = _numpy(module.bias)
    return weights


def _recurrent(g: Importer, node: onnx.NodeProto, at: Attributes) -> tuple[Any, ...]:
    kind = node.op_type
    direction = at.get("direction", b"forward")
    directions = 2 if direction == b"bidirectional" else 1
    _check_recurrent(node, at, directions)
    inputs, recurrent, bias = g.weight(node.input[1]), g.weight(node.input[2]), _optional(g, node, 3)
    make = _recurrent_kind(kind, at)
    layer = make(inputs.shape[2], recurrent.shape[2], bias=bias is not None, bidirectional=directions == 2)
    order = GATES_TO_TORCH[kind]
    for place, suffix in enumerate(("", "_reverse")[:directions]):
        _set(getattr(layer, f"weight_ih_l0{suffix}"), _reorder(inputs[place], order))
        _set(getattr(layer, f"weight_hh_l0{suffix}"), _reorder(recurrent[place], order))
        if bias is not None:
            first, second = bias[place].chunk(2)
            _set(getattr(layer, f"bias_ih_l0{suffix}"), _reorder(first, order))
            _set(getattr(layer, f"bias_hh_l0{suffix}"), _reorder(second, order))
    backwards = direction == b"reverse"  # a forward layer of the steps from the last to the first
    x = g.value(node.input[0])
    result = g.module(node, layer, g.graph.call_function(torch.flip, (x, [0])) if backwards else x)
    output = g.call(node, modules.recurrent_output, result, directions)
    outputs: list[Any] = [g.call(node, torch.flip, output, [0]) if backwards else output]
    for position in range(1, len(node.output)):
        outputs.append(g.call(node, modules.recurrent_state, result, position - 1, output=position))
    return tuple(outputs)


def _recurrent_kind(kind: str, at: Attributes) -> Callable[..., nn.RNNBase]:
    """What makes the PyTorch layer."""
    if kind == "RNN":
        names = [name.decode().lower() for name in at.get("activations", [b"tanh"])]
        return functools.partial(nn.RNN, nonlinearity=names[0])
    if kind == "GRU":
        return nn.GRU if at.get("linear_before_reset", 0) else ResetBeforeGRU
    return nn.LSTM


def _check_recurrent(node: onnx.NodeProto, at: Attributes, directions: int) -> None:
    """Raise for what PyTorch's layers do not compute."""
    activations = [name.decode().lower() for name in at.get("activations", [])]
    known = [ACTIVATIONS[node.op_type], ["relu"]] if node.op_type == "RNN" else [ACTIVATIONS[node.op_type]]
    if activations and activations not in [names * directions for names in known]:
        raise Unsupported(f"activations {', '.join(activations)}")
    if at.get("layout", 0) or "clip" in at or at.get("input_forget", 0):
        raise Unsupported("layout, clip or input_forget")
    if any(node.input[4:]):
        raise Unsupported("sequence lengths, initial states or peepholes")


def _reorder(gates: Tensor, order: Sequence[int]) -> Tensor:
    """Permute the gate blocks along the first dimension."""
    blocks = gates.chunk(len(order))
    return torch.cat([blocks[index] for index in order])


def recurrent_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """W [D, gates*H, I], R [D, gates*H, H] and B [D, 2*gates*H] of an LSTM, GRU or RNN."""
    assert isinstance(module, nn.LSTM | nn.GRU | nn.RNN)
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
    "RNN": _recurrent,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
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
