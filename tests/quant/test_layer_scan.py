"""Layers measured alone in integers, and the choice of those that stay in float: against doing it from scratch."""

import itertools
from collections.abc import Collection, Iterator

import numpy as np
import pytest
import torch
from torch import fx

from compress.artifacts import LayerRounding, QuantSensitivity
from compress.graph import to_torch
from compress.quant import calibrate, pacts, prepare_qat
from compress.quant.functional import fake_quantize_weight, weight_scale
from compress.quant.int8_layers import QuantLayer
from compress.quant.layer_scan import (
    NOTHING,
    Networks,
    choose_float,
    integer_layers,
    read_calibration,
    scan_layers,
    spend_budget,
)
from compress.quant.nodes import output_values
from tests.quant import nets


def batches() -> Iterator[np.ndarray]:
    yield from np.split(nets.images(8).numpy(), 2)


class Made:
    """A small network and what makes its prepared forms."""

    def __init__(self, name: str, weight_bits: int = 7) -> None:
        self.module = to_torch(nets.template(name))
        self.weight_bits = weight_bits

    def prepare(self, float_layers: Collection[str]) -> fx.GraphModule:
        return prepare_qat(
            self.module,
            float_layers=float_layers,
            float_values=output_values(self.module),
            weight_bits=self.weight_bits,
            asymmetric_hard_swish=True,
        )

    def from_scratch(self, float_layers: Collection[str]) -> fx.GraphModule:
        made = self.prepare(float_layers)
        calibrate(made, batches())
        return made

    def alone_from_scratch(self, name: str) -> fx.GraphModule:
        """One layer in integers; all others have weights of 8 bits, as they have in float."""
        made = self.prepare([other for other in integer_layers(self.prepare(())) if other != name])
        for each, layer in made.named_modules():
            if isinstance(layer, QuantLayer) and each != name:
                layer.bit_width = 8
        calibrate(made, batches())
        return made

    def networks(self) -> Networks:
        return Networks(self.prepare, read_calibration(self.prepare, batches), integer_layers(self.prepare(())))


def outputs(module: fx.GraphModule) -> torch.Tensor:
    with torch.no_grad():
        return module(nets.images(5, seed=3))


def distance_from(module: fx.GraphModule) -> "Evaluate":
    return Evaluate(outputs(module))


class Evaluate:
    """exp(-mean absolute distance) from given outputs; counts its calls."""

    def __init__(self, wanted: torch.Tensor) -> None:
        self.wanted, self.calls = wanted, 0

    def __call__(self, module: fx.GraphModule) -> float:
        self.calls += 1
        return float(torch.exp(-(outputs(module) - self.wanted).abs().mean()))


def start(made: Made, networks: Networks, evaluate: Evaluate) -> QuantSensitivity:
    whole, none = evaluate(networks.without(networks.layers)), evaluate(networks.without(()))
    return QuantSensitivity("f", "divergence", made.weight_bits, whole, none, 1000, nets.SHAPE, {})


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "resnet", "linears", "biased_matmul", "pyramid"])
@pytest.mark.parametrize("weight_bits", [7, 8])
def test_every_choice_is_as_calibrated_from_scratch(name: str, weight_bits: int) -> None:
    """Calibrated once for all choices, a network computes bit for bit what it does when calibrated alone."""
    made = Made(name, weight_bits)
    networks = made.networks()
    for count in (0, 1, 2, len(networks.layers)):
        chosen = networks.layers[:count]
        assert torch.equal(outputs(networks.without(chosen)), outputs(made.from_scratch(chosen)))


@pytest.mark.parametrize("name", ["mobile", "shared", "swish"])
def test_integer_gates_round_while_calibrating(name: str) -> None:
    """Behind a hard-swish, ranges of the two ways differ by what its gate's rounding changes."""
    made = Made(name)
    networks = made.networks()
    for layer in networks.layers[1:3]:
        once, anew = networks.without([layer]), made.from_scratch([layer])
        ranges = {each: float(pact.alpha.detach()) for each, pact in pacts(anew)}
        assert {each: float(pact.alpha.detach()) for each, pact in pacts(once)} == pytest.approx(ranges, rel=0.05)
        assert torch.allclose(outputs(once), outputs(anew), atol=0.02)


