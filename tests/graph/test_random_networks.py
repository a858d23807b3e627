"""Any small CNN survives export, load, import, lowering and writing with the same outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.graph import from_torch, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.session import Session
from tests.graph.graphs import images
from tests.graph.networks import SpelledHardSwish, randomise

SHAPES = ((1, 3, 16, 24), (2, 3, 20, 16))
TOLERANCE = 2e-5
"""Up to eight random layers on top of one another, outputs of the order of 1."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "spelled hardswish": SpelledHardSwish,
    "hardsigmoid": nn.Hardsigmoid,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


class Block(nn.Module):
    """Convolution, perhaps BatchNorm, activation; added to, concatenated with or gating its input; perhaps pooled."""

    def __init__(self, channels: int, plan: dict[str, Any]) -> None:
        super().__init__()
        self.join, width = plan["join"], channels if plan["join"] in ("add", "gate") else plan["width"]
        groups = channels if plan["depthwise"] and width == channels else 1
        self.conv = nn.Conv2d(channels, width, 3, padding=1, groups=groups, bias=plan["bias"])
        self.norm = nn.BatchNorm2d(width) if plan["norm"] else nn.Identity()
        self.activation = ACTIVATIONS[plan["activation"]]()
        pools: dict[str, nn.Module] = {"max": nn.MaxPool2d(2), "mean": nn.AvgPool2d(3, 1, 1), "none": nn.Identity()}
        self.pool = pools[plan["pool"]]
        self.width = width + (channels if self.join == "concat" else 0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.conv(x)))
        joined = {
            "add": lambda: x + y,
            "concat": lambda: torch.cat([x, y], 1),
            "gate": lambda: x * y,
            "none": lambda: y,
        }
        return self.pool(joined[self.join]())


class Network(nn.Module):
    """A few random blocks and a head."""

    def __init__(self, plans: list[dict[str, Any]], head: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        width, blocks = 4, []
        for plan in plans:
            blocks.append(Block(width, plan))
            width = blocks[-1].width
        self.blocks = nn.Sequential(*blocks)
        self.head = head
        self.last = nn.ConvTranspose2d(width, 2, 2, 2) if head == "map" else nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        if self.head == "map":
            return torch.sigmoid(self.last(x))
        if self.head == "steps":
            return torch.log_softmax(self.last(x.mean(2).permute(0, 2, 1)), 2)
        return self.last(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


PLANS = st.lists(
    st.fixed_dictionaries(
        {
            "join": st.sampled_from(["none", "add", "concat", "gate"]),
            "width": st.integers(1, 6),
            "depthwise": st.booleans(),
            "bias": st.booleans(),
            "norm": st.booleans(),
            "activation": st.sampled_from(sorted(ACTIVATIONS)),
            "pool": st.sampled_from(["none", "none", "max", "mean"]),
        }
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=15)
@given(plans=PLANS, head=st.sampled_from(["map", "classes", "steps"]), seed=st.integers(0, 99))
def test_any_small_network_survives(plans: list[dict[str, Any]], head: str, seed: int) -> None:
    network = randomise(Network(plans, head), seed)
    template = from_torch(network, torch.zeros(1, *SHAPES[0][1:]))
    module = to_torch(template)
    written = to_onnx(module, template)
    lowered = lower_for_int8(written)
    for shape in SHAPES:
        x = images(shape, seed)
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
            computed = module(torch.from_numpy(x)).numpy()
        size = max(1.0, float(np.abs(expected).max()))
        for found in (computed, Session(template).run(x), Session(written).run(x), Session(lowered).run(x)):
            np.testing.assert_allclose(found / size, expected / size, atol=TOLERANCE)
