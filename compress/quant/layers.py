"""Layers whose weights are rounded to int8 as they run, and hard-swish in integers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.quant import functional
from compress.quant.pact import PACT

GATE_SCALE = 6.0 / 255.0
"""Scale of x + 3 inside an integer hard-swish: uint8 saturation clips it to [0, 6]."""


class _IntegerInput:
    """Mixin: the PACT that the layer's input comes from, if it is quantised; its scale sets the bias's step.

    Kept in a tuple, so that PyTorch does not register the quantiser a second time as a child of the layer.
    """

    bit_width = 8
    weight: Tensor
    bias: Tensor | None
    source: tuple[PACT, ...] = ()

    def quantized(self) -> tuple[Tensor, Tensor | None]:
        """Weight rounded to int8 and bias to int32 steps of input scale x weight scale, as floats."""
        weight = functional.fake_quantize_weight(self.weight, self.weight_scale(), self.bit_width)
        if self.bias is None or not self._integer_input():
            return weight, self.bias
        return weight, functional.fake_quantize_bias(self.bias, self.bias_scale())

    def weight_scale(self) -> Tensor:
        """Step of the int8 weight [O]."""
        scale = functional.weight_scale(self.weight, self.bit_width)
        if self.bias is None or not self._integer_input():
            return scale
        return functional.scale_for_bias(scale, self.bias, self.source[0].scale_and_zero_point()[0])

    def bias_scale(self) -> Tensor:
        """Step of the int32 bias [O] of a layer with a quantised input."""
        return self.source[0].scale_and_zero_point()[0] * self.weight_scale()

    def integers(self) -> Tensor:
        """The int8 weight [O, ...] as the file stores it."""
        return functional.quantize_weight(self.weight, self.weight_scale(), self.bit_width)

    def _integer_input(self) -> bool:
        return bool(self.source) and self.source[0].enabled


class QuantConv2d(_IntegerInput, nn.Conv2d):
    """A convolution with per-output-channel int8 weights in the forward pass; the float weights are trained."""

    @classmethod
    def from_float(cls, conv: nn.Conv2d, bit_width: int) -> "QuantConv2d":
        """Take over a convolution's weights."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
        )
        made.bit_width = bit_width
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H', W']."""
        return self._conv_forward(input, *self.quantized())


class QuantLinear(_IntegerInput, nn.Linear):
    """A linear layer with per-output-channel int8 weights in the forward pass."""

    @classmethod
    def from_float(cls, linear: nn.Linear, bit_width: int) -> "QuantLinear":
        """Take over a linear layer's weights."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None)
        made.bit_width = bit_width
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return F.linear(input, *self.quantized())


class IntegerHardSwish(nn.Module):
    """Hard-swish of an already quantised tensor, as the exported integer graph computes it.

    x + 3 rounded to uint8 with scale 6/255 and zero point 0 is clip(x + 3, 0, 6) by saturation; reread with
    scale 1/255 it is the gate in [0, 1] that x is multiplied by. The product is rounded by the PACT that follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        scale = torch.tensor(GATE_SCALE, device=x.device)
        zero = torch.tensor(0, dtype=torch.int32, device=x.device)
        return x * (functional.fake_quantize(x + 3.0, scale, zero) / 6.0)
