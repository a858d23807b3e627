"""What the tasks ask of outputs that are probabilities over classes in their last dimension."""

from torch import Tensor

from compress.errors import ModelError

MIN_PROBABILITY = 1e-30
"""Probabilities are raised to this before the logarithm, so that a saturated softmax costs 69, not infinity.

Below it there is no gradient, so it must lie below whatever a network that is wrong may say. Above it the gradient in
the softmax's logits is that of cross entropy, p - 1 for the right class, however wrong the network is: for logits up to
69 apart. Float32 goes down to 1e-38, but the gradient in the probability is 1/p, and a loss may have a weight.
"""


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
