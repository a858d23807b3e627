"""DBNet's losses: for the whole network in training, and for what an exported one has left of it.

Source: Liao et al. 2020 (arXiv 1911.08947), section 3.5, with the weights of PP-OCR (arXiv 2009.09941) and PaddleOCR:
5 x balanced cross entropy on the probability map, 10 x L1 on the threshold map, Dice on the binary map.

An exported network has the probability map alone. Balanced cross entropy, which makes text three times as likely as it
is, blurs that map's borders, and with no threshold branch beside it nothing sharpens them again: fine-tuned so with
weight 5, the deployed detector lost half its hmean on receipts in 5 epochs while its loss fell (.8685 to .4501).
So the post-processing's own constant threshold takes the branch's place: Dice on the map binarised there, as steeply as
DBNet does. With the weights below the same network reached .9096 in 3 epochs; with Dice on the map alone .8958.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.data.db_targets import DbMaps

ALPHA, BETA = 5.0, 10.0
ENTROPY, DICE, BINARY = 1.0, 2.0, 2.0
"""Weights where there is a probability map alone: balanced cross entropy, Dice, Dice of the binarised map."""
STEEPNESS, THRESHOLD = 50.0, 0.3
"""Binarisation: DBNet's k, and the threshold that post-processing uses unless it is set otherwise."""
NEGATIVE_RATIO = 3.0
"""The hardest pixels without text that are learned from, for each pixel of text (OHEM)."""
MIN_NEGATIVES = 500
"""As many at least, so that a batch without text teaches something, too."""
EPSILON, LEAST = 1e-6, 1e-30
LEAK = 0.01
"""Factor on the cross entropy's gradient at pixels labelled text where the network gives less than EPSILON."""


@dataclass(frozen=True)
class DbTargets:
    """Targets of a batch, each [N, H, W] float32; see `compress.data.db_targets.DbMaps`."""

    text: Tensor
    counted: Tensor
    threshold: Tensor | None = None
    threshold_counted: Tensor | None = None


def balanced_mean(losses: Tensor, positive: Tensor, counted: Tensor) -> Tensor:
    """Mean loss over pixels of text and the hardest of the others, `NEGATIVE_RATIO` times as many.

    Args:
        losses: of each pixel, [N, H, W].
        positive: 1 where there is text, [N, H, W].
        counted: 0 where nothing counts, [N, H, W].
    """
    positive = positive * counted
    negative = (1 - positive) * counted
    count = positive.sum()
    wanted = max(int(NEGATIVE_RATIO * float(count)), MIN_NEGATIVES)
    of_negatives = min(wanted, int(negative.sum()))
    hardest, _ = torch.topk((losses * negative).flatten(), of_negatives)
    return ((losses * positive).sum() + hardest.sum()) / (count + of_negatives + EPSILON)


