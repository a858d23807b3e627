"""The proof that file and model agree: it passes where they do, and names the place where they do not."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.errors import ParityError
from compress.export import Exported, check_parity, export_int8
from compress.export.parity import (
    MAX_EXCESS,
    MAX_SHARE,
    MIN_TIES,
    Reading,
    agreement,
    compare_steps,
    decided_otherwise,
    judge_step,
)
from compress.export.qdq import Parameters
from compress.export.replay import Step, compare_integers, gate_slack, replay
from compress.graph import from_torch, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.machine import machine_info, saturates_int8
from compress.quant import calibrate, prepare_qat
from compress.quant.int8_layers import GATE_SCALE
from compress.quant.recurrent_weights import round_recurrent
from tests.export import files, mutants
from tests.export import recurrent as crnn
from tests.quant import nets


@pytest.fixture
def module() -> torch.fx.GraphModule:
    return nets.prepared("plain")


@pytest.fixture
def exported(module: torch.fx.GraphModule) -> Exported:
    found = export_int8(module, nets.template("plain"))
    return Exported(copy.deepcopy(found.model), found.integers)


def images() -> np.ndarray:
    return nets.images(6, seed=1).numpy()


def names(exported: Exported) -> list[str]:
    """The integer tensors in the order they are computed."""
    return list(exported.integers)


def maker_of(exported: Exported, name: str) -> onnx.NodeProto:
    """The convolution whose rounded output a tensor is."""
    makers = files.producers(exported.model)
    quantize = makers[exported.integers[name][0]]
    return makers[quantize.input[0]]


def tamper(exported: Exported, constant: str, change) -> None:  # type: ignore[no-untyped-def]
    tensor = files.initialisers(exported.model)[constant]
    array = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), constant))


def stored(exported: Exported, node: onnx.NodeProto, position: int) -> str:
    """Name of the integers of a weight or bias."""
    return files.producers(exported.model)[node.input[position]].input[0]


def test_agreement_is_measured(module: torch.fx.GraphModule, exported: Exported) -> None:
    found = check_parity(module, exported, images())
    assert 0.0 <= found.mean_abs <= found.max_abs < 0.02
    assert 0.0 <= found.mean_abs_optimised <= found.max_abs_optimised < 0.02
    assert found.max_steps <= 1.01
    assert found.agreement >= 5 / 6
    assert (found.tolerance, found.count) == (1.0, 6)
    assert (found.max_share < 1e-3, abs(found.max_bias) < 1e-3, found.max_excess < 1e-3) == (True, True, True)


@pytest.mark.parametrize("optimise", [False, True])
def test_every_integer_tensor_is_compared_in_order(
    module: torch.fx.GraphModule, exported: Exported, optimise: bool
) -> None:
    steps = compare_steps(module, exported, images(), optimise=optimise)
    assert [step.name for step in steps] == names(exported)
    assert all(step.worst <= 1.01 and step.share < 0.01 for step in steps)


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("position", [1, 2])
def test_a_changed_weight_or_bias_shows_where_it_is(
    module: torch.fx.GraphModule, exported: Exported, optimise: bool, position: int
) -> None:
    """Each tensor is recomputed from the file's own inputs, so those behind the wrong one agree again."""
    victim = names(exported)[2]
    tamper(exported, stored(exported, maker_of(exported, victim), position), lambda array: -array)
    wrong = [step.name for step in compare_steps(module, exported, images(), optimise=optimise) if step.worst > 1.01]
    assert wrong == [victim]
    with pytest.raises(ParityError, match=rf"differs from the trained model at '{victim}' by .* steps \(allowed: 1\)"):
        check_parity(module, exported, images())


