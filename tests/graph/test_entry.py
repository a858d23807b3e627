"""PyTorch networks become canonical ONNX models, and round-trip through every step."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.errors import InputSizeError, ModelError
from compress.graph import entry, from_torch, load_model, save_model, to_onnx, to_torch
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


def test_what_does_not_run_is_one_clear_line() -> None:
    """And neither exporter is tried."""

    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise TypeError("images must be lists\nsecond line")

    with pytest.raises(InputSizeError, match=r"^Untraceable: cannot be exported to ONNX \(images must be lists\)\.$"):
        from_torch(Untraceable(), torch.zeros(1, 3, 4, 4))


# --- two exporters ----------------------------------------------------------------------------------------------


class Normalised(nn.Module):
    """RMSNorm is an operator that TorchScript's exporter lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.RMSNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean(1))


class Counted(nn.Module):
    """Holds Python's own numbers, which tracing takes for constants."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.conv = axis, nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean(2).permute(0, 2, 1)  # [N, T, 8]
        count = int(x.shape[self.axis])
        return x.reshape(count, -1, 8) if self.axis == 0 else x.reshape(-1, count, 8)


class Exotic(nn.Module):
    """An operator that neither exporter knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def without_dynamo(monkeypatch: pytest.MonkeyPatch, model: onnx.ModelProto | None = None) -> None:
    """Put something quick into the place of dynamo's exporter, which takes seconds: a failure, or a model."""

    def export(*_: object) -> onnx.ModelProto:
        if model is None:
            raise ModelError("no decomposition")
        return model

    monkeypatch.setitem(entry.EXPORTERS, "dynamo's", export)


def input_dims(model: onnx.ModelProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.slow
def test_dynamos_exporter_where_torchscripts_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, sizes are open, and it is said."""
    network, said = randomise(Normalised()), list[str]()
    model = from_torch(network, torch.zeros(1, 3, 32, 64), on_note=said.append)
    assert_equal_everywhere(network, model)
    assert input_dims(model) == ["batch", 3, "height", "width"]
    first, last = said
    assert first.startswith(
        "Normalised: TorchScript's exporter does not serve (Exporting the operator 'aten::rms_norm'"
    )
    assert last == "Normalised: exported by dynamo's exporter."
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_dynamos_exporter_where_torchscripts_freezes_the_batch() -> None:
    network, said = randomise(Counted(0)), list[str]()
    model = from_torch(network, torch.zeros(1, 3, 32, 64), on_note=said.append)
    assert_equal_everywhere(network, model)
    assert said[-1] == "Counted: exported by dynamo's exporter."
    assert from_torch(network, torch.zeros(1, 3, 32, 64)) == model, "the same each time: runs are resumed by it"


def test_a_frozen_number_of_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TorchScript's exporter leaves it, with an axis that the file says is open."""
    without_dynamo(monkeypatch)
    with pytest.raises(ModelError, match=r"TorchScript's exporter: its file does not compute .*no decomposition"):
        from_torch(randomise(Counted(0)), torch.zeros(1, 3, 32, 64))


def test_a_frozen_width_is_fixed_where_dynamos_exporter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    without_dynamo(monkeypatch)
    said: list[str] = []
    network = randomise(Counted(1))
    model = from_torch(network, torch.zeros(1, 3, 32, 64), on_note=said.append)
    assert input_dims(model) == ["batch", 3, 32, 64]
    assert said[-1] == "Counted: exported by TorchScript's exporter, its file fixes the width."
    x = images((3, 3, 32, 64), 0)
    with torch.no_grad():
        np.testing.assert_allclose(Session(model).run(x), network(torch.from_numpy(x)).numpy(), atol=TOLERANCE)


def test_another_network_is_not_taken_for_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that computes something else never wins."""
    other = from_torch(randomise(Mobile()), torch.zeros(1, 3, 32, 64))
    without_dynamo(monkeypatch, other)
    with pytest.raises(ModelError, match="dynamo's exporter: its file does not compute what PyTorch computes"):
        from_torch(randomise(Normalised()), torch.zeros(1, 3, 32, 64))


def test_a_module_of_chance_is_exported_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it computes cannot be compared."""
    without_dynamo(monkeypatch)

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    assert ops(from_torch(Noisy(), torch.zeros(1, 3, 8, 8)))["Add"] == 1


def test_what_neither_exporter_takes_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    without_dynamo(monkeypatch)
    with pytest.raises(ModelError) as caught:
        from_torch(Exotic(), torch.zeros(1, 3, 4, 4))
    assert str(caught.value) == (
        "Exotic: cannot be exported to ONNX (TorchScript's exporter: Exporting the operator 'aten::special_bessel_j0' "
        "to ONNX opset version 17 is not supported; dynamo's exporter: no decomposition)."
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_dynamos_own_reason_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    text = r"^Exotic: .*; dynamo's exporter: No ONNX function found for .*\)\.$"
    with pytest.raises(ModelError, match=text) as caught:
        from_torch(Exotic(), torch.zeros(1, 3, 4, 4))
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")


def test_noise_of_a_larger_width_is_tried_where_the_module_takes_it() -> None:
    """The batch always, the width not behind layers of one size."""
    growing = entry._trials(randomise(Counted(1)), (torch.zeros(1, 3, 32, 64),))
    assert [(trial.differs, trial.reshapes) for trial in growing] == [("", False), ("batch", True), ("width", True)]
    pooled = entry._trials(nn.AdaptiveAvgPool2d(2), (torch.zeros(1, 3, 32, 64),))
    assert [(trial.differs, trial.reshapes) for trial in pooled][2] == ("width", False)
    fixed = entry._trials(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (torch.zeros(1, 3, 2, 2),))
    assert [trial.differs for trial in fixed] == ["", "batch"]
    assert [len(trial.inputs[0]) for trial in fixed] == [1, 2]


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
