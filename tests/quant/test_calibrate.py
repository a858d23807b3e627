"""Calibration on a prepared network: what it changes, and what it leaves."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import DataError, ModelError
from compress.graph import to_torch
from compress.quant import PACT, calibrate, pacts, prepare_qat
from compress.quant.int8_layers import QuantConv2d, QuantConvTranspose2d, QuantLayer, correct_bias, record_shift
from tests.quant import nets


def images() -> np.ndarray:
    return nets.images(8).numpy()


@pytest.fixture
def qat() -> torch.fx.GraphModule:
    return prepare_qat(to_torch(nets.template("mobile")), asymmetric_hard_swish=True)


def layers(module: torch.nn.Module) -> list[QuantLayer]:
    return [layer for layer in module.modules() if isinstance(layer, QuantLayer)]


def alphas(module: torch.nn.Module) -> dict[str, float]:
    return {name: float(pact.alpha.detach()) for name, pact in pacts(module)}


def test_every_learned_range_is_set_and_fixed_ones_stay(qat: torch.fx.GraphModule) -> None:
    before = alphas(qat)
    assert calibrate(qat, [images()]).images == 8
    after = alphas(qat)
    fixed = {name for name, pact in pacts(qat) if pact.fixed}
    assert len(fixed) == 1
    assert {name for name in before if before[name] == after[name]} == fixed
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))


def test_maximum_is_that_of_the_float_activations(qat: torch.fx.GraphModule) -> None:
    """100 % takes the largest |x| of the network with ranges off, to within a bin of the histogram."""
    calibrate(qat, [images()], percentile=100.0)
    seen: dict[str, float] = {}

    def look(pact: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(pact, PACT)
        values = inputs[0].abs() if pact.lower is None else inputs[0]
        seen[names[pact]] = float(values.max())

    names = {pact: name for name, pact in pacts(qat)}
    for pact in names:
        pact.register_forward_pre_hook(look)
        pact.enabled = False
    for layer in layers(qat):  # exact weights, as while calibrating
        record_shift(layer)
    with torch.no_grad():
        qat(torch.from_numpy(images()))
    for name, pact in pacts(qat):
        if not pact.fixed:
            assert float(pact.alpha.detach()) == pytest.approx(seen[name], rel=2e-3)


def test_batches_make_no_difference(qat: torch.fx.GraphModule) -> None:
    """One image at a time the histogram's bins are others, so thresholds are the same to within a bin."""
    calibrate(qat, [images()], percentile=100.0)
    at_once = alphas(qat)
    calibrate(qat, np.split(images(), 8), percentile=100.0)
    assert alphas(qat) == pytest.approx(at_once, rel=2e-3)


def test_the_same_images_give_the_same_ranges(qat: torch.fx.GraphModule) -> None:
    calibrate(qat, np.split(images(), 4))
    first = alphas(qat)
    calibrate(qat, np.split(images(), 4))
    assert alphas(qat) == pytest.approx(first, rel=1e-5)  # the first correction of biases is taken back, to rounding


@pytest.mark.parametrize("training", [True, False])
def test_weights_and_mode_stay_but_biases(qat: torch.fx.GraphModule, training: bool) -> None:
    qat.train(training)
    before = {name: value.clone() for name, value in qat.state_dict().items() if "alpha" not in name}
    calibrate(qat, [images()])
    assert qat.training is training
    after = {name: value for name, value in qat.state_dict().items() if name in before}
    changed = {name for name, value in after.items() if not torch.equal(before[name], value)}
    assert changed <= {name for name in before if name.endswith("bias")}
    assert all(parameter.grad is None for parameter in qat.parameters())


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.ConvTranspose2d(4, 3, 2, 2),
])  # fmt: skip
def test_a_corrected_bias_leaves_the_mean_output_of_each_channel(layer: nn.Module) -> None:
    """Coarsely rounded weights, inputs with a mean: the outputs' means are the exact layer's again."""
    nets.initialise(layer)
    kind = QuantConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else QuantConv2d
    x = torch.rand(8, 4, 9, 7) + 1
    expected = layer(x).mean((0, 2, 3))
    made = kind.from_float(layer, 4)  # type: ignore[arg-type]
    off = (made(x).mean((0, 2, 3)) - expected).abs()
    record_shift(made)
    for part in x.split(3):
        assert torch.allclose(made(part), layer(part))  # exact meanwhile
    correct_bias(made)
    assert made.shift is None
    assert float(off.detach().max()) > 0.02
    assert torch.allclose(made(x).mean((0, 2, 3)), expected, atol=1e-5)


def test_a_layer_without_a_bias_stays_without() -> None:
    made = QuantConv2d.from_float(nn.Conv2d(4, 6, 3, bias=False), 8)
    record_shift(made)
    made(torch.rand(2, 4, 5, 5))
    correct_bias(made)
    assert (made.bias, made.shift, made.correction) == (None, None, None)


def test_progress_counts_images(qat: torch.fx.GraphModule) -> None:
    calls: list[tuple[int, int, str]] = []
    calibrate(qat, np.split(images(), 4), total=7, on_progress=lambda *call: calls.append(call))
    assert calls == [(2, 7, "calibrating"), (4, 7, "calibrating"), (6, 7, "calibrating"), (8, 8, "calibrating")]


def test_without_images(qat: torch.fx.GraphModule) -> None:
    with pytest.raises(DataError, match=r"no calibration images\. Name training data"):
        calibrate(qat, [])
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))
    assert all(layer.shift is None for layer in layers(qat))


def test_broken_weights_are_named(qat: torch.fx.GraphModule) -> None:
    next(qat.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="computes NaN or infinity on calibration images"):
        calibrate(qat, [images()])
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))


def test_a_dead_tensor_has_a_usable_range() -> None:
    qat = nets.prepared("dead_tensor")
    dead = [pact for _, pact in pacts(qat) if float(pact.alpha.detach()) == 1.0]
    assert len(dead) == 1


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (torch.zeros(1, 3, 8, 8), r"a Tensor as a batch\. Must be a float32 array \[N, C, H, W\]\. Use images\.numpy"),
        (np.zeros((1, 3, 8, 8)), r"an array of float64 as a batch\. .* Use images\.astype"),
        (np.zeros((1, 3, 8, 8), np.uint8), "an array of uint8 as a batch"),
    ],
)
def test_batches_of_other_kinds_are_refused(qat: torch.fx.GraphModule, batch: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        calibrate(qat, [batch])  # type: ignore[list-item]
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5])
def test_percentiles_that_there_are_not(qat: torch.fx.GraphModule, percentile: float) -> None:
    with pytest.raises(ValueError, match=r"percentile: got .* Must be above 0 and at most 100"):
        calibrate(qat, [images()], percentile=percentile)
