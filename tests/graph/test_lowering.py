"""Lowering keeps the outputs, and leaves alone what it cannot fold exactly."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.lowering import lower_for_int8
from tests.graph.graphs import assert_same, image_graph, initialiser, node_of, ops, weights


def norm(channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A BatchNorm's scale (some negative), offset, mean and variance."""
    return {
        "s": weights(channels, seed=seed),
        "o": weights(channels, seed=seed + 1),
        "m": weights(channels, seed=seed + 2),
        "v": np.abs(weights(channels, seed=seed + 3)) + 0.1,
    }


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """The lowered model, checked to compute the same."""
    template = canonicalise(model)
    before = template.SerializeToString(deterministic=True)
    result = lower_for_int8(template, resample=False)  # tests/graph/test_resampling.py has the rest
    assert template.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    assert_same(model, result)
    assert_same(model, to_onnx(to_torch(result), result))
    return result


CONVOLUTIONS = {
    "plain": ("Conv <pads = [1, 1, 1, 1]> (x, w)", (5, 4, 3, 3), 5),
    "bias": ("Conv <strides = [2, 1]> (x, w, b)", (5, 4, 3, 3), 5),
    "depthwise": ("Conv <group = 4> (x, w, b)", (4, 1, 3, 3), 4),
    "grouped": ("Conv <group = 2> (x, w)", (6, 2, 3, 3), 6),
    "transposed": ("ConvTranspose <strides = [2, 2]> (x, w, b)", (4, 5, 2, 2), 5),
    "transposed in groups": ("ConvTranspose <group = 2, strides = [2, 1]> (x, w)", (4, 3, 2, 2), 6),
    "transposed depthwise": ("ConvTranspose <group = 4> (x, w, b)", (4, 1, 2, 2), 4),
}


class TestFoldBatchNorm:
    @pytest.mark.parametrize("name", CONVOLUTIONS)
    def test_into_every_kind_of_convolution(self, name: str) -> None:
        node, shape, channels = CONVOLUTIONS[name]
        body = f"c = {node} y = BatchNormalization <epsilon = 0.001> (c, s, o, m, v)"
        found = lowered(image_graph(body, norm(channels) | {"w": weights(*shape), "b": weights(channels)}))
        assert ops(found) == {node.split()[0]: 1}
        assert len(found.graph.initializer) == 2  # nothing of the old weights is left

    def test_by_the_formula(self) -> None:
        """w' = w s / sqrt(v + eps), b' = (b - m) s / sqrt(v + eps) + o, for one channel of numbers in the head."""
        constants = {
            "w": np.full((1, 4, 1, 1), 2, np.float32),
            "b": np.array([5], np.float32),
            "s": np.array([3], np.float32),
            "o": np.array([7], np.float32),
            "m": np.array([1], np.float32),
            "v": np.array([3.75], np.float32),
        }
        body = "c = Conv (x, w, b) y = BatchNormalization <epsilon = 0.25> (c, s, o, m, v)"
        found = lowered(image_graph(body, constants))
        weight, bias = (initialiser(found, name) for name in node_of(found, "y").input[1:])
        assert weight.reshape(-1).tolist() == [3, 3, 3, 3]  # 2 * 3 / sqrt(4)
        assert bias.tolist() == [13]  # (5 - 1) * 3 / sqrt(4) + 7

    def test_through_a_network(self) -> None:
        body = """c = Conv (x, w) n = BatchNormalization (c, s, o, m, v) r = Relu (n)
            d = Conv <group = 4> (r, k) e = BatchNormalization (d, s, m, o, v) h = HardSwish (e)
            f = ConvTranspose (h, t) y = BatchNormalization (f, o, s, m, v)"""
        constants = norm(4) | {"w": weights(4, 4, 1, 1), "k": weights(4, 1, 3, 3), "t": weights(4, 4, 2, 2)}
        assert ops(lowered(image_graph(body, constants)))["BatchNormalization"] == 0

    @pytest.mark.parametrize(
        ("body", "outputs"),
        [
            pytest.param(
                "c = Conv (x, w) n = BatchNormalization (c, s, o, m, v) y = Add (n, c)", ("y",), id="read twice"
            ),
            pytest.param("c = Conv (x, w) y = BatchNormalization (c, s, o, m, v)", ("y", "c"), id="an output"),
            pytest.param("c = Relu (x) y = BatchNormalization (c, s, o, m, v)", ("y",), id="no convolution"),
            pytest.param(
                """g = GlobalAveragePool (x) q = ReduceMean <axes = [0, 2, 3], keepdims = 0> (g)
                c = Conv (x, w, q) y = BatchNormalization (c, s, o, m, v)""",
                ("y",),
                id="a computed bias",
            ),
        ],
    )
    def test_left_alone(self, body: str, outputs: tuple[str, ...]) -> None:
        model = image_graph(body, norm(4) | {"w": weights(4, 4, 1, 1)}, outputs=outputs)
        found = lower_for_int8(canonicalise(model))
        assert ops(found)["BatchNormalization"] == 1
        assert_same(model, found)


