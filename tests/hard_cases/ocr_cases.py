"""Blocks of the networks that read text, as their papers put them together: necks, attention, mobile backbones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.hard_cases.judging import Case
from tests.hard_cases.torch_cases import CLASSIFIER, DETECTOR, DYNAMO, RECOGNISER, SCRIPT, Head, block, classify, dynamo
from tests.hard_cases.torch_cases import script as scripted

CLASSES = 11


class ScaleFusion(nn.Module):
    """DBNet++: each level is weighted by one channel of an attention map."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.join = block(3, 8, 2), block(8, 8, 2), nn.Conv2d(16, 8, 3, padding=1)
        self.places = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Sigmoid())
        self.levels = nn.Sequential(nn.Conv2d(8, 2, 1), nn.Sigmoid())
        self.head = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        joined = self.join(torch.cat([fine, coarse], 1))
        weights = self.levels(self.places(joined.mean(1, keepdim=True)) + joined)
        return self.head(torch.cat([weights[:, i : i + 1] * level for i, level in enumerate((fine, coarse))], 1))


class Affine(nn.Module):
    """PP-LCNetV3: a learned number times the input, and another added."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.full((1,), 1.1)), nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class Branches(nn.Module):
    """PP-LCNetV3 before its branches are merged: 3x3, 1x1 and identity, each with its BatchNorm."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(channels)
        )
        self.narrow = nn.Sequential(
            nn.Conv2d(channels, channels, 1, groups=groups, bias=False), nn.BatchNorm2d(channels)
        )
        self.identity, self.act = nn.BatchNorm2d(channels), nn.Sequential(Affine(), nn.Hardswish(), Affine())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.wide(x) + self.narrow(x) + self.identity(x))


