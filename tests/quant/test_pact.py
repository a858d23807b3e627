"""PACT as a module: what it learns, keeps and shows."""

import copy

import pytest
import torch
from torch import nn

from compress.quant import PACT
from compress.quant.functional import MIN_ALPHA


@pytest.mark.parametrize(("lower", "integers"), [(None, 256), (0.0, 256), (-0.375, 256)])
def test_output_takes_at_most_256_values(lower: float | None, integers: int) -> None:
    y = PACT(lower, 2.0)(torch.linspace(-5, 5, 4001)).detach()
    assert len(y.unique()) == integers
    assert y.max() == pytest.approx(2.0, rel=1e-2)


def test_alpha_is_learned_unless_it_is_fixed_or_plain() -> None:
    assert isinstance(PACT().alpha, nn.Parameter)
    for pact in (PACT(learned=False), PACT(0.0, 1.0, fixed=True)):
        assert not isinstance(pact.alpha, nn.Parameter)
        assert "alpha" in pact.state_dict()


@pytest.mark.parametrize("lower", [None, 0.0, -0.375])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_range_stays_positive_whatever_the_optimiser_does(
    lower: float | None, optimizer: type[torch.optim.Optimizer]
) -> None:
    """The loss wants zero: alpha falls far below it with so large a rate, and the scale stays positive."""
    pact = PACT(lower, 0.1)
    tuner = optimizer(pact.parameters(), lr=1.0)
    for _ in range(20):
        loss = pact(torch.linspace(-2, 2, 50)).square().sum()
        tuner.zero_grad()
        loss.backward()
        tuner.step()
        scale, zero_point = pact.scale_and_zero_point()
        assert scale >= MIN_ALPHA / 256
        assert 0 <= zero_point <= 255
        assert pact(torch.linspace(-2, 2, 50)).isfinite().all()


def test_alpha_grows_towards_what_the_loss_wants() -> None:
    pact = PACT(0.0, 0.5)
    tuner = torch.optim.SGD(pact.parameters(), lr=0.1)
    x = torch.linspace(0, 3, 100)
    for _ in range(1000):
        loss = (pact(x) - x).square().mean()
        tuner.zero_grad()
        loss.backward()
        tuner.step()
    assert float(pact.alpha.detach()) == pytest.approx(3.0, abs=0.1)


def test_switched_off_it_hands_values_on() -> None:
    pact = PACT(0.0, 1.0)
    pact.enabled = False
    x = torch.randn(10)
    assert pact(x) is x


def test_copies_are_their_own() -> None:
    pact = PACT(0.0, 1.0)
    other = copy.deepcopy(pact)
    other.alpha.data.fill_(3.0)
    assert float(pact.alpha.detach()) == 1.0


@pytest.mark.parametrize(
    ("pact", "text"),
    [
        (PACT(None, 2.5), "range=[-alpha, 2.5], learned=True"),
        (PACT(0.0, 1.0, fixed=True), "range=[0, 1], learned=False"),
    ],
)
def test_shown_with_its_range(pact: PACT, text: str) -> None:
    assert text in repr(pact)
