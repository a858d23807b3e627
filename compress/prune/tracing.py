"""A copy of a network that torch-pruning can trace: no recurrent layers, and constants that autograd sees."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.graph import run_quietly

WEIGHTED = (_ConvNd, nn.Linear)
"""Layers that make channels of their own."""


class RecurrentStandIn(nn.Module):
    """Stands for an LSTM or GRU while tracing: torch-pruning cannot see into one, but into a linear layer.

    It reads the same inputs and returns the same shapes, [T, N, D*H] and a state, so what comes before follows.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        directions = 2 if layer.bidirectional else 1
        self.linear = nn.Linear(layer.input_size, directions * (layer.proj_size or layer.hidden_size))
        self.batch_dim = 0 if layer.batch_first else 1
        self.state_sizes = (directions * layer.num_layers, layer.hidden_size)
        self.has_cell_state = isinstance(layer, nn.LSTM)

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Like the layer: [T, N, I] -> [T, N, D*H] and a state of zeros."""
        layers, units = self.state_sizes
        hidden = steps.new_zeros(layers, steps.shape[self.batch_dim], units)
        return self.linear(steps), (hidden, hidden.clone()) if self.has_cell_state else hidden


def replace_recurrent(module: nn.Module) -> dict[int, str]:
    """Put a stand-in in the place of every recurrent layer; id of its linear part -> the layer's name."""
    names: dict[int, str] = {}
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.RNNBase) and name:
            path, _, last = name.rpartition(".")
            stand_in = RecurrentStandIn(layer)
            setattr(module.get_submodule(path), last, stand_in)
            names[id(stand_in.linear)] = name
    return names


def buffers_to_parameters(module: nn.Module) -> None:
    """Make constants that are added or multiplied visible to autograd, which is what torch-pruning follows."""
    for owner in list(module.modules()):
        if isinstance(owner, nn.modules.batchnorm._NormBase):
            continue
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_floating_point() and buffer.numel() > 1:
                del owner._buffers[name]
                owner.register_parameter(name, nn.Parameter(buffer.clone()))


def execution_order(module: nn.Module, image: Tensor, names: dict[int, str]) -> dict[str, int]:
    """Name of each layer in `names` (by id) -> its place in the order in which they run on an image."""
    order: dict[str, int] = {}

    def note(layer: nn.Module, *_: object) -> None:
        order.setdefault(names.get(id(layer), ""), len(order))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, WEIGHTED)]
    try:
        with torch.no_grad():
            run_quietly(module, image)
    finally:
        for hook in hooks:
            hook.remove()
    return order
