"""Fake quantisation against its formulas, numpy and onnxruntime, bit for bit; gradients against PACT's."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compress.measure.session import Session
from compress.quant import functional
from compress.quant.functional import (
    MIN_ALPHA,
    activation_scale,
    fake_quantize,
    fake_quantize_bias,
    fake_quantize_weight,
    pact_clip,
    pact_quantize,
    quantize_bias,
    quantize_weight,
    scale_for_bias,
    weight_scale,
)

LOWERS = [None, 0.0, -0.375]
few = settings(max_examples=20)
alphas = st.floats(0.0078125, 1000.0, width=32)
arrays = st.tuples(st.integers(0, 10_000), st.floats(-3.0, 3.0)).map(
    lambda drawn: np.random.default_rng(drawn[0]).standard_normal(257).astype(np.float32) * np.float32(10 ** drawn[1])
)


def with_ends(values: np.ndarray, alpha: float, lower: float | None) -> Tensor:
    """The values, and those around the ends of the range, the middle of steps, and zero."""
    scale = float(activation_scale(torch.tensor(alpha), lower)[0])
    steps = np.array([-129, -128.5, -128, -127.5, -127, -1.5, -0.5, 0, 0.5, 1.5, 127, 127.5, 128, 254.5, 255, 256])
    ends = [alpha, -alpha, np.nextafter(np.float32(alpha), np.float32(np.inf)), 2 * alpha, -2 * alpha, lower or 0.0]
    return torch.from_numpy(np.concatenate([values, steps * scale, ends]).astype(np.float32))


def pair_model(scale: float, zero_point: int) -> onnx.ModelProto:
    """x -> QuantizeLinear -> DequantizeLinear."""
    constants = [numpy_helper.from_array(np.float32(scale), "s"), numpy_helper.from_array(np.uint8(zero_point), "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "pair", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- PACT -------------------------------------------------------------------------------------------------------


@few
@given(arrays, alphas)
def test_clip_is_pacts_formula_on_positive_values(values: np.ndarray, alpha: float) -> None:
    x = np.abs(values).astype(np.float64)
    formula = 0.5 * (np.abs(x) - np.abs(x - alpha) + alpha)
    found = pact_clip(torch.from_numpy(x), torch.tensor(alpha, dtype=torch.float64))
    np.testing.assert_allclose(found, formula, rtol=1e-12, atol=1e-12)


@few
@given(arrays, alphas)
def test_clip_is_odd(values: np.ndarray, alpha: float) -> None:
    x = torch.from_numpy(values)
    assert torch.equal(pact_clip(-x, torch.tensor(alpha)), -pact_clip(x, torch.tensor(alpha)))


@few
@given(arrays, alphas)
def test_gradients_of_the_clip(values: np.ndarray, alpha: float) -> None:
    """dy/dx = 1 where |x| <= alpha, else 0; dy/dalpha = sign(x) where |x| > alpha, else 0."""
    x = with_ends(values, alpha, None).requires_grad_()
    a = torch.tensor(alpha, requires_grad=True)
    upstream = torch.linspace(-1.0, 2.0, len(x))
    pact_clip(x, a).backward(upstream)
    assert x.grad is not None
    assert a.grad is not None
    inside = x.detach().abs() <= alpha
    assert torch.equal(x.grad, upstream * inside)
    torch.testing.assert_close(a.grad, (upstream * torch.sign(x.detach()) * ~inside).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lower", LOWERS)
@few
@given(arrays, alphas)
def test_gradients_of_the_rounded_clip(lower: float | None, values: np.ndarray, alpha: float) -> None:
    """Those of the clip; a lower end that is fixed gets none, whatever alpha is beside it."""
    x = with_ends(values, alpha, lower).requires_grad_()
    a = torch.tensor(alpha, requires_grad=True)
    upstream = torch.linspace(-1.0, 2.0, len(x))
    pact_quantize(x, a, lower).backward(upstream)
    assert x.grad is not None
    assert a.grad is not None
    above = x.detach() > alpha
    below = x.detach() < (-alpha if lower is None else lower)
    assert torch.equal(x.grad, upstream * ~(above | below))
    expected = (upstream * above).sum() - (upstream * below).sum() * (lower is None)
    torch.testing.assert_close(a.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lower", LOWERS)
@few
@given(arrays, alphas)
def test_rounded_clip_is_onnxruntimes_bit_for_bit(lower: float | None, values: np.ndarray, alpha: float) -> None:
    x = with_ends(values, alpha, lower)
    scale, zero_point = activation_scale(torch.tensor(alpha), lower)
    expected = Session(pair_model(float(scale), int(zero_point)), optimise=False).run(x.numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(pact_quantize(x, torch.tensor(alpha), lower), expected)
    trained = pact_quantize(x.clone().requires_grad_(), torch.tensor(alpha, requires_grad=True), lower)
    np.testing.assert_array_equal(trained.detach(), expected)


def test_symmetric_range_ends() -> None:
    """Scale 1: 127.4 and 200 round to 127; the integers reach down to -128, whose gradient is the clip's."""
    x = torch.tensor([127.0, 127.4, 128.0, 200.0, -127.0, -127.4, -127.6, -200.0], requires_grad=True)
    alpha = torch.tensor(127.0, requires_grad=True)
    y = pact_quantize(x, alpha)
    assert y.tolist() == [127, 127, 127, 127, -127, -127, -128, -128]
    y.sum().backward()
    assert x.grad is not None
    assert alpha.grad is not None
    assert x.grad.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert alpha.grad == 3 - 3