def test_layers_are_those_that_compute_in_integers() -> None:
    """Not the stem; nor the convolution that computes the output, the only other one of the second network."""
    found = integer_layers(Made("plain").prepare(()))
    assert len(found) == 5
    assert not any("stem" in name for name in found)
    assert integer_layers(Made("conv_output").prepare(())) == ()


def test_alone_the_others_are_in_float() -> None:
    made = Made("plain")
    networks = made.networks()
    for name in networks.layers:
        alone = networks.alone(name)
        assert integer_layers(alone) == (name,)
        assert torch.equal(outputs(alone), outputs(made.alone_from_scratch(name)))


def test_weights_alone_round_no_activation() -> None:
    """The network in float with this one layer's weights in 7 bits, all others in 8; its bias is corrected."""
    made = Made("plain")
    networks = made.networks()
    name = networks.layers[1]
    expected = networks.without(networks.layers)  # all in float
    layer = expected.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    assert layer.bias is not None
    scale = weight_scale(layer.weight, 7, layer.channel_axis)
    rounded = fake_quantize_weight(layer.weight, scale, 7, layer.channel_axis).detach()
    biases = dict(made.from_scratch(()).named_parameters())
    layer.bias.data = biases[f"{name}.bias"].data
    layer.forward = lambda x: layer._conv_forward(x, rounded, layer.bias)  # type: ignore[method-assign, union-attr]
    assert torch.allclose(outputs(networks.alone(name, "weights")), outputs(expected), atol=1e-6)


def test_activations_alone_leave_the_weights_as_in_float() -> None:
    made = Made("plain")
    networks = made.networks()
    name = networks.layers[1]
    found, whole = networks.alone(name, "activations"), networks.alone(name)
    layer = found.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    assert layer.bit_width == 8
    assert all(pact.enabled for _, pact in pacts(found))
    assert not torch.equal(outputs(found), outputs(whole))
    eight = Made("plain", weight_bits=8).networks()
    assert torch.equal(outputs(eight.alone(name, "activations")), outputs(eight.alone(name)))


# --- scan -------------------------------------------------------------------------------------------------------


def test_a_scan_holds_what_networks_from_scratch_score() -> None:
    made = Made("plain")
    networks, evaluate = made.networks(), distance_from(made.module)
    macs = dict.fromkeys(networks.layers, 10)
    found = scan_layers(start(made, networks, evaluate), networks, macs, evaluate, parts=True)
    assert tuple(found.layers) == networks.layers
    assert found.baseline == evaluate(made.from_scratch(networks.layers))
    assert found.integer == evaluate(made.from_scratch(()))
    for name, layer in found.layers.items():
        assert layer.metric == evaluate(made.alone_from_scratch(name))
        assert found.drop(name) == found.baseline - layer.metric
        assert layer.weights is not None
        assert layer.activations is not None
    assert found.integer < min(layer.metric for layer in found.layers.values())


def test_a_stopped_scan_goes_on() -> None:
    """Nothing is measured twice, and the end is that of a scan in one go; parts are added where they are missing."""
    made = Made("plain")
    networks, evaluate = made.networks(), distance_from(made.module)
    macs = dict.fromkeys(networks.layers, 10)
    cells: list[QuantSensitivity] = []
    whole = scan_layers(start(made, networks, evaluate), networks, macs, evaluate, on_cell=cells.append)
    assert [len(cell.layers) for cell in cells] == [1, 2, 3, 4, 5]
    evaluate.calls = 0
    assert scan_layers(cells[2], networks, macs, evaluate) == whole
    assert evaluate.calls == 2
    complete = scan_layers(whole, networks, macs, evaluate, parts=True)
    assert evaluate.calls == 2 + 2 * 5
    assert {name: layer.metric for name, layer in complete.layers.items()} == {
        name: layer.metric for name, layer in whole.layers.items()
    }


