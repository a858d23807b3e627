"""Fake quantisation as pure functions of tensors: what the int8 file computes, with gradients for training.

Integers are `round(x / scale) + zero_point` clamped to [quant_min, quant_max]; rounding is half to even, as in ONNX.
"""

import torch
from torch import Tensor

UINT8 = (0, 255)
BIAS_MAX = 2.0**30
"""Largest bias in steps of its scale: half of int32, so that sums do not overflow either."""
MIN_ALPHA = 1e-4
"""Smallest threshold: alpha must stay positive for the scale to exist."""


class _ModifiedClip(torch.autograd.Function):
    """Clip to [-alpha, alpha] with PACT's gradients for x and alpha."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, alpha)
        return torch.minimum(torch.maximum(x, -alpha), alpha)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        x, alpha = ctx.saved_tensors
        inside = x.abs() <= alpha
        to_alpha = torch.where(inside, torch.zeros_like(x), torch.sign(x)) * gradient
        return gradient * inside, to_alpha.sum().reshape(alpha.shape)


def pact_clip(x: Tensor, alpha: Tensor) -> Tensor:
    """Clip to [-alpha, alpha], keeping the negative half that hard-swish needs.

    dy/dx = 1 where |x| <= alpha else 0; dy/dalpha = sign(x) where |x| > alpha else 0.
    On x >= 0 it equals PACT's (|x| - |x - alpha| + alpha) / 2.

    Args:
        x: any shape.
        alpha: positive, one element.

    Source: PP-OCR (arXiv 2009.09941), section 2.4, a modification of PACT (arXiv 1805.06085).

    >>> pact_clip(torch.tensor([-3.0, -0.5, 0.5, 3.0]), torch.tensor(1.0))
    tensor([-1.0000, -0.5000,  0.5000,  1.0000])
    """
    return _ModifiedClip.apply(x, alpha)


def activation_scale(alpha: Tensor, lower: float | None) -> tuple[Tensor, Tensor]:
    """Scale and zero point of uint8 activations clipped at alpha.

    Args:
        alpha: upper end of the range, one element.
        lower: None for [-alpha, alpha]: scale alpha/127, zero point 128. 0 for [0, alpha]: scale alpha/255, zero
            point 0. A negative number for [lower, alpha] (hard-swish: -0.375).

    >>> activation_scale(torch.tensor(127.0), None)
    (tensor(1.), tensor(128, dtype=torch.int32))
    >>> activation_scale(torch.tensor(2.55), 0.0)
    (tensor(0.0100), tensor(0, dtype=torch.int32))
    """
    alpha = alpha.detach().clamp_min(MIN_ALPHA).reshape(())
    if lower is None:
        return alpha / 127.0, torch.tensor(128, dtype=torch.int32, device=alpha.device)
    scale = (alpha - lower) / 255.0
    return scale, torch.round(-lower / scale).to(torch.int32)


class _FakeQuantize(torch.autograd.Function):
    """Round to the uint8 grid as ONNX does; PyTorch's own operator differs at ties and is several times slower."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, scale, zero_point)
        return quantize(x, scale, zero_point).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        x, scale, zero_point = ctx.saved_tensors
        inside = (x >= (UINT8[0] - zero_point - 0.5) * scale) & (x <= (UINT8[1] - zero_point + 0.5) * scale)
        return gradient.masked_fill(inside.logical_not_(), 0.0), None, None


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round to the uint8 grid; gradients pass straight through inside the range and stop outside.

    >>> fake_quantize(torch.tensor([0.26, 9.0]), torch.tensor(0.1), torch.tensor(128))
    tensor([0.3000, 9.0000])
    """
    return _FakeQuantize.apply(x, scale, zero_point)


class _PactQuantize(torch.autograd.Function):
    """Saturating uint8 rounding with PACT's gradients.

    An alpha below MIN_ALPHA counts as that, and still gets its gradient: else a step too far could never be undone.
    """

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, lower: float | None) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, alpha.clamp_min(MIN_ALPHA))
        ctx.lower = lower
        scale, zero_point = activation_scale(alpha, lower)
        return quantize(x, scale, zero_point).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        x, alpha = ctx.saved_tensors
        above = x > alpha
        below = x < (-alpha if ctx.lower is None else ctx.lower)
        to_alpha = gradient[above].sum()  # few are clipped: picking them is cheaper than multiplying by a mask
        if ctx.lower is None:
            to_alpha = to_alpha - gradient[below].sum()
        return gradient.masked_fill(above.logical_or_(below), 0.0), to_alpha.reshape(alpha.shape), None


def pact_quantize(x: Tensor, alpha: Tensor, lower: float | None = None) -> Tensor:
    """PACT's clip and the rounding to uint8 in one step, with the clip's gradients (see `pact_clip`).

    The clip is the saturation of the 256 integers. Of the symmetric range they reach one step below -alpha, as the
    exported file does; the gradient takes -alpha for the end.

    Args:
        x: any shape.
        alpha: one element; MIN_ALPHA if less.
        lower: see `activation_scale`; no gradient flows to alpha from values below a fixed lower end.

    >>> pact_quantize(torch.tensor([-3.0, 0.5, 3.0]), torch.tensor(1.27))
    tensor([-1.2800,  0.5000,  1.2700])
    """
    return _PactQuantize.apply(x, alpha, lower)


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """ONNX's QuantizeLinear to uint8, as whole float32 numbers.

    >>> quantize(torch.tensor([0.26, -20.0]), torch.tensor(0.1), torch.tensor(128))
    tensor([131.,   0.])
    """
    return torch.div(x, scale).round_().add_(zero_point).clamp_(*UINT8)


def round_dynamically(x: Tensor) -> Tensor:
    """Round to 256 steps over the range that a tensor has, zero included, as ONNX's DynamicQuantizeLinear does.

    >>> round_dynamically(torch.tensor([-1.0, 0.014, 1.55]))
    tensor([-1.0000,  0.0100,  1.5500])
    """
    low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)
    step = (high - low) / UINT8[1] if high > low else torch.ones_like(low)
    zero = torch.round(-low / step)
    return (torch.round(x / step).add(zero).clamp(*UINT8) - zero) * step


def weight_scale(weight: Tensor, bit_width: int = 8, axis: int = 0) -> Tensor:
    """Symmetric per-channel scale: max |w| of each output channel / the largest integer (127, or 63 for 7 bits).

    Args:
        weight: [O, ...], or with output channels on `axis`.
        bit_width: 8, or 7 where products of two must not overflow 16 bits (CPUs without VNNI).
        axis: dimension of the output channels.

    Returns:
        [O], positive. A channel of zeros gets the scale of the largest (its bias is rounded by it), or 1.

    >>> weight_scale(torch.tensor([[1.27, -0.5], [0.0, 0.0], [0.0, 0.635]]))
    tensor([0.0100, 0.0100, 0.0050])
    """
    largest = weight.detach().abs().transpose(0, axis).flatten(1).amax(dim=1)
    largest = torch.where(largest == 0, largest.amax(), largest)
    # NaN stays NaN, so that a network whose weights broke is noticed by its loss.
    return torch.where(largest == 0, torch.ones_like(largest), largest / quant_max(bit_width))


def scale_for_bias(scale: Tensor, bias: Tensor, input_scale: Tensor) -> Tensor:
    """Raise a weight's scale [O] where its bias [O] would not fit 32 bits in steps of input scale x weight scale.

    That happens where a layer's input is all but dead: its weights then hardly matter, the bias does.

    >>> scale_for_bias(torch.tensor([0.01]), torch.tensor([0.5]), torch.tensor(2.0**-31))
    tensor([1.])
    """
    return torch.maximum(scale, bias.detach().abs() / (input_scale * BIAS_MAX))


def quant_max(bit_width: int) -> int:
    """Largest integer of a symmetric signed range: 127 for 8 bits, 63 for 7."""
    return int(2 ** (bit_width - 1) - 1)


def fake_quantize_weight(weight: Tensor, scale: Tensor, bit_width: int = 8, axis: int = 0) -> Tensor:
    """Round a weight to its per-channel grid of step `scale` [O]; gradients pass straight through.

    >>> fake_quantize_weight(torch.tensor([[1.27, -0.504]]), torch.tensor([0.01]))
    tensor([[ 1.2700, -0.5000]])
    """
    largest = quant_max(bit_width)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, axis, -largest, largest)


def quantize_weight(weight: Tensor, scale: Tensor, bit_width: int = 8, axis: int = 0) -> Tensor:
    """The int8 integers of a weight in steps of `scale` [O].

    >>> quantize_weight(torch.tensor([[1.27, -0.504]]), torch.tensor([0.01]))
    tensor([[127, -50]], dtype=torch.int8)
    """
    largest = quant_max(bit_width)
    # Multiplied by the reciprocal in float32, as PyTorch's fake quantisation does, so that both round alike.
    reciprocal = (1.0 / scale).reshape([-1 if dimension == axis else 1 for dimension in range(weight.ndim)])
    return torch.round(weight.detach() * reciprocal).clamp(-largest, largest).to(torch.int8)


def fake_quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """Round a bias [O] to int32 multiples of `scale` [O] (input scale x weight scale); straight-through gradient.

    >>> fake_quantize_bias(torch.tensor([0.26, -0.04]), torch.tensor([0.1, 0.1]))
    tensor([0.3000, 0.0000])
    """
    rounded = quantize_bias(bias, scale).float() * scale
    return rounded + (bias - bias.detach())  # zero is added: the value is exactly the rounded one


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """The int32 integers of a bias [O], saturated.

    >>> quantize_bias(torch.tensor([0.26, -1e9]), torch.tensor([0.1, 0.1]))
    tensor([          3, -2147483648], dtype=torch.int32)
    """
    limits = torch.iinfo(torch.int32)
    return torch.round(bias.detach().double() / scale.double()).clamp(limits.min, limits.max).to(torch.int32)
