"""DBNet's losses against loops over pixels, and where they must stay finite."""

import math

import cv2
import numpy as np
import pytest
import torch

from compress.tasks import db_loss as module
from compress.tasks.db_loss import (
    LEAK,
    DbTargets,
    balanced_mean,
    cross_entropy,
    db_loss,
    dice,
    map_distillation,
    probability_loss,
)

RNG = np.random.default_rng(0)
TEXT = (RNG.random((2, 12, 16)) < 0.2).astype(np.float32)
COUNTED = (RNG.random((2, 12, 16)) < 0.8).astype(np.float32)
MAP = RNG.random((2, 12, 16)).astype(np.float32)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def reference_balanced(losses: np.ndarray, positive: np.ndarray, counted: np.ndarray, least: int) -> float:
    """Pixel by pixel: all text, and the 3 times as many (or `least`) hardest of the others, as far as there are."""
    texts, others = [], []
    for loss, text, counts in zip(losses.flat, positive.flat, counted.flat, strict=True):
        if counts:
            (texts if text else others).append(float(loss))
    hardest = sorted(others, reverse=True)[: max(3 * len(texts), least)]
    return (sum(texts) + sum(hardest)) / (len(texts) + len(hardest))


def reference_dice(probability: np.ndarray, text: np.ndarray, counted: np.ndarray) -> float:
    p, t = probability[counted > 0], text[counted > 0]
    return 1 - 2 * float((p * t).sum()) / float(p.sum() + t.sum())


def reference_binary(probability: np.ndarray) -> np.ndarray:
    """DBNet's k = 50, at the 0.3 of post-processing."""
    return 1 / (1 + np.exp(-50 * (probability.astype(np.float64) - 0.3)))


@pytest.fixture
def few_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that three times the text is what counts, on these small maps."""
    monkeypatch.setattr(module, "MIN_NEGATIVES", 5)


def test_cross_entropy_in_nats():
    p, t = tensor([0.5, 0.9, 0.9, 0.2]), tensor([1, 1, 0, 0.4])
    expected = [math.log(2), -math.log(0.9), -math.log(0.1), -0.4 * math.log(0.2) - 0.6 * math.log(0.8)]
    assert cross_entropy(p, t).tolist() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_a_saturated_map_is_finite():
    expected = [-math.log(1e-6) - 0.01 * math.log(1e-24), -math.log(1e-6)]
    assert cross_entropy(tensor([0, 1]), tensor([1, 0])).tolist() == pytest.approx(expected, rel=0.02)


@pytest.mark.usefixtures("few_negatives")
def test_balanced_mean_is_that_of_a_loop():
    expected = reference_balanced(MAP, TEXT, COUNTED, 5)
    assert balanced_mean(tensor(MAP), tensor(TEXT), tensor(COUNTED)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("few_negatives")
def test_balanced_mean_by_hand():
    """Two pixels of text (1, 3), one of them not counted; of the others the 5 hardest of 6 are taken: 9 8 7 6 5."""
    losses, text = tensor([[[1, 3, 9, 8], [7, 6, 5, 4]]]), tensor([[[1, 1, 0, 0], [0, 0, 0, 0]]])
    counted = tensor([[[0, 1, 1, 1], [1, 1, 1, 1]]])
    assert balanced_mean(losses, text, counted).item() == pytest.approx((3 + 9 + 8 + 7 + 6 + 5) / 6)


def test_without_text_the_500_hardest_pixels_count():
    losses = torch.arange(1000.0).reshape(1, 20, 50)
    nothing = torch.zeros_like(losses)
    assert balanced_mean(losses, nothing, nothing + 1).item() == pytest.approx(np.arange(500, 1000).mean())


def test_nothing_counted_costs_nothing():
    assert balanced_mean(tensor(MAP), tensor(TEXT), tensor(0 * MAP)).item() == 0
    assert dice(tensor(MAP), tensor(TEXT), tensor(0 * MAP)).item() == pytest.approx(0)


def test_dice_is_that_of_a_loop():
    expected = reference_dice(MAP, TEXT, COUNTED)
    assert dice(tensor(MAP), tensor(TEXT), tensor(COUNTED)).item() == pytest.approx(expected, rel=1e-5)


def reference_binarised(probability: np.ndarray) -> np.ndarray:
    """DBNet's 1 / (1 + exp(-k (P - T))) with k = 50 and T = 0.3."""
    return 1 / (1 + np.exp(-50 * (probability.astype(np.float64) - 0.3)))