class TestFoldHardSigmoid:
    @pytest.mark.parametrize("attributes", ["", "<alpha = 0.16666667, beta = 0.5>", "<alpha = -0.3, beta = 0.1>"])
    @pytest.mark.parametrize("bias", ["", ", b"])
    def test_slope_goes_into_the_convolution(self, attributes: str, bias: str) -> None:
        body = f"p = GlobalAveragePool (x) c = Conv (p, w{bias}) h = HardSigmoid {attributes} (c) y = Mul (x, h)"
        found = lowered(image_graph(body, {"w": weights(4, 4, 1, 1, scale=2), "b": weights(4)}))
        assert ops(found) == {"GlobalAveragePool": 1, "Conv": 1, "Clip": 1, "Mul": 1}
        clip = node_of(found, "h")
        assert [float(initialiser(found, name)) for name in clip.input[1:]] == [0, 1]

    def test_after_a_batch_norm(self) -> None:
        body = "c = Conv (x, w) n = BatchNormalization (c, s, o, m, v) y = HardSigmoid (n)"
        assert ops(lowered(image_graph(body, norm(4) | {"w": weights(4, 4, 1, 1)}))) == {"Conv": 1, "Clip": 1}

    @pytest.mark.parametrize(
        ("body", "outputs"),
        [
            pytest.param("c = Conv (x, w) h = HardSigmoid (c) y = Mul (c, h)", ("y",), id="read twice"),
            pytest.param("c = Conv (x, w) y = HardSigmoid (c)", ("y", "c"), id="an output"),
            pytest.param("y = HardSigmoid (x)", ("y",), id="no convolution"),
            pytest.param("c = ConvTranspose (x, w) y = HardSigmoid (c)", ("y",), id="transposed"),
        ],
    )
    def test_left_alone(self, body: str, outputs: tuple[str, ...]) -> None:
        model = image_graph(body, {"w": weights(4, 4, 1, 1)}, outputs=outputs)
        assert ops(lowered(model))["HardSigmoid"] == 1


def test_names_dimensions_and_metadata_survive() -> None:
    model = image_graph(
        "c = Conv (x, w) n = BatchNormalization (c, s, o, m, v) y = HardSigmoid (n)",
        norm(4) | {"w": weights(4, 4, 1, 1)},
    )
    onnx.helper.set_model_props(model, {"charset": "abc"})
    template = canonicalise(model)
    found = lower_for_int8(template)
    assert found.graph.input == template.graph.input
    assert found.graph.output == template.graph.output
    assert found.metadata_props == template.metadata_props
    assert [node.name for node in found.graph.node] == [node.output[0] for node in found.graph.node]


def test_nothing_to_lower_changes_nothing() -> None:
    template = canonicalise(image_graph("c = Conv (x, w) y = Relu (c)", {"w": weights(4, 4, 1, 1)}))
    assert lower_for_int8(template) == template


@settings(max_examples=25)
@given(
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 3),
    transposed=st.booleans(),
    bias=st.booleans(),
    sigmoid=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_convolution_with_norm_and_gate(
    groups: int, per_group: int, transposed: bool, bias: bool, sigmoid: bool, seed: int
) -> None:
    out = groups * per_group
    shape = (4, per_group, 2, 2) if transposed else (out, 4 // groups, 2, 2)
    constants = norm(out, seed) | {"w": weights(*shape, seed=seed), "b": weights(out, seed=seed)}
    conv = f"{'ConvTranspose' if transposed else 'Conv'} <group = {groups}> (x, w{', b' if bias else ''})"
    body = f"c = {conv} n = BatchNormalization (c, s, o, m, v) y = {'HardSigmoid' if sigmoid else 'HardSwish'} (n)"
    model = image_graph(body, constants)
    found = lower_for_int8(canonicalise(model))
    assert ops(found)["BatchNormalization"] == 0
    assert_same(model, found, ((2, 4, 3, 5),))


def test_a_gate_far_from_its_ramp_stays_exact() -> None:
    """All inputs beyond the clip's ends."""
    body = "c = Conv (x, w, b) y = HardSigmoid (c)"
    found = lowered(image_graph(body, {"w": weights(3, 4, 1, 1), "b": np.array([100, -100, 0], np.float32)}))
    assert ops(found) == {"Conv": 1, "Clip": 1}
