"""PyTorch networks become canonical ONNX models, and round-trip through every step."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import from_torch, load_model, save_model, to_onnx, to_torch
from compress.measure.session import Session
from tests.graph.graphs import TOLERANCE, images, ops
from tests.graph.networks import Crnn, Mobile, Pyramid, randomise

SHAPES = ((1, 3, 32, 64), (3, 3, 16, 40))
NETWORKS = {
    "mobile": Mobile,
    "crnn": Crnn,
    "crnn of two layers, batch first": lambda: Crnn(2, batch_first=True),
    "crnn of GRUs": lambda: Crnn(kind=nn.GRU),
    "pyramid": Pyramid,
}


def assert_equal_everywhere(network: nn.Module, template: onnx.ModelProto) -> None:
    """The network, its canonical form, the imported module and what is written back of it agree."""
    module = to_torch(template)
    written = to_onnx(module, template)
    for seed, shape in enumerate(SHAPES):
        x = images(shape, seed)
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
            np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), expected, atol=TOLERANCE)
        np.testing.assert_allclose(Session(template).run(x), expected, atol=TOLERANCE)
        np.testing.assert_allclose(Session(written).run(x), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_round_trips_at_any_size(name: str) -> None:
    network = randomise(NETWORKS[name]())
    assert_equal_everywhere(network, from_torch(network, torch.zeros(2, 3, 32, 32)))


class Squeezed(nn.Module):
    """Takes away a height that its convolution has made 1, or a width as well."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.conv = nn.Conv2d(3, 4, (8, 1 if axes == (2,) else 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for axis in reversed(self.axes):
            x = x.squeeze(axis)
        return x


@pytest.mark.parametrize(("axes", "left_open"), [((2,), ("batch", "width")), ((2, 3), ("batch",))])
def test_a_size_that_operators_depend_on_is_fixed(axes: tuple[int, ...], left_open: tuple[str, ...]) -> None:
    """`squeeze` of an open size is exported as an If, which has no gradient."""
    network = randomise(Squeezed(*axes))
    model = from_torch(network, torch.zeros(2, 3, 8, 8))
    assert set(ops(model)) <= {"Conv", "Squeeze", "Reshape"}
    assert tuple(dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim if dim.dim_param) == left_open
    x = images((3, 3, 8, 16 if "width" in left_open else 8), 0)
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(to_torch(model)(torch.from_numpy(x)).numpy(), expected, atol=TOLERANCE)
    np.testing.assert_allclose(Session(model).run(x), expected, atol=TOLERANCE)


def test_a_module_that_takes_one_size_alone_is_exported_at_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Adaptive pooling to more than one place has no form of open sizes; what PyTorch prints of that is not shown."""
    network = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((2, 2))))
    model = from_torch(network, torch.zeros(1, 3, 10, 10))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 10, 10]
    x = images((2, 3, 10, 10), 0)
    with torch.no_grad():
        np.testing.assert_allclose(Session(model).run(x), network(torch.from_numpy(x)).numpy(), atol=TOLERANCE)
    assert capfd.readouterr().out == ""


def test_operators_are_canonical_and_batch_norm_is_kept() -> None:
    found = ops(from_torch(randomise(Mobile()), torch.zeros(1, 3, 32, 64)))
    assert found == {
        "Conv": 6,
        "BatchNormalization": 4,
        "HardSwish": 2,
        "Clip": 1,
        "GlobalAveragePool": 2,
        "Relu": 1,
        "HardSigmoid": 1,
        "Mul": 1,
        "Add": 1,
        "Flatten": 1,
        "Gemm": 1,
        "Softmax": 1,
    }


def test_fresh_network_keeps_its_zero_biases() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    for layer in (network[0], network[2]):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    module = to_torch(from_torch(network, torch.zeros(1, 3, 8, 8)))
    assert [layer.bias is not None for layer in module.children() if isinstance(layer, nn.Conv2d)] == [True, True]


def test_names_and_dimensions() -> None:
    template = from_torch(randomise(Mobile()), torch.zeros(1, 3, 32, 64), input_name="image", output_name="logits")
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*template.graph.input, *template.graph.output)
    }
    assert shapes == {"image": ["batch", 3, "height", "width"], "logits": ["batch", 5]}


def test_network_is_left_as_it_was() -> None:
    network = Mobile().train()
    network.stem.eval()  # frozen statistics
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    from_torch(network, torch.randn(2, 3, 32, 64))
    assert [part.training for part in (network, network.stem, network.stem[1], network.fc)] == [
        True,
        False,
        False,
        True,
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_several_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.relu(a) + b

    template = from_torch(Sum(), [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)])
    assert [value.name for value in template.graph.input] == ["x", "x_1"]
    a, b = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(to_torch(template)(a, b), torch.relu(a) + b)


def test_what_cannot_be_traced_is_one_clear_line() -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise TypeError("images must be lists\nsecond line")

    with pytest.raises(ModelError, match=r"^Untraceable: cannot be exported to ONNX \(images must be lists\)\.$"):
        from_torch(Untraceable(), torch.zeros(1, 3, 4, 4))


def test_operator_that_onnx_lacks_is_one_clear_line() -> None:
    class Exotic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(ModelError, match=r"^Exotic: cannot be exported to ONNX \(.*bessel_j0.*\)\.$"):
        from_torch(Exotic(), torch.zeros(1, 3, 4, 4))


def test_weights_above_protobufs_limit_are_refused_at_once() -> None:
    with torch.device("meta"):  # which takes no memory
        module = nn.Linear(30_000, 20_000)
    with pytest.raises(ModelError, match=r"Linear: 2\.40 GB with all weights\. Must be below 2\.15 GB"):
        from_torch(module, torch.zeros(1, 30_000))


def test_failed_export_leaves_the_mode() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    network = Failing().train()
    with pytest.raises(ModelError, match=r"\(ValueError\)"):
        from_torch(network, torch.zeros(1, 3, 4, 4))
    assert network.training


@pytest.mark.filterwarnings("ignore")  # the exporter's own, of which every release has others
@pytest.mark.parametrize("name", ["mobile", "crnn", "pyramid"])
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_files_of_pytorchs_exporters_round_trip(tmp_path: Path, name: str, dynamo: bool) -> None:
    """Written by the user with `torch.onnx.export`, of either kind and of its newest opset."""
    network, path = randomise(NETWORKS[name]()), tmp_path / "model.onnx"
    dims = {0: "batch", 2: "height", 3: "width"}
    if dynamo:
        shapes = (dict.fromkeys(dims, torch.export.Dim.DYNAMIC),)
        torch.onnx.export(network, (torch.randn(2, 3, 32, 64),), path, dynamo=True, dynamic_shapes=shapes)
    else:
        torch.onnx.export(
            network, (torch.zeros(2, 3, 32, 64),), path, dynamo=False, input_names=["x"], dynamic_axes={"x": dims}
        )
    template = load_model(path)
    assert_equal_everywhere(network, template)
    save_model(template, tmp_path / "again.onnx")
    assert load_model(tmp_path / "again.onnx") == template


@pytest.mark.parametrize("size", [(None, 1), (1, None), (1, 1), (None, None)])
def test_adaptive_pooling_over_whole_axes(size: tuple[int | None, int | None]) -> None:
    """EasyOCR pools over the height, which it turned to the last axis; the exporter makes nothing of None."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(size)).eval()
    model = from_torch(module, torch.zeros(1, 3, 16, 24))
    assert isinstance(module[1], nn.AdaptiveAvgPool2d)
    images = torch.randn(2, 3, 20, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(Session(model).run(images.numpy()), module(images).numpy(), atol=1e-5)
