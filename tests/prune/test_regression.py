"""Layers as linear regressions: the rows times the weights are what the layer computes, and solutions go back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.prune.least_squares import Normal
from compress.prune.regression import regressions

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "3x3, strides and padding": (lambda: nn.Conv2d(3, 5, 3, stride=(2, 1), padding=1), (2, 3, 7, 8)),
    "no bias": (lambda: nn.Conv2d(3, 5, (1, 3), padding=(0, 2), dilation=2, bias=False), (2, 3, 7, 8)),
    "in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 5, padding=2, groups=4), (2, 4, 6, 6)),
    "1-D": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
    "transposed 2x2": (lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 4, 5)),
    "transposed 3x3": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False),
        (2, 4, 4, 5),
    ),
    "transposed, dilated": (lambda: nn.ConvTranspose2d(2, 3, (3, 2), dilation=(2, 1)), (1, 2, 4, 5)),
    "linear": (lambda: nn.Linear(6, 4), (5, 2, 6)),
    "LSTM": (lambda: nn.LSTM(5, 3, bidirectional=True), (4, 2, 5)),
    "LSTM without bias": (lambda: nn.LSTM(5, 3, bias=False), (4, 2, 5)),
    "GRU": (lambda: nn.GRU(5, 3, bidirectional=True), (4, 2, 5)),
    "RNN": (lambda: nn.RNN(5, 3), (4, 2, 5)),
}


def made(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


def outputs(layer: nn.Module) -> int:
    if isinstance(layer, nn.RNNBase):
        return layer.hidden_size * (2 if layer.bidirectional else 1)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def output(value: object) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_weights_are_what_the_layer_computes(name: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer = make()
    x = torch.randn(shape)
    found = regressions(layer, layer, range(outputs(layer)), None)
    assert found
    for regression in found:
        inputs, wanted = regression.rows(x, x, made(layer, x), 10**6, torch.Generator().manual_seed(1))
        torch.testing.assert_close(inputs @ regression.start(), wanted, atol=1e-5, rtol=1e-4)
        assert wanted.std() > 0.01


@pytest.mark.parametrize("name", LAYERS)
def test_the_solution_is_the_layer_that_made_the_targets(name: str) -> None:
    """From other weights the layer comes back to those that its targets were computed with."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    original, other = make(), make()
    x = torch.randn(shape[0] * 40 if isinstance(original, nn.Conv2d | nn.Conv1d | nn.ConvTranspose2d) else shape[0],
                    *shape[1:]) if not isinstance(original, nn.RNNBase) else torch.randn(8, 60, 5)  # fmt: skip
    if isinstance(original, nn.Linear):
        x = torch.randn(30, 4, 6)
    for regression in regressions(other, original, range(outputs(original)), None):
        normal = Normal.of(regression.rows(x, x, made(original, x), 10**6, torch.Generator()))
        weights = normal.solve(regression.start(), 1e-9, has_bias=regression.has_bias)
        assert normal.error(weights) < 1e-6 < normal.error(regression.start())
        regression.assign(weights.float())
    torch.testing.assert_close(output(made(other, x)), output(made(original, x)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_weights_that_are_put_back_change_nothing(name: str) -> None:
    layer = LAYERS[name][0]()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for regression in regressions(layer, layer, range(outputs(layer)), None):
        regression.assign(regression.start())
    for key, value in layer.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=1e-6, rtol=1e-6)


def test_the_normal_equations_are_least_squares_with_a_penalty() -> None:
    """Against numpy's least squares on rows that hold the penalty."""
    rng = np.random.default_rng(0)
    x, y, start = rng.normal(size=(50, 4)), rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
    normal = Normal.of((torch.tensor(x)[None], torch.tensor(y)[None]))
    ridge = 0.1
    penalty = np.sqrt(ridge * np.mean(np.sum(x**2, axis=0))) * np.eye(4)
    expected = np.linalg.lstsq(np.vstack([x, penalty]), np.vstack([y, penalty @ start]), rcond=None)[0]
    found = normal.solve(torch.tensor(start)[None], ridge, has_bias=False)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(normal.error(found), np.sum((x @ expected - y) ** 2) / np.sum(y**2), atol=1e-10)


def test_batches_add_up() -> None:
    rows = torch.randn(1, 20, 4), torch.randn(1, 20, 2)
    whole = Normal.of(rows)
    parts = Normal.of((rows[0][:, :7], rows[1][:, :7]))
    parts.add(Normal.of((rows[0][:, 7:], rows[1][:, 7:])))
    torch.testing.assert_close(parts.gram, whole.gram, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.cross, whole.cross, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts.squares, whole.squares)


def test_inputs_that_are_always_zero_keep_their_weights() -> None:
    x = torch.randn(1, 30, 3)
    x[..., 1] = 0.0
    start = torch.randn(1, 3, 2)
    solved = Normal.of((x, torch.randn(1, 30, 2))).solve(start, 1e-3, has_bias=False)
    torch.testing.assert_close(solved[0, 1].float(), start[0, 1])


def test_a_batch_norm_takes_up_the_bias() -> None:
    """conv(x) + b before the BatchNorm is the same as its mean less b."""
    layer, norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4).eval()
    x, bias = torch.randn(2, 3, 5, 5), torch.tensor([1.0, -2.0, 0.0, 3.0])
    expected = made(norm, made(layer, x) + bias.reshape(1, 4, 1, 1))
    (regression,) = regressions(layer, layer, range(4), norm)
    weights = regression.start()
    assert weights.shape == (1, 4, 4), "three inputs and the constant"
    weights[0, 3] = bias
    regression.assign(weights)
    torch.testing.assert_close(made(norm, made(layer, x)), expected)


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(4), nn.LSTM(3, 4, num_layers=2), nn.LSTM(3, 4, batch_first=True), nn.LSTM(3, 4, proj_size=2)],
)
def test_what_computes_otherwise_is_left_alone(layer: nn.Module) -> None:
    assert regressions(layer, layer, range(4), None) == []
