"""Rewrite rules of the canonical form, each small, exact and tested alone.

A rule is a function of one node that either rewrites the graph around it and returns True, or returns False.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from compress.graph.edit import (
    SAME,
    array_of,
    attribute,
    auto_pad,
    constant,
    dims_of,
    is_inner,
    producer,
    reduced_axes,
    replace_node,
)
from compress.graph.hard_activations import hard_sigmoid, hard_swish
from compress.graph.layer_norm import layer_norm, layer_norm_offset
from compress.graph.scales import affine_into_convs, conv_scale

DENORMAL = 1e-30
"""Weights below this slow CPUs down 2 to 16 times (measured) and are worth nothing."""
MOVES = frozenset(
    ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
"""Operators whose result holds nothing but elements of their first input."""
Rule = Callable[[ir.Graph, ir.Node], bool]


def apply_rules(graph: ir.Graph) -> bool:
    """Apply every rule until none applies; whether any did.

    Activations that are spelled out are found before a part of them is folded into the convolution in front.
    """
    found = _apply(graph, RULES)
    return _apply(graph, FOLDS) or found


def _apply(graph: ir.Graph, rules: Sequence[Rule]) -> bool:
    """Apply these rules until none applies; whether any did."""
    rounds = 0
    changed = True
    while changed:
        changed = False
        for node in list(graph):
            if node.graph is not None:  # an earlier rule may have removed it
                changed = any(rule(graph, node) for rule in rules) or changed
        rounds += 1
    return rounds > 1


def conv_add_to_bias(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv -> Add(constant per channel) becomes the convolution's bias (unmerged, pruning breaks on the constant)."""
    if node.op_type != "Add":
        return False
    for made, added in (node.inputs, reversed(node.inputs)):
        conv = made.producer() if made is not None else None
        offset = array_of(added)
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or offset is None:
            continue
        total = _with_bias(conv, offset)
        if total is None or not is_inner(conv.outputs[0]):
            continue
        bias = constant(graph, f"{conv.outputs[0].name}.bias", total)
        attributes = {name: found.value for name, found in conv.attributes.items()}
        replace_node(graph, node, conv.op_type, [*conv.inputs[:2], bias], **attributes)
        graph.remove(conv, safe=True)
        return True
    return False


def _with_bias(conv: ir.Node, offset: np.ndarray) -> np.ndarray | None:
    """The bias [O] of a convolution to whose output `offset` is added, or None where that is no bias."""
    weight = array_of(conv.inputs[1])
    given = conv.inputs[2] if len(conv.inputs) > 2 else None
    old = array_of(given)
    if weight is None or (given is not None and old is None):
        return None
    channels = weight.shape[0] if conv.op_type == "Conv" else weight.shape[1] * attribute(conv, "group", 1)
    spatial = weight.ndim - 2
    # [O, 1, 1] or [N, O, 1, 1] with N = 1; or one number of any rank that does not add dimensions.
    per_channel = offset.shape in ((channels, *[1] * spatial), (1, channels, *[1] * spatial))
    if not per_channel and (offset.size != 1 or offset.ndim > weight.ndim):
        return None
    bias = np.broadcast_to(offset.reshape(-1), (channels,)).astype(np.float32)
    return np.ascontiguousarray(bias if old is None else old + bias)


def matmul_add_to_gemm(graph: ir.Graph, node: ir.Node) -> bool:
    """MatMul(x [N, I], constant) + constant [O] -> Gemm, which has an integer kernel with the bias inside."""
    if node.op_type != "Add":
        return False
    for made, added in (node.inputs, reversed(node.inputs)):
        matmul, bias = producer(made, "MatMul"), array_of(added)
        if matmul is None or bias is None or not is_inner(matmul.outputs[0]) or matmul.inputs[0] is None:
            continue
        weight, shape = array_of(matmul.inputs[1]), matmul.inputs[0].shape
        if weight is None or shape is None or len(shape) != 2 or weight.ndim != 2 or bias.shape != (weight.shape[1],):
            continue
        replace_node(graph, node, "Gemm", [*matmul.inputs, added])
        graph.remove(matmul, safe=True)
        return True
    return False


