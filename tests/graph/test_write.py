"""Weights go back to where they came from, of any size, and only into the model they came from."""

import numpy as np
import onnx
import pytest
import torch
from torch import fx, nn

from compress.errors import ModelError
from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from tests.graph.graphs import (
    assert_same,
    image_graph,
    images,
    initialiser,
    ints,
    literal,
    node_of,
    number,
    run,
    weights,
)

STEPS = "q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)"
NORM = {"s": np.abs(weights(4)) + 0.5, "o": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.5}
EVERY_LAYER = {
    "Conv": ("y = Conv (x, w, b)", {"w": weights(5, 4, 3, 3), "b": weights(5)}),
    "Conv uneven": ("y = Conv <pads = [0, 0, 1, 1]> (x, w)", {"w": weights(5, 4, 3, 3)}),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, w, b)", {"w": weights(4, 5, 2, 2), "b": weights(5)}),
    "BatchNormalization": ("y = BatchNormalization (x, s, o, m, v)", NORM),
    "LayerNormalization": (
        "t = Transpose <perm = [0, 2, 3, 1]> (x) y = LayerNormalization (t, s, o)",
        {"s": weights(4), "o": weights(4)},
    ),
    "Gemm": ("p = GlobalAveragePool (x) f = Flatten (p) y = Gemm (f, w, b)", {"w": weights(4, 3), "b": weights(3)}),
    "Gemm transposed": ("p = GlobalAveragePool (x) f = Flatten (p) y = Gemm <transB = 1> (f, w)", {"w": weights(3, 4)}),
    "MatMul": (
        "t = Transpose <perm = [0, 2, 3, 1]> (x) m = MatMul (t, w) y = Add (m, b)",
        {"w": weights(4, 3), "b": weights(3)},
    ),
    "LSTM": (
        f'{STEPS} y = LSTM <hidden_size = 3, direction = "bidirectional"> (t, w, r, b)',
        {"w": weights(2, 12, 4), "r": weights(2, 12, 3), "b": weights(2, 24)},
    ),
    "GRU": (
        f"{STEPS} y = GRU <hidden_size = 3, linear_before_reset = 1> (t, w, r, b)",
        {"w": weights(1, 9, 4), "r": weights(1, 9, 3), "b": weights(1, 18)},
    ),
    "constant": ("y = Mul (x, c)", {"c": weights(4, 1, 1)}),
}


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_unchanged_weights_are_written_as_they_were(name: str) -> None:
    template = canonicalise(image_graph(*EVERY_LAYER[name]))
    written = to_onnx(to_torch(template), template)
    for tensor in template.graph.initializer:
        np.testing.assert_array_equal(initialiser(written, tensor.name), initialiser(template, tensor.name))


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_changed_weights_are_computed_with(name: str) -> None:
    template = canonicalise(image_graph(*EVERY_LAYER[name]))
    module = to_torch(template)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    x = images((2, 4, 5, 6))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(to_onnx(module, template), x)["y"], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(run(template, x)["y"] - expected).max() > 0.01


def test_template_is_left_as_it_was() -> None:
    template = canonicalise(image_graph(*EVERY_LAYER["Conv"]))
    before = template.SerializeToString(deterministic=True)
    module = to_torch(template)
    module.y.weight.data.zero_()  # type: ignore[operator, union-attr]
    to_onnx(module, template)
    assert template.SerializeToString(deterministic=True) == before


def test_scalar_constants_stay_scalars() -> None:
    model = image_graph("s = Shape <start = 0, end = 1> (x) t = Squeeze (s) f = Cast <to = 1> (t) y = Mul (x, f)")
    template = canonicalise(model)
    assert_same(model, to_onnx(to_torch(template), template))
    model = image_graph("s = Shape (x) e = Expand (c, s) y = Add (x, e)", {"c": number(2.0)})
    template = canonicalise(model)
    assert initialiser(to_onnx(to_torch(template), template), "c").shape == ()


