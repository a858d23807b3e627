"""LSTM and GRU layers, which quantisation-aware training leaves in float (as PP-OCR does), and their int8 forms."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from compress.quant import functional

Recurrent = nn.LSTM | nn.GRU


def recurrent_layers(module: nn.Module) -> dict[str, Recurrent]:
    """The LSTM and GRU layers of a network, by name."""
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
                if name.startswith("weight") and type(layer).__name__ in bits:
                    parameter.copy_(round_rows(parameter, bits[type(layer).__name__]))
    return module


def round_rows(weight: Tensor, bit_width: int = 8) -> Tensor:
    """A weight [rows, columns] rounded to integers of its rows' steps, as float."""
    return functional.fake_quantize_weight(weight, functional.weight_scale(weight, bit_width, 0), bit_width, 0)
