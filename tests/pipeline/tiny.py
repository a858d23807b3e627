"""A network, crops and a recipe small enough to do everything in seconds."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from compress.data.synthetic import write_dataset
from compress.graph import from_torch, save_model
from compress.pipeline.tasks import make_task
from compress.recipe import Recipe, load_recipe
from compress.tasks.base import Task

SHAPE = (3, 16, 32)


class Tiny(nn.Module):
    """Three convolutions and a linear layer: three groups of channels to prune."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.second = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU())
        self.fc = nn.Linear(16 * 8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(self.stem(x)))
        return torch.softmax(self.fc(torch.flatten(nn.functional.max_pool2d(x, (4, 4)), 1)), 1)


def build() -> nn.Module:
    """The factory that specs name; the same weights each time."""
    torch.manual_seed(0)
    return Tiny().eval()


def three_classes() -> nn.Module:
    """A network that does not fit the task."""
    return Tiny(3)


def broken() -> nn.Module:
    """A factory that fails, and says so in two lines."""
    raise RuntimeError("no such\nbackbone")


def not_a_module() -> int:
    """A factory of something else."""
    return 3


def needs_more(depth: int) -> nn.Module:
    """A factory that cannot be called without arguments."""
    return Tiny(depth)


class CountingTask:
    """Stands for a user's task; keeps what it was made from."""

    def __init__(self, train: Any, val: Any, *, input_shape: tuple[int, int, int] = SHAPE) -> None:
        self.given = (train, val, input_shape)


STEPS: dict[str, dict[str, Any]] = {
    "sensitivity": {"ratios": [0.25, 0.5]},
    "prune": {"target": {"macs": 0.7}, "align": 4},
    "finetune": {"epochs": 3, "batch_size": 6, "lr": 0.01, "distill": 0.0},
    "quantize": {"epochs": 2, "batch_size": 6, "calibration": 8, "lr": 0.003, "distill": 0.1, "optimize": "size"},
}
"""Enough training for the metric to rise, so that an epoch is kept and not the start."""


def write_inputs(folder: Path, crops: int = 12) -> Path:
    """The model, and rendered crops to train and validate on; returns the folder."""
    for name, content in _inputs(crops).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@cache
def _inputs(crops: int) -> dict[str, bytes]:
    """Path in the folder -> what is in it; exported and rendered once."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        save_model(from_torch(build(), torch.zeros(1, *SHAPE)), folder / "model.onnx")
        write_dataset(folder / "train", crops, 1)
        write_dataset(folder / "val", crops, 2)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def task(folder: Path) -> Task:
    """The task of what `write_inputs` wrote."""
    lists = {part: [folder / part / "labels.txt"] for part in ("train", "val")}
    return make_task("classification", **lists, input_shape=SHAPE, directions=True)


def recipe(folder: Path, out: str = "out", steps: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Recipe:
    """A recipe over these inputs; `changes` replace top-level keys."""
    data = {
        "version": 1,
        "model": "model.onnx",
        "task": {"kind": "classification", "input": list(SHAPE), "directions": True},
        "data": {"train": "train/labels.txt", "val": "val/labels.txt"},
        "threads": 1,
        "steps": [{name: settings} for name, settings in (STEPS if steps is None else steps).items()],
        "compare": {"rounds": 3},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_recipe(path, [f"out={folder / out}"])


def stop_when(text: str, count: int = 1) -> Callable[[int, int, str], None]:
    """Progress that raises KeyboardInterrupt at the count-th message holding the text."""
    seen = 0

    def on_progress(done: int, total: int, message: str) -> None:
        nonlocal seen
        seen += text in message
        if seen == count:
            raise KeyboardInterrupt

    return on_progress
