"""The operator table: how each ONNX operator of the canonical form becomes PyTorch.

A handler gets the importer, the node and its attributes, and returns the fx node(s) for the node's outputs.
Operators with weights are in `compress.graph.layers`.
"""

import operator
from collections.abc import Callable
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from compress.graph import layers, modules
from compress.graph.to_torch import Handler, Importer, Unsupported

Attributes = dict[str, Any]


def _activation(make: Callable[[Attributes], nn.Module]) -> Handler:
    return lambda g, node, at: g.module(node, make(at), g.value(node.input[0]))


def _function(function: Callable[..., Any], arity: int = 1) -> Handler:
    return lambda g, node, at: g.call(node, function, *(g.value(name) for name in node.input[:arity]))


def _fold(function: Callable[..., Any]) -> Handler:
    """A variadic operator as a chain of binary ones."""

    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        result = g.value(node.input[0])
        for name in node.input[1:]:
            result = g.call(node, function, result, g.value(name))
        return result

    return handler


def _ints(g: Importer, node: onnx.NodeProto, at: Attributes, name: str, position: int) -> list[int] | None:
    """A list of numbers that older opsets keep as an attribute and newer ones as a constant input."""
    if name in at:
        return [int(number) for number in at[name]]
    if len(node.input) <= position or not node.input[position]:
        return None
    found = g.constant(node.input[position])
    if found is None:
        raise Unsupported(f"{name} is computed at run time")
    return [int(number) for number in found.reshape(-1)]


def _clip(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    bounds = []
    for position, name in ((1, "min"), (2, "max")):
        given = len(node.input) > position and node.input[position]
        bounds.append(g.value(node.input[position]) if given else at.get(name))
    low, high = bounds
    if isinstance(low, float) and isinstance(high, float):
        made = nn.ReLU6() if (low, high) == (0.0, 6.0) else nn.Hardtanh(low, high)
        return g.module(node, made, g.value(node.input[0]))
    return g.call(node, torch.clamp, g.value(node.input[0]), *bounds)


def _softmax(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.Softmax(dim=at.get("axis", -1)), g.value(node.input[0]))


def _max_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if len(node.output) > 1 and node.output[1]:
        raise Unsupported("its indices are used")
    x, padding = _padded(g, node, at, -float("inf"))
    kernel, strides = tuple(at["kernel_shape"]), tuple(at.get("strides", [1] * len(at["kernel_shape"])))
    pool = nn.MaxPool2d(kernel, strides, padding, tuple(at.get("dilations", [1, 1])), ceil_mode=bool(at.get("ceil_mode", 0)))
    return g.module(node, pool, x)


def _average_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    include = bool(at.get("count_include_pad", 0))
    pads = at.get("pads", [0, 0, 0, 0])
    if not include and pads[:2] != pads[2:]:
        raise Unsupported("uneven padding left out of the average")
    x, padding = _padded(g, node, at, 0.0)
    kernel, strides = tuple(at["kernel_shape"]), tuple(at.get("strides", [1] * len(at["kernel_shape"])))
    pool = nn.AvgPool2d(kernel, strides, padding, ceil_mode=bool(at.get("ceil_mode", 0)), count_include_pad=include)
    return g.module(node, pool, x)


def _padded(g: Importer, node: onnx.NodeProto, at: Attributes, value: float) -> tuple[Any, tuple[int, ...]]:
    """The input and the padding PyTorch's layer takes itself; uneven padding goes in front as its own step."""
    x = g.value(node.input[0])
    even, pads = layers.split_padding(at, 2)
    if pads is not None:
        x = g.graph.call_function(modules.pad_image, (x, pads, value))
    return x, even


def _global_average_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.AdaptiveAvgPool2d(1), g.value(node.input[0]))


def _concat(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, torch.cat, [g.value(name) for name in node.input], dim=at["axis"])


def _transpose(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, torch.permute, g.value(node.input[0]), list(at["perm"]))


def _reshape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    target = g.constant(node.input[1])
    sizes = g.value(node.input[1]) if target is None else [int(size) for size in target]
    return g.call(node, modules.onnx_reshape, g.value(node.input[0]), sizes)


