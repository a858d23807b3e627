"""The operator table, and the handlers of activations, arithmetic and reductions."""

import operator
from collections.abc import Callable
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import nn

from compress.compute.element_types import type_name
from compress.graph import elementwise, indexing, modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.operators.arguments import int_list
from compress.graph.operators.layers import LAYERS
from compress.graph.operators.picking import PICKING
from compress.graph.operators.pooling import POOLING
from compress.graph.operators.resizing import RESIZING
from compress.graph.operators.shapes import SHAPES


def _activation(make: Callable[[Attributes], nn.Module]) -> Handler:
    return lambda g, node, at: g.module(node, make(at), g.value(node.input[0]))


def _function(function: Callable[..., Any]) -> Handler:
    return lambda g, node, at: g.call(node, function, g.value(node.input[0]))


def _arithmetic(function: Callable[..., Any]) -> Handler:
    return lambda g, node, at: g.call(node, function, g.operand(node.input[0]), g.operand(node.input[1]))


def _clip(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    low, high = (
        g.operand(node.input[position]) if len(node.input) > position and node.input[position] else None
        for position in (1, 2)
    )
    if isinstance(low, float) and isinstance(high, float):
        made = nn.ReLU6() if (low, high) == (0.0, 6.0) else nn.Hardtanh(low, high)
        return g.module(node, made, g.value(node.input[0]))
    return g.call(node, torch.clamp, g.value(node.input[0]), low, high)


def _softmax(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.Softmax(dim=at.get("axis", -1)), g.value(node.input[0]))


def _reduce(function: Callable[..., Any]) -> Handler:
    """A reduction that takes `dim` (a list; None for all) and `keepdim`."""

    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        axes = int_list(g, node, at, "axes", 1)
        x = g.value(node.input[0])
        if not axes and at.get("noop_with_empty_axes", 0):
            return g.call(node, torch.clone, x)
        return g.call(node, function, x, dim=axes or None, keepdim=bool(at.get("keepdims", 1)))

    return handler


def _variadic(function: Callable[..., Any]) -> Handler:
    """An operator of any number of operands, two by two."""

    def handler(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
        made = [g.value(name) for name in node.input]
        if len(made) == 1:
            return g.call(node, torch.clone, made[0])
        result = made[0]
        for operand in made[1:-1]:
            result = g.graph.call_function(function, (result, operand))
        return g.call(node, function, result, made[-1])

    return handler


def _values(function: Callable[..., Any], *names: str) -> Handler:
    """A function of the node's inputs, all tensors, and of some of its attributes by name."""
    return lambda g, node, at: g.call(
        node, function, *(g.value(name) for name in node.input), **{name: at[name] for name in names if name in at}
    )


def _mean_of(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    made = [g.value(name) for name in node.input]
    return g.call(node, elementwise.mean_of, *made)


def _einsum(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.call(node, torch.einsum, at["equation"].decode(), *(g.value(name) for name in node.input))


def _cum_sum(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    axis = g.constant(node.input[1])
    if axis is None or at.get("exclusive", 0) or at.get("reverse", 0):
        raise Unsupported("exclusive, reverse, or an axis computed at run time")
    return g.call(node, torch.cumsum, g.value(node.input[0]), int(axis.reshape(-1)[0]))


def _cast(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    # Float64 appears in the arithmetic of sizes alone, where float32 is as good.
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float32}
    kinds |= {2: torch.uint8, 3: torch.int8, 5: torch.int16}
    if at["to"] not in kinds:
        raise Unsupported(f"to {type_name(at['to'])}")
    return g.call(node, torch.Tensor.to, g.value(node.input[0]), kinds[at["to"]])


def _gelu(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    return g.module(node, nn.GELU(approximate=at.get("approximate", b"none").decode()), g.value(node.input[0]))


OPS: dict[str, Handler] = {
    **LAYERS,
    **POOLING,
    **SHAPES,
    **PICKING,
    **RESIZING,
    "Relu": _activation(lambda at: nn.ReLU()),
    "HardSwish": _activation(lambda at: nn.Hardswish()),
    "HardSigmoid": _activation(lambda at: modules.HardSigmoid(at.get("alpha", 0.2), at.get("beta", 0.5))),
    "Sigmoid": _activation(lambda at: nn.Sigmoid()),
    "Tanh": _activation(lambda at: nn.Tanh()),
    "LeakyRelu": _activation(lambda at: nn.LeakyReLU(at.get("alpha", 0.01))),
    "Elu": _activation(lambda at: nn.ELU(at.get("alpha", 1.0))),
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": _softmax,
    "LogSoftmax": _activation(lambda at: nn.LogSoftmax(dim=at.get("axis", -1))),
    "Add": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
    "Mul": _arithmetic(operator.mul),
    "Div": _arithmetic(modules.onnx_div),
    "ReduceMean": _reduce(torch.mean),
    "Cast": _cast,
    "Identity": _function(torch.clone),
    "Dropout": _activation(lambda at: nn.Identity()),
    "Sqrt": _function(torch.sqrt),
    "Exp": _function(torch.exp),
    "Erf": _function(torch.erf),
    "Neg": _function(operator.neg),
    "Pow": _arithmetic(torch.pow),
    "Softplus": _function(F.softplus),
    # element-wise
    **{name: _function(function) for name, function in elementwise.UNARY.items()},
    **{name: _values(function) for name, function in elementwise.BINARY.items()},
    "Selu": _activation(
        lambda at: elementwise.Selu(at.get("alpha", elementwise.SELU[0]), at.get("gamma", elementwise.SELU[1]))
    ),
    "Celu": _activation(lambda at: nn.CELU(at.get("alpha", 1.0))),
    "ThresholdedRelu": _activation(lambda at: nn.Threshold(at.get("alpha", 1.0), 0.0)),
    "Shrink": lambda g, node, at: g.call(
        node, elementwise.shrink, g.value(node.input[0]), at.get("bias", 0.0), at.get("lambd", 0.5)
    ),
    "Mod": lambda g, node, at: g.call(
        node, torch.fmod if at.get("fmod", 0) else torch.remainder, g.value(node.input[0]), g.value(node.input[1])
    ),
    "Where": _values(torch.where),
    "Min": _variadic(torch.minimum),
    "Max": _variadic(torch.maximum),
    "Sum": _variadic(operator.add),
    "Mean": _mean_of,
    "CumSum": _cum_sum,
    "Einsum": _einsum,
    # reductions
    **{name: _reduce(function) for name, function in elementwise.REDUCTIONS.items()},
    "LRN": lambda g, node, at: g.module(
        node,
        nn.LocalResponseNorm(at["size"], at.get("alpha", 1e-4), at.get("beta", 0.75), at.get("bias", 1.0)),
        g.value(node.input[0]),
    ),
    # sizes
    "Range": _values(indexing.number_range),
    "Size": _function(elementwise.size_of),
}
"""Operator -> its handler."""
