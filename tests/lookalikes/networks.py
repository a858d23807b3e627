"""Five networks in PyTorch, built as other projects build theirs, with few channels."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

DIGITS = 10
STEPS = DIGITS + 1
"""Classes of a recogniser of digits: with CTC's blank."""


def block(channels: int, out: int, *, stride: int = 1, kernel: int = 3, groups: int = 1, act: bool = True) -> nn.Module:
    """Convolution, BatchNorm, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class Shuffled(nn.Module):
    """A unit of ShuffleNetV2 of stride 1: half of the channels convolved, then channels shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            block(half, half, kernel=1), block(half, half, groups=half, act=False), block(half, half, kernel=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first, self.branch(second)], dim=1)
        images, channels, height, width = x.shape
        return x.view(images, 2, channels // 2, height, width).transpose(1, 2).reshape(images, -1, height, width)


class ShuffleNet(nn.Module):
    """ShuffleNetV2 for directions; logits, as torchvision's classifiers give them."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            block(3, 16, stride=2),
            nn.MaxPool2d(3, 2, 1),
            Shuffled(16),
            Shuffled(16),
            block(16, 32, stride=2),
            Shuffled(32),
            Shuffled(32),
            block(32, 64, kernel=1),
        )
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean([2, 3]))


class Vgg(nn.Module):
    """VGG's features as CRNNs have them: five poolings in height, two in width; [N, C, 1, W/4]."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.layers = nn.Sequential(
            block(channels, first),
            nn.MaxPool2d(2),
            block(first, second),
            nn.MaxPool2d(2),
            block(second, third),
            nn.MaxPool2d((2, 1)),
            block(third, fourth),
            nn.MaxPool2d((2, 1)),
            block(fourth, fourth),
            nn.MaxPool2d((2, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DoctrCrnn(nn.Module):
    """docTR's CRNN: VGG, one bidirectional LSTM of two layers, logits [N, T, K], the blank last."""

    def __init__(self, classes: int = STEPS) -> None:
        super().__init__()
        self.features = Vgg(3)
        self.decoder = nn.LSTM(64, 32, batch_first=True, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x).flatten(1, 2).permute(0, 2, 1)
        return self.linear(self.decoder(found)[0])


class BidirectionalLstm(nn.Module):
    """An LSTM each way and a linear layer, EasyOCR's."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.rnn(x)[0])


class EasyCrnn(nn.Module):
    """EasyOCR's: gray, adaptive pooling over the height, two LSTMs with linear layers, logits, the blank first."""

    def __init__(self, classes: int = STEPS) -> None:
        super().__init__()
        self.features = Vgg(1)
        self.pool = nn.AdaptiveAvgPool2d((None, 1))
        self.sequence = nn.Sequential(BidirectionalLstm(64, 64, 64), BidirectionalLstm(64, 64, 64))
        self.prediction = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        found = self.pool(self.features(x).permute(0, 3, 1, 2)).squeeze(3)
        return self.prediction(self.sequence(found).contiguous())


class MixingBlock(nn.Module):
    """SVTR's: attention over all positions, then two linear layers with GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        images, positions, width = x.shape
        qkv = self.qkv(self.norms[0](x)).reshape(images, positions, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = (query * self.scale @ key.transpose(-2, -1)).softmax(-1)
        x = x + self.proj((seen @ value).transpose(1, 2).reshape(images, positions, width))
        return x + self.mlp(self.norms[1](x))


class Svtr(nn.Module):
    """SVTR's: patches with trained positions, two blocks of attention, columns read; probabilities, the blank first."""

    def __init__(self, classes: int = STEPS, width: int = 48, columns: int = 32) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            block(3, 16, stride=2), block(16, 32, stride=2), block(32, width), nn.MaxPool2d((2, 1))
        )
        self.positions = nn.Parameter(torch.zeros(1, 4 * columns, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(MixingBlock(width, 4), MixingBlock(width, 4))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        found = self.patches(x)
        images, width, height, columns = found.shape
        found = self.norm(self.blocks(found.flatten(2).transpose(1, 2) + self.positions))
        return self.head(found.reshape(images, height, columns, width).mean(1)).softmax(-1)


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(block(channels, out, stride=stride), block(out, out, act=False))
        same = stride == 1 and channels == out
        self.skip = nn.Identity() if same else block(channels, out, stride=stride, kernel=1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.skip(x))


class ResNetDbnet(nn.Module):
    """DBNet on ResNet18, MMOCR's: four levels, added top down and joined by bilinear Resize; a probability map."""

    def __init__(self, base: int = 8, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, base, 7, 2, 3, bias=False), nn.BatchNorm2d(base), nn.ReLU())
        sizes = [base, base, 2 * base, 4 * base, 8 * base]
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(before, after, 2), Residual(after, after, 1))
            for before, after in itertools.pairwise(sizes)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(size, width, 1) for size in sizes[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(width, width // 4, 3, padding=1) for _ in sizes[1:])
        self.head = nn.Sequential(
            block(width, 8),
            nn.ConvTranspose2d(8, 8, 2, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, 2),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        found, levels = self.stem(x), []
        for stage in self.stages:
            found = stage(found)
            levels.append(found)
        added: list[Tensor] = []
        for lateral, level in zip(reversed(self.lateral), reversed(levels), strict=True):
            own = lateral(level)
            added.append(own + _resized(added[-1], own) if added else own)
        smooth = [layer(level) for layer, level in zip(reversed(self.smooth), added, strict=True)]
        return self.head(torch.cat([_resized(level, smooth[-1]) for level in smooth], dim=1))


def _resized(x: Tensor, to: Tensor) -> Tensor:
    return functional.interpolate(x, size=to.shape[2:], mode="bilinear", align_corners=False)
