"""Convolve before upsampling, not after: a nearest-neighbour Resize makes many equal values of one.

A feature pyramid convolves tensors that a Resize has just enlarged. A 3x3 convolution of a tensor enlarged by 2 sees
2x2 different values for each output pixel, not 3x3, and is a 2x2 convolution of the small tensor followed by a
DepthToSpace, which only moves values. Exact in real arithmetic; in float32 the outputs agree to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compress.graph.convolution import Convolution, as_convolution, insert_convolution
from compress.graph.edit import array_of, attribute, constant, is_inner, producer, replace_node


@dataclass(frozen=True)
class Part:
    """A tensor that a convolution reads as one summand or one range of channels, with the weights for it."""

    value: ir.Value
    weight: np.ndarray
    """[O, I of this part, k, k]."""
    factor: int
    """How much a nearest Resize has enlarged it; 1 for not."""


def convolve_before_upsampling(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv 3x3 of a sum or concatenation with upsampled parts: those are convolved small, the others as they are.

    Of a concatenation each part takes its own weights, and an upsampled one costs 4 multiply-adds for each weight and
    pixel instead of 9. Of a sum, Conv(a + up2(b)) = Conv(a) + phases(b), which is more work unless a is itself a 1x1
    convolution from few channels that merges with this one (`merge_pointwise`), as in a feature pyramid.
    """
    conv = as_convolution(node)
    if conv is None or conv.kernel != 3:
        return False
    parts = _parts(conv)
    low = [part for part in parts if part.factor > 1]
    if not low:
        return False
    same = [part for part in parts if part.factor == 1]
    summed = conv.data.producer() if is_inner(conv.data) else None
    joins = summed.op_type if summed is not None and summed.op_type in ("Add", "Concat") else "Concat"
    if joins == "Add" and not _sum_pays(same, conv):
        return False
    name = node.outputs[0].name
    halves = [Part(_enlarged(graph, node, part, part.factor // 2), part.weight, 1) for part in low]
    small = _phases(graph, node, *_joined(graph, node, halves, joins), None if same else conv.bias, f"{name}.phases")
    if same:
        value, weight = _joined(graph, node, same, joins)
        plain = insert_convolution(graph, node, value, weight, conv.bias, 1, f"{name}.same")
        replace_node(graph, node, "Add", [plain, small])
    else:
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [small])
        small.name = name
    return True


def _sum_pays(same: Sequence[Part], conv: Convolution) -> bool:
    """Whether convolving the operands of a sum one by one takes fewer multiply-adds than convolving the sum."""
    outputs, middle = conv.weight.shape[:2]
    before, after = 9 * outputs * middle, 4 * outputs * middle
    for part in same:
        lateral = part.value.producer()
        pointwise = as_convolution(lateral) if lateral is not None and is_inner(part.value) else None
        if pointwise is None or pointwise.kernel != 1 or pointwise.bias is not None:
            return False
        before += middle * pointwise.weight.shape[1]
        after += 9 * outputs * pointwise.weight.shape[1]
    return after < before


def merge_pointwise(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv 1x1 -> Conv becomes one convolution, where that takes fewer multiply-adds and the borders agree.

    A bias of the first would reach the border pixels of a padded second one only in part: then both stay.
    """
    second = as_convolution(node)
    first = None if second is None or not is_inner(second.data) else second.data.producer()
    first_conv = None if first is None else as_convolution(first)
    if second is None or first_conv is None or first_conv.kernel != 1:
        return False
    outputs, middle, inputs = second.weight.shape[0], *first_conv.weight.shape[:2]
    area = second.kernel**2
    if (
        first_conv.bias is not None and area > 1
    ) or area * outputs * inputs > area * outputs * middle + middle * inputs:
        return False
    weight = np.einsum("omhw,mi->oihw", second.weight, first_conv.weight[:, :, 0, 0])
    bias = second.bias
    if first_conv.bias is not None:
        moved = second.weight[:, :, 0, 0] @ first_conv.bias
        bias = moved if bias is None else bias + moved
    name = node.outputs[0].name
    merged = insert_convolution(graph, node, first_conv.data, weight, bias, (second.kernel - 1) // 2, f"{name}.merged")
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [merged])
    merged.name = name
    graph.remove(first_conv.node, safe=True)
    return True


def _parts(conv: Convolution) -> list[Part]:
    """What a convolution reads: the operands of an Add or Concat that only it reads, or its one input."""
    node = conv.data.producer() if is_inner(conv.data) else None
    values = [] if node is None else [value for value in node.inputs if value is not None]
    if node is not None and node.op_type == "Add" and _same_shape(values):
        return [_part(value, conv.weight) for value in values]
    if node is not None and node.op_type == "Concat" and attribute(node, "axis") == 1:
        counts = [_channels(value) for value in values]
        known = [count for count in counts if count is not None]
        if len(known) == len(counts) and sum(known) == conv.weight.shape[1]:
            ends = np.cumsum(known)[:-1]
            return [_part(value, w) for value, w in zip(values, np.split(conv.weight, ends, axis=1), strict=True)]
    return [_part(conv.data, conv.weight)]


def _same_shape(values: Sequence[ir.Value]) -> bool:
    """Whether an Add does not broadcast, as far as channels tell; neither operand is a constant."""
    channels = {_channels(value) for value in values}
    return len(channels) == 1 and None not in channels and all(array_of(value) is None for value in values)


def _channels(value: ir.Value) -> int | None:
    if value.shape is None or len(value.shape) != 4 or not isinstance(value.shape[1], int):
        return None
    return int(value.shape[1])


def _part(value: ir.Value, weight: np.ndarray) -> Part:
    return Part(value, weight, _factor(value))


def _factor(value: ir.Value) -> int:
    """By how much a nearest Resize that has one reader enlarges height and width: an even number, or else 1."""
    node = producer(value, "Resize")
    if node is None or not is_inner(value) or attribute(node, "mode", "nearest") not in ("nearest", b"nearest"):
        return 1
    scales = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if (
        scales is None
        or scales.size != 4
        or (scales[:2] != 1).any()
        or scales[2] != scales[3]
        or "axes" in node.attributes
    ):
        return 1
    factor = float(scales[2])
    return int(factor) if factor.is_integer() and int(factor) % 2 == 0 else 1


def _enlarged(graph: ir.Graph, before: ir.Node, part: Part, factor: int) -> ir.Value:
    """The part's small tensor, enlarged by less than its Resize does."""
    resize = part.value.producer()
    assert resize is not None
    assert resize.inputs[0] is not None
    if factor == 1:
        return resize.inputs[0]
    scales = constant(graph, f"{part.value.name}.scales", np.array([1, 1, factor, factor], np.float32))
    attributes = {name: found.value for name, found in resize.attributes.items()}
    made = ir.node("Resize", [resize.inputs[0], None, scales], attributes)
    made.outputs[0].name = f"{part.value.name}.by{factor}"
    graph.insert_before(before, made)
    return made.outputs[0]


def _joined(graph: ir.Graph, before: ir.Node, parts: Sequence[Part], joins: str) -> tuple[ir.Value, np.ndarray]:
    """Several parts as one tensor with its weights: one part as it is, else summed or put together again."""
    if len(parts) == 1:
        return parts[0].value, parts[0].weight
    values = [part.value for part in parts]
    made = ir.node("Add", values) if joins == "Add" else ir.node("Concat", values, {"axis": 1})
    made.outputs[0].name = f"{parts[0].value.name}.joined"
    graph.insert_before(before, made)
    weight = parts[0].weight if joins == "Add" else np.concatenate([part.weight for part in parts], axis=1)
    return made.outputs[0], weight


def _phases(
    graph: ir.Graph, before: ir.Node, value: ir.Value, weight: np.ndarray, bias: np.ndarray | None, name: str
) -> ir.Value:
    """Conv 3x3 of a tensor [N, I, H, W] upsampled by 2, as a 2x2 convolution to its four phases, [N, 4 O, H+1, W+1].

    Window u of the small rows holds rows u - 1 and u. Output row 2i reads small rows i - 1, i, i: window i with weights
    (w0, w1 + w2). Output row 2i + 1 reads i, i, i + 1: window i + 1 with (w0 + w1, w2). A DepthToSpace that puts the
    odd rows first therefore makes the result with a frame of one pixel too many, which is cut off.
    """
    rows = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float64)  # phase x tap x row of the kernel
    kernels = np.einsum("atr,oirc,bsc->aboits", rows, weight, rows)
    stacked = kernels.reshape(-1, *kernels.shape[3:])
    small = insert_convolution(graph, before, value, stacked, None if bias is None else np.tile(bias, 4), 1, name)
    shuffle = ir.node("DepthToSpace", [small], {"blocksize": 2, "mode": "DCR"})
    ends = (np.array([1, 1]), np.array([-1, -1]), np.array([2, 3]))
    crop = ir.node("Slice", [shuffle.outputs[0], *(constant(graph, f"{name}.crop", end) for end in ends)])
    shuffle.outputs[0].name, crop.outputs[0].name = f"{name}.framed", f"{name}.full"
    for node in (shuffle, crop):
        graph.insert_before(before, node)
    return crop.outputs[0]