@pytest.mark.usefixtures("few_negatives")
def test_probability_loss_is_entropy_and_twice_dice_of_the_map_and_of_the_binarised_map():
    entropy = -(TEXT * np.log(MAP) + (1 - TEXT) * np.log(1 - MAP))
    expected = (
        reference_balanced(entropy, TEXT, COUNTED, 5)
        + 2 * reference_dice(MAP, TEXT, COUNTED)
        + 2 * reference_dice(reference_binarised(MAP), TEXT, COUNTED)
    )
    loss = probability_loss(tensor(MAP), DbTargets(tensor(TEXT), tensor(COUNTED)))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("few_negatives")
def test_the_whole_loss_is_its_three_parts():
    """Entropy of the probability map, 10 x the mean distance of the threshold map in its bands, Dice of the binary."""
    probability, threshold, binary, wanted = (RNG.random(TEXT.shape).astype(np.float32) for _ in range(4))
    bands = (RNG.random(TEXT.shape) < 0.3).astype(np.float32)
    entropy = -(TEXT * np.log(probability) + (1 - TEXT) * np.log(1 - probability))
    expected = (
        5 * reference_balanced(entropy, TEXT, COUNTED, 5)
        + 10 * float(np.abs(threshold - wanted)[bands > 0].mean())
        + reference_dice(binary, TEXT, COUNTED)
    )
    maps = tensor(np.stack([probability, threshold, binary], axis=1))
    targets = DbTargets(tensor(TEXT), tensor(COUNTED), tensor(wanted), tensor(bands))
    assert db_loss(maps, targets).item() == pytest.approx(expected, rel=1e-4)


def test_the_whole_loss_without_any_text_is_finite():
    none = torch.zeros(1, 8, 8)
    targets = DbTargets(none, none + 1, none + 0.3, none)
    maps = torch.full((1, 3, 8, 8), 0.4, requires_grad=True)
    loss = db_loss(maps, targets)
    loss.backward()
    assert loss.item() == pytest.approx(-5 * math.log(0.6) + 1, rel=1e-4)
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30])
def test_gradients_of_saturated_maps_are_finite(value: float):
    probability = torch.full((2, 12, 16), value, requires_grad=True)
    probability_loss(probability, DbTargets(tensor(TEXT), tensor(COUNTED))).backward()
    assert probability.grad.isfinite().all()


@pytest.mark.parametrize(("logit", "weight"), [(-5.0, 1.0), (-13.0, 1.0), (-15.0, LEAK), (-30.0, LEAK), (-60.0, LEAK)])
def test_where_the_network_is_sure_that_there_is_no_text_a_label_weighs_little_but_not_nothing(
    logit: float, weight: float
):
    """The gradient of the entropy in a logit is sigmoid(logit) - 1, times LEAK below a probability of 1e-6."""
    logits = torch.full((1, 4, 4), logit, requires_grad=True)
    wanted = torch.ones(1, 4, 4)
    cross_entropy(torch.sigmoid(logits), wanted).sum().backward()
    torch.testing.assert_close(logits.grad, weight * (torch.sigmoid(logits.detach()) - 1))


