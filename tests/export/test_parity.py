"""The proof that file and model agree: it passes where they do, and names the place where they do not."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.errors import ParityError
from compress.export import Exported, check_parity, export_int8
from compress.export.parity import _require_outputs, compare_steps
from compress.graph import from_torch, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.machine import machine_info, saturates_int8
from compress.quant import calibrate, prepare_qat
from tests.export import files
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
    with pytest.raises(ParityError, match=r"output 'output' differs by .* file's own integers \(allowed: 0\.001\)"):
        check_parity(module, exported, images())


def test_one_sided_errors_add_up() -> None:
    """No tensor is off by more than a step, and yet the outputs are wrong."""
    with pytest.raises(
        ParityError, match=r"outputs differ from .* by 0\.010 .* and 0\.060 .* on average; allowed: 0\.050\. On x86"
    ):
        _require_outputs(0.01, 0.06, 1.0)
    _require_outputs(0.6, 0.6, 100.0)


def test_outputs_that_are_no_probabilities_are_compared_to_their_size() -> None:
    """Outputs of hundreds may differ by more than probabilities may."""
    module = nets.prepared("conv_output")
    exported = export_int8(module, nets.template("conv_output"))
    tensor = files.initialisers(exported.model)[exported.model.graph.node[-1].input[1]]
    scale = numpy_helper.to_array(tensor)
    for factor in (1.0005, 1.005):
        tensor.CopyFrom(numpy_helper.from_array((scale * factor).astype(np.float32), tensor.name))
        if factor < 1.001:
            check_parity(module, exported, images())
        else:
            with pytest.raises(ParityError, match=r"output 'output' differs by 0\.005"):
                check_parity(module, exported, images())


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
    with pytest.raises(ParityError, match=r"optimisation off; 1 of \d tensors differ so\.$"):
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
