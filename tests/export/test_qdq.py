"""The exported file: what it stores, that it computes what was trained, and that onnxruntime runs it in integers."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from compress.errors import ModelError
from compress.export import Exported, check_parity, export_int8
from compress.export import qdq as passes
from compress.graph import from_torch, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.session import Session
from compress.quant import PACT, calibrate, integer_nodes, pacts, prepare_qat
from compress.quant.int8_layers import IntegerHardSwish
from compress.zoo.classifier import build_classifier
from tests.export import files
from tests.quant import nets

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
FLOATS = {"recurrent": 3}
"""Float constants of a network that are no bias: the LSTM's."""


def export(name: str, bits: int = 7) -> Exported:
    return export_int8(nets.prepared(name, weight_bits=bits), nets.template(name))


@cache
def exported(name: str) -> Exported:
    """The same, made once: to be looked at only."""
    return export(name)


def layers_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type in LAYERS)


def largest_output(module: torch.fx.GraphModule) -> float:
    """Largest output, since some of the networks give no probabilities."""
    with torch.no_grad():
        result = module(nets.images(5, seed=1))
    return float((result[0] if isinstance(result, tuple) else result).abs().max())


# --- it computes what was trained -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asymmetric", "two_sided"),
    [
        *((name, True, two) for name in nets.ZOO for two in (False, True)),
        ("mobile", False, False),
        ("shared", False, True),
    ],
)
def test_parity(name: str, asymmetric: bool, two_sided: bool) -> None:
    """On other images than those calibrated on, optimisation off and on, every integer tensor to within a step.

    Run as it is written, the file does the model's arithmetic: only a sum in the middle of two steps falls otherwise.
    """
    module = nets.prepared(name, asymmetric_hard_swish=asymmetric, two_sided=two_sided)
    assert not two_sided or all(pact.lower is not None for _, pact in pacts(module))
    exported = export_int8(module, nets.template(name))
    found = check_parity(module, exported, nets.images(5, seed=1).numpy())
    assert found.max_steps <= 1.01
    assert found.max_steps_optimised <= 1.01
    assert found.mean_abs <= 2e-3 * max(1.0, largest_output(module))
    assert found.count == 5
    assert len(exported.integers) == len(list(pacts(module)))


@pytest.mark.parametrize("name", ["plain", "mobile"])
def test_other_batch_and_image_sizes(name: str) -> None:
    module = nets.prepared(name)
    exported = export_int8(module, nets.template(name))
    images = nets.images(1, seed=2, shape=(3, 24, 40)).numpy()
    assert check_parity(module, exported, images).max_steps <= 1.01


# --- what the file stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", nets.ZOO)
def test_weights_are_int8_and_biases_of_integer_layers_int32(name: str) -> None:
    model = exported(name).model
    integer = sum(node.meta["op_type"] in ("Conv", "Gemm") for node in integer_nodes(to_torch(nets.template(name))))
    biases = []
    for node in layers_of(model):
        assert files.stored_type(model, node.input[1]) == TensorProto.INT8, node
        if len(node.input) > 2:
            biases.append(files.stored_type(model, node.input[2]))
    without = sum(len(node.input) < 3 for node in layers_of(model) if node.op_type in ("Conv", "Gemm"))
    assert set(biases) <= {TensorProto.INT32, TensorProto.FLOAT}
    assert biases.count(TensorProto.INT32) == integer - without
    assert len(list(layers_of(model))) == len(list(layers_of(nets.template(name))))


@pytest.mark.parametrize("name", nets.ZOO)
def test_nothing_is_left_over(name: str) -> None:
    model = exported(name).model
    read = [value for node in model.graph.node for value in node.input] + [value.name for value in model.graph.output]
    assert {tensor.name for tensor in model.graph.initializer} <= set(read)
    assert all(any(output in read for output in node.output) for node in model.graph.node)
    contents = [(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in model.graph.initializer]
    assert len(contents) == len(set(contents))
    assert not model.graph.value_info
    assert not any(node.name or node.doc_string for node in model.graph.node)


@pytest.mark.parametrize("name", nets.ZOO)
def test_no_float_weight_is_left(name: str) -> None:
    """Float constants are scales, biases of float layers, the network's own constants, and an LSTM's weights."""
    model = exported(name).model
    biases = {node.input[2] for node in layers_of(model) if len(node.input) > 2}
    others = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in files.steps_of(model) | biases
    ]
    large = [tensor for tensor in others if np.prod(tensor.dims, dtype=int) > 16]
    assert len(large) == FLOATS.get(name, 0)


