"""Pooling: windows, with padding of every kind, and whole maps."""

from typing import Any

import onnx
from torch import nn

from compress.graph import indexing, modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.operators.auto_pad import SAME, split_padding

Pair = tuple[int, int]


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
    same = at.get("auto_pad", b"NOTSET") in SAME
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
    even, uneven, same = split_padding(at, (height, width))
    if same is not None:
        x = g.graph.call_function(indexing.pad_same, (x, *same, fill))
    if uneven is not None and at.get("ceil_mode", 0):
        down_by, right_by = at.get("dilations", [1, 1])
        dilated = [(height - 1) * down_by + 1, (width - 1) * right_by + 1]
        x = g.graph.call_function(indexing.pad_reached, (x, list(at["pads"]), dilated, [down, right], fill))
    elif uneven is not None:
        x = g.graph.call_function(modules.pad_image, (x, uneven, fill))
    if 2 * even[0] > height or 2 * even[1] > width:
        raise Unsupported("padding of more than half the kernel")
    return x, (height, width), (down, right), (even[0], even[1])


def _global_average_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.AdaptiveAvgPool2d(1), g.value(node.input[0]))


def _global_max_pool(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.AdaptiveMaxPool2d(1), g.value(node.input[0]))


POOLING: dict[str, Handler] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
}
