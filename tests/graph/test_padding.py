"""Channels of zeros: which tensors grow together, and that the network computes the same."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.graph import from_torch, load_model, to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.lowering import lower_for_int8
from compress.graph.padding import ChannelSet, pad_channels, paddable_sets
from compress.measure.session import Session
from compress.zoo import shipped
from tests.graph.graphs import assert_same, image_graph, images, initialiser, ints, node_of, number, ops, run, weights
from tests.graph.networks import randomise
from tests.graph.test_random_networks import PLANS, Network
from tests.quant import nets

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
SCALES = np.array([1, 1, 2, 2], np.float32)
CONSTANTS = {
    "in6": weights(6, 4, 3, 3, seed=1),
    "b6": weights(6, seed=2),
    "to6": weights(6, 6, 1, 1, seed=3),
    "depth6": weights(6, 1, 3, 3, seed=4),
    "pairs6": weights(6, 3, 1, 1, seed=5),
    "out3": weights(3, 6, 1, 1, seed=6),
    "b3": weights(3, seed=7),
    "to2": weights(2, 6, 1, 1, seed=8),
    "from2": weights(6, 2, 1, 1, seed=9),
    "to1": weights(1, 6, 1, 1, seed=10),
    "factor6": weights(1, 6, 1, 1, seed=11),
    "out12": weights(3, 12, 1, 1, seed=12),
    "in12": weights(12, 4, 3, 3, seed=13),
    "in2": weights(2, 4, 3, 3, seed=14),
    "out8": weights(3, 8, 1, 1, seed=15),
    "depth8": weights(8, 1, 3, 3, seed=16),
    "scales": SCALES,
    "zero": number(0),
    "one": number(1),
    "half": number(0.5),
}
IN = "c = Conv <pads = [1, 1, 1, 1]> (x, in6, b6)"
OUT = "y = Conv (e, out3, b3)"


def padded(body: str, sets: Mapping[str, int] | None = None, constants: Mapping[str, np.ndarray] = CONSTANTS):  # type: ignore[no-untyped-def]
    """The graph with every set (or these) widened, checked to compute the same in onnxruntime and in PyTorch."""
    model = lower_for_int8(canonicalise(image_graph(body, constants)))
    widths = {found.name: found.channels + 3 for found in paddable_sets(model)} if sets is None else sets
    result = pad_channels(model, widths)
    onnx.checker.check_model(result, full_check=True)
    assert ops(result) == ops(model)
    assert_same(model, result)
    assert_same(model, to_onnx(to_torch(result), result))
    return model, result


def shape(model: onnx.ModelProto, output: str, place: int = 1) -> tuple[int, ...]:
    """Of a node's weight, or of its bias."""
    return initialiser(model, node_of(model, output).input[place]).shape


