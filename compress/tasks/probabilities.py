"""What the tasks ask of outputs that are probabilities over classes in their last dimension."""

from torch import Tensor

from compress.errors import ModelError

MIN_PROBABILITY = 1e-12
"""Probabilities are raised to this before the logarithm, so that a saturated softmax costs 27.6, not infinity."""


def log_probabilities(outputs: Tensor) -> Tensor:
    """Logarithm of probabilities, which never is infinite."""
    return outputs.clamp_min(MIN_PROBABILITY).log()


def kl_divergence(outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(teacher || student) over all rows of [..., K], in nats."""
    teacher = teacher_outputs.clamp_min(MIN_PROBABILITY)
    return (teacher * (teacher.log() - log_probabilities(outputs))).sum(dim=-1).mean()


def check_probabilities(outputs: Tensor) -> None:
    """Raise ModelError unless the rows [..., K] are probabilities; NaN passes: the training loop names it better."""
    values = outputs.detach()
    if values.min() < 0 or (values.sum(dim=-1) - 1).abs().max() > 0.01:
        row = [round(value, 3) for value in values.flatten(0, -2)[0][:8].tolist()]
        shown = f"[{', '.join(map(str, row))}{', ...' if values.shape[-1] > len(row) else ''}]"
        raise ModelError(
            f"model: its output is not probabilities (first row {shown}). Expected rows that sum to 1: "
            "export the model with its softmax."
        )
