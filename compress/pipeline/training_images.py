"""Training images without their labels, for stages that only look at what layers compute."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import fx

from compress.errors import DataError
from compress.prune.reconstruct import bytes_per_pixel
from compress.tasks.base import Task

BATCH = 32
"""Images that run together."""
RECONSTRUCTED = 256
"""Images that layers are solved anew by, where nobody says how many."""
MEMORY = 2 << 30
"""Bytes that activations may take there: of large images fewer are used."""


def check_train_images(task: Task) -> None:
    """Raise DataError where a task has no images to train on."""
    if task.train_steps(1) == 0:
        raise DataError("no training images. Name label lists with --train (data.train in a recipe).")


def fitting_batches(module: fx.GraphModule, task: Task, count: int = RECONSTRUCTED) -> Iterator[np.ndarray]:
    """Batches of at most `count` training images, as many as `MEMORY` holds the activations of, at least one.

    Raises:
        DataError: there are no images to train on.
    """
    check_train_images(task)
    per_pixel, used = 0.0, 0.0
    for batch in task.calibration_batches(count, BATCH):
        per_pixel = per_pixel or bytes_per_pixel(module, torch.from_numpy(batch[:1].copy()))
        needed = per_pixel * batch.shape[-1] * batch.shape[-2]
        room = int((MEMORY - used) / needed)
        if used and room < 1:
            return
        part = batch[: max(1, room)]
        used += needed * len(part)
        yield part
