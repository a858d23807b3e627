"""What a training run is made of: the network's objective, its data, the settings of the loop, and its checkpoint."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.compute.names import Precision
from compress.train.features import Watching

Distance = Callable[[Tensor, Tensor], Tensor]
"""(outputs, outputs to come near to) -> mean distance."""


@dataclass(frozen=True)
class Objective:
    """What a network learns, and what it is scored by."""

    loss: Callable[[Tensor, Any], Tensor]
    """(outputs, batch) -> mean loss."""
    evaluate: Callable[[nn.Module], float]
    """Module -> metric, higher is better; called in evaluation mode after each epoch."""
    distillation_loss: Distance | None = None
    """(outputs, teacher's outputs) -> mean distance."""
    teacher: Callable[[Tensor], Tensor] | None = None
    """Images -> the teacher's outputs, for distillation."""
    distill: float = 0.0
    """Weight of the distillation loss beside the task's own."""
    features: Watching | None = None
    """What keeps the layers inside near a teacher's, beside the outputs."""


@dataclass(frozen=True)
class TrainingData:
    """The batches of each epoch."""

    batches: Callable[[int], Iterable[Any]]
    """Epoch (from 1) -> its batches, the same ones every time."""
    steps_per_epoch: int
    """Number of batches in an epoch."""


@dataclass(frozen=True)
class FitSettings:
    """How the loop trains. The rate is linear in the warm-up, then a cosine to zero."""

    epochs: int
    """Passes over the data; 0 only evaluates."""
    lr: float
    """Peak learning rate."""
    optimizer: str = "adam"
    """"adam" or "sgd"."""
    momentum: float = 0.9
    """For SGD."""
    weight_decay: float = 0.0
    """L2 on all parameters (unless parameter groups say otherwise)."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up."""
    freeze_batch_norm: bool = False
    """Keep BatchNorm's running statistics and use them in training."""
    precision: Precision = "float32"
    """Of the layers in the forward pass; weights, losses and teachers stay in float32."""
    average: int = 0
    """Score and keep weights averaged over about this many steps instead of each epoch's last ones; 0 for none. See
    `average_weights`."""
    keep_best: bool = True
    """Leave the module with its best weights; False with its last, for training from scratch, where the metric may stay
    at zero for many epochs."""
    seed: int = 0
    """Of everything random in the loop."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the state is saved after each epoch, and taken from if it exists."""

    file: Path
    fingerprint: str
    """Identity of the run; a checkpoint of another one is refused."""