# --- budget -----------------------------------------------------------------------------------------------------


def test_budget_holds_and_nothing_left_out_fits() -> None:
    rng = np.random.default_rng(0)
    names = [f"layer{index}" for index in range(12)]
    for _ in range(50):
        drops = dict(zip(names, rng.uniform(-0.1, 1.0, 12).tolist(), strict=True))
        macs = dict(zip(names, rng.integers(1, 100, 12).tolist(), strict=True))
        most = float(rng.integers(0, 300))
        chosen = choose_float(drops, macs, most)
        used = sum(macs[name] for name in chosen)
        assert used <= most
        left = [name for name in names if name not in chosen and drops[name] > 0]
        assert all(used + macs[name] > most for name in left)


def test_choice_is_near_the_best_of_all_choices() -> None:
    """The knapsack by ratio misses less than the largest single drop."""
    rng = np.random.default_rng(1)
    names = [f"layer{index}" for index in range(8)]
    for _ in range(20):
        drops = dict(zip(names, rng.uniform(0.0, 1.0, 8).tolist(), strict=True))
        macs = dict(zip(names, rng.integers(1, 40, 8).tolist(), strict=True))
        sets = [some for count in range(9) for some in itertools.combinations(names, count)]
        able = [some for some in sets if sum(macs[name] for name in some) <= 90]
        best = max(sum(drops[name] for name in some) for some in able)
        assert sum(drops[name] for name in choose_float(drops, macs, 90)) > best - max(drops.values())


def test_layers_at_or_below_the_least_drop_stay_in_integers() -> None:
    drops, macs = {"a": 0.02, "b": 0.01, "c": -0.5}, {"a": 1, "b": 1, "c": 1}
    assert choose_float(drops, macs, 10) == ("a", "b")
    assert choose_float(drops, macs, 10, least=0.01) == ("a",)


class Named:
    """Networks that are known by what stays in float."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers

    def without(self, float_layers: tuple[str, ...]) -> tuple[str, ...]:
        return float_layers


def budgeted(drops: dict[str, float], scores: dict[tuple[str, ...], float]) -> QuantSensitivity:
    """Spend a tenth of 100 multiply-adds; each layer has 5."""
    layers = {name: LayerRounding(5, 1.0 - drop) for name, drop in drops.items()}
    scan = QuantSensitivity("f", "divergence", 7, 1.0, 0.5, 100, nets.SHAPE, layers)
    return spend_budget(scan, 0.1, Named(tuple(drops)), scores.__getitem__)  # type: ignore[arg-type]


def test_the_best_of_what_was_tried_is_chosen() -> None:
    drops = {"a": 0.3, "b": 0.001, "c": 0.0, "d": -0.1}
    found = budgeted(drops, {("a", "b"): 0.7, ("a",): 0.8})
    assert [(one.layers, one.macs, one.score) for one in found.choices] == [
        ((), 0, 0.5), (("a", "b"), 10, 0.7), (("a",), 5, 0.8),
    ]  # fmt: skip
    assert found.chosen is not None
    assert found.chosen.layers == ("a",)
    assert found.float_budget == 0.1


def test_nothing_stays_in_float_where_that_is_no_better() -> None:
    found = budgeted({"a": 0.3, "b": 0.2}, {("a", "b"): 0.5})
    assert len(found.choices) == 2
    assert found.chosen is not None
    assert (found.chosen.origin, found.chosen.layers) == (NOTHING, ())


def test_without_a_budget_nothing_is_chosen() -> None:
    assert QuantSensitivity("f", "divergence", 7, 1.0, 0.5, 100, nets.SHAPE, {}).chosen is None
