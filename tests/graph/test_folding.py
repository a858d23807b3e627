"""Constants and no-ops go; BatchNorm, zero biases and Flatten, which training and pruning need, stay."""

import numpy as np
import pytest

from compress.graph.folding import fold
from tests.graph.graphs import assert_same, canonical, image_graph, ints, number, ops, weights

NORM = {
    "s": np.abs(weights(5)),
    "o": weights(5, seed=1),
    "m": weights(5, seed=2),
    "v": np.abs(weights(5, seed=3)) + 0.1,
}


@pytest.mark.parametrize(
    "layer",
    [
        "c = Conv (x, w)",
        "c = ConvTranspose (x, t)",
        "p = GlobalAveragePool (x) f = Flatten (p) c = Gemm (f, g)",
    ],
)
def test_batch_norm_is_kept(layer: str) -> None:
    constants = NORM | {"w": weights(5, 4, 1, 1), "t": weights(4, 5, 2, 2), "g": weights(4, 5)}
    model = image_graph(f"{layer} y = BatchNormalization (c, s, o, m, v)", constants)
    folded = fold(model)
    assert ops(folded) == ops(model)
    assert_same(model, folded)


@pytest.mark.parametrize(
    "layer", ["y = Conv (x, w, b)", "y = ConvTranspose (x, t, b)", "f = Flatten (p) y = Gemm (f, g, b)"]
)
def test_bias_of_zeros_is_kept(layer: str) -> None:
    """A network fresh from its initialisation is to be trained with its biases."""
    constants = {"w": weights(5, 4, 1, 1), "t": weights(4, 5, 2, 2), "g": weights(4, 5), "b": np.zeros(5, np.float32)}
    folded = fold(image_graph(f"p = GlobalAveragePool (x) {layer.replace('(x', '(p')}", constants))
    assert folded.graph.node[-1].input[2] == "b"


NOTHING = {
    "x + 0": ("n = Add (x, zero)", {"zero": number(0)}),
    "x * 1": ("n = Mul (x, one)", {"one": number(1)}),
    "1 * x": ("n = Mul (one, x)", {"one": number(1)}),
    "0 + x": ("n = Add (zero, x)", {"zero": number(0)}),
    "x / 1": ("n = Div (x, one)", {"one": number(1)}),
    "cast to the same type": ("n = Cast <to = 1> (x)", {}),
    "dimensions in order": ("n = Transpose <perm = [0, 1, 2, 3]> (x)", {}),
    "there and back": ("t = Transpose <perm = [0, 2, 3, 1]> (x) n = Transpose <perm = [0, 3, 1, 2]> (t)", {}),
    "dropout": ("n = Dropout (x)", {}),
    "constant arithmetic": ("a = Sqrt (four) b = Sub (a, two) n = Add (x, b)", {"four": number(4), "two": number(2)}),
}


@pytest.mark.parametrize(
    ("operator", "value"), [("Add", 1e-9), ("Sub", 1e-9), ("Mul", 1.000005), ("Div", 1.000005), ("Add", 1e-30)]
)
def test_numbers_that_nearly_do_nothing_stay(operator: str, value: float) -> None:
    """Below a square root, or behind a logarithm, they decide."""
    assert ops(fold(image_graph(f"y = {operator} (x, near)", {"near": number(value)}))) == {operator: 1}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_goes(name: str) -> None:
    body, constants = NOTHING[name]
    """Mostly by becoming an Identity, which our own rules take away."""
    model = image_graph(f"{body} y = Relu (n)", constants)
    folded = fold(model)
    assert set(ops(folded)) <= {"Relu", "Identity"}
    assert_same(model, folded)
    assert ops(canonical(model)) == {"Relu": 1}


def test_padding_goes_into_the_convolution() -> None:
    model = image_graph("p = Pad (x, n) y = Conv (p, w)", {"n": ints(0, 0, 1, 2, 0, 0, 1, 2), "w": weights(5, 4, 3, 3)})
    assert ops(fold(model)) == {"Conv": 1}
    assert_same(model, fold(model))


def test_the_same_computed_twice_is_computed_once() -> None:
    assert ops(fold(image_graph("a = Relu (x) b = Relu (x) y = Add (a, b)"))) == {"Relu": 1, "Add": 1}
