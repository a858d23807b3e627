"""LayerNorm is found however it is spelled, computes the same, and nothing else is taken for it."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from tests.graph.graphs import canonical, image_graph, initialiser, node_of, number, ops, run, weights

C = 7
SCALE, OFFSET = weights(C, seed=1), weights(C, seed=2)
SHAPES = ((1, 4, 6, C), (3, 4, 6, C))
CONSTANTS = {"scale": SCALE, "offset": OFFSET, "epsilon": number(1e-3), "two": number(2)}
CONSTANTS |= {"row": SCALE.reshape(1, C), "image": OFFSET.reshape(1, 1, 1, C)}
MEAN = "m = ReduceMean <axes = [-1]> (x)"
DEVIATION = f"{MEAN} d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [-1]> (q) e = Add (v, epsilon) r = Sqrt (e)"
AFFINE = "s = Mul (n, scale) y = Add (s, offset)"
SPELLINGS = {
    "divided": f"{DEVIATION} n = Div (d, r) {AFFINE}",
    "squared by Pow": f"{DEVIATION.replace('Mul (d, d)', 'Pow (d, two)')} n = Div (d, r) {AFFINE}",
    "times the inverse": f"{DEVIATION} i = Reciprocal (r) n = Mul (d, i) {AFFINE}",
    "the inverse times it": f"{DEVIATION} i = Reciprocal (r) n = Mul (i, d) {AFFINE}",
    "epsilon first": f"{DEVIATION.replace('(v, epsilon)', '(epsilon, v)')} n = Div (d, r) {AFFINE}",
    "constants first": f"{DEVIATION} n = Div (d, r) s = Mul (scale, n) y = Add (offset, s)",
    "axis counted from the front": f"{DEVIATION.replace('[-1]', '[3]')} n = Div (d, r) {AFFINE}",
    "constants of more dimensions": f"{DEVIATION} n = Div (d, r) s = Mul (n, row) y = Add (s, image)",
    "the mean taken twice": (
        f"{DEVIATION} m2 = ReduceMean <axes = [-1]> (x) d2 = Sub (x, m2) n = Div (d2, r) {AFFINE}"
    ),
}
NOT_LAYER_NORM = {
    "another mean": f"{DEVIATION.replace('Sub (x, m)', 'Sub (x, two)')} n = Div (d, r) {AFFINE}",
    "another dimension": f"{DEVIATION.replace('[-1]', '[2]')} n = Div (d, r) {AFFINE}",
    "two dimensions": f"{DEVIATION.replace('[-1]', '[2, 3]')} n = Div (d, r) {AFFINE}",
    "no root": f"{DEVIATION} n = Div (d, e) {AFFINE}",
    "cubed": f"{DEVIATION.replace('Mul (d, d)', 'Pow (d, three)')} n = Div (d, r) {AFFINE}",
    "square of another value": f"{DEVIATION.replace('Mul (d, d)', 'Mul (d, x)')} n = Div (d, r) {AFFINE}",
    "scale of another dimension": f"{DEVIATION} n = Div (d, r) s = Mul (n, column) y = Add (s, offset)",
    "one scale for all": f"{DEVIATION} n = Div (d, r) s = Mul (n, two) y = Add (s, offset)",
    "epsilon of more dimensions than x": f"{DEVIATION.replace('epsilon', 'deep')} n = Div (d, r) {AFFINE}",
    "a scale of more dimensions than x": f"{DEVIATION} n = Div (d, r) s = Mul (n, wide) y = Add (s, offset)",
    "no scale": f"{DEVIATION} n = Div (d, r) y = Add (n, offset)",
}


def _canonical(body: str, constants: Mapping[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    """The canonical form, of images whose rows have C places."""
    return canonical(image_graph(body, constants, opset=opset, given=f"float[N, 4, 6, {C}] x"), SHAPES)


@pytest.mark.parametrize("opset", [11, 17, 18])
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_found(name: str, opset: int) -> None:
    body, constants = SPELLINGS[name], dict(CONSTANTS)
    if opset == 18:
        for axis in (-1, 3):
            body = body.replace(f"<axes = [{axis}]> (x)", "(x, axes)").replace(f"<axes = [{axis}]> (q)", "(q, axes)")
            constants["axes"] = np.array([axis if "front" in name else -1], np.int64)
    found = _canonical(body, constants, opset)
    assert ops(found) == {"LayerNormalization": 1}
    node = node_of(found, "y")
    np.testing.assert_array_equal(initialiser(found, node.input[1]), SCALE)
    np.testing.assert_array_equal(initialiser(found, node.input[2]), OFFSET)
    (epsilon,) = [found.f for found in node.attribute if found.name == "epsilon"]
    assert epsilon == pytest.approx(1e-3)


@pytest.mark.parametrize("name", NOT_LAYER_NORM)
def test_near_misses_are_left_alone(name: str) -> None:
    more = {"three": number(3), "column": weights(6, 1), "deep": np.full((1, 1, 1, 1, 1), 1e-3, np.float32)}
    more["wide"] = SCALE.reshape(1, 1, 1, 1, C)
    assert "LayerNormalization" not in ops(_canonical(NOT_LAYER_NORM[name], {**CONSTANTS, **more}))


def test_a_residual_is_no_offset() -> None:
    found = _canonical(f"{DEVIATION} n = Div (d, r) s = Mul (n, scale) y = Add (s, x)", CONSTANTS)
    assert ops(found) == {"LayerNormalization": 1, "Add": 1}


def test_a_second_offset_stays() -> None:
    body = f"{SPELLINGS['divided'].replace('y = Add', 'z = Add')} y = Add (z, more)"
    found = _canonical(body, {**CONSTANTS, "more": weights(C, seed=3)})
    assert ops(found) == {"LayerNormalization": 1, "Add": 1}


def test_a_norm_that_others_read_keeps_its_value() -> None:
    body = f"{DEVIATION} n = Div (d, r) s = Mul (n, scale) o = Add (s, offset) y = Mul (o, s)"
    found = _canonical(body, CONSTANTS)
    assert ops(found) == {"LayerNormalization": 1, "Add": 1, "Mul": 1}


def test_a_quotient_that_others_read_stays() -> None:
    body = f"{DEVIATION} n = Div (d, r) s = Mul (n, scale) t = Mul (n, offset) y = Add (s, t)"
    assert "LayerNormalization" not in ops(_canonical(body, CONSTANTS))


@pytest.mark.parametrize("read", ["mu", "inverse"])
def test_a_norm_whose_statistics_are_read_stays(read: str) -> None:
    body = f"o, mu, inverse = LayerNormalization (x, scale) p = Add (o, offset) y = Add (p, {read})"
    assert ops(_canonical(body, CONSTANTS)) == {"LayerNormalization": 1, "Add": 2}


@pytest.mark.parametrize("epsilon", [1e-12, 1e-8])
def test_a_small_epsilon_is_no_zero(epsilon: float) -> None:
    """It alone keeps a row of equal numbers from being NaN."""
    given = image_graph(SPELLINGS["divided"], {**CONSTANTS, "epsilon": number(epsilon)}, given=f"float[N, 4, 6, {C}] x")
    found = canonical(given, SHAPES)
    assert ops(found) == {"LayerNormalization": 1}
    flat = np.zeros((1, 4, 6, C), np.float32)
    np.testing.assert_array_equal(run(found, flat)["y"], np.broadcast_to(OFFSET, flat.shape))
