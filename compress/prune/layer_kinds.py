"""What kinds of layers do with channels."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

NORMALISED = "mixes or normalises channels"


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a convolution treats each channel by itself, so that its outputs are its inputs' channels."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def is_grouped(layer: nn.Module | None) -> bool:
    """Whether a convolution works in groups of several channels each."""
    return isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer)


def group_width(layer: _ConvNd, side: str) -> int:
    """Channels of one of a convolution's groups, on that side."""
    return (layer.in_channels if side == "in" else layer.out_channels) // layer.groups


def unsupported_reason(layer: nn.Module, side: str) -> str:
    """Why a layer's channels cannot be removed; empty where they can."""
    if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
        return f"is a convolution in {layer.groups} groups, which must stay equal in size"
    if isinstance(layer, nn.RNNBase):
        return "" if side == "in" else "holds the hidden units of a recurrent layer"
    if isinstance(layer, _ConvNd | nn.Linear | _NormBase | nn.PReLU):
        return ""
    return f"is a {type(layer).__name__}, which {NORMALISED}"
