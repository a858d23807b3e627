"""Calibration on a prepared network: what it changes, and what it leaves."""

import numpy as np
import pytest
import torch

from compress.errors import DataError, ModelError
from compress.graph import to_torch
from compress.quant import PACT, calibrate, pacts, prepare_qat
from tests.quant import nets


def images() -> np.ndarray:
    return nets.images(8).numpy()


@pytest.fixture
def qat() -> torch.fx.GraphModule:
    return prepare_qat(to_torch(nets.template("mobile")), asymmetric_hard_swish=True)


def alphas(module: torch.nn.Module) -> dict[str, float]:
    return {name: float(pact.alpha.detach()) for name, pact in pacts(module)}


def test_every_learned_range_is_set_and_fixed_ones_stay(qat: torch.fx.GraphModule) -> None:
    before = alphas(qat)
    assert calibrate(qat, [images()]) == 8
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
    assert alphas(qat) == first


@pytest.mark.parametrize("training", [True, False])
def test_weights_and_mode_stay(qat: torch.fx.GraphModule, training: bool) -> None:
    qat.train(training)
    before = {name: value.clone() for name, value in qat.state_dict().items() if "alpha" not in name}
    calibrate(qat, [images()])
    assert qat.training is training
    assert all(torch.equal(before[name], value) for name, value in qat.state_dict().items() if name in before)
    assert all(parameter.grad is None for parameter in qat.parameters())


def test_progress_counts_images(qat: torch.fx.GraphModule) -> None:
    calls: list[tuple[int, int, str]] = []
    calibrate(qat, np.split(images(), 4), total=7, on_progress=lambda *call: calls.append(call))
    assert calls == [(2, 7, "calibrating"), (4, 7, "calibrating"), (6, 7, "calibrating"), (8, 8, "calibrating")]


def test_without_images(qat: torch.fx.GraphModule) -> None:
    with pytest.raises(DataError, match=r"no calibration images\. Name training data"):
        calibrate(qat, [])
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))


def test_broken_weights_are_named(qat: torch.fx.GraphModule) -> None:
    next(qat.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match="computes NaN or infinity on calibration images"):
        calibrate(qat, [images()])
    assert all(pact.enabled and pact.observer is None for _, pact in pacts(qat))


def test_a_dead_tensor_has_a_usable_range() -> None:
    qat = nets.prepared("dead_tensor")
    dead = [pact for _, pact in pacts(qat) if float(pact.alpha.detach()) == 1.0]
    assert len(dead) == 1
