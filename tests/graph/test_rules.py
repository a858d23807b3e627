"""Every rewrite rule: the expected operator appears, and onnxruntime computes the same before and after."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from compress.graph.rules import DENORMAL
from tests.graph.graphs import canonical, image_graph, imported, initialiser, ints, node_of, number, ops, weights

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)"
CONV_BIAS = "c = Conv <pads = [1, 1, 1, 1]> (x, w, b)"
W = weights(5, 4, 3, 3)
B = weights(5)
LIKE_INPUT = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, "H", "W"])
"""Of operators that onnx infers no shape for."""


class TestConvAddToBias:
    @pytest.mark.parametrize("shape", [(1, 5, 1, 1), (5, 1, 1), (), (1,), (1, 1, 1)])
    @pytest.mark.parametrize("order", ["c, o", "o, c"])
    def test_offset_per_channel_or_number_is_merged(self, shape: tuple[int, ...], order: str) -> None:
        offset = weights(*shape, seed=1)
        found = canonical(image_graph(f"{CONV} y = Add ({order})", {"w": W, "o": offset}))
        assert ops(found) == {"Conv": 1}
        merged = initialiser(found, node_of(found, "y").input[2])
        np.testing.assert_array_equal(merged, np.broadcast_to(offset.reshape(-1), (5,)))

    def test_existing_bias_is_added_to(self) -> None:
        offset = weights(5, 1, 1, seed=1)
        found = canonical(image_graph(f"{CONV_BIAS} y = Add (c, o)", {"w": W, "b": B, "o": offset}))
        assert ops(found) == {"Conv": 1}
        np.testing.assert_array_equal(initialiser(found, node_of(found, "y").input[2]), B + offset.reshape(-1))

    def test_two_offsets_in_a_row(self) -> None:
        constants = {"w": W, "o": weights(5, 1, 1, seed=1), "p": weights(1, 5, 1, 1, seed=2)}
        assert ops(canonical(image_graph(f"{CONV} d = Add (c, o) y = Add (p, d)", constants))) == {"Conv": 1}

    def test_grouped_transposed_convolution(self) -> None:
        constants = {"w": weights(4, 3, 2, 2), "o": weights(6, 1, 1)}
        body = "c = ConvTranspose <group = 2, strides = [2, 2]> (x, w) y = Add (c, o)"
        assert ops(canonical(image_graph(body, constants))) == {"ConvTranspose": 1}

    def test_one_dimensional_convolution(self) -> None:
        constants = {"w": weights(5, 4, 3), "o": weights(5, 1), "a": ints(2)}
        body = "s = ReduceMean <axes = [2], keepdims = 0> (x) c = Conv (s, w) y = Add (c, o)"
        assert ops(canonical(image_graph(body, constants)))["Add"] == 0

    @pytest.mark.parametrize(
        ("body", "offset"),
        [
            pytest.param(f"{CONV} y = Add (c, o) z = Neg (c)", weights(5, 1, 1), id="the convolution has two readers"),
            pytest.param(f"{CONV} y = Add (c, o)", weights(7), id="an offset per column"),
            pytest.param(f"{CONV} y = Add (c, o)", weights(1, 1, 7), id="an offset per column, with dimensions"),
            pytest.param(f"{CONV} y = Add (c, o)", weights(5, 1, 7), id="an offset per channel and column"),
            pytest.param(f"{CONV} y = Add (c, o)", weights(2, 5, 1, 1), id="an offset per image"),
            pytest.param(f"{CONV} y = Add (c, o)", weights(1, 1, 1, 1, 1), id="an offset that adds a dimension"),
        ],
    )
    def test_near_misses_are_left_alone(self, body: str, offset: np.ndarray) -> None:
        outputs = ("y", "z") if "z =" in body else ("y",)
        found = canonical(image_graph(body, {"w": W, "o": offset}, outputs=outputs), shapes=((2, 4, 5, 7),))
        assert ops(found)["Add"] == 1

    def test_convolution_that_is_an_output_is_left_alone(self) -> None:
        model = image_graph(f"{CONV} y = Add (c, o)", {"w": W, "o": weights(5, 1, 1)}, outputs=("y", "c"))
        assert ops(canonical(model)) == {"Conv": 1, "Add": 1}

    def test_computed_bias_is_not_lost(self) -> None:
        body = f"m = ReduceMean <axes = [0, 1, 2, 3], keepdims = 0> (x) b = Expand (m, s) {CONV_BIAS} y = Add (c, o)"
        model = image_graph(body, {"w": W, "o": weights(5, 1, 1), "s": ints(5)})
        assert ops(canonical(model))["Add"] == 1

    def test_computed_weight_is_left_alone(self) -> None:
        body = f"g = GlobalAveragePool (x) n = ReduceMean <axes = [0]> (g) w = Expand (n, s) {CONV} y = Add (c, o)"
        model = image_graph(body, {"o": number(2.0), "s": ints(5, 4, 3, 3)})
        assert ops(canonical(model))["Add"] == 1


class TestMatMulAddToGemm:
    FLAT = "p = GlobalAveragePool (x) f = Flatten (p)"

    @pytest.mark.parametrize("order", ["m, b", "b, m"])
    def test_matrix_and_bias_are_a_gemm(self, order: str) -> None:
        model = image_graph(f"{self.FLAT} m = MatMul (f, w) y = Add ({order})", {"w": weights(4, 3), "b": weights(3)})
        assert ops(canonical(model)) == {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}

    def test_product_of_higher_rank_stays(self) -> None:
        """On the recogniser's [T, N, C]."""
        model = image_graph("m = MatMul (x, w) y = Add (m, b)", {"w": weights(7, 3), "b": weights(3)})
        assert ops(canonical(model, shapes=((2, 4, 5, 7),))) == {"MatMul": 1, "Add": 1}

    @pytest.mark.parametrize("bias", [weights(1, 3), weights()])
    def test_bias_of_another_shape_stays(self, bias: np.ndarray) -> None:
        model = image_graph(f"{self.FLAT} m = MatMul (f, w) y = Add (m, b)", {"w": weights(4, 3), "b": bias})
        assert ops(canonical(model))["MatMul"] == 1

    def test_product_that_others_read_stays(self) -> None:
        model = image_graph(
            f"{self.FLAT} m = MatMul (f, w) y = Add (m, b)", {"w": weights(4, 3), "b": weights(3)}, outputs=("y", "m")
        )
        assert ops(canonical(model))["MatMul"] == 1


