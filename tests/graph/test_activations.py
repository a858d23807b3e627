"""Replaced activations compute what they are called; all else in the graph stays, bit for bit."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.graph import to_onnx, to_torch
from compress.graph.activations import OP_TYPES, REPLACEMENTS, activations_of, replace_activations
from compress.graph.canonical import canonicalise
from tests.graph.graphs import assert_same, image_graph, images, node_of, ops, run, weights

NAMES = ("a", "b", "c")
CHAIN = "t = Conv (x, w) a = HardSwish (t) b = HardSwish (a) r = Relu (b) u = Add (r, a) c = HardSwish (u) y = Neg (c)"


def chain() -> onnx.ModelProto:
    """Three hard-swishes; one value is read twice."""
    return canonicalise(image_graph(CHAIN, {"w": weights(4, 4, 1, 1)}))


def hard_swish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + 3, 0, 6) / 6


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def by_numpy(x: np.ndarray, replaced: frozenset[str]) -> np.ndarray:
    """The chain by its formula, in float64."""
    act = {name: relu if name in replaced else hard_swish for name in NAMES}
    t = np.einsum("oi,nihw->nohw", weights(4, 4, 1, 1)[:, :, 0, 0].astype(np.float64), x.astype(np.float64))
    a = act["a"](t)
    return -act["c"](relu(act["b"](a)) + a)


def test_names_are_those_of_the_values_in_the_order_they_are_computed() -> None:
    assert activations_of(chain(), "hardswish") == NAMES
    assert activations_of(chain(), "relu") == ("r",)


@given(st.frozensets(st.sampled_from(NAMES)))
def test_each_choice_computes_its_formula(replaced: frozenset[str]) -> None:
    x = 3 * images((2, 4, 5, 6))
    found = replace_activations(chain(), replaced, "hardswish", "relu")
    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_allclose(run(found, x)["y"], by_numpy(x, replaced), rtol=1e-5, atol=1e-5)
    assert activations_of(found, "hardswish") == tuple(name for name in NAMES if name not in replaced)


def test_the_given_model_stays_and_nothing_else_differs() -> None:
    model = chain()
    before = model.SerializeToString(deterministic=True)
    found = replace_activations(model, {"b"}, "hardswish", "relu")
    assert model.SerializeToString(deterministic=True) == before
    assert ops(found) == {"Conv": 1, "HardSwish": 2, "Relu": 2, "Add": 1, "Neg": 1}
    node_of(found, "b").op_type = "HardSwish"
    assert found.SerializeToString(deterministic=True) == before


def test_none_replaced_is_bit_identical() -> None:
    model = chain()
    found = replace_activations(model, (), "hardswish", "relu")
    assert found.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_the_result_is_canonical_and_can_be_trained() -> None:
    found = replace_activations(chain(), ("a", "c"), "hardswish", "relu")
    again = canonicalise(found)
    assert [(node.op_type, node.name) for node in again.graph.node] == [(n.op_type, n.name) for n in found.graph.node]
    assert_same(found, to_onnx(to_torch(found), found))


@pytest.mark.parametrize("spelling", ["g = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, g)"])
def test_a_hard_swish_spelled_out_is_found(spelling: str) -> None:
    model = canonicalise(image_graph(spelling))
    (name,) = activations_of(model, "hardswish")
    found = replace_activations(model, [name], "hardswish", "relu")
    x = 3 * images((1, 4, 5, 6))
    np.testing.assert_array_equal(run(found, x)["y"], relu(x))


def test_another_domains_operator_is_another() -> None:
    model = chain()
    node_of(model, "a").domain = "com.example"
    assert activations_of(model, "hardswish") == ("b", "c")


def test_every_replacement_has_a_node() -> None:
    assert REPLACEMENTS
    assert {*REPLACEMENTS, *(new for many in REPLACEMENTS.values() for new in many)} <= set(OP_TYPES)
