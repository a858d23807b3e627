"""Rewrite rules of the canonical form, each small, exact and tested alone.

A rule is a function of one node that either rewrites the graph around it and returns True, or returns False.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

PARAMETRIC = frozenset({"Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul", "LSTM", "GRU", "LayerNormalization"})
"""Operators whose constant inputs are trained weights."""
DENORMAL = 1e-30
"""Weights below this slow CPUs down 2 to 16 times (measured) and are worth nothing."""
Rule = Callable[[ir.Graph, ir.Node], bool]


def apply_rules(graph: ir.Graph) -> None:
    """Apply every rule until none applies."""
    changed = True
    while changed:
        changed = False
        for node in list(graph):
            if node.graph is None:
                continue
            changed = any(rule(graph, node) for rule in RULES) or changed


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initialiser under a name not yet taken."""
    unique, suffix = name, 1
    while unique in graph.initializers:
        unique, suffix = f"{name}.{suffix}", suffix + 1
    value = ir.val(unique, dtype=ir.DataType.from_numpy(array.dtype), shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=unique))
    graph.register_initializer(value)
    return value


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant that a value holds, or None."""
    return None if value is None or value.const_value is None else np.asarray(value.const_value.numpy())


def scalar_of(value: ir.Value | None) -> float | None:
    """The single number that a value holds, or None."""
    array = array_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def attribute(node: ir.Node, name: str, default: object = None) -> object:
    """An attribute's plain value."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def insert_and_replace(graph: ir.Graph, old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object) -> None:
    """Put a new node in the place of `old`; it takes over the name and uses of old's first output."""
    new = ir.node(op_type, inputs, attributes)
    name = old.outputs[0].name
    ir.convenience.replace_nodes_and_values(graph, old, [old], [new], [old.outputs[0]], [new.outputs[0]])
    new.outputs[0].name = name


def _is_near(found: float | None, wanted: float) -> bool:
    return found is not None and abs(found - wanted) <= 1e-4 * max(1.0, abs(wanted))


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of that type which computes `value` for one consumer alone."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def _split_scalar(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(tensor, scalar) of a binary node with one scalar constant operand; for Div and Sub the scalar is the second."""
    first, second = node.inputs[0], node.inputs[1]
    number = scalar_of(second)
    if number is not None and first is not None:
        return first, number
    number = scalar_of(first)
    if number is not None and second is not None and node.op_type in ("Add", "Mul"):
        return second, number
    return None


def _scaled(value: ir.Value | None) -> tuple[ir.Value, float]:
    """Peel a multiplication or division by a constant: value = tensor * factor."""
    assert value is not None
    node = value.producer()
    if node is not None and node.op_type in ("Mul", "Div"):
        found = _split_scalar(node)
        if found is not None:
            return found[0], found[1] if node.op_type == "Mul" else 1.0 / found[1]
    return value, 1.0


def _clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    low = scalar_of(node.inputs[1]) if len(node.inputs) > 1 else None
    high = scalar_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return low, high


def _clipped_ramp(value: ir.Value | None) -> tuple[ir.Value, float, float] | None:
    """Match factor * clip(a*x + b, 0, top) and return (x, slope, offset) of the same thing clipped to [0, 1]."""
    inner, factor = _scaled(value)
    clip = _producer(inner, "Clip")
    if clip is None:
        return None
    low, top = _clip_bounds(clip)
    if low != 0.0 or top is None or not _is_near(factor * top, 1.0):
        return None
    add = _producer(clip.inputs[0], "Add")
    parts = None if add is None else _split_scalar(add)
    if parts is None:
        return None
    x, slope = _scaled(parts[0])
    return x, slope * factor, parts[1] * factor


def hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """clip(x + 3, 0, 6) / 6, clip(0.2x + 0.5, 0, 1) and the like -> HardSigmoid."""
    if node.op_type not in ("Clip", "Div", "Mul"):
        return False
    ramp = _clipped_ramp(node.outputs[0])
    if ramp is None:
        return False
    x, slope, offset = ramp
    insert_and_replace(graph, node, "HardSigmoid", [x], alpha=slope, beta=offset)
    return True


