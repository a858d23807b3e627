"""Sizes that a graph divides or takes roots of although weights determine them, as constants.

Exporters write the width of an attention head as what `Shape` finds, divided by a number of heads, and the scale of its
products as a root of that. Both would change with channels that are pruned. Other sizes are left as they are computed:
a Reshape to what `Shape` finds follows channels by itself.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from compress.compute.channel_order import COLOURS

PASSED = ("Cast", "Identity", "Squeeze", "Unsqueeze")
ARITHMETIC = ("Div", "Pow", "Reciprocal", "Sqrt")


def fold_known_sizes(model: onnx.ModelProto) -> bool:
    """Make a constant of each size that arithmetic takes from a Shape and that is the same for all images, in place.

    Batch, height and width of the inputs count as unknown, also where the file declares them.

    Returns:
        Whether there was any.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    picks = []
    for node in model.graph.node:
        shape = makers.get(node.input[0]) if node.op_type in ("Gather", "Slice") and node.input else None
        picked = shape is not None and shape.op_type == "Shape" and all(n in constants for n in node.input[1:] if n)
        if shape is not None and picked and _meets_arithmetic(node.output[0], readers):
            picks.append((node, shape))
    if not picks:
        return False
    known = _known_shapes(model)
    changed = False
    for node, shape in picks:
        sizes = known.get(shape.input[0])
        if sizes is None:
            continue
        bounds = {entry.name: entry.i for entry in shape.attribute}
        sizes = sizes[bounds.get("start", 0) : bounds.get("end", len(sizes))]
        given = [numpy_helper.to_array(constants[name]) if name else None for name in node.input[1:]]
        found = _picked(node, np.array(sizes), given)
        if found is not None and not np.isnan(found).any():
            model.graph.initializer.append(numpy_helper.from_array(found.astype(np.int64), node.output[0]))
            model.graph.node.remove(node)
            changed = True
    return changed


def _meets_arithmetic(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    return any(
        node.op_type in ARITHMETIC or (node.op_type in PASSED and _meets_arithmetic(node.output[0], readers))
        for node in readers.get(name, ())
    )


def _picked(node: onnx.NodeProto, sizes: np.ndarray, given: list[np.ndarray | None]) -> np.ndarray | None:
    """What a Gather or Slice takes of sizes; None where its numbers do not fit."""
    if node.op_type == "Gather":
        index = given[0]
        assert index is not None
        fits = index.size and -len(sizes) <= index.min() and index.max() < len(sizes)
        return np.asarray(sizes[index]) if fits else None
    start, end, _, step = (None if value is None else int(value.reshape(-1)[0]) for value in (*given, None, None)[:4])
    return sizes[start:end:step]


def _known_shapes(model: onnx.ModelProto) -> dict[str, list[float]]:
    """Value -> its sizes, NaN where they depend on the image's."""
    blind = onnx.ModelProto()
    blind.CopyFrom(model)
    del blind.graph.value_info[:]
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in blind.graph.input:
        sizes = value.type.tensor_type.shape.dim
        places = (1, len(sizes) - 1) if len(sizes) > 1 else ()
        colours = next((axis for axis in places if sizes[axis].dim_value in COLOURS), None)
        for axis, size in enumerate(sizes):
            if value.name not in weights and axis != colours:
                size.dim_param = f"{value.name} {axis}"
    for value in blind.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(blind, data_prop=True)
    return {
        value.name: [
            size.dim_value if size.HasField("dim_value") else math.nan for size in value.type.tensor_type.shape.dim
        ]
        for value in (*inferred.graph.input, *inferred.graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
