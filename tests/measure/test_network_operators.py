"""The operators of a network, and the time that a formula for single ones predicts for all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.graph import from_torch
from compress.graph.canonical import canonicalise
from compress.measure.kernel_times import profile
from compress.measure.micro_model import random_feeds
from compress.measure.network_operators import Place, operators_of, places_of, predicted_ms
from compress.measure.operator_times import Operator, OperatorTime, Precision, operator_model
from compress.measure.session import Session
from tests.prune.coupled_nets import AddedParts, Attended, ConvAttention, Sliced, shufflenet_v1, shufflenet_v2

SHAPE = (3, 16, 16)


class Net:
    """Builds a small model node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        weight = self.constant(f"{name}.w", np.full(shape, 0.1, np.float32))
        return self.node("Conv", [x, weight], name, **attributes)

    def norm(self, x: str, name: str, channels: int) -> str:
        each = [self.constant(f"{name}.{k}", np.ones(channels, np.float32)) for k in range(4)]
        return self.node("BatchNormalization", [x, *each], name)

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def block() -> onnx.ModelProto:
    """stem - BN - hard-swish, a residual 1x1 - BN, a gate from pooling, a linear layer."""
    net = Net()
    stem = net.conv("x", "stem", (8, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    first = net.node("HardSwish", [net.norm(stem, "stem_bn", 8)], "first")
    point = net.norm(net.conv(first, "point", (8, 8, 1, 1)), "point_bn", 8)
    added = net.node("Add", [first, point], "added")
    pooled = net.node("GlobalAveragePool", [added], "pooled")
    gate = net.node("HardSigmoid", [net.conv(pooled, "squeeze", (8, 8, 1, 1))], "gate")
    gated = net.node("Mul", [added, gate], "gated")
    flat = net.node("Flatten", [net.node("GlobalAveragePool", [gated], "pooled2")], "flat")
    weight = net.constant("fc.w", np.ones((8, 5), np.float32))
    return net.model(net.node("Gemm", [flat, weight], "fc"))


def test_operators_have_sizes_and_carry_what_is_fused_into_them() -> None:
    map_8, pixel = (1, 8, 8, 8), (1, 8, 1, 1)
    stem = (("pads", (1, 1, 1, 1)), ("strides", (2, 2)))
    assert operators_of(block(), SHAPE) == {
        "stem": Operator("Conv", ((1, 3, 16, 16),), (8, 3, 3, 3), stem, "HardSwish"),
        "point": Operator("Conv", (map_8,), (8, 8, 1, 1)),
        "added": Operator("Add", (map_8, map_8)),
        "pooled": Operator("GlobalAveragePool", (map_8,)),
        "squeeze": Operator("Conv", (pixel,), (8, 8, 1, 1), (), "HardSigmoid"),
        "gated": Operator("Mul", (map_8, pixel)),
        "pooled2": Operator("GlobalAveragePool", (map_8,)),
        "fc": Operator("Gemm", ((1, 8),), (8, 5)),
    }


def test_places_name_the_operators_that_made_their_inputs() -> None:
    places = places_of(block(), SHAPE)
    assert {name: place.sources for name, place in places.items()} == {
        "stem": ("",),
        "point": ("stem",),
        "added": ("stem", "point"),
        "pooled": ("added",),
        "squeeze": ("pooled",),
        "gated": ("added", "squeeze"),
        "pooled2": ("gated",),
        "fc": ("pooled2",),
    }
    assert [name for name, place in places.items() if place.rides_along] == ["added"]


def test_an_activation_of_a_value_with_two_readers_is_not_fused() -> None:
    net = Net()
    conv = net.conv("x", "conv", (8, 3, 1, 1))
    relu = net.node("Relu", [conv], "relu")
    found = operators_of(net.model(net.node("Add", [conv, relu], "sum")), SHAPE)
    assert list(found) == ["conv", "relu", "sum"]
    assert found["conv"].activation == ""


def test_a_convolution_that_is_an_output_is_not_fused() -> None:
    net = Net()
    model = net.model(net.node("Relu", [net.conv("x", "conv", (8, 3, 1, 1))], "relu"))
    model.graph.output.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, None))
    assert list(operators_of(model, SHAPE)) == ["conv", "relu"]


