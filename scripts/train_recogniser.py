"""Train the text recogniser from scratch on rendered word crops, and write it as ONNX.

    python scripts/train_recogniser.py --out runs/recogniser.onnx
    python scripts/train_recogniser.py --out runs/quick.onnx --work runs/quick --crops 500 --epochs 1 1 1 1

The network is PP-OCR's CRNN (compress/zoo/recogniser.py), the characters are printable ASCII
(compress/zoo/models/latin.txt). CTC first learns to say nothing, and only then to tell letters apart, and the LSTM
learns nothing as long as its inputs say nothing. So the backbone starts alone, reading plain crops through a linear
layer of its own, and then teaches the whole network, step by step, to read them too; then come realistic crops, then
twice as many that it has not seen.
Killed and started again with the same options it goes on after the last whole epoch.

Expected with the defaults: see compress/zoo/models/README.md, which also has the command, machine and time of the
file that ships.
"""

import argparse
import copy
import datetime
import sys
import time
from pathlib import Path

import torch
from from_scratch import ALONE, SEEDS, BackboneReader, Stage, add_options, rendered, run_stage

from compress.artifacts import to_json
from compress.cli.progress import progress
from compress.errors import CompressError
from compress.graph import from_torch, save_model
from compress.measure.machine import machine_info
from compress.measure.session import Session
from compress.tasks.recognition import RecognitionTask
from compress.zoo import models_folder
from compress.zoo.recogniser import build_recogniser

INPUT_SHAPE = (3, 32, 320)
WIDTHS = (96, 160, 320)
"""Most crops are narrow: padding them to 320 would take three times as long."""
CHARSET = models_folder() / "latin.txt"


def main() -> None:
    options = parse_arguments()
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    module = build_recogniser().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with progress(f"Finished epochs are in {options.work}; start again to go on.") as on_progress:
        lists = {kind: rendered(kind, options, on_progress) for kind in SEEDS}
        identity, teacher = "", None
        for stage in stages(options):
            task = make_task([lists[stage.crops]], [lists["val"]], stage.augment)
            network = BackboneReader(module) if stage.name == ALONE else module
            identity = run_stage(network, stage, task, options, identity, on_progress, teacher)
            teacher = copy.deepcopy(network).eval() if stage.name == ALONE else None
    save_model(from_torch(module.eval(), torch.zeros(1, *INPUT_SHAPE)), options.out)
    score = make_task([], [lists["val"]]).evaluate(Session(options.out, threads=options.threads).run)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    print(f"{score.name} {score.metric:.4f} on {score.count} held-out rendered images")
    seconds = time.monotonic() - started
    print(f"{datetime.date.today()}, {seconds:.0f} s, {options.threads} thread(s), {machine_info().cpu}")
    print(to_json(score), end="")


def stages(options: argparse.Namespace) -> tuple[Stage, ...]:
    """From easy to what the network is for."""
    alone, plain, real, more = options.epochs
    return (
        Stage(ALONE, "plain", INPUT_SHAPE, alone, options.lr, augment=False),
        Stage("2-plain", "plain", INPUT_SHAPE, plain, options.lr, augment=False),
        Stage("3-real", "train", INPUT_SHAPE, real, options.lr, augment=False),
        Stage("4-more", "more", INPUT_SHAPE, more, options.lr, augment=False),
    )


def make_task(train: list[Path], val: list[Path], augment: bool = False) -> RecognitionTask:
    """Rendered crops, padded to the smallest of WIDTHS that holds them."""
    return RecognitionTask(train, val, charset=CHARSET, input_shape=INPUT_SHAPE, widths=WIDTHS, augment=augment)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, work="runs/train_recogniser", epochs=(2, 2, 3, 1), lr=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CompressError as error:
        sys.exit(f"Error: {error}")
