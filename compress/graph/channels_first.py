"""A model of images [N, H, W, C] as one of [N, C, H, W]: what it is trained, pruned and written as."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from compress.compute.channel_order import TO_FIRST, TO_LAST, has_channels_last, is_channels_last


def with_channels_first(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The same model with a Transpose behind its input, and before outputs that are in the same order, which those of
    most exporters take back; None where its images are [N, C, H, W] already, or a node holds a graph of its own.

    Args:
        model: of one input of images; it is left as it was.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [place for place, value in enumerate(model.graph.input) if value.name not in weights]
    if len(inputs) != 1 or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return None
    given = model.graph.input[inputs[0]]
    sizes = given.type.tensor_type.shape.dim
    if not is_channels_last([size.dim_value or None for size in sizes]):
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    inner = f"{given.name}.channels_last"
    _rename(graph, {given.name: inner})
    graph.node.insert(0, helper.make_node("Transpose", [given.name], [inner], name=inner, perm=TO_LAST))
    _permute(graph.input[inputs[0]], TO_FIRST)
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output}
    for output in graph.output:
        if has_channels_last([size.dim_value or None for size in inferred[output.name].type.tensor_type.shape.dim]):
            output.CopyFrom(inferred[output.name])
            inner = f"{output.name}.channels_last"
            _rename(graph, {output.name: inner})
            graph.node.append(helper.make_node("Transpose", [inner], [output.name], name=inner, perm=TO_FIRST))
            _permute(output, TO_FIRST)
    return changed


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values other names where nodes read and make them."""
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)


def _permute(value: onnx.ValueInfoProto, order: Sequence[int]) -> None:
    shape = value.type.tensor_type.shape
    sizes = [onnx.TensorShapeProto.Dimension.FromString(shape.dim[axis].SerializeToString()) for axis in order]
    del shape.dim[:]
    shape.dim.extend(sizes)
