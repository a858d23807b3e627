"""Networks that between them hold every kind of coupling, and random ones."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn


def initialise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and BatchNorm statistics, so that no channel is like another; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.3)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            parameter.copy_(noise / fan_in**0.5)
    return module.eval()


class Plain(nn.Module):
    """conv - BN - ReLU - conv - GAP - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.softmax(self.fc(x.mean((2, 3))), dim=1)


class Residual(nn.Module):
    """Two blocks added to one trunk: stem, block1 and block2 make the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand1 = nn.Conv2d(8, 12, 1)
        self.block1 = nn.Conv2d(12, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.block2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.bn(self.block1(torch.relu(self.expand1(x))))
        x = x + self.block2(torch.relu(x))
        return self.head(torch.relu(x))


class SqueezeExcite(nn.Module):
    """MobileNetV3's block: expand, depthwise, SE, project, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand = nn.Conv2d(8, 16, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.se1 = nn.Conv2d(16, 4, 1)
        self.se2 = nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = nn.functional.hardswish(self.bn2(self.depthwise(torch.relu(self.bn1(self.expand(x))))))
        gate = torch.sigmoid(self.se2(torch.relu(self.se1(nn.functional.adaptive_avg_pool2d(y, 1)))))
        return torch.sigmoid(self.head(x + self.project(y * gate)))


class Concat(nn.Module):
    """A feature pyramid in small: upsampled maps concatenated, then a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(6, 10, 3, stride=2, padding=1)
        self.merge = nn.Conv2d(16, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.down1(x))
        two = torch.relu(self.down2(one))
        both = torch.cat([one, nn.functional.interpolate(two, scale_factor=2.0)], 1)
        return torch.sigmoid(self.last(torch.relu(self.up(self.merge(both)))))


class Flattened(nn.Module):
    """A linear layer that reads every pixel: 4 of its inputs belong to each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=4, padding=1)
        self.hidden = nn.Linear(20, 9)
        self.fc = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.hidden(torch.flatten(torch.relu(self.conv(x)), 1))))


class Recurrent(nn.Module):
    """A CRNN: the LSTM's input follows the backbone."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, layers: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, (8, 3), padding=(0, 1))
        self.rnn = kind(7, 4, num_layers=layers, bidirectional=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.conv(x)).squeeze(2).permute(2, 0, 1)
        return self.fc(self.rnn(steps)[0])


class Shuffled(nn.Module):
    """ShuffleNet's channel shuffle, which torch-pruning does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.conv2(x)))


class Regrouped(nn.Module):
    """ShuffleNet's shuffle as torchvision's older exports spell it; torch-pruning divides by zero on it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        n, c, h, w = x.shape
        halves = x.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
        x = torch.cat([halves[0], halves[1]], 1)
        return self.head(torch.relu(self.conv2(x)))


class ShuffledTwice(nn.Module):
    """Parts joined, shuffled and added to; torch-pruning adds a number to None on it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.relu(self.conv1(x)).chunk(2, 1)
        x = torch.cat([first, second * 2], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.conv2(x)))


class Grouped(nn.Module):
    """A convolution in two groups between ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.conv2 = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv2(torch.relu(self.grouped(torch.relu(self.conv1(x)))))))


class WithConstants(nn.Module):
    """A bare parameter and a buffer that are added per channel, and a PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.register_buffer("shift", torch.arange(6.0).reshape(1, 6, 1, 1))
        self.prelu = nn.PReLU(6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.prelu(self.conv(x) * self.scale + self.shift))


class Drawn(nn.Module):
    """A chain of randomly drawn blocks."""

    def __init__(self, width: int, blocks: list[tuple[str, int]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.kinds = [kind for kind, _ in blocks]
        self.blocks = nn.ModuleList()
        for kind, hidden in blocks:
            made, width = _block(kind, width, hidden)
            self.blocks.append(made)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            y = block(x)
            if kind == "residual":
                y = x + y
            elif kind == "dense":
                y = torch.cat([x, y], 1)
            elif kind == "gate":
                y = x * torch.sigmoid(y)
            x = torch.relu(y)
        return self.head(x)


def _block(kind: str, width: int, hidden: int) -> tuple[nn.Module, int]:
    """The block, and how many channels come out of it."""
    if kind == "residual":
        return nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 3, padding=1)), width
    if kind == "dense":
        return nn.Conv2d(width, hidden, 3, padding=1), width + hidden
    if kind == "gate":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)), width
    if kind == "depthwise":
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width)), width
    return nn.Sequential(nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)), hidden


def drawn_networks() -> st.SearchStrategy[nn.Module]:
    """Random networks of up to four blocks on (3, 8, 8)."""
    kinds = st.sampled_from(["plain", "residual", "dense", "gate", "depthwise"])
    blocks = st.lists(st.tuples(kinds, st.integers(2, 6)), min_size=1, max_size=4)
    return st.builds(
        lambda width, blocks, seed: initialise(Drawn(width, blocks), seed),
        st.integers(2, 6),
        blocks,
        st.integers(0, 1000),
    )
