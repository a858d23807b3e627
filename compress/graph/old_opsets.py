"""Operators whose meaning changed with an opset, and which onnx's version converter takes over as they stand."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.errors import ModelError

FIRST_RESIZE_WITH_COORDINATES = 11
"""Opset from which a Resize says how it places pixels."""
FIRST_HARDMAX_ALONG_AXIS = 13
"""Opset from which Hardmax works along its axis alone; before, on everything from that axis on, as one row."""


def restore_meaning(model: onnx.ModelProto, opset: int) -> None:
    """Make a converted model compute what its nodes meant at their own opset, in place.

    Args:
        model: what the version converter made.
        opset: the file's own.

    Raises:
        ModelError: a node has no equal form.
    """
    if opset < FIRST_RESIZE_WITH_COORDINATES:
        constants = _constants(model.graph)
        for node in model.graph.node:
            if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
                _place_pixels(node, constants)
    if opset < FIRST_HARDMAX_ALONG_AXIS:
        _flatten_hardmax(model.graph)


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _place_pixels(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> None:
    """Say of an Upsample of opset 7 or 9, or a Resize of opset 10, what they always did: x / scale, no half pixels.

    The specification leaves rounding open. onnxruntime takes the pixel below where it enlarges, the one above where it
    shrinks; factors that are computed while running are taken for enlarging. Enlarged by whole factors to the nearest
    pixel, half pixels are the same, and the node stays as it is.
    """
    mode = next((entry.s for entry in node.attribute if entry.name == "mode"), b"nearest")
    known = constants.get(node.input[2])
    if mode == b"nearest" and known is not None and bool((known >= 1).all() and (known == known.round()).all()):
        return
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    if mode != b"nearest":
        return
    scales = np.ones(1) if known is None else known
    shrinks, enlarges = bool((scales < 1).any()), bool((scales > 1).any())
    if shrinks and enlarges:
        raise ModelError(
            f"node {node.output[0]!r} (Resize of opset 10, nearest) enlarges one axis and shrinks another, which has "
            "no equal later form. Export the model with opset 17."
        )
    node.attribute.append(helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor"))


def _flatten_hardmax(graph: onnx.GraphProto) -> None:
    """Write each Hardmax as one of rows: Flatten at its axis, Hardmax, and back."""
    nodes = []
    for node in graph.node:
        if node.op_type != "Hardmax" or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
        given, made = node.input[0], node.output[0]
        shape, rows, chosen = (f"{made}.{part}" for part in ("shape", "rows", "chosen"))
        nodes += [
            helper.make_node("Shape", [given], [shape]),
            helper.make_node("Flatten", [given], [rows], axis=axis),
            helper.make_node("Hardmax", [rows], [chosen], axis=-1),
            helper.make_node("Reshape", [chosen, shape], [made]),
        ]
    if len(nodes) != len(graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
