"""Train the text detector from scratch on rendered scenes, and write it as ONNX.

    python scripts/train_detector.py --out runs/detector.onnx
    python scripts/train_detector.py --out runs/quick.onnx --work runs/quick --scenes 100 --epochs 1 1
    python scripts/train_detector.py --out runs/wide.onnx --work runs/wide --inner-channels 256 --se

The network is PP-OCR's DBNet (compress/zoo/detector.py); the two options of the last line are what PP-OCR took away
from it first. Two stages with DBNet's whole loss: small crops of the scenes, where a step costs less, then larger ones
that hold whole lines. A short training leaves the probabilities too flat for the usual thresholds, which are meant for
long ones; so at last the output's logits are scaled and shifted to what finds most in scenes of the training set.
Killed and started again with the same options it goes on after the last whole epoch.

Expected with the defaults: see compress/zoo/models/README.md, which also has the command, machine and time of the
file that ships.
"""

import argparse
import datetime
import itertools
import math
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from from_scratch import Stage, add_options, predictor, rendered, run_stage
from torch import nn

from compress.artifacts import to_json
from compress.cli.progress import progress
from compress.data.synthetic_scenes import write_scenes
from compress.errors import CompressError
from compress.graph import from_torch, save_model
from compress.measure.machine import machine_info
from compress.measure.session import Session
from compress.progress import Progress
from compress.tasks.detection import DetectionTask
from compress.zoo.detector import TextDetector, build_detector

INPUT_SHAPE = (3, 320, 320)
SMALL_SHAPE = (3, 224, 224)
SIDE = 640
"""Longest side of a scene when it is scored: they are rendered at this size."""
GAINS, SHIFTS, SHARPENED_ON = (1.0, 1.5, 2.0, 3.0), (0.0, 0.5, 1.0, 1.5), 60
"""Factors on logits, what is added to them before, and the number of training scenes that decide."""


def main() -> None:
    options = parse_arguments()
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    module = build_detector(inner_channels=options.inner_channels, se=options.se)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with progress(f"Finished epochs are in {options.work}; start again to go on.") as on_progress:
        train, val = (rendered(kind, options, on_progress, write_scenes) for kind in ("train", "val"))
        identity = f"inner channels {options.inner_channels}, SE {options.se}"
        for stage in stages(options):
            identity = run_stage(module, stage, make_task([train], [val], stage), options, identity, on_progress)
        sharpen(module, make_task([], [train], stages(options)[-1]), on_progress)
    save_model(from_torch(module, torch.zeros(1, *INPUT_SHAPE)), options.out)
    score = make_task([], [val], stages(options)[-1]).evaluate(Session(options.out, threads=options.threads).run)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    print(f"{score.name} {score.metric:.4f} on {score.count} held-out rendered scenes")
    seconds = time.monotonic() - started
    print(f"{datetime.date.today()}, {seconds:.0f} s, {options.threads} thread(s), {machine_info().cpu}")
    print(to_json(score), end="")


def stages(options: argparse.Namespace) -> tuple[Stage, ...]:
    """From cheap to what the network is for."""
    small, full = options.epochs
    return (
        Stage("1-small", "train", SMALL_SHAPE, small, options.lr, augment=True),
        Stage("2-full", "train", INPUT_SHAPE, full, options.lr, augment=True),
    )


def sharpen(module: TextDetector, task: DetectionTask, on_progress: Progress) -> None:
    """Scale and shift the probability's logits, in place, by those of GAINS and SHIFTS that score best; of equals the
    first. Source: Platt 1999 (there fitted by likelihood)."""
    module.eval()
    maps: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        maps.append(predictor(module)(images))
        return maps[-1]

    before = task.evaluate(remember, SHARPENED_ON)
    scores = {}
    choices = tuple(itertools.product(GAINS, SHIFTS))
    for done, (gain, shift) in enumerate(choices, start=1):
        rest = iter(maps)  # the task asks for the same images in the same order
        scores[gain, shift] = task.evaluate(partial(_next_moved, rest, gain, shift), SHARPENED_ON).metric
        on_progress(done, len(choices), f"gain {gain:g}, shift {shift:g}: {task.metric_name} {scores[gain, shift]:.4f}")
    gain, shift = max(choices, key=scores.__getitem__)
    last = module.probability[-2]
    assert isinstance(last, nn.ConvTranspose2d)
    assert last.bias is not None
    with torch.no_grad():
        last.weight *= gain
        last.bias.add_(shift).mul_(gain)
    after = f"{before.metric:.4f} -> {scores[gain, shift]:.4f} on {before.count} training scenes"
    print(f"gain {gain:g}, shift {shift:g}: {task.metric_name} {after}", flush=True)


def _next_moved(rest: Iterator[np.ndarray], gain: float, shift: float, _: np.ndarray) -> np.ndarray:
    return moved(next(rest), gain, shift)


def moved(probability: np.ndarray, gain: float, shift: float) -> np.ndarray:
    """The probability whose logit is gain * (logit + shift)."""
    kept = np.clip(probability, 1e-6, 1 - 1e-6)
    return 1 / (1 + ((1 - kept) / kept * np.float32(math.exp(-shift))) ** gain)


def make_task(train: list[Path], val: list[Path], stage: Stage) -> DetectionTask:
    """Crops of rendered scenes, with all of DBNet's targets."""
    return DetectionTask(
        train,
        val,
        input_shape=stage.input_shape,
        side=SIDE,
        threshold_maps=True,
        augment="strong" if stage.augment else "none",
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(
        parser,
        work="runs/train_detector",
        epochs=(8, 4),
        lr=3e-3,
        batch_size=8,
        images="scenes",
        counts=(1500, 100),
    )
    parser.add_argument(
        "--inner-channels", type=int, default=96, help="of the pyramid; at first PP-OCR had 256 (default %(default)s)"
    )
    parser.add_argument("--se", action="store_true", help="with the squeeze-and-excite parts that PP-OCR took out")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