STEPS = "q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)"
"""[N, 4, H, W] -> [W, N, 4]: one step for each column."""
LSTM = {"w": weights(1, 12, 4), "r": weights(1, 12, 3), "b": weights(1, 24)}
GRU = {"w": weights(1, 9, 4), "r": weights(1, 9, 3), "b": weights(1, 18)}
BATCH = "s = Shape <start = 0, end = 1> (x)"
ZERO_STATES = {
    "ConstantOfShape": f"{BATCH} d = Concat <axis = 0> (one, s, three) h = ConstantOfShape (d)",
    "ConstantOfShape of value 0": (
        f"{BATCH} d = Concat <axis = 0> (one, s, three) h = ConstantOfShape <value = float[1] {{0.0}}> (d)"
    ),
    "Expand": f"{BATCH} d = Concat <axis = 0> (one, s, three) h = Expand (zeros, d)",
    "Tile": f"{BATCH} d = Concat <axis = 0> (one, s, one) h = Tile (zeros, d)",
    "Slice of a Concat of Tiles": f"""{BATCH} d = Concat <axis = 0> (one, s, one) k = Tile (zeros, d)
        g = Concat <axis = 0> (k, k) h = Slice (g, nought, one, nought)""",
    "Unsqueeze of an Expand": """s = Shape <start = 0, end = 1> (x) d = Concat <axis = 0> (s, three)
        e = Expand (row, d) h = Unsqueeze (e, nought)""",
}
CONSTANTS = LSTM | {
    "one": ints(1),
    "three": ints(3),
    "nought": ints(0),
    "zeros": np.zeros((1, 1, 3), np.float32),
    "row": np.zeros((1, 3), np.float32),
}


