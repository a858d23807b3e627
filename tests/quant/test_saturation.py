"""What readers of a tensor can tell apart, against their formulas."""

from math import inf

import pytest
import torch
from torch import Tensor, fx, nn

from compress.graph import from_torch, to_torch
from compress.graph.modules import HardSigmoid
from compress.quant import pacts, prepare_qat
from compress.quant.saturation import UNNOTICED, readable_range


class SpelledOut(nn.Module):
    """A GELU in five operators."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.erf(x / 2**0.5) + 1) * 0.5


class Gated(nn.Module):
    """x times a gate of x: SiLU as exporters write it, or a hard-swish of two operators."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Apart(nn.Module):
    """A tensor and itself moved: element by element, these are different values."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "pooled":
            return x - nn.functional.max_pool2d(x, 3, 1, 1)
        if self.how == "transposed":
            return x - x.transpose(2, 3)
        return torch.cat([x[:, :2] * torch.sigmoid(x[:, 2:])] * 2, 1)  # a gated linear unit


class Scaled(nn.Module):
    """Divided by a large number, or by one for each channel behind a hard-swish."""

    def __init__(self, by_channel: bool) -> None:
        super().__init__()
        self.register_buffer("by", torch.arange(1.0, 5.0).reshape(4, 1, 1) if by_channel else torch.tensor(1000.0))

    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.hardswish(x) if self.by.numel() > 1 else x) / self.by


class Both(nn.Module):
    """Two readers."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], 1)


class Net(nn.Module):
    """A convolution, what reads it, a convolution."""

    def __init__(self, reader: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.first, self.reader, self.second = nn.Conv2d(3, 4, 1), reader, nn.Conv2d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.reader(self.first(x)))


def imported(reader: nn.Module, channels: int = 4) -> tuple[fx.GraphModule, fx.Node]:
    """The network as the program reads it, and the first convolution's output."""
    module = to_torch(from_torch(Net(reader, channels).eval(), torch.rand(1, 3, 8, 8)))
    first = next(node for node in module.graph.nodes if node.op == "call_module")
    return module, first


EXACT = [
    (nn.Hardswish(), (-3.0, inf)),
    (HardSigmoid(1 / 6, 0.5), (-3.0, 3.0)),
    (HardSigmoid(0.2, 0.5), (-2.5, 2.5)),
    (nn.Hardtanh(-1, 2), (-1.0, 2.0)),
    (nn.LeakyReLU(0.1), (-inf, inf)),
    (nn.LeakyReLU(0.01), (-inf, inf)),
    (HardSigmoid(0.01, 0.5), (-inf, inf)),
    (nn.Hardtanh(-100, 100), (-inf, inf)),
    (Scaled(False), (-inf, inf)),
    (Scaled(True), (-3.0, inf)),
    (Apart("pooled"), (-inf, inf)),
    (Apart("transposed"), (-inf, inf)),
    (Apart("gated"), (-inf, inf)),
    (nn.Identity(), (-inf, inf)),
    (nn.Conv2d(4, 4, 1), (-inf, inf)),
    (nn.MaxPool2d(2), (-inf, inf)),
    (nn.Sequential(nn.MaxPool2d(2), nn.Hardswish()), (-3.0, inf)),
    (nn.Sequential(nn.Hardswish(), nn.Hardswish()), (-3.0, inf)),
    (Gated(HardSigmoid(1 / 6, 0.5)), (-3.0, inf)),
]


@pytest.mark.parametrize(("reader", "expected"), EXACT, ids=lambda value: str(value)[:30])
def test_ends_of_piecewise_linear_readers(reader: nn.Module, expected: tuple[float, float]) -> None:
    """To a place of the grid, 1/64."""
    found = readable_range(*imported(reader))
    assert found == pytest.approx(expected, abs=1 / 64)


@pytest.mark.parametrize("reader", [
    SpelledOut(), nn.GELU(), nn.SiLU(), Gated(nn.Sigmoid()), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.Softplus(),
    nn.Mish(),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_beyond_the_ends_a_smooth_reader_changes_by_less_than_is_noticed(reader: nn.Module) -> None:
    lower, upper = readable_range(*imported(reader))
    assert -16 < lower < -2
    with torch.no_grad():
        far = [torch.linspace(-30, lower, 500)] + ([torch.linspace(upper, 30, 500)] if upper < inf else [])
        for x in far:
            assert float(reader(x).max() - reader(x).min()) <= 2 * UNNOTICED
        inside = reader(torch.tensor([lower + 0.1, lower]))
        assert float((inside[0] - inside[1]).abs()) > 1e-5  # nor does it end too far out


def test_the_widest_reader_counts() -> None:
    assert readable_range(*imported(Both(nn.Hardswish(), HardSigmoid(0.2, 0.5)), 8)) == pytest.approx((-3, inf))
    assert readable_range(*imported(Both(nn.Hardswish(), nn.Identity()), 8)) == (-inf, inf)


def test_a_hard_swish_that_computes_in_integers_reads_as_much() -> None:
    """The quantiser in front of it is made when its reader has been replaced."""
    module, _ = imported(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 1)))
    prepared = prepare_qat(module, two_sided=True)
    assert [pact.within for _, pact in pacts(prepared) if pact.two_sided].count((-3.0, inf)) == 1