def zero_state(graph: ir.Graph, node: ir.Node) -> bool:
    """A recurrent layer whose initial states are built as zeros of the right size -> the same without them."""
    if node.op_type not in ("LSTM", "GRU", "RNN"):
        return False
    zero = [index for index, value in enumerate(node.inputs) if index in (5, 6) and _is_zero(value)]
    for index in zero:
        node.replace_input_with(index, None)
    return bool(zero)


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is all zeros, whatever its shape turns out to be."""
    array = array_of(value)
    if array is not None:
        return not np.any(array)
    node = None if value is None else value.producer()
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        fill = attribute(node, "value")
        return fill is None or not np.any(fill.numpy())
    if node.op_type in MOVES:
        return _is_zero(node.inputs[0])
    return node.op_type == "Concat" and all(_is_zero(part) for part in node.inputs)


def mean_to_pool(graph: ir.Graph, node: ir.Node) -> bool:
    """ReduceMean over height and width -> GlobalAveragePool (which has an integer kernel), and Flatten if need be."""
    if node.op_type != "ReduceMean" or node.inputs[0] is None:
        return False
    shape = node.inputs[0].shape
    if shape is None or len(shape) != 4 or reduced_axes(node, 4) != [2, 3]:
        return False
    if attribute(node, "keepdims", 1):
        replace_node(graph, node, "GlobalAveragePool", [node.inputs[0]])
        return True
    pool = ir.node("GlobalAveragePool", [node.inputs[0]])
    pool.outputs[0].name = f"{node.outputs[0].name}.pooled"
    graph.insert_before(node, pool)
    replace_node(graph, node, "Flatten", [pool.outputs[0]], axis=1)
    return True


def reshape_to_flatten(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape of [N, ...] to [N, C], however its target is computed -> Flatten, which names no channel count."""
    if node.op_type != "Reshape":
        return False
    before, after, target = dims_of(node.inputs[0]), dims_of(node.outputs[0]), array_of(node.inputs[1])
    if before is None or len(before) < 3:
        return False
    same_batch = after is not None and len(after) == 2 and before[0] == after[0]
    if not same_batch and not (target is not None and _names_features(before, target)):
        return False
    replace_node(graph, node, "Flatten", [node.inputs[0]], axis=1)
    return True


def _names_features(before: tuple[int | str, ...], target: np.ndarray) -> bool:
    """Whether the target is [-1, C] with C the number of elements of one of the batch."""
    features = [size for size in before[1:] if isinstance(size, int)]
    return (
        target.size == 2
        and target[0] == -1
        and len(features) == len(before) - 1
        and int(target[1]) == math.prod(features)
    )


def einsum_to_matmul(graph: ir.Graph, node: ir.Node) -> bool:
    """Einsum("...i,ij->...j") of a value and a constant matrix -> MatMul, a linear layer."""
    if node.op_type != "Einsum" or len(node.inputs) != 2 or array_of(node.inputs[0]) is not None:
        return False
    equation = attribute(node, "equation", "")
    given, _, result = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "").partition("->")
    left, _, right = given.partition(",")
    weight = array_of(node.inputs[1])
    if weight is None or weight.ndim != 2 or len(right) != 2 or "." in given or len(set(left)) != len(left):
        return False
    inner, outer = right[0], right[1]
    if inner == outer or not left.endswith(inner) or outer in left or result != left[:-1] + outer:
        return False
    replace_node(graph, node, "MatMul", list(node.inputs))
    return True


