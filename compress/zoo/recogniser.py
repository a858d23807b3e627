"""PP-OCR's text recogniser in PyTorch, a CRNN to train from scratch."""

import math

import torch
from torch import Tensor, nn

from compress.zoo.mobilenet_v3 import MobileNetV3Small

STRIDES = ((1, 1), (2, 1), (2, 1), (2, 1))
"""Height goes from 16 behind the stem to 2, and to 1 in the last pooling; width is kept, since it is the time axis."""


class TextRecogniser(nn.Module):
    """MobileNetV3_small, a bidirectional LSTM of two layers, one linear layer: [N, 3, 32, W] -> [N, W/4, K].

    The result holds probabilities; class 0 is CTC's blank.
    """

    def __init__(self, *, classes: int, scale: float, units: int) -> None:
        super().__init__()
        self.backbone = MobileNetV3Small(scale=scale, strides=STRIDES)
        self.lstm = nn.LSTM(self.backbone.out_channels, units, num_layers=2, bidirectional=True)
        self.fc = nn.Linear(2 * units, classes)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.backbone(x)[:, :, 0].permute(2, 0, 1)  # of height 1; `squeeze` would be exported with a branch
        outputs, _ = self.lstm(steps)
        return torch.softmax(self.fc(outputs.permute(1, 0, 2)), dim=2)


def build_recogniser(classes: int = 96, scale: float = 0.5, units: int = 48) -> TextRecogniser:
    """Build the network of the deployed `en_number_mobile_v2.0_rec` (at 32x320: 80 steps), weights at random.

    Source: PP-OCR (arXiv 2009.09941) section 2.3; PaddleOCR, configs/rec/multi_language/rec_en_number_lite_train.yml.
    Weights start as PaddleOCR's do: convolutions from He's normal distribution, LSTM and linear layer uniform in
    ±1/sqrt(their units or inputs).

    Args:
        classes: CTC's blank and the charset's characters; 96 are printable ASCII and the blank.
        scale: width of the backbone.
        units: hidden units of the LSTM, per direction.
    """
    model = TextRecogniser(classes=classes, scale=scale, units=units)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    bound = 1 / math.sqrt(model.fc.in_features)
    nn.init.uniform_(model.fc.weight, -bound, bound)
    nn.init.zeros_(model.fc.bias)
    return model
