"""Scales and offsets beside convolutions: folded where that is exact, left alone where it is not."""

import numpy as np
import onnx
import pytest
from onnx import helper

from compress.graph.canonical import canonicalise
from tests.graph.graphs import canonical, image_graph, initialiser, ints, node_of, number, ops, weights

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)"
W = weights(5, 4, 3, 3)
B = weights(5, seed=3)
POINT = weights(6, 4, 1, 1)
DEPTH = weights(4, 1, 3, 3)
AFFINE = {"s": number(1.7), "o": number(-0.4)}


class TestConvScale:
    @pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (5, 1, 1), (1, 5, 1, 1)])
    @pytest.mark.parametrize("order", ["c, s", "s, c"])
    def test_scale_per_channel_or_number_is_merged(self, shape: tuple[int, ...], order: str) -> None:
        scale = weights(*shape, seed=1)
        found = canonical(image_graph(f"{CONV} y = Mul ({order})", {"w": W, "s": scale}))
        assert ops(found) == {"Conv": 1}
        expected = W * np.broadcast_to(scale.reshape(-1, 1, 1, 1), (5, 1, 1, 1))
        np.testing.assert_array_equal(initialiser(found, node_of(found, "y").input[1]), expected)

    def test_learned_affine_layer(self) -> None:
        body = "c = Conv <pads = [1, 1, 1, 1]> (x, w, b) d = Mul (s, c) y = Add (d, o)"
        found = canonical(image_graph(body, {"w": W, "b": B, **AFFINE}))
        assert ops(found) == {"Conv": 1}
        expected = (B.astype(np.float64) * np.float32(1.7)).astype(np.float32) + np.float32(-0.4)
        np.testing.assert_array_equal(initialiser(found, node_of(found, "y").input[2]), expected)

    def test_transposed_convolution_by_a_number(self) -> None:
        body = "c = ConvTranspose <group = 2, strides = [2, 2]> (x, w) y = Mul (c, s)"
        assert ops(canonical(image_graph(body, {"w": weights(4, 3, 2, 2), "s": number(0.3)}))) == {"ConvTranspose": 1}

    @pytest.mark.parametrize(
        ("body", "scale"),
        [
            pytest.param(f"{CONV} y = Mul (c, s) z = Neg (c)", weights(5, 1, 1), id="the convolution has two readers"),
            pytest.param(f"{CONV} y = Mul (c, s)", weights(7), id="a scale per column"),
            pytest.param(f"{CONV} y = Mul (c, s)", weights(2, 5, 1, 1), id="a scale per image"),
            pytest.param(f"{CONV} y = Mul (c, s)", weights(1, 1, 1, 1, 1), id="a scale that adds a dimension"),
            pytest.param(
                "c = ConvTranspose (x, t) y = Mul (c, s)", weights(3, 1, 1), id="a transposed one, per channel"
            ),
            pytest.param(f"{CONV} g = Sigmoid (c) y = Mul (g, s)", number(2.0), id="something in between"),
        ],
    )
    def test_near_misses_are_left_alone(self, body: str, scale: np.ndarray) -> None:
        outputs = ("y", "z") if "z =" in body else ("y",)
        constants = {"w": W, "t": weights(4, 3, 2, 2), "s": scale}
        assert ops(canonical(image_graph(body, constants, outputs=outputs), shapes=((2, 4, 5, 7),)))["Mul"] == 1

    def test_spelled_out_hard_sigmoid_is_found_first(self) -> None:
        body = f"{CONV} d = Mul (c, f) e = Add (d, h) y = Clip (e, zero, one)"
        constants = {"w": W, "f": number(0.2), "h": number(0.5), "zero": number(0), "one": number(1)}
        assert ops(canonical(image_graph(body, constants))) == {"Conv": 1, "HardSigmoid": 1}

    def test_hard_sigmoid_whose_offset_could_be_a_bias_is_found_first(self) -> None:
        body = f"{CONV} e = Add (c, three) d = Clip (e, zero, six) y = Div (d, six)"
        constants = {"w": W, "three": number(3), "zero": number(0), "six": number(6)}
        assert ops(canonical(image_graph(body, constants))) == {"Conv": 1, "HardSigmoid": 1}


