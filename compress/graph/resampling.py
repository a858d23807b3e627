"""Passes that compute at low resolution what a network computes on upsampled tensors.

A feature pyramid convolves tensors that a nearest-neighbour Resize has just enlarged, where each value stands four or
more times, and DBNet's head enlarges by transposed convolutions, which have no integer kernel. Both are ordinary
convolutions on the small tensor followed by a DepthToSpace, which only moves values:

- 3x3 on an upsampling by 2: per output pixel 2x2 different values, not 3x3 (`convolve_before_upsampling`);
- a transposed convolution whose stride is its kernel: 1x1 (`transposed_as_pointwise`);
- what follows a DepthToSpace element by element, or as a 1x1 convolution to few channels, can come before it
  (`delay_depth_to_space`).

Each is exact in real arithmetic; in float32 the outputs agree to rounding. Measured on PP-OCR's detector:
docs/history.md.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.graph.convolution import as_convolution, insert_convolution
from compress.graph.edit import array_of, attribute, auto_pad, is_inner, producer, replace_node
from compress.graph.upsampling import convolve_before_upsampling, merge_pointwise

ELEMENTWISE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh", "Clip"})
"""Operators that treat every value alike, wherever it stands."""
DENSE_OUTPUTS = 64
"""A 1x1 convolution behind a DepthToSpace moves in front of it as one matrix with a block for each phase, zeros
elsewhere; with more outputs than this the zeros cost more than the move saves."""


def resample_late(model: ir.Model) -> None:
    """Apply all passes of this module until none finds more; values need inferred shapes (channels)."""
    graph = model.graph
    for rewrite in (convolve_before_upsampling, merge_pointwise, transposed_as_pointwise, delay_depth_to_space):
        while _apply(rewrite, graph):
            common.RemoveUnusedNodesPass()(model)  # what a dead node still reads would count as read twice


def _apply(rewrite: Callable[[ir.Graph, ir.Node], bool], graph: ir.Graph) -> bool:
    """Offer every node to a pass; whether it took any."""
    taken = [rewrite(graph, node) for node in list(graph) if node.graph is graph]
    return any(taken)


def transposed_as_pointwise(graph: ir.Graph, node: ir.Node) -> bool:
    """ConvTranspose whose kernel is its stride, without padding: every input pixel makes a block of its own.

    So it is a 1x1 convolution to O * s * s channels and a DepthToSpace of s.
    """
    if node.op_type != "ConvTranspose":
        return False
    weight = array_of(node.inputs[1])
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if weight is None or weight.ndim != 4 or node.inputs[0] is None or (len(node.inputs) > 2 and bias is None):
        return False
    height, width = weight.shape[2:]
    plain = (
        height == width
        and list(attribute(node, "strides", [1, 1])) == [height, width]
        and int(attribute(node, "group", 1)) == 1
        and not any(attribute(node, "pads", [0] * 4))
        and not any(attribute(node, "output_padding", [0, 0]))
        and auto_pad(node) in ("NOTSET", "VALID")
        and "output_shape" not in node.attributes
        and set(attribute(node, "dilations", [1, 1])) == {1}
    )
    if not plain:
        return False
    pointwise = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0], 1, 1)  # (row, column, output) x input
    biases = None if bias is None else np.tile(bias, height * width)
    name = node.outputs[0].name
    small = insert_convolution(graph, node, node.inputs[0], pointwise, biases, 0, f"{name}.phases")
    replace_node(graph, node, "DepthToSpace", [small], blocksize=height, mode="DCR")
    return True


def delay_depth_to_space(graph: ir.Graph, node: ir.Node) -> bool:
    """DepthToSpace -> element by element, or 1x1 to few channels (with its own DepthToSpace): the other way round."""
    data = node.inputs[0] if node.inputs else None
    shuffle = producer(data, "DepthToSpace")
    if data is None or shuffle is None or not is_inner(data) or shuffle.inputs[0] is None:
        return False
    if attribute(shuffle, "mode", "DCR") not in ("DCR", b"DCR"):
        return False
    block = int(attribute(shuffle, "blocksize"))
    if node.op_type in ELEMENTWISE and all(array_of(value) is not None for value in node.inputs[1:] if value):
        attributes = {name: found.value for name, found in node.attributes.items()}
        made = ir.node(node.op_type, [shuffle.inputs[0], *node.inputs[1:]], attributes)
        made.outputs[0].name = f"{node.outputs[0].name}.phases"
        graph.insert_before(node, made)
        replace_node(graph, node, "DepthToSpace", [made.outputs[0]], blocksize=block, mode="DCR")
    elif not _delay_past_pointwise(graph, node, shuffle, block):
        return False
    graph.remove(shuffle, safe=True)
    return True


def _delay_past_pointwise(graph: ir.Graph, node: ir.Node, shuffle: ir.Node, block: int) -> bool:
    conv = as_convolution(node)
    if conv is None or conv.kernel != 1 or shuffle.inputs[0] is None:
        return False
    after = [use.node for use in node.outputs[0].uses()]
    second = after[0] if len(after) == 1 and is_inner(node.outputs[0]) and _is_dcr(after[0]) else None
    further = int(attribute(second, "blocksize")) if second is not None else 1
    outputs, inputs = conv.weight.shape[:2]
    outputs //= further * further
    if outputs * (block * further) ** 2 > DENSE_OUTPUTS:
        return False
    # Channels in: (row, column of the first block, input). Out: (row, column of the joint block, output).
    matrix = conv.weight.reshape(further, further, outputs, inputs)
    dense = np.zeros((block, further, block, further, outputs, block, block, inputs))
    for row in range(block):
        for column in range(block):
            dense[row, :, column, :, :, row, column, :] = matrix
    weight = dense.reshape((block * further) ** 2 * outputs, block * block * inputs, 1, 1)
    bias = None
    if conv.bias is not None:
        wide = np.zeros((block, further, block, further, outputs))
        wide[:] = conv.bias.reshape(further, 1, further, outputs)
        bias = wide.reshape(-1)
    last = node if second is None else second
    small = insert_convolution(graph, node, shuffle.inputs[0], weight, bias, 0, f"{node.outputs[0].name}.phases")
    replace_node(graph, last, "DepthToSpace", [small], blocksize=block * further, mode="DCR")
    if second is not None:
        graph.remove(node, safe=True)
    return True


def _is_dcr(node: ir.Node) -> bool:
    return node.op_type == "DepthToSpace" and attribute(node, "mode", "DCR") in ("DCR", b"DCR")
