"""Networks that between them hold every arrangement that the int8 path has to get right."""

import copy
from collections.abc import Callable
from functools import cache

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compress.graph import from_torch, to_torch
from compress.graph.lowering import lower_for_int8
from compress.quant import calibrate, prepare_qat

SHAPE = (3, 16, 24)


def initialise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that keep activations near 1, and BatchNorm statistics; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.3)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 9
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
    return module.eval()


def images(count: int = 6, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Smooth random images in [-1, 1]: [N, 3, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 6, generator=generator) * 2 - 1
    return F.interpolate(coarse, size=shape[1:], mode="bilinear")


def stem(width: int = 8) -> nn.Sequential:
    """A first convolution, which stays in float."""
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Head(nn.Module):
    """Mean over the image, one linear layer, probabilities."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)), 1)


class Plain(nn.Module):
    """Convolutions of several kinds in a row: with and without bias, strided, dilated, depthwise, in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 5, stride=(2, 1), padding=2, groups=12),
            nn.ReLU(),
            nn.Conv2d(12, 8, 3, padding=2, dilation=2, groups=2, bias=False),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
            nn.ReLU(),
        )
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


class Mobile(nn.Module):
    """MobileNetV3's block: expand, depthwise, gate, project, residual, all with hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish())
        self.reduce, self.gate = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Hardswish())
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        gate = (self.gate(torch.relu(self.reduce(F.adaptive_avg_pool2d(y, 1)))) * 0.2 + 0.5).clamp(0, 1)
        return self.head(self.last(x + self.project(y * gate)))


class Shared(nn.Module):
    """Hard-swish read by two convolutions; a convolution read by a ReLU and by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.wide = nn.Conv2d(8, 16, 1)
        self.left, self.right, self.third = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.wide(self.stem(x)))
        left = self.left(x)
        return self.head(torch.relu(left) + self.right(x) + self.third(left))


class Concatenated(nn.Module):
    """Tensors of different ranges joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.left, self.right, self.join = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(self.join(torch.cat([torch.relu(self.left(x)), 3 * self.right(x)], 1))))


class ResNet(nn.Module):
    """ReLU behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.last = nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.second(self.first(x)))
        return self.head(torch.relu(self.last(x)))


class TwoStems(nn.Module):
    """The image is read by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 5, 2, 2)
        self.last = nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.fine(x)) + torch.relu(self.coarse(x)))))


class PooledImage(nn.Module):
    """The image goes through a pool before its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv, self.last = nn.MaxPool2d(2), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(torch.relu(self.conv(self.pool(x))))))


class Linears(nn.Module):
    """Linear layers one behind the other, with and without a ReLU and a bias between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = stem(), nn.Conv2d(8, 4, 3, 4, 1)
        self.layers = nn.Sequential(
            nn.Linear(24, 16), nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(torch.relu(self.conv(self.stem(F.interpolate(x, size=SHAPE[1:])))), 1)
        return torch.softmax(self.layers(x.reshape(-1, 24)), 1)


class Moves(nn.Module):
    """Pools, transpositions and reshapes between integer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()
        self.first, self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.first(self.stem(x))), 3, 2, 1)
        x = torch.relu(self.second(x).transpose(2, 3))
        x = F.max_pool2d(self.third(x), (2, 1))
        return torch.softmax(self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2)), 1)


class Steps(nn.Module):
    """A sequence model: linear layers on [T, N, C], which are MatMuls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = stem(), nn.Conv2d(8, 8, (8, 1))
        self.first, self.second, self.last = nn.Linear(8, 12), nn.Linear(12, 8, bias=False), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.stem(x))).flatten(2).permute(2, 0, 1)
        return torch.softmax(self.last(self.second(torch.relu(self.first(x)))), 2)


class BiasedMatMul(nn.Module):
    """A linear layer on [N, T, C] whose result an integer convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = stem(), nn.Conv2d(8, 8, 1)
        self.first, self.second = nn.Linear(12, 12), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.stem(x)))
        return self.head(torch.relu(self.second(self.first(x))))


class Recurrent(nn.Module):
    """A CRNN in small: the LSTM and what it reads stay in float."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = stem(), nn.Conv2d(8, 8, (8, 1))
        self.rnn, self.fc = nn.LSTM(8, 6, bidirectional=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.stem(x))).flatten(2).permute(2, 0, 1)
        return torch.softmax(self.fc(self.rnn(x)[0]), 2)


class Pyramid(nn.Module):
    """Upsampling, a lateral addition and a transposed convolution whose blocks overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = stem(), nn.Conv2d(8, 16, 3, 2, 1)
        self.top, self.side, self.smooth = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.norm, self.last = nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = torch.relu(self.down(fine))
        x = F.interpolate(self.top(coarse), scale_factor=2.0) + self.side(fine)
        return torch.sigmoid(self.last(torch.relu(self.norm(self.up(torch.relu(self.smooth(x)))))))


