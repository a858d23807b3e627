"""LSTM and GRU layers of an int8 file, in each form: bytes, operators, and what onnxruntime computes."""

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ParityError
from compress.export import Exported, check_parity
from compress.export.parity import stepwise_differences
from compress.export.recurrent_forms import bits_of, forms_of
from compress.export.replay import Replayed
from compress.measure.cost import model_cost
from compress.measure.session import Session
from compress.quant.recurrent_weights import recurrent_layers, round_recurrent
from tests.export import files
from tests.export import recurrent as crnn
from tests.quant import nets

FORMS = [(name, form) for name in crnn.LSTMS for form in ("float", "weights", "dynamic")]
FORMS += [(name, form) for name in crnn.GRUS for form in ("float", "weights")]
STATES = [(name, form, states) for name, form in FORMS for states in (False, True)]


def images(count: int = 4, seed: int = 1, width: int = 24) -> np.ndarray:
    return nets.images(count, seed=seed, shape=(3, 16, width)).numpy()


def recurrent_bytes(exported: Exported, name: str) -> int:
    """Bytes of all constants that the recurrent layers' weights are made of, steps and zero points included."""
    model = exported.model
    makers, stored = files.producers(model), files.initialisers(model)
    pending, found = [], set()
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "DynamicQuantizeLSTM"):
            pending += [*node.input[1:3], *node.input[8:]]
    while pending:
        value = pending.pop()
        if value in stored:
            found.add(value)
        elif value in makers:
            pending += makers[value].input
    return sum(numpy_helper.to_array(stored[value]).nbytes for value in found)


# --- which forms there are --------------------------------------------------------------------------------------


def test_forms_follow_the_layers() -> None:
    """onnxruntime has a kernel for an LSTM in integers, and none for a GRU."""
    assert {forms_of(crnn.template(name)) for name in crnn.LSTMS} == {("float", "weights", "dynamic")}
    assert {forms_of(crnn.template(name)) for name in crnn.GRUS} == {("float", "weights")}
    assert forms_of(nets.template("plain")) == ("float",)


def test_bits_of_each_form() -> None:
    assert bits_of("float", 7) == {}
    assert bits_of("weights", 7) == {"LSTM": 8, "GRU": 8, "RNN": 8}  # computed in float: nothing can saturate
    assert bits_of("dynamic", 7) == {"LSTM": 7, "GRU": 8, "RNN": 8}


# --- it computes what was trained -------------------------------------------------------------------------------


def second_opinion(name: str, form: str, states: bool) -> Any:
    """Last states are outputs of the same layer in every form: one form is looked at each time, others when slow."""
    return pytest.param(name, form, states, marks=[pytest.mark.slow] if states and form != "weights" else [])


@pytest.mark.parametrize(("name", "form", "states"), [second_opinion(*case) for case in STATES])
def test_parity(name: str, form: str, states: bool) -> None:
    """Every integer tensor and every output, the last states among them; also with another batch and width."""
    module, exported = crnn.prepared(name, states=states), crnn.export(name, form, states=states)
    network = round_recurrent(module, exported.recurrent_bits)
    found = check_parity(network, exported, images())
    assert found.max_steps <= 1.01
    assert max(found.mean_abs, found.mean_abs_optimised) <= (2e-3 if form == "dynamic" else 1e-6)
    check_parity(network, exported, images(1, width=56))
    assert len(exported.model.graph.output) == 1 + states * (2 if name in crnn.LSTMS else 1)


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("name", crnn.CASES)
def test_weights_compute_what_the_network_of_rounded_weights_does(name: str, optimise: bool) -> None:
    """And not what the trained ones do: the rounding is real, and seen."""
    module, exported = crnn.prepared(name), crnn.export(name, "weights")
    found = Session(exported.model, optimise=optimise).run(images())
    with torch.no_grad():
        expected = round_recurrent(module, {"LSTM": 8, "GRU": 8, "RNN": 8})(torch.from_numpy(images())).numpy()
        trained = module(torch.from_numpy(images())).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - trained).max() > 1e-5


def dequantised(exported: Exported, node: onnx.NodeProto) -> list[np.ndarray]:
    stored = files.initialisers(exported.model)
    return [numpy_helper.to_array(stored[name]) if name else np.empty(0) for name in node.input[1:]]


