"""Layers with rounded weights, and hard-swish in integers, against the same rounded by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.quant import PACT
from compress.quant.functional import activation_scale, quantize
from compress.quant.int8_layers import (
    GATE_SCALE,
    IntegerHardSwish,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantLayer,
    QuantLinear,
    input_scale,
    quantized_integers,
    weight_scale,
)

MADE: dict[str, tuple[Callable[[], nn.Module], Callable[..., QuantLayer], Tensor]] = {
    "conv": (
        lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2),
        QuantConv2d.from_float,
        torch.randn(2, 4, 9, 8),
    ),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        QuantConvTranspose2d.from_float,
        torch.randn(2, 4, 5, 6),
    ),
    "linear": (lambda: nn.Linear(7, 5), QuantLinear.from_float, torch.randn(3, 2, 7)),
    "no bias": (lambda: nn.Conv2d(3, 4, 1, bias=False), QuantConv2d.from_float, torch.randn(1, 3, 4, 4)),
}


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("kind", MADE)
def test_computes_what_its_integers_say(kind: str, bits: int) -> None:
    """The float layer with weight = integers x scale gives the same; so all of its settings were taken over."""
    make, from_float, x = MADE[kind]
    layer = make()
    quantised = from_float(layer, bits)
    integers, bias = quantized_integers(quantised)
    assert bias is None  # the input is float, hence the bias
    assert int(integers.abs().max()) == (127 if bits == 8 else 63)
    steps = weight_scale(quantised).reshape(
        [-1 if axis == quantised.channel_axis else 1 for axis in range(integers.ndim)]
    )
    expected = quantised(x)
    with torch.no_grad():
        layer.weight.copy_(integers * steps)  # type: ignore[operator, union-attr]
        torch.testing.assert_close(expected, layer(x))


def test_trains_the_float_weights_it_took_over() -> None:
    layer = nn.Linear(4, 3)
    quantised = QuantLinear.from_float(layer, 8)
    assert quantised.weight is layer.weight
    assert quantised.bias is layer.bias


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 1), lambda: nn.Linear(3, 4)])
def test_bias_is_rounded_where_the_input_is_integer(make: Callable[[], nn.Module]) -> None:
    layer = make()
    quantised = (QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear).from_float(layer, 8)  # type: ignore[arg-type]
    pact = PACT(0.0, 25.5)  # scale 0.1
    quantised.source = (pact,)
    assert quantised.bias is not None
    with torch.no_grad():
        quantised.bias.fill_(1.0)
    step = 0.1 * weight_scale(quantised)
    _, integers = quantized_integers(quantised)
    assert integers is not None
    assert integers.dtype == torch.int32
    np.testing.assert_allclose(integers.numpy(), np.rint(1.0 / step.detach().numpy()), atol=1)
    zeros = torch.zeros(1, 3, 1, 1) if isinstance(layer, nn.Conv2d) else torch.zeros(1, 3)
    torch.testing.assert_close(quantised(zeros).flatten(), integers * step)


def test_bias_stays_float_while_ranges_are_off() -> None:
    quantised = QuantLinear.from_float(nn.Linear(3, 4), 8)
    pact = PACT(0.0, 1.0)
    quantised.source = (pact,)
    assert input_scale(quantised) is not None
    pact.enabled = False
    assert input_scale(quantised) is None
    assert quantized_integers(quantised)[1] is None


def test_a_large_bias_behind_a_dead_input_fits() -> None:
    """Range 1e-4 and weights of 1e-3 would need 2**31 * 3e-12 = 0.007 as the largest bias."""
    quantised = QuantLinear.from_float(nn.Linear(2, 3), 8)
    with torch.no_grad():
        quantised.weight.fill_(1e-3)
        assert quantised.bias is not None
        quantised.bias.copy_(torch.tensor([5.0, -5.0, 0.001]))
    quantised.source = (PACT(0.0, 1e-4),)
    torch.testing.assert_close(
        quantised(torch.zeros(1, 2)).detach(), torch.tensor([[5.0, -5.0, 0.001]]), rtol=1e-4, atol=1e-6
    )


def test_the_source_is_not_a_child() -> None:
    quantised = QuantLinear.from_float(nn.Linear(2, 2), 8)
    quantised.source = (PACT(),)
    assert list(quantised.children()) == []
    assert set(quantised.state_dict()) == {"weight", "bias"}


# --- hard-swish -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", [True, False])
def test_hard_swish_is_its_integer_formula(grad: bool) -> None:
    """uint8 of x + 3 with scale 6/255 saturates to [0, 6]; reread with scale 1/255 it is the gate."""
    x = torch.linspace(-6, 6, 5001).requires_grad_(grad)
    gate = np.clip(np.rint((x.detach().numpy() + np.float32(3)) / np.float32(GATE_SCALE)), 0, 255) / 255
    np.testing.assert_allclose(IntegerHardSwish()(x).detach(), x.detach().numpy() * gate, rtol=1e-6, atol=1e-7)


def test_hard_swish_is_near_the_float_one() -> None:
    """The gate is off by half of 1/255 at most, so the product by |x| / 510."""
    x = torch.linspace(-8, 8, 5001)
    difference = (IntegerHardSwish()(x) - nn.functional.hardswish(x)).abs()
    assert (difference <= x.abs() / 510 * 1.001 + 1e-6).all()


def test_hard_swish_has_the_float_gradient_inside() -> None:
    """d/dx of x * gate is gate + x / 6 for |x| < 3, 0 below, 1 above."""
    x = torch.tensor([-5.0, -2.0, 0.5, 2.0, 5.0], requires_grad=True)
    IntegerHardSwish()(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(
        x.grad, torch.tensor([0.0, 1 / 6 - 2 / 6, 3.5 / 6 + 0.5 / 6, 5 / 6 + 2 / 6, 1.0]), rtol=0, atol=2.1 / 255
    )


def test_hard_swish_of_integers_needs_256_gates_at_most() -> None:
    x = torch.randn(10_000) * 3
    scale, zero_point = activation_scale(torch.tensor(6.0), None)
    integers = (quantize(x, scale, zero_point) - zero_point) * scale
    assert len(IntegerHardSwish()(integers).unique()) <= 256
