"""Turn an imported module into its quantisation-aware twin: int8 weights, and a PACT on every integer tensor.

Which nodes compute in integers follows the kernels that onnxruntime has (see `INTEGER_ELEMENTWISE`); the exporter reads
the choice back from the module, so the model that is trained and the file that is written agree by construction.
"""

import copy
import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import fx, nn

from compress.graph.modules import pad_image, resize_by, resize_to
from compress.quant.layers import IntegerHardSwish, QuantConv2d, QuantConvTranspose2d, QuantLayer, QuantLinear
from compress.quant.pact import HARD_SWISH_MINIMUM, PACT

INTEGER_ELEMENTWISE = frozenset({"Add", "Mul", "GlobalAveragePool", "Concat", "HardSwish"})
"""Operators besides Conv and Gemm with an integer kernel (HardSwish as an Add and a Mul)."""
PASS_THROUGH = frozenset(
    {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "Slice"}
)
"""Operators that move integers and keep their scale; so does a Resize to the nearest."""
LAST = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "HardSigmoid", "Tanh", "Relu", "Clip"})
"""Activations that stand behind the layer that computes an output."""
WITHIN_RANGE = PASS_THROUGH | {"GlobalAveragePool", "AveragePool", "Resize", "Split"}
"""Operators whose results lie between their input's ends."""
ORDINARY_WEIGHT = 0.05
"""Least root mean square of a layer's weights, BatchNorm folded, in the three PP-OCR nets (but for dead layers and the
detector's head)."""
STORED_BITS = 8
"""Of weights that are stored as int8 and computed with in float: only sums of integers saturate. Not of layers that
read a dequantised tensor: where their result is quantised again, onnxruntime computes them in integers anyway."""
SATURATING = (nn.ReLU, nn.Hardtanh)
"""Activations that saturation of what computes their input does for nothing (ReLU6 is a Hardtanh)."""


def prepare_qat(
    module: fx.GraphModule,
    *,
    float_layers: Collection[str] = (),
    float_values: Collection[str] = (),
    pact: bool = True,
    asymmetric_hard_swish: bool = False,
    weight_bits: int = 8,
) -> fx.GraphModule:
    """A deep copy of the module that computes what its int8 file will compute.

    Args:
        module: imported from a lowered model (no BatchNorm left behind a convolution).
        float_layers: names of layers to compute in float; their weights are stored as int8 all the same.
        float_values: the same for any operators, by the ONNX value that they compute (see `compress.quant.placement`).
        pact: learn the thresholds; False keeps them at their calibrated values (plain QAT).
        asymmetric_hard_swish: use [-0.375, alpha] after hard-swish instead of [-alpha, alpha].
        weight_bits: 8, or 7 for CPUs whose int8 products saturate in 16 bits (x86 without VNNI).

    Raises:
        ValueError: float_layers names something that is not a convolution or linear layer of the module.
    """
    module = copy.deepcopy(module)
    layers = {str(node.target) for node in module.graph.nodes if _is_layer(module, node)}
    unknown = sorted(set(float_layers) - layers)
    if unknown:
        raise ValueError(f"float_layers: no such layer: {', '.join(unknown)}. Layers: {', '.join(sorted(layers))}.")
    for node in module.graph.nodes:
        if not {node.meta.get("onnx"), node.meta.get("value")}.isdisjoint(float_values):
            node.meta["float"] = True
    integer = integer_nodes(module, float_layers)
    quantised = [node for node in module.graph.nodes if is_quantised(module, node, integer)]
    for node in list(module.graph.nodes):
        bits = weight_bits if node in integer or _reads_any(node, quantised) else STORED_BITS
        _replace_module(module, node, node in integer, bits)
    for node in quantised:
        _insert_pact(module, node, pact, asymmetric_hard_swish)
    for node in integer:
        _connect_input(module, node)
    module.graph.lint()
    module.recompile()
    return module.eval()


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
        and all(_is_computed(x) for x in _operands(node))
    }
    integer = layers | elementwise
    while True:
        dropped = {
            node
            for node in integer & elementwise
            if not any(_source(module, x) in integer for x in _operands(node))
            or not any(user in integer for user in _consumers(module, node))
        }
        if not dropped:
            return integer
        integer -= dropped


def output_values(module: fx.GraphModule) -> set[str]:
    """Values of convolutions that compute an output: nothing but activations and moves stands behind them.

    In integers they would round the output itself to 8 bits, and nothing behind them could make up for it.
    """
    convolutions = [node for node in module.graph.nodes if isinstance(_module_of(module, node), nn.Conv2d)]
    return {value_name(node) for node in convolutions if _is_output(node)}


def _is_output(node: fx.Node) -> bool:
    if node.op == "output":
        return True
    users = [user for user in node.users if user.op == "output" or user.meta.get("op_type") in LAST or is_move(user)]
    return bool(users) and len(users) == len(node.users) and all(_is_output(user) for user in users)


def pacts(module: nn.Module) -> Iterator[tuple[str, PACT]]:
    """All activation quantisers, by name."""
    return ((name, child) for name, child in module.named_modules() if isinstance(child, PACT))


