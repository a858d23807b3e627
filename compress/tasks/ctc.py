"""CTC: outputs over time steps, the targets of a batch, and their loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from compress.data.charset import steps_needed
from compress.data.processing import Layout
from compress.errors import ModelError

A = TypeVar("A", np.ndarray, Tensor)


@dataclass(frozen=True)
class Targets:
    """Classes of each text in a batch, one after another [sum of lengths], their lengths [N], and whose they are."""

    classes: Tensor
    lengths: Tensor
    indices: tuple[int, ...]


def images_first(outputs: A, layout: Layout) -> A:
    """A model's outputs as [N, T, K]."""
    return outputs.swapaxes(0, 1) if layout == "tnk" else outputs


def check_batch(shape: tuple[int, ...], images: int, layout: Layout) -> None:
    """Raise ModelError unless outputs of that shape are of so many images."""
    batch, steps = ("second", "first") if layout == "tnk" else ("first", "second")
    place = int(batch == "second")
    if shape[place] == images:
        return
    other = "ntk" if batch == "second" else "tnk"
    found = shape[1 - place] == images
    raise ModelError(
        f"model: output shape {list(shape)} for {images} images. Expected {images} as the {batch} dimension."
        f"{f' If its {steps} dimension is the batch: task.layout: {other}.' if found else ''}"
    )


def make_targets(texts: Sequence[Sequence[int]], indices: Sequence[int]) -> Targets:
    """Targets of texts, each given as its classes."""
    return Targets(
        torch.tensor([number for classes in texts for number in classes]),
        torch.tensor([len(classes) for classes in texts]),
        tuple(map(int, indices)),
    )


def too_long(targets: Targets, steps: int) -> Iterator[int]:
    """Whose texts so many steps cannot hold."""
    classes = targets.classes.split(targets.lengths.tolist())
    for index, text in zip(targets.indices, classes, strict=True):
        if steps_needed(text.tolist()) > steps:
            yield index


def ctc_loss(logarithms: Tensor, targets: Targets, blank: int) -> Tensor:
    """CTC loss in nats per text, averaged over the batch as PaddleOCR does (not divided by the texts' lengths, as
    torch's "mean" is), of log-probabilities [N, T, K]. A text that T steps cannot hold adds zero."""
    count, steps = logarithms.shape[:2]
    losses = torch.nn.functional.ctc_loss(
        logarithms.transpose(0, 1),
        targets.classes.to(logarithms.device),
        torch.full((count,), steps),
        targets.lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return losses.mean()
