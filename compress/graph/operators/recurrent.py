"""LSTM, GRU and RNN: ONNX node -> PyTorch layer, and PyTorch layer -> ONNX weights.

ONNX orders LSTM gates i, o, f, c and PyTorch i, f, g (= c), o; GRU gates z, r, h and r, z, n (= h).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from compress.graph import modules
from compress.graph.importer import Attributes, Importer, Unsupported
from compress.graph.operators.weights import Weights, as_array, optional_weight, set_tensor
from compress.graph.recurrent_cells import ResetBeforeGRU

GATES_TO_TORCH = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
GATES_TO_ONNX = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
"""The activations of each direction that PyTorch's layers (and ONNX's by default) have."""


def recurrent_layer(g: Importer, node: onnx.NodeProto, at: Attributes) -> tuple[Any, ...]:
    """The layer, its output and its last states; a layer that runs backwards is one of the steps turned round."""
    kind = node.op_type
    direction = at.get("direction", b"forward")
    directions = 2 if direction == b"bidirectional" else 1
    _check_recurrent(node, at, directions)
    inputs, recurrent, bias = g.weight(node.input[1]), g.weight(node.input[2]), optional_weight(g, node, 3)
    make = _recurrent_kind(kind, at)
    layer = make(inputs.shape[2], recurrent.shape[2], bias=bias is not None, bidirectional=directions == 2)
    order = GATES_TO_TORCH[kind]
    for place, suffix in enumerate(("", "_reverse")[:directions]):
        set_tensor(getattr(layer, f"weight_ih_l0{suffix}"), _reorder(inputs[place], order))
        set_tensor(getattr(layer, f"weight_hh_l0{suffix}"), _reorder(recurrent[place], order))
        if bias is not None:
            first, second = bias[place].chunk(2)
            set_tensor(getattr(layer, f"bias_ih_l0{suffix}"), _reorder(first, order))
            set_tensor(getattr(layer, f"bias_hh_l0{suffix}"), _reorder(second, order))
    backwards = direction == b"reverse"  # a forward layer of the steps from the last to the first
    x = g.value(node.input[0])
    result = g.module(node, layer, g.graph.call_function(torch.flip, (x, [0])) if backwards else x)
    output = g.call(node, modules.recurrent_output, result, directions)
    outputs: list[Any] = [g.call(node, torch.flip, output, [0]) if backwards else output]
    for position in range(1, len(node.output)):
        outputs.append(g.call(node, modules.recurrent_state, result, position - 1, output=position))
    return tuple(outputs)


def _recurrent_kind(kind: str, at: Attributes) -> Callable[..., nn.RNNBase]:
    """What makes the PyTorch layer."""
    if kind == "RNN":
        names = [name.decode().lower() for name in at.get("activations", [b"tanh"])]
        return functools.partial(nn.RNN, nonlinearity=names[0])
    if kind == "GRU":
        return nn.GRU if at.get("linear_before_reset", 0) else ResetBeforeGRU
    return nn.LSTM


def _check_recurrent(node: onnx.NodeProto, at: Attributes, directions: int) -> None:
    """Raise for what PyTorch's layers do not compute."""
    activations = [name.decode().lower() for name in at.get("activations", [])]
    known = [ACTIVATIONS[node.op_type], ["relu"]] if node.op_type == "RNN" else [ACTIVATIONS[node.op_type]]
    if activations and activations not in [names * directions for names in known]:
        raise Unsupported(f"activations {', '.join(activations)}")
    if at.get("layout", 0) or "clip" in at or at.get("input_forget", 0):
        raise Unsupported("layout, clip or input_forget")
    if any(node.input[4:]):
        raise Unsupported("sequence lengths, initial states or peepholes")


def _reorder(gates: Tensor, order: Sequence[int]) -> Tensor:
    """Permute the gate blocks along the first dimension."""
    blocks = gates.chunk(len(order))
    return torch.cat([blocks[index] for index in order])


def recurrent_weights(module: nn.Module, node: onnx.NodeProto) -> Weights:
    """W [D, gates*H, I], R [D, gates*H, H] and B [D, 2*gates*H] of an LSTM, GRU or RNN."""
    assert isinstance(module, nn.LSTM | nn.GRU | nn.RNN)
    order = GATES_TO_ONNX[node.op_type]
    suffixes = ("", "_reverse") if module.bidirectional else ("",)

    def stacked(name: str) -> Tensor:
        return torch.stack([_reorder(getattr(module, f"{name}_l0{suffix}").detach(), order) for suffix in suffixes])

    weights = {1: as_array(stacked("weight_ih")), 2: as_array(stacked("weight_hh"))}
    if module.bias:
        weights[3] = as_array(torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1))
    return weights
