"""Questions about the nodes of an imported module: what computes in integers, what only moves them, who reads whom.

Which nodes compute in integers follows the kernels that onnxruntime has (see `INTEGER_ELEMENTWISE`).
"""

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn

from compress.graph.indexing import pad_reached, pad_same
from compress.graph.modules import pad_image, resize_by, resize_to

INTEGER_ELEMENTWISE = frozenset({"Add", "Mul", "GlobalAveragePool", "Concat", "HardSwish"})
"""Operators besides Conv and Gemm with an integer kernel (HardSwish as an Add and a Mul)."""
PASS_THROUGH = frozenset(
    {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "Slice"}
)
"""Operators that move integers and keep their scale; so does a Resize to the nearest."""
LAST = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "HardSigmoid", "Tanh", "Relu", "Clip"})
"""Activations that stand behind the layer that computes an output."""
SATURATING = (nn.ReLU, nn.Hardtanh)
"""Activations that saturation of what computes their input does for nothing (ReLU6 is a Hardtanh)."""


def integer_nodes(module: fx.GraphModule, float_layers: Collection[str] = ()) -> set[fx.Node]:
    """The nodes that compute in integers.

    Convolutions and Gemms do unless they are the stem, named, or marked as float; an element-wise node does where at
    least one operand comes from an integer node and one result goes to one. Found by starting with all and removing to
    a fixed point.
    """
    layers = {
        node
        for node in module.graph.nodes
        if _is_integer_layer(module, node) and str(node.target) not in float_layers and not node.meta.get("float")
    }
    elementwise = {
        node
        for node in module.graph.nodes
        if node.meta.get("op_type") in INTEGER_ELEMENTWISE
        and not node.meta.get("float")
        and all(is_computed(x) for x in operands(node))
    }
    integer = layers | elementwise
    while True:
        dropped = {
            node
            for node in integer & elementwise
            if not any(source_of(module, x) in integer for x in operands(node))
            or not any(user in integer for user in consumers(module, node))
        }
        if not dropped:
            return integer
        integer -= dropped


def output_values(module: fx.GraphModule) -> set[str]:
    """Values of convolutions that compute an output: nothing but activations and moves stands behind them.

    In integers they would round the output itself to 8 bits, and nothing behind them could compensate for it.
    """
    convolutions = [node for node in module.graph.nodes if isinstance(module_of(module, node), nn.Conv2d)]
    return {value_name(node) for node in convolutions if _is_output(node)}


def _is_output(node: fx.Node) -> bool:
    if node.op == "output":
        return True
    users = [user for user in node.users if user.op == "output" or user.meta.get("op_type") in LAST or is_move(user)]
    return bool(users) and len(users) == len(node.users) and all(_is_output(user) for user in users)


def is_quantised(module: fx.GraphModule, node: fx.Node, integer: set[fx.Node]) -> bool:
    """Whether a tensor needs a range of its own: an integer node computes or reads it."""
    if node.op in ("output", "get_attr") or is_move(node):
        return False
    if any(is_fused(module, user) for user in node.users):
        return False
    readers = consumers(module, node)
    if any(reader in integer for reader in readers):
        return True
    computed = source_of(module, node) in integer
    return computed and not isinstance(module_of(module, node), nn.Linear)  # it writes float where float is read


def module_of(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(module, node), nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def _is_integer_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    """Layers with an integer kernel worth using: Gemm, MatMul with a constant, and convolutions but the stem.

    A convolution that reads the image has too few channels for integer kernels (0.5 to 0.65x of fp32, measured).
    The logits of a recogniser are a MatMul: 96 units to 6625 classes in 80 steps take 1.6 ms so, 2.1 ms in float,
    softmax included (AVX2, one thread).
    """
    layer = module_of(module, node)
    if isinstance(layer, nn.Conv2d):
        return source_of(module, data_of(node)).op != "placeholder"
    return isinstance(layer, nn.Linear)


def data_of(node: fx.Node) -> fx.Node:
    """The tensor that a node of one tensor works on; further operands (the target of a reshape) are not data."""
    data = node.args[0]
    assert isinstance(data, fx.Node)
    return data


def operands(node: fx.Node) -> list[Any]:
    """What a node computes from; tensors are fx nodes, constants are numbers."""
    if node.target is torch.cat:
        return list(node.args[0])  # type: ignore[arg-type]
    if node.op == "call_function" and node.target in (operator.add, operator.mul):
        return list(node.args)
    return list(node.all_input_nodes)


def is_computed(operand: Any) -> bool:
    """Whether an operand is a tensor that the network computes or is given, not a constant."""
    return isinstance(operand, fx.Node) and operand.op != "get_attr"


def is_fused(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is an activation that saturation of the convolution's or Add's output computes."""
    layer = module_of(module, node)
    if not isinstance(layer, SATURATING) or (isinstance(layer, nn.Hardtanh) and layer.min_val != 0):
        return False
    before = data_of(node)
    saturates = isinstance(module_of(module, before), nn.Conv2d) or before.meta.get("op_type") == "Add"
    return saturates and len(before.users) == 1


def is_move(node: fx.Node) -> bool:
    """Whether a node hands integers on as they are, or is the uneven padding that belongs to the layer behind it."""
    if node.meta.get("float"):
        return False
    nearest = node.target in (resize_by, resize_to) and "nearest" in node.args
    padding = node.target in (pad_image, pad_reached, pad_same) and "op_type" not in node.meta
    return node.meta.get("op_type") in PASS_THROUGH or nearest or padding


def source_of(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node that computes a tensor's integers, looking through fused activations and moves."""
    while is_fused(module, node) or is_move(node):
        node = data_of(node)
    return node


def consumers(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """The nodes that read a tensor, looking through fused activations and moves (but not from a move's target size)."""
    found: list[fx.Node] = []
    for user in node.users:
        if (is_fused(module, user) or is_move(user)) and data_of(user) is node:
            found += consumers(module, user)
        else:
            found.append(user)
    return found


def value_name(node: fx.Node) -> str:
    """The ONNX value that a node computes: not the node's own where a MatMul has taken in the Add of its bias."""
    return str(node.meta.get("value", node.meta.get("onnx", node.name)))


def reads_any(node: fx.Node, tensors: Collection[fx.Node]) -> bool:
    """Whether a node reads one of these tensors, looking through moves."""
    for before in node.all_input_nodes:
        while is_move(before):
            before = data_of(before)
        if before in tensors:
            return True
    return False
