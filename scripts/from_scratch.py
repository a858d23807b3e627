"""What the scripts that train the shipped networks have in common: stages on rendered images, each of which resumes."""

import argparse
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.artifacts import fingerprint
from compress.data.synthetic import write_dataset
from compress.progress import Progress
from compress.tasks.base import Predict, Task
from compress.train import Checkpoint, FitSettings, Objective, TrainingData, fit
from compress.zoo.recogniser import TextRecogniser

SEEDS = {"train": 0, "val": 1, "plain": 2, "more": 3}
"""Sets of crops, and what is added to --seed for each; no crop is in two sets."""
ALONE = "1-backbone"
"""The first stage of a recogniser: its backbone without the LSTM."""


@dataclass(frozen=True)
class Stage:
    """One call of `fit`."""

    name: str
    crops: str
    input_shape: tuple[int, int, int]
    epochs: int
    lr: float
    augment: bool


class BackboneReader(nn.Module):
    """A recogniser's backbone with a linear layer instead of its LSTM: [N, 3, 32, W] -> probabilities [N, W/4, K]."""

    def __init__(self, recogniser: TextRecogniser) -> None:
        super().__init__()
        self.backbone = recogniser.backbone
        self.fc = nn.Linear(recogniser.backbone.out_channels, recogniser.fc.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Each time step from its own columns alone."""
        return torch.softmax(self.fc(self.backbone(x)[:, :, 0].permute(0, 2, 1)), dim=2)


def run_stage(
    module: nn.Module,
    stage: Stage,
    task: Task,
    options: argparse.Namespace,
    before: str,
    on_progress: Progress,
    teacher: nn.Module | None = None,
) -> str:
    """Train the module in place, near a teacher's outputs if there is one (it came out of the stage before).

    Returns:
        The stage's identity, on which the next one's depends.
    """
    identity = fingerprint(before, task.fingerprint(), asdict(stage), options.batch_size, options.seed)
    result = fit(
        module,
        TrainingData(
            lambda epoch: task.train_batches(epoch=epoch, batch_size=options.batch_size, seed=options.seed),
            task.train_steps(options.batch_size),
        ),
        Objective(
            task.loss,
            lambda network: task.evaluate(predictor(network)).metric,
            task.distillation_loss,
            teacher,
            distill=0.0 if teacher is None else 1.0,
        ),
        FitSettings(
            epochs=stage.epochs,
            lr=stage.lr,
            weight_decay=1e-5,
            warmup_epochs=0.2,
            keep_best=False,
            seed=options.seed,
        ),
        checkpoint=Checkpoint(options.work / f"{stage.name}.pt", identity),
        on_progress=lambda done, total, message: on_progress(done, total, f"{stage.name}: {message}"),
    )
    figures = ", ".join(f"{metric:.4f}" for metric in result.history)
    print(f"{stage.name}: {task.metric_name} after each epoch {figures}", flush=True)
    return identity


def predictor(module: nn.Module) -> Predict:
    """Images and outputs as arrays."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

    return predict


def rendered(
    kind: str, options: argparse.Namespace, on_progress: Progress, write: Callable[..., Path] | None = None
) -> Path:
    """The label list of a rendered set, made now unless a whole one of that size is there.

    `write`: called as (folder, count, seed, on_progress=); by default it writes word crops.
    """
    count = {"val": options.val_crops, "more": 2 * options.crops}.get(kind, options.crops)
    labels: Path = options.work / kind / "labels.txt"
    if labels.exists() and len(labels.read_text(encoding="utf-8").splitlines()) == count:
        return labels
    seed = options.seed + SEEDS[kind]
    write = write or functools.partial(write_dataset, plain=kind == "plain")
    return write(labels.parent, count, seed, on_progress=on_progress)


def add_options(
    parser: argparse.ArgumentParser,
    *,
    work: str,
    epochs: tuple[int, ...],
    lr: float,
    batch_size: int = 32,
    images: str = "crops",
    counts: tuple[int, int] = (12000, 1000),
) -> None:
    """The options of every such script. `images`: what it renders, `counts` of them to train on and to hold out."""
    shown = " ".join(map(str, epochs))
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--work", type=Path, default=Path(work), help=f"{images} and checkpoints (default %(default)s)")
    for flag, name, count, what in (("", "crops", counts[0], "training"), ("val-", "val_crops", counts[1], "held-out")):
        parser.add_argument(
            f"--{flag}{images}", dest=name, type=int, default=count, help=f"{what} {images} (default %(default)s)"
        )
    parser.add_argument(
        "--epochs", type=int, nargs=len(epochs), default=epochs, metavar="N", help=f"of each stage (default {shown})"
    )
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=100, help="of crops, weights and order (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
