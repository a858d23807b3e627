"""Which nodes compute in integers, where the ranges are, and that the prepared network computes what it should."""

import copy

import pytest
import torch
from torch import fx, nn

from compress.errors import ModelError
from compress.graph import to_torch
from compress.graph.canonical import canonicalise
from compress.quant import PACT, integer_nodes, pacts, prepare_qat, qat_parameter_groups
from compress.quant.int8_layers import IntegerHardSwish, QuantConv2d, QuantConvTranspose2d, QuantLayer, QuantLinear
from compress.quant.nodes import output_values
from tests.graph.graphs import image_graph, number, weights
from tests.quant import nets

GEMM_HEAD = {"GlobalAveragePool": 1, "Gemm": 1}
STEM = {"stem_stem_1_BatchNormalization_output_0"}
INTEGER: dict[str, dict[str, int]] = {
    "plain": {"Conv": 4, **GEMM_HEAD},
    "mobile": {"Conv": 6, "HardSwish": 3, "GlobalAveragePool": 2, "Mul": 1, "Add": 1, "Gemm": 1},
    "shared": {"Conv": 4, "HardSwish": 1, "Add": 2, **GEMM_HEAD},
    "concatenated": {"Conv": 3, "Concat": 1, **GEMM_HEAD},
    "resnet": {"Conv": 3, "Add": 1, **GEMM_HEAD},
    "two_stems": {"Conv": 1, **GEMM_HEAD},  # float stems, so their Add is float
    "pooled_image": {"Conv": 1, **GEMM_HEAD},
    "linears": {"Conv": 1, "Gemm": 3, "MatMul": 1},  # the one without bias is a MatMul
    "moves": {"Conv": 3, **GEMM_HEAD},
    "uneven_padding": {"Conv": 3, **GEMM_HEAD},
    "steps": {"Conv": 1, "MatMul": 3},
    "biased_matmul": {"Conv": 2, "MatMul": 1, **GEMM_HEAD},
    "recurrent": {"Conv": 1, "MatMul": 1},
    "pyramid": {"Conv": 5, "Add": 1},
    # top; down; of `fine` and `joint` each the phases of the upsampled part and the rest; two transposed ones
    "neck": {"Conv": 9, "Add": 2},
    "capped": {"Conv": 2, **GEMM_HEAD},
    "doubled": {"Conv": 3, "Add": 1, "Mul": 1, **GEMM_HEAD},
    "flat_output": {"Conv": 1},
    "conv_output": {"Conv": 1},
    "relu_output": {"Conv": 1},
    "two_outputs": {"Conv": 2, **GEMM_HEAD},
    "shuffled": {"Conv": 2, **GEMM_HEAD},
    "halves": {"Conv": 4, "Concat": 1, **GEMM_HEAD},
    "constants": {"Conv": 2, **GEMM_HEAD},  # constants have no integer form
    "swish": {"Conv": 3, "Mul": 2, "GlobalAveragePool": 2, "Gemm": 1},
    "gelu": {"Conv": 2, "Add": 1, **GEMM_HEAD},  # all five nodes of it are float
    "dead_tensor": {"Conv": 2, **GEMM_HEAD},
}
"""Network -> its integer nodes by operator; whatever else it has is float."""
FLOAT_LAYERS = {
    "mobile": {"stem_stem_0_Conv_output_0"},
    "two_stems": {"fine_Conv_output_0", "coarse_Conv_output_0"},
    "pooled_image": {"conv_Conv_output_0"},
    "pyramid": STEM | {"norm_BatchNormalization_output_0"},  # the transposed convolution
}


def imported(name: str) -> fx.GraphModule:
    return to_torch(nets.template(name))


def integer_layers(module: fx.GraphModule) -> set[str]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return {str(node.target) for node in integer_nodes(module) if isinstance(nets.layer_of(module, node), kinds)}


def test_every_network_is_listed() -> None:
    assert set(INTEGER) == set(nets.ZOO)