def inputs_and_results(exported: Exported, batch: np.ndarray) -> list[tuple[onnx.NodeProto, np.ndarray, np.ndarray]]:
    """Each LSTM with what it reads and what it gives, on this batch."""
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    layers = [node for node in model.graph.node if node.op_type in ("LSTM", "DynamicQuantizeLSTM")]
    for node in layers:
        for name in (node.input[0], node.output[0]):
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    values = Session(model, optimise=False).run_all(batch)
    return [(node, values[node.input[0]], values[node.output[0]]) for node in layers]


@pytest.mark.parametrize("name", crnn.LSTMS)
def test_dynamic_computes_what_numpy_does(name: str) -> None:
    """Input and states in uint8 by each call's range, int8 weights with a step for each row, float biases."""
    exported = crnn.export(name, "dynamic")
    layers = inputs_and_results(exported, images())
    assert len(layers) == crnn.CASES[name][1]
    for node, given, found in layers:
        w, r, b, _, _, _, _, w_scale, w_zero, r_scale, r_zero = dequantised(exported, node)
        assert (w.dtype, r.dtype) == (np.int8, np.int8)
        assert max(np.abs(w.astype(int)).max(), np.abs(r.astype(int)).max()) == 63  # 7 bits
        assert not w_zero.any()
        assert not r_zero.any()
        assert found.shape[1] == w.shape[0] == (2 if crnn.CASES[name][2] else 1)
        for direction in range(w.shape[0]):
            x = given[::-1] if direction else given
            y = crnn.lstm_in_integers(
                x, w[direction], w_scale[direction], r[direction], r_scale[direction], b[direction]
            )
            # A value in the middle of two steps may fall either way, and move what follows by a step of 1/255.
            difference = np.abs(found[:, direction] - (y[::-1] if direction else y))
            assert difference.mean() < 1e-4
            assert difference.max() < 0.01


@pytest.mark.parametrize("name", crnn.LSTMS)
def test_dynamic_is_near_float(name: str) -> None:
    """On the file's own input to each layer: half a step of 8 bits in each of input, state and weight, no more."""
    exported = crnn.export(name, "dynamic")
    float_file = crnn.export(name, "float")
    for (_, _, found), (_, _, expected) in zip(
        inputs_and_results(exported, images()), inputs_and_results(float_file, images()), strict=True
    ):
        assert np.abs(found - expected).mean() < 0.01


def test_dynamic_readings_depend_on_the_batch_and_those_of_weights_do_not() -> None:
    """One range for the whole batch: an image with large features coarsens the steps of its neighbours."""
    quiet, loud = images(1, seed=3) * 0.05, images(1, seed=4)
    together = np.concatenate([quiet, loud])
    for form, same in (("float", True), ("weights", True), ("dynamic", False)):
        session = Session(crnn.export("lstm1_both", form).model)
        difference = np.abs(session.run(quiet)[0] - session.run(together)[0]).max()
        assert bool(difference < 1e-6) is same, form


