"""One training loop for everything: training from scratch, fine-tuning, distillation and QAT."""

import copy
import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.compute.device import device_of
from compress.compute.names import Precision
from compress.compute.precision import float32_ends, make_scaler
from compress.compute.processes import Team
from compress.errors import TrainingError
from compress.progress import Progress
from compress.train.checkpoint import State, Trained, load_checkpoint, save_checkpoint
from compress.train.features import FeatureLoss
from compress.train.mutual import PairFeatures
from compress.train.schedule import cosine_with_warmup
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
    *,
    batches: Callable[[int], Iterable[Any]],
    steps_per_epoch: int,
    loss: Callable[[Tensor, Any], Tensor],
    evaluate: Callable[[nn.Module], float],
    epochs: int,
    lr: float,
    optimizer: str = "adam",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    warmup_epochs: float = 0.0,
    parameter_groups: list[dict[str, Any]] | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
    distillation_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    distill: float = 0.0,
    features: FeatureLoss | PairFeatures | None = None,
    freeze_batch_norm: bool = False,
    precision: Precision = "float32",
    average: int = 0,
    keep_best: bool = True,
    seed: int = 0,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    team: Team | None = None,
    on_progress: Progress | None = None,
) -> FitResult:
    """Train a module in place and leave it with the weights that scored best on validation (the start included; the
    first of equal ones). It trains on the device where its weights are; batches are moved there.

    Args:
        module: any network of one image input; changed. Of several outputs the first is trained, as it is what is
            scored; what leads to the others alone keeps its weights.
        batches: epoch (from 1) -> its batches, the same ones every time it is asked.
        steps_per_epoch: number of batches in an epoch.
        loss: (outputs, batch) -> mean loss.
        evaluate: module -> metric, higher is better; called in evaluation mode after each epoch.
        epochs: passes over the data; 0 only evaluates.
        lr: peak learning rate; cosine to zero after the warm-up.
        optimizer: "adam" or "sgd".
        momentum: for SGD.
        weight_decay: L2 on all parameters (unless `parameter_groups` says otherwise).
        warmup_epochs: length of the linear warm-up.
        parameter_groups: optimiser groups with their own `lr` and `weight_decay`, e.g. for PACT.
        teacher: images -> the teacher's outputs, for distillation.
        distillation_loss: (outputs, teacher's outputs) -> mean distance.
        distill: weight of the distillation loss beside the task's own.
        features: what keeps the layers inside near a teacher's, beside the outputs.
        freeze_batch_norm: keep BatchNorm's running statistics and use them in training.
        precision: of the layers in the forward pass; weights, losses and teachers stay in float32.
        average: score and keep weights averaged over about this many steps instead of each epoch's last ones; 0 for
            none. See `average_weights`.
        keep_best: leave the module with its best weights; False with its last, for training from scratch, where the
            metric may stay at zero for many epochs.
        seed: of everything random in the loop.
        checkpoint: file to save the state to after each epoch, and to go on from if it exists.
        fingerprint: identity of the run; a checkpoint of another one is refused.
        team: the processes that train together, each on its share of every batch; `evaluate` and `checkpoint` matter in
            the first one alone, whose state the others take over.
        on_progress: called as (steps done, steps in all, message).

    Raises:
        TrainingError: the loss is NaN or infinite, or a batch is too large for the device's memory.
        ArtifactError: the checkpoint is damaged or of another run.
    """
    started = time.monotonic()
    memory = memory_format(module)
    module.to(memory_format=memory)  # type: ignore[call-overload]
    tuner = make_optimizer(
        parameter_groups or [{"params": list(module.parameters())}], optimizer, lr, momentum, weight_decay
    )
    peaks = [group["lr"] for group in tuner.param_groups]
    averaged = copy.deepcopy(module) if average else module
    trained = Trained(module, averaged, tuner, make_scaler(precision, device_of(module)))
    lesson = Lesson(loss, teacher, distillation_loss, distill, features, precision, memory)
    state = load_checkpoint(checkpoint, fingerprint, trained)
    if state is None:
        metric = _score(module, evaluate)
        state = State(0, metric, 0, [metric], copy.deepcopy(module.state_dict()))
    if team is not None:
        state.epoch = _same_start(team, trained, state.epoch)
    total = epochs * steps_per_epoch
    seen = Throughput()
    for epoch in range(state.epoch + 1, epochs + 1):
        torch.manual_seed(seed * 100_003 + epoch)
        module.train()
        if freeze_batch_norm:
            _freeze_batch_norm(module)
        seen.start_epoch()
        with float32_ends(module, precision):
            for index, batch in enumerate(batches(epoch)):
                step = (epoch - 1) * steps_per_epoch + index
                factor = cosine_with_warmup(step, total, round(warmup_epochs * steps_per_epoch))
                for group, peak in zip(tuner.param_groups, peaks, strict=True):
                    group["lr"] = peak * factor
                value, images = take_step(module, batch, lesson, tuner, trained.scaler, team)
                if not math.isfinite(value):
                    raise TrainingError(
                        f"loss is {value} in epoch {epoch}, step {index + 1} "
                        f"(learning rate {tuner.param_groups[0]['lr']:.2g}). "
                        f"Lower lr (now {lr:g}) or lengthen warmup_epochs (now {warmup_epochs:g})."
                    )
                if average:
                    average_weights(averaged, module, average, step)
                seen.add(images)
                if on_progress:
                    line = f"epoch {epoch}/{epochs} loss {value:.4f} best {state.best_metric:.4f}"
                    on_progress(step + 1, total, f"{line} {seen.of_epoch():.0f} images/s")
        _finish_epoch(state, epoch, averaged, evaluate)
        save_checkpoint(checkpoint, fingerprint, trained, state)
    module.load_state_dict(state.best_weights if keep_best else averaged.state_dict())
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


def make_optimizer(
    groups: list[dict[str, Any]], name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Adam (L2, not decoupled, as PP-OCR trains) or SGD with momentum.

    Raises:
        TrainingError: another name.
    """
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
    raise TrainingError(f"optimizer: got {name!r}. Use adam or sgd.")


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


def _freeze_batch_norm(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
