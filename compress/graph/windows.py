"""Sizes of images that a network does not fit: a window that is larger than what it slides over."""

from collections.abc import Sequence

import onnx
from onnx import helper

WINDOWED = ("AveragePool", "Conv", "LpPool", "MaxPool")


def too_large_window(model: onnx.ModelProto, shape: Sequence[int]) -> str | None:
    """The first convolution or pool whose window does not fit, if images [N, C, H, W] have this shape.

    onnxruntime computes it nevertheless, from the part that is there; PyTorch refuses it. What inference does not know
    is taken to fit.

    >>> from onnx import parser
    >>> model = parser.parse_model('''<ir_version: 8, opset_import: ["" : 17]>
    ...     g (float[N, 1, H, W] x) => (float[N, 1, A, B] y) { y = AveragePool <kernel_shape = [3, 2]> (x) }''')
    >>> too_large_window(model, (1, 1, 2, 9))
    "AveragePool '' slides 3 x 2 over 2 x 9"
    >>> too_large_window(model, (1, 1, 3, 9))
    """
    sizes = _inferred_sizes(model, shape)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in WINDOWED or sizes.get(node.input[0]) is None:
            continue
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        window = given.get("kernel_shape") or weights.get(node.input[1] if len(node.input) > 1 else "", ())[2:]
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            continue
        seen = sizes[node.input[0]] or ()
        rank = len(window)
        pads, dilations = given.get("pads", [0] * 2 * rank), given.get("dilations", [1] * rank)
        room = [size + before + after for size, before, after in zip(seen, pads[:rank], pads[rank:], strict=False)]
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=False)]
        strides = given.get("strides", [1] * rank) if given.get("ceil_mode") else [1] * rank  # a part of it will do
        if any(span > free + stride - 1 for span, free, stride in zip(spans, room, strides, strict=False)):
            return (
                f"{node.op_type} {node.name!r} slides {' x '.join(map(str, spans))} over {' x '.join(map(str, room))}"
            )
    return None


def _inferred_sizes(model: onnx.ModelProto, shape: Sequence[int]) -> dict[str, list[int] | None]:
    """Height and width (or length) of every value, where they are known."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    weights = {tensor.name for tensor in copy.graph.initializer}
    images = next(value for value in copy.graph.input if value.name not in weights)
    images.type.tensor_type.ClearField("shape")
    images.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    sizes: dict[str, list[int] | None] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim[2:]
        sizes[value.name] = [dim.dim_value for dim in dims] if dims and all(dim.dim_value > 0 for dim in dims) else None
    return sizes