def test_a_silent_network_learns():
    """As pruning leaves some: logits of -30 everywhere. Without any gradient there this stays silent for good."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    text = (images.mean(dim=1) > 0.5).float()
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))
    torch.nn.init.constant_(network[2].bias, -30.0)
    tuner = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(150):
        probability = torch.sigmoid(network(images))[:, 0]
        loss = probability_loss(probability, DbTargets(text, torch.ones_like(text)))
        tuner.zero_grad()
        loss.backward()
        tuner.step()
    assert ((probability > 0.3) == (text > 0)).float().mean() > 0.9


def test_a_perfect_map_costs_next_to_nothing_and_its_opposite_much():
    targets = DbTargets(tensor(TEXT), tensor(COUNTED))
    assert probability_loss(tensor(TEXT), targets).item() == pytest.approx(0, abs=1e-4)
    assert probability_loss(tensor(1 - TEXT), targets).item() > 15


def test_what_is_not_counted_has_no_gradient():
    probability = tensor(MAP).requires_grad_()
    probability_loss(probability, DbTargets(tensor(TEXT), tensor(COUNTED))).backward()
    assert probability.grad[tensor(COUNTED) == 0].abs().max() == 0


# --- distillation -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_negatives")
def test_distillation_is_as_the_loss_with_kullback_leibler_towards_the_teacher():
    student, teacher = MAP, RNG.random(MAP.shape).astype(np.float32)
    excess = teacher * np.log(teacher / student) + (1 - teacher) * np.log((1 - teacher) / (1 - student))
    ones = np.ones_like(MAP)
    expected = (
        reference_balanced(excess, teacher > 0.5, ones, 5)
        + 2 * reference_dice(student, teacher, ones)
        + 2 * reference_dice(reference_binarised(student), reference_binarised(teacher), ones)
    )
    assert map_distillation(tensor(student), tensor(teacher), dilate=False).item() == pytest.approx(expected, rel=1e-4)


def test_a_teacher_of_ones_and_zeros_is_like_a_label():
    """Its own entropy is nothing, so the distance is the loss with its map as text, everywhere counted."""
    hard = tensor(TEXT)
    expected = probability_loss(tensor(MAP), DbTargets(hard, torch.ones_like(hard)))
    found = map_distillation(tensor(MAP), hard, dilate=False)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_the_dilated_teacher_is_opencv_s_dilation():
    """By a 2x2 kernel whose anchor is its last element: each pixel the highest of itself, left, upper and both."""
    teacher = RNG.random(MAP.shape).astype(np.float32)
    kernel = np.ones((2, 2), np.uint8)
    wide = np.stack([cv2.dilate(one, kernel, anchor=(1, 1), borderValue=0) for one in teacher])
    for value, expected in ((MAP, wide), (wide, wide)):
        found = map_distillation(tensor(value), tensor(teacher), dilate=True)
        torch.testing.assert_close(found, map_distillation(tensor(value), tensor(expected), dilate=False))


# --- the post-processing's threshold ------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_negatives")
@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_maps_are_sharpened_where_post_processing_cuts(threshold: float):
    """1 / (1 + exp(-50 (P - T))) at the T that is given, in both losses; 0.3 is the default."""

    def cut(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-50 * (values.astype(np.float64) - threshold)))

    given = {} if threshold == 0.3 else {"threshold": threshold}
    entropy = -(TEXT * np.log(MAP) + (1 - TEXT) * np.log(1 - MAP))
    expected = reference_balanced(entropy, TEXT, COUNTED, 5) + 2 * reference_dice(MAP, TEXT, COUNTED)
    found = probability_loss(tensor(MAP), DbTargets(tensor(TEXT), tensor(COUNTED)), **given)
    assert found.item() == pytest.approx(expected + 2 * reference_dice(cut(MAP), TEXT, COUNTED), rel=1e-4)
    teacher, ones = np.roll(MAP, 3), np.ones_like(MAP)
    excess = teacher * np.log(teacher / MAP) + (1 - teacher) * np.log((1 - teacher) / (1 - MAP))
    expected = reference_balanced(excess, teacher > 0.5, ones, 5) + 2 * reference_dice(MAP, teacher, ones)
    found = map_distillation(tensor(MAP), tensor(teacher), dilate=False, **given)
    assert found.item() == pytest.approx(expected + 2 * reference_dice(cut(MAP), cut(teacher), ones), rel=1e-4)
