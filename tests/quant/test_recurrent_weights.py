"""Rounding of LSTM and GRU weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from compress.quant.recurrent_weights import recurrent_layers, round_recurrent, round_rows


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (8, [[1.27, -0.50, 0.01], [0.002, -0.254, 0.0]]),  # steps 1.27 / 127 and 0.254 / 127
        (7, [[1.27, -0.504, 0.0], [0.254 / 63, -0.254, 0.0]]),  # 1.27 / 63 = 0.02016: 25 steps are 0.504; 0.254 / 63
    ],
)
def test_each_row_has_its_own_step(bits: int, expected: list[list[float]]) -> None:
    rows = torch.tensor([[1.27, -0.503, 0.0051], [0.0025, -0.254, 0.0]])
    torch.testing.assert_close(round_rows(rows, bits), torch.tensor(expected), rtol=1e-3, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([7, 8]), size=st.floats(1e-4, 1e3))
def test_rounding_twice_changes_nothing(seed: int, bits: int, size: float) -> None:
    """What the file holds is a fixed point, to the last bit, and within half a step of what was trained."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(12, 9, generator=generator) * torch.rand(12, 1, generator=generator) * size
    rounded = round_rows(rows, bits)
    assert torch.equal(round_rows(rounded, bits), rounded)
    step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rounded - rows).abs() <= step * 0.5001).all()


class Two(nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(5, 4, bidirectional=True), nn.GRU(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)[0])[0]


class _LayersWhole(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.RNNBase)


def two() -> fx.GraphModule:
    torch.manual_seed(0)
    network = Two()
    return fx.GraphModule(network, _LayersWhole().trace(network))


def test_layers_are_found_by_name() -> None:
    assert {name: type(layer) for name, layer in recurrent_layers(two()).items()} == {
        "first": nn.LSTM,
        "second": nn.GRU,
    }


@pytest.mark.parametrize("bits", [{}, {"LSTM": 7}, {"GRU": 8}, {"LSTM": 7, "GRU": 8}])
def test_weights_of_the_named_kinds_are_rounded_and_nothing_else(bits: dict[str, int]) -> None:
    module = two()
    before = copy.deepcopy(module.state_dict())
    rounded = dict(round_recurrent(module, bits).named_parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    for name, value in before.items():
        kind = {"first": "LSTM", "second": "GRU"}[name.split(".")[0]]
        if kind in bits and ".weight" in name:
            assert torch.equal(rounded[name], round_rows(value, bits[kind]))
            assert not torch.equal(rounded[name], value)
        else:
            assert torch.equal(rounded[name], value)
    assert len(before) == 4 + 4 + 4
