"""What is upsampled is computed small: the same outputs, fewer multiply-adds."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.lowering import lower_for_int8
from compress.measure.cost import model_cost
from tests.graph.graphs import assert_same, image_graph, initialiser, node_of, ops, weights

SHAPES = ((1, 4, 8, 12), (2, 4, 4, 8))
SCALES = {factor: np.array([1, 1, factor, factor], np.float32) for factor in (2, 4, 8)}
CONSTANTS = {f"s{factor}": scales for factor, scales in SCALES.items()} | {
    "half": weights(5, 4, 3, 3, seed=1),
    "low": weights(6, 5, 1, 1, seed=2),
    "high": weights(6, 4, 1, 1, seed=3),
    "low40": weights(40, 5, 1, 1, seed=2),
    "high40": weights(40, 4, 1, 1, seed=3),
    "b40": weights(40, seed=4),
    "k40": weights(3, 40, 3, 3, seed=5),
    "b6": weights(6, seed=4),
    "k": weights(3, 6, 3, 3, seed=5),
    "k11": weights(3, 11, 3, 3, seed=6),
    "b3": weights(3, seed=7),
    "t": weights(4, 6, 2, 2, seed=8),
    "t6": weights(6, 1, 2, 2, seed=9),
    "b1": weights(1, seed=10),
}
UP = "<mode = 'nearest', coordinate_transformation_mode = 'asymmetric', nearest_mode = 'floor'>".replace("'", '"')
SMALL = "d = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, half)"


def lowered(body: str) -> onnx.ModelProto:
    """The lowered model, checked to compute the same in onnxruntime and in PyTorch."""
    model = image_graph(body, CONSTANTS)
    result = lower_for_int8(canonicalise(model))
    onnx.checker.check_model(result, full_check=True)
    assert_same(model, result, SHAPES)
    assert_same(model, to_onnx(to_torch(result), result), SHAPES)
    return result


def macs(model: onnx.ModelProto) -> int:
    return model_cost(model, (4, 64, 64), 0).macs


class TestConvolveBeforeUpsampling:
    def test_a_sum_as_in_a_feature_pyramid(self) -> None:
        body = f"""{SMALL} l = Conv (d, low40) u = Resize {UP} (l, , s2) h = Conv (x, high40) a = Add (h, u)
            y = Conv <pads = [1, 1, 1, 1]> (a, k40, b3)"""
        found = lowered(body)
        # The strided one, l, its 2x2 to four phases, and the lateral merged into the 3x3 of the large part.
        assert ops(found) == {"Conv": 4, "DepthToSpace": 1, "Slice": 1, "Add": 1}
        # At each of 64 x 64 pixels: l, and 2x2 to four phases, on a quarter of them; 3x3 from 4 channels on all.
        small, frame = 32 * 32, 33 * 33
        assert macs(found) == small * (9 * 4 * 5 + 5 * 40) + frame * 4 * (4 * 3) * 40 + 4 * small * 9 * 3 * 4
        assert macs(found) < 0.6 * macs(canonicalise(image_graph(body, CONSTANTS)))

    @pytest.mark.parametrize("lateral", ["Conv (x, high40, b40)", "Tanh (q)"])
    def test_a_sum_whose_large_operand_does_not_merge_stays(self, lateral: str) -> None:
        body = f"""{SMALL} l = Conv (d, low40) u = Resize {UP} (l, , s2) q = Conv (x, high40) h = {lateral}
            a = Add (h, u) y = Conv <pads = [1, 1, 1, 1]> (a, k40, b3)"""
        assert ops(lowered(body))["Resize"] == 1

    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_a_concatenation_with_each_part_its_weights(self, factor: int) -> None:
        body = f"""a = AveragePool <kernel_shape = [{factor}, {factor}], strides = [{factor}, {factor}]> (x)
            l = Conv (a, high) u = Resize {UP} (l, , s{factor}) v = Conv <pads = [1, 1, 1, 1]> (x, half)
            c = Concat <axis = 1> (u, v) y = Conv <pads = [1, 1, 1, 1]> (c, k11, b3)"""
        model = image_graph(body, CONSTANTS)
        result = lower_for_int8(canonicalise(model))
        assert_same(model, result, ((1, 4, 16, 24), (2, 4, 8, 16)))
        assert ops(result)["Resize"] == (0 if factor == 2 else 1)
        assert ops(result)["DepthToSpace"] == 1

    def test_nothing_but_the_upsampled_tensor(self) -> None:
        found = lowered(
            f"{SMALL} l = Conv (d, low) u = Resize {UP} (l, , s2) y = Conv <pads = [1, 1, 1, 1]> (u, k, b3)"
        )
        assert ops(found) == {"Conv": 3, "DepthToSpace": 1, "Slice": 1}

    def test_phases_of_a_kernel_of_numbers(self) -> None:
        """Row 2i sums small rows (i-1, i) with (w0, w1+w2), row 2i+1 rows (i, i+1) with (w0+w1, w2); columns alike."""
        column = np.array([1, 10, 100], np.float32)
        kernel = {"w": np.broadcast_to(column[:, None] * np.array([1, 0, 0], np.float32), (1, 4, 3, 3)).copy()}
        body = f"u = Resize {UP} (x, , s2) y = Conv <pads = [1, 1, 1, 1]> (u, w)"
        found = lower_for_int8(canonicalise(image_graph(body, CONSTANTS | kernel)))
        phases = initialiser(found, node_of(found, "y.phases").input[1]).reshape(2, 2, 4, 2, 2)
        odd_rows, even_rows = phases[0, 1, 0], phases[1, 1, 0]  # the frame makes the first of each pair the odd one
        np.testing.assert_array_equal(odd_rows, [[11, 0], [100, 0]])
        np.testing.assert_array_equal(even_rows, [[1, 0], [110, 0]])

    @pytest.mark.parametrize(
        "body",
        {
            "read twice": f"u = Resize {UP} (x, , s2) c = Conv <pads = [1, 1, 1, 1]> (u, e) y = Add (c, u)",
            "strided": f"u = Resize {UP} (x, , s2) y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (u, e)",
            "unpadded": f"u = Resize {UP} (x, , s2) y = Conv (u, e)",
            "linear": 'u = Resize <mode = "linear"> (x, , s2) y = Conv <pads = [1, 1, 1, 1]> (u, e)',
            "in groups": f"u = Resize {UP} (x, , s2) y = Conv <pads = [1, 1, 1, 1], group = 4> (u, g)",
        }.values(),
    )
    def test_what_is_not_exact_stays(self, body: str) -> None:
        constants = CONSTANTS | {"e": weights(4, 4, 3, 3), "g": weights(4, 1, 3, 3)}
        model = canonicalise(image_graph(body, constants))
        assert ops(lower_for_int8(model)) == ops(model)


class TestMergePointwise:
    def test_with_a_bias_of_the_first_before_a_border_both_stay(self) -> None:
        assert ops(lowered("h = Conv (x, high, b6) y = Conv <pads = [1, 1, 1, 1]> (h, k)")) == {"Conv": 2}

    def test_without_one_they_are_merged(self) -> None:
        assert ops(lowered("h = Conv (x, high) y = Conv <pads = [1, 1, 1, 1]> (h, k, b3)")) == {"Conv": 1}

    def test_a_bottleneck_that_saves_multiply_adds_stays(self) -> None:
        constants = {"narrow": weights(1, 4, 1, 1), "wide": weights(9, 1, 3, 3)}
        model = canonicalise(image_graph("h = Conv (x, narrow) y = Conv <pads = [1, 1, 1, 1]> (h, wide)", constants))
        assert ops(lower_for_int8(model)) == {"Conv": 2}


class TestTransposed:
    def test_the_head_of_a_detector_is_one_depth_to_space(self) -> None:
        """Two transposed convolutions, each doubling the size, with their activations, at the input's resolution."""
        found = lowered("a = ConvTranspose <strides = [2, 2]> (x, t, b6) r = Relu (a) "
                        "c = ConvTranspose <strides = [2, 2]> (r, t6, b1) y = Sigmoid (c)")  # fmt: skip
        assert ops(found) == {"Conv": 2, "Relu": 1, "Sigmoid": 1, "DepthToSpace": 1}
        assert node_of(found, "y").op_type == "DepthToSpace"

    def test_to_many_channels_it_stays_large(self) -> None:
        """As one matrix with zeros, 1x1 to 32 channels behind a block of 2 would take four times the work."""
        constants = CONSTANTS | {"w": weights(32, 6, 1, 1)}
        model = canonicalise(image_graph("a = ConvTranspose <strides = [2, 2]> (x, t, b6) y = Conv (a, w)", constants))
        found = lower_for_int8(model)
        assert_same(model, found, SHAPES)
        assert [node.op_type for node in found.graph.node] == ["Conv", "DepthToSpace", "Conv"]

    @pytest.mark.parametrize("attributes", ["strides = [1, 1]", "strides = [2, 2], pads = [1, 1, 0, 0]",
                                            "strides = [2, 2], output_padding = [1, 1]"])  # fmt: skip
    def test_overlapping_or_padded_blocks_stay(self, attributes: str) -> None:
        model = canonicalise(image_graph(f"y = ConvTranspose <{attributes}> (x, t)", CONSTANTS))
        assert ops(lower_for_int8(model)) == {"ConvTranspose": 1}