@pytest.mark.parametrize("name", ["mobile", "pyramid", "conv_output", "two_outputs", "recurrent"])
def test_inputs_outputs_opset_and_metadata_are_the_templates(name: str) -> None:
    template = nets.template(name)
    helper.set_model_props(template, {"character": "abc"})
    model = export_int8(nets.prepared(name), template).model
    assert [value.SerializeToString() for value in model.graph.input] == [
        value.SerializeToString() for value in template.graph.input
    ]
    assert [value.name for value in model.graph.output] == [value.name for value in template.graph.output]
    for value in model.graph.output:
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [
        (entry.domain, entry.version) for entry in template.opset_import
    ]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"character": "abc"}


def test_the_same_module_gives_the_same_bytes() -> None:
    first, second = (export("mobile").model.SerializeToString() for _ in range(2))
    assert first == second


def test_exporting_changes_neither_module_nor_template() -> None:
    module, template = nets.prepared("mobile"), nets.template("mobile")
    weights, content = {k: v.clone() for k, v in module.state_dict().items()}, template.SerializeToString()
    export_int8(module, template)
    assert template.SerializeToString() == content
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


def test_another_template_is_refused() -> None:
    with pytest.raises(ModelError, match="imported from"):
        export_int8(nets.prepared("plain"), nets.template("mobile"))


def test_eight_bits_use_the_whole_range() -> None:
    """Integer layers' weights; the stem's have 8 bits anyway."""
    for bits, largest in ((7, 63), (8, 127)):
        model = export("plain", bits).model
        makers = files.producers(model)
        stored = files.initialisers(model)
        readers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
        integer = [makers[node.input[1]] for node in readers if node.input[0] in makers]
        names = [maker.input[0] for maker in integer if maker.op_type == "DequantizeLinear"]
        weights = [onnx.numpy_helper.to_array(stored[name]) for name in names if name in stored]
        assert len(weights) >= 4
        assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == largest


# --- onnxruntime runs it in integers ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", nets.ZOO)
def test_integer_layers_reach_integer_kernels(name: str) -> None:
    module = to_torch(nets.template(name))
    wanted = [node.meta["op_type"] for node in integer_nodes(module)]
    convolutions = sum(node.op_type == "Conv" for node in nets.template(name).graph.node)
    found = files.count_ops(files.optimised(exported(name).model))
    assert found["QLinearConv"] == wanted.count("Conv")
    assert found["Conv"] + found["FusedConv"] == convolutions - wanted.count("Conv")
    assert found["QGemm"] == wanted.count("Gemm")
    assert found["Gemm"] == 0
    assert found["QLinearGlobalAveragePool"] == wanted.count("GlobalAveragePool")
    assert found["QLinearMatMul"] + found["MatMulIntegerToFloat"] == wanted.count("MatMul")
    assert found["MatMul"] == 0
    assert found["QLinearConcat"] == wanted.count("Concat")
    swish = wanted.count("HardSwish")
    assert found["QLinearAdd"] >= wanted.count("Add") + swish
    assert found["QLinearMul"] == wanted.count("Mul") + swish


@pytest.mark.parametrize("name", sorted(set(nets.ZOO) - {"pyramid"}))
def test_nothing_is_dequantised_that_could_be_a_constant(name: str) -> None:
    """A float layer's weight is a plain constant once the file is loaded, so its kernel is the usual one.

    But for a transposed convolution between integers (pyramid): a constant weight there onnxruntime rounds anew.
    """
    model = files.optimised(exported(name).model)
    constants = set(files.initialisers(model))
    computed = [node.input[0] for node in model.graph.node if node.op_type in ("DequantizeLinear", "Cast", "Mul")]
    assert not constants & set(computed)