@pytest.mark.parametrize("optimise", [False, True])
def test_a_single_flipped_weight_shows(module: torch.fx.GraphModule, exported: Exported, optimise: bool) -> None:
    def flip(array: np.ndarray) -> np.ndarray:
        largest = np.unravel_index(np.abs(array.astype(int)).argmax(), array.shape)
        array[largest] = -array[largest]
        return array

    victim = names(exported)[1]
    tamper(exported, stored(exported, maker_of(exported, victim), 1), flip)
    steps = compare_steps(module, exported, images(), optimise=optimise)
    assert [step.name for step in steps if step.worst > 1.01] == [victim]


@pytest.mark.parametrize("optimise", [False, True])
def test_a_changed_scale_shows(module: torch.fx.GraphModule, exported: Exported, optimise: bool) -> None:
    """The tensor rounded with it differs, and so does what is computed from it."""
    victim = names(exported)[1]
    quantize = files.producers(exported.model)[exported.integers[victim][0]]
    tamper(exported, quantize.input[1], lambda scale: scale * 1.1)
    steps = compare_steps(module, exported, images(), optimise=optimise)
    assert next(step.name for step in steps if step.worst > 1.01) == victim
    with pytest.raises(ParityError, match=f"at '{victim}' by"):
        check_parity(module, exported, images())


@pytest.mark.parametrize("position", [1, 2])
def test_a_change_behind_the_last_integer_shows_in_the_outputs(
    module: torch.fx.GraphModule, exported: Exported, position: int
) -> None:
    gemm = next(node for node in exported.model.graph.node if node.op_type == "Gemm")
    tamper(exported, stored(exported, gemm, position), lambda array: -array)
    with pytest.raises(ParityError, match=r"output 'output' differs by .* file's own integers \(allowed: 0\.0001\)"):
        check_parity(module, exported, images())


def test_outputs_that_are_no_probabilities_are_compared_to_their_size() -> None:
    """Outputs of hundreds may differ by more than probabilities may."""
    module = nets.prepared("conv_output")
    for factor in (1.00005, 1.005):
        exported = export_int8(module, nets.template("conv_output"))
        mutants.change(exported.model, exported.model.graph.node[-1], 1, lambda scale, factor=factor: scale * factor)
        if factor < 1.0001:
            check_parity(module, exported, images())
        else:
            with pytest.raises(ParityError, match=r"output 'output' differs by 0\.005 of its largest value"):
                check_parity(module, exported, images())


# --- errors of less than a step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "mobile", "resnet", "pyramid", "linears", "steps"])
def test_a_zero_point_off_by_one_is_no_tie(name: str) -> None:
    """Every value is off by one step or none, and all to one side."""
    module, exported = nets.prepared(name), export_int8(nets.prepared(name), nets.template(name))
    mutants.every_zero_point(exported.model)
    with pytest.raises(ParityError, match=r" [01]\.\d\d steps more than rounding \(allowed: 0\.05\), .*; .*% of its"):
        check_parity(module, exported, images())


@pytest.mark.parametrize("name", ["plain", "resnet", "pyramid", "capped"])
@pytest.mark.parametrize(("steps", "check"), [(0.9, "rounding"), (-0.9, "rounding"), (0.2, "rounding")])
def test_a_bias_that_moves_nothing_by_more_than_a_step_is_found(name: str, steps: float, check: str) -> None:
    module, exported = nets.prepared(name), export_int8(nets.prepared(name), nets.template(name))
    mutants.every_bias(exported.model, steps)
    with pytest.raises(ParityError) as caught:
        check_parity(module, exported, images())
    assert (caught.value.check, caught.value.figure > MAX_EXCESS) == (check, True)


def test_scale_and_zero_point_are_the_networks_not_the_files(module: torch.fx.GraphModule, exported: Exported) -> None:
    """A file that says of itself what it does is wrong all the same."""
    mutants.every_zero_point(exported.model)
    for node in exported.model.graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3:
            zero = mutants.value(exported.model, node.input[2])
            if zero.dtype == np.uint8:
                mutants.put(exported.model, node, 2, zero + 1)
    claimed = {
        value: (name, Parameters(found.scale, found.zero_point + 1))
        for value, (name, found) in exported.integers.items()
    }
    with pytest.raises(ParityError, match="more than rounding"):
        check_parity(module, Exported(exported.model, claimed), images())