@st.composite
def pyramids(draw: st.DrawFn) -> tuple[onnx.ModelProto, int]:
    """A feature pyramid of two to four levels with smoothing, a joining convolution and a head; (model, its levels)."""
    levels = draw(st.integers(2, 4))
    inner, outer = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    biased = draw(st.booleans())
    lines, constants = ["c0 = Conv <pads = [1, 1, 1, 1]> (x, w0)"], dict(CONSTANTS) | {"w0": weights(4, 4, 3, 3)}
    for level in range(1, levels):
        constants[f"w{level}"] = weights(4, 4, 3, 3, seed=level)
        lines += [f"e{level} = Relu (c{level - 1})",
                  f"c{level} = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (e{level}, w{level})"]  # fmt: skip
    for level in reversed(range(levels)):
        constants |= {f"l{level}": weights(inner, 4, 1, 1, seed=level), f"lb{level}": weights(inner, seed=level),
                      f"p{level}": weights(outer, inner, 3, 3, seed=level)}  # fmt: skip
        bias = f", lb{level}" if biased else ""
        top = level == levels - 1
        lines.append(f"{'o' if top else 'i'}{level} = Conv (c{level}, l{level}{bias})")
        if not top:
            lines += [f"u{level} = Resize {UP} (o{level + 1}, , s2)", f"o{level} = Add (i{level}, u{level})"]
        lines.append(f"q{level} = Conv <pads = [1, 1, 1, 1]> (o{level}, p{level})")
        if level:
            lines.append(f"r{level} = Resize {UP} (q{level}, , s{2**level})")
    joined = ", ".join(f"r{level}" if level else "q0" for level in reversed(range(levels)))
    constants |= {"j": weights(3, outer * levels, 3, 3), "t1": weights(3, 2, 2, 2), "t2": weights(2, 1, 2, 2)}
    lines += [f"cat = Concat <axis = 1> ({joined})", "head = Conv <pads = [1, 1, 1, 1]> (cat, j, b3)"]
    lines += ["f = Relu (head)", "g = ConvTranspose <strides = [2, 2]> (f, t1)"]
    lines.append("y = ConvTranspose <strides = [2, 2]> (g, t2, b1)")
    return image_graph("\n".join(lines), constants), levels


@settings(max_examples=15)
@given(pyramids())
def test_random_pyramids(drawn: tuple[onnx.ModelProto, int]) -> None:
    model, levels = drawn
    found = lower_for_int8(canonicalise(model))
    assert_same(model, found, ((1, 4, 8, 16), (2, 4, 16, 8)), atol=1e-4)
    assert ops(found)["ConvTranspose"] == 0
    assert ops(found)["DepthToSpace"] in (2, 3)  # the joining convolution's, the head's, where it pays the finest sum's
    assert ops(found)["Resize"] <= 2 * (levels - 1) - 1