@pytest.mark.parametrize("layer", ["second_MatMul_output_0", "last_MatMul_output_0"])
def test_a_named_matmul_is_a_plain_one(layer: str) -> None:
    """onnxruntime rounds the input of one behind DequantizeLinear as it runs (MatMulNBits), which nobody trained."""
    template = nets.template("steps")
    module = prepare_qat(to_torch(template), float_layers=[layer], weight_bits=7)
    calibrate(module, [nets.images().numpy()])
    exported = export_int8(module, template)
    found = files.count_ops(files.optimised(exported.model))
    assert (found["MatMul"], found["MatMulNBits"]) == (1, 0)
    assert check_parity(module, exported, nets.images(4, seed=1).numpy()).max_abs_optimised < 1e-6


def test_a_matmul_stores_no_zero_point() -> None:
    """onnxruntime fuses it without (a Gemm it does not): the fewest bytes that reach the integer kernel."""
    for node in exported("steps").model.graph.node:
        if node.op_type == "DequantizeLinear":
            weight = files.initialisers(exported("steps").model).get(node.input[0])
            assert weight is None or len(node.input) == 2


@pytest.mark.parametrize("name", ["recurrent", "steps", "shuffled"])
def test_sizes_are_asked_of_the_integers(name: str) -> None:
    """A DequantizeLinear whose result nobody reads but Shape would be work for nothing."""
    makers = files.producers(exported(name).model)
    asked = [node.input[0] for node in exported(name).model.graph.node if node.op_type == "Shape"]
    assert asked
    assert not any(name in makers and makers[name].op_type == "DequantizeLinear" for name in asked)


@pytest.mark.slow
def test_the_whole_classifier_is_integer_but_for_stem_and_softmax() -> None:
    """52 convolutions (53, two of them merged), 18 hard-swishes behind integer ones; the stem's own is part of it."""
    torch.manual_seed(0)
    images = nets.images(4, shape=(3, 48, 96))
    template = lower_for_int8(from_torch(build_classifier().eval(), images[:1]))
    module = prepare_qat(to_torch(template), asymmetric_hard_swish=True, weight_bits=7)
    calibrate(module, [images.numpy()])
    found = files.count_ops(files.optimised(export_int8(module, template).model))
    for name in ("Transpose", "ReorderOutput", "Squeeze"):  # layouts: of integer kernels, of float ones, of a constant
        found.pop(name, None)
    residuals, gates, pools = 7, 9, 9 + 1
    max_pools = {name: found.pop(name) for name in ("MaxPool", "NhwcMaxPool") if name in found}
    assert sum(max_pools.values()) == 1
    assert found == {
        "Conv": 1,
        "QuantizeLinear": 1,
        "QLinearConv": 51,
        "QLinearAdd": 17 + residuals,
        "QLinearMul": 17 + gates,
        "QLinearGlobalAveragePool": pools,
        "Flatten": 1,
        "QGemm": 1,
        "Softmax": 1,
    }


# --- each pass alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["plain", "mobile", "resnet", "linears", "moves", "pyramid", "relu_output", "two_outputs"]
)
def test_dropping_saturated_activations_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = nets.images(4, seed=3).numpy()
    without = exported(name).model
    monkeypatch.setattr(passes, "remove_saturated_activations", lambda graph, choices: None)
    kept = export(name).model
    relus = [files.count_ops(model)["Relu"] + files.count_ops(model)["Clip"] for model in (without, kept)]
    assert relus[0] <= relus[1]
    for optimise in (False, True):
        np.testing.assert_array_equal(
            Session(without, optimise=optimise).run(images), Session(kept, optimise=optimise).run(images)
        )


@pytest.mark.parametrize(
    ("name", "left"),
    [("plain", 1), ("resnet", 1), ("capped", 1), ("mobile", 0), ("two_outputs", 2), ("relu_output", 1), ("shared", 2)],
)
def test_only_activations_that_saturation_computes_are_dropped(name: str, left: int) -> None:
    """Left are the float stem's, and those whose convolution is read by others, too."""
    found = files.count_ops(exported(name).model)
    assert found["Relu"] + found["Clip"] == left


@pytest.mark.parametrize(("alpha", "clips"), [(3.0, 0), (6.0, 0), (6.1, 1), (8.0, 1)])
def test_relu6_stays_where_the_range_reaches_above_6(alpha: float, clips: int) -> None:
    module = nets.prepared("capped")
    for _, pact in list(pacts(module))[2:3]:  # behind the first ReLU6
        pact.alpha.data.fill_(alpha)
    exported = export_int8(module, nets.template("capped"))
    assert files.count_ops(exported.model)["Clip"] == clips
    assert check_parity(module, exported, nets.images(seed=1).numpy()).max_steps <= 1.01


