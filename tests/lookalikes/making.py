"""Trains a look-alike on rendered images and compresses it by a recipe; `python -m tests.lookalikes.making` for all.

python -m tests.lookalikes.making                  all five, about a quarter of an hour on one core
python -m tests.lookalikes.making easyocr          one
python -m tests.lookalikes.making --write          write the table into docs/presets.md
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from torch import nn

from compress.artifacts import Report
from compress.data.synthetic import render_crop
from compress.data.synthetic_scenes import write_scenes
from compress.pipeline import run_recipe
from compress.pipeline.tasks import recipe_task
from compress.recipe import load_recipe
from compress.tasks.recognition import RecognitionTask
from compress.train import FitSettings, Objective, TrainingData, fit
from tests.lookalikes import networks

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
START, END = "<!-- look-alikes -->", "<!-- end -->"
GATES = {"metric_drop": 0.05, "size_ratio": 0.5}


@dataclass(frozen=True)
class LookAlike:
    """A network and how it is trained and compressed."""

    what: str
    network: Callable[[], nn.Module]
    task: Mapping[str, Any]
    metric_min: float
    """Far above chance: 0.5 of two directions, less than .01 of numbers of two to four digits, 0 of boxes."""
    epochs: int
    lr: float = 3e-3
    batch_size: int = 32
    macs: float = 0.7
    """What pruning is to leave."""


def _reader(**settings: Any) -> dict[str, Any]:
    return {"kind": "recognition", "charset": "digits.txt", "use_space": False, **settings}


LOOKALIKES = {
    "shufflenet": LookAlike(
        "classifier: ShuffleNetV2, RGB, ImageNet's mean and std, stretched, logits",
        networks.ShuffleNet,
        {
            "kind": "classification",
            "input": [3, 48, 96],
            "directions": True,
            "outputs": "logits",
            "preprocess": {
                "color": "rgb",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "resize": "stretch",
            },
        },
        0.75,
        epochs=8,
    ),
    "svtr": LookAlike(
        "recogniser: SVTR, two blocks of attention, PP-OCR's preset",
        networks.Svtr,
        _reader(input=[3, 32, 128]),
        0.5,
        epochs=16,
        lr=1e-3,
        batch_size=8,
    ),
    "doctr": LookAlike(
        "recogniser: docTR's CRNN (VGG, LSTM), preset doctr: RGB, logits, the blank last",
        networks.DoctrCrnn,
        _reader(preset="doctr"),
        0.5,
        epochs=10,
        lr=1e-3,
        batch_size=8,
    ),
    "easyocr": LookAlike(
        "recogniser: EasyOCR's CRNN (adaptive pooling, two LSTMs), preset easyocr: gray, logits",
        networks.EasyCrnn,
        _reader(preset="easyocr", input=[1, 64, 160]),
        0.5,
        epochs=20,
        lr=2e-3,
        batch_size=8,
    ),
    "mmocr": LookAlike(
        "detector: ResNet18-DBNet, bilinear Resize, preset mmocr: RGB",
        networks.ResNetDbnet,
        {"kind": "detection", "preset": "mmocr", "input": [3, 256, 256], "side": 320, "augment": "none"},
        0.2,
        epochs=70,
        lr=2e-3,
        batch_size=8,
    ),
}


def write_numbers(folder: Path, count: int, seed: int) -> Path:
    """Crops of numbers of two to four digits, and their label list."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = []
    for index in range(count):
        text = "".join(map(str, rng.integers(0, 10, rng.integers(2, 5))))
        cv2.imwrite(str(folder / "images" / f"{index}.png"), render_crop(text, rng, plain=True))
        lines.append(f"images/{index}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


def write_data(folder: Path, kind: str, counts: tuple[int, int]) -> dict[str, str]:
    """Rendered images to train and to validate with, once."""
    lists = {}
    for seed, (name, count) in enumerate(zip(("train", "val"), counts, strict=True), start=1):
        lists[name] = str(folder / f"{kind}_{name}" / "labels.txt")
        if not Path(lists[name]).exists():
            if kind == "detection":
                write_scenes(Path(lists[name]).parent, count, seed)
            else:
                write_numbers(Path(lists[name]).parent, count, seed)
    return lists


def recipe_of(name: str, folder: Path, data: Mapping[str, str]) -> dict[str, Any]:
    """The recipe, as plain data: scan, prune, reconstruct, fine-tune, quantise."""
    one = LOOKALIKES[name]
    training = {"batch_size": one.batch_size, "freeze_bn": True}
    floor = {"metric_min": one.metric_min} if one.metric_min else {}
    return {
        "version": 1,
        "model": f"tests.lookalikes.networks:{one.network.__name__}",
        "weights": str(folder / f"{name}.pt"),
        "task": dict(one.task),
        "data": dict(data),
        "out": str(folder / name),
        "threads": 1,
        "steps": [
            {"sensitivity": {"ratios": [0.25, 0.5], "images": 16 if one.task["kind"] == "detection" else 128}},
            {"prune": {"target": {"macs": one.macs}, "align": 4}},
            {"reconstruct": {}},
            {"finetune": {"epochs": 3, "lr": 1e-3, **training}},
            {"quantize": {"epochs": 1, "lr": 1e-4, "batch_size": one.batch_size, "optimize": "size"}},
        ],
        "gates": {**GATES, "macs_ratio": one.macs + 0.05, **floor},
    }


def make(name: str, folder: Path, counts: tuple[int, int], on_progress: Any = None) -> Report:
    """Train a look-alike from random weights, and compress it.

    Args:
        name: of `LOOKALIKES`.
        folder: of everything that is written.
        counts: images to train and to validate with.
        on_progress: as `run_recipe`'s.
    """
    one, folder = LOOKALIKES[name], folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "digits.txt").write_text("\n".join("0123456789"))
    kind = "detection" if one.task["kind"] == "detection" else "crops"
    file = folder / f"{name}.yaml"
    recipe = recipe_of(name, folder, write_data(folder, kind, counts))
    weights = folder / f"{name}.pt"
    torch.set_num_threads(1)
    if not weights.exists():
        torch.manual_seed(0)
        torch.save(one.network().state_dict(), weights)
        file.write_text(yaml.safe_dump(recipe))
        torch.save(_trained(name, one, file).state_dict(), weights)
    file.write_text(yaml.safe_dump(recipe))
    return run_recipe(load_recipe(file), f"python -m tests.lookalikes.making {name}", on_progress)


