"""One update of a network's weights: forward pass, losses, gradients, optimiser; on any device."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from compress.compute.device import device_of, move
from compress.compute.memory import largest_batch, memory_ran_out
from compress.compute.names import Precision
from compress.compute.precision import autocast
from compress.compute.processes import Team
from compress.errors import TrainingError
from compress.train.settings import Objective


class Images(Protocol):
    """What a batch must have: images [N, 3, H, W]; the loss knows the rest."""

    @property
    def images(self) -> Tensor:
        """Images [N, 3, H, W] float32."""


@dataclass(frozen=True)
class Lesson:
    """What a network learns from a batch, and how it is computed."""

    objective: Objective
    precision: Precision = "float32"
    memory: torch.memory_format = torch.channels_last

    def value(self, module: nn.Module, batch: Images) -> Tensor:
        """The sum of all losses, a scalar with a gradient. `batch` is on the module's device.

        Layers compute in `precision`, losses and teachers in float32.
        """
        wanted = self.objective
        images = batch.images.contiguous(memory_format=self.memory)
        watching = nullcontext() if wanted.features is None else wanted.features.watch(module)
        with watching as watched, autocast(self.precision, images.device):
            made = module(images)
        outputs = made[0] if isinstance(made, tuple) else made
        if self.precision != "float32":
            outputs = outputs.float()
        value = wanted.loss(outputs, batch)
        if watched is not None:
            value = value + watched.loss(images)
        if wanted.teacher is not None and wanted.distillation_loss is not None and wanted.distill > 0:
            with torch.no_grad():
                taught = wanted.teacher(batch.images)
            value = value + wanted.distill * wanted.distillation_loss(outputs, taught)
        return value


def take_step(
    module: nn.Module,
    batch: Images,
    lesson: Lesson,
    tuner: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    team: Team | None = None,
) -> tuple[float, int]:
    """One update; returns the loss and the number of images. Nothing is updated when it is not finite.

    With a team, `batch` is this process's share, and loss and images are those of all.

    Raises:
        TrainingError: memory is not enough for the batch; the message says how many images fit.
    """
    device = device_of(module)
    try:
        return _update(module, move(batch, device), lesson, tuner, scaler, team)
    except RuntimeError as error:
        if not memory_ran_out(error):
            raise
    raise TrainingError(_too_large(module, batch.images, device, lesson.precision, team.count if team else 1))


def _update(
    module: nn.Module,
    batch: Images,
    lesson: Lesson,
    tuner: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    team: Team | None,
) -> tuple[float, int]:
    value = lesson.value(module, batch)
    result, images = float(value.detach()), len(batch.images)
    if team is None and not math.isfinite(result):
        return result, images
    tuner.zero_grad(set_to_none=True)
    scaler.scale(value).backward()
    if team is not None:
        result, images = team.average(module, value.detach(), images)
    if math.isfinite(result):
        scaler.step(tuner)
        scaler.update()
    return result, images


def _too_large(module: nn.Module, images: Tensor, device: torch.device, precision: Precision, processes: int) -> str:
    """What to say of a batch that memory is not enough for, outside of the failed step, which holds some of it."""
    module.zero_grad(set_to_none=True)
    with autocast(precision, device):
        fits = largest_batch(module, images.to(device))
    count, _, height, width = images.shape
    found = f"batch_size: out of memory on {device} with {count} images of {width} x {height} in a batch"
    if not fits:
        return f"{found}; not even one passes through the network. Use smaller images, or --device cpu."
    return f"{found}; {fits} pass through the network. Try batch_size: {fits * processes}."