@pytest.mark.parametrize("name", nets.ZOO)
def test_integer_nodes(name: str) -> None:
    module = imported(name)
    found: dict[str, int] = {}
    for node in integer_nodes(module):
        found[node.meta["op_type"]] = found.get(node.meta["op_type"], 0) + 1
    assert found == INTEGER[name]
    layers = {
        path for path, child in module.named_modules() if isinstance(child, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }
    assert layers - integer_layers(module) == FLOAT_LAYERS.get(name, STEM)


@pytest.mark.parametrize("name", nets.ZOO)
def test_the_original_is_left_alone(name: str) -> None:
    module = imported(name)
    before, code = copy.deepcopy(module.state_dict()), module.code
    qat = prepare_qat(module)
    assert module.code == code
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    for parameter in qat.parameters():
        parameter.data.add_(1.0)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", nets.ZOO)
def test_integer_layers_with_an_integer_bias_know_their_input_and_others_do_not(name: str) -> None:
    """The step of an int32 bias is that of input times weight; a MatMul's bias is a float Add behind it."""
    qat = prepare_qat(imported(name))
    for node in qat.graph.nodes:
        layer = nets.layer_of(qat, node)
        if isinstance(layer, QuantLayer):
            assert bool(layer.source) == (node.meta["integer"] and node.meta["op_type"] != "MatMul")
            assert all(source in set(qat.modules()) for source in layer.source)


@pytest.mark.parametrize("name", ["mobile", "shared", "linears", "two_outputs"])
def test_a_copy_is_wired_to_its_own_ranges(name: str) -> None:
    """`fit` and exports work on deep copies: a layer must look at the copy's quantiser."""
    qat = copy.deepcopy(nets.calibrated(name))
    own = set(qat.modules())
    for layer in own:
        if isinstance(layer, QuantLayer):
            assert set(layer.source) <= own
    x = nets.images()
    with torch.no_grad():
        torch.testing.assert_close(qat(x), nets.calibrated(name)(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", nets.ZOO)
def test_integer_tensors_are_rounded(name: str) -> None:
    """Whatever reaches an integer layer takes at most 256 values (and the zero of uneven padding is one of them)."""
    qat = nets.prepared(name)
    seen = {}

    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[layer] = len(inputs[0].unique())

    nodes = [node for node in qat.graph.nodes if node.meta.get("integer")]
    integer = [layer for node in nodes if isinstance(layer := nets.layer_of(qat, node), QuantLayer)]
    for layer in integer:
        layer.register_forward_pre_hook(look)
    with torch.no_grad():
        qat(nets.images())
    assert len(seen) == len(integer) > 0
    assert max(seen.values()) <= 256


@pytest.mark.parametrize("name", nets.ZOO)
def test_output_is_near_the_float_networks(name: str) -> None:
    x = nets.images()
    with torch.no_grad():
        expected, found = imported(name)(x), nets.prepared(name, weight_bits=8)(x)
    for one, other in zip(*(y if isinstance(y, tuple) else (y,) for y in (expected, found)), strict=True):
        assert (one - other).abs().mean() <= 0.03 * max(1.0, float(one.abs().max()))


def test_with_ranges_and_rounding_off_nothing_changes_but_the_weights() -> None:
    """Eight bits more would be exact; with ranges off only the weights are rounded, by half a step at most."""
    module = imported("plain")
    qat = prepare_qat(module)
    for _, pact in pacts(qat):
        pact.enabled = False
    for node in qat.graph.nodes:
        if isinstance(layer := nets.layer_of(qat, node), QuantLayer):
            layer.bit_width = 24  # finer than float32's own rounding needs to be
    with torch.no_grad():
        torch.testing.assert_close(qat(nets.images()), module(nets.images()), rtol=1e-4, atol=1e-5)


# --- ranges -----------------------------------------------------------------------------------------------------


def ranges(name: str, asymmetric: bool = True) -> dict[str, tuple[float | None, bool]]:
    """(lower end, known exactly) of each range, by the ONNX value."""
    return ranges_of(imported(name), asymmetric)


def ranges_of(module: fx.GraphModule, asymmetric: bool = True) -> dict[str, tuple[float | None, bool]]:
    """The same, of a network."""
    qat = prepare_qat(module, asymmetric_hard_swish=asymmetric)
    found = {}
    for node in qat.graph.nodes:
        if isinstance(pact := nets.layer_of(qat, node), PACT):
            found[node.meta["onnx"]] = (pact.lower, pact.fixed)
    return found


@pytest.mark.parametrize("asymmetric", [True, False])
def test_ranges_of_a_mobilenet_block(asymmetric: bool) -> None:
    """Hard-swish goes down to -0.375, and so do its mean and its product with a gate in [0, 1]; a sum may go lower."""
    swish, signed = (-0.375 if asymmetric else None, False), (None, False)
    assert ranges("mobile", asymmetric) == {
        "/stem/stem.1/HardSwish_output_0": swish,
        "/expand/expand.1/BatchNormalization_output_0": signed,
        "/expand/expand.2/HardSwish_output_0": swish,
        "/depthwise/depthwise.1/BatchNormalization_output_0": signed,
        "/depthwise/depthwise.2/HardSwish_output_0": swish,
        "/GlobalAveragePool_output_0": swish,
        "/Relu_output_0": (0.0, False),
        "/Clip_output_0": (0.0, True),  # the hard-sigmoid
        "/Mul_1_output_0": swish,
        "/project/Conv_output_0": signed,
        "/Add_1_output_0": signed,
        "/last/last.0/Conv_output_0": signed,
        "/last/last.1/HardSwish_output_0": swish,
        "/head/GlobalAveragePool_output_0": swish,
    }


@pytest.mark.parametrize(
    ("activation", "scale", "offset", "lower"),
    [
        ("HardSwish (b)", 2.0, 0.25, -0.5),  # 2 * -0.375 + 0.25
        ("HardSwish (b)", 2.0, -3.0, -3.75),
        ("HardSwish (b)", 0.5, 1.0, 0.0),  # zero is in every range
        ("Relu (b)", 3.0, -0.5, -0.5),
        ("Relu (b)", -1.0, 0.5, None),
        ("Neg (b)", 2.0, 0.25, None),
    ],
)
def test_a_learned_scale_and_offset_move_the_range(
    activation: str, scale: float, offset: float, lower: float | None
) -> None:
    assert ranges_of(learned_affine(activation, scale, offset))["e"] == (lower, False)


def test_a_learned_scale_of_a_gate_is_known_at_both_ends() -> None:
    assert ranges_of(learned_affine("Sigmoid (b)", 2.0, -0.5))["e"] == (-0.5, True)


def learned_affine(activation: str, scale: float, offset: float) -> fx.GraphModule:
    """A layer of two numbers behind an activation; one of its readers is no convolution, so that it stays whole."""
    body = f"""a = Conv (x, w) b = Conv (a, v) c = {activation} d = Mul (c, s) e = Add (d, o) f = GlobalAveragePool (e)
        g = Conv <pads = [1, 1, 1, 1]> (e, k) h = Conv (f, v) i = Mul (g, h) y = Conv (i, v)"""
    constants = {"w": weights(8, 4, 1, 1), "v": weights(8, 8, 1, 1, seed=1), "k": weights(8, 8, 3, 3, seed=2)}
    model = image_graph(body, constants | {"s": number(scale), "o": number(offset)})
    return to_torch(canonicalise(model))


def test_ranges_follow_what_operators_can_give() -> None:
    lowers = {name: {lower for lower, _ in ranges(name).values()} for name in ("plain", "shuffled")}
    assert lowers == {"plain": {0.0}, "shuffled": {0.0}}
    halves = ranges("halves")
    assert halves["/Split_output_0"] == halves["/Split_output_1"] == (0.0, False)
    joined = ranges("concatenated")
    assert joined["/Concat_output_0"] == (None, False)
    assert joined["/Relu_output_0"] == (0.0, False)


def test_range_belongs_to_the_sum_where_a_matmul_took_in_its_bias() -> None:
    assert "/first/Add_output_0" in ranges("biased_matmul")
    assert "/first/MatMul_output_0" not in ranges("biased_matmul")


def test_no_range_on_sizes() -> None:
    """The target of a computed reshape is no tensor to quantise."""
    assert set(ranges("shuffled")) == {
        "/stem/stem.2/Relu_output_0",
        "/Relu_output_0",
        "/Relu_1_output_0",
        "/head/GlobalAveragePool_output_0",
    }


# --- options ----------------------------------------------------------------------------------------------------


def test_layers_are_replaced_by_their_quantised_kind() -> None:
    kinds = {type(layer) for layer in prepare_qat(imported("pyramid")).modules()}
    assert {QuantConv2d, QuantConvTranspose2d, PACT} <= kinds
    assert not kinds & {nn.Conv2d, nn.ConvTranspose2d}
    assert QuantLinear in {type(layer) for layer in prepare_qat(imported("steps")).modules()}
    swishes = [type(layer) for layer in prepare_qat(imported("mobile")).modules() if "wish" in type(layer).__name__]
    assert swishes.count(IntegerHardSwish) == 3
    assert swishes.count(nn.Hardswish) == 1  # the stem's


@pytest.mark.parametrize("bits", [7, 8])
def test_weight_bits(bits: int) -> None:
    qat = prepare_qat(imported("plain"), weight_bits=bits)
    stored = {name: layer.bit_width for name, layer in qat.named_modules() if isinstance(layer, QuantLayer)}
    assert {name for name, width in stored.items() if width == 8} == (STEM if bits == 7 else set(stored))
    assert set(stored.values()) == {bits, 8}


def test_a_float_layer_between_quantised_tensors_keeps_its_bits() -> None:
    """onnxruntime computes it in integers all the same, where 8 bits would saturate."""
    template = nets.template("shared")
    convs = [node.output[0] for node in template.graph.node if node.op_type == "Conv"]
    for chosen in convs[1:]:
        qat = prepare_qat(imported("shared"), float_values=[chosen], weight_bits=7)
        layer = next(node for node in qat.graph.nodes if node.meta.get("onnx") == chosen and node.op == "call_module")
        before = nets.layer_of(qat, layer.args[0])
        width = nets.layer_of(qat, layer).bit_width
        assert width == (7 if isinstance(before, PACT) else 8)


def test_without_pact_ranges_stay_as_they_are() -> None:
    qat = prepare_qat(imported("plain"), pact=False)
    assert not [name for name, _ in qat.named_parameters() if "alpha" in name]
    assert len([name for name, _ in qat.named_buffers() if "alpha" in name]) == 6


def test_float_layers_take_their_neighbours_with_them() -> None:
    """Between two float layers nothing is integer; the next integer layer gets its input rounded."""
    module = imported("mobile")
    names = ("expand_expand_1_BatchNormalization_output_0", "depthwise_depthwise_1_BatchNormalization_output_0")
    before, after = integer_nodes(module), integer_nodes(module, names)
    dropped = {node.meta["op_type"] for node in before - after}
    assert {str(node.target) for node in before - after} >= set(names)
    assert dropped == {"Conv", "HardSwish", "GlobalAveragePool"}
    qat = prepare_qat(module, float_layers=names)
    assert isinstance(qat.get_submodule(names[0]), QuantConv2d)  # its weights are int8 all the same
    assert not qat.get_submodule(names[0]).source


def test_unknown_float_layer() -> None:
    with pytest.raises(ValueError, match=r"float_layers: no such layer: nope\. Layers: .*conv_Conv_output_0"):
        prepare_qat(imported("pooled_image"), float_layers=["nope"])


def test_parameter_groups() -> None:
    qat = prepare_qat(imported("plain"))
    weights, alphas = qat_parameter_groups(qat, lr=0.1, weight_decay=0.2, l2=0.3, lr_multiplier=10.0)
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.2)
    assert (alphas["lr"], alphas["weight_decay"]) == (1.0, 0.3)
    assert {id(alpha) for alpha in alphas["params"]} == {id(pact.alpha) for _, pact in pacts(qat)}
    assert len(weights["params"]) + len(alphas["params"]) == len(list(qat.parameters()))
    torch.optim.Adam([weights, alphas])
    plain = qat_parameter_groups(
        prepare_qat(imported("plain"), pact=False), lr=0.1, weight_decay=0, l2=0, lr_multiplier=1
    )
    assert len(plain) == 1


def test_layers_of_tiny_weights_learn_slower() -> None:
    """A folded BatchNorm can leave weights that one of Adam's steps would overwrite (DBNet's head: 9e-5)."""
    qat = prepare_qat(imported("plain"))
    layer = next(child for child in qat.modules() if isinstance(child, QuantConv2d))
    with torch.no_grad():
        layer.weight.mul_(1e-4 / layer.weight.square().mean().sqrt())
    groups = qat_parameter_groups(qat, lr=0.1, weight_decay=0.0, l2=0.0, lr_multiplier=1.0)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rate) == len(list(qat.parameters()))
    assert rate[id(layer.weight)] == pytest.approx(0.1 * 1e-4 / 0.05, rel=1e-4)
    assert rate[id(layer.bias)] == 0.1


def test_every_weight_gets_a_gradient() -> None:
    qat = nets.prepared("mobile").train()
    qat(nets.images())[:, 0].sum().backward()
    without = [name for name, parameter in qat.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("conv_output", 1), ("flat_output", 1), ("relu_output", 1), ("neck", 1), ("pyramid", 1), ("mobile", 0)],
)
def test_convolutions_that_compute_an_output(name: str, outputs: int) -> None:
    """Behind them stand activations and moves alone; a Linear writes float anyway."""
    module = imported(name)
    found = output_values(module)
    assert len(found) == outputs
    marked = prepare_qat(module, float_values=found)
    assert len(list(pacts(marked))) < len(list(pacts(prepare_qat(module)))) or not outputs


def test_a_module_that_is_no_imported_graph_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got a Sequential\. Must be .* prepare_qat\(to_torch\(lower_for_int8"):
        prepare_qat(nn.Sequential(nn.Conv2d(3, 4, 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [4, 9])
def test_other_weight_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"weight_bits: got {bits}. Must be 7 or 8"):
        prepare_qat(to_torch(nets.template("mobile")), weight_bits=bits)