def inner_values(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run(opened, x)


class TestSets:
    def test_a_convolution_and_its_reader(self) -> None:
        model, result = padded(f"{IN} e = Relu (c) {OUT}")
        assert paddable_sets(model) == (ChannelSet("c", 6, ("c", "e"), ("c", "e", "y")),)
        assert (shape(result, "c"), shape(result, "c", 2)) == ((9, 4, 3, 3), (9,))
        assert (shape(result, "y"), shape(result, "y", 2)) == ((3, 9, 1, 1), (3,))

    def test_new_channels_are_zero(self) -> None:
        body = f"{IN} d = Conv <group = 6, pads = [1, 1, 1, 1]> (c, depth6, b6) h = HardSwish (d) e = Add (c, h) {OUT}"
        _, result = padded(body)
        found = inner_values(result, images((1, 4, 8, 12)))
        for name in "cdhe":
            assert found[name].shape[1] == 9
            assert np.abs(found[name][:, :6]).max() > 0.1
            assert not found[name][:, 6:].any()

    def test_depthwise_convolutions_and_sums_couple(self) -> None:
        """A residual block: what is added has the width of what it is added to."""
        model, result = padded(f"""{IN} d = Conv <group = 6, pads = [1, 1, 1, 1]> (c, depth6) h = HardSwish (d)
            m = Conv (h, to6, b6) e = Add (c, m) {OUT}""")
        (found,) = paddable_sets(model)
        assert (found.tensors, found.operators) == (("c", "d", "h", "m", "e"), ("c", "d", "h", "m", "e", "y"))
        assert (shape(result, "d"), shape(result, "m")) == ((9, 1, 3, 3), (9, 9, 1, 1))
        assert {each.name: each.i for each in node_of(result, "d").attribute}["group"] == 9

    @pytest.mark.parametrize("gate", ["HardSigmoid", "Sigmoid"])
    def test_squeeze_and_excite(self, gate: str) -> None:
        """The gate's last convolution makes as many channels as the tensor that is gated."""
        model, result = padded(f"""{IN} g = GlobalAveragePool (c) s = Conv (g, to2) r = Relu (s)
            x2 = Conv (r, from2, b6) a = {gate} (x2) e = Mul (c, a) {OUT}""")
        wide, narrow = paddable_sets(model)
        assert (wide.channels, narrow.channels, narrow.tensors) == (6, 2, ("s", "r"))
        assert {"c", "g", "x2", "a", "e"} <= set(wide.tensors)
        assert (shape(result, "s"), shape(result, "x2")) == ((5, 9, 1, 1), (9, 5, 1, 1))

    def test_one_set_alone(self) -> None:
        body = f"{IN} g = GlobalAveragePool (c) s = Conv (g, to2) x2 = Conv (s, from2) e = Mul (c, x2) {OUT}"
        _, result = padded(body, {"s": 8})
        assert (shape(result, "c"), shape(result, "s"), shape(result, "x2")) == (
            (6, 4, 3, 3), (8, 6, 1, 1), (6, 8, 1, 1)
        )  # fmt: skip

    def test_a_map_that_is_broadcast_over_channels_stays(self) -> None:
        model, result = padded(f"{IN} s = Conv (c, to1) a = Sigmoid (s) e = Mul (c, a) {OUT}")
        assert [found.channels for found in paddable_sets(model)] == [6]
        assert (shape(result, "c")[0], shape(result, "s")) == (9, (1, 9, 1, 1))

    @pytest.mark.parametrize(
        "node",
        ["AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c)", "MaxPool <kernel_shape = [2, 2]> (c)",
         'Resize <mode = "nearest"> (c, , scales)', 'Resize <mode = "linear"> (c, , scales)', "Clip (c, zero, one)",
         "HardSigmoid (c)", "Sigmoid (c)", "Tanh (c)", "LeakyRelu (c)", "Clip (c, half, one)", "Sub (c, c)",
         "Mul (c, c)"],
    )  # fmt: skip
    def test_what_keeps_channels(self, node: str) -> None:
        model, _ = padded(f"{IN} e = {node} {OUT}")
        assert [found.channels for found in paddable_sets(model)] == [6]

    def test_concatenated_tensors_grow_part_by_part(self) -> None:
        """A reader's zeros come behind each part's own weights."""
        body = f"""{IN} d = Conv <pads = [1, 1, 1, 1]> (x, in2) r = Relu (d) k = Concat <axis = 1> (r, c)
            e = Conv <group = 8, pads = [1, 1, 1, 1]> (k, depth8) y = Conv (e, out8, b3)"""
        model, result = padded(body, {"d": 4, "c": 7})
        assert [(found.name, found.channels, found.tensors) for found in paddable_sets(model)] == [
            ("c", 6, ("c", "k", "e")), ("d", 2, ("d", "r", "k", "e"))
        ]  # fmt: skip
        before, after = CONSTANTS["out8"], initialiser(result, node_of(result, "y").input[1])
        zeros = np.zeros((3, 1, 1, 1), np.float32)
        np.testing.assert_array_equal(after, np.concatenate([before[:, :2], zeros, zeros, before[:, 2:], zeros], 1))
        assert (shape(result, "d"), shape(result, "c"), shape(result, "e")) == (
            (4, 4, 3, 3), (7, 4, 3, 3), (11, 1, 3, 3)
        )  # fmt: skip

    def test_a_tensor_concatenated_with_itself_grows_twice(self) -> None:
        model, result = padded(f"{IN} k = Concat <axis = 1> (c, c) e = Add (k, k) y = Conv (e, out12, b3)")
        assert [found.tensors for found in paddable_sets(model)] == [("c", "k", "e")]
        assert shape(result, "y") == (3, 18, 1, 1)

    def test_what_the_image_is_concatenated_with_grows(self) -> None:
        model, result = padded(f"{IN} k = Concat <axis = 1> (x, c, x) y = Conv (k, out14)", {"c": 8},
                               CONSTANTS | {"out14": weights(3, 14, 1, 1)})  # fmt: skip
        assert [found.tensors for found in paddable_sets(model)] == [("c", "k")]
        after = initialiser(result, node_of(result, "y").input[1])
        np.testing.assert_array_equal(after[:, 12:], weights(3, 14, 1, 1)[:, 10:])

    @pytest.mark.parametrize("transposed", [0, 1])
    @pytest.mark.parametrize("bias", ["", ", b6", ", one"])
    def test_gemms(self, transposed: int, bias: str) -> None:
        """A bias of one number for all would reach the new channels: then the set stays."""
        first, last = weights(4, 6, seed=1), weights(6, 3, seed=2)
        constants = CONSTANTS | ({"w": first.T.copy(), "v": last.T.copy()} if transposed else {"w": first, "v": last})
        kind = f"Gemm <transB = {transposed}>"
        body = f"g = GlobalAveragePool (x) f = Flatten (g) c = {kind} (f, w{bias}) e = Relu (c) y = {kind} (e, v, b3)"
        model, result = padded(body, None, constants)
        assert [found.tensors for found in paddable_sets(model)] == ([] if bias == ", one" else [("c", "e")])
        width = 6 if bias == ", one" else 9
        assert (shape(result, "c"), shape(result, "y")) == (
            ((width, 4), (3, width)) if transposed else ((4, width), (width, 3))
        )

    @pytest.mark.parametrize(
        "body",
        {
            "an input": "y = Conv (x, in6)",
            "an output": "c = Conv (x, in6) y = Relu (c)",
            "concatenated by rows": f"{IN} k = Concat <axis = 2> (c, c) y = Conv (k, out3)",
            "concatenated to an output": f"{IN} k = Concat <axis = 1> (c, c) m = Tanh (k) y = Add (m, m)",
            "added to a concatenated tensor": f"""{IN} k = Concat <axis = 1> (c, c)
                d = Conv <pads = [1, 1, 1, 1]> (x, in12) e = Add (k, d) y = Conv (e, out12)""",
            "added to a map": f"{IN} k = ReduceMean <axes = [1]> (x) e = Add (c, k) {OUT}",
            "flattened": f"{IN} e = Flatten (c) y = Softmax (e)",
            "shuffled": f"{IN} k = Reshape (c, s) e = Reshape (k, s) y = Conv (e, out3)",
            "in groups": f"{IN} k = Conv <group = 2> (c, pairs6) y = Softmax <axis = 1> (k)",
            "transposed": f"{IN} y = ConvTranspose (c, t)",
            "divided": f"{IN} e = Div (c, c) {OUT}",
            "scaled by channel": f"{IN} e = Mul (c, factor6) {OUT}",
            "added to a number": f"{IN} e = Add (c, half) {OUT}",
            "normalised": f"{IN} e = Softmax <axis = 1> (c) {OUT}",
            "averaged over channels": f"{IN} m = ReduceMean <axes = [1]> (c) e = Sub (c, m) {OUT}",
            "resized to a given size": f"{IN} e = Resize (c, , , given) {OUT}",
            "asked for its size": f"{IN} s2 = Shape (c) e = Resize (c, , , s2) {OUT}",
        }.values(),
    )
    def test_barriers(self, body: str) -> None:
        constants = CONSTANTS | {"s": ints(0, 6, -1, 2), "t": weights(6, 2, 2, 2), "given": ints(1, 6, 8, 8)}
        assert paddable_sets(image_graph(body, constants)) == ()

    def test_a_tensor_that_is_an_output_as_well_stays(self) -> None:
        model = image_graph(f"{IN} e = Relu (c) {OUT}", CONSTANTS, outputs=("y", "e"))
        assert paddable_sets(model) == ()


class TestPadding:
    def test_nothing_to_pad_changes_nothing(self) -> None:
        model = nets.template("mobile")
        assert pad_channels(model, {}) == model

    def test_weights_that_two_nodes_share(self) -> None:
        """Only one of them is in the set."""
        body = f"{IN} d = Conv (c, to6, b6) r = Relu (d) e = Conv (r, to6, b6) y = Conv (e, out3, b3)"
        model = image_graph(body, CONSTANTS)
        result = pad_channels(model, {"e": 8})
        assert_same(model, result)
        assert (shape(result, "d"), shape(result, "e")) == ((6, 6, 1, 1), (8, 6, 1, 1))

    def test_names_and_metadata_stay(self) -> None:
        model = nets.template("mobile")
        model.metadata_props.add(key="character", value="abc")
        result = pad_channels(model, {found.name: 32 for found in paddable_sets(model)})
        assert result.metadata_props == model.metadata_props
        assert (result.graph.input, result.graph.output) == (model.graph.input, model.graph.output)
        assert [node.name for node in result.graph.node] == [node.name for node in model.graph.node]

    def test_unknown_sets_and_fewer_channels_are_refused(self) -> None:
        model = image_graph(f"{IN} e = Relu (c) {OUT}", CONSTANTS)
        with pytest.raises(ValueError, match=r"no set of channels 'y' that can be padded\. There are: c\."):
            pad_channels(model, {"y": 16})
        with pytest.raises(ValueError, match="c: 6 channels cannot be padded to 5"):
            pad_channels(model, {"c": 5})


def assert_padding_keeps(model: onnx.ModelProto, x: np.ndarray, block: int = 16, atol: float = 1e-5) -> int:
    """Every set is padded to a multiple; what is computed keeps its values. The number of sets."""
    sets = [found for found in paddable_sets(model) if found.channels % block]
    result = pad_channels(model, {found.name: -(-found.channels // block) * block for found in sets})
    assert all(found.channels % block == 0 for found in paddable_sets(result))
    before, after = inner_values(model, x), inner_values(result, x)
    computed = {node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    for name in computed | {value.name for value in model.graph.output}:
        array, kept = before[name], after[name]
        kept = kept[:, : array.shape[1]] if name in computed else kept
        largest = max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(kept / largest, array / largest, atol=atol, err_msg=name)
    return len(sets)


@pytest.mark.parametrize("name", nets.ZOO)
def test_networks_of_every_kind(name: str) -> None:
    assert_padding_keeps(nets.template(name), nets.images(2).numpy())


@pytest.mark.slow
@settings(max_examples=15)
@given(
    plans=PLANS, head=st.sampled_from(["map", "classes", "steps"]), seed=st.integers(0, 99), block=st.integers(5, 16)
)
def test_any_small_network(plans: list[dict[str, object]], head: str, seed: int, block: int) -> None:
    network = randomise(Network(plans, head), seed)
    model = lower_for_int8(from_torch(network, torch.zeros(1, 3, 16, 24)))
    assert_padding_keeps(model, images((2, 3, 20, 16), seed), block)


class Residual(nn.Module):
    """Inverted residual blocks with squeeze-and-excite, some of them strided."""

    def __init__(self, width: int, blocks: list[tuple[int, bool, bool]]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.Hardswish())
        self.expand, self.depth, self.gates, self.project = (nn.ModuleList() for _ in range(4))
        self.strided = [strided for _, _, strided in blocks]
        for inner, gated, strided in blocks:
            self.expand.append(nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish()))
            self.depth.append(nn.Conv2d(inner, inner, 3, 2 if strided else 1, 1, groups=inner))
            squeeze = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, 2, 1), nn.ReLU(), nn.Conv2d(2, inner, 1), nn.Hardsigmoid()
            )
            self.gates.append(squeeze if gated else nn.Identity())
            self.project.append(nn.Conv2d(inner, width, 1, bias=False))
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for expand, depth, gate, project, strided in zip(
            self.expand, self.depth, self.gates, self.project, self.strided, strict=True
        ):
            y = torch.relu(depth(expand(x)))
            y = y if isinstance(gate, nn.Identity) else y * gate(y)
            x = project(y) if strided else x + project(y)
        return self.last(x)


@pytest.mark.slow
@settings(max_examples=10)
@given(
    width=st.integers(2, 9),
    blocks=st.lists(st.tuples(st.integers(3, 20), st.booleans(), st.booleans()), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_residual_network(width: int, blocks: list[tuple[int, bool, bool]], seed: int) -> None:
    """All of it can be padded but the output: a width for each run of added tensors, one or two for each block."""
    network = randomise(Residual(width, blocks), seed)
    model = lower_for_int8(from_torch(network, torch.zeros(1, 3, 16, 24)), resample=False)  # nothing is merged
    runs = 1 + sum(strided for _, _, strided in blocks)
    assert len(paddable_sets(model)) == runs + sum(1 + gated for _, gated, _ in blocks)
    assert_padding_keeps(model, images((2, 3, 16, 24), seed), 7)


@pytest.mark.parametrize("name", ["direction_classifier", "text_recogniser", "text_detector"])
def test_shipped_models(name: str) -> None:
    model = lower_for_int8(load_model(shipped(name)))
    height = {"direction_classifier": 48, "text_recogniser": 32, "text_detector": 64}[name]
    assert assert_padding_keeps(model, images((1, 3, height, 96))) >= 5


@pytest.mark.slow
@pytest.mark.skipif(not MODELS.is_dir(), reason="needs the PP-OCR models in ../shared/data/models")
@pytest.mark.parametrize(
    ("file", "size", "sets"),
    [
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (48, 192), 19),
        ("en_number_mobile_v2.0_rec_infer.onnx", (32, 320), 15),
        ("ch_ppocr_mobile_v2.0_det_infer.onnx", (160, 96), 12),
    ],
)
def test_deployed_models(file: str, size: tuple[int, int], sets: int) -> None:
    model = lower_for_int8(load_model(MODELS / file))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, *size)).astype(np.float32)
    assert assert_padding_keeps(model, x, atol=1e-4) == sets
    wide = pad_channels(model, {found.name: -(-found.channels // 16) * 16 for found in paddable_sets(model)})
    np.testing.assert_allclose(
        Session(wide).run(x), Session(model).run(x), atol=1e-4
    )  # all of onnxruntime's fusions on
