"""MobileNetV3 as PP-OCR builds it: narrow, SE with a hard sigmoid of slope 0.2, strides chosen per task.

Source: Howard et al. 2019 (arXiv 1905.02244); PaddleOCR, ppocr/modeling/backbones/rec_mobilenet_v3.py (small) and
det_mobilenet_v3.py (large).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from compress.graph.modules import HardSigmoid

Stride = tuple[int, int]


@dataclass(frozen=True)
class Block:
    """One inverted residual at width 1.0: depthwise kernel, expansion and output channels, SE, hard-swish."""

    kernel: int
    expansion: int
    out: int
    se: bool
    hard_swish: bool
    stride: Stride


def small_blocks(strides: Sequence[Stride]) -> tuple[Block, ...]:
    """The 11 blocks of MobileNetV3_small with the given strides of its four stages."""
    first, second, third, fourth = strides
    return (
        Block(3, 16, 16, se=True, hard_swish=False, stride=first),
        Block(3, 72, 24, se=False, hard_swish=False, stride=second),
        Block(3, 88, 24, se=False, hard_swish=False, stride=(1, 1)),
        Block(5, 96, 40, se=True, hard_swish=True, stride=third),
        Block(5, 240, 40, se=True, hard_swish=True, stride=(1, 1)),
        Block(5, 240, 40, se=True, hard_swish=True, stride=(1, 1)),
        Block(5, 120, 48, se=True, hard_swish=True, stride=(1, 1)),
        Block(5, 144, 48, se=True, hard_swish=True, stride=(1, 1)),
        Block(5, 288, 96, se=True, hard_swish=True, stride=fourth),
        Block(5, 576, 96, se=True, hard_swish=True, stride=(1, 1)),
        Block(5, 576, 96, se=True, hard_swish=True, stride=(1, 1)),
    )


SMALL_LAST = 576
"""Channels of MobileNetV3_small's last 1x1 convolution at width 1.0."""

LARGE_BLOCKS = (
    Block(3, 16, 16, se=False, hard_swish=False, stride=(1, 1)),
    Block(3, 64, 24, se=False, hard_swish=False, stride=(2, 2)),
    Block(3, 72, 24, se=False, hard_swish=False, stride=(1, 1)),
    Block(5, 72, 40, se=True, hard_swish=False, stride=(2, 2)),
    Block(5, 120, 40, se=True, hard_swish=False, stride=(1, 1)),
    Block(5, 120, 40, se=True, hard_swish=False, stride=(1, 1)),
    Block(3, 240, 80, se=False, hard_swish=True, stride=(2, 2)),
    Block(3, 200, 80, se=False, hard_swish=True, stride=(1, 1)),
    Block(3, 184, 80, se=False, hard_swish=True, stride=(1, 1)),
    Block(3, 184, 80, se=False, hard_swish=True, stride=(1, 1)),
    Block(3, 480, 112, se=True, hard_swish=True, stride=(1, 1)),
    Block(3, 672, 112, se=True, hard_swish=True, stride=(1, 1)),
    Block(5, 672, 160, se=True, hard_swish=True, stride=(2, 2)),
    Block(5, 960, 160, se=True, hard_swish=True, stride=(1, 1)),
    Block(5, 960, 160, se=True, hard_swish=True, stride=(1, 1)),
)
"""The 15 blocks of MobileNetV3_large."""
LARGE_STAGES = ((0, 3), (3, 6), (6, 12), (12, 15))
"""First block of each stage of LARGE_BLOCKS, and one past its last: a stage ends before the image is halved."""
LARGE_LAST = 960
"""Channels of MobileNetV3_large's last 1x1 convolution at width 1.0."""


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, at least one, and never below 90 % of what was asked.

    >>> [make_divisible(c * 0.35) for c in (16, 72, 120, 576)]
    [8, 24, 40, 200]
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, and an activation when one is given."""

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: Stride, *, groups: int = 1, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        if activation is not None:
            self.act = activation


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means; a quarter of the channels in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(channels // 4, channels, 1)
        self.gate = HardSigmoid(0.2, 0.5)  # PaddlePaddle's slope; PyTorch's own is 1/6

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, SE, 1x1 projection; added to the input where shapes allow."""

    def __init__(self, cin: int, block: Block, scale: float) -> None:
        super().__init__()
        expanded, cout = make_divisible(block.expansion * scale), make_divisible(block.out * scale)
        self.residual = block.stride == (1, 1) and cin == cout
        self.expand = ConvBN(cin, expanded, 1, (1, 1), activation=_activation(block))
        self.depthwise = ConvBN(
            expanded, expanded, block.kernel, block.stride, groups=expanded, activation=_activation(block)
        )
        self.se = SqueezeExcite(expanded) if block.se else nn.Identity()
        self.linear = ConvBN(expanded, cout, 1, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.se(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileNetV3Small(nn.Module):
    """Backbone: images [N, 3, H, W] -> features [N, `out_channels`, H', W']."""

    def __init__(self, *, scale: float, strides: Sequence[Stride], stem_stride: Stride = (2, 2)) -> None:
        super().__init__()
        channels = make_divisible(16 * scale)
        self.stem = ConvBN(3, channels, 3, stem_stride, activation=nn.Hardswish())
        self.blocks, channels = _chain(channels, small_blocks(strides), scale)
        self.out_channels = make_divisible(SMALL_LAST * scale)
        self.last = ConvBN(channels, self.out_channels, 1, (1, 1), activation=nn.Hardswish())
        self.pool = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.last(self.blocks(self.stem(x))))


class MobileNetV3Large(nn.Module):
    """Backbone with one output for each stage: images [N, 3, H, W] -> four features [N, `channels[i]`, H/s, W/s],
    strides s 4, 8, 16 and 32.

    Args:
        scale: width.
        se: with the squeeze-and-excite parts that the paper has; PP-OCR's detector has none of them.
    """

    def __init__(self, *, scale: float, se: bool) -> None:
        super().__init__()
        width = make_divisible(16 * scale)
        self.stem = ConvBN(3, width, 3, (2, 2), activation=nn.Hardswish())
        blocks = tuple(replace(block, se=block.se and se) for block in LARGE_BLOCKS)
        stages, channels = [], []
        for first, end in LARGE_STAGES:
            stage, width = _chain(width, blocks[first:end], scale)
            stages.append(stage)
            channels.append(width)
        channels[-1] = make_divisible(LARGE_LAST * scale)
        self.stages = nn.ModuleList(stages)
        self.last = ConvBN(width, channels[-1], 1, (1, 1), activation=nn.Hardswish())
        self.channels = tuple(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return (*features[:-1], self.last(x))


def _chain(channels: int, blocks: Sequence[Block], scale: float) -> tuple[nn.Sequential, int]:
    """Blocks one after another behind a layer of that many channels, and the channels that the last one puts out."""
    made = []
    for block in blocks:
        made.append(InvertedResidual(channels, block, scale))
        channels = make_divisible(block.out * scale)
    return nn.Sequential(*made), channels


def _activation(block: Block) -> nn.Module:
    return nn.Hardswish() if block.hard_swish else nn.ReLU()
