"""Operators that lay elements out anew: reshaping, joining, splitting, padding, repeating, and sizes themselves."""

import operator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from compress.graph import elementwise, indexing, modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.operators.arguments import int_list, plain_sizes


def _concat(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, torch.cat, [g.value(name) for name in node.input], dim=at["axis"])


def _transpose(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if "perm" in at:
        return g.call(node, torch.permute, g.value(node.input[0]), list(at["perm"]))
    rank = g.rank(node.input[0])
    if rank is None:
        raise Unsupported("perm left out, of a value of unknown rank")
    return g.call(node, torch.permute, g.value(node.input[0]), list(reversed(range(rank))))


def _reshape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    target = g.constant(node.input[1])
    sizes = g.value(node.input[1]) if target is None else [int(size) for size in target]
    return g.call(node, modules.onnx_reshape, g.value(node.input[0]), sizes)


def _flatten(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    if at.get("axis", 1) != 1:
        return g.call(node, indexing.flatten, g.value(node.input[0]), at["axis"])
    return g.module(node, nn.Flatten(1), g.value(node.input[0]))


def _squeeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axes = int_list(g, node, at, "axes", 1)
    which = () if axes is None else (tuple(axes),)  # without axes: every dimension of size 1, in both libraries
    return g.call(node, torch.squeeze, g.value(node.input[0]), *which)


def _unsqueeze(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_unsqueeze, g.value(node.input[0]), int_list(g, node, at, "axes", 1) or [])


def _tile(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.tile, g.value(node.input[0]), plain_sizes(g, node.input[1]))


def _constant_of_shape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    value = numpy_helper.to_array(at["value"]) if "value" in at else np.zeros(1, np.float32)
    kind = torch.from_numpy(np.array(value)).dtype
    return g.call(node, indexing.full, plain_sizes(g, node.input[0]), value.reshape(-1)[0].item(), kind)


def _space_to_depth(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, elementwise.space_to_depth, g.value(node.input[0]), int(at["blocksize"]))


def _shape(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.shape_of, g.value(node.input[0]), at.get("start", 0), at.get("end"))


def _split(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    sizes = int_list(g, node, at, "split", 1)
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
        pads = int_list(g, node, at, "pads", 1) if constant else g.value(node.input[1])
        which = plain_sizes(g, node.input[3]) if axes else None
        return g.call(node, indexing.pad, g.value(node.input[0]), pads, which, fill, mode)
    pads = int_list(g, node, at, "pads", 1) or []
    half = len(pads) // 2
    order = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    return g.call(node, modules.pad_image, g.value(node.input[0]), order, fill)


def _depth_to_space(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    mode = at.get("mode", b"DCR").decode()
    return g.call(node, modules.depth_to_space, g.value(node.input[0]), int(at["blocksize"]), mode)


def _expand(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, modules.onnx_expand, g.value(node.input[0]), g.value(node.input[1]))


SHAPES: dict[str, Handler] = {
    "Concat": _concat,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Shape": _shape,
    "Split": _split,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _constant_of_shape,
}