def test_constants_that_say_how_to_compute_are_attributes_and_others_are_weights() -> None:
    net = Net()
    none = net.constant("roi", np.zeros(0, np.float32))
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    up = net.node("Resize", ["x", none, scales], "up", mode="nearest")
    three = net.constant("three", np.float32(3.0).reshape(1))
    found = operators_of(net.model(net.node("Add", [up, three], "plus")), SHAPE)
    assert found == {
        "up": Operator("Resize", ((1, 3, 16, 16),), (), (("mode", "nearest"), ("scales", (1.0, 1.0, 2.0, 2.0)))),
        "plus": Operator("Add", ((1, 3, 32, 32),), (1,)),
    }


def test_what_computes_sizes_is_no_operator() -> None:
    """As PyTorch exports an upsampling to the size of another tensor."""
    net = Net()
    one, two, three = (net.constant(str(k), np.array([k], np.int64)) for k in (0, 2, 4))
    small = net.conv("x", "small", (4, 3, 1, 1), strides=[2, 2])
    wanted = net.node("Slice", [net.node("Shape", ["x"], "shape"), two, three], "wanted")
    kept = net.node("Slice", [net.node("Shape", [small], "shape2"), one, two], "kept")
    sizes = net.node("Concat", [kept, wanted], "sizes", axis=0)
    up = net.node("Resize", [small, "", "", sizes], "up", mode="nearest")
    found = operators_of(net.model(up), SHAPE)
    assert list(found) == ["small", "up"]
    assert found["up"].inputs == ((1, 4, 8, 8),)
    assert dict(found["up"].attributes)["scales"] == (1.0, 1.0, 2.0, 2.0)


def test_shapes_that_inference_does_not_tell_are_seen_by_running() -> None:
    """onnx does not infer the shape behind a NonZero: it depends on the numbers."""
    net = Net()
    places = net.node("NonZero", ["x"], "places")
    as_float = net.node("Cast", [places], "float", to=TensorProto.FLOAT)
    found = operators_of(net.model(net.node("Relu", [as_float], "relu")), SHAPE)
    assert found["relu"].inputs == ((4, 0),)  # of an image of zeros


@dataclass
class Formula:
    """Every operator takes 1 ms in float32 and a quarter in int8; convolutions change layouts for 10 and 100 ms."""

    before_ms: float = 0.0
    after_ms: float = 0.0

    def time(self, operator: Operator) -> OperatorTime:
        own = 1.0 if operator.precision == "float32" else 0.25
        blocked = operator.op_type == "Conv"
        return OperatorTime(own, self.before_ms * blocked, self.after_ms * blocked)

    def boundary(self, shape: tuple[int, ...], *, to: Precision) -> float:
        return 1000.0 if to == "int8" else 10000.0


def test_in_float_the_sum_of_all_but_what_a_convolution_adds_by_itself() -> None:
    assert predicted_ms(places_of(block(), SHAPE), Formula()) == 7.0


def test_in_integers_the_stem_stays_in_float_and_what_it_makes_is_quantised_once() -> None:
    assert predicted_ms(places_of(block(), SHAPE), Formula(), "int8") == 1.0 + 7 * 0.25 + 1000


def test_what_has_no_integer_kernel_stays_in_float_between_its_boundaries() -> None:
    net = Net()
    conv = net.conv(net.conv("x", "stem", (8, 3, 1, 1)), "conv", (8, 8, 1, 1))
    gate = net.node("Sigmoid", [conv], "gate")
    places = places_of(net.model(net.node("Mul", [conv, gate], "gated")), SHAPE)
    # The stem's output is quantised, the second convolution's is dequantised for the gate, and the gate is quantised.
    assert predicted_ms(places, Formula(), "int8") == 1.0 + 0.25 + 1.0 + 0.25 + 2 * 1000 + 10000


