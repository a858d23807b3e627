"""The functions that stand for ONNX operators, against ONNX's own reference implementation in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from compress.graph import modules
from tests.graph.graphs import image_graph, images, ints


def reference(body: str, x: np.ndarray, constants: dict[str, np.ndarray]) -> np.ndarray:
    """What numpy computes for a graph."""
    given_input = f"float[{', '.join(map(str, x.shape))}] x"
    result = ReferenceEvaluator(image_graph(body, constants, given=given_input)).run(None, {"x": x})
    return np.asarray(result[0])  # type: ignore[index]


@given(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
def test_hard_sigmoid_is_a_clipped_line(alpha: float, beta: float) -> None:
    x = torch.linspace(-4, 4, 33)
    expected = np.clip(np.float32(alpha) * x.numpy() + np.float32(beta), 0, 1)
    np.testing.assert_allclose(modules.HardSigmoid(alpha, beta)(x).numpy(), expected, atol=1e-6)


def test_hard_sigmoid_of_slope_a_sixth_is_pytorchs() -> None:
    x = torch.linspace(-4, 4, 33)
    torch.testing.assert_close(modules.HardSigmoid(1 / 6, 0.5)(x), nn.Hardsigmoid()(x))


def test_hard_sigmoid_shows_its_numbers() -> None:
    assert repr(modules.HardSigmoid()) == "HardSigmoid(alpha=0.2, beta=0.5)"


@pytest.mark.parametrize("target", [(0, -1), (-1, 0, 2), (2, 3, 0), (0, 0, 0, 1), (6, 4), (-1,)])
def test_reshape(target: tuple[int, ...]) -> None:
    x = images((2, 3, 4))
    expected = reference("y = Reshape (x, t)", x, {"t": ints(*target)})
    for sizes in (list(target), torch.tensor(target)):
        np.testing.assert_array_equal(modules.onnx_reshape(torch.from_numpy(x), sizes).numpy(), expected)


@given(
    st.lists(st.integers(-5, 4), min_size=1, max_size=3).filter(lambda axes: len({a % 5 for a in axes}) == len(axes))
)
def test_unsqueeze(axes: list[int]) -> None:
    x = images((2, 3, 4, 5)[len(axes) - 1 :])  # the result has 5 dimensions
    expected = reference("y = Unsqueeze (x, a)", x, {"a": ints(*axes)})
    assert modules.onnx_unsqueeze(torch.from_numpy(x), axes).shape == expected.shape


@settings(max_examples=40)
@given(
    starts=st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    ends=st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    steps=st.lists(st.integers(1, 3), min_size=2, max_size=2),
)
def test_slice(starts: list[int], ends: list[int], steps: list[int]) -> None:
    x = images((2, 5, 1, 7))
    constants = {"s": ints(*starts), "e": ints(*ends), "a": ints(1, -1), "t": ints(*steps)}
    expected = reference("y = Slice (x, s, e, a, t)", x, constants)
    found = modules.onnx_slice(torch.from_numpy(x), *(torch.from_numpy(constants[name]) for name in "seat"))
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("target", [(2, 3, 4), (1, 1), (5, 1, 1, 4), (4,)])
def test_expand(target: tuple[int, ...]) -> None:
    x = images((3, 4)) if len(target) > 1 else images((1,))
    target = target if len(target) > 1 else (6,)
    expected = reference("y = Expand (x, s)", x, {"s": ints(*target)})
    np.testing.assert_array_equal(modules.onnx_expand(torch.from_numpy(x), torch.tensor(target)).numpy(), expected)


@given(st.integers(-20, 20), st.integers(1, 7))
def test_whole_numbers_divide_towards_zero(a: int, b: int) -> None:
    assert modules.onnx_div(torch.tensor([a]), torch.tensor([b])).tolist() == [int(a / b)]


def test_other_numbers_divide_as_they_are() -> None:
    assert modules.onnx_div(torch.tensor([7.0]), torch.tensor([2])).tolist() == [3.5]
    assert modules.onnx_div(7.0, torch.tensor([2.0])).tolist() == [3.5]


@pytest.mark.parametrize(("start", "end"), [(0, None), (1, None), (-2, None), (0, 1), (1, -1), (-9, 9), (3, 1)])
def test_shape(start: int, end: int | None) -> None:
    x = images((2, 3, 4))
    last = "" if end is None else f", end = {end}"
    expected = reference(f"y = Shape <start = {start}{last}> (x)", x, {})
    found = modules.shape_of(torch.from_numpy(x), start, end)
    assert found.dtype == torch.int64
    assert found.tolist() == expected.tolist()