class TestAffineIntoConvs:
    def test_into_a_convolution_that_does_not_pad(self) -> None:
        body = "h = HardSwish (x) d = Mul (h, s) e = Add (d, o) y = Conv (e, w, b)"
        found = canonical(image_graph(body, {"w": POINT, "b": weights(6), **AFFINE}))
        assert ops(found) == {"HardSwish": 1, "Conv": 1}

    def test_into_every_reader(self) -> None:
        body = "h = Relu (x) d = Mul (s, h) e = Add (o, d) y = Conv (e, w) z = Conv <strides = [2, 2]> (e, v)"
        constants = {"w": POINT, "v": weights(3, 4, 3, 3), **AFFINE}
        assert ops(canonical(image_graph(body, constants, outputs=("y", "z")))) == {"Relu": 1, "Conv": 2}

    def test_a_convolution_that_pads_keeps_the_offset(self) -> None:
        body = (
            "h = HardSwish (x) d = Mul (h, s) e = Add (d, o) y = Conv <group = 4, pads = [1, 1, 1, 1]> (e, w)"
            " z = Conv (e, v)"
        )
        found = canonical(image_graph(body, {"w": DEPTH, "v": POINT, **AFFINE}, outputs=("y", "z")))
        assert ops(found) == {"HardSwish": 1, "Add": 1, "Conv": 2}

    @pytest.mark.parametrize("pads", ["pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"'])
    def test_a_scale_alone_goes_into_one_that_pads(self, pads: str) -> None:
        body = f"h = Relu (x) d = Mul (h, s) y = Conv <group = 4, {pads}> (d, w)"
        assert ops(canonical(image_graph(body, {"w": DEPTH, **AFFINE}))) == {"Relu": 1, "Conv": 1}

    @pytest.mark.parametrize(
        ("body", "left"),
        [
            pytest.param("e = Add (h, o) y = Conv <pads = [1, 1, 1, 1]> (e, w)", "Add", id="only moved"),
            pytest.param("d = Mul (h, s) y = Conv (d, w) z = Neg (d)", "Mul", id="read elsewhere"),
            pytest.param("d = Mul (h, c) y = Conv (d, w)", "Mul", id="a scale per channel"),
            pytest.param("d = Mul (h, t) e = Add (d, o) y = Conv <pads = [1, 1, 1, 1]> (e, w)", "Mul", id="tiny"),
            pytest.param("k = Reshape (q, r) d = Mul (h, s) y = Conv (d, k)", "Mul", id="computed weights"),
        ],
    )
    def test_near_misses_are_left_alone(self, body: str, left: str) -> None:
        constants = {
            "w": W[:, :, :1, :1],
            "c": weights(4, 1, 1),
            "t": number(1e-7),
            "u": number(3e38),
            "r": ints(1, 4, 1, 1),
            **AFFINE,
        }
        outputs = ("y", "z") if "z =" in body else ("y",)
        model = image_graph(f"h = Relu (x) q = GlobalAveragePool (h) {body}", constants, outputs=outputs)
        assert ops(canonical(model, shapes=((1, 4, 5, 7),)))[left] == 1

    def test_weights_that_would_be_infinite_are_left_alone(self) -> None:
        body = "h = Relu (x) i = Mul (h, t) d = Mul (i, u) y = Conv (d, w)"
        constants = {"w": np.full((3, 4, 1, 1), 20, np.float32), "t": number(1e-20), "u": number(3e38)}
        assert ops(canonical(image_graph(body, constants)))["Mul"] == 2

    def test_a_convolution_in_a_branch_is_left_alone(self) -> None:
        """An If is refused later on, but by its name."""
        graph = image_graph("h = Relu (x) d = Mul (h, s) y = Conv (d, w)", {"w": POINT, **AFFINE})
        conv = graph.graph.node.pop()
        branch = helper.make_graph([conv], "branch", [], [helper.make_tensor_value_info("y", 1, [None] * 4)])
        test = helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=branch)
        graph.graph.input.append(helper.make_tensor_value_info("b", onnx.TensorProto.BOOL, []))
        graph.graph.node.append(test)
        graph.graph.output[0].name = "z"
        assert "Mul" in ops(canonicalise(graph))
