"""Operators with weights: imported as plain PyTorch layers, computing what onnxruntime computes, and written back."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from compress.errors import UnsupportedOpError
from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.operators.layers import KINDS, LAYERS, WRITERS
from compress.graph.operators.recurrent import GATES_TO_ONNX, GATES_TO_TORCH
from tests.graph.graphs import SHAPES, canonical, image_graph, images, imported, initialiser, literal, number, weights

IMAGE_CONV = {"w": weights(6, 4, 3, 3), "b": weights(6)}
CONVOLUTIONS: dict[str, tuple[str, Mapping[str, np.ndarray]]] = {
    "plain": ("y = Conv (x, w)", IMAGE_CONV),
    "bias": ("y = Conv (x, w, b)", IMAGE_CONV),
    "strides and pads": ("y = Conv <strides = [2, 1], pads = [1, 2, 1, 2]> (x, w, b)", IMAGE_CONV),
    "dilations": ("y = Conv <dilations = [1, 2], pads = [1, 2, 1, 2]> (x, w)", IMAGE_CONV),
    "uneven pads": ("y = Conv <pads = [0, 1, 2, 3]> (x, w, b)", IMAGE_CONV),
    "TensorFlow's uneven pads": ("y = Conv <strides = [2, 2], pads = [0, 0, 1, 1]> (x, w)", IMAGE_CONV),
    "auto_pad VALID": ('y = Conv <auto_pad = "VALID"> (x, w)', IMAGE_CONV),
    "kernel given": ("y = Conv <kernel_shape = [3, 3]> (x, w)", IMAGE_CONV),
    "grouped": ("y = Conv <group = 2> (x, w, b)", {"w": weights(6, 2, 3, 3), "b": weights(6)}),
    "depthwise": (
        "y = Conv <group = 4, pads = [2, 2, 2, 2]> (x, w, b)",
        {"w": weights(4, 1, 5, 5), "b": weights(4)},
    ),
    "depthwise times 2": ("y = Conv <group = 4> (x, w)", {"w": weights(8, 1, 3, 3)}),
    "pointwise": ("y = Conv (x, w)", {"w": weights(5, 4, 1, 1)}),
    "one-dimensional": (
        "r = ReduceMean <axes = [2], keepdims = 0> (x) y = Conv <pads = [1, 2]> (r, w, b)",
        {"w": weights(6, 4, 3), "b": weights(6)},
    ),
    "auto_pad SAME_UPPER": ('y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', IMAGE_CONV),
    "auto_pad SAME_LOWER": ('y = Conv <auto_pad = "SAME_LOWER", strides = [1, 2]> (x, w)', IMAGE_CONV),
    "auto_pad SAME, stride 1": (
        'y = Conv <auto_pad = "SAME_LOWER"> (x, w)',
        {"w": weights(6, 4, 2, 3)},
    ),
    "padded before": ("p = Pad (x, n) y = Conv (p, w)", IMAGE_CONV | {"n": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
}
TRANSPOSED = {
    "two by two": ("y = ConvTranspose <strides = [2, 2]> (x, w, b)", {"w": weights(4, 3, 2, 2), "b": weights(3)}),
    "pads and output padding": (
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
        {"w": weights(4, 3, 3, 3)},
    ),
    "grouped": (
        "y = ConvTranspose <group = 2, strides = [2, 1]> (x, w, b)",
        {"w": weights(4, 3, 2, 2), "b": weights(6)},
    ),
    "depthwise": ("y = ConvTranspose <group = 4, strides = [2, 2]> (x, w)", {"w": weights(4, 1, 2, 2)}),
    "dilations": ("y = ConvTranspose <dilations = [2, 1]> (x, w)", {"w": weights(4, 3, 2, 2)}),
    "uneven behind": (
        "y = ConvTranspose <strides = [2, 2], pads = [0, 0, 1, 1]> (x, w, b)",
        {"w": weights(4, 3, 3, 3), "b": weights(3)},
    ),
    "uneven before": ("y = ConvTranspose <strides = [2, 2], pads = [1, 1, 0, 0]> (x, w)", {"w": weights(4, 3, 3, 3)}),
    "SAME_UPPER": ('y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)', {"w": weights(4, 3, 3, 3)}),
    "SAME_LOWER": ('y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_LOWER"> (x, w)', {"w": weights(4, 3, 4, 3)}),
    "SAME, grouped": (
        'y = ConvTranspose <group = 2, strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)',
        {"w": weights(4, 3, 3, 3)},
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    layers = list(imported(image_graph(*CONVOLUTIONS[name])).children())
    assert [type(layer) for layer in layers] == [nn.Conv1d if name == "one-dimensional" else nn.Conv2d]


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str) -> None:
    assert [type(layer) for layer in imported(image_graph(*TRANSPOSED[name])).children()] == [nn.ConvTranspose2d]


FLAT = "p = GlobalAveragePool (x) f = Flatten (p)"
NORM = {"s": weights(4), "o": weights(4, seed=1), "m": weights(4, seed=2), "v": np.abs(weights(4, seed=3)) + 0.1}


class TestBatchNormalization:
    def test_on_images(self) -> None:
        module = imported(image_graph("y = BatchNormalization <epsilon = 0.01, momentum = 0.8> (x, s, o, m, v)", NORM))
        assert isinstance(module.y, nn.BatchNorm2d)
        assert (module.y.eps, module.y.momentum) == pytest.approx((0.01, 0.2))

    @pytest.mark.parametrize("vector", [f"{FLAT}", "f = ReduceMean <axes = [2], keepdims = 0> (x)"])
    def test_on_vectors(self, vector: str) -> None:
        module = imported(image_graph(f"{vector} y = BatchNormalization (f, s, o, m, v)", NORM))
        assert isinstance(module.y, nn.BatchNorm1d)

    @pytest.mark.parametrize("opset", [9, 13, 14, 20])
    def test_of_any_opset(self, opset: int) -> None:
        imported(image_graph("y = BatchNormalization (x, s, o, m, v)", NORM, opset=opset))

    def test_running_statistics_follow_onnx_momentum(self) -> None:
        """running = momentum * running + (1 - momentum) * batch."""
        model = image_graph("y = BatchNormalization <momentum = 0.75> (x, s, o, m, v)", NORM)
        template = canonicalise(model)
        module = to_torch(template).train()
        x = images((3, 4, 5, 6))
        module(torch.from_numpy(x))
        written = to_onnx(module, template)
        np.testing.assert_allclose(initialiser(written, "m"), 0.75 * NORM["m"] + 0.25 * x.mean((0, 2, 3)), atol=1e-6)


LAST = {"s": weights(7), "o": weights(7, seed=1)}


@pytest.mark.parametrize("inputs", ["x, s", "x, s, o"])
def test_layer_normalization(inputs: str) -> None:
    module = imported(image_graph(f"y = LayerNormalization <epsilon = 0.01> ({inputs})", LAST), ((2, 4, 5, 7),))
    assert isinstance(module.y, nn.LayerNorm)


LINEAR = {
    "Gemm": (f"{FLAT} y = Gemm (f, w, b)", {"w": weights(4, 3), "b": weights(3)}),
    "Gemm transposed": (f"{FLAT} y = Gemm <transB = 1> (f, w, b)", {"w": weights(3, 4), "b": weights(3)}),
    "Gemm no bias": (f"{FLAT} y = Gemm <transB = 1> (f, w)", {"w": weights(3, 4)}),
    "Gemm bias of two dimensions": (f"{FLAT} y = Gemm (f, w, b)", {"w": weights(4, 3), "b": weights(1, 3)}),
    "Gemm one bias for all": (f"{FLAT} y = Gemm (f, w, b)", {"w": weights(4, 3), "b": number(0.5)}),
    "MatMul": (f"{FLAT} y = MatMul (f, w)", {"w": weights(4, 3)}),
    "MatMul and Add": (f"{FLAT} m = MatMul (f, w) y = Add (b, m)", {"w": weights(4, 3), "b": weights(3)}),
    "MatMul of steps": (
        "t = Transpose <perm = [3, 0, 2, 1]> (x) y = MatMul (t, w)",
        {"w": weights(4, 3)},
    ),
    "MatMul of steps and Add": (
        "t = Transpose <perm = [3, 0, 2, 1]> (x) m = MatMul (t, w) y = Add (m, b)",
        {"w": weights(4, 3), "b": weights(3)},
    ),
    "MatMul of steps and Add, the product read twice": (
        "t = Transpose <perm = [3, 0, 2, 1]> (x) m = MatMul (t, w) a = Add (m, b) y = Mul (a, m)",
        {"w": weights(4, 3), "b": weights(3)},
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear(name: str) -> None:
    module = imported(image_graph(*LINEAR[name]))
    layers = [layer for layer in module.children() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(4, 3)]


def test_bias_of_a_product_is_trained_with_it() -> None:
    module = imported(image_graph(*LINEAR["MatMul of steps and Add"]))
    assert isinstance(module.m, nn.Linear)
    assert module.m.bias is not None
    assert dict(module.named_buffers()) == {}


def test_product_with_a_constant_that_is_no_matrix() -> None:
    imported(image_graph("y = MatMul (x, w)", {"w": weights(4, 7, 2)}), ((2, 4, 5, 7),))


STEPS = "q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)"
"""[N, 4, H, W] -> [W, N, 4]: one step for each column."""


def recurrent(gates: int, directions: int, hidden: int = 3, given: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """W, R and B of one layer."""
    return {
        "w": weights(directions, gates * hidden, given, seed=seed),
        "r": weights(directions, gates * hidden, hidden, seed=seed),
        "b": weights(directions, 2 * gates * hidden, seed=seed),
    }


ALL_OUTPUTS = {"LSTM": ("y", "y_h", "y_c"), "GRU": ("y", "y_h"), "RNN": ("y", "y_h")}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class TestRecurrent:
    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    @pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
    @pytest.mark.parametrize("bias", ["b", ""])
    def test_all_outputs(self, kind: str, direction: str, bias: str) -> None:
        made, more = ALL_OUTPUTS[kind], ", linear_before_reset = 1" if kind == "GRU" else ""
        node = f'{", ".join(made)} = {kind} <hidden_size = 3, direction = "{direction}"{more}> (t, w, r, {bias})'
        constants = recurrent(GATES[kind], 2 if direction == "bidirectional" else 1)
        module = imported(image_graph(f"{STEPS} {node}", constants, outputs=made))
        assert [type(layer) for layer in module.children()] == [getattr(nn, kind)]

    @pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
    @pytest.mark.parametrize("bias", ["b", ""])
    def test_reset_before_the_product(self, direction: str, bias: str) -> None:
        node = f'y, y_h = GRU <hidden_size = 3, direction = "{direction}"> (t, w, r, {bias})'
        constants = recurrent(3, 2 if direction == "bidirectional" else 1)
        imported(image_graph(f"{STEPS} {node}", constants, outputs=("y", "y_h")))

    @pytest.mark.parametrize("directions", [1, 2])
    def test_other_activation_of_a_plain_one(self, directions: int) -> None:
        names = ", ".join(['"Relu"'] * directions)
        node = f'direction = "{["forward", "bidirectional"][directions - 1]}", activations = [{names}]'
        imported(image_graph(f"{STEPS} y = RNN <hidden_size = 3, {node}> (t, w, r, b)", recurrent(1, directions)))

    @pytest.mark.parametrize("opset", [11, 20])
    def test_of_any_opset(self, opset: int) -> None:
        steps = STEPS if opset < 18 else STEPS.replace("axes = [2], ", "").replace("(x)", "(x, a)")
        body = f"{steps} y = LSTM <hidden_size = 3> (t, w, r, b)"
        imported(image_graph(body, recurrent(4, 1) | {"a": np.array([2])}, opset=opset))

    def test_two_layers_as_pytorch_exports_them(self) -> None:
        """Y [T, D, N, H] -> [T, N, D * H] in between."""
        second = {f"{name}2": array for name, array in recurrent(4, 2, given=6, seed=1).items()}
        body = f"""{STEPS} a = LSTM <hidden_size = 3, direction = "bidirectional"> (t, w, r, b)
            s = Transpose <perm = [0, 2, 1, 3]> (a) u = Reshape (s, n)
            y = LSTM <hidden_size = 3, direction = "bidirectional"> (u, w2, r2, b2)"""
        imported(image_graph(body, recurrent(4, 2) | second | {"n": np.array([0, 0, -1])}))

    def test_only_the_last_state_is_used(self) -> None:
        body = f"{STEPS} , y_h = LSTM <hidden_size = 3> (t, w, r, b) y = Squeeze (y_h, zero)"
        imported(image_graph(body, recurrent(4, 1) | {"zero": np.array([0])}))

    def test_hidden_size_and_default_activations_may_be_spelled_out_or_left_out(self) -> None:
        activations = 'activations = ["Sigmoid", "Tanh", "Tanh"]'
        imported(image_graph(f"{STEPS} y = LSTM <hidden_size = 3, {activations}> (t, w, r, b)", recurrent(4, 1)))
        module = to_torch(canonicalise(image_graph(f"{STEPS} y = LSTM (t, w, r, b)", recurrent(4, 1))))
        assert module.y.hidden_size == 3

    @pytest.mark.parametrize("kind", GATES_TO_TORCH)
    def test_gate_orders_undo_each_other(self, kind: str) -> None:
        order = [GATES_TO_TORCH[kind][index] for index in GATES_TO_ONNX[kind]]
        assert order == list(range(len(order)))


STATE = recurrent(4, 1) | {"length": np.array([3, 3], np.int32), "state": weights(1, 2, 3), "peep": weights(1, 9)}
UNSUPPORTED = [
    ("u = Unsqueeze (x, a) y = Conv (u, w)", {"w": weights(5, 4, 1, 3, 3), "a": np.array([2])}, "3-dimensional kernel"),
    ("y = ConvTranspose <output_shape = [9, 9]> (x, w)", {"w": weights(4, 3, 2, 2)}, "uneven padding or output_shape"),
    (
        "r = ReduceMean <axes = [2], keepdims = 0> (x) y = ConvTranspose (r, w)",
        {"w": weights(4, 3, 2)},
        "1-dimensional kernel",
    ),
    ("y, a, c = BatchNormalization <training_mode = 1> (x, s, o, m, v)", NORM, "training_mode"),
    ("y = LayerNormalization <axis = 2> (x, s)", {"s": weights(7)}, "the shape of what is normalised"),
    (f"{FLAT} y = Gemm <transA = 1> (f, w)", {"w": weights(4, 3)}, "transA, with a weight"),
    (
        "g = GroupNormalization <num_groups = 2> (x, s, s) y = Reshape (g, n)",
        {"s": weights(2), "n": np.array([0, 4, -1])},
        "one scale for each group",
    ),
    (f"{FLAT} y = Gemm (f, w, b)", {"w": weights(4, 3), "b": weights(2, 3)}, "bias of shape [2, 3]"),
    (f"{FLAT} c = Cast <to = 11> (f) y = MatMul (c, w)", {"w": weights(4, 3).astype(float)}, "is float64, not float32"),
    (f"{STEPS} y = LSTM <hidden_size = 3, clip = 1.0> (t, w, r, b)", STATE, "layout, clip or input_forget"),
    (
        f'{STEPS} y = LSTM <hidden_size = 3, activations = ["Relu", "Tanh", "Tanh"]> (t, w, r, b)',
        STATE,
        "activations relu, tanh, tanh",
    ),
    (f"{STEPS} y = LSTM <hidden_size = 3> (t, w, r, b, length)", STATE, "sequence lengths, initial states or peephole"),
    (
        f"{STEPS} y = LSTM <hidden_size = 3> (t, w, r, b, , state)",
        STATE,
        "sequence lengths, initial states or peephole",
    ),
    (f"{STEPS} y = LSTM <hidden_size = 3> (t, w, r, b, , , , peep)", STATE, "sequence lengths, initial states or peep"),
]


@pytest.mark.parametrize(("body", "constants", "message"), UNSUPPORTED)
def test_unsupported_form_is_named(body: str, constants: dict[str, np.ndarray], message: str) -> None:
    template = canonicalise(image_graph(body, constants))
    with pytest.raises(UnsupportedOpError, match=literal(message)):
        to_torch(template)


NORMALISED: dict[str, tuple[str, Mapping[str, np.ndarray], int, type[nn.Module]]] = {
    "LayerNorm of two axes": (
        "q = Resize (x, , , n) y = LayerNormalization <axis = -2> (q, s, o)",
        {"n": np.array([1, 4, 5, 7]), "s": weights(5, 7), "o": weights(5, 7, seed=1)}, 17, nn.LayerNorm),
    "LayerNorm counted from the front": (
        "q = Transpose <perm = [0, 2, 3, 1]> (x) y = LayerNormalization <axis = 3> (q, s)",
        {"s": weights(4)}, 17, nn.LayerNorm),
    "InstanceNorm": ("y = InstanceNormalization (x, s, o)", NORM, 17, nn.InstanceNorm2d),
    "InstanceNorm of rows": (
        "q = Reshape (x, n) y = InstanceNormalization <epsilon = 0.1> (q, s, o)",
        NORM | {"n": np.array([0, 0, -1])}, 17, nn.InstanceNorm1d),
    "PReLU of channels": ("y = PRelu (x, s)", {"s": weights(4, 1, 1)}, 17, nn.PReLU),
    "PReLU of channels, four dimensions": ("y = PRelu (x, s)", {"s": weights(1, 4, 1, 1)}, 17, nn.PReLU),
    "PReLU of one": ("y = PRelu (x, s)", {"s": weights(1)}, 17, nn.PReLU),
    "PReLU of one number": ("y = PRelu (x, s)", {"s": number(0.3)}, 17, nn.PReLU),
    "PReLU of a vector": (f"{FLAT} y = PRelu (f, s)", {"s": weights(4)}, 17, nn.PReLU),
    "alpha and beta": (
        f"{FLAT} y = Gemm <alpha = 0.5, beta = 2.0> (f, w, b)", {"w": weights(4, 3), "b": weights(3)}, 17, nn.Linear),
    "alpha, transposed": (f"{FLAT} y = Gemm <alpha = 0.5, transB = 1> (f, w)", {"w": weights(3, 4)}, 17, nn.Linear),
    "Einsum of a matrix": (
        'q = Transpose <perm = [0, 2, 3, 1]> (x) y = Einsum <equation = "nhwc,cd->nhwd"> (q, w)',
        {"w": weights(4, 3)}, 17, nn.Linear),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALISED)
def test_other_layers(name: str) -> None:
    body, constants, opset, kind = NORMALISED[name]
    module = imported(image_graph(body, constants, opset=opset), ((1, 4, 5, 7),) if "two axes" in name else SHAPES)
    assert kind in [type(layer) for layer in module.children()]


def test_group_norm() -> None:
    """Inference knows nothing of its shape, hence not by text."""
    model = image_graph("y = InstanceNormalization (x, s, o)", NORM, opset=21)
    node = model.graph.node[0]
    node.op_type = "GroupNormalization"
    node.attribute.append(helper.make_attribute("num_groups", 2))
    assert [type(layer) for layer in imported(model).children()] == [nn.GroupNorm]


def test_a_slope_of_another_shape_is_spelled_out() -> None:
    imported(image_graph("y = PRelu (x, s)", {"s": weights(4, 8, 12)}), ((2, 4, 8, 12),))


def test_every_layer_is_read_and_written() -> None:
    assert set(LAYERS) == set(KINDS) == set(WRITERS)


def test_imported_layers_are_plain() -> None:
    """No subclasses: torch-pruning and quantisation know a layer by its type."""
    model = image_graph(
        f"c = Conv (x, w, b) h = HardSwish (c) {FLAT.replace('(x)', '(h)')} y = Gemm (f, g)",
        IMAGE_CONV | {"g": weights(6, 2)},
    )
    module = to_torch(canonical(model))
    kinds = [type(layer) for layer in module.children()]
    assert kinds == [nn.Conv2d, nn.Hardswish, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