def cross_entropy(probability: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross entropy of each pixel, in nats; never infinite.

    Below a probability of `EPSILON` (a logit of -13.8) a pixel labelled text has `LEAK` of the gradient that it would
    have. With no gradient there, a network that pruning left silent, with logits of -30 everywhere, never learns. With
    all of it, the labels' inaccuracy dominates: on receipts the deployed detector gives less than `EPSILON` to 25 % of
    the pixels of text, at edges of boxes that are drawn a few pixels off and between words, and their loss is the
    largest. docs/training.md, "Pixels that the labels get wrong", compares the three.

    >>> cross_entropy(torch.tensor([0.5, 1e-6, 1e-8]), torch.ones(3)).round(decimals=3).tolist()
    [0.6930000185966492, 13.815999984741211, 13.862000465393066]
    """
    text = probability.clamp_min(EPSILON).log()
    text = text + LEAK * (probability.clamp(LEAST, EPSILON).log() - math.log(EPSILON))
    return -(wanted * text + (1 - wanted) * (1 - probability).clamp_min(EPSILON).log())


def dice(probability: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """1 - Dice's coefficient over the whole batch: 0 where both agree, 1 where they share nothing.

    >>> ones = torch.ones(1, 2, 2)
    >>> float(dice(ones, ones, ones).round(decimals=4)), float(dice(0 * ones, ones, ones).round(decimals=4))
    (0.0, 1.0)
    """
    shared = (probability * wanted * counted).sum()
    total = (probability * counted).sum() + (wanted * counted).sum()
    return 1 - (2 * shared + EPSILON) / (total + EPSILON)


def binarise(probability: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """DBNet's differentiable binarisation, at the constant threshold of the post-processing: still in [0, 1].

    >>> binarise(torch.tensor([0.2, 0.3, 0.4])).round(decimals=2).tolist()
    [0.009999999776482582, 0.5, 0.9900000095367432]
    """
    return torch.sigmoid(STEEPNESS * (probability - threshold))


def probability_loss(probability: Tensor, targets: DbTargets, threshold: float = THRESHOLD) -> Tensor:
    """Loss of a probability map [N, H, W] alone, which is all that an exported DBNet computes.

    `threshold` is the post-processing's, where the map is cut.
    """
    entropy = balanced_mean(cross_entropy(probability, targets.text), targets.text, targets.counted)
    overlap = dice(probability, targets.text, targets.counted)
    borders = dice(binarise(probability, threshold), targets.text, targets.counted)
    return ENTROPY * entropy + DICE * overlap + BINARY * borders


def db_loss(maps: Tensor, targets: DbTargets) -> Tensor:
    """Loss of a network in training: `maps` [N, 3, H, W] are probability, threshold and binary map."""
    assert targets.threshold is not None
    assert targets.threshold_counted is not None
    probability, threshold, binary = maps.unbind(dim=1)
    balanced = balanced_mean(cross_entropy(probability, targets.text), targets.text, targets.counted)
    away = ((threshold - targets.threshold).abs() * targets.threshold_counted).sum()
    distance = away / (targets.threshold_counted.sum() + EPSILON)
    return ALPHA * balanced + BETA * distance + dice(binary, targets.text, targets.counted)


def map_distillation(probability: Tensor, teacher: Tensor, dilate: bool, threshold: float = THRESHOLD) -> Tensor:
    """How far a probability map [N, H, W] is from its teacher's: as `probability_loss`, with soft targets.

    The cross entropy's least value, the teacher's own entropy, is taken off.

    Args:
        probability: the student's map.
        teacher: the teacher's map.
        dilate: learn the teacher's map widened by one pixel to the right and below, as PP-OCRv2's CML does
            (arXiv 2109.03144, section 2.1: a 2x2 dilation of the teacher's response).
        threshold: the post-processing's, where both maps are cut.
    """
    if dilate:
        padded = torch.nn.functional.pad(teacher[:, None], (1, 0, 1, 0))
        teacher = torch.nn.functional.max_pool2d(padded, 2, stride=1)[:, 0]
    everywhere = torch.ones_like(teacher)
    excess = cross_entropy(probability, teacher) - cross_entropy(teacher, teacher)
    entropy = balanced_mean(excess, (teacher > 0.5).to(teacher.dtype), everywhere)
    overlap = dice(probability, teacher, everywhere)
    borders = dice(binarise(probability, threshold), binarise(teacher, threshold), everywhere)
    return ENTROPY * entropy + DICE * overlap + BINARY * borders


def stack_maps(maps: Sequence[DbMaps]) -> DbTargets:
    """Targets of a batch."""
    text = torch.from_numpy(np.stack([one.text for one in maps]))
    counted = torch.from_numpy(np.stack([one.counted for one in maps]))
    borders = [(one.threshold, one.threshold_counted) for one in maps]
    thresholds = [threshold for threshold, _ in borders if threshold is not None]
    bands = [band for _, band in borders if band is not None]
    if not thresholds:
        return DbTargets(text, counted)
    return DbTargets(text, counted, torch.from_numpy(np.stack(thresholds)), torch.from_numpy(np.stack(bands)))
