"""PP-OCR's text detector in PyTorch: DBNet on MobileNetV3_large, to train from scratch.

Source: Liao et al. 2020 (arXiv 1911.08947); PP-OCR (arXiv 2009.09941) section 2.1; PaddleOCR, ppocr/modeling
(necks/db_fpn.py, heads/det_db_head.py) and configs/det/ch_ppocr_v2.0/ch_det_mv3_db_v2.0.yml.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import ModelError
from compress.zoo.mobilenet_v3 import MobileNetV3Large

STEEPNESS = 50
"""k of the approximate binary map 1 / (1 + exp(-k (P - T))), equation 2 of the DBNet paper."""
NARROWING = 4
"""Channels of the fused features, and of the heads, are the inner ones divided by this."""


class FeaturePyramid(nn.Module):
    """Bring four features to `inner_channels`, add each to the next finer one, narrow and stack all at stride 4.

    Features [N, channels[i], H/s, W/s] at strides s 4, 8, 16, 32 -> [N, inner_channels, H/4, W/4].

    Raises:
        ModelError: `inner_channels` is no multiple of 4.
    """

    def __init__(self, channels: tuple[int, ...], inner_channels: int) -> None:
        super().__init__()
        if inner_channels < NARROWING or inner_channels % NARROWING:
            raise ModelError(f"inner_channels: got {inner_channels}. Must be a positive multiple of {NARROWING}.")
        narrow = inner_channels // NARROWING
        self.laterals = nn.ModuleList(nn.Conv2d(width, inner_channels, 1, bias=False) for width in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(inner_channels, narrow, 3, padding=1, bias=False) for _ in channels)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Coarsest features first, as PaddleOCR computes and stacks them."""
        inner: list[Tensor] = []
        for lateral, feature in zip(reversed(self.laterals), reversed(features), strict=True):
            inner.append(lateral(feature) + _enlarge(inner[-1], 2) if inner else lateral(feature))
        narrow = [smooth(feature) for smooth, feature in zip(reversed(self.smooth), inner, strict=True)]
        factors = [2**power for power in range(len(narrow))][::-1]
        return torch.cat([_enlarge(feature, factor) for feature, factor in zip(narrow, factors, strict=True)], dim=1)


class MapHead(nn.Sequential):
    """One map in [0, 1] at full size from features at stride 4: [N, C, H/4, W/4] -> [N, 1, H, W]."""

    def __init__(self, channels: int) -> None:
        narrow = channels // NARROWING
        super().__init__(
            nn.Conv2d(channels, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.ConvTranspose2d(narrow, narrow, 2, 2),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.ConvTranspose2d(narrow, 1, 2, 2),
            nn.Sigmoid(),
        )


class TextDetector(nn.Module):
    """DBNet: images [N, 3, H, W], sides multiples of 32 -> the probability of (shrunk) text at each pixel [N, 1, H, W].

    In training mode [N, 3, H, W]: probability, threshold, and the binary map that the two make. The threshold teaches
    the features where borders are; nothing reads it later, so an exported file does not hold it.
    """

    def __init__(self, *, scale: float, inner_channels: int, se: bool) -> None:
        super().__init__()
        self.backbone = MobileNetV3Large(scale=scale, se=se)
        self.neck = FeaturePyramid(self.backbone.channels, inner_channels)
        self.probability = MapHead(inner_channels)
        self.threshold = MapHead(inner_channels)

    def forward(self, x: Tensor) -> Tensor:
        fused = self.neck(self.backbone(x))
        probability = self.probability(fused)
        if not self.training:
            return probability
        threshold = self.threshold(fused)
        return torch.cat([probability, threshold, torch.sigmoid(STEEPNESS * (probability - threshold))], dim=1)


def build_detector(scale: float = 0.5, inner_channels: int = 96, se: bool = False) -> TextDetector:
    """Build the network of the deployed `ch_ppocr_mobile_v2.0_det`, weights at random from He's normal distribution.

    PP-OCR's first two compressions of it are `inner_channels` 256 -> 96 and `se` True -> False. PaddleOCR's own
    training starts from a backbone that was trained on ImageNet; here nothing is known before.

    Args:
        scale: width of the backbone.
        inner_channels: channels of the pyramid and in front of the heads; a multiple of 4.
        se: with the backbone's squeeze-and-excite parts.
    """
    model = TextDetector(scale=scale, inner_channels=inner_channels, se=se)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):
            # With kernel 2 and stride 2 an output pixel sees one pixel of each input channel.
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.in_channels))
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


def _enlarge(x: Tensor, factor: int) -> Tensor:
    """Repeat pixels: [N, C, H, W] -> [N, C, factor H, factor W]."""
    return x if factor == 1 else F.interpolate(x, scale_factor=float(factor), mode="nearest")
