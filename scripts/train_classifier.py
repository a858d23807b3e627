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

import torch
from from_scratch import SEEDS, Stage, add_options, rendered, run_stage

from compress.artifacts import to_json
from compress.cli.progress import progress
from compress.errors import CompressError
from compress.graph import from_torch, save_model
from compress.measure.machine import machine_info
from compress.measure.session import Session
from compress.tasks.classification import DirectionTask
from compress.zoo.classifier import build_classifier

INPUT_SHAPE = (3, 48, 192)
SMALL_SHAPE = (3, 36, 128)


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
            train, val = [lists[stage.crops]], [lists["val"]]
            task = DirectionTask(train, val, input_shape=stage.input_shape, directions=True, augment=stage.augment)
            identity = run_stage(module, stage, task, options, identity, on_progress)
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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, work="runs/train_classifier", epochs=(2, 2, 2, 3), lr=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