class Excited(nn.Module):
    """RSE-FPN: a projection, and what squeeze and excite makes of it, added."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inner, outer, 1, bias=False)
        self.squeeze, self.excite = nn.Conv2d(outer, outer // 4, 1), nn.Conv2d(outer // 4, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + x * F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


class Pyramid(nn.Module):
    """RSE-FPN with DBNet's head."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([block(3, 8, 2), block(8, 16, 2), block(16, 24, 2)])
        self.lateral = nn.ModuleList([Excited(width, 16) for width in (8, 16, 24)])
        self.smooth = nn.ModuleList([Excited(16, 8) for _ in range(3)])
        self.head = nn.Sequential(
            block(24, 8), nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for place in (1, 0):
            levels[place] = levels[place] + F.interpolate(levels[place + 1], scale_factor=2.0, mode="nearest")
        parts = [
            smooth(level) if not place else F.interpolate(smooth(level), scale_factor=2.0**place, mode="nearest")
            for place, (smooth, level) in enumerate(zip(self.smooth, levels, strict=True))
        ]
        return self.head(torch.cat(parts[::-1], 1))


class Mixer(nn.Module):
    """A transformer's block as SVTR writes it: queries, keys and values of one layer, unbound behind a permutation."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        count, steps, width = x.shape
        qkv = self.qkv(self.before(x)).reshape(count, steps, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.project(mixed.transpose(1, 2).reshape(count, steps, width))
        return x + self.mlp(self.between(x))


class Lcnet(nn.Module):
    """SVTR_LCNet (PP-OCRv3): attention between narrow convolutions, beside a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(block(3, 8, 2), nn.Conv2d(8, 32, 3, (4, 1), 1), nn.ReLU(), nn.AvgPool2d((4, 1)))
        self.narrow, self.mixer, self.norm = nn.Conv2d(32, 16, 1), Mixer(), nn.LayerNorm(16)
        self.wide, self.join, self.fc = nn.Conv2d(16, 32, 1), block(64, 16, act=nn.SiLU), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        narrow = F.silu(self.narrow(features))
        count, width, height, _ = narrow.shape
        mixed = self.norm(self.mixer(narrow.flatten(2).transpose(1, 2)))
        mixed = mixed.reshape(count, height, -1, width).permute(0, 3, 1, 2)
        joined = self.join(torch.cat([features, F.silu(self.wide(mixed))], 1))
        return self.fc(joined.squeeze(2).permute(0, 2, 1)).softmax(2)


class Patches(nn.Module):
    """ViTSTR: patches, a class token, positions, PyTorch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.token, self.positions = nn.Parameter(torch.ones(1, 1, 16) * 0.1), nn.Parameter(torch.ones(1, 33, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1)
        return self.fc(self.encoder(tokens + self.positions)).softmax(-1)


class Craft(nn.Module):
    """CRAFT: two maps, channels last, from levels that are resized to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 8, 2), block(8, 16, 2)
        self.dilated = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(16, 24, 3, padding=6, dilation=6), nn.ReLU())
        self.up, self.head = block(40, 8), nn.Sequential(block(16, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        up = self.up(torch.cat([self.dilated(second), second], 1))
        up = F.interpolate(up, size=first.shape[2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([up, first], 1)).permute(0, 2, 3, 1)


class Windows(nn.Module):
    """Swin: attention in shifted windows, neighbours merged."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mixer = nn.Conv2d(3, 16, 4, 4), Mixer()
        self.norm, self.reduce = nn.LayerNorm(16), nn.Linear(64, 32, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.embed(x).permute(0, 2, 3, 1), (-2, -2), (1, 2))
        count, height, width, channels = x.shape
        apart = x.view(count, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        mixed = self.mixer(apart.reshape(-1, 16, channels)).view(count, height // 4, width // 4, 4, 4, channels)
        x = self.norm(torch.roll(mixed.permute(0, 1, 3, 2, 4, 5).reshape(x.shape), (2, 2), (1, 2)))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduce(torch.cat(corners, -1)).permute(0, 3, 1, 2)


class Unfolded(nn.Module):
    """MobileViT: attention over the pixels at one place of every 2 x 2 patch."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.join = Mixer(), block(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        count, width, rows, columns = x.shape
        patches = (rows // 2) * (columns // 2)
        apart = x.reshape(count * width * (rows // 2), 2, columns // 2, 2).transpose(1, 2)
        apart = apart.reshape(count, width, patches, 4).transpose(1, 3).reshape(count * 4, patches, width)
        mixed = self.mixer(apart).reshape(count, 4, patches, width).transpose(1, 3)
        mixed = mixed.reshape(count * width * (rows // 2), columns // 2, 2, 2).transpose(1, 2)
        return self.join(torch.cat([x, mixed.reshape(count, width, rows, columns)], 1))


class Ghost(nn.Module):
    """GhostNet: half of the channels are computed from the other half, and some are left over."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        half = (outer + 1) // 2
        self.outer, self.primary, self.cheap = outer, block(inner, half), block(half, half, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], 1)[:, : self.outer]


class Scales(nn.Module):
    """Res2Net: parts of the channels, each added to what the part before it became."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = block(8, 16), block(16, 8)
        self.parts = nn.ModuleList([block(4, 4) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.split(self.first(x), 4, 1)
        made = [whole[0], self.parts[0](whole[1])]
        for part, given in zip(self.parts[1:], whole[2:], strict=True):
            made.append(part(made[-1] + given))
        return x + self.last(torch.cat(made, 1))


class Coordinates(nn.Module):
    """Coordinate attention: means of rows and of columns, one layer for both, split again."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.rows, self.columns = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = torch.split(F.hardswish(self.squeeze(both)), [height, width], 2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


class Cbam(nn.Module):
    """CBAM: a gate of channels from mean and largest value by shared layers, and one of places."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.places = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.shared(F.adaptive_avg_pool2d(x, 1)) + self.shared(F.adaptive_max_pool2d(x, 1))
        x = x * gate.sigmoid()
        return x * self.places(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class Gated(nn.Module):
    """Half of the channels gate the other half, in a convolution and (SwiGLU) in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.both = nn.Sequential(block(3, 16, 4), nn.AvgPool2d((8, 1))), block(16, 32)
        self.wide, self.narrow, self.fc = nn.Linear(16, 48), nn.Linear(24, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(self.backbone(x)).chunk(2, 1)
        steps = (value * gate.sigmoid()).squeeze(2).transpose(1, 2)
        value, gate = self.wide(steps).chunk(2, -1)
        return self.fc(steps + self.narrow(F.silu(gate) * value)).softmax(-1)


class Sequence(nn.Module):
    """Rows as channels of one-dimensional convolutions, log-probabilities [T, N, K]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(block(3, 8, 4), block(8, 8))
        self.steps = nn.Sequential(
            nn.Conv1d(64, 32, 3, padding=1), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 32, 5, padding=4, dilation=2, groups=32), nn.Conv1d(32, 24, 1), nn.GELU(),
            nn.Conv1d(24, CLASSES, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self.backbone(x).flatten(1, 2)).permute(2, 0, 1).log_softmax(2)


class Queries(nn.Module):
    """Learned queries, one a character, attend to the features (SRN, ABINet)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.keys = nn.Sequential(block(3, 16, 4), block(16, 16, 2)), nn.Conv2d(16, 16, 1)
        self.queries, self.fc = nn.Parameter(torch.linspace(-1, 1, 96).reshape(1, 6, 16)), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        weights = (self.queries.expand(x.shape[0], -1, -1) @ self.keys(features).flatten(2) / 4.0).softmax(-1)
        return self.fc(weights @ features.flatten(2).transpose(1, 2)).softmax(-1)


NETWORKS = {
    "DBNet++: adaptive scale fusion": (DETECTOR, ScaleFusion),
    "PP-LCNetV3: branches added": (
        CLASSIFIER, lambda: classify(Branches(8, 8), block(8, 16), Branches(16), channels=16)
    ),
    "PP-OCRv3: RSE-FPN": (DETECTOR, Pyramid),
    "PP-OCRv3: SVTR_LCNet": (RECOGNISER, Lcnet),
    "ViTSTR: class token, PyTorch's encoder": (RECOGNISER, Patches),
    "CRAFT: dilated, levels resized, channels last": (DETECTOR, Craft),
    "Swin: shifted windows": (CLASSIFIER, lambda: Head(Windows(), 32)),
    "MobileViT: patches unfolded": (CLASSIFIER, lambda: Head(nn.Sequential(block(3, 16, 4), Unfolded()), 16)),
    "GhostNet: cheap channels, some left over": (CLASSIFIER, lambda: classify(Ghost(8, 15), block(15, 8))),
    "Res2Net: parts added one after another": (CLASSIFIER, lambda: classify(Scales(), block(8, 8))),
    "coordinate attention": (CLASSIFIER, lambda: classify(Coordinates(), block(8, 8))),
    "CBAM: gates of channels and places": (CLASSIFIER, lambda: classify(Cbam(), block(8, 8))),
    "channels that gate others, SwiGLU": (RECOGNISER, Gated),
    "one-dimensional convolutions, [T, N, K]": (RECOGNISER, Sequence),
    "learned queries for characters": (RECOGNISER, Queries),
}  # fmt: skip
CASES = [
    *(Case(SCRIPT, family, name, lambda make=make: scripted(make())) for name, (family, make) in NETWORKS.items()),
    Case(DYNAMO, DETECTOR, "DBNet++: adaptive scale fusion", lambda: dynamo(ScaleFusion())),
    Case(DYNAMO, RECOGNISER, "PP-OCRv3: SVTR_LCNet", lambda: dynamo(Lcnet())),
]
