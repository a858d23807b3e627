"""Parameters and multiply-adds: by closed form, and the same from PyTorch and from ONNX."""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.errors import ModelError
from compress.measure.cost import layer_positions, macs_at, model_cost, module_cost, parameter_count
from compress.measure.session import quantize_static_minmax


class Small(nn.Module):
    """Every counted kind of layer, BatchNorm, and a path that shape inference finds hard."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.lstm = nn.LSTM(4, 5, bidirectional=True)
        self.fc = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(torch.relu(self.norm(self.stem(x)))))
        steps = x.mean(dim=2).permute(2, 0, 1)
        return self.fc(self.lstm(steps)[0])


SMALL_PARAMS = {
    "stem": 8 * 3 * 9,
    "norm": 2 * 8,
    "depthwise": 8 * 9 + 8,
    "up": 8 * 4 * 4 + 4,
    "lstm": 2 * (4 * 5 * (4 + 5) + 2 * 4 * 5),
    "fc": 10 * 6 + 6,
}


def small_macs(height: int, width: int) -> int:
    half = (height // 2) * (width // 2)
    return half * (8 * 3 * 9 + 8 * 9 + 8 * 4 * 4) + width * (2 * 4 * 5 * (4 + 5) + 10 * 6)


def export(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The module as PyTorch itself writes it, BatchNorm unfolded."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated, and independent of ours
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, *shape),),
            stream,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=17,
        )
    return onnx.load_from_string(stream.getvalue())


@pytest.mark.parametrize(
    ("layer", "shape", "params", "macs"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 8, 12), 8 * 27 + 8, 8 * 27 * 4 * 6),
        (nn.Conv2d(8, 12, (3, 1), groups=4, bias=False), (8, 7, 5), 12 * 2 * 3, 12 * 2 * 3 * 5 * 5),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6), (6, 4, 4), 6 * 25 + 6, 6 * 25 * 16),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), (6, 5, 7), 6 * 4 * 4 + 4, 6 * 4 * 4 * 35),
        (nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), (2, 3, 4), 24 * 5 + 5, 24 * 5),
        (nn.Conv2d(4, 1, 1), (4, 3, 3), 4 + 1, 4 * 9),
    ],
    ids=["strided", "grouped", "depthwise", "transposed", "linear", "a lone bias"],
)
def test_one_layer_by_hand_in_pytorch_and_in_onnx(
    layer: nn.Module, shape: tuple[int, int, int], params: int, macs: int
) -> None:
    assert module_cost(layer, shape) == (params, macs)
    cost = model_cost(export(layer, shape), shape, 123)
    assert (cost.params, cost.macs, cost.size_bytes, cost.input_shape) == (params, macs, 123, shape)
    assert cost.uncounted == ()


def test_a_whole_network_by_hand_in_pytorch_and_in_onnx() -> None:
    network = Small()
    expected = (sum(SMALL_PARAMS.values()), small_macs(8, 12))
    assert module_cost(network, (3, 8, 12)) == expected
    cost = model_cost(export(network, (3, 8, 12)), (3, 8, 12), 0)
    assert (cost.params, cost.macs) == expected
    assert cost.uncounted == ("Add", "BatchNormalization", "ReduceMean", "Relu")  # Add: the linear layer's bias


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_two_recurrent_layers_batch_first(kind: type[nn.RNNBase]) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(4, 3, num_layers=2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x[:, 0])[0]

    gates = {nn.GRU: 3, nn.LSTM: 4}[kind]
    weights = gates * 3 * (4 + 3) + gates * 3 * (3 + 3)
    assert module_cost(Steps(), (1, 7, 4)) == (weights + 4 * gates * 3, 7 * weights)


def test_a_layer_used_twice_counts_its_work_twice_and_its_weights_once() -> None:
    layer = nn.Conv2d(4, 4, 1, bias=False)
    assert module_cost(nn.Sequential(layer, nn.ReLU(), layer), (4, 3, 3)) == (16, 2 * 16 * 9)


def test_measuring_leaves_the_module_as_it_was() -> None:
    network = Small()
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    module_cost(network, (3, 8, 12))
    assert network.training
    assert not network.norm.training
    assert not any(layer._forward_hooks for layer in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_positions_price_another_width_without_a_forward_pass() -> None:
    positions = layer_positions(nn.Conv2d(3, 8, 3), (3, 10, 10))
    narrow = nn.Conv2d(3, 5, 3)
    assert macs_at(narrow, positions) == module_cost(narrow, (3, 10, 10))[1]
    assert parameter_count(narrow) == 5 * 27 + 5


def test_an_int8_file_counts_the_same_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 5))
    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx.save(export(network, (3, 8, 8)), source)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    # onnxruntime's tool fixes no batch size, but this export did: one image at a time.
    quantize_static_minmax(source, [images[:1], images[1:]], target)
    cost = model_cost(onnx.load(target), (3, 8, 8), 0)
    assert (cost.params, cost.macs) == module_cost(network, (3, 8, 8))
    assert {"DequantizeLinear", "QuantizeLinear"} <= set(cost.uncounted)


def test_scaled_integers_count_as_the_weights_they_are() -> None:
    """Cast and Mul of constants: the integers are the parameters, their steps are not, and nothing of it is work."""
    graph = onnx.parser.parse_graph(
        """g (float[N, 3, H, W] x) => (float[N, 4, H, W] y)
        { c = Cast<to = 1>(q)  w = Mul(c, s)  y = Conv(x, w) }"""
    )
    constants = {"q": np.ones((4, 3, 1, 1), np.int8), "s": np.ones((4, 1, 1, 1), np.float32)}
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    cost = model_cost(model, (3, 2, 5), 0)
    assert (cost.params, cost.macs, cost.uncounted) == (12, 120, ())


def test_weights_as_constant_nodes_and_behind_copies_are_found() -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["w"], value=weight),
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "wt"], ["y"]),
            helper.make_node("Constant", [], ["three"], value=numpy_helper.from_array(np.float32([3]), "c")),
            helper.make_node("Add", ["y", "three"], ["z"]),
        ],
        "constants",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2, 5, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cost = model_cost(model, (2, 5, 3), 0)
    assert (cost.params, cost.macs, cost.uncounted) == (12, 2 * 5 * 3 * 4, ("Add",))


def test_a_product_of_two_values_is_work_without_parameters() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        "gram",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 5, 5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cost = model_cost(model, (2, 5, 3), 0)
    assert (cost.params, cost.macs) == (0, 2 * 5 * 5 * 3)


def test_images_that_the_model_does_not_take_are_an_error() -> None:
    model = export(nn.Conv2d(3, 8, 3), (3, 8, 8))
    with pytest.raises(ModelError, match=r"onnxruntime fails on float32 images of shape \[1, 4, 8, 8\]"):
        model_cost(model, (4, 8, 8), 0)


def test_of_several_inputs_the_first_of_four_dimensions_is_the_image() -> None:
    """3 -> 5 channels by a kernel of 2 x 2, at 7 x 7 places, and a product of [1, 5] with [5, 6]."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 5] s, float[N, 3, H, W] x) => (float[N, 5, K, L] y, float[1, 6] z)
        { c = Conv (x, w) y = Mul (c, c) z = MatMul (s, m) }"""
    )
    for name, shape in (("w", (5, 3, 2, 2)), ("m", (5, 6))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    cost = model_cost(model, (3, 8, 8), 0)
    assert (cost.params, cost.macs) == (5 * 3 * 4 + 5 * 6, 7 * 7 * 5 * 3 * 4 + 5 * 6)


@pytest.mark.parametrize("others", [False, True])
def test_sizes_that_an_exporter_leaves_open_as_minus_one(others: bool) -> None:
    """As PaddlePaddle's exporter does, PP-OCR's detector among its files."""
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w")
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 3, -1, -1])]
    if others:
        given.insert(0, helper.make_tensor_value_info("scale", TensorProto.FLOAT, [-1]))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "scale"] if others else ["c", "c"], ["y"]),
    ]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", given, made, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cost = model_cost(model, (3, 4, 5), 1)
    assert (cost.params, cost.macs) == (12, 12 * 20)
