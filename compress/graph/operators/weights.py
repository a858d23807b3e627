"""Trained weights between ONNX and PyTorch: into a layer, and out of it as arrays."""

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compress.graph.importer import Importer

Weights = dict[int, np.ndarray]
"""ONNX input position -> array."""


def set_tensor(parameter: Tensor | None, value: Tensor) -> None:
    """Copy a value into a layer's parameter or buffer."""
    assert parameter is not None
    with torch.no_grad():
        parameter.copy_(value)


def set_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Copy weight and bias into a layer."""
    assert isinstance(layer.weight, Tensor)
    set_tensor(layer.weight, weight)
    if bias is not None:
        assert isinstance(layer.bias, Tensor)
        set_tensor(layer.bias, bias)


def optional_weight(g: Importer, node: onnx.NodeProto, position: int) -> Tensor | None:
    """The weight at an input that may be left out, or None."""
    return g.weight(node.input[position]) if len(node.input) > position and node.input[position] else None


def as_array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array on the CPU."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