class TestZeroState:
    @pytest.mark.parametrize("name", ZERO_STATES)
    def test_built_zeros_are_dropped(self, name: str) -> None:
        body = f"{STEPS} {ZERO_STATES[name]} y = LSTM <hidden_size = 3> (t, w, r, b, , h, h)"
        found = canonical(image_graph(body, CONSTANTS))
        assert ops(found) == {"ReduceMean": 1, "Transpose": 1, "LSTM": 1}
        assert not any(node_of(found, "y").input[4:])

    def test_gru(self) -> None:
        body = f"{STEPS} {ZERO_STATES['Expand']} y = GRU <hidden_size = 3, linear_before_reset = 1> (t, w, r, b, , h)"
        assert ops(canonical(image_graph(body, CONSTANTS | GRU))) == {"ReduceMean": 1, "Transpose": 1, "GRU": 1}

    def test_zero_cell_state_beside_another_hidden_state(self) -> None:
        body = f"{STEPS} {ZERO_STATES['Expand']} i = Add (h, one_f) y = LSTM <hidden_size = 3> (t, w, r, b, , i, h)"
        found = canonical(image_graph(body, CONSTANTS | {"one_f": number(1)}))
        given = list(node_of(found, "y").input)
        assert given[5]
        assert not any(given[6:])

    @pytest.mark.parametrize("fill", [1.0, -0.5])
    def test_states_that_are_not_zero_stay(self, fill: float) -> None:
        body = f"""{STEPS} {BATCH} d = Concat <axis = 0> (one, s, three)
            h = ConstantOfShape <value = float[1] {{{fill}}}> (d) y = LSTM <hidden_size = 3> (t, w, r, b, , h, h)"""
        assert node_of(canonical(image_graph(body, CONSTANTS)), "y").input[5]

    def test_states_that_are_zero_in_part_stay(self) -> None:
        body = f"""{STEPS} {BATCH} d = Concat <axis = 0> (one, s, one) h = Tile (state, d)
            y = LSTM <hidden_size = 3> (t, w, r, b, , h, h)"""
        state = np.array([[[0, 0, 1]]], np.float32)
        assert node_of(canonical(image_graph(body, CONSTANTS | {"state": state})), "y").input[5]


class TestMeanToPool:
    @pytest.mark.parametrize("axes", ["[2, 3]", "[-1, -2]", "[3, 2]"])
    @pytest.mark.parametrize("opset", [11, 13, 17])
    def test_axes_as_attribute(self, axes: str, opset: int) -> None:
        model = image_graph(f"y = ReduceMean <axes = {axes}> (x)", opset=opset)
        assert ops(canonical(model)) == {"GlobalAveragePool": 1}

    @pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
    @pytest.mark.parametrize("opset", [18, 20])
    def test_axes_as_input(self, axes: tuple[int, int], opset: int) -> None:
        model = image_graph("y = ReduceMean (x, a)", {"a": ints(*axes)}, opset=opset)
        assert ops(canonical(model)) == {"GlobalAveragePool": 1}

    def test_dropped_dimensions_are_flattened(self) -> None:
        model = image_graph("y = ReduceMean <axes = [2, 3], keepdims = 0> (x)")
        assert ops(canonical(model)) == {"GlobalAveragePool": 1, "Flatten": 1}

    @pytest.mark.parametrize("axes", ["[1, 2]", "[3]", "[1, 2, 3]"])
    def test_other_axes_stay(self, axes: str) -> None:
        assert ops(canonical(image_graph(f"y = ReduceMean <axes = {axes}> (x)"))) == {"ReduceMean": 1}

    def test_other_ranks_stay(self) -> None:
        body = "u = Unsqueeze (x, a) y = ReduceMean <axes = [2, 3]> (u)"
        assert ops(canonical(image_graph(body, {"a": ints(1)}))) == {"Unsqueeze": 1, "ReduceMean": 1}