def even_transposed_padding(graph: ir.Graph, node: ir.Node) -> bool:
    """A ConvTranspose whose result is cropped unevenly -> the same result, cropped evenly.

    Cropped more in front: some rows of the end stay that are cropped there (output_padding). Cropped more behind: the
    filter gets rows of zeros in front, which move its result by as many.
    """
    if node.op_type != "ConvTranspose" or attribute(node, "output_shape") is not None:
        return False
    weight = array_of(node.inputs[1])
    if weight is None or weight.ndim != 4:
        return False
    strides, dilations, extra = (
        list(attribute(node, name, [default] * 2))
        for name, default in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    pads = _transposed_pads(node, weight.shape[2:], strides, dilations, extra)
    if pads is None or (pads[:2] == pads[2:] and auto_pad(node) in ("NOTSET", "VALID")):
        return False
    zeros = []
    for axis in range(2):
        begin, end = pads[axis], pads[2 + axis]
        short = max(0, end - begin)
        extra[axis] += max(0, begin - end)
        if (dilations[axis] != 1 and short) or extra[axis] >= max(strides[axis], dilations[axis], 1 + (begin <= end)):
            return False
        zeros.append((short, 0))
        pads[axis] = pads[2 + axis] = max(begin, end)
    wider = np.pad(weight, [(0, 0), (0, 0), *zeros])
    made = constant(graph, f"{node.outputs[0].name}.even", np.ascontiguousarray(wider))
    kept = {name: found.value for name, found in node.attributes.items() if name not in ("auto_pad", "kernel_shape")}
    kept |= {"pads": pads, "output_padding": extra, "strides": strides}
    replace_node(graph, node, "ConvTranspose", [node.inputs[0], made, *node.inputs[2:]], **kept)
    return True


def _transposed_pads(
    node: ir.Node, kernel: Sequence[int], strides: list[int], dilations: list[int], extra: list[int]
) -> list[int] | None:
    """What a ConvTranspose crops: top, left, bottom, right; None where it cannot be said so.

    With SAME the result is `stride` times as large as the input.
    """
    mode = auto_pad(node)
    if mode not in SAME:
        return list(attribute(node, "pads", [0] * 4))
    total = [
        (size - 1) * dilation + 1 + more - stride
        for size, dilation, more, stride in zip(kernel, dilations, extra, strides, strict=True)
    ]
    if min(total) < 0:
        return None
    small, large = [crop // 2 for crop in total], [crop - crop // 2 for crop in total]
    return small + large if mode == "SAME_UPPER" else large + small


def name_default_axes(graph: ir.Graph, node: ir.Node) -> bool:
    """MeanVarianceNormalization over its default axes -> with their names: without, onnx's own checker fails on it."""
    if node.op_type != "MeanVarianceNormalization" or "axes" in node.attributes:
        return False
    node.attributes["axes"] = ir.AttrInt64s("axes", [0, 2, 3])
    return True


def fill_of_norm(graph: ir.Graph, node: ir.Node) -> bool:
    """A scale or offset that a normalisation without weights fills in (dynamo's exporter) -> a constant like others'.

    Constant folding leaves ConstantOfShape alone, since what it fills may be large.
    """
    shape = array_of(node.inputs[0]) if node.op_type == "ConstantOfShape" else None
    if shape is None or not any(reader.op_type.endswith("Normalization") for reader, _ in node.outputs[0].uses()):
        return False
    if node.outputs[0].is_graph_output():
        return False
    given = attribute(node, "value")
    number = np.zeros(1, np.float32) if given is None else given.numpy().reshape(-1)
    made = constant(graph, f"{node.outputs[0].name}.filled", np.full(shape.tolist(), number[0], number.dtype))
    ir.convenience.replace_all_uses_with(node.outputs[0], made)
    graph.remove(node, safe=True)
    return True


def drop_no_op(graph: ir.Graph, node: ir.Node) -> bool:
    """Identity, inference-time Dropout, and reshaping to the same shape are nothing."""
    if node.op_type not in ("Identity", "Dropout", "Reshape", "Flatten") or node.inputs[0] is None:
        return False
    source, result, *others = node.inputs[0], *node.outputs
    if any(other.uses() or other.is_graph_output() for other in others):  # Dropout's mask is requested
        return False
    if node.op_type in ("Reshape", "Flatten") and (dims_of(source) is None or dims_of(source) != dims_of(result)):
        return False
    if result.is_graph_output():
        if source.is_graph_output() or source.producer() is None:
            return False
        name, result.name = result.name, f"{result.name}.dropped"
        source.name = name
        graph.outputs[list(graph.outputs).index(result)] = source
    ir.convenience.replace_all_uses_with(result, source)
    graph.remove(node, safe=True)
    return True


def flush_denormals(graph: ir.Graph) -> None:
    """Set weights below DENORMAL to zero; changes no result that float32 can tell."""
    for name, value in list(graph.initializers.items()):
        array = array_of(value)
        if array is None or array.dtype != np.float32:
            continue
        tiny = (np.abs(array) < DENORMAL) & (array != 0)
        if tiny.any():
            value.const_value = ir.tensor(np.where(tiny, np.float32(0), array), name=name)


RULES: tuple[Rule, ...] = (
    drop_no_op,
    hard_swish,
    hard_sigmoid,
    matmul_add_to_gemm,
    zero_state,
    mean_to_pool,
    reshape_to_flatten,
    even_transposed_padding,
    einsum_to_matmul,
    name_default_axes,
    fill_of_norm,
    layer_norm,
    layer_norm_offset,
)
FOLDS: tuple[Rule, ...] = (conv_add_to_bias, conv_scale, affine_into_convs)