def qat_parameter_groups(
    module: nn.Module, *, lr: float, weight_decay: float, l2: float, lr_multiplier: float
) -> list[dict[str, Any]]:
    """Optimiser groups: weights by their size, thresholds with their own L2 and learning rate.

    Folding a BatchNorm multiplies its layer's weights by whatever undoes the inputs' size, and Adam's steps know
    nothing of that: the deployed detector's head has weights of 9e-5 where other layers have 0.05 to 2, and one step of
    1e-4 destroyed it (measured). So layers whose weights are smaller than `ORDINARY_WEIGHT` learn as much slower.

    Args:
        module: from `prepare_qat`.
        lr: learning rate of the weights.
        weight_decay: L2 on the weights.
        l2: L2 on alpha (0.001 in PP-OCR; 1e-4 and 2e-5 are published too).
        lr_multiplier: alpha's learning rate as a multiple of `lr`.
    """
    alphas = [pact.alpha for _, pact in pacts(module) if isinstance(pact.alpha, nn.Parameter)]
    known = {id(alpha) for alpha in alphas}
    weights = [parameter for parameter in module.parameters() if id(parameter) not in known]
    factors = {id(weight): _rate_factor(weight) for weight in _layer_weights(module)}
    ordinary = [weight for weight in weights if factors.get(id(weight), 1.0) == 1.0]
    groups: list[dict[str, Any]] = [{"params": ordinary, "lr": lr, "weight_decay": weight_decay}]
    if alphas:
        groups.append({"params": alphas, "lr": lr * lr_multiplier, "weight_decay": l2})
    small = [weight for weight in weights if factors.get(id(weight), 1.0) < 1.0]
    groups += [{"params": [w], "lr": lr * factors[id(w)], "weight_decay": weight_decay} for w in small]
    return groups


def _rate_factor(weight: torch.Tensor) -> float:
    """Learning rate of a weight over that of ordinary ones: its root mean square over theirs, at most 1."""
    return min(1.0, float(weight.detach().square().mean().sqrt()) / ORDINARY_WEIGHT)


def _layer_weights(module: nn.Module) -> Iterator[torch.Tensor]:
    return (layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))


