"""Networks that PyTorch's two exporters write: TorchScript's and dynamo's."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.networks import randomise
from tests.hard_cases.judging import Case
from tests.prune.coupled_nets import (
    AddedParts,
    Attended,
    Biased,
    ConvAttention,
    Fused,
    NormedQueries,
    SharedKeys,
    Sliced,
    shufflenet_v1,
    shufflenet_v2,
)

SCRIPT, DYNAMO = "PyTorch, TorchScript", "PyTorch, dynamo"
CLASSIFIER, RECOGNISER, DETECTOR = "classifier", "recogniser", "detector"
IMAGE = (3, 32, 64)


def script(
    module: nn.Module, shape: tuple[int, ...] = IMAGE, *, fixed: bool = False, **options: Any
) -> onnx.ModelProto:
    """By the exporter that traces."""
    axes = None if fixed else {"x": {0: "n"}}
    return _exported(module, shape, dynamo=False, dynamic_axes=axes, **{"opset_version": 17, **options})


def dynamo(module: nn.Module, shape: tuple[int, ...] = IMAGE) -> onnx.ModelProto:
    """By the exporter that takes programs apart."""
    batch = torch.export.Dim("n")
    return _exported(module, shape, dynamo=True, dynamic_shapes=({0: batch},), external_data=False, verbose=False)


def _exported(module: nn.Module, shape: tuple[int, ...], **options: Any) -> onnx.ModelProto:
    logging.getLogger("torch.onnx").setLevel(logging.CRITICAL)
    images = torch.randn(
        1 if options.get("dynamic_axes", 0) is None else 2, *shape, generator=torch.Generator().manual_seed(0)
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        path = Path(folder) / "model.onnx"
        torch.onnx.export(randomise(module), (images,), path, input_names=["x"], output_names=["y"], **options)
        return onnx.load(path)


def block(
    inner: int, outer: int, stride: int = 1, act: Callable[[], nn.Module] = nn.ReLU, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(outer), act())


class Head(nn.Module):
    """Features, pooled, to probabilities."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 4) -> None:
        super().__init__()
        self.features, self.fc = features, nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3))).softmax(1)


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2: split, one branch convolved, joined, channels shuffled."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, 1, 1, groups=half),
            nn.Conv2d(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        x = torch.cat((first, self.branch(second)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Crnn(nn.Module):
    """Columns as steps, two recurrent layers with a linear one between (EasyOCR, docTR)."""

    def __init__(
        self, kind: type[nn.RNNBase] = nn.LSTM, *, batch_first: bool = True, channels: int = 3, act: Any = nn.ReLU
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(block(channels, 8, 2, act), block(8, 16, (2, 1), act))  # type: ignore[arg-type]
        self.batch_first = batch_first
        self.one = kind(16, 8, bidirectional=True, batch_first=batch_first)
        self.between = nn.Linear(16, 12)
        self.two = kind(12, 8, bidirectional=True, batch_first=batch_first)
        self.fc = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).mean(2).permute((0, 2, 1) if self.batch_first else (2, 0, 1))
        return self.fc(self.two(self.between(self.one(steps)[0]))[0]).log_softmax(2)


class Attention(nn.Module):
    """A block of SVTR: attention over all positions, and two linear layers."""

    def __init__(self, width: int = 16, heads: int = 2, *, einsum: bool = False) -> None:
        super().__init__()
        self.heads, self.einsum = heads, einsum
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            self.qkv(self.before(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        if self.einsum:
            weights = (torch.einsum("nhtc,nhsc->nhts", q, k) * (c // self.heads) ** -0.5).softmax(-1)
            mixed = torch.einsum("nhts,nhsc->nhtc", weights, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.after(x))


class Svtr(nn.Module):
    """Patches with a position each, two blocks of attention, columns read."""

    def __init__(self, *, einsum: bool = False) -> None:
        super().__init__()
        self.patches = nn.Sequential(block(3, 8, 2, nn.GELU), block(8, 16, 2, nn.GELU))
        self.position = nn.Parameter(torch.zeros(1, 128, 16))
        self.blocks = nn.Sequential(Attention(einsum=einsum), Attention(einsum=einsum))
        self.fc = nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        n, c, h, w = x.shape
        x = self.blocks(x.flatten(2).transpose(1, 2) + self.position)
        return self.fc(x.transpose(1, 2).reshape(n, c, h, w).mean(2).transpose(1, 2)).softmax(2)


class Dbnet(nn.Module):
    """Two levels, added and joined, and a head."""

    def __init__(self, up: Callable[[Tensor, Tensor], Tensor], *, outputs: int = 1) -> None:
        super().__init__()
        self.one, self.two, self.three = block(3, 8, 2), block(8, 16, 2), block(16, 16, 2)
        self.lateral, self.deep = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 1)
        self.smooth = block(32, 8)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))
            for _ in range(outputs)
        )
        self.up = up

    def forward(self, x: Tensor) -> Any:
        one = self.one(x)
        two = self.two(one)
        three = self.up(self.deep(self.three(two)), two)
        two = self.up(two + three, one)
        x = self.smooth(torch.cat((self.lateral(one), two), 1))
        maps = tuple(head(x).sigmoid() for head in self.heads)
        return maps if len(maps) > 1 else maps[0]


def doubled(mode: str, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, like: F.interpolate(x, scale_factor=2.0, mode=mode, **options)


def as_large(mode: str, **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, like: F.interpolate(x, size=like.shape[2:], mode=mode, **options)


class Rectified(nn.Module):
    """A spatial transformer: where to look is computed from the image."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(block(3, 8, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))
        self.reader = Crnn()

    def forward(self, x: Tensor) -> Tensor:
        theta = self.where(x).reshape(-1, 2, 3) * 0.1 + torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
        rows = torch.linspace(-1, 1, 32).reshape(32, 1).expand(32, 64)
        columns = torch.linspace(-1, 1, 64).expand(32, 64)
        places = torch.stack((columns, rows, torch.ones(32, 64)), -1).reshape(1, -1, 3)
        grid = (places @ theta.transpose(1, 2)).reshape(-1, 32, 64, 2)
        return self.reader(F.grid_sample(x, grid, align_corners=True))


class Squeezed(nn.Module):
    """Squeeze and excite around a depthwise convolution, as MobileNetV3 has it."""

    def __init__(self, act: Callable[[], nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        self.expand, self.depthwise = block(8, 16, act=act), block(16, 16, act=act, groups=16)
        self.squeeze, self.excite, self.project = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        gate = F.hardsigmoid(self.excite(torch.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return x + self.project(y * gate)


class ConvNext(nn.Module):
    """Depthwise, LayerNorm over channels, two linear layers, a trained scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(8, 8, 7, 1, 3, groups=8), nn.LayerNorm(8)
        self.widen, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.gamma * self.narrow(F.gelu(self.widen(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Wrapped(nn.Module):
    """A network with something in front of it or behind it."""

    def __init__(self, inner: nn.Module, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.inner = inner
        self.before = before or (lambda x: x)
        self.after = after or (lambda x: x)

    def forward(self, x: Tensor) -> Any:
        return self.after(self.inner(self.before(x)))


class Padded(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.conv, self.mode = nn.Conv2d(8, 8, 3), mode

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(F.pad(x, (1, 1, 1, 1), mode=self.mode)))


class MaxPooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Sequential(block(3, 8, 2), block(8, 16)), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).amax((2, 3))).softmax(1)


class Shared(nn.Module):
    """One convolution, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.relu(self.conv(x))))


def classify(*layers: nn.Module, channels: int = 8) -> Head:
    return Head(nn.Sequential(block(3, 8, 2), *layers), channels)


def normalise(x: Tensor) -> Tensor:
    """Mean and deviation of each colour."""
    return (x - torch.tensor([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1)) / torch.tensor([0.2, 0.3, 0.25]).reshape(1, 3, 1, 1)


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "ShuffleNetV2: split, shuffle": (
        CLASSIFIER,
        lambda: Head(nn.Sequential(block(3, 16, 2), Shuffle(), Shuffle()), 16),
    ),
    "ShuffleNetV2: units with a stride": (CLASSIFIER, shufflenet_v2),
    "attention: three linear layers": (RECOGNISER, Attended),
    "MobileNetV3: squeeze and excite": (CLASSIFIER, lambda: classify(Squeezed(), Squeezed())),
    "GroupNorm, SiLU": (CLASSIFIER, lambda: classify(nn.Conv2d(8, 16, 3), nn.GroupNorm(4, 16), nn.SiLU(), channels=16)),
    "ConvNeXt: LayerNorm over channels": (CLASSIFIER, lambda: classify(ConvNext(), ConvNext())),
    "CRNN: two LSTMs, a linear layer between": (RECOGNISER, Crnn),
    "SVTR: attention, GELU, positions": (RECOGNISER, Svtr),
    "DBNet: bilinear Resize to a level's size": (DETECTOR, lambda: Dbnet(as_large("bilinear", align_corners=False))),
}
"""Exported by both exporters."""
SCRIPTED: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "PReLU, InstanceNorm": (
        CLASSIFIER, lambda: classify(
            nn.Conv2d(8, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16), nn.Conv2d(16, 8, 1), nn.PReLU()
        )
    ),
    "LeakyReLU, ELU, Mish, Softplus": (
        CLASSIFIER, lambda: classify(
            nn.LeakyReLU(0.1), nn.Conv2d(8, 8, 3), nn.ELU(), nn.Conv2d(8, 8, 1), nn.Mish(), nn.Softplus()
        )
    ),
    "ResNeXt: convolutions in groups": (
        CLASSIFIER, lambda: classify(block(8, 16), block(16, 16, groups=4), nn.Conv2d(16, 8, 1))
    ),
    "padding by reflection and replication": (CLASSIFIER, lambda: classify(Padded("reflect"), Padded("replicate"))),
    "one convolution used twice": (CLASSIFIER, lambda: classify(Shared(), block(8, 8))),
    "largest value of all pixels": (CLASSIFIER, MaxPooled),
    "normalisation in the graph": (CLASSIFIER, lambda: Wrapped(classify(block(8, 16), channels=16), before=normalise)),
    "images [N, H, W, C]": (
        CLASSIFIER, lambda: Wrapped(classify(block(8, 16), channels=16), before=lambda x: x.permute(0, 3, 1, 2))
    ),
    "best two classes (TopK)": (CLASSIFIER, lambda: Wrapped(classify(block(8, 8)), after=lambda y: y.topk(2)[0])),
    "class number (ArgMax)": (CLASSIFIER, lambda: Wrapped(classify(block(8, 8)), after=lambda y: y.argmax(1))),
    "GRU, [T, N, K]": (RECOGNISER, lambda: Crnn(nn.GRU, batch_first=False)),
    "plain RNN": (RECOGNISER, lambda: Crnn(nn.RNN)),
    "grey image": (RECOGNISER, lambda: Crnn(channels=1)),
    "attention by Einsum": (RECOGNISER, lambda: Svtr(einsum=True)),
    "attention: three linear layers, a bias of positions": (RECOGNISER, lambda: Attended(Biased)),
    "attention: scaled by what is found": (RECOGNISER, lambda: Attended(Fused)),
    "attention: one head of keys and values for all": (RECOGNISER, lambda: Attended(SharedKeys)),
    "attention: normalised queries": (RECOGNISER, lambda: Attended(NormedQueries)),
    "LeViT: attention of convolutions": (DETECTOR, ConvAttention),
    "ShuffleNet: convolutions in groups, shuffled": (CLASSIFIER, shufflenet_v1),
    "uneven parts of the channels": (DETECTOR, Sliced),
    "parts of the channels added": (DETECTOR, AddedParts),
    "rectified first (GridSample)": (RECOGNISER, Rectified),
    "DBNet: nearest Resize by 2": (DETECTOR, lambda: Dbnet(doubled("nearest"))),
    "DBNet: bilinear, align_corners": (DETECTOR, lambda: Dbnet(doubled("bilinear", align_corners=True))),
    "DBNet: bicubic Resize": (DETECTOR, lambda: Dbnet(doubled("bicubic", align_corners=False))),
    "two outputs: map and threshold": (DETECTOR, lambda: Dbnet(doubled("nearest"), outputs=2)),
    "PixelShuffle": (
        DETECTOR, lambda: nn.Sequential(
            block(3, 8, 2), block(8, 16), nn.Conv2d(16, 4, 1), nn.PixelShuffle(2), nn.Sigmoid()
        )
    ),
    "transposed with output padding": (
        DETECTOR, lambda: nn.Sequential(
            block(3, 8, 2), nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid()
        )
    ),
}  # fmt: skip


SHAPES = {"grey image": (1, 32, 64)}
LAST = {"images [N, H, W, C]": (32, 64, 3)}
"""What is exported with images in another order."""


def _case(exporter: str, name: str, family: str, make: Callable[[], nn.Module]) -> Case:
    export = script if exporter == SCRIPT else dynamo
    shape = SHAPES.get(name, IMAGE)
    return Case(exporter, family, name, lambda: export(make(), LAST.get(name, shape)), shape)


CASES = [
    *(_case(SCRIPT, name, family, make) for name, (family, make) in (NETWORKS | SCRIPTED).items()),
    *(_case(DYNAMO, name, family, make) for name, (family, make) in NETWORKS.items()),
    Case(SCRIPT, RECOGNISER, "one image at a time", lambda: script(Crnn(), fixed=True)),
    Case(SCRIPT, CLASSIFIER, "opset 11", lambda: script(classify(Squeezed()), opset_version=11)),
    Case(SCRIPT, CLASSIFIER, "half precision", lambda: in_half(script(classify(Squeezed())))),
]


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """As converters to float16 leave a model: constants, inputs and outputs."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), tensor.name))
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.HasField("t") and entry.t.data_type == TensorProto.FLOAT:
                entry.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry.t).astype("float16")))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del model.graph.value_info[:]
    return model