@pytest.mark.parametrize("start", [0.0, -3.0, MIN_ALPHA])
def test_an_alpha_that_stepped_too_far_comes_back(start: float) -> None:
    alpha = torch.tensor(start, requires_grad=True)
    x = torch.tensor([0.5, 2.0])
    y = pact_quantize(x, alpha, 0.0)
    torch.testing.assert_close(y, torch.full((2,), MIN_ALPHA))
    (y - x).square().sum().backward()
    assert alpha.grad is not None
    assert alpha.grad < 0  # descent raises it


@pytest.mark.parametrize(
    ("alpha", "lower", "scale", "zero_point"),
    [(12.7, None, 0.1, 128), (2.55, 0.0, 0.01, 0), (2.175, -0.375, 0.01, 38), (1.0, 0.0, 1 / 255, 0)],
)
def test_scale_and_zero_point(alpha: float, lower: float | None, scale: float, zero_point: int) -> None:
    """0.375 / 0.01 = 37.5, which rounds to even: 38."""
    found = activation_scale(torch.tensor(alpha), lower)
    assert float(found[0]) == pytest.approx(scale, rel=1e-6)
    assert int(found[1]) == zero_point


# --- straight-through rounding ----------------------------------------------------------------------------------


@few
@given(arrays, alphas, st.integers(0, 255))
def test_fake_quantize_is_numpys_formula(values: np.ndarray, top: float, zero_point: int) -> None:
    scale = np.float32(top / 255)
    integers = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    found = fake_quantize(torch.from_numpy(values), torch.tensor(scale), torch.tensor(zero_point))
    np.testing.assert_array_equal(found, (integers - zero_point).astype(np.float32) * scale)


def test_fake_quantize_passes_gradients_inside_its_range() -> None:
    """Zero point 3: integers 0 to 255 stand for -3 to 252; up to half a step beyond still rounds to the ends."""
    x = torch.tensor([-4.0, -3.4, -3.0, 0.2, 252.0, 252.4, 253.0], requires_grad=True)
    fake_quantize(x, torch.tensor(1.0), torch.tensor(3)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


# --- weights and biases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
@pytest.mark.parametrize("axis", [0, 1])
@few
@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-6, 1.0, 300.0]))
def test_weight_rounds_per_channel(bits: int, largest: int, axis: int, seed: int, size: float) -> None:
    weight = np.random.default_rng(seed).standard_normal((5, 5, 3, 3)).astype(np.float32) * np.float32(size)
    tensor = torch.from_numpy(weight).requires_grad_()
    scale = weight_scale(tensor, bits, axis)
    others = tuple(dimension for dimension in range(4) if dimension != axis)
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=others) / largest, rtol=1e-6)

    integers = quantize_weight(tensor, scale, bits, axis)
    assert integers.dtype == torch.int8
    assert (integers.abs().amax(others) == largest).all()
    rounded = fake_quantize_weight(tensor, scale, bits, axis)
    steps = scale.reshape([-1 if dimension == axis else 1 for dimension in range(4)])
    assert torch.equal(rounded, integers * steps)
    assert (rounded - tensor).abs().le(steps * 0.5001).all()
    rounded.sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.eq(1).all()


def test_a_channel_of_zeros_has_a_scale() -> None:
    weight = torch.zeros(3, 2)
    assert weight_scale(weight).tolist() == [1, 1, 1]
    weight[1, 0] = 12.7
    torch.testing.assert_close(weight_scale(weight), torch.full((3,), 0.1))
    assert quantize_weight(weight, weight_scale(weight)).tolist() == [[0, 0], [127, 0], [0, 0]]


def test_a_broken_weight_stays_broken() -> None:
    """Rounded to integers NaN would become a number, and nobody would notice."""
    weight = torch.tensor([[1.0, float("nan")], [1.0, 0.5]])
    rounded = fake_quantize_weight(weight, weight_scale(weight))
    assert rounded[0].isnan().all()
    torch.testing.assert_close(rounded[1], weight[1], rtol=0, atol=0.004)


@few
@given(st.floats(2.0**-30, 1.0, width=32), st.floats(-1e3, 1e3, width=32), st.floats(2.0**-30, 10.0, width=32))
def test_any_bias_fits_32_bits(input_scale: float, bias: float, scale: float) -> None:
    raised = scale_for_bias(torch.tensor([scale]), torch.tensor([bias]), torch.tensor(input_scale))
    assert raised >= scale
    integer = quantize_bias(torch.tensor([bias]), raised * input_scale)
    assert abs(int(integer)) <= functional.BIAS_MAX * 1.001
    step = float(raised) * input_scale
    assert int(integer) * step == pytest.approx(bias, abs=0.51 * step, rel=1e-5)


@few
@given(arrays, st.floats(2.0**-20, 1.0, width=32))
def test_bias_is_rounded_to_its_integers(values: np.ndarray, step: float) -> None:
    bias, scale = torch.from_numpy(values).requires_grad_(), torch.full((len(values),), step)
    integers = quantize_bias(bias, scale)
    expected = np.clip(np.rint(values.astype(np.float64) / np.float64(np.float32(step))), -(2**31), 2**31 - 1)
    np.testing.assert_array_equal(integers, expected.astype(np.int32))
    rounded = fake_quantize_bias(bias, scale)
    assert torch.equal(rounded, integers.float() * scale)
    rounded.sum().backward()
    assert bias.grad is not None
    assert bias.grad.eq(1).all()