class TestPruned:
    """Layers with fewer channels, as pruning leaves them."""

    def test_convolutions(self) -> None:
        body = "c = Conv (x, w) n = BatchNormalization (c, s, o, m, v) r = Relu (n) y = Conv (r, u)"
        model = image_graph(body, NORM | {"w": weights(4, 4, 1, 1), "u": weights(2, 4, 1, 1)})
        template = canonicalise(model)
        module = to_torch(template)
        kept = torch.tensor([0, 2, 3])
        module.c.weight = nn.Parameter(module.c.weight[kept])  # type: ignore[index]
        module.n.weight, module.n.bias = nn.Parameter(module.n.weight[kept]), nn.Parameter(module.n.bias[kept])  # type: ignore[index]
        module.n.running_mean, module.n.running_var = module.n.running_mean[kept], module.n.running_var[kept]  # type: ignore[index]
        module.y.weight = nn.Parameter(module.y.weight[:, kept])  # type: ignore[index]
        written = to_onnx(module, template)
        onnx.checker.check_model(written, full_check=True)
        x = images((2, 4, 5, 6))
        with torch.no_grad():
            np.testing.assert_allclose(run(written, x)["y"], module(torch.from_numpy(x)).numpy(), atol=1e-5)

    @pytest.mark.parametrize("kept", [3, 1])
    def test_depthwise_convolution(self, kept: int) -> None:
        """One channel left is one group, which the attribute must say."""
        body = "c = Conv (x, w) d = Conv <group = 4> (c, k) y = Conv (d, u)"
        constants = {"w": weights(4, 4, 1, 1), "k": weights(4, 1, 3, 3), "u": weights(2, 4, 1, 1)}
        template = canonicalise(image_graph(body, constants))
        module = to_torch(template)
        module.c.weight = nn.Parameter(module.c.weight[:kept])  # type: ignore[index]
        module.d.weight, module.d.groups = nn.Parameter(module.d.weight[:kept]), kept  # type: ignore[index, assignment]
        module.y.weight = nn.Parameter(module.y.weight[:, :kept])  # type: ignore[index]
        written = to_onnx(module, template)
        assert {entry.name: entry.i for entry in node_of(written, "d").attribute}["group"] == kept
        x = images((2, 4, 5, 6))
        with torch.no_grad():
            np.testing.assert_allclose(run(written, x)["y"], module(torch.from_numpy(x)).numpy(), atol=1e-5)

    def test_recurrent_units(self) -> None:
        template = canonicalise(image_graph(*EVERY_LAYER["LSTM"]))
        module = to_torch(template)
        module.y = nn.LSTM(4, 2, bidirectional=True)
        written = to_onnx(module, template)
        assert {entry.name: entry.i for entry in node_of(written, "y").attribute}["hidden_size"] == 2
        assert run(written, images((2, 4, 5, 6)))["y"].shape == (6, 2, 2, 2)


def test_bias_that_a_layer_gained_is_written() -> None:
    template = canonicalise(image_graph("y = Conv (x, w)", {"w": weights(5, 4, 3, 3)}))
    module = to_torch(template)
    module.y.bias = nn.Parameter(torch.arange(5.0))
    x = images((2, 4, 5, 6))
    found = run(to_onnx(module, template), x)["y"] - run(template, x)["y"]
    np.testing.assert_allclose(found.mean((0, 2, 3)), np.arange(5), atol=1e-5)


class TestWrongTemplate:
    MODULE = ("c = Conv (x, w) y = Relu (c)", {"w": weights(5, 4, 3, 3)})

    def write(self, body: str, constants: dict[str, np.ndarray]) -> None:
        to_onnx(to_torch(canonicalise(image_graph(*self.MODULE))), canonicalise(image_graph(body, constants)))

    def test_without_the_layer(self) -> None:
        with pytest.raises(ModelError, match=literal("layer 'c' has no node in the graph. Write a module back into")):
            self.write("y = Relu (x)", {})

    def test_with_another_operator_of_that_name(self) -> None:
        with pytest.raises(ModelError, match=literal("layer 'c' has no node in the graph.")):
            self.write("c = Sigmoid (x) y = Relu (c)", {})

    def test_with_more_layers(self) -> None:
        constants = {"w": weights(5, 4, 3, 3), "v": weights(5, 5, 1, 1), "g": weights(2, 5)}
        with pytest.raises(ModelError, match=literal("the module has no layer for the graph's d. Write a module back")):
            self.write("c = Conv (x, w) d = Conv (c, v) y = Relu (d)", constants)

    def test_without_the_constant(self) -> None:
        module = to_torch(canonicalise(image_graph("y = Mul (x, c)", {"c": weights(4, 1, 1)})))
        template = canonicalise(image_graph("y = Mul (x, d)", {"d": weights(4, 1, 1)}))
        with pytest.raises(ModelError, match=literal("weight 'c' is not in the graph.")):
            to_onnx(module, template)

    def test_module_of_other_origin(self) -> None:
        module = fx.symbolic_trace(nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU()))
        with pytest.raises(ModelError, match=literal("the module has no layer for the graph's c.")):
            to_onnx(module, canonicalise(image_graph(*self.MODULE)))

    def test_layer_of_another_kind(self) -> None:
        """E.g. a BatchNorm that somebody folded into its convolution by hand: the graph still has it."""
        template = canonicalise(image_graph("y = BatchNormalization (x, s, o, m, v)", NORM))
        module = to_torch(template)
        module.y = nn.Identity()
        expected = "layer 'y' is Identity. Must be BatchNorm1d or BatchNorm2d, as it was imported."
        with pytest.raises(ModelError, match=literal(expected)):
            to_onnx(module, template)


def test_sizes_in_the_graph_are_not_weights() -> None:
    """The target of a Reshape is written back as it is."""
    template = canonicalise(image_graph("y = Reshape (x, t)", {"t": ints(0, 2, 2, -1)}))
    assert initialiser(to_onnx(to_torch(template), template), "t").tolist() == [0, 2, 2, -1]