class Neck(nn.Module):
    """DBNet's neck and head in small: convolutions of upsampled tensors, and transposed ones that do not overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = stem(), nn.Conv2d(8, 16, 3, 2, 1)
        self.top, self.side = nn.Conv2d(16, 32, 1, bias=False), nn.Conv2d(8, 32, 1, bias=False)
        self.smooth, self.fine = nn.Conv2d(32, 4, 3, padding=1), nn.Conv2d(32, 4, 3, padding=1)
        self.joint = nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        large = self.stem(x)
        small = self.top(torch.relu(self.down(large)))
        fine = self.fine(F.interpolate(small, scale_factor=2.0) + self.side(large))
        joined = torch.cat([F.interpolate(self.smooth(small), scale_factor=2.0), fine], 1)
        return torch.sigmoid(self.last(torch.relu(self.up(torch.relu(self.joint(joined))))))


class Capped(nn.Module):
    """ReLU6 behind convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu6(self.second(F.relu6(self.first(3 * self.stem(x))))))


class Doubled(nn.Module):
    """A tensor added to itself, and multiplied with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.third, self.head = nn.Conv2d(8, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = self.second(x + x)
        return self.head(self.third(x * x))


class FlatOutput(nn.Module):
    """The output lies behind a move, with nothing in float between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = stem(), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.last(self.stem(x)), 1)


class ReluOutput(nn.Module):
    """The output is a convolution's, or its ReLU's."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.stem, self.last, self.relu = stem(), nn.Conv2d(8, 3, 3, padding=1), relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.stem(x))
        return torch.relu(x) if self.relu else x


class TwoOutputs(nn.Module):
    """Inner tensors are outputs as well: a convolution that a ReLU reads, and a ReLU that a convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first = self.first(self.stem(x))
        second = torch.relu(self.second(torch.relu(first)))
        return self.head(second), first, second


class Shuffled(nn.Module):
    """A channel shuffle of an image whose size is known only when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.stem(x)))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.second(x)))


class Halves(nn.Module):
    """Channels split in two; each half goes its way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = stem(), nn.Conv2d(8, 8, 1)
        self.left, self.right, self.join = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(torch.relu(self.first(self.stem(x))), 4, 1)
        return self.head(torch.relu(self.join(torch.cat([self.left(left), self.right(right)], 1))))


class Constants(nn.Module):
    """Channels scaled and shifted by constants, and by single numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.register_buffer("factor", torch.linspace(0.5, 2, 8).reshape(1, 8, 1, 1))
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(self.stem(x))) * self.factor
        return self.head(torch.relu(self.second(x * 0.5 + 0.25)))


class Swish(nn.Module):
    """x * sigmoid(x), which has no integer kernel, and a plain sigmoid gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.gate, self.head = nn.Conv2d(8, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(self.stem(x)))
        x = self.second(x)
        return self.head(x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1))))


class Gelu(nn.Module):
    """GELU between convolutions, which has no integer kernel: x * (1 + erf(x / sqrt 2)) / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.second(F.gelu(self.first(x))))


class DeadTensor(nn.Module):
    """A tensor that is zero on every image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = stem(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(self.stem(x)) - 1000))))


ZOO: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "mobile": Mobile,
    "shared": Shared,
    "concatenated": Concatenated,
    "resnet": ResNet,
    "two_stems": TwoStems,
    "pooled_image": PooledImage,
    "linears": Linears,
    "moves": Moves,
    "steps": Steps,
    "biased_matmul": BiasedMatMul,
    "recurrent": Recurrent,
    "pyramid": Pyramid,
    "neck": Neck,
    "capped": Capped,
    "doubled": Doubled,
    "flat_output": FlatOutput,
    "conv_output": lambda: ReluOutput(False),
    "relu_output": lambda: ReluOutput(True),
    "two_outputs": TwoOutputs,
    "uneven_padding": Moves,  # and see `template`
    "shuffled": Shuffled,
    "halves": Halves,
    "constants": Constants,
    "swish": Swish,
    "gelu": Gelu,
    "dead_tensor": DeadTensor,
}


@cache
def _template(name: str) -> bytes:
    model = from_torch(initialise(ZOO[name]()), images(1))
    if name == "uneven_padding":  # what PyTorch's exporter cannot say: padding on two sides only
        for node in model.graph.node:
            for entry in node.attribute:
                if entry.name == "pads" and list(entry.ints) == [1, 1, 1, 1]:
                    entry.ints[:] = [0, 0, 1, 1]
    return lower_for_int8(model).SerializeToString()


def template(name: str) -> onnx.ModelProto:
    """A network of the zoo as a lowered model."""
    return onnx.load_from_string(_template(name))


def prepared(
    name: str, *, weight_bits: int = 7, asymmetric_hard_swish: bool = True, two_sided: bool = False
) -> fx.GraphModule:
    """The same ready for training, calibrated; a copy of its own for each caller."""
    return copy.deepcopy(calibrated(name, weight_bits, asymmetric_hard_swish, two_sided))


@cache
def calibrated(
    name: str, weight_bits: int = 7, asymmetric_hard_swish: bool = True, two_sided: bool = False
) -> fx.GraphModule:
    """The same, made once: to be looked at only."""
    options = {"asymmetric_hard_swish": asymmetric_hard_swish, "two_sided": two_sided}
    module = prepare_qat(to_torch(template(name)), weight_bits=weight_bits, **options)
    calibrate(module, [images().numpy()])
    return module


def layer_of(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The submodule that a node calls, if it calls one."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None