def hard_swish_graph() -> onnx.ModelProto:
    """x -> HardSwish -> y, of one dimension."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("HardSwish", ["x"], ["y"], name="y")],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_expanded_hard_swish_is_the_modules() -> None:
    model = ir.from_proto(hard_swish_graph())
    passes.expand_hard_swish(model.graph, passes.Choices({}, {}, frozenset({"y"}), frozenset({"y"})))
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    assert files.count_ops(made) == {"Add": 1, "QuantizeLinear": 1, "DequantizeLinear": 2, "Mul": 1}
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    found = Session(made, optimise=False).run(x)
    # The constant 3 is 255 * (3 / 255) in float32, so a sum in the middle of two steps may fall either way.
    difference = np.abs(found - IntegerHardSwish()(torch.from_numpy(x)).numpy())
    assert (difference > 1e-6).mean() < 1e-3
    assert (difference <= np.abs(x) / 255 * 1.001 + 1e-6).all()


def test_a_float_hard_swish_stays() -> None:
    model = ir.from_proto(hard_swish_graph())
    passes.expand_hard_swish(model.graph, passes.Choices({}, {}, frozenset(), frozenset()))
    assert files.count_ops(ir.to_proto(model)) == {"HardSwish": 1}


@pytest.mark.parametrize("name", ["plain", "mobile", "linears", "steps", "pyramid", "recurrent"])
def test_int8_weights_are_the_rounded_float_ones(name: str) -> None:
    """Alone, the pass turns each weight into what the module multiplies with: a float model of those is as good."""
    module, images = nets.prepared(name), nets.images(seed=4).numpy()
    for _, pact in pacts(module):
        pact.enabled = False  # biases stay float, and nothing else is rounded
    model = ir.from_proto(to_onnx(module, nets.template(name)))
    choices = passes.read_choices(module)
    passes.quantize_weights(model.graph, choices)
    found = Session(ir.to_proto(model), optimise=False).run(images)
    for layer in module.modules():  # hard-swish in float, as the file has it
        for child_name, child in layer.named_children():
            if isinstance(child, IntegerHardSwish):
                setattr(layer, child_name, torch.nn.Hardswish())
    with torch.no_grad():
        expected = module(torch.from_numpy(images))
    expected = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * max(1.0, float(expected.abs().max())))


def test_moves_work_on_integers() -> None:
    """Pools, transpositions and flattening stand between QuantizeLinear and DequantizeLinear."""
    model = exported("moves").model
    makers = files.producers(model)
    for node in model.graph.node:
        if node.op_type in ("MaxPool", "Transpose", "Squeeze"):
            assert makers[node.input[0]].op_type != "DequantizeLinear"


def test_outputs_keep_their_names_behind_integers() -> None:
    """The integer form is inner, and what the network returns is its dequantised form."""
    file = exported("two_outputs")
    makers = files.producers(file.model)
    outputs = [value.name for value in file.model.graph.output]
    assert [makers[name].op_type for name in outputs] == ["Softmax", "DequantizeLinear", "DequantizeLinear"]
    images = nets.images(seed=5)
    with torch.no_grad():
        expected = nets.prepared("two_outputs")(images)
    found = Session(file.model, optimise=False).run_all(images.numpy())
    for name, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], value, atol=2e-2 * max(1.0, float(value.abs().max())))


def test_ranges_in_the_file_are_the_modules() -> None:
    module = nets.prepared("mobile")
    exported = export_int8(module, nets.template("mobile"))
    constants = {
        name: onnx.numpy_helper.to_array(tensor) for name, tensor in files.initialisers(exported.model).items()
    }
    makers = files.producers(exported.model)
    for node in module.graph.nodes:
        if not isinstance(pact := nets.layer_of(module, node), PACT):
            continue
        name, found = exported.integers[node.meta["onnx"]]
        scale, zero_point = pact.scale_and_zero_point()
        assert (found.scale, found.zero_point) == (float(scale), int(zero_point))
        quantize = makers[name]
        assert float(constants[quantize.input[1]]) == float(scale)
        assert int(constants[quantize.input[2]]) == int(zero_point)
