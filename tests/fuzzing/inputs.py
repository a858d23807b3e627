"""Good inputs, small and quick to use: what mutations start from."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from compress.data.synthetic import write_dataset
from compress.graph import from_torch, save_model
from compress.pipeline import run_recipe
from compress.recipe import load_recipe
from tests.pipeline import tiny

CLASSIFY = ("--input", "3,16,32", "--directions")
READ_SHAPE, FIND_SHAPE = (3, 16, 64), (3, 64, 64)
FIND = ("--task", "detection", "--input", "3,64,64", "--side", "64")
RECIPE = {
    "version": 1,
    "model": "tiny.onnx",
    "seed": 1,
    "task": {"kind": "classification", "input": [3, 16, 32], "directions": True, "labels": ["0", "180"]},
    "data": {"train": "train/labels.txt", "val": ["val/labels.txt"]},
    "threads": 1,
    "steps": [
        {"sensitivity": {"ratios": [0.5], "images": 4, "criterion": "l1"}},
        {"prune": {"target": {"ratio": 0.5}, "align": 1, "protect": ["second*"]}},
        {"finetune": {"epochs": 2, "batch_size": 4, "lr": 0.001, "distill": 0.5, "average": 2}},
        {"quantize": {"epochs": 0, "calibration": 4, "optimize": "size", "pact": {"percentile": 99.9}}},
    ],
    "compare": {"rounds": 3, "images": 2},
    "gates": {"metric_drop": 1.0, "size_ratio": 2.0},
}


class Rich(nn.Module):
    """Depthwise, residual, squeeze and excite, concatenation, a shuffle and a constant; probabilities [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.merge, self.fc = nn.Conv2d(16, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.norm(self.stem(x)))
        y = x + self.depthwise(x) * self.scale
        y = y * nn.functional.hardsigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.softmax(self.fc(torch.relu(self.merge(torch.cat([x, y], 1))).mean((2, 3))), 1)


class Reader(nn.Module):
    """Probabilities [N, T, 4] of blank, a, b and space."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.rnn, self.fc = nn.Conv2d(3, 8, (16, 4), (1, 4)), nn.LSTM(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.stem(x)).mean(2).permute(2, 0, 1)
        return torch.softmax(self.fc(self.rnn(steps)[0]).permute(1, 0, 2), 2)


class Finder(nn.Module):
    """A map [N, 1, H, W] of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.up = nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.relu(self.conv(torch.relu(self.stem(x))))))


MODELS = ("tiny", "rich", "reader", "finder")


def write_finished(folder: Path) -> None:
    """What the recipe leaves, in `finished`; and the checkpoint of a run that was stopped in its second epoch."""
    out = folder / "finished"
    recipe = load_recipe(folder / "recipe.yaml", [f"out={out}"])
    with contextlib.suppress(KeyboardInterrupt):
        run_recipe(recipe, "", tiny.stop_when("epoch 2/2"))
    shutil.copy(out / "finetuned.checkpoint", folder / "checkpoint")
    run_recipe(recipe, "")


def write_inputs(folder: Path) -> None:
    """Models, crops, words, scenes, a charset and a recipe."""
    torch.manual_seed(0)
    made = {"tiny": (tiny.Tiny(), tiny.SHAPE), "rich": (Rich(), tiny.SHAPE)}
    made |= {"reader": (Reader(), READ_SHAPE), "finder": (Finder(), FIND_SHAPE)}  # type: ignore[dict-item]
    for name, (module, shape) in made.items():
        save_model(from_torch(module.eval(), torch.zeros(1, *shape)), folder / f"{name}.onnx")
    write_dataset(folder / "train", 6, 1)
    write_dataset(folder / "val", 6, 2)
    (folder / "charset.txt").write_text("a\nb\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    box = [[8, 8], [56, 8], [56, 24], [8, 24]]
    scene = json.dumps([{"transcription": "a", "points": box}, {"transcription": "###", "points": box}])
    for name, label, size in (("words", "ab", (16, 30)), ("scenes", scene, (64, 64))):
        (folder / name).mkdir()
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
            cv2.imwrite(os.fspath(folder / name / f"{index}.png"), pixels)
        (folder / name / "labels.txt").write_text("".join(f"{index}.png\t{label}\n" for index in range(4)))
