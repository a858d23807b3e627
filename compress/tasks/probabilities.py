"""Outputs over classes in their last dimension: probabilities, or what becomes such (logits, log-probabilities)."""

import numpy as np
from torch import Tensor

from compress.data.processing import Outputs
from compress.errors import ModelError

MIN_PROBABILITY = 1e-30
"""Probabilities are raised to this before the logarithm, so that a saturated softmax costs 69, not infinity.

Below it there is no gradient, so it must lie below whatever a network that is wrong may say. Above it the gradient in
the softmax's logits is that of cross entropy, p - 1 for the right class, however wrong the network is: for logits up to
69 apart. Float32 goes down to 1e-38, but the gradient in the probability is 1/p, and a loss may have a weight.
"""
SUM_TOLERANCE = 0.01
"""By how much sums of rows of probabilities may differ from 1; float16 sums 6625 classes to within 0.003."""
PROBABILITY_PLAY = 1e-3
"""By how much a map may leave [0, 1]: an int8 file's steps need not end at 1."""


def log_probabilities(outputs: Tensor, form: Outputs = "probabilities") -> Tensor:
    """Logarithm of what a model says of the classes in its last dimension, which never is infinite."""
    if form == "logits":
        return outputs.log_softmax(dim=-1)
    return outputs if form == "log_probabilities" else outputs.clamp_min(MIN_PROBABILITY).log()


def as_probabilities(outputs: np.ndarray, form: Outputs = "probabilities") -> np.ndarray:
    """Probabilities of the classes in the last dimension; NaN stays."""
    if form == "probabilities":
        return outputs
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True) if form == "logits" else outputs)
        return powers / powers.sum(axis=-1, keepdims=True) if form == "logits" else powers


def pixel_probabilities(outputs: Tensor, form: Outputs = "probabilities") -> Tensor:
    """Probability of text at each pixel."""
    if form == "logits":
        return outputs.sigmoid()
    return outputs.exp() if form == "log_probabilities" else outputs


def kl_divergence(outputs: Tensor, teacher_outputs: Tensor, form: Outputs = "probabilities") -> Tensor:
    """Mean Kullback-Leibler divergence KL(teacher || student) over all rows of [..., K], in nats."""
    if form != "probabilities":
        wanted = log_probabilities(teacher_outputs, form)
        return (wanted.exp() * (wanted - log_probabilities(outputs, form))).sum(dim=-1).mean()
    teacher = teacher_outputs.clamp_min(MIN_PROBABILITY)
    return (teacher * (teacher.log() - log_probabilities(outputs))).sum(dim=-1).mean()


def decoupled_kl(outputs: Tensor, teacher_outputs: Tensor, blank: int, least: float) -> Tensor:
    """KL(teacher || student) as its two parts, the second with a weight of its own; mean over rows of [..., K], nats.

    KL is that of "blank or not", and (1 - teacher's blank) times that of the characters among themselves. CTC networks
    say blank at most steps, where the second part has next to no weight: what the teacher then takes for the second
    best is not learned. Here its weight is at least `least`. With 0 this is KL.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation" (arXiv 2203.08679), with the blank as the target class.
    """
    teacher, student = (each.clamp_min(MIN_PROBABILITY) for each in (teacher_outputs, outputs))
    others = [index for index in range(outputs.shape[-1]) if index != blank]
    blanks = teacher[..., blank], student[..., blank]
    rest = [each[..., others].sum(dim=-1) for each in (teacher, student)]
    binary = blanks[0] * (blanks[0] / blanks[1]).log() + rest[0] * (rest[0] / rest[1]).log()
    shares = [each[..., others] / sum_[..., None] for each, sum_ in zip((teacher, student), rest, strict=True)]
    characters = (shares[0] * (shares[0].log() - shares[1].log())).sum(dim=-1)
    return (binary + rest[0].clamp_min(least) * characters).mean()


def check_probabilities(outputs: Tensor, form: Outputs = "probabilities") -> None:
    """Raise ModelError unless the rows [..., K] are what they are taken for; NaN passes: the training loop names it
    better. Any numbers may be logits."""
    if form == "logits":
        return
    values = outputs.detach() if form == "probabilities" else outputs.detach().exp()
    if values.min() < 0 or (values.sum(dim=-1) - 1).abs().max() > SUM_TOLERANCE:
        row = [round(value, 3) for value in values.flatten(0, -2)[0][:8].tolist()]
        shown = f"[{', '.join(map(str, row))}{', ...' if values.shape[-1] > len(row) else ''}]"
        raise ModelError(
            f"model: its output is not {form.replace('_', '-')} (first row {shown}). Expected rows that sum to 1"
            f"{'' if form == 'probabilities' else ' after exp'}: set task.outputs to what it is (logits, before the "
            "softmax), or export the model with its softmax."
        )


def check_pixels(low: float, high: float, whose: str = "model") -> None:
    """Raise ModelError unless values are probabilities, but for rounding. NaN passes: it is dealt with elsewhere."""
    if low < -PROBABILITY_PLAY or high > 1 + PROBABILITY_PLAY:
        raise ModelError(
            f"{whose}: its output is not probabilities (from {low:.3g} to {high:.3g}). Expected values in [0, 1]: "
            "set task.outputs: logits, or export the model with its sigmoid."
        )