def test_figures_of_one_tensor() -> None:
    """x / scale + zero point is 10.4, 10.5, 11.6 and 300; the file says 10, 11, 11 and 255."""
    x, integers = torch.tensor([0.4, 0.5, 1.6, 290.0]), torch.tensor([10.0, 11.0, 11.0, 255.0])
    found = compare_integers("x", integers, x, torch.tensor(1.0), torch.tensor(10), torch.tensor(0.0))
    assert (found.name, found.count, found.worst, found.share, found.bias) == ("x", 4, 1.0, 0.25, -0.25)  # 10.5: a tie
    assert found.excess == pytest.approx(0.1, abs=1e-5)  # 11.6 is not 11: a tenth too far for rounding


def test_a_crowd_of_one_value_near_a_tie_is_one_value() -> None:
    """Half of a channel is blank paper, which falls to the other side; all else is as it should be."""
    x = torch.rand(1, 4, 50, 50, generator=torch.Generator().manual_seed(0)) * 200
    integers = x.round()
    x[:, 2, :25], integers[:, 2, :25] = 7.4971, 8.0
    found = compare_integers("x", integers, x, torch.tensor(1.0), torch.tensor(0), torch.tensor(0.0))
    assert found.excess == pytest.approx(0.0029, abs=1e-4)
    assert 0 < found.bias < 1e-3 > found.share
    assert list(judge_step(found)) == []


def test_values_that_all_fall_to_one_side_are_a_bias_however_crowded() -> None:
    """One in ten is rounded up where it should not be, blank or not."""
    x = torch.rand(2, 4, 50, 50, generator=torch.Generator().manual_seed(0)) * 200
    x[:, 2, :25] = 7.25
    integers = x.round() + (x % 1 > 0.4) * (x % 1 < 0.5)
    found = compare_integers("x", integers, x, torch.tensor(1.0), torch.tensor(0), torch.tensor(0.0))
    assert found.bias > 0.05
    assert [one.check for one in judge_step(replace(found, excess=0.0))] == ["share"]


TIES = Step("x", 100_000, worst=1.0, share=0.001, bias=0.001, excess=0.0)


@pytest.mark.parametrize(
    ("step", "check"),
    [
        (TIES, None),
        (Step("x", 100_000, 2.0, 0.001, 0.001, 0.0), "steps"),
        (Step("x", 100_000, 1.0, 0.001, 0.001, 0.06), "rounding"),
        (Step("x", 100_000, 1.0, MAX_SHARE + 0.001, 0.0, 0.02), "share"),
        (Step("x", 100_000, 1.0, 0.015, -0.015, 0.02), "bias"),
        (Step("x", 100, 1.0, MIN_TIES / 100, -MIN_TIES / 100, 0.0), None),  # of few values a share says nothing
        (Step("x", 100, 1.0, (MIN_TIES + 1) / 100, 0.0, 0.0), "share"),
        (Step("x", 100, float("nan"), 0.0, 0.0, 0.0), "steps"),
        (Step("x", 100, 0.0, 0.0, 0.0, float("nan")), "rounding"),
    ],
)
def test_limits_of_one_tensor(step: Step, check: str | None) -> None:
    assert [found.check for found in judge_step(step)] == ([check] if check else [])


def test_a_gate_in_the_middle_of_two_steps_may_fall_either_way() -> None:
    """One gate's step moves x * gate by x / 255, and nothing away from ties or where the gate is saturated."""
    x = torch.tensor([100.5, 100.4, 254.9, 255.5, 300.5]) * GATE_SCALE - 3.0
    found = gate_slack(x)
    assert found[0] == pytest.approx(abs(float(x[0])) / 255)
    assert found[1:].tolist() == [0.0] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", crnn.LSTMS)