POOL = "p = GlobalAveragePool (x)"
FLATTENED = {
    "0, -1": ("y = Reshape (p, t)", {"t": ints(0, -1)}),
    "-1, C": ("y = Reshape (p, t)", {"t": ints(-1, 4)}),
    "0, C": ("y = Reshape (p, t)", {"t": ints(0, 4)}),
    "[N, -1], N computed": (
        "s = Shape <start = 0, end = 1> (p) t = Concat <axis = 0> (s, m) y = Reshape (p, t)",
        {"m": ints(-1)},
    ),
    "[N, C], N computed by slicing": (
        "h = Shape (p) s = Slice (h, nought, one) t = Concat <axis = 0> (s, c) y = Reshape (p, t)",
        {"nought": ints(0), "one": ints(1), "c": ints(4)},
    ),
    "[N, C], both computed": (
        """h = Shape (p) n = Gather (h, nought) c = Gather (h, one) u = Unsqueeze (n, zero) v = Unsqueeze (c, zero)
        t = Concat <axis = 0> (u, v) y = Reshape (p, t)""",
        {"nought": np.array(0), "one": np.array(1), "zero": ints(0)},
    ),
    "PaddlePaddle's, through Cast": (
        """h = Shape (p) i = Cast <to = 6> (h) s = Slice (i, nought, one) t = Concat <axis = 0> (s, m)
        l = Cast <to = 7> (t) y = Reshape (p, l)""",
        {"nought": ints(0), "one": ints(1), "m": np.array([-1], np.int32)},
    ),
}


class TestReshapeToFlatten:
    @pytest.mark.parametrize("name", FLATTENED)
    def test_target_of_any_spelling(self, name: str) -> None:
        body, constants = FLATTENED[name]
        found = canonical(image_graph(f"{POOL} {body}", constants))
        assert ops(found) == {"GlobalAveragePool": 1, "Flatten": 1}

    def test_whole_image(self) -> None:
        assert ops(canonical(image_graph("r = Relu (x) y = Reshape (r, t)", {"t": ints(0, -1)}))) == {
            "Relu": 1,
            "Flatten": 1,
        }

    def test_flatten_of_the_exporter_stays(self) -> None:
        assert ops(canonical(image_graph(f"{POOL} y = Flatten <axis = 1> (p)")))["Flatten"] == 1

    @pytest.mark.parametrize("target", [(-1, 2), (0, 2, -1), (4, -1), (-1,)])
    def test_other_targets_stay(self, target: tuple[int, ...]) -> None:
        found = canonical(image_graph(f"{POOL} y = Reshape (p, t)", {"t": ints(*target)}))
        assert ops(found) == {"GlobalAveragePool": 1, "Reshape": 1}


class TestDropNoOp:
    @pytest.mark.parametrize("body", ["r = Relu (x) y = Identity (r)", "i = Identity (x) y = Relu (i)"])
    def test_identity_is_dropped_and_outputs_keep_their_names(self, body: str) -> None:
        found = canonical(image_graph(body))
        assert ops(found) == {"Relu": 1}
        assert [value.name for value in found.graph.output] == ["y"]
        assert [value.name for value in found.graph.input] == ["x"]

    def test_output_that_others_read_keeps_its_name(self) -> None:
        found = canonical(image_graph("r = Relu (x) y = Identity (r) z = Neg (r)", outputs=("y", "z")))
        assert ops(found) == {"Relu": 1, "Neg": 1}
        assert [value.name for value in found.graph.output] == ["y", "z"]

    def test_two_outputs_of_one_value(self) -> None:
        found = canonical(image_graph("r = Relu (x) y = Identity (r) z = Identity (r)", outputs=("y", "z")))
        assert [value.name for value in found.graph.output] == ["y", "z"]

    def test_input_that_is_an_output(self) -> None:
        assert ops(canonical(image_graph("y = Identity (x) z = Relu (x)", outputs=("y", "z")))) == {
            "Identity": 1,
            "Relu": 1,
        }

    @pytest.mark.parametrize("opset", [11, 12, 17])
    def test_dropout_is_dropped(self, opset: int) -> None:
        assert ops(canonical(image_graph("r = Relu (x) y = Dropout (r)", opset=opset))) == {"Relu": 1}

    def test_dropout_with_a_mask_ends(self) -> None:
        body = "r = Relu (x) y, m = Dropout (r) z = Cast <to = 1> (m)"
        found = canonical(image_graph(body, outputs=("y", "z")))
        assert [value.name for value in found.graph.output] == ["y", "z"]

    def test_reshape_to_the_same_shape_is_dropped(self) -> None:
        found = canonical(image_graph("r = Relu (x) s = Shape (r) y = Reshape (r, s)"))
        assert ops(found) == {"Relu": 1}

    def test_flatten_of_a_matrix_is_dropped(self) -> None:
        found = canonical(image_graph(f"{POOL} f = Flatten (p) y = Flatten (f)"))
        assert ops(found) == {"GlobalAveragePool": 1, "Flatten": 1}