@pytest.mark.parametrize("form", ["weights", "dynamic"])
def test_an_image_alone_is_read_the_same_by_any_number_of_threads(form: str) -> None:
    model = crnn.export("lstm2_both", form).model
    one, two = (Session(model, threads=threads).run(images(1, seed=3)) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


# --- what the file stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_operators(name: str, form: str) -> None:
    kind, layers, _ = crnn.CASES[name]
    found = files.count_ops(crnn.export(name, form).model)
    in_integers = layers if form == "dynamic" else 0
    assert found["DynamicQuantizeLSTM"] == in_integers
    assert found[kind.__name__.upper()] == layers - in_integers
    opsets = {entry.domain for entry in crnn.export(name, form).model.opset_import}
    assert ("com.microsoft" in opsets) is (form == "dynamic")


@pytest.mark.parametrize("name", crnn.GRUS)
def test_a_gru_in_the_form_dynamic_gets_int8_weights(name: str) -> None:
    dynamic, weights = (crnn.export(name, form) for form in ("dynamic", "weights"))
    assert dynamic.model.SerializeToString() == weights.model.SerializeToString()
    assert dynamic.recurrent_bits["GRU"] == 8


@pytest.mark.parametrize(("name", "form"), [case for case in FORMS if case[1] != "float"])
def test_a_quarter_of_the_bytes(name: str, form: str) -> None:
    """One byte for four, and for each row of I or H weights a step of four (and in integers a zero point of one)."""
    _, layers, both = crnn.CASES[name]
    rows = (4 if name in crnn.LSTMS else 3) * crnn.UNITS * (2 if both else 1)
    columns = [10, *[crnn.UNITS * (2 if both else 1)] * (layers - 1), *[crnn.UNITS] * layers]
    weights = rows * sum(columns)
    assert recurrent_bytes(crnn.export(name, "float"), name) == 4 * weights
    per_row = rows * 4 * len(columns) + (rows if form == "dynamic" else 0)  # zero points are all one constant
    assert recurrent_bytes(crnn.export(name, form), name) == weights + per_row


@pytest.mark.parametrize("name", crnn.CASES)
def test_weights_are_constants_once_the_file_is_loaded(name: str) -> None:
    """Else onnxruntime would make them of int8 in every call, and could not pack them for its kernel."""
    kind, layers, _ = crnn.CASES[name]
    model = files.optimised(crnn.export(name, "weights").model)
    stored = files.initialisers(model)
    nodes = [node for node in model.graph.node if node.op_type == kind.__name__.upper()]
    assert len(nodes) == layers
    for node in nodes:
        assert all(stored[value].data_type == TensorProto.FLOAT for value in node.input[1:3])
    assert not {"Cast", "Mul"} & set(files.count_ops(model))


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_cost_is_the_same_in_every_form(name: str, form: str) -> None:
    """Steps and zero points are no parameters, and what is done once at loading is no work."""
    costs = [model_cost(crnn.export(name, one).model, (3, 16, 24), 0) for one in ("float", form)]
    assert (costs[0].params, costs[0].macs) == (costs[1].params, costs[1].macs)
    assert costs[0].macs > 0


@pytest.mark.parametrize(("name", "form", "states"), STATES)
def test_inputs_and_outputs_stay(name: str, form: str, states: bool) -> None:
    """Names, dynamic batch and width, and the order of outputs."""
    template, model = crnn.template(name, states=states), crnn.export(name, form, states=states).model
    assert list(model.graph.input) == list(template.graph.input)
    assert [value.name for value in model.graph.output] == [value.name for value in template.graph.output]
    session, plain = Session(model), Session(template)
    for count, width in ((1, 24), (3, 72)):
        found, expected = (one.run_all(images(count, width=width)) for one in (session, plain))
        assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in expected.items()}


def test_one_export_one_file() -> None:
    again = crnn.export.__wrapped__("lstm2_both", "dynamic").model
    assert again.SerializeToString() == crnn.export("lstm2_both", "dynamic").model.SerializeToString()


# --- a wrong file is found --------------------------------------------------------------------------------------


def corrupted(exported: Exported, constant: str) -> Exported:
    """The same file, one constant with its signs turned."""
    model = copy.deepcopy(exported.model)
    tensor = files.initialisers(model)[constant]
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), constant))
    return Exported(model, exported.integers, exported.recurrent_bits, exported.approximate)


@pytest.mark.parametrize("position", [1, 2, 3])
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_wrong_weight_or_bias_is_found(name: str, form: str, position: int) -> None:
    """Of the input, of the state, and the bias, of the last layer."""
    exported = crnn.export(name, form)
    makers = files.producers(exported.model)
    layer = [n for n in exported.model.graph.node if n.op_type in ("LSTM", "GRU", "DynamicQuantizeLSTM")][-1]
    constant = layer.input[position]
    while constant in makers:  # Mul, Cast
        constant = makers[constant].input[0]
    network = round_recurrent(crnn.prepared(name), exported.recurrent_bits)
    check_parity(network, exported, images())
    message = r"LSTM '.*' in integers differs by .*Use recurrent: weights" if form == "dynamic" else "differs"
    with pytest.raises(ParityError, match=message):
        check_parity(network, corrupted(exported, constant), images())


@pytest.mark.parametrize("name", crnn.CASES)
def test_a_network_that_is_not_the_files_is_found(name: str) -> None:
    """Weights that are a tenth larger in one layer."""
    module, exported = copy.deepcopy(crnn.prepared(name)), crnn.export(name, "weights")
    next(iter(recurrent_layers(module).values())).weight_hh_l0.data.mul_(1.1)
    with pytest.raises(ParityError, match="differs"):
        check_parity(round_recurrent(module, exported.recurrent_bits), exported, images())


def test_the_limit_of_integer_lstms_is_shown_as_it_is() -> None:
    """Two thousandths, not 0 %."""
    (found,) = stepwise_differences(Replayed([], {}, {"rnn": 0.0034}, {}))
    assert "'rnn' in integers differs by 0.34% of" in found.message
    assert "(allowed: 0.2%)" in found.message
