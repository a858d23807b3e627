"""The operator table: how each ONNX operator of the canonical form becomes PyTorch.

A handler gets the importer, the node and its attributes, and returns the fx node(s) for the node's outputs.
Operators with weights are in `compress.graph.layers`.
"""

import operator
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn

from compress.graph import elementwise, indexing, interpolation, layers, modules
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
    if any(step != 1 for step in at.get("dilations", [1, 1])):
        raise Unsupported("dilations")
    same = at.get("auto_pad", b"NOTSET") in layers.SAME
    if not include and (same or pads[:2] != pads[2:]):
        if len(at["kernel_shape"]) != 2 or at.get("ceil_mode", 0):
            raise Unsupported("uneven padding left out of the average, with ceil_mode or other than two dimensions")
        strides, upper = at.get("strides", [1, 1]), at.get("auto_pad") == b"SAME_UPPER"
        given = (list(at["kernel_shape"]), list(strides), None if same else list(pads), upper)
        return g.call(node, indexing.average_valid, g.value(node.input[0]), *given)
    x, kernel, stride, padding = _window(g, node, at, 0.0)
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=bool(at.get("ceil_mode", 0)), count_include_pad=include)
    return g.module(node, pool, x)


def _window(g: Importer, node: onnx.NodeProto, at: Attributes, fill: float) -> tuple[Any, Pair, Pair, Pair]:
    """A pooling layer's input, kernel, stride and padding; uneven padding goes in front as its own step."""
    if len(at["kernel_shape"]) != 2:
        raise Unsupported(f"{len(at['kernel_shape'])}-dimensional kernel")
    x = g.value(node.input[0])
    height, width = at["kernel_shape"]
    down, right = at.get("strides", [1, 1])
    even, uneven, same = layers.split_padding(at, (height, width))
    if same is not None:
        x = g.graph.call_function(indexing.pad_same, (x, *same, fill))
    if uneven is not None:
        x = g.graph.call_function(modules.pad_image, (x, uneven, fill))
    if 2 * even[0] > height or 2 * even[1] > width:
        raise Unsupported("padding of more than half the kernel")
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
        return g.call(node, indexing.flatten, g.value(node.input[0]), at["axis"])
    return g.module(node, nn.Flatten(1), g.value(node.input[0]))


def _squeeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axes = _ints(g, node, at, "axes", 1)
    which = () if axes is None else (tuple(axes),)  # without axes: every dimension of size 1, in both libraries
    return g.call(node, torch.squeeze, g.value(node.input[0]), *which)


def _unsqueeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_unsqueeze, g.value(node.input[0]), _ints(g, node, at, "axes", 1) or [])


def _reduce(function: Callable[..., Any]) -> Handler:
    """A reduction that takes `dim` (a list; None for all) and `keepdim`."""

    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        axes = _ints(g, node, at, "axes", 1)
        x = g.value(node.input[0])
        if not axes and at.get("noop_with_empty_axes", 0):
            return g.call(node, torch.clone, x)
        return g.call(node, function, x, dim=axes or None, keepdim=bool(at.get("keepdims", 1)))

    return handler


def _slice(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_slice, *(g.value(name) if name else None for name in node.input))


