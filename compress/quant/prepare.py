"""Turn an imported module into its quantisation-aware twin: int8 weights, and a PACT on every integer tensor.

Which nodes compute in integers is `compress.quant.nodes`'s business; the exporter reads the choice back from the
module, so the model that is trained and the file that is written agree by construction.
"""

import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import fx, nn

from compress.errors import ModelError
from compress.quant.int8_layers import IntegerHardSwish, QuantConv2d, QuantConvTranspose2d, QuantLayer, QuantLinear
from compress.quant.nodes import (
    data_of,
    integer_nodes,
    is_layer,
    is_move,
    is_quantised,
    module_of,
    reads_any,
    value_name,
)
from compress.quant.pact import PACT
from compress.quant.ranges import value_range
from compress.quant.saturation import EVERYTHING, readable_range

ORDINARY_WEIGHT = 0.05
"""Least root mean square of a layer's weights, BatchNorm folded, in the three PP-OCR nets (but for dead layers and the
detector's head)."""
STORED_BITS = 8
"""Of weights that are stored as int8 and computed with in float: only sums of integers saturate. Not of layers that
read a dequantised tensor: where their result is quantised again, onnxruntime computes them in integers anyway."""

WEIGHT_BITS = (7, 8)


def prepare_qat(
    module: fx.GraphModule,
    *,
    float_layers: Collection[str] = (),
    float_values: Collection[str] = (),
    pact: bool = True,
    asymmetric_hard_swish: bool = False,
    two_sided: bool = False,
    weight_bits: int = 8,
) -> fx.GraphModule:
    """A deep copy of the module that computes what its int8 file will compute.

    Args:
        module: imported from a lowered model (no BatchNorm left behind a convolution).
        float_layers: names of layers to compute in float; their weights are stored as int8 all the same.
        float_values: the same for any operators, by the ONNX value that they compute (see `compress.quant.min_cut`).
        pact: learn the thresholds; False keeps them at their calibrated values (plain QAT).
        asymmetric_hard_swish: use [-0.375, alpha] after hard-swish; else what nothing is known of has.
        two_sided: take lower ends that nothing is known of from calibration, where the range is [-alpha, alpha] else,
            and nothing into a range that the tensor's readers cannot tell apart.
        weight_bits: 8, or 7 for CPUs whose int8 products saturate in 16 bits (x86 without VNNI).

    Raises:
        ModelError: the module is not from `to_torch`.
        ValueError: float_layers names something that is not a convolution or linear layer of the module; or weight_bits
            is neither 7 nor 8.
    """
    if not isinstance(module, fx.GraphModule):
        raise ModelError(
            f"prepare_qat: got a {type(module).__name__}. Must be the module of an imported graph. Use "
            "prepare_qat(to_torch(lower_for_int8(load_model(path)))), or from_torch in place of load_model."
        )
    if weight_bits not in WEIGHT_BITS:
        raise ValueError(f"weight_bits: got {weight_bits}. Must be 7 or 8.")
    module = copy.deepcopy(module)
    layers = {str(node.target) for node in module.graph.nodes if is_layer(module, node)}
    unknown = sorted(set(float_layers) - layers)
    if unknown:
        raise ValueError(f"float_layers: no such layer: {', '.join(unknown)}. Layers: {', '.join(sorted(layers))}.")
    for node in module.graph.nodes:
        if not {node.meta.get("onnx"), node.meta.get("value")}.isdisjoint(float_values):
            node.meta["float"] = True
    integer = integer_nodes(module, float_layers)
    quantised = [node for node in module.graph.nodes if is_quantised(module, node, integer)]
    for node in list(module.graph.nodes):
        bits = weight_bits if node in integer or reads_any(node, quantised) else STORED_BITS
        _replace_module(module, node, node in integer, bits)
    for node in quantised:
        _insert_pact(module, node, pact, asymmetric_hard_swish, two_sided)
    for node in integer:
        _connect_input(module, node)
    module.graph.lint()
    module.recompile()
    return module.eval()


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


def _replace_module(module: fx.GraphModule, node: fx.Node, is_integer: bool, weight_bits: int) -> None:
    layer = module_of(module, node)
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


def _insert_pact(module: fx.GraphModule, node: fx.Node, learned: bool, asymmetric: bool, two_sided: bool) -> None:
    lower, upper = value_range(module, node, asymmetric)
    name = f"{node.name}_pact"
    fixed = upper is not None
    within = readable_range(module, node) if two_sided and lower is None else EVERYTHING
    made = PACT(lower, 6.0 if upper is None else upper, learned, fixed, two_sided, within)
    module.add_module(name, made)
    users = list(node.users)
    with module.graph.inserting_after(node):
        call = module.graph.call_module(name, (node,))
    call.meta["onnx"] = value_name(node)
    for user in users:
        user.replace_input_with(node, call)


def _connect_input(module: fx.GraphModule, node: fx.Node) -> None:
    """Tell an integer layer which quantiser its input comes from; not a MatMul, whose bias is a float Add behind it."""
    layer = module_of(module, node)
    if not isinstance(layer, QuantLayer) or node.meta.get("op_type") == "MatMul":
        return
    before = data_of(node)
    while is_move(before):
        before = data_of(before)
    source = module_of(module, before)
    layer.source = (source,) if isinstance(source, PACT) else ()
