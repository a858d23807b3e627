"""Layers whose weights are rounded to int8 as they run, and hard-swish in integers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.compute.device import exact as in_float64
from compress.quant import functional
from compress.quant.pact import PACT

GATE_SCALE = 6.0 / 255.0
"""Scale of x + 3 inside an integer hard-swish: uint8 saturation clips it to [0, 6]."""


class OutputShift:
    """How much rounding a layer's weights moves its output on average, per channel, over everything it has seen."""

    def __init__(self, axis: int) -> None:
        """Take the dimension of the output's channels."""
        self.axis, self.count = axis, 0
        self.total: Tensor | None = None

    def record(self, exact: Tensor, rounded: Tensor) -> None:
        """Look at an output of exact weights and the same of rounded ones."""
        difference = in_float64(exact - rounded).transpose(0, self.axis).flatten(1)
        self.total = difference.sum(1) + (0.0 if self.total is None else self.total)
        self.count += difference.shape[1]

    def mean(self) -> Tensor | None:
        """[O]; None if nothing was seen."""
        return None if self.total is None else (self.total / self.count).float()


class QuantConv2d(nn.Conv2d):
    """A convolution with per-output-channel int8 weights in the forward pass; the float weights are trained."""

    bit_width = 8
    channel_axis = 0
    source: tuple[PACT, ...] = ()
    """The quantiser that the input comes from, if any; a tuple, so that it is not registered as a child once more."""
    shift: OutputShift | None = None
    """While calibrating: the layer computes with exact weights, and records what rounding them would change."""
    correction: Tensor | None = None
    """What calibration added to the bias."""

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
        return _computed(self, lambda weight, bias: self._conv_forward(input, weight, bias))


class QuantConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with int8 weights; it has no integer kernel and computes in float.

    Left in float, its weights would be rounded by onnxruntime's optimiser, behind the back of whoever trained them.
    """

    bit_width = 8
    channel_axis = 1
    source: tuple[PACT, ...] = ()
    shift: OutputShift | None = None
    correction: Tensor | None = None

    @classmethod
    def from_float(cls, conv: nn.ConvTranspose2d, bit_width: int) -> "QuantConvTranspose2d":
        """Take over a transposed convolution's weights."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.output_padding,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            conv.dilation,  # type: ignore[arg-type]
        )
        made.bit_width = bit_width
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[N, I, H, W] -> [N, O, H', W']."""
        padding = self.padding
        assert not isinstance(padding, str)
        options = (self.stride, padding, self.output_padding, self.groups, self.dilation)
        return _computed(self, lambda weight, bias: F.conv_transpose2d(input, weight, bias, *options))


class QuantLinear(nn.Linear):
    """A linear layer with per-output-channel int8 weights in the forward pass."""

    bit_width = 8
    channel_axis = 0
    source: tuple[PACT, ...] = ()
    shift: OutputShift | None = None
    correction: Tensor | None = None

    @classmethod
    def from_float(cls, linear: nn.Linear, bit_width: int) -> "QuantLinear":
        """Take over a linear layer's weights."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None)
        made.bit_width = bit_width
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        return _computed(self, lambda weight, bias: F.linear(input, weight, bias))


QuantLayer = QuantConv2d | QuantConvTranspose2d | QuantLinear


def _computed(layer: QuantLayer, compute: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
    """The layer's output with rounded weights; while its shift is recorded, with exact ones."""
    if layer.shift is None:
        return compute(*quantized_parameters(layer))
    exact = compute(layer.weight, layer.bias)
    layer.shift.record(exact, compute(*quantized_parameters(layer)))
    return exact


def correct_bias(layer: QuantLayer) -> None:
    """Take out of a layer's bias what rounding its weights adds to its output on average, and stop recording.

    Rounding errors of a filter add up where its input has a mean, as behind hard-swish or ReLU; depthwise filters, of 9
    or 25 weights, suffer most. A layer without a bias stays as it is.

    Source: bias correction, Nagel et al. 2019 (arXiv 1906.04721), section 4.2, with measured means.
    """
    mean = layer.shift.mean() if layer.shift is not None else None
    layer.shift = None
    if mean is not None and layer.bias is not None:
        layer.correction = mean
        with torch.no_grad():
            layer.bias += mean.to(layer.bias.device)


def record_shift(layer: QuantLayer) -> None:
    """Have a layer compute with exact weights and record what rounding changes; an earlier correction is taken back."""
    if layer.correction is not None and layer.bias is not None:
        with torch.no_grad():
            layer.bias -= layer.correction.to(layer.bias.device)
    layer.correction = None
    layer.shift = OutputShift(-1 if isinstance(layer, nn.Linear) else 1)


def quantized_parameters(layer: QuantLayer) -> tuple[Tensor, Tensor | None]:
    """Weight rounded to int8 and bias (of a layer with quantised input) to int32, as floats."""
    scale = weight_scale(layer)
    weight = functional.fake_quantize_weight(layer.weight, scale, layer.bit_width, layer.channel_axis)
    step = input_scale(layer)
    if layer.bias is None or step is None:
        return weight, layer.bias
    return weight, functional.fake_quantize_bias(layer.bias, step * scale)


def quantized_integers(layer: QuantLayer) -> tuple[Tensor, Tensor | None]:
    """Weight as int8 and bias (of a layer with quantised input) as int32, as the file stores them."""
    scale = weight_scale(layer)
    weight = functional.quantize_weight(layer.weight, scale, layer.bit_width, layer.channel_axis)
    step = input_scale(layer)
    return weight, None if layer.bias is None or step is None else functional.quantize_bias(layer.bias, step * scale)


def input_scale(layer: QuantLayer) -> Tensor | None:
    """Scale of the layer's input, or None where that is float; times the weight's scale it is the bias's."""
    return layer.source[0].scale_and_zero_point()[0] if layer.source and layer.source[0].enabled else None


def weight_scale(layer: QuantLayer) -> Tensor:
    """Step of the int8 weight [O]."""
    scale = functional.weight_scale(layer.weight, layer.bit_width, layer.channel_axis)
    step = input_scale(layer)
    return scale if layer.bias is None or step is None else functional.scale_for_bias(scale, layer.bias, step)


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