def hard_swish(graph: ir.Graph, node: ir.Node) -> bool:
    """x * clip(x + 3, 0, 6) / 6 in any order, and x * HardSigmoid(x; 1/6, 1/2) -> HardSwish."""
    if node.op_type not in ("Mul", "Div"):
        return False
    product, outer = _scaled(node.outputs[0])
    mul = _producer(product, "Mul")
    if mul is None or (outer == 1.0 and mul is not node):
        return False
    for gated, gate in ((mul.inputs[0], mul.inputs[1]), (mul.inputs[1], mul.inputs[0])):
        if gated is None or gate is None:
            continue
        if _gate_slope(gated, gate, outer):
            insert_and_replace(graph, node, "HardSwish", [gated])
            return True
    return False


def _gate_slope(x: ir.Value, gate: ir.Value, outer: float) -> bool:
    """Whether outer * gate is clip(x + 3, 0, 6) / 6."""
    sigmoid = _producer(gate, "HardSigmoid")
    if sigmoid is not None:
        alpha, beta = attribute(sigmoid, "alpha", 0.2), attribute(sigmoid, "beta", 0.5)
        return sigmoid.inputs[0] is x and _is_near(outer, 1.0) and _is_near(float(alpha) * 6, 1.0) and _is_near(float(beta), 0.5)  # type: ignore[arg-type]
    inner, factor = _scaled(gate)
    clip = _producer(inner, "Clip")
    if clip is None or not _is_near(outer * factor * 6, 1.0):
        return False
    low, top = _clip_bounds(clip)
    add = _producer(clip.inputs[0], "Add")
    parts = None if add is None else _split_scalar(add)
    return low == 0.0 and top == 6.0 and parts is not None and parts[0] is x and _is_near(parts[1], 3.0)


def conv_add_to_bias(graph: ir.Graph, node: ir.Node) -> bool:
    """Conv -> Add(constant per channel) becomes the convolution's bias (unmerged, pruning breaks on the constant)."""
    if node.op_type != "Add":
        return False
    for index in (0, 1):
        conv = node.inputs[index].producer() if node.inputs[index] is not None else None
        offset = array_of(node.inputs[1 - index])
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or offset is None:
            continue
        channels = _out_channels(conv)
        per_channel = offset.ndim in (3, 4) and offset.shape[-3] == channels == offset.size
        if len(conv.outputs[0].uses()) != 1 or conv.outputs[0].is_graph_output() or not (per_channel or offset.size == 1):
            continue
        bias = np.broadcast_to(offset.reshape(-1), (channels,)).astype(np.float32)
        old = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
        total = bias if old is None else old + bias
        value = constant(graph, f"{conv.outputs[0].name}.bias", np.ascontiguousarray(total))
        attributes = {name: found.value for name, found in conv.attributes.items()}
        inputs = [conv.inputs[0], conv.inputs[1], value]
        insert_and_replace(graph, node, conv.op_type, inputs, **attributes)
        graph.remove(conv, safe=True)
        return True
    return False


def _out_channels(conv: ir.Node) -> int:
    weight = array_of(conv.inputs[1])
    if weight is None:
        return -1
    groups = int(attribute(conv, "group", 1))  # type: ignore[call-overload]
    return weight.shape[0] if conv.op_type == "Conv" else weight.shape[1] * groups


