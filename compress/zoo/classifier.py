"""PP-OCR's text-direction classifier in PyTorch, to train from scratch."""

import math

import torch
from torch import Tensor, nn

from compress.zoo.mobilenet_v3 import MobileNetV3Small

STRIDES = ((2, 1), (2, 1), (2, 1), (2, 1))
"""Height is halved in every stage and width kept: text is wide and low."""


class DirectionClassifier(nn.Module):
    """MobileNetV3_small, mean over the image, one linear layer: [N, 3, H, W] -> probabilities [N, K]."""

    def __init__(self, *, scale: float, classes: int) -> None:
        super().__init__()
        self.backbone = MobileNetV3Small(scale=scale, strides=STRIDES)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(self.backbone.out_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(self.flatten(self.pool(self.backbone(x)))), dim=1)


def build_classifier(scale: float = 0.35, classes: int = 2) -> nn.Module:
    """Build the network of the deployed `ch_ppocr_mobile_v2.0_cls` (scale 0.35, input 48x192), weights at random.

    Source: PP-OCR (arXiv 2009.09941) section 2.2; PaddleOCR, configs/cls/cls_mv3.yml. Weights start as
    PaddleOCR's do: convolutions from He's normal distribution, the linear layer uniform in ±1/sqrt(inputs).
    """
    model = DirectionClassifier(scale=scale, classes=classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    bound = 1 / math.sqrt(model.fc.in_features)
    nn.init.uniform_(model.fc.weight, -bound, bound)
    nn.init.zeros_(model.fc.bias)
    return model