def _gather(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    index = g.constant(node.input[1])
    x, axis = g.value(node.input[0]), at.get("axis", 0)
    if index is None or index.size != 1 or index.ndim > 1:
        return g.call(node, indexing.gather, x, g.value(node.input[1]), axis)
    if index.ndim == 0:
        return g.call(node, torch.select, x, axis, int(index))
    return g.call(node, torch.narrow, x, axis, int(index[0]), 1)


def _gather_elements(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.gather_elements, g.value(node.input[0]), g.value(node.input[1]), at.get("axis", 0))


def _gather_nd(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.gather_nd, g.value(node.input[0]), g.value(node.input[1]), at.get("batch_dims", 0))


def _scatter_nd(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    reduction = at.get("reduction", b"none").decode()
    if reduction not in ("none", "add"):
        raise Unsupported(f"reduction {reduction}")
    return g.call(node, indexing.scatter_nd, *(g.value(name) for name in node.input), reduction)


def _scatter_elements(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if at.get("reduction", b"none") != b"none":
        raise Unsupported(f"reduction {at['reduction'].decode()}")
    return g.call(node, indexing.scatter_elements, *(g.value(name) for name in node.input), at.get("axis", 0))


def _tile(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.tile, g.value(node.input[0]), _sizes(g, node.input[1]))


def _sizes(g: Importer, name: str) -> Any:
    """Sizes or counts: plain numbers where they are constant."""
    found = g.constant(name)
    return g.value(name) if found is None else [int(number) for number in found.reshape(-1)]


def _constant_of_shape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    value = numpy_helper.to_array(at["value"]) if "value" in at else np.zeros(1, np.float32)
    kind = torch.from_numpy(np.array(value)).dtype
    return g.call(node, indexing.full, _sizes(g, node.input[0]), value.reshape(-1)[0].item(), kind)


def _top_k(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    count = g.constant(node.input[1])
    if count is None:
        raise Unsupported("k is computed at run time")
    options = {"dim": at.get("axis", -1), "largest": bool(at.get("largest", 1)), "sorted": bool(at.get("sorted", 1))}
    found = g.graph.call_function(torch.topk, (g.value(node.input[0]), int(count.reshape(-1)[0])), options)
    return tuple(g.call(node, operator.getitem, found, index, output=index) for index in range(2))


def _arg(function: Callable[..., Any]) -> Handler:
    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        if at.get("select_last_index", 0):
            raise Unsupported("select_last_index")
        x, keep = g.value(node.input[0]), bool(at.get("keepdims", 1))
        return g.call(node, function, x, dim=at.get("axis", 0), keepdim=keep)

    return handler


def _variadic(function: Callable[..., Any]) -> Handler:
    """An operator of any number of operands, two by two."""

    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        made = [g.value(name) for name in node.input]
        if len(made) == 1:
            return g.call(node, torch.clone, made[0])
        result = made[0]
        for operand in made[1:-1]:
            result = g.graph.call_function(function, (result, operand))
        return g.call(node, function, result, made[-1])

    return handler


def _values(function: Callable[..., Any], *names: str) -> Handler:
    """A function of the node's inputs, all tensors, and of some of its attributes by name."""
    return lambda g, node, at: g.call(
        node, function, *(g.value(name) for name in node.input), **{name: at[name] for name in names if name in at}
    )


def _mean_of(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    made = [g.value(name) for name in node.input]
    return g.call(node, elementwise.mean_of, *made)


def _einsum(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, torch.einsum, at["equation"].decode(), *(g.value(name) for name in node.input))


def _grid_sample(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    mode = at.get("mode", b"linear").decode()
    known = {
        "linear": "bilinear",
        "bilinear": "bilinear",
        "nearest": "nearest",
        "cubic": "bicubic",
        "bicubic": "bicubic",
    }
    options = {
        "mode": known[mode],
        "padding_mode": at.get("padding_mode", b"zeros").decode(),
        "align_corners": bool(at.get("align_corners", 0)),
    }
    return g.call(node, F.grid_sample, *(g.value(name) for name in node.input), **options)


def _cum_sum(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axis = g.constant(node.input[1])
    if axis is None or at.get("exclusive", 0) or at.get("reverse", 0):
        raise Unsupported("exclusive, reverse, or an axis computed at run time")
    return g.call(node, torch.cumsum, g.value(node.input[0]), int(axis.reshape(-1)[0]))


def _trilu(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    shift = g.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(0)
    if shift is None:
        raise Unsupported("k is computed at run time")
    return g.call(
        node, torch.triu if at.get("upper", 1) else torch.tril, g.value(node.input[0]), int(shift.reshape(-1)[0])
    )


def _one_hot(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.one_hot, *(g.value(name) for name in node.input), at.get("axis", -1))


def _global_max_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.AdaptiveMaxPool2d(1), g.value(node.input[0]))


def _space_to_depth(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, elementwise.space_to_depth, g.value(node.input[0]), int(at["blocksize"]))


def _shape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.shape_of, g.value(node.input[0]), at.get("start", 0), at.get("end"))


def _cast(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    # Float64 appears in the arithmetic of sizes alone, where float32 is as good.
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float32}
    kinds |= {2: torch.uint8, 3: torch.int8, 5: torch.int16}
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
    mode = at.get("mode", b"constant").decode()
    constant = "pads" in at or g.constant(node.input[1]) is not None
    axes = len(node.input) > 3 and bool(node.input[3])
    fill = g.operand(node.input[2]) if len(node.input) > 2 and node.input[2] else float(at.get("value", 0.0))
    if mode != "constant" or axes or not constant or not isinstance(fill, float):
        pads = _ints(g, node, at, "pads", 1) if constant else g.value(node.input[1])
        which = _sizes(g, node.input[3]) if axes else None
        return g.call(node, indexing.pad, g.value(node.input[0]), pads, which, fill, mode)
    pads = _ints(g, node, at, "pads", 1) or []
    half = len(pads) // 2
    order = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    return g.call(node, modules.pad_image, g.value(node.input[0]), order, fill)


def _resize(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    policy = at.get("keep_aspect_ratio_policy", b"stretch")
    if at.get("antialias", 0):
        raise Unsupported("antialias")
    x = g.value(node.input[0])
    has_sizes = len(node.input) > 3 and bool(node.input[3])
    scales = None if has_sizes else g.constant(node.input[2])
    plain = at.get("axes", [2, 3]) == [2, 3] and policy == b"stretch"
    if has_sizes and plain and (mode := _resize_mode(at, None)) is not None and _is_image(g, node, at):
        return g.call(node, modules.resize_to, x, g.value(node.input[3]), *mode)
    if scales is not None and plain and ("axes" in at or (scales.size == 4 and (scales[:2] == 1).all())):
        factors = [float(scale) for scale in scales[-2:]]
        if (mode := _resize_mode(at, factors)) is not None:
            return g.call(node, modules.resize_by, x, factors, *mode)
    axes = [int(axis) for axis in at["axes"]] if "axes" in at else list(range(g.rank(node.input[0]) or 4))
    how = astuple(_resampling(at))
    if has_sizes:
        return g.call(node, interpolation.resize, x, axes, _sizes(g, node.input[3]), None, *how)
    factors_or_value = g.value(node.input[2]) if scales is None else [float(scale) for scale in scales]
    return g.call(node, interpolation.resize, x, axes, None, factors_or_value, *how)


def _is_image(g: Importer, node: onnx.NodeProto, at: Attributes) -> bool:
    """Whether sizes are of height and width alone: channels, where they are named, stay as many."""
    return (g.rank(node.input[0]) or 4) == 4


def _resampling(at: Attributes) -> interpolation.Resampling:
    """What a Resize's attributes say."""
    how = interpolation.Resampling(
        mode=at.get("mode", b"nearest").decode(),
        coordinates=at.get("coordinate_transformation_mode", b"half_pixel").decode(),
        rounding=at.get("nearest_mode", b"round_prefer_floor").decode(),
        cubic_a=float(at.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(at.get("exclude_outside", 0)),
        policy=at.get("keep_aspect_ratio_policy", b"stretch").decode(),
    )
    known = (interpolation.MODES, interpolation.COORDINATES, interpolation.POLICIES)
    for found, allowed in zip((how.mode, how.coordinates, how.policy), known, strict=True):
        if found not in allowed:
            raise Unsupported(found)
    return how


def _resize_mode(at: Attributes, factors: list[float] | None) -> tuple[str, bool | None] | None:
    """PyTorch's mode and align_corners, None where it has no equal one; `factors` where they are fixed."""
    mode = at.get("mode", b"nearest").decode()
    coordinates = at.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return "bilinear", coordinates == "align_corners"
    if mode != "nearest":
        return None
    rounding = at.get("nearest_mode", b"round_prefer_floor").decode()
    whole = factors is not None and all(factor.is_integer() for factor in factors)
    doubled = factors is not None and set(factors) <= {1.0, 2.0}
    same = (
        (coordinates == "asymmetric" and rounding == "floor")
        # The centre of a whole factor's pixel, rounded to the nearest source, is the floor as well (and never a tie).
        or (whole and coordinates == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil"))
        or (doubled and coordinates == "asymmetric" and rounding == "round_prefer_floor")
    )
    return ("nearest", None) if same else None


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
    "ReduceMean": _reduce(torch.mean),
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
    # element-wise
    **{name: _function(function) for name, function in elementwise.UNARY.items()},
    **{name: _values(function) for name, function in elementwise.BINARY.items()},
    "Selu": _activation(
        lambda at: elementwise.Selu(at.get("alpha", elementwise.SELU[0]), at.get("gamma", elementwise.SELU[1]))
    ),
    "Celu": _activation(lambda at: nn.CELU(at.get("alpha", 1.0))),
    "ThresholdedRelu": _activation(lambda at: nn.Threshold(at.get("alpha", 1.0), 0.0)),
    "Shrink": lambda g, node, at: g.call(
        node, elementwise.shrink, g.value(node.input[0]), at.get("bias", 0.0), at.get("lambd", 0.5)
    ),
    "Mod": lambda g, node, at: g.call(
        node, torch.fmod if at.get("fmod", 0) else torch.remainder, g.value(node.input[0]), g.value(node.input[1])
    ),
    "Where": _values(torch.where),
    "Min": _variadic(torch.minimum),
    "Max": _variadic(torch.maximum),
    "Sum": _variadic(operator.add),
    "Mean": _mean_of,
    "CumSum": _cum_sum,
    "Einsum": _einsum,
    # reductions
    **{name: _reduce(function) for name, function in elementwise.REDUCTIONS.items()},
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
    "GlobalMaxPool": _global_max_pool,
    "LRN": lambda g, node, at: g.module(
        node,
        nn.LocalResponseNorm(at["size"], at.get("alpha", 1e-4), at.get("beta", 0.75), at.get("bias", 1.0)),
        g.value(node.input[0]),
    ),
    # picking and placing elements
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "Tile": _tile,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
    "OneHot": _one_hot,
    "GridSample": _grid_sample,
    # sizes
    "ConstantOfShape": _constant_of_shape,
    "Range": _values(indexing.number_range),
    "Size": _function(elementwise.size_of),
}