def _module_of(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(_module_of(module, node), nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def _is_integer_layer(module: fx.GraphModule, node: fx.Node) -> bool:
    """Layers with an integer kernel worth using: Gemm, MatMul with a constant, and convolutions but the stem.

    A convolution that reads the image has too few channels for integer kernels (0.5 to 0.65x of fp32, measured).
    The logits of a recogniser are a MatMul: 96 units to 6625 classes in 80 steps take 1.6 ms so, 2.1 ms in float,
    softmax included (AVX2, one thread, `scripts/time_logits.py`).
    """
    layer = _module_of(module, node)
    if isinstance(layer, nn.Conv2d):
        return _source(module, _data(node)).op != "placeholder"
    return isinstance(layer, nn.Linear)


def _data(node: fx.Node) -> fx.Node:
    """The tensor that a node of one tensor works on; further operands (the target of a reshape) are not data."""
    data = node.args[0]
    assert isinstance(data, fx.Node)
    return data


def _operands(node: fx.Node) -> list[Any]:
    """What a node computes from; tensors are fx nodes, constants are numbers."""
    if node.target is torch.cat:
        return list(node.args[0])  # type: ignore[arg-type]
    if node.op == "call_function" and node.target in (operator.add, operator.mul):
        return list(node.args)
    return list(node.all_input_nodes)


def _is_computed(operand: Any) -> bool:
    """Whether an operand is a tensor that the network computes or is given, not a constant."""
    return isinstance(operand, fx.Node) and operand.op != "get_attr"


def is_fused(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is an activation that saturation of the convolution's or Add's output computes."""
    layer = _module_of(module, node)
    if not isinstance(layer, SATURATING) or (isinstance(layer, nn.Hardtanh) and layer.min_val != 0):
        return False
    before = _data(node)
    saturates = isinstance(_module_of(module, before), nn.Conv2d) or before.meta.get("op_type") == "Add"
    return saturates and len(before.users) == 1


def is_move(node: fx.Node) -> bool:
    """Whether a node hands integers on as they are, or is the uneven padding that belongs to the layer behind it."""
    if node.meta.get("float"):
        return False
    nearest = node.target in (resize_by, resize_to) and "nearest" in node.args
    padding = node.target is pad_image and "op_type" not in node.meta
    return node.meta.get("op_type") in PASS_THROUGH or nearest or padding


def _source(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node that computes a tensor's integers, looking through fused activations and moves."""
    while is_fused(module, node) or is_move(node):
        node = _data(node)
    return node


def _consumers(module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """The nodes that read a tensor, looking through fused activations and moves (but not from a move's target size)."""
    found: list[fx.Node] = []
    for user in node.users:
        if (is_fused(module, user) or is_move(user)) and _data(user) is node:
            found += _consumers(module, user)
        else:
            found.append(user)
    return found


def is_quantised(module: fx.GraphModule, node: fx.Node, integer: set[fx.Node]) -> bool:
    """Whether a tensor needs a range of its own: an integer node computes or reads it."""
    if node.op in ("output", "get_attr") or is_move(node):
        return False
    if any(is_fused(module, user) for user in node.users):
        return False
    readers = _consumers(module, node)
    if any(reader in integer for reader in readers):
        return True
    computed = _source(module, node) in integer
    return computed and not isinstance(_module_of(module, node), nn.Linear)  # it writes float where float is read


def _reads_any(node: fx.Node, tensors: Collection[fx.Node]) -> bool:
    """Whether a node reads one of these tensors, looking through moves."""
    for before in node.all_input_nodes:
        while is_move(before):
            before = _data(before)
        if before in tensors:
            return True
    return False


def _replace_module(module: fx.GraphModule, node: fx.Node, is_integer: bool, weight_bits: int) -> None:
    layer = _module_of(module, node)
    made: nn.Module | None = None
    if type(layer) is nn.Conv2d:
        made = QuantConv2d.from_float(layer, weight_bits)
    elif type(layer) is nn.ConvTranspose2d:
        made = QuantConvTranspose2d.from_float(layer, weight_bits)
    elif type(layer) is nn.Linear:
        made = QuantLinear.from_float(layer, weight_bits)
    elif isinstance(layer, nn.Hardswish) and is_integer:
        made = IntegerHardSwish()
    if made is not None:
        setattr(module, str(node.target), made)
    node.meta["integer"] = is_integer


def _insert_pact(module: fx.GraphModule, node: fx.Node, learned: bool, asymmetric: bool) -> None:
    lower, upper = value_range(module, node, asymmetric)
    name = f"{node.name}_pact"
    fixed = upper is not None
    module.add_module(name, PACT(lower, 6.0 if upper is None else upper, learned=learned, fixed=fixed))
    users = list(node.users)
    with module.graph.inserting_after(node):
        made = module.graph.call_module(name, (node,))
    made.meta["onnx"] = value_name(node)
    for user in users:
        user.replace_input_with(node, made)


def value_name(node: fx.Node) -> str:
    """The ONNX value that a node computes: not the node's own where a MatMul has taken in the Add of its bias."""
    return str(node.meta.get("value", node.meta.get("onnx", node.name)))


def _connect_input(module: fx.GraphModule, node: fx.Node) -> None:
    """Tell an integer layer which quantiser its input comes from; not a MatMul, whose bias is a float Add behind it."""
    layer = _module_of(module, node)
    if not isinstance(layer, QuantLayer) or node.meta.get("op_type") == "MatMul":
        return
    before = _data(node)
    while is_move(before):
        before = _data(before)
    source = _module_of(module, before)
    layer.source = (source,) if isinstance(source, PACT) else ()


def value_range(module: fx.GraphModule, node: fx.Node, asymmetric: bool) -> tuple[float | None, float | None]:
    """What is known of a tensor's range from how it is computed: (lower end or None, exact upper end or None)."""
    layer = _module_of(module, node)
    if isinstance(layer, PACT) or is_move(node) or node.meta.get("op_type") in WITHIN_RANGE:
        return value_range(module, _data(node), asymmetric)
    if node.meta.get("op_type") in ("HardSigmoid", "Sigmoid", "Softmax") or (
        isinstance(layer, nn.Hardtanh) and (layer.min_val, layer.max_val) == (0, 1)
    ):
        return 0.0, 1.0
    if isinstance(layer, nn.ReLU) or (isinstance(layer, nn.Hardtanh) and layer.min_val == 0):
        return 0.0, None
    if isinstance(layer, nn.Hardswish | IntegerHardSwish):
        return (HARD_SWISH_MINIMUM if asymmetric else None), None
    combine = _COMBINE.get(node.meta.get("op_type", ""))
    operands = _operands(node)
    if combine is None or not all(_is_computed(x) for x in operands):
        return None, None
    return combine([value_range(module, x, asymmetric) for x in operands]), None


Range = tuple[float | None, float | None]


def _product_lower(ranges: list[Range]) -> float | None:
    """Lower end of a product where one factor is a gate in [0, 1], or both are positive."""
    lowers = [lower for lower, _ in ranges]
    if any(lower is None for lower in lowers):
        return None
    if all(lower == 0 for lower in lowers):
        return 0.0
    gated = any(lower == 0 and upper == 1 for lower, upper in ranges)
    return min(lower for lower in lowers if lower is not None) if gated else None


def _sum_lower(ranges: list[Range]) -> float | None:
    return 0.0 if all(lower == 0 for lower, _ in ranges) else None


def _union_lower(ranges: list[Range]) -> float | None:
    lowers = [lower for lower, _ in ranges if lower is not None]
    return min(lowers) if len(lowers) == len(ranges) else None


_COMBINE: dict[str, Callable[[list[Range]], float | None]] = {
    "Mul": _product_lower,
    "Add": _sum_lower,
    "Concat": _union_lower,
}
