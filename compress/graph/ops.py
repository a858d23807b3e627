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
from compress.graph.element_types import type_name
from compress.graph.importer import Attributes, Handler, Importer, Unsupported

Pair = tuple[int, int]


def _activation(make: Callable[[Attributes], nn.Module]) -> Handler:
    return lambda g, node, at: g.module(node, make(at), g.value(node.input[0]))


def _function(function: Callable[..., Any]) -> Handler:
    return lambda g, node, at: g.call(node, function, g.value(node.input[0]))


def _arithmetic(function: Callable[..., Any]) -> Handler:
    return lambda g, node, at: g.call(node, function, g.operand(node.input[0]), g.operand(node.input[1]))


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
    low, high = (
        g.operand(node.input[position]) if len(node.input) > position and node.input[position] else None
        for position in (1, 2)
    )
    if isinstance(low, float) and isinstance(high, float):
        made = nn.ReLU6() if (low, high) == (0.0, 6.0) else nn.Hardtanh(low, high)
        return g.module(node, made, g.value(node.input[0]))
    return g.call(node, torch.clamp, g.value(node.input[0]), low, high)


def _softmax(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.Softmax(dim=at.get("axis", -1)), g.value(node.input[0]))


def _max_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if len(node.output) > 1 and node.output[1]:
        raise Unsupported("its indices are used")
    x, kernel, stride, padding = _window(g, node, at, -float("inf"))
    dilation = tuple(at.get("dilations", [1, 1]))
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=bool(at.get("ceil_mode", 0)))
    return g.module(node, pool, x)


def _average_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    include = bool(at.get("count_include_pad", 0))
    pads = at.get("pads", [0, 0, 0, 0])
    if not include and pads[:2] != pads[2:]:
        raise Unsupported("uneven padding left out of the average")
    if any(step != 1 for step in at.get("dilations", [1, 1])):
        raise Unsupported("dilations")
    x, kernel, stride, padding = _window(g, node, at, 0.0)
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=bool(at.get("ceil_mode", 0)), count_include_pad=include)
    return g.module(node, pool, x)


def _window(g: Importer, node: onnx.NodeProto, at: Attributes, fill: float) -> tuple[Any, Pair, Pair, Pair]:
    """A pooling layer's input, kernel, stride and padding; uneven padding goes in front as its own step."""
    if len(at["kernel_shape"]) != 2:
        raise Unsupported(f"{len(at['kernel_shape'])}-dimensional kernel")
    x = g.value(node.input[0])
    even, uneven = layers.split_padding(at, 2)
    if uneven is not None:
        x = g.graph.call_function(modules.pad_image, (x, uneven, fill))
    height, width = at["kernel_shape"]
    if 2 * even[0] > height or 2 * even[1] > width:
        raise Unsupported("padding of more than half the kernel")
    down, right = at.get("strides", [1, 1])
    return x, (height, width), (down, right), (even[0], even[1])


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
    which = () if axes is None else (tuple(axes),)  # without axes: every dimension of size 1, in both libraries
    return g.call(node, torch.squeeze, g.value(node.input[0]), *which)


def _unsqueeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_unsqueeze, g.value(node.input[0]), _ints(g, node, at, "axes", 1) or [])


