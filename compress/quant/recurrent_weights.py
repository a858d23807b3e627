"""LSTM and GRU layers, which quantisation-aware training leaves in float (as PP-OCR does), and their int8 forms."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from compress.quant import functional

Recurrent = nn.LSTM | nn.GRU | nn.RNN


def recurrent_layers(module: nn.Module) -> dict[str, Recurrent]:
    """The LSTM, GRU and RNN layers of a network, by name."""
    return {name: child for name, child in module.named_modules() if isinstance(child, Recurrent)}


def round_recurrent(module: fx.GraphModule, bits: Mapping[str, int]) -> fx.GraphModule:
    """A deep copy whose LSTM and GRU weights are what a file with int8 weights holds; biases stay as they are.

    Each row (one gate of one unit) has its own step, of inputs and of states. Rounding twice changes nothing.

    Args:
        module: left as it is.
        bits: "LSTM" or "GRU" -> bits of its weights; a kind that is not named stays in float.
    """
    module = copy.deepcopy(module)
    with torch.no_grad():
        for layer in recurrent_layers(module).values():
            for name, parameter in layer.named_parameters():
                if name.startswith("weight") and kind_of(layer) in bits:
                    parameter.copy_(round_rows(parameter, bits[kind_of(layer)]))
    return module


def kind_of(layer: Recurrent) -> str:
    """The ONNX operator of a layer: LSTM, GRU or RNN."""
    return layer.mode.partition("_")[0]  # RNN_TANH or RNN_RELU


def lstm_in_integers(layer: nn.LSTM, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What onnxruntime's DynamicQuantizeLSTM computes on one thread; the layer's weights are rounded already.

    The input, and at each time step the state, are rounded to uint8 by the range they have over the whole batch.

    Args:
        layer: one layer, one direction or both.
        x: [T, N, I].

    Returns:
        As the layer does: [T, N, D*H], and the last states and cells [D, N, H] each.

    Source: onnxruntime's documentation of DynamicQuantizeLSTM, and ONNX's of DynamicQuantizeLinear.
    """
    found = [_direction_in_integers(layer, x, suffix) for suffix in ("", "_reverse")[: 1 + layer.bidirectional]]
    outputs, states, cells = zip(*found, strict=True)
    return torch.cat(outputs, 2), (torch.stack(states), torch.stack(cells))


def _direction_in_integers(layer: nn.LSTM, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [T, N, H], and the last state and cell [N, H], of one direction."""
    weight, recurrent = (getattr(layer, f"weight_{kind}_l0{suffix}") for kind in ("ih", "hh"))
    gates = functional.round_dynamically(x) @ weight.T
    if layer.bias:
        gates = gates + getattr(layer, f"bias_ih_l0{suffix}") + getattr(layer, f"bias_hh_l0{suffix}")
    state = cell = x.new_zeros(x.shape[1], layer.hidden_size)
    made = []
    for step in reversed(gates) if suffix else gates:
        i, f, g, o = (step + functional.round_dynamically(state) @ recurrent.T).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        made.append(state)
    return torch.stack(made[::-1] if suffix else made), state, cell


def round_rows(weight: Tensor, bit_width: int = 8) -> Tensor:
    """A weight [rows, columns] rounded to integers of its rows' steps, as float."""
    return functional.fake_quantize_weight(weight, functional.weight_scale(weight, bit_width, 0), bit_width, 0)