def _trained(name: str, one: LookAlike, file: Path) -> nn.Module:
    """The network, trained from random weights by the task's own loss."""
    task = recipe_task(load_recipe(file))
    if isinstance(task, RecognitionTask):  # CTC learns nothing for the first thousand steps; less so of plain images
        task.augment = False
    torch.manual_seed(0)
    network = one.network()
    started = time.monotonic()
    fitted = fit(
        network,
        TrainingData(
            lambda epoch: task.train_batches(epoch=epoch, batch_size=one.batch_size, seed=0),
            task.train_steps(one.batch_size),
        ),
        Objective(
            task.loss, lambda module: task.evaluate(lambda images: module(torch.from_numpy(images)).numpy()).metric
        ),
        FitSettings(epochs=one.epochs, lr=one.lr, warmup_epochs=1),
    )
    print(f"{name}: trained to {fitted.best_metric:.3f} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return network.eval()


def row(name: str, report: Report) -> str:
    """A row of the table of docs/presets.md."""
    first, last = report.stages[0], report.stages[-1]
    gates = "met" if all(gate.passed for gate in report.gates) else "missed"
    macs, size = (getattr(last.cost, key) / getattr(first.cost, key) for key in ("macs", "size_bytes"))
    metrics = f"{first.score.metric:.3f} | {last.score.metric:.3f}"
    return f"| {LOOKALIKES[name].what} | {metrics} | {macs:.2f}x | {size:.2f}x | {gates} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make those that are named, and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(LOOKALIKES))
    parser.add_argument("--out", type=Path, default=Path("runs/lookalikes"))
    parser.add_argument("--write", action="store_true", help="write the table into docs/presets.md")
    given = parser.parse_args(arguments)
    rows = []
    for name in given.names or LOOKALIKES:
        counts = (320, 40) if name == "mmocr" else (1600, 200)
        report = make(name, given.out, counts)
        rows.append(row(name, report))
        print(rows[-1], flush=True)
    if given.write:
        head = "| network | metric, fp32 | metric, int8 | MACs | size | gates |\n|---|---|---|---|---|---|\n"
        text = PAGE.read_text()
        before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
        PAGE.write_text(f"{before}\n{head}" + "\n".join(rows) + f"\n{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
