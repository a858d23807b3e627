"""One training loop for everything: training from scratch, fine-tuning, distillation and QAT."""

import copy
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compress.compute.device import device_of
from compress.compute.precision import float32_ends, make_scaler
from compress.compute.processes import Team
from compress.errors import TrainingError
from compress.progress import Progress
from compress.train.checkpoint import State, Trained, load_checkpoint, save_checkpoint
from compress.train.schedule import cosine_with_warmup
from compress.train.settings import Checkpoint, FitSettings, Objective, TrainingData
from compress.train.step import Lesson, take_step
from compress.train.throughput import Throughput


@dataclass(frozen=True)
class FitResult:
    """What a training run came to. `history` holds the metric after each epoch, starting with the untrained one."""

    best_metric: float
    best_epoch: int
    history: tuple[float, ...]
    seconds: float
    images_per_second: float = 0.0
    """While training, without the time of validation; 0 where no epoch was trained."""


def fit(
    module: nn.Module,
    data: TrainingData,
    objective: Objective,
    settings: FitSettings,
    *,
    parameter_groups: list[dict[str, Any]] | None = None,
    checkpoint: Checkpoint | None = None,
    team: Team | None = None,
    on_progress: Progress | None = None,
) -> FitResult:
    """Train a module in place and leave it with the weights that scored best on validation (the start included; the
    first of equal ones). It trains on the device where its weights are; batches are moved there.

    Args:
        module: any network of one image input; changed. Of several outputs the first is trained, as it is what is
            scored; what leads to the others alone keeps its weights.
        data: its batches.
        objective: its losses and its metric.
        settings: how long and how fast.
        parameter_groups: optimiser groups with their own `lr` and `weight_decay`, e.g. for PACT.
        checkpoint: what to go on from, if its file exists.
        team: the processes that train together, each on its share of every batch; what `evaluate` returns and
            `checkpoint` matter in the first one alone, whose state the others take over. All evaluate at the same time.
        on_progress: called as (steps done, steps in all, message).

    Raises:
        TrainingError: the loss is NaN or infinite, or a batch is too large for the device's memory.
        ArtifactError: the checkpoint is damaged or of another run.
    """
    started = time.monotonic()
    memory = memory_format(module)
    module.to(memory_format=memory)  # type: ignore[call-overload]
    tuner = make_optimizer(parameter_groups or [{"params": list(module.parameters())}], settings)
    peaks = [group["lr"] for group in tuner.param_groups]
    averaged = copy.deepcopy(module) if settings.average else module
    trained = Trained(module, averaged, tuner, make_scaler(settings.precision, device_of(module)))
    lesson = Lesson(objective, settings.precision, memory)
    state = load_checkpoint(checkpoint, trained)
    untrained = state is None if team is None else team.same(state is None)
    if state is None:  # but where the first process has a checkpoint, it does not score, and the others do not help
        metric = _score(module, objective.evaluate) if untrained else 0.0
        state = State(0, metric, 0, [metric], copy.deepcopy(module.state_dict()))
    if team is not None:
        state.epoch = _same_start(team, trained, state.epoch)
    epochs, steps = settings.epochs, data.steps_per_epoch
    seen = Throughput()
    for epoch in range(state.epoch + 1, epochs + 1):
        torch.manual_seed(settings.seed * 100_003 + epoch)
        module.train()
        if settings.freeze_batch_norm:
            freeze_batch_norm(module)
        seen.start_epoch()
        with float32_ends(module, settings.precision):
            for index, batch in enumerate(data.batches(epoch)):
                step = (epoch - 1) * steps + index
                factor = cosine_with_warmup(step, epochs * steps, round(settings.warmup_epochs * steps))
                for group, peak in zip(tuner.param_groups, peaks, strict=True):
                    group["lr"] = peak * factor
                value, images = take_step(module, batch, lesson, tuner, trained.scaler, team)
                if not math.isfinite(value):
                    raise TrainingError(
                        f"loss is {value} in epoch {epoch}, step {index + 1} "
                        f"(learning rate {tuner.param_groups[0]['lr']:.2g}). "
                        f"Lower lr (now {settings.lr:g}) or lengthen warmup_epochs (now {settings.warmup_epochs:g})."
                    )
                if settings.average:
                    average_weights(averaged, module, settings.average, step)
                seen.add(images)
                if on_progress:
                    line = f"epoch {epoch}/{epochs} loss {value:.4f} best {state.best_metric:.4f}"
                    on_progress(step + 1, epochs * steps, f"{line} {seen.of_epoch():.0f} images/s")
        _finish_epoch(state, epoch, averaged, objective.evaluate)
        save_checkpoint(checkpoint, trained, state)
    module.load_state_dict(state.best_weights if settings.keep_best else averaged.state_dict())
    module.eval()
    seconds = time.monotonic() - started
    return FitResult(state.best_metric, state.best_epoch, tuple(state.history), seconds, seen.of_all())