def test_a_run_of_convolutions_changes_layout_at_its_ends() -> None:
    net = Net()
    value = "x"
    for place in range(3):
        value = net.conv(value, f"conv{place}", (3, 3, 1, 1))
    value = net.node("Relu", [net.node("Add", [value, "x"], "sum")], "relu")
    places = places_of(net.model(value), SHAPE)
    # Into blocks before the first, out of them for the sum with what is not in blocks.
    assert predicted_ms(places, Formula(10.0, 100.0)) == 3 + 2 + 10 + 100


def test_a_layout_is_handed_on_by_what_works_in_any() -> None:
    net = Net()
    pooled = net.node("MaxPool", [net.conv("x", "one", (3, 3, 1, 1))], "pool", kernel_shape=[2, 2])
    last = net.conv(pooled, "two", (3, 3, 1, 1))
    places = places_of(net.model(last), SHAPE)
    assert predicted_ms(places, Formula(10.0, 100.0)) == 3 + 10 + 100


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 8, 16)])
def test_sizes_follow_the_image(shape: tuple[int, int, int]) -> None:
    assert operators_of(block(), shape)["point"].inputs == ((1, 8, shape[1] // 2, shape[2] // 2),)


def test_mixed_takes_the_faster_form_of_each_operator_and_no_conversions() -> None:
    """The stem stays in float, a sum that rides along is free, a Relu of its own is saturation in integers."""
    conv = Operator("Conv", ((1, 8, 4, 4),), (8, 8, 1, 1))
    places = {
        "stem": Place(Operator("Conv", ((1, 3, 4, 4),), (8, 3, 1, 1)), ("",)),
        "a": Place(conv, ("stem",)),
        "sum": Place(Operator("Add", ((1, 8, 4, 4),) * 2), ("a", "stem"), rides_along=True),
        "relu": Place(Operator("Relu", ((1, 8, 4, 4),)), ("sum",)),
        "sigmoid": Place(Operator("Sigmoid", ((1, 8, 4, 4),)), ("relu",)),
    }

    class Formula:
        def time(self, operator: Operator) -> OperatorTime:
            return OperatorTime(1.0 if operator.precision == "float32" else 0.25, before_ms=5.0, after_ms=5.0)

        def boundary(self, shape: tuple[int, ...], *, to: str) -> float:
            return 7.0

    assert predicted_ms(places, Formula(), "mixed") == 1.0 + 0.25 + 0.0 + 0.0 + 1.0


def test_axes_that_are_an_input_from_opset_18_on() -> None:
    """The model that is timed is of an earlier opset, where they are an attribute."""
    body = "y = ReduceMean <keepdims = 0, noop_with_empty_axes = 0> (x, axes)"
    shapes = "(float[1, 4, 8, 8] x) => (float[1, 4, 8] y) <int64[1] axes = {2}>"
    text = f'<ir_version: 8, opset_import: ["" : 20]> m {shapes} {{ {body} }}'
    (found,) = operators_of(canonicalise(onnx.parser.parse_model(text)), (4, 8, 8)).values()
    assert dict(found.attributes)["axes"] == (2,)
    images = np.ones((1, 4, 8, 8), np.float32)
    assert np.array_equal(Session(operator_model(found)).run(images), np.ones((1, 4, 8), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("make", [shufflenet_v2, shufflenet_v1, Sliced, AddedParts, Attended, ConvAttention])
def test_every_operator_of_networks_with_computed_sizes_runs_alone(make: Callable[[], nn.Module]) -> None:
    """Slices to a size that Shape and Mul compute, Splits in several parts, products with a computed number."""
    model = from_torch(make(), torch.zeros(1, 3, 16, 32))
    operators = {place.operator for place in places_of(model, (3, 16, 32)).values()}
    assert "Conv" in {operator.op_type for operator in operators}
    for operator in operators:
        single = operator_model(operator)
        assert profile(single, random_feeds(single), runs=(1, 1), warmup=0)
