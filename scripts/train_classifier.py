"""Train the text-direction classifier from scratch on rendered word crops, and write it as ONNX.

    python scripts/train_classifier.py --out runs/classifier.onnx
    python scripts/train_classifier.py --out runs/quick.onnx --work runs/quick --crops 500 --epochs 1 1 1 1

The network is PP-OCR's (compress/zoo/classifier.py); every crop is used upright and turned by 180 degrees. Four
stages, because learning from hard crops alone starts very slowly: plain crops, then realistic ones, both at 36x128
where a step costs less, then the same at the 48x192 that the network is used at, with PP-OCR's augmentation, and at
last twice as many crops that it has not seen.
Killed and started again with the same options it goes on after the last whole epoch.

Expected with the defaults: see compress/zoo/models/README.md, which also has the command, machine and time of the
file that ships.
"""

import argparse
import datetime
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress.artifacts import fingerprint, to_json
from compress.cli.progress import OnProgress, progress
from compress.data.synthetic import write_dataset
from compress.errors import CompressError
from compress.graph import from_torch, save_model
from compress.measure.machine import machine_info
from compress.measure.runtime import Session
from compress.tasks.base import Predict
from compress.tasks.classification import DirectionTask
from compress.train import fit
from compress.zoo.classifier import build_classifier

INPUT_SHAPE = (3, 48, 192)
SMALL_SHAPE = (3, 36, 128)
SEEDS = {"train": 0, "val": 1, "plain": 2, "more": 3}
"""Added to --seed; no crop is in two sets."""


@dataclass(frozen=True)
class Stage:
    """One call of `fit`."""

    name: str
    crops: str
    input_shape: tuple[int, int, int]
    epochs: int
    lr: float
    augment: bool


def main() -> None:
    options = parse_arguments()
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    module = build_classifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with progress(f"Finished epochs are in {options.work}; start again to go on.") as on_progress:
        lists = {kind: rendered(kind, options, on_progress) for kind in SEEDS}
        identity = ""
        for stage in stages(options):
            identity = run_stage(module, stage, lists, options, identity, on_progress)
    save_model(from_torch(module, torch.zeros(1, *INPUT_SHAPE)), options.out)
    held_out = DirectionTask([], [lists["val"]], input_shape=INPUT_SHAPE, directions=True)
    score = held_out.evaluate(Session(options.out, threads=options.threads).run)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    print(f"{score.name} {score.metric:.4f} on {score.count} held-out rendered images")
    seconds = time.monotonic() - started
    print(f"{datetime.date.today()}, {seconds:.0f} s, {options.threads} thread(s), {machine_info().cpu}")
    print(to_json(score), end="")


def stages(options: argparse.Namespace) -> tuple[Stage, ...]:
    """From easy and cheap to what the network is for."""
    plain, small, full, more = options.epochs
    return (
        Stage("1-plain", "plain", SMALL_SHAPE, plain, options.lr, augment=False),
        Stage("2-small", "train", SMALL_SHAPE, small, options.lr, augment=False),
        Stage("3-full", "train", INPUT_SHAPE, full, options.lr / 2, augment=True),
        Stage("4-more", "more", INPUT_SHAPE, more, options.lr, augment=False),
    )


def run_stage(
    module: nn.Module,
    stage: Stage,
    lists: dict[str, Path],
    options: argparse.Namespace,
    before: str,
    on_progress: OnProgress,
) -> str:
    """Train the module in place; return the stage's identity, on which the next one's depends."""
    train, val = [lists[stage.crops]], [lists["val"]]
    task = DirectionTask(train, val, input_shape=stage.input_shape, directions=True, augment=stage.augment)
    identity = fingerprint(before, task.fingerprint(), asdict(stage), options.batch_size, options.seed)
    result = fit(
        module,
        batches=lambda epoch: task.train_batches(epoch=epoch, batch_size=options.batch_size, seed=options.seed),
        steps_per_epoch=task.train_steps(options.batch_size),
        loss=task.loss,
        evaluate=lambda network: task.evaluate(predictor(network)).metric,
        epochs=stage.epochs,
        lr=stage.lr,
        weight_decay=1e-5,
        warmup_epochs=0.2,
        seed=options.seed,
        checkpoint=options.work / f"{stage.name}.pt",
        fingerprint=identity,
        on_progress=lambda done, total, message: on_progress(done, total, f"{stage.name}: {message}"),
    )
    print(f"{stage.name}: accuracy after each epoch {', '.join(f'{metric:.4f}' for metric in result.history)}")
    return identity


def predictor(module: nn.Module) -> Predict:
    """Images and outputs as arrays."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images).contiguous(memory_format=torch.channels_last)).numpy()

    return predict


def rendered(kind: str, options: argparse.Namespace, on_progress: OnProgress) -> Path:
    """The label list of a rendered set, made now unless a whole one of that size is there."""
    count = {"val": options.val_crops, "more": 2 * options.crops}.get(kind, options.crops)
    labels: Path = options.work / kind / "labels.txt"
    if labels.exists() and len(labels.read_text(encoding="utf-8").splitlines()) == count:
        return labels
    seed = options.seed + SEEDS[kind]
    return write_dataset(labels.parent, count, seed, plain=kind == "plain", on_progress=on_progress)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--work", type=Path, default=Path("runs/train_classifier"), help="crops and checkpoints")
    parser.add_argument("--crops", type=int, default=12000, help="training crops of each kind (default %(default)s)")
    parser.add_argument("--val-crops", type=int, default=1000, help="held-out crops (default %(default)s)")
    parser.add_argument(
        "--epochs", type=int, nargs=4, default=(2, 2, 2, 3), metavar="N", help="of each stage (default 2 2 2 3)"
    )
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default %(default)s)")
    parser.add_argument("--seed", type=int, default=100, help="of crops, weights and order (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