def _flatten(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if at.get("axis", 1) != 1:
        raise Unsupported("axis other than 1")
    return g.module(node, nn.Flatten(1), g.value(node.input[0]))


def _squeeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axes = _ints(g, node, at, "axes", 1)
    if axes is None:
        raise Unsupported("axes are not given")
    return g.call(node, torch.squeeze, g.value(node.input[0]), tuple(axes))


def _unsqueeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    result = g.value(node.input[0])
    for axis in sorted(_ints(g, node, at, "axes", 1) or []):
        result = g.call(node, torch.unsqueeze, result, axis)
    return result


def _reduce_mean(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axes = _ints(g, node, at, "axes", 1)
    return g.call(node, torch.mean, g.value(node.input[0]), dim=axes, keepdim=bool(at.get("keepdims", 1)))


def _slice(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_slice, *(g.value(name) if name else None for name in node.input))


def _gather(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    index = g.constant(node.input[1])
    if index is None or index.size != 1:
        raise Unsupported("more than one constant index")
    x, axis = g.value(node.input[0]), at.get("axis", 0)
    if index.ndim == 0:
        return g.call(node, torch.select, x, axis, int(index))
    return g.call(node, torch.narrow, x, axis, int(index[0]), 1)


def _cast(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float32, 11: torch.float32}
    if at["to"] not in kinds:
        raise Unsupported(f"to type {at['to']}")
    return g.call(node, torch.Tensor.to, g.value(node.input[0]), kinds[at["to"]])


def _split(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    sizes = _ints(g, node, at, "split", 1)
    if sizes is None:
        raise Unsupported("sizes are not given")
    parts = g.call(node, torch.split, g.value(node.input[0]), sizes, dim=at.get("axis", 0))
    return tuple(g.call(node, operator.getitem, parts, index) for index in range(len(sizes)))


def _pad(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    pads = _ints(g, node, at, "pads", 1)
    if at.get("mode", b"constant") != b"constant" or pads is None or (len(node.input) > 3 and node.input[3]):
        raise Unsupported("mode other than constant over all axes")
    half = len(pads) // 2
    order = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    fill = g.value(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    return g.call(node, modules.pad_image, g.value(node.input[0]), order, fill)


def _resize(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    mode = at.get("mode", b"nearest").decode()
    coordinates = at.get("coordinate_transformation_mode", b"half_pixel").decode()
    scales = g.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    has_sizes = len(node.input) > 3 and bool(node.input[3])
    if mode == "nearest":
        rounding = at.get("nearest_mode", b"round_prefer_floor").decode()
        whole = scales is not None and all(float(scale).is_integer() for scale in scales)
        # For whole factors the half-pixel centre rounded to the nearest source is the floor as well.
        same = coordinates == "asymmetric" and rounding == "floor"
        if not (same or (whole and coordinates == "half_pixel" and rounding == "round_prefer_floor")):
            raise Unsupported(f"nearest with {coordinates}, {rounding}")
        torch_mode, align = "nearest", None
    elif mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        torch_mode, align = "bilinear", coordinates == "align_corners"
    else:
        raise Unsupported(f"{mode} with {coordinates}")
    if scales is None and not has_sizes:
        raise Unsupported("scales computed at run time")
    factors = None if has_sizes or scales is None else [float(scale) for scale in scales]
    sizes = g.value(node.input[3]) if has_sizes else None
    return g.call(node, modules.resize, g.value(node.input[0]), factors, sizes, torch_mode, align)


def _gelu(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.GELU(approximate=at.get("approximate", b"none").decode()), g.value(node.input[0]))


OPS: dict[str, Handler] = {
    **layers.LAYERS,
    "Relu": _activation(lambda at: nn.ReLU()),
    "HardSwish": _activation(lambda at: nn.Hardswish()),
    "HardSigmoid": _activation(lambda at: modules.HardSigmoid(at.get("alpha", 0.2), at.get("beta", 0.5))),
    "Sigmoid": _activation(lambda at: nn.Sigmoid()),
    "Tanh": _activation(lambda at: nn.Tanh()),
    "LeakyRelu": _activation(lambda at: nn.LeakyReLU(at.get("alpha", 0.01))),
    "Elu": _activation(lambda at: nn.ELU(at.get("alpha", 1.0))),
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": _softmax,
    "LogSoftmax": _activation(lambda at: nn.LogSoftmax(dim=at.get("axis", -1))),
    "Add": _fold(operator.add),
    "Sub": _function(operator.sub, 2),
    "Mul": _fold(operator.mul),
    "Div": _function(operator.truediv, 2),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "Concat": _concat,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "ReduceMean": _reduce_mean,
    "Slice": _slice,
    "Gather": _gather,
    "Shape": _function(modules.shape_of),
    "Cast": _cast,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "Expand": _function(modules.onnx_expand, 2),
    "Identity": _function(torch.clone),
    "Dropout": _activation(lambda at: nn.Identity()),
    "Sqrt": _function(torch.sqrt),
    "Exp": _function(torch.exp),
    "Erf": _function(torch.erf),
    "Neg": _function(operator.neg),
    "Pow": _function(torch.pow, 2),
    "Softplus": _function(F.softplus),
}