def _same_start(team: Team, trained: Trained, epoch: int) -> int:
    """Give every process the first one's state; returns the epoch that it is of."""
    stream = io.BytesIO()
    if team.is_main:
        torch.save(trained.state_dict(), stream)
    epoch, saved = team.same((epoch, stream.getvalue()))
    if not team.is_main:
        trained.load_state_dict(torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True))
    return epoch


def memory_format(module: nn.Module) -> torch.memory_format:
    """How images and weights lie in memory while a module is trained: channels last, 1.25x faster on CPUs (measured).

    Not so where a convolution of 1x1 with a stride reads fewer than 16 channels, as the first shortcut of a small
    ResNet does: there the backward pass of PyTorch 2.13 writes beyond its memory and crashes (x86 with AVX-512; seen
    for 3 to 15 channels, not for 16 and more, nor with channels first).
    """
    convolutions = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    crashes = any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < 16 for layer in convolutions
    )
    return torch.contiguous_format if crashes else torch.channels_last


def average_weights(averaged: nn.Module, module: nn.Module, steps: int, step: int) -> None:
    """Move the averaged module's weights towards the trained one's, after update number `step` (from 0).

    An exponential average with decay 1 - 1/steps, shorter in the beginning: (1 + step) / (10 + step). Everything that
    is not a parameter (BatchNorm's statistics) is copied.

    Source: Polyak and Juditsky 1992; the form is that of TensorFlow's ExponentialMovingAverage.
    """
    share = 1 - min(1 - 1 / steps, (1 + step) / (10 + step))
    with torch.no_grad():
        for kept, new in zip(averaged.parameters(), module.parameters(), strict=True):
            kept.lerp_(new, share)
        for fixed, copied in zip(averaged.buffers(), module.buffers(), strict=True):
            fixed.copy_(copied)


def make_optimizer(groups: list[dict[str, Any]], settings: FitSettings) -> torch.optim.Optimizer:
    """Adam (L2, not decoupled, as PP-OCR trains) or SGD with momentum.

    Raises:
        TrainingError: another name.
    """
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    raise TrainingError(f"optimizer: got {settings.optimizer!r}. Use adam or sgd.")


def _score(module: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    module.eval()
    with torch.no_grad():
        return evaluate(module)


def _finish_epoch(state: State, epoch: int, module: nn.Module, evaluate: Callable[[nn.Module], float]) -> None:
    """Score the epoch, and keep its weights if no earlier one was as good."""
    metric = _score(module, evaluate)
    state.epoch = epoch
    state.history.append(metric)
    if metric > state.best_metric:
        state.best_metric, state.best_epoch = metric, epoch
        state.best_weights = copy.deepcopy(module.state_dict())


def freeze_batch_norm(module: nn.Module) -> None:
    """Let BatchNorm layers use their running statistics, and keep them, while the rest is trained."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
