"""ResNet18-CRNN in PyTorch, the recogniser whose pruning by 90 % was published (`benchmarks.studies.hard_case`)."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

HEIGHTS = (1, 2, 2, 2)
"""Stride in height of each stage; width, the time axis, is halved by the two poolings alone."""


def layer(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and BatchNorm; `stride` is of the height."""
    convolution = nn.Conv2d(channels, out, kernel, (stride, 1), kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


class SqueezeExcite(nn.Module):
    """Scale each channel by what its mean, and the others', say: [N, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.excite = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(mean))))


class Block(nn.Module):
    """ResNet-vd's basic block: two 3x3 convolutions; the shortcut of a stage's first one is a mean and a 1x1."""

    def __init__(self, channels: int, out: int, stride: int, se: bool, first: bool) -> None:
        super().__init__()
        self.first, self.second = layer(channels, out, stride=stride), layer(out, out)
        self.se = SqueezeExcite(out) if se else nn.Identity()
        pool = nn.AvgPool2d((stride, 1), (stride, 1)) if stride > 1 else nn.Identity()
        self.skip = nn.Sequential(pool, layer(channels, out, 1)) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.se(self.second(functional.relu(self.first(x)))) + self.skip(x))


class Backbone(nn.Sequential):
    """ResNet18-vd for text lines: [N, 3, 32, W] -> [N, out_channels, 1, W/4]."""

    def __init__(self, scale: float, se: bool) -> None:
        half, *widths = (round(scale * width) for width in (32, 64, 64, 128, 256, 512))
        stem = [part for pair in pairwise((3, half, half, widths[0])) for part in (layer(*pair), nn.ReLU())]
        stages = [
            nn.Sequential(Block(before, after, stride, se, True), Block(after, after, 1, se, False))
            for (before, after), stride in zip(pairwise(widths), HEIGHTS, strict=True)
        ]
        super().__init__(*stem, nn.MaxPool2d(3, 2, 1), *stages, nn.MaxPool2d(2))
        self.out_channels = widths[-1]


class ResNetCrnn(nn.Module):
    """Backbone, a bidirectional GRU of two layers, one linear layer: [N, 3, 32, W] -> probabilities [N, W/4, K].

    Source: PaddleOCR 2.1, ppocr/modeling/backbones/rec_resnet_vd.py; YukSing12/lightweight-OCR, `resnet18_64_prune_0.9`
    and `resnet18se_64_prune_0.91`. Class 0 is CTC's blank.
    """

    def __init__(self, *, classes: int = 96, scale: float = 1.0, units: int = 64, se: bool = False) -> None:
        super().__init__()
        self.backbone = Backbone(scale, se)
        self.gru = nn.GRU(self.backbone.out_channels, units, num_layers=2, bidirectional=True)
        self.fc = nn.Linear(2 * units, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        bound = 1 / math.sqrt(self.fc.in_features)
        nn.init.uniform_(self.fc.weight, -bound, bound)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.gru(self.backbone(x)[:, :, 0].permute(2, 0, 1))
        return torch.softmax(self.fc(outputs.permute(1, 0, 2)), dim=2)
