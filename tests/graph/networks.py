"""PyTorch networks of the kinds that people export, small and with random weights."""

import torch
from torch import Tensor, nn


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and BatchNorm statistics as if trained: none zero, one or like another; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan_in**0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module.eval()


class SpelledHardSwish(nn.Module):
    """x * relu6(x + 3) / 6, as networks older than `nn.Hardswish` have it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.relu6(x + 3.0) / 6.0


class Mobile(nn.Module):
    """MobileNetV3 in small: hard-swish both ways, squeeze and excite, depthwise, residual, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), SpelledHardSwish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = y * nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = nn.functional.adaptive_avg_pool2d(x + self.project(y), 1)
        return torch.softmax(self.fc(self.drop(x.view(x.shape[0], -1))), dim=1)


class Crnn(nn.Module):
    """Columns of a feature map as time steps for a bidirectional LSTM, as text recognisers have it.

    Returns [N, T, K] logits. One or two layers; batch first or not.
    """

    def __init__(self, layers: int = 1, batch_first: bool = False, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, (2, 1), 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, (2, 1), 1)
        )
        self.rnn = kind(12, 6, num_layers=layers, bidirectional=True, batch_first=batch_first)  # type: ignore[call-arg]
        self.head = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean(2)  # [N, C, T]
        steps = x.permute(0, 2, 1) if self.batch_first else x.permute(2, 0, 1)
        y = self.head(self.rnn(steps)[0])
        return y if self.batch_first else y.permute(1, 0, 2)


class Pyramid(nn.Module):
    """A detector's neck and head: upsampled sums, concatenation, transposed convolutions, a map of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.down2 = nn.Conv2d(8, 12, 3, 2, 1)
        self.lateral = nn.Conv2d(12, 8, 1)
        self.up1 = nn.ConvTranspose2d(16, 6, 2, 2)
        self.bn = nn.BatchNorm2d(6)
        self.up2 = nn.ConvTranspose2d(6, 1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.down1(x))
        b = self.lateral(torch.relu(self.down2(a)))
        up = nn.functional.interpolate(b, size=a.shape[2:], mode="nearest")
        smooth = nn.functional.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        z = torch.relu(self.bn(self.up1(torch.cat([a + up, smooth], 1)[:, :, ::2, ::2])))
        return torch.sigmoid(self.up2(z))