def test_an_lstm_in_integers_is_recomputed_in_integers(name: str) -> None:
    """Nearer by three orders than to the LSTM in float."""
    exported = crnn.export(name, "dynamic")
    network = round_recurrent(crnn.prepared(name), exported.recurrent_bits)
    found = replay(network, exported, images(), optimise=True)
    assert len(found.kernels) == crnn.CASES[name][1]
    assert max(found.kernels.values()) < 1e-5 < 1e-4 < min(found.coarseness.values())


# --- what outputs say -------------------------------------------------------------------------------------------


def probabilities(choices: np.ndarray, classes: int, top: float = 0.9) -> np.ndarray:
    """Rows that prefer a class with probability `top`."""
    found = np.full((*choices.shape, classes), (1 - top) / classes)
    np.put_along_axis(found, choices[..., None], top + (1 - top) / classes, axis=-1)
    return found


def test_of_steps_that_are_not_blank_a_tenth_may_differ() -> None:
    """Blanks, which are most, do not count; nor do 6000 classes hide the difference as they would in a mean."""
    wanted = np.zeros((1, 400), int)
    wanted[0, :40] = 7
    for wrong, expected in ((4, []), (5, ["decisions"])):
        found = wanted.copy()
        found[0, :wrong] = 8
        outputs = [probabilities(one, 6000) for one in (found, wanted)]
        assert [one.check for one in decided_otherwise(*outputs)] == expected
        assert agreement(*outputs) == pytest.approx(1 - wrong / 40)


def test_text_of_a_map_must_be_the_same_however_little_it_is() -> None:
    """A map of 100 x 100 with 100 pixels of text; the wrong one is nearer to it than .001 on average."""
    wanted = np.full((1, 1, 100, 100), 0.001)
    wanted[0, 0, 10, :] = 0.6
    wrong = wanted.copy()
    wrong[0, 0, 10, :12] = 0.1  # the last of them touches text that is found
    assert np.abs(wrong - wanted).mean() < 0.001
    (found,) = decided_otherwise(wrong, wanted)
    assert (found.check, found.figure) == ("decisions", pytest.approx(0.11))
    assert agreement(wrong, wanted) == pytest.approx(0.88)
    assert list(decided_otherwise(wrong, wanted, Reading(threshold=0.65))) == []


@pytest.mark.parametrize(("moved", "expected"), [(1, []), (2, ["decisions"])])
def test_text_may_lie_a_pixel_from_where_it_was(moved: int, expected: list[str]) -> None:
    """Two lines of three pixels: moved by one, half of what either marks is marked by one alone."""
    wanted = np.full((2, 1, 40, 60), 0.01)
    wanted[:, :, 8:11], wanted[:, :, 24:27] = 0.99, 0.99
    found = np.roll(wanted, moved, axis=2)
    assert [one.check for one in decided_otherwise(found, wanted)] == expected
    assert agreement(found, wanted) == pytest.approx((3 - moved) / (3 + moved))


def test_what_the_network_is_not_sure_of_may_fall_either_way() -> None:
    wanted, found = np.full((1, 1, 8, 8), 0.32), np.full((1, 1, 8, 8), 0.28)
    assert list(decided_otherwise(found, wanted)) == []
    assert agreement(found, wanted) == 0.0
    images = np.array([[0.52, 0.48]] * 50)
    assert list(decided_otherwise(images[:, ::-1], images)) == []


def test_of_few_images_two_may_differ() -> None:
    wanted = probabilities(np.zeros(8, int), 2)
    for wrong, expected in ((2, []), (3, ["decisions"])):
        found = probabilities((np.arange(8) < wrong).astype(int), 2)
        assert [one.check for one in decided_otherwise(found, wanted)] == expected


