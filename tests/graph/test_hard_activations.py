"""Hard-swish and hard-sigmoid are found however they are spelled, and nothing else is taken for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph.graphs import canonical, image_graph, node_of, number, ops

CONSTANTS = {
    "three": number(3),
    "six": number(6),
    "zero": number(0),
    "one": number(1),
    "sixth": number(1 / 6),
    "slope": number(0.2),
    "half": number(0.5),
    "six_vector": np.array([6], np.float32),
    "three_image": np.full((1, 1, 1, 1), 3, np.float32),
}
CLIP = "a = Add (x, three) c = Clip (a, zero, six)"
HARD_SWISH = {
    "x * clip / 6": f"{CLIP} m = Mul (x, c) y = Div (m, six)",
    "clip * x / 6": f"{CLIP} m = Mul (c, x) y = Div (m, six)",
    "x * (clip / 6)": f"{CLIP} d = Div (c, six) y = Mul (x, d)",
    "(clip / 6) * x": f"{CLIP} d = Div (c, six) y = Mul (d, x)",
    "x * (clip * 1/6)": f"{CLIP} d = Mul (c, sixth) y = Mul (x, d)",
    "x * (1/6 * clip)": f"{CLIP} d = Mul (sixth, c) y = Mul (x, d)",
    "x * clip * 1/6": f"{CLIP} m = Mul (x, c) y = Mul (m, sixth)",
    "1/6 * (x * clip)": f"{CLIP} m = Mul (x, c) y = Mul (sixth, m)",
    "x / 6 * clip": f"{CLIP} d = Div (x, six) y = Mul (d, c)",
    "clip * (x * 1/6)": f"{CLIP} d = Mul (x, sixth) y = Mul (c, d)",
    "3 + x": "a = Add (three, x) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
    "constants of other shapes": (
        "a = Add (x, three_image) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six_vector)"
    ),
    "x * HardSigmoid": "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, s)",
    "HardSigmoid * x": "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (s, x)",
    "x * clip(x / 6 + 0.5, 0, 1)": "m = Mul (x, sixth) a = Add (m, half) c = Clip (a, zero, one) y = Mul (x, c)",
    "min and max": "a = Add (x, three) l = Max (a, zero) c = Min (l, six) m = Mul (x, c) y = Div (m, six)",
}
WAYS_TO_CLIP = {
    "Clip (a, zero, six)": 17,
    "Clip (a, zero, six) at opset 11": 11,
    "Clip (a, zero, six) at opset 20": 20,
    "Clip <min = 0.0, max = 6.0> (a)": 9,
}
HARD_SIGMOID = {
    "clip(x + 3) / 6": (f"{CLIP} y = Div (c, six)", 1 / 6, 0.5),
    "clip(x + 3) * 1/6": (f"{CLIP} y = Mul (sixth, c)", 1 / 6, 0.5),
    "clip(0.2x + 0.5, 0, 1)": ("m = Mul (x, slope) a = Add (m, half) y = Clip (a, zero, one)", 0.2, 0.5),
    "clip(0.5 + 0.2x, 0, 1)": ("m = Mul (slope, x) a = Add (half, m) y = Clip (a, zero, one)", 0.2, 0.5),
    "clip(x / 6 + 0.5, 0, 1)": ("m = Div (x, six) a = Add (m, half) y = Clip (a, zero, one)", 1 / 6, 0.5),
    "clip(x + 0.5, 0, 1)": ("a = Add (x, half) y = Clip (a, zero, one)", 1.0, 0.5),
}
NOT_HARD_SWISH = {
    "clipped at 5": "a = Add (x, three) c = Clip (a, zero, five) m = Mul (x, c) y = Div (m, six)",
    "divided by 5": f"{CLIP} m = Mul (x, c) y = Div (m, five)",
    "shifted by 2.99": "a = Add (x, nearly) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
    "clipped from 0.1": "a = Add (x, three) c = Clip (a, tenth, six) m = Mul (x, c) y = Div (m, six)",
    "clipped above alone": "a = Add (x, three) c = Clip (a, , six) m = Mul (x, c) y = Div (m, six)",
    "clipped below alone": "a = Add (x, three) c = Clip (a, zero) m = Mul (x, c) y = Div (m, six)",
    "gate of another value": "n = Neg (x) a = Add (n, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
    "times another value": f"{CLIP} n = Neg (x) m = Mul (n, c) y = Div (m, six)",
    "6 / (x * clip)": f"{CLIP} m = Mul (x, c) e = Exp (m) y = Div (six, e)",
    "PaddlePaddle's slope": "s = HardSigmoid <alpha = 0.2, beta = 0.5> (x) y = Mul (x, s)",
    "HardSigmoid twice": "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (s, s)",
    "a shift per channel": "a = Add (x, threes) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
}
NOT_HARD_SIGMOID = {
    "clipped at 5": "a = Add (x, three) c = Clip (a, zero, five) y = Div (c, six)",
    "clipped to [0.1, 1]": "a = Add (x, half) y = Clip (a, tenth, one)",
    "without a shift": "m = Mul (x, slope) y = Clip (m, zero, one)",
    "6 / clip": f"{CLIP} e = Exp (c) y = Div (six, e)",
}
NEAR = CONSTANTS | {
    "five": number(5),
    "nearly": number(2.99),
    "tenth": number(0.1),
    "threes": np.array([3, 3, 3, 2.5], np.float32).reshape(4, 1, 1),
}


@pytest.mark.parametrize("name", HARD_SWISH)
def test_hard_swish_is_found(name: str) -> None:
    body = HARD_SWISH[name]
    assert ops(canonical(image_graph(body, CONSTANTS))) == {"HardSwish": 1}


@pytest.mark.parametrize("way", WAYS_TO_CLIP)
def test_hard_swish_is_found_at_every_opset(way: str) -> None:
    body = f"a = Add (x, three) c = {way.split(' at ')[0]} m = Mul (x, c) y = Div (m, six)"
    model = image_graph(body, CONSTANTS, opset=WAYS_TO_CLIP[way])
    assert ops(canonical(model)) == {"HardSwish": 1}


@pytest.mark.parametrize("name", HARD_SIGMOID)
def test_hard_sigmoid_is_found(name: str) -> None:
    body, alpha, beta = HARD_SIGMOID[name]
    found = canonical(image_graph(body, CONSTANTS))
    assert ops(found) == {"HardSigmoid": 1}
    values = {entry.name: entry.f for entry in found.graph.node[0].attribute}
    assert values == pytest.approx({"alpha": alpha, "beta": beta}, abs=1e-7)


@pytest.mark.parametrize("name", NOT_HARD_SWISH)
def test_near_misses_are_no_hard_swish(name: str) -> None:
    body = NOT_HARD_SWISH[name]
    assert ops(canonical(image_graph(body, NEAR)))["HardSwish"] == 0


@pytest.mark.parametrize("name", NOT_HARD_SIGMOID)
def test_near_misses_are_no_hard_sigmoid(name: str) -> None:
    body = NOT_HARD_SIGMOID[name]
    assert ops(canonical(image_graph(body, NEAR)))["HardSigmoid"] == 0


def test_what_others_read_stays() -> None:
    """The clipped value is an output and has another reader: hard-swish is found all the same, nothing is lost."""
    body = f"{CLIP} m = Mul (x, c) y = Div (m, six) z = Neg (c)"
    found = canonical(image_graph(body, CONSTANTS, outputs=("y", "c", "z")))
    assert [value.name for value in found.graph.output] == ["y", "c", "z"]
    assert ops(found) == {"HardSwish": 1, "Add": 1, "Clip": 1, "Neg": 1}


def test_two_hard_swishes_of_one_value() -> None:
    second = "b = Add (p, three) d = Clip (b, zero, six) n = Mul (p, d) y = Div (n, six)"
    body = f"{CLIP} m = Mul (x, c) p = Div (m, six) {second}"
    assert ops(canonical(image_graph(body, CONSTANTS))) == {"HardSwish": 2}


def test_a_constant_that_adds_dimensions_is_left_alone() -> None:
    body = "f = Flatten (x) a = Add (f, big) c = Clip (a, zero, six) m = Mul (f, c) y = Div (m, six)"
    model = image_graph(body, CONSTANTS | {"big": np.full((1, 1, 1), 3, np.float32)})
    assert ops(canonical(model))["HardSwish"] == 0


@settings(max_examples=15)
@given(  # no zeros: folding takes "+ 0" away
    slope=st.floats(0.125, 2, width=32),
    offset=st.floats(0.125, 2, width=32) | st.floats(-2, -0.125, width=32),
    top=st.floats(0.5, 8, width=32),
)
def test_any_clipped_ramp_is_a_hard_sigmoid(slope: float, offset: float, top: float) -> None:
    """clip(slope * x + offset, 0, top) / top = HardSigmoid(x; slope / top, offset / top)."""
    body = "m = Mul (x, slope) a = Add (m, offset) c = Clip (a, zero, top) y = Div (c, top)"
    values = {"slope": number(slope), "offset": number(offset), "zero": number(0), "top": number(top)}
    found = canonical(image_graph(body, values), shapes=((2, 4, 3, 5),))
    assert ops(found) == {"HardSigmoid": 1}
    attributes = {entry.name: entry.f for entry in node_of(found, "y").attribute}
    assert attributes == pytest.approx({"alpha": slope / top, "beta": offset / top}, rel=1e-6, abs=1e-30)
