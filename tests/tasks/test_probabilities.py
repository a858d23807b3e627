"""Losses of probabilities: those of logits, gradients included, however wrong a network is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from compress.tasks.probabilities import MIN_PROBABILITY, decoupled_kl, kl_divergence, log_probabilities

WRONG = [[40.0, 0.0], [0.0, 28.0], [60.0, 0.0], [65.0, 3.0], [0.3, 0.1]]
"""Logits of two classes; 1, 0, 1, 1, 1 are right."""
TARGETS = torch.tensor([1, 0, 1, 1, 1])


def test_the_gradient_of_a_logit_is_that_of_cross_entropy_where_the_network_is_most_wrong():
    """p - 1 for the right class and p for the other."""
    logits = torch.tensor(WRONG, requires_grad=True)
    loss = -log_probabilities(torch.softmax(logits, 1)).gather(1, TARGETS[:, None]).sum()
    loss.backward()
    expected = torch.softmax(logits.detach(), 1) - functional.one_hot(TARGETS)
    torch.testing.assert_close(logits.grad, expected)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, TARGETS, reduction="sum"))


def test_ctc_learns_where_the_network_is_most_wrong():
    """As from the logits: blank at every step, by 40 or 60, where "1" and "2" stand."""
    logits = torch.zeros(6, 2, 3)
    logits[..., 0] = torch.tensor([40.0, 60.0])
    classes, lengths, steps = torch.tensor([1, 2, 2]), torch.tensor([2, 1]), torch.tensor([6, 6])
    grads, losses = [], []
    for name in ("probabilities", "logits"):
        given = logits.clone().requires_grad_()
        logs = log_probabilities(given.softmax(2)) if name == "probabilities" else given.log_softmax(2)
        loss = functional.ctc_loss(logs, classes, steps, lengths, reduction="none").sum()
        loss.backward()
        grads.append(given.grad)
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)
    assert grads[1].abs().amax() > 0.1


def test_distillation_learns_where_the_student_is_most_wrong():
    """The gradient of KL(teacher || student) in the student's logits is student - teacher."""
    logits = torch.tensor(WRONG, requires_grad=True)
    teacher = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0], [0.2, 0.8], [0.4, 0.6]])
    kl_divergence(torch.softmax(logits, 1), teacher).backward()
    torch.testing.assert_close(logits.grad, (torch.softmax(logits.detach(), 1) - teacher) / len(WRONG))


@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_what_is_zero_is_neither_infinite_nor_nan(weight: float):
    logits = torch.tensor([[1000.0, 0.0], [69.0, 0.0], [90.0, 0.0]], requires_grad=True)
    loss = weight * kl_divergence(torch.softmax(logits, 1), torch.tensor([[0.5, 0.5]] * 3))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert log_probabilities(torch.zeros(1)).item() == pytest.approx(math.log(MIN_PROBABILITY))


def test_ordinary_probabilities_are_what_they_were():
    """Bit for bit, down to 1e-12."""
    values = torch.logspace(-12, 0, 200)
    assert torch.equal(log_probabilities(values), values.log())


@given(st.integers(0, 2**32 - 1))
def test_decoupled_with_no_least_weight_is_kl(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs, teacher = (torch.randn(2, 3, 5, generator=generator).mul(3).softmax(-1) for _ in range(2))
    torch.testing.assert_close(
        decoupled_kl(outputs, teacher, 0, 0.0), kl_divergence(outputs, teacher), atol=1e-5, rtol=1e-4
    )


def test_decoupled_by_hand() -> None:
    """Blank .9 against .5 and characters .08 : .02 against .25 : .25, of which the characters weigh .3 and not .1."""
    binary = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    characters = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    outputs, teacher = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.9, 0.08, 0.02]])
    assert float(decoupled_kl(outputs, teacher, 0, 0.3)) == pytest.approx(binary + 0.3 * characters, rel=1e-5)
    # The same with the blank last.
    turned = outputs[:, [1, 2, 0]], teacher[:, [1, 2, 0]]
    assert float(decoupled_kl(*turned, 2, 0.3)) == pytest.approx(binary + 0.3 * characters, rel=1e-5)


def test_decoupled_is_finite_where_a_side_says_nothing() -> None:
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).requires_grad_()
    value = decoupled_kl(sure, torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]), 0, 0.1)
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert bool(torch.isfinite(sure.grad).all())