def test_outputs_that_are_no_decisions_are_compared_by_size() -> None:
    wanted = np.linspace(-5, 5, 60).reshape(1, 3, 4, 5)
    assert list(decided_otherwise(wanted * 1.1, wanted)) == []
    (found,) = decided_otherwise(wanted * 1.3, wanted)
    assert found.figure == pytest.approx(0.3)
    assert agreement(wanted * 1.1, wanted) == pytest.approx(0.9)


# --- 16-bit saturation ------------------------------------------------------------------------------------------


class Bright(torch.nn.Module):
    """Large positive weights on large positive inputs: two products exceed 16 bits with 8-bit weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.Conv2d(16, 16, 1)
        self.head = nets.Head(16)
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, 0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(torch.relu(self.stem(x + 1)))))


def bright(bits: int) -> tuple[torch.fx.GraphModule, Exported]:
    template = lower_for_int8(from_torch(Bright().eval(), nets.images(1)))
    module = prepare_qat(to_torch(template), weight_bits=bits)
    calibrate(module, [images()])
    return module, export_int8(module, template)


@pytest.mark.skipif(not saturates_int8(machine_info()), reason="this CPU does not saturate in 16 bits")
def test_eight_bit_weights_saturate_here_and_the_error_says_what_to_do() -> None:
    with pytest.raises(ParityError, match=r"optimisation on; .* saturate in 16-bit sums: use weight_bits: 7 there"):
        check_parity(*bright(8), images())


def test_seven_bit_weights_never_do() -> None:
    assert check_parity(*bright(7), images()).max_steps_optimised <= 1.01


def test_no_advice_where_saturation_cannot_be_the_reason(module: torch.fx.GraphModule, exported: Exported) -> None:
    tamper(exported, stored(exported, maker_of(exported, names(exported)[1]), 1), lambda array: -array)
    with pytest.raises(ParityError, match=r"optimisation off; .* 1 of \d tensors differ so\.$"):
        check_parity(module, exported, images())


PLACED = ("plain", "mobile", "resnet", "moves", "pyramid", "neck", "halves", "shuffled", "swish")


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("seed", range(3))
def test_any_placement_computes_what_was_trained(name: str, seed: int) -> None:
    """Whatever is computed in float, what is left in integers is exact to a step."""
    template = nets.template(name)
    values = [output for node in template.graph.node for output in node.output]
    bits = np.random.default_rng(seed).integers(0, 2, len(values))
    chosen = {value for value, bit in zip(values, bits, strict=True) if bit}
    prepared = prepare_qat(to_torch(template), float_values=chosen, weight_bits=7)
    calibrate(prepared, [nets.images().numpy()])
    exported = export_int8(prepared, template)
    found = check_parity(prepared, exported, images())
    assert max(found.max_steps, found.max_steps_optimised) <= 1.01


def test_with_all_values_in_float_no_integers_are_left() -> None:
    template = nets.template("mobile")
    values = [output for node in template.graph.node for output in node.output]
    exported = export_int8(prepare_qat(to_torch(template), float_values=values), template)
    assert exported.integers == {}
    assert files.count_ops(exported.model)["QuantizeLinear"] == 0


def test_values_in_the_middle_of_two_steps_may_all_fall_to_one_side() -> None:
    """Gates of silent channels are 0.5, 127.5 steps of 1/255; a value next to the middle has one right integer."""
    scale, zero = torch.tensor(1 / 255), torch.tensor(0.0)
    gates = torch.cat([torch.full((90,), 0.5), torch.full((10,), 0.51)])
    for integer in (127.0, 128.0):
        file = torch.cat([torch.full((90,), integer), torch.full((10,), 130.0)])
        step = compare_integers("gate", file, gates, scale, zero, torch.tensor(0.0))
        assert (step.share, step.bias) == (0.0, 0.0)
        assert step.worst <= 1.0
        assert step.excess < 1e-3
    off = compare_integers("gate", torch.full((100,), 128.0), torch.full((100,), 0.498), scale, zero, torch.tensor(0.0))
    assert (off.share, off.bias) == (1.0, 1.0)
