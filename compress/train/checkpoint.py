"""The state of a training between epochs, and the file that it goes on from; on any device."""

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.artifacts import check_fresh, write_atomic
from compress.errors import ArtifactError
from compress.train.settings import Checkpoint


@dataclass
class State:
    """What changes from epoch to epoch beside weights and optimiser."""

    epoch: int
    best_metric: float
    best_epoch: int
    history: list[float]
    best_weights: dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds the state of; changed in place where it is restored.

    `averaged` is `module` itself where nothing is averaged; `scaler` has a state in fp16 alone.
    """

    module: nn.Module
    averaged: nn.Module
    tuner: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def state_dict(self) -> dict[str, Any]:
        """Weights, averages, and what optimiser and scaler remember."""
        scale = self.scaler.state_dict()
        return {
            "weights": self.module.state_dict(),
            **({} if self.averaged is self.module else {"averaged": self.averaged.state_dict()}),
            "optimizer": self.tuner.state_dict(),
            **({"scaler": scale} if scale else {}),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what `state_dict` gave, wherever its tensors are."""
        self.module.load_state_dict(saved["weights"])
        if self.averaged is not self.module:
            self.averaged.load_state_dict(saved["averaged"])
        self.tuner.load_state_dict(saved["optimizer"])
        if "scaler" in saved:
            self.scaler.load_state_dict(saved["scaler"])


def save_checkpoint(checkpoint: Checkpoint | None, trained: Trained, state: State) -> None:
    """Store the state after an epoch; nothing without a checkpoint."""
    if checkpoint is None:
        return
    stream = io.BytesIO()
    torch.save(
        {
            "fingerprint": checkpoint.fingerprint,
            **trained.state_dict(),
            "epoch": state.epoch,
            "best_metric": state.best_metric,
            "best_epoch": state.best_epoch,
            "history": state.history,
            "best_weights": state.best_weights,
        },
        stream,
    )
    write_atomic(checkpoint.file, stream.getvalue())


def load_checkpoint(checkpoint: Checkpoint | None, trained: Trained) -> State | None:
    """Restore the last epoch's state, if there is one.

    Raises:
        ArtifactError: the checkpoint is damaged or of another run.
    """
    if checkpoint is None or not checkpoint.file.exists():
        return None
    path = checkpoint.file
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        check_fresh(path, saved["fingerprint"], checkpoint.fingerprint)
        trained.load_state_dict(saved)
        return State(
            saved["epoch"], saved["best_metric"], saved["best_epoch"], list(saved["history"]), saved["best_weights"]
        )
    except ArtifactError:
        raise
    except Exception as error:  # torch.load and load_state_dict raise many kinds; all mean the same to the user
        raise ArtifactError(
            f"{path}: not a usable checkpoint ({type(error).__name__}). Delete it to train again."
        ) from error