def matmul_add_to_gemm(graph: ir.Graph, node: ir.Node) -> bool:
    """MatMul(x [N, I], constant) + constant [O] -> Gemm, which has an integer kernel with the bias inside."""
    if node.op_type != "Add":
        return False
    for index in (0, 1):
        matmul = _producer(node.inputs[index], "MatMul")
        bias = array_of(node.inputs[1 - index])
        if matmul is None or bias is None or len(matmul.outputs[0].uses()) != 1 or matmul.outputs[0].is_graph_output():
            continue
        weight, shape = array_of(matmul.inputs[1]), matmul.inputs[0].shape if matmul.inputs[0] is not None else None
        if weight is None or shape is None or len(shape) != 2 or weight.ndim != 2 or bias.shape != (weight.shape[1],):
            continue
        inputs = [matmul.inputs[0], matmul.inputs[1], node.inputs[1 - index]]
        insert_and_replace(graph, node, "Gemm", inputs)
        graph.remove(matmul, safe=True)
        return True
    return False


def zero_state(graph: ir.Graph, node: ir.Node) -> bool:
    """An LSTM or GRU whose initial states are built as zeros of the right size -> the same without them."""
    if node.op_type not in ("LSTM", "GRU"):
        return False
    changed = False
    for index in (5, 6):
        if len(node.inputs) > index and node.inputs[index] is not None and _is_zero(node.inputs[index]):
            node.replace_input_with(index, None)
            changed = True
    return changed


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
        return fill is None or not np.any(fill.numpy())  # type: ignore[attr-defined]
    if node.op_type in ("Tile", "Expand", "Slice", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Gather"):
        return _is_zero(node.inputs[0])
    return node.op_type == "Concat" and all(_is_zero(part) for part in node.inputs)


def mean_to_pool(graph: ir.Graph, node: ir.Node) -> bool:
    """ReduceMean over height and width, dimensions kept -> GlobalAveragePool (which has an integer kernel)."""
    if node.op_type != "ReduceMean" or attribute(node, "keepdims", 1) != 1 or node.inputs[0] is None:
        return False
    axes = attribute(node, "axes")
    if axes is None and len(node.inputs) > 1:
        axes = array_of(node.inputs[1])
    shape = node.inputs[0].shape
    if axes is None or shape is None or len(shape) != 4:
        return False
    if sorted(int(axis) % 4 for axis in np.asarray(axes).reshape(-1)) != [2, 3]:
        return False
    insert_and_replace(graph, node, "GlobalAveragePool", [node.inputs[0]])
    return True


def reshape_to_flatten(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape of [N, ...] to [N, C], however its target is computed -> Flatten, which names no channel count."""
    if node.op_type != "Reshape":
        return False
    before, after = _dims(node.inputs[0]), _dims(node.outputs[0])
    if before is None or after is None or len(after) != 2 or len(before) < 3 or before[0] != after[0]:
        return False
    insert_and_replace(graph, node, "Flatten", [node.inputs[0]], axis=1)
    return True


def drop_no_op(graph: ir.Graph, node: ir.Node) -> bool:
    """Identity, inference-time Dropout, and reshaping to the same shape are nothing."""
    source, result = node.inputs[0] if node.inputs else None, node.outputs[0] if node.outputs else None
    if source is None or result is None:
        return False
    same = _dims(source) is not None and _dims(source) == _dims(result)
    if node.op_type not in ("Identity", "Dropout") and not (node.op_type in ("Reshape", "Flatten") and same):
        return False
    if result.is_graph_output():
        if source.is_graph_output() or source.producer() is None:
            return False
        name, result.name = result.name, f"{result.name}.dropped"
        source.name = name
        graph.outputs[list(graph.outputs).index(result)] = source
    ir.convenience.replace_all_uses_with(result, source)
    if not any(output.uses() for output in node.outputs):
        graph.remove(node, safe=True)
    return True


def _dims(value: ir.Value | None) -> tuple[int | str, ...] | None:
    """The shape as numbers and symbols, or None where a dimension is not known at all."""
    if value is None or value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return None if any(dim is None or (isinstance(dim, int) and dim < 0) for dim in dims) else tuple(dims)  # type: ignore[arg-type]


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
    conv_add_to_bias,
    matmul_add_to_gemm,
    zero_state,
    mean_to_pool,
    reshape_to_flatten,
)
