"""Operators that pick elements, or put them somewhere: slices, gathering, scattering, the largest."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch

from compress.graph import indexing, modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported


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


def _trilu(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    shift = g.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(0)
    if shift is None:
        raise Unsupported("k is computed at run time")
    return g.call(
        node, torch.triu if at.get("upper", 1) else torch.tril, g.value(node.input[0]), int(shift.reshape(-1)[0])
    )


def _one_hot(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, indexing.one_hot, *(g.value(name) for name in node.input), at.get("axis", -1))


PICKING: dict[str, Handler] = {
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
    "Trilu": _trilu,
    "OneHot": _one_hot,
}
