"""Networks whose channels go through shuffles, splits and attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, act: bool = True) -> nn.Module:
    """Convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([nn.ReLU()] if act else []))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """ShuffleNet's channel shuffle."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Unit(nn.Module):
    """A unit of ShuffleNetV2: with a stride both branches read everything, without each half of it."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        read = half if stride == 1 else channels
        self.left = None if stride == 1 else nn.Sequential(
            block(channels, channels, 3, stride, channels, act=False), block(channels, half)
        )  # fmt: skip
        self.right = nn.Sequential(block(read, half), block(half, half, 3, stride, half, act=False), block(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if self.left is not None else x.chunk(2, 1)
        return shuffle(torch.cat((left if self.left is None else self.left(left), self.right(right)), 1), 2)


class Pooled(nn.Module):
    """Features, pooled, to numbers."""

    def __init__(self, *features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.fc = nn.Sequential(*features), nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def shufflenet_v2() -> nn.Module:
    """Two stages: halves that stay, halves that are convolved, and units with a stride."""
    units = Unit(8, 16, 2), Unit(16, 16, 1), Unit(16, 16, 1), Unit(16, 24, 2), Unit(24, 24, 1)
    return Pooled(block(3, 8, 3, 2), *units, block(24, 32), channels=32)


class UnitV1(nn.Module):
    """A unit of ShuffleNet: convolutions in groups, shuffled between, added."""

    def __init__(self, channels: int, groups: int = 2) -> None:
        super().__init__()
        half, self.groups = channels // 2, groups
        self.reduce = block(channels, half, groups=groups)
        self.expand = nn.Sequential(
            block(half, half, 3, groups=half, act=False), block(half, channels, groups=groups, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.expand(shuffle(self.reduce(x), self.groups)))


def shufflenet_v1() -> nn.Module:
    """Shuffled convolutions in groups."""
    return Pooled(block(3, 16, 3, 4), UnitV1(16), UnitV1(16), channels=16)


class Sliced(nn.Module):
    """Uneven parts of the channels, one of them convolved, joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.merge = block(3, 12, 3, 4), block(5, 5), block(12, 6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.merge(torch.cat((x[:, :4], self.inner(x[:, 4:9]), x[:, 9:]), 1)))


class AddedParts(nn.Module):
    """Two of three parts added to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = block(3, 12, 3, 4), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = torch.split(self.stem(x), [4, 4, 4], 1)
        return self.head(torch.cat((first + second, third * 2), 1))


class Attention(nn.Module):
    """Queries, keys and values from a linear layer each; subclasses say how they meet."""

    def __init__(self, width: int = 16, heads: int = 4, *, keys: int = 16, values: int = 16) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, keys), nn.Linear(width, values)
        self.project = nn.Linear(values if keys > width // heads else width, width)

    def split(self, x: Tensor) -> Tensor:
        """[N, T, C] as [N, heads, T, C / heads]."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of heads [N, heads, T, C / heads]."""
        return (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        given = self.norm(x)
        mixed = self.attend(self.split(self.q(given)), self.split(self.k(given)), self.split(self.v(given)))
        return x + self.project(mixed.transpose(1, 2).flatten(2))


class Biased(Attention):
    """A trained bias for each head and pair of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 4, 32, 32))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) * self.scale + self.bias).softmax(-1) @ v


class Fused(Attention):
    """PyTorch's own function, which scales by the width that it finds."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class NormedQueries(Attention):
    """Queries normalised in each head."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.inner(q), k, v)


class SharedKeys(Attention):
    """One head of keys and values for all heads of queries."""

    def __init__(self) -> None:
        super().__init__(keys=4, values=4)

    def forward(self, x: Tensor) -> Tensor:
        given = self.norm(x)
        mixed = self.attend(self.split(self.q(given)), self.k(given)[:, None], self.v(given)[:, None])
        return x + self.project(mixed.transpose(1, 2).flatten(2))


class Attended(nn.Module):
    """Patches as steps, one block of attention, read."""

    def __init__(self, make: Callable[[], nn.Module] = Attention) -> None:
        super().__init__()
        self.patches, self.block, self.fc = nn.Conv2d(3, 16, 8, 8), make(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.patches(x).flatten(2).transpose(1, 2)))


class ConvAttention(nn.Module):
    """LeViT's: queries, keys and values by convolutions with BatchNorm; pixels are steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.q, self.k, self.v = (block(16, 16, act=False) for _ in range(3))
        self.project, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        n, c, h, w = x.shape
        q, k, v = (layer(x).reshape(n, 4, 4, h * w) for layer in (self.q, self.k, self.v))
        seen = (q.transpose(-1, -2) @ k).softmax(-1)
        return self.head(torch.relu(self.project((v @ seen.transpose(-1, -2)).reshape(n, c, h, w))))


class Anchors(nn.Module):
    """A head as YOLO's: maps of two scales flattened, put in a row, and boxes as the mean of a distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 16, 3, 2), block(16, 24, 3, 2)
        self.heads = nn.ModuleList(
            nn.Sequential(block(channels, 16), nn.Conv2d(16, 33, 1)) for channels in (16, 24)
        )  # fmt: skip
        self.mean = nn.Conv2d(8, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        maps = (first, self.second(first))
        rows = torch.cat([head(m).flatten(2) for head, m in zip(self.heads, maps, strict=True)], 2)
        boxes, scores = rows.split((32, 1), 1)
        spread = boxes.reshape(-1, 4, 8, rows.shape[2]).transpose(2, 1).softmax(1)
        return torch.cat((self.mean(spread).flatten(1, 2), scores.sigmoid()), 1)