class TestFlushDenormals:
    def test_denormals_become_zero_and_nothing_else_changes(self) -> None:
        w = W.copy()
        w[0, 0, 0] = [1e-38, -DENORMAL / 2, 1e-45]
        w[0, 1, 0, 0] = 2 * DENORMAL
        found = initialiser(canonical(image_graph("y = Conv (x, w)", {"w": w})), "w")
        assert not found[0, 0, 0].any()
        w[0, 0, 0] = 0
        np.testing.assert_array_equal(found, w)

    def test_whole_numbers_are_left_alone(self) -> None:
        found = canonical(image_graph("y = Reshape (x, t)", {"t": ints(0, 2, 2, -1)}))
        assert initialiser(found, "t").tolist() == [0, 2, 2, -1]


def test_rules_end_on_a_graph_where_all_of_them_apply() -> None:
    constants = {"three": number(3), "zero": number(0), "six": number(6), "t": ints(0, -1)}
    constants |= {"w": W, "o": weights(5, 1, 1), "m": weights(5, 2), "n": weights(2)}
    body = f"""{CONV} d = Add (c, o) i = Identity (d) a = Add (i, three) k = Clip (a, zero, six) e = Mul (i, k)
        h = Div (e, six) p = ReduceMean <axes = [2, 3]> (h) f = Reshape (p, t) g = MatMul (f, m) y = Add (g, n)"""
    found = canonical(image_graph(body, constants))
    assert [node.op_type for node in found.graph.node] == ["Conv", "HardSwish", "GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize(("axes", "named"), [("", [0, 2, 3]), ("<axes = [2, 3]>", [2, 3])])
def test_axes_of_mean_variance_normalization_are_named(axes: str, named: list[int]) -> None:
    """Without them onnx's own checker fails on the node's definition, and with it the export of int8 files."""
    model = image_graph(f"y = MeanVarianceNormalization {axes} (x)", opset=13)
    model.graph.output[0].CopyFrom(LIKE_INPUT)
    found = canonical(model)
    assert list(node_of(found, "y").attribute[0].ints) == named


class TestFillOfNorm:
    def test_group_norm_without_weights(self) -> None:
        """As dynamo's exporter writes it at opset 21."""
        body = """s = ConstantOfShape <value = float[1] {1.0}> (n) o = ConstantOfShape (n)
            y = GroupNormalization <num_groups = 2> (x, s, o)"""
        model = image_graph(body, {"n": ints(4)}, opset=21)
        model.graph.output[0].CopyFrom(LIKE_INPUT)
        assert ops(canonical(model)) == {"GroupNormalization": 1}
        imported(model)

    def test_layer_norm_without_weights(self) -> None:
        body = "s = ConstantOfShape <value = float[1] {1.0}> (n) y = LayerNormalization <axis = 1> (x, s)"
        found = canonical(image_graph(body, {"n": ints(4, 6, 7)}), shapes=((3, 4, 6, 7),))
        assert ops(found) == {"LayerNormalization": 1}

    def test_others_stay(self) -> None:
        body = "s = ConstantOfShape <value = float[1] {2.0}> (n) y = Mul (x, s)"
        assert ops(canonical(image_graph(body, {"n": ints(4, 1, 1)}))) == {"ConstantOfShape": 1, "Mul": 1}