def _reduce_mean(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axes = _ints(g, node, at, "axes", 1)
    if not axes and at.get("noop_with_empty_axes", 0):
        raise Unsupported("noop_with_empty_axes")
    return g.call(node, torch.mean, g.value(node.input[0]), dim=axes or None, keepdim=bool(at.get("keepdims", 1)))


def _slice(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    steps = g.constant(node.input[4]) if len(node.input) > 4 and node.input[4] else None
    if steps is not None and (steps < 1).any():
        raise Unsupported("negative steps")
    return g.call(node, modules.onnx_slice, *(g.value(name) if name else None for name in node.input))


def _gather(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    index = g.constant(node.input[1])
    if index is None or index.size != 1 or index.ndim > 1:
        raise Unsupported("other than one constant index")
    x, axis = g.value(node.input[0]), at.get("axis", 0)
    if index.ndim == 0:
        return g.call(node, torch.select, x, axis, int(index))
    return g.call(node, torch.narrow, x, axis, int(index[0]), 1)


def _shape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.shape_of, g.value(node.input[0]), at.get("start", 0), at.get("end"))


def _cast(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    # Float64 appears in the arithmetic of sizes alone, where float32 is as good.
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float32}
    if at["to"] not in kinds:
        raise Unsupported(f"to {type_name(at['to'])}")
    return g.call(node, torch.Tensor.to, g.value(node.input[0]), kinds[at["to"]])


def _split(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    sizes = _ints(g, node, at, "split", 1)
    count = len(node.output)
    if sizes is None:  # equal parts, the last one smaller if need be
        parts = g.call(node, torch.chunk, g.value(node.input[0]), count, dim=at.get("axis", 0))
    else:
        parts = g.call(node, torch.split, g.value(node.input[0]), sizes, dim=at.get("axis", 0))
    return tuple(g.call(node, operator.getitem, parts, index, output=index) for index in range(count))


def _pad(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    pads = _ints(g, node, at, "pads", 1)
    if at.get("mode", b"constant") != b"constant" or pads is None or (len(node.input) > 3 and node.input[3]):
        raise Unsupported("mode other than constant over all axes")
    half = len(pads) // 2
    order = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    fill = g.operand(node.input[2]) if len(node.input) > 2 and node.input[2] else 0.0
    if not isinstance(fill, float):
        raise Unsupported("a fill that is not one constant number")
    return g.call(node, modules.pad_image, g.value(node.input[0]), order, fill)


def _resize(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    stretched = at.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    if at.get("axes", [2, 3]) != [2, 3] or at.get("antialias", 0) or not stretched:
        raise Unsupported("axes, antialias or keep_aspect_ratio_policy")
    x = g.value(node.input[0])
    if len(node.input) > 3 and node.input[3]:
        return g.call(node, modules.resize_to, x, g.value(node.input[3]), *_resize_mode(at, None))
    scales = g.constant(node.input[2])
    if scales is None:
        raise Unsupported("scales computed at run time")
    if "axes" not in at:
        if scales.size != 4 or (scales[:2] != 1).any():
            raise Unsupported(f"scales {scales.tolist()}")
        scales = scales[2:]
    factors = [float(scale) for scale in scales]
    return g.call(node, modules.resize_by, x, factors, *_resize_mode(at, factors))


def _resize_mode(at: Attributes, factors: list[float] | None) -> tuple[str, bool | None]:
    """PyTorch's mode and align_corners; `factors` where they are fixed."""
    mode = at.get("mode", b"nearest").decode()
    coordinates = at.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return "bilinear", coordinates == "align_corners"
    if mode != "nearest":
        raise Unsupported(f"{mode} with {coordinates}")
    rounding = at.get("nearest_mode", b"round_prefer_floor").decode()
    whole = factors is not None and all(factor.is_integer() for factor in factors)
    doubled = factors is not None and set(factors) <= {1.0, 2.0}
    same = (
        (coordinates == "asymmetric" and rounding == "floor")
        # The centre of a whole factor's pixel, rounded to the nearest source, is the floor as well (and never a tie).
        or (whole and coordinates == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil"))
        or (doubled and coordinates == "asymmetric" and rounding == "round_prefer_floor")
    )
    if not same:
        raise Unsupported(f"nearest with {coordinates}, {rounding}")
    return "nearest", None


def _depth_to_space(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    mode = at.get("mode", b"DCR").decode()
    return g.call(node, modules.depth_to_space, g.value(node.input[0]), int(at["blocksize"]), mode)


def _expand(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_expand, g.value(node.input[0]), g.value(node.input[1]))


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
    "Add": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
    "Mul": _arithmetic(operator.mul),
    "Div": _arithmetic(modules.onnx_div),
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
    "Shape": _shape,
    "Cast": _cast,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Identity": _function(torch.clone),
    "Dropout": _activation(lambda at: nn.Identity()),
    "Sqrt": _function(torch.sqrt),
    "Exp": _function(torch.exp),
    "Erf": _function(torch.erf),
    "Neg": _function(operator.neg),
    "Pow": _arithmetic(torch.pow),
    "Softplus": _function(F.softplus),
}
